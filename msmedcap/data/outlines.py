"""The outline of a mask as polygons along the edges of its pixels, exact: what lies inside them are the mask's pixels.

Comes in: a mask ``[H,W] bool``. Goes out: closed polygons in the picture's frame (pixel ``i`` covers ``[i, i + 1)``, so corners
are whole numbers). Outer borders run clockwise as seen on the screen, holes the other way round. For a screen that cannot show
every pixel of a large mask :func:`screen_outlines` reads fewer of them.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

# The turns a border tries at a corner where two of its pixels touch: the tightest first, so that each stays by itself.
_TURNS = {(1, 0): ((0, 1), (1, 0), (0, -1)), (0, 1): ((-1, 0), (0, 1), (1, 0)),
          (-1, 0): ((0, -1), (-1, 0), (0, 1)), (0, -1): ((1, 0), (0, -1), (-1, 0))}  # fmt: skip


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """The borders of ``mask [H,W] bool``: polygons ``[N,2]`` int32 (x, y), each closed by going back to its first corner.

    Pixels that touch at a corner only have borders of their own. An empty mask has none.
    """
    ways = _edges(np.asarray(mask, dtype=bool))
    found = []
    while ways:
        start = next(iter(ways))
        here, heading = start, ways[start][0]
        corners: list[tuple[int, int]] = []
        last: tuple[int, int] | None = None
        while True:
            free = ways[here]
            if last is not None:
                heading = next(turn for turn in _TURNS[last] if turn in free)
            free.remove(heading)
            if not free:
                del ways[here]
            if heading != last:
                corners.append(here)
            here, last = (here[0] + heading[0], here[1] + heading[1]), heading
            if here == start:
                break
        # Where it began in the midst of a straight side, that is no corner.
        if (corners[0][0] == corners[1][0] == corners[-1][0]) or (corners[0][1] == corners[1][1] == corners[-1][1]):
            corners = corners[1:]
        found.append(np.array(corners, dtype=np.int32))
    return found


def screen_outlines(mask: np.ndarray, longest: int) -> list[np.ndarray]:
    """:func:`outlines` of ``mask [H,W] bool`` as a screen of ``longest`` pixels shows it: polygons ``[N,2]`` float64, same frame.

    A larger mask is read at the pixels under the screen's; borders are off by at most one screen pixel. A smaller one is exact.
    """
    mask = np.asarray(mask, dtype=bool)
    if max(mask.shape) <= longest:
        return [polygon.astype(np.float64) for polygon in outlines(mask)]
    step = max(mask.shape) / longest
    rows, columns = (max(1, round(side / step)) for side in mask.shape)
    picked = mask[_under(rows, mask.shape[0])][:, _under(columns, mask.shape[1])]
    scale = np.array([mask.shape[1] / columns, mask.shape[0] / rows])
    return [polygon * scale for polygon in outlines(picked)]


def _under(pixels: int, source: int) -> np.ndarray:
    """The pixel of ``source`` under the centre of each of ``pixels`` over the same extent."""
    return ((np.arange(pixels) + 0.5) * source / pixels).astype(int)


def _edges(mask: np.ndarray) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Each corner's unit steps along the border, the mask to their right."""
    ways: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    padded = np.pad(mask, 1)
    # Between a row and the next: to the right above the mask, to the left below it; columns likewise, with the roles exchanged.
    rows, columns = _changes(padded[:-1, 1:-1], padded[1:, 1:-1])
    for x, y, begins in zip(columns.tolist(), rows.tolist(), padded[rows + 1, columns + 1].tolist(), strict=True):
        ways[(x, y) if begins else (x + 1, y)].append((1, 0) if begins else (-1, 0))
    rows, columns = _changes(padded[1:-1, :-1], padded[1:-1, 1:])
    for x, y, begins in zip(columns.tolist(), rows.tolist(), padded[rows + 1, columns + 1].tolist(), strict=True):
        ways[(x, y + 1) if begins else (x, y)].append((0, -1) if begins else (0, 1))
    return dict(ways)


def _changes(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns where two masks differ; on a large picture many times faster than ``np.nonzero``."""
    rows, columns = np.divmod(np.flatnonzero(before != after), before.shape[1])
    return rows, columns
