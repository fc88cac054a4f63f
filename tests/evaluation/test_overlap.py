"""Measures of masks: known figures, the worst and the best case, and scales that do not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest

from msmedcap.evaluation.overlap import average_precision, fit


def square(top: int, left: int, side: int, size: int = 60) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_a_mask_fits_itself() -> None:
    found = fit(square(10, 10, 20), square(10, 10, 20))
    assert (found.dice, found.iou, found.hd95, found.nsd) == (1, 1, 0, 1)


def test_a_shifted_square() -> None:
    found = fit(square(14, 10, 20), square(10, 10, 20))
    assert found.dice == pytest.approx(0.8) and found.iou == pytest.approx(2 / 3)
    assert found.hd95 == pytest.approx(4 / math.hypot(60, 60))
    # The two sides along the shift stay within the tolerance but for their ends; top and bottom do not.
    assert 0.3 < found.nsd < 0.6
    assert fit(square(14, 10, 20), square(10, 10, 20), tolerance=5 / math.hypot(60, 60)).nsd == 1


def test_nothing_found_is_the_worst() -> None:
    found = fit(np.zeros((60, 60), bool), square(10, 10, 20))
    assert (found.dice, found.iou, found.hd95, found.nsd) == (0, 0, 1, 0)
    with pytest.raises(ValueError, match="not be empty"):
        fit(square(10, 10, 20), np.zeros((60, 60), bool))
    with pytest.raises(ValueError, match="shape"):
        fit(square(10, 10, 20)[:50], square(10, 10, 20))


def test_a_picture_twice_as_large_fits_alike() -> None:
    small = fit(square(14, 10, 20), square(10, 10, 20))
    large = fit(square(28, 20, 40, 120), square(20, 20, 40, 120))
    assert large.dice == small.dice and large.hd95 == pytest.approx(small.hd95)


def test_average_precision_by_hand() -> None:
    # Recall 1/2 at precision 1, recall 1 at precision 2/3.
    assert average_precision(np.array([0.9, 0.8, 0.7, 0.1]), np.array([1, 0, 1, 0])) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision(np.array([0.5, 0.5, 0.5, 0.5]), np.array([1, 0, 0, 0])) == pytest.approx(0.25)
    assert average_precision(np.array([0.1, 0.9]), np.array([0, 1])) == 1
    assert math.isnan(average_precision(np.array([0.1, 0.9]), np.array([0, 0])))
