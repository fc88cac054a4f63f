"""The outline of a mask as polygons along the edges of its pixels, exact: what lies inside them are the mask's pixels.

Comes in: a mask ``[H,W] bool``. Goes out: closed polygons in the picture's frame (pixel ``i`` covers ``[i, i + 1)``, so corners
are whole numbers). Outer borders run clockwise as seen on the screen, holes the other way round. For a screen that cannot show
every pixel of a large mask :func:`screen_outlines` reads fewer of them.
"""

from __future__ import annotations

import numpy as np

_RIGHT, _DOWN, _LEFT, _UP = range(4)
_FEW = 64  # corners that are not worth looking at
_TURNS_TAKEN = 2  # each parity once: at best one corner in four stays
# How the border turns at a corner of pixels, (way in, way out), the mask to its right. The keys tell which of the four pixels are
# in the mask: 1 upper left, 2 upper right, 4 lower left, 8 lower right. Where two touch, each keeps a border of its own.
_TURNS: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((_DOWN, _LEFT),), 2: ((_LEFT, _UP),), 4: ((_RIGHT, _DOWN),), 8: ((_UP, _RIGHT),),
    14: ((_RIGHT, _UP),), 13: ((_DOWN, _RIGHT),), 11: ((_UP, _LEFT),), 7: ((_LEFT, _DOWN),),
    9: ((_DOWN, _LEFT), (_UP, _RIGHT)), 6: ((_LEFT, _UP), (_RIGHT, _DOWN)),
}  # fmt: skip


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """The borders of ``mask [H,W] bool``: polygons ``[N,2]`` int32 (x, y), each closed by going back to its first corner.

    Pixels that touch at a corner only have borders of their own. An empty mask has none.
    """
    rows, columns, ways_in, ways_out = _corners(np.asarray(mask, dtype=bool))
    following = np.empty(len(rows), dtype=np.int64)
    for way in (_RIGHT, _DOWN, _LEFT, _UP):
        # Along one line of the grid the sides that run one way follow each other, so the k-th that begins is the k-th that ends.
        along, line = (columns, rows) if way in (_RIGHT, _LEFT) else (rows, columns)
        sides = (np.flatnonzero(ways == way) for ways in (ways_out, ways_in))
        begin, end = (corners[np.lexsort((along[corners], line[corners]))] for corners in sides)
        following[begin] = end
    places = np.stack([columns, rows], axis=1).astype(np.int32)
    found, after, done = [], following.tolist(), bytearray(len(rows))
    for start in range(len(after)):
        border, here = [], start
        while not done[here]:
            done[here] = 1
            border.append(here)
            here = after[here]
        if border:
            found.append(places[border])
    return found


def screen_outlines(mask: np.ndarray, longest: int) -> list[np.ndarray]:
    """:func:`outlines` of ``mask [H,W] bool`` as a screen of ``longest`` pixels shows it: polygons ``[N,2]`` float64, same frame.

    A larger mask is read at the pixels under the screen's, and steps of one pixel become the slope they stand for: borders are
    off by at most one and a half screen pixels, and take a fraction of the corners. A smaller mask is exact.
    """
    mask = np.asarray(mask, dtype=bool)
    if max(mask.shape) <= longest:
        return [polygon.astype(np.float64) for polygon in outlines(mask)]
    step = max(mask.shape) / longest
    rows, columns = (max(1, round(side / step)) for side in mask.shape)
    picked = mask[_under(rows, mask.shape[0])][:, _under(columns, mask.shape[1])]
    scale = np.array([mask.shape[1] / columns, mask.shape[0] / rows])
    return [(straightened(sloped(polygon), 0.5) if len(polygon) > _FEW else polygon) * scale for polygon in outlines(picked)]


def sloped(polygon: np.ndarray) -> np.ndarray:
    """An outline ``[N,2]`` whose steps of one pixel are replaced by their middles, float64: half a pixel off at most."""
    corners = np.asarray(polygon, dtype=np.float64)
    if len(corners) <= 4:
        return corners
    following = np.roll(corners, -1, axis=0)
    step = np.abs(following - corners).sum(1) <= 1
    both = np.stack([corners, (corners + following) / 2], axis=1)
    return both[np.stack([~step & ~np.roll(step, 1), step], axis=1)]


def straightened(polygon: np.ndarray, most: float) -> np.ndarray:
    """``polygon [N,2]`` with fewer corners, float64: no point of its border lies farther than ``most`` from the new one.

    Every other corner goes at a time, where what has gone before and its own distance from the new side together allow it.
    """
    corners = np.asarray(polygon, dtype=np.float64)
    off = np.zeros(len(corners))  # how far the border may lie from the side that begins at each corner
    for turn in range(_TURNS_TAKEN):
        if len(corners) <= 4:
            break
        before, after = np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0)
        side, here = after - before, corners - before
        long = np.hypot(*side.T)
        along = (here * side).sum(1)
        away = np.abs(here[:, 0] * side[:, 1] - here[:, 1] * side[:, 0]) / np.maximum(long, 1e-9)
        total = away + np.maximum(np.roll(off, 1), off)
        # Beyond the ends of the new side its distance would be measured from a line that is not there.
        goes = (total <= most) & (along >= 0) & (along <= long**2) & (np.arange(len(corners)) % 2 == turn % 2)
        goes[-1] &= len(corners) % 2 == 0  # or it would go with the first, its neighbour
        if corners.shape[0] - goes.sum() < 4:
            break
        joined = np.roll(np.where(goes, total, 0), -1)
        off = np.maximum(off, joined)[~goes]
        corners = corners[~goes]
    return corners


def _corners(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns, ways in and ways out of every corner of the border; two where pixels touch."""
    inside = [np.flatnonzero(mask.any(axis)) for axis in (1, 0)]
    top, left = (int(lines[0]) if len(lines) else 0 for lines in inside)
    bottom, right = (int(lines[-1]) + 1 if len(lines) else 0 for lines in inside)
    padded = np.pad(mask[top:bottom, left:right], 1).view(np.uint8)
    around = padded[:-1, :-1] | padded[:-1, 1:] << 1 | padded[1:, :-1] << 2 | padded[1:, 1:] << 3
    # Straight sides, the outside and the inside have no corners; they are nearly everything.
    at = np.flatnonzero(np.isin(np.arange(16), list(_TURNS))[around])
    pixels = around.ravel()[at]
    parts = []
    for key, turns in _TURNS.items():
        rows, columns = np.divmod(at[pixels == key], around.shape[1])
        parts += [(rows, columns, *(np.full(len(rows), way) for way in turn)) for turn in turns]
    rows, columns, ways_in, ways_out = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows + top, columns + left, ways_in, ways_out


def _under(pixels: int, source: int) -> np.ndarray:
    """The pixel of ``source`` under the centre of each of ``pixels`` over the same extent."""
    return ((np.arange(pixels) + 0.5) * source / pixels).astype(int)
