"""A map's grey picture is its values over its range, and its title says what it shows."""

from __future__ import annotations

import pickle

import numpy as np
import torch

from msmedcap.config import ViewSpec
from msmedcap.data.views import Heatmap, ViewFrame
from msmedcap.explain.maps import Map
from msmedcap.explain.sam_features import norm_map, pca_map, similarity_map


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


def test_a_small_image_is_the_large_one_averaged() -> None:
    rng = np.random.default_rng(0)
    frame = ViewFrame(ViewSpec("v", 32, "letterbox", (0, 0, 0), (1, 1, 1)), 600, 900)
    grids = rng.uniform(0, 255, (3, 8, 8)).astype(np.float32)
    for source in (Heatmap(frame, grids[0]), Heatmap(frame, grids)):
        made = Map("attention", "clip", 0, None, (0.0, 255.0), source)
        assert made.shape == (600, 900) and made.colour == (source.grids.ndim == 3)
        small, whole = made.image(300), made.image()
        assert whole.shape[:2] == (600, 900) and small.shape[:2] == (200, 300) and small.dtype == whole.dtype == np.uint8
        averaged = whole.reshape(200, 3, 300, 3, -1).mean((1, 3)).reshape(small.shape)
        assert np.abs(averaged - small).max() <= 1.5
        assert np.array_equal(Map("attention", "clip", 0, None, (0.0, 255.0), made.values).image(), whole)


def test_a_map_takes_the_memory_of_its_tokens() -> None:
    frame = ViewFrame(ViewSpec("v", 256, "letterbox", (0, 0, 0), (1, 1, 1)), 3000, 2500)
    features = torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(0))
    for made in (norm_map(features, frame), pca_map(features, frame), similarity_map(features, frame, (9.0, 9.0))):
        assert len(pickle.dumps(made)) < 10_000 and made.values.nbytes >= 4 * 3000 * 2500 * 3 // 4


def test_a_map_s_peak_is_its_highest_value_on_the_picture() -> None:
    frame = ViewFrame(ViewSpec("v", 32, "letterbox", (0, 0, 0), (1, 1, 1)), 600, 1200)
    grid = np.zeros((8, 8), np.float32)
    grid[1, 3], grid[7, 7] = 2.0, 9.0  # the lower half of this view is padding
    assert abs(Map("word", "sam", None, "mass", (0.0, 1.0), Heatmap(frame, grid)).peak - 2.0) < 0.05
    assert grey([[-1.0, 0.25]], 0, 9).peak == 0.25


def test_only_maps_whose_nothing_is_0_fade() -> None:
    kinds = ("sam_pca", "sam_norm", "sam_similarity", "attention", "word")
    values = np.zeros((1, 1), np.float32)
    assert [kind for kind in kinds if Map(kind, "sam", None, None, (0, 1), values).fades] == ["attention", "word"]


def test_titles() -> None:
    values = np.zeros((1, 1), np.float32)
    assert grey([[0.0]], 0, 1).title == "CLIP Q-Former attention, layer 2"
    word = Map("word", "sam", None, "mass", (0, 1), values, place=3, method="gradient")
    comma = Map("word", "sam", None, "mass,", (0, 1), values, place=3, method="gradient")
    assert comma.title == word.title and comma.word == "mass," and comma.file == word.file
    assert word.title == "“mass”: SAM branch, gradient" and word.file == "word3-gradient-sam.png"
    titles = {Map(kind, "sam", None, None, (0, 1), values).title for kind in ("sam_pca", "sam_norm", "sam_similarity")}
    assert len(titles) == 3 and all(t.startswith("SAM features") for t in titles)
