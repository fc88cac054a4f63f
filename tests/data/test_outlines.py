"""Outlines are exact: filling them gives the mask again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from msmedcap.data.outlines import outlines, screen_outlines, sloped, straightened


def filled(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """The pixels whose centre lies inside by the even-odd rule: how many sides a ray to the left crosses."""
    inside = np.zeros(shape, dtype=int)
    for polygon in polygons:
        for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if x0 == x1:
                inside[min(y0, y1) : max(y0, y1), x0:] += 1
    return inside % 2 == 1


def area(polygon: np.ndarray) -> float:
    """Above 0 for a border that runs clockwise on the screen."""
    x, y = polygon.T.astype(float)
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def test_a_rectangle_has_four_corners_clockwise() -> None:
    mask = np.zeros((6, 9), bool)
    mask[1:4, 2:7] = True
    (found,) = outlines(mask)
    assert sorted(map(tuple, found.tolist())) == [(2, 1), (2, 4), (7, 1), (7, 4)]
    assert area(found) == 15


def test_a_hole_runs_the_other_way_round() -> None:
    mask = np.ones((5, 5), bool)
    mask[2, 2] = False
    assert sorted(area(found) for found in outlines(mask)) == [-1, 25]


def test_pixels_that_touch_at_a_corner_are_apart() -> None:
    assert [area(found) for found in outlines(np.eye(4, dtype=bool))] == [1, 1, 1, 1]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_filling_the_outlines_gives_the_mask(seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((13, 17)) < share
    found = outlines(mask)
    assert (filled(found, mask.shape) == mask).all()
    assert sum(area(polygon) for polygon in found) == mask.sum()
    for polygon in found:
        steps = np.roll(polygon, -1, axis=0) - polygon
        assert ((steps != 0).sum(1) == 1).all()  # along pixel edges
        assert ((steps != 0) != (np.roll(steps, -1, axis=0) != 0)).all()  # every corner turns


@pytest.mark.parametrize("value", [False, True])
def test_all_or_nothing(value: bool) -> None:
    assert [area(found) for found in outlines(np.full((3, 4), value))] == ([12] if value else [])


@pytest.mark.parametrize(("height", "width", "longest"), [(40, 30, 40), (90, 40, 30), (41, 97, 20)])
def test_a_screens_outlines_lie_within_its_pixel_of_the_true_ones(height: int, width: int, longest: int) -> None:
    y, x = np.mgrid[0:height, 0:width] + 0.5
    mask = ((x / width - 0.55) / 0.4) ** 2 + ((y / height - 0.5) / 0.3) ** 2 < 1
    pixel = max(height, width) / longest
    (true,), (found,) = outlines(mask), screen_outlines(mask, longest)
    assert found.dtype == np.float64 and len(found) <= len(true)
    for end in (np.min, np.max):
        assert np.abs(end(found, axis=0) - end(true, axis=0)).max() <= pixel
    length = np.abs(np.roll(true, -1, axis=0) - true).sum()
    assert abs(area(found) - mask.sum()) <= 0.75 * pixel * length
    assert distances(true.astype(float), found).max() <= 1.5 * np.sqrt(2) * pixel
    if longest >= max(height, width):
        assert (found == true).all()


def distances(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """How far each of ``points [N,2]`` lies from the border of ``polygon``."""
    side = np.roll(polygon, -1, axis=0) - polygon
    share = ((points[:, None] - polygon) * side).sum(-1) / np.maximum((side**2).sum(-1), 1e-9)
    return np.linalg.norm(polygon + share.clip(0, 1)[..., None] * side - points[:, None], axis=-1).min(1)


@pytest.mark.parametrize("most", [0.0, 0.75, 1.0, 3.0])
def test_a_straightened_border_is_nowhere_farther_than_allowed(most: float) -> None:
    blobs = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(120, 140)), 4) > 0
    before = after = 0
    for polygon in outlines(blobs):
        found = straightened(polygon, most)
        assert distances(polygon.astype(float), found).max() <= most + 1e-9
        assert {tuple(p) for p in found} <= {tuple(p) for p in polygon.astype(float)} and len(found) >= 4
        before, after = before + len(polygon), after + len(found)
    assert after == before if most == 0 else after < {0.75: 0.9, 1.0: 0.6, 3.0: 0.4}[most] * before


def test_steps_become_the_slope_they_stand_for() -> None:
    y, x = np.mgrid[0:60, 0:90] + 0.5
    for mask in (x + y < 50, x + 7 * y < 80, ((x - 45) / 40) ** 2 + ((y - 30) / 25) ** 2 < 1):
        (found,) = outlines(mask)
        slopes = sloped(found)
        assert area(slopes) == pytest.approx(area(found), rel=0.05)
        assert distances(found.astype(float), slopes).max() <= 0.71 and distances(slopes, found.astype(float)).max() <= 0.5


def test_a_rectangle_keeps_its_corners() -> None:
    (corners,) = outlines(np.ones((300, 200), bool))
    assert (straightened(corners, 5.0) == corners).all() and (sloped(corners) == corners).all()


def test_a_large_structure_takes_few_corners_and_keeps_its_area() -> None:
    y, x = np.mgrid[0:2000, 0:1600]
    mask = ((x - 700) / 400) ** 2 + ((y - 1000) / 800) ** 2 < 1
    (found,) = screen_outlines(mask, 1280)
    assert area(found) == pytest.approx(mask.sum(), rel=0.001)
    (true,) = outlines(mask)
    assert 5 * len(found) < len(true) and distances(found, true.astype(float)).max() <= 1.5 * 2000 / 1280


def test_an_empty_mask_has_no_outline_on_a_screen() -> None:
    assert screen_outlines(np.zeros((50, 60), bool), 20) == []
