"""Places of a picture hidden from everything that looks at it at once: what the picture, and not one branch's view, gives a word.

Comes in: a picture, and a function that says of changed pictures how likely they make something. Goes out: how far that falls when
a soft round place gives way to the blurred picture, by place and as a map. No model in sight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from msmedcap.explain.faithfulness import blurred

Array: TypeAlias = np.ndarray
LogScore: TypeAlias = Callable[[Array], Array]
"""Pictures uint8 ``[B,H,W,3]`` to logarithms ``[B,...]``."""

CELLS = 8
"""Places a side."""
_REACH = 0.6
"""The sigma of a place, as a share of the way to the next one."""


def drops(log_score: LogScore, picture: Array, *, cells: int = CELLS) -> Array:
    """How far ``log_score`` falls when a place of ``picture`` (uint8 ``[H,W,3]``) is hidden: float32 ``[cells,cells,...]``.

    Negative where hiding helps.
    """
    gone = blurred(picture)
    rows, columns = (_shares(n, cells) for n in picture.shape[:2])
    before = log_score(picture[None])[0]
    fallen = []
    for row in range(cells):
        shares = (rows[:, row, None, None] * columns[None])[..., None]  # [H,W,cells,1]
        changed = picture[:, :, None] * (1 - shares) + gone[:, :, None] * shares
        fallen.append(before - log_score(np.moveaxis(changed + 0.5, 2, 0).astype(np.uint8)))
    return np.asarray(fallen, dtype=np.float32)


def spread(fallen: Array, height: int, width: int) -> Array:
    """:func:`drops` ``[cells,cells,...]`` as a map ``[height,width,...]``: a pixel has the mean of the places that hide it."""
    rows, columns = (_shares(n, len(fallen)) for n in (height, width))
    weight = rows.sum(1)[:, None] * columns.sum(1)[None]
    summed = np.einsum("hr,rc...,wc->hw...", rows, fallen, columns)
    return np.asarray(summed / weight.reshape(height, width, *[1] * (fallen.ndim - 2)), dtype=np.float32)


def _shares(pixels: int, cells: int) -> Array:
    """How much each of ``cells`` places hides of each pixel of a side: ``[pixels,cells]``."""
    at = (np.arange(pixels, dtype=np.float32) + 0.5) * cells / pixels - 0.5
    return np.asarray(np.exp(-((at[:, None] - np.arange(cells)) ** 2) / (2 * _REACH**2)))
