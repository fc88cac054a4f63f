"""How well a map tells where a model looked: what is measured of any map, with no model in sight.

Comes in: a map of a picture (``heat [H,W]``, larger = hotter) and a function that scores pictures, or the mask of what should be
pointed at. Goes out: deletion and insertion curves with their areas (Petsiuk et al. 2018), the pointing game (Zhang et al. 2016),
the share of the map's energy in the mask, two maps that know nothing (random and centred), and the likeness of two maps (for the
sanity check of Adebayo et al. 2018, which draws weights anew).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from scipy import ndimage

Array: TypeAlias = np.ndarray
Score: TypeAlias = Callable[[Array], Array]
"""Pictures uint8 ``[B,H,W,3]`` to a number each, ``[B]``."""

SHARES = (0.0, 0.02, 0.06, 0.14, 0.28, 0.5, 0.75, 1.0)
"""How much of the picture is gone at each step of a curve: finer at the start, where small findings go."""
BLUR = 0.08
"""The blur that takes the place of what is deleted: its sigma as a share of the picture's longer side."""


def blurred(picture: Array, share: float = BLUR) -> Array:
    """``picture`` (uint8 ``[H,W,3]``) without its details: a Gaussian of ``share`` of the longer side, in every channel."""
    sigma = share * max(picture.shape[:2])
    soft = ndimage.gaussian_filter(picture.astype(np.float32), (sigma, sigma, 0), mode="nearest", truncate=3)
    return (soft + 0.5).astype(np.uint8)


def painted_over(picture: Array, mask: Array, *, margin: int = 5) -> Array:
    """``picture`` with what lies under ``mask`` (bool ``[H,W]``, grown by ``margin`` pixels) filled from its surroundings."""
    hole = ndimage.binary_dilation(mask, iterations=margin)
    known = (~hole).astype(np.float32)
    sigma = max(4.0, 0.5 * float(np.sqrt(mask.sum())))
    weight = np.maximum(ndimage.gaussian_filter(known, sigma), 1e-3)[..., None]
    around = ndimage.gaussian_filter(picture * known[..., None], (sigma, sigma, 0)) / weight
    edge = np.clip(ndimage.gaussian_filter(hole.astype(np.float32), 1.5), 0, 1)[..., None]
    return (picture * (1 - edge) + around * edge + 0.5).clip(0, 255).astype(np.uint8)


def steps(start: Array, end: Array, heat: Array, shares: Sequence[float] = SHARES) -> Array:
    """``start`` on its way to ``end``, the hottest places first: uint8 ``[len(shares),H,W,3]``.

    At ``shares[k]`` that share of the pixels is ``end``'s; of equally hot places those nearer to hot ones go first. Raises
    ValueError where sizes differ or the heat is not finite.
    """
    if start.shape != end.shape or heat.shape != start.shape[:2]:
        raise ValueError(f"A map of {heat.shape} does not lie on pictures of {start.shape} and {end.shape}.")
    if not np.isfinite(heat).all():
        raise ValueError("The map holds values that are not finite numbers.")
    order = np.empty(heat.size, dtype=np.int64)
    # Many maps are 0 over wide parts: by rows, what is at the top would go first.
    around = ndimage.gaussian_filter(heat.astype(np.float32), 0.1 * max(heat.shape), truncate=3)
    order[np.lexsort((-around.ravel(), -heat.ravel()))] = np.arange(heat.size)
    rank = order.reshape(heat.shape)
    return np.stack([np.where((rank < round(share * heat.size))[..., None], end, start) for share in shares])


def deletion(score: Score, picture: Array, heat: Array, *, without: Array | None = None) -> Array:
    """The score as the hottest places go first, one number for each of :data:`SHARES`; a good map's falls at once.

    What goes becomes ``without`` (the blurred picture where none is given). Turned round, ``picture`` and ``without`` make the
    insertion: the hottest places come first into the blurred picture, and a good map's score rises at once.
    """
    return np.asarray(score(steps(picture, blurred(picture) if without is None else without, heat)), dtype=np.float64)


def area(curve: Array | Sequence[float], shares: Sequence[float] = SHARES) -> float:
    """The area under a curve over ``shares`` (trapezoids): its mean, as shares run from 0 to 1."""
    return float(np.trapezoid(np.asarray(curve, dtype=np.float64), shares))


def pointed(heat: Array, mask: Array, *, tolerance: float) -> bool:
    """The pointing game (Zhang et al. 2016): whether the hottest pixel lies within ``tolerance`` pixels of ``mask``.

    Of several equally hot ones that nearest to their middle counts. Raises ValueError on an empty mask.
    """
    if not mask.any():
        raise ValueError("There is nothing to point at: the mask is empty.")
    hottest = np.argwhere(heat == heat.max())
    y, x = hottest[np.square(hottest - hottest.mean(0)).sum(1).argmin()]
    away = ndimage.distance_transform_edt(~mask)
    return bool(away[y, x] <= tolerance)


def energy(heat: Array, mask: Array) -> float:
    """The share of the map's positive mass that lies in ``mask``; a map with none is spread evenly."""
    mass = np.clip(heat, 0, None).astype(np.float64)
    total = float(mass.sum())
    return float(mass[mask].sum()) / total if total > 0 else float(mask.mean())


def soft_mask(mask: Array, *, reach: float = 0.02) -> Array:
    """The truth as a map: hottest inside ``mask`` (bool ``[H,W]``), falling off around it; float32 ``[H,W]``."""
    away = ndimage.distance_transform_edt(~mask) / (reach * max(mask.shape))
    return np.exp(-away).astype(np.float32)


def random_map(height: int, width: int, rng: np.random.Generator, *, grain: int = 8) -> Array:
    """A map that knows nothing: random values on a grid of ``grain`` x ``grain``, smooth between them; float32 ``[H,W]``.

    Its grain is that of the models' maps: single random pixels would turn every picture into noise, which deletes more.
    """
    coarse = rng.random((grain, grain)).astype(np.float32)
    rows = np.clip((np.arange(height) + 0.5) * grain / height - 0.5, 0, grain - 1)
    columns = np.clip((np.arange(width) + 0.5) * grain / width - 0.5, 0, grain - 1)
    grid = np.meshgrid(rows, columns, indexing="ij")
    found = ndimage.map_coordinates(coarse, grid, order=1, mode="nearest")
    return np.asarray(found, dtype=np.float32)


def centre_map(height: int, width: int, *, spread: float = 0.25) -> Array:
    """A map that always looks at the middle: a Gaussian of ``spread`` times each side; float32 ``[H,W]``."""
    y, x = ((np.arange(n, dtype=np.float32) + 0.5) / n - 0.5 for n in (height, width))
    return np.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / (2 * spread**2)).astype(np.float32)


def likeness(a: Array, b: Array) -> float:
    """Spearman's rank correlation of two maps, -1 to 1; 0 where one is flat. Large maps are read at every few pixels."""
    stride = max(1, int(np.sqrt(a.size / 4096)))
    ranks = []
    for heat in (a, b):
        values = heat[::stride, ::stride].ravel()
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        rank = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
        ranks.append(rank - rank.mean())
    size = float(np.linalg.norm(ranks[0]) * np.linalg.norm(ranks[1]))
    return float(ranks[0] @ ranks[1]) / size if size > 0 else 0.0
