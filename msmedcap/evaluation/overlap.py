"""How well a mask fits: Dice, IoU, the 95th percentile of the Hausdorff distance, and the normalised surface distance.

Surfaces are measured by DeepMind's ``surface-distance``. Comes in: two masks of one picture. Goes out: :class:`Fit`. Distances are
shares of the picture's diagonal, since many pictures have no known spacing: 0.01 is one hundredth of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from surface_distance import compute_robust_hausdorff, compute_surface_dice_at_tolerance, compute_surface_distances  # type: ignore[import-untyped]

TOLERANCE = 0.01
"""The surface distance that counts as none, as a share of the diagonal: about the distance between two readers' outlines."""


@dataclass(frozen=True)
class Fit:
    """``dice``, ``iou`` and ``nsd`` are best at 1, ``hd95`` at 0 (a share of the diagonal; 1 where nothing was found)."""

    dice: float
    iou: float
    hd95: float
    nsd: float


def fit(found: np.ndarray, truth: np.ndarray, *, tolerance: float = TOLERANCE) -> Fit:
    """How the mask ``found`` fits ``truth``, both bool ``[H,W]``; raises ``ValueError`` for an empty truth or another shape."""
    if found.shape != truth.shape or not truth.any():
        raise ValueError(f"The true mask {truth.shape} must have the found one's shape {found.shape} and not be empty.")
    both, either = int((found & truth).sum()), int((found | truth).sum())
    dice, iou = 2 * both / (int(found.sum()) + int(truth.sum())), both / either
    if not found.any():
        return Fit(dice, iou, 1.0, 0.0)
    diagonal = math.hypot(*truth.shape)
    distances = compute_surface_distances(truth, found, (1.0, 1.0))
    far = float(compute_robust_hausdorff(distances, 95)) / diagonal
    near = float(compute_surface_dice_at_tolerance(distances, tolerance * diagonal))
    return Fit(dice, iou, far, near)


def average_precision(scores: np.ndarray, present: np.ndarray) -> float:
    """The area under precision over recall of ``scores [n]`` for ``present [n]`` bool; NaN where none or all are.

    Equal scores count as one threshold.
    """
    present = np.asarray(present, bool)
    if not present.any() or present.all():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], present[order].cumsum()
    last = np.append(np.diff(sorted_scores) != 0, True)
    hits, count = hits[last], (np.arange(len(scores)) + 1)[last]
    recall = hits / present.sum()
    return float(np.sum(np.diff(recall, prepend=0.0) * hits / count))
