"""A map's grey picture is its values over its range, and its title says what it shows."""

from __future__ import annotations

import numpy as np

from msmedcap.explain.maps import Map


def grey(values: list[list[float]], low: float, high: float) -> Map:
    return Map("attention", "clip", 2, None, (low, high), np.array(values, np.float32))


def test_grey_is_the_share_of_the_range() -> None:
    assert grey([[-1.0, 0.0], [0.5, 1.0]], -1, 1).image().tolist() == [[0, 128], [191, 255]]
    assert grey([[1.0]], 0, 4).image().tolist() == [[64]]


def test_values_beyond_the_range_are_clipped() -> None:
    assert grey([[-9.0, 9.0]], 0, 1).image().tolist() == [[0, 255]]


def test_an_even_map_is_black_not_a_division_by_zero() -> None:
    image = grey([[3.0, 3.0]], 3, 3).image()
    assert image.tolist() == [[0, 0]] and image.dtype == np.uint8


def test_colours_are_handed_through() -> None:
    values = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert np.array_equal(Map("sam_pca", "sam", None, None, (0.0, 255.0), values).image(), values)


def test_titles() -> None:
    values = np.zeros((1, 1), np.float32)
    assert grey([[0.0]], 0, 1).title == "CLIP Q-Former attention, layer 2"
    word = Map("word", "sam", None, "mass", (0, 1), values, place=3, method="gradient")
    assert word.title == "“mass”: SAM branch, gradient" and word.file == "word3-gradient-sam.png"
    titles = {Map(kind, "sam", None, None, (0, 1), values).title for kind in ("sam_pca", "sam_norm", "sam_similarity")}
    assert len(titles) == 3 and all(t.startswith("SAM features") for t in titles)
