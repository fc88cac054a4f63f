"""Pictures on the page: lossless, in the right shape, colours that can be trusted, nothing unescaped."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from fake import FakePredictor
from PIL import Image

from msmedcap.demo import viewer
from msmedcap.explain.maps import Map


def decode(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))))


@pytest.fixture
def predictor(ct_file):
    return FakePredictor().set_scan(ct_file)


@pytest.mark.parametrize("name", viewer.COLOUR_MAPS)
def test_colour_maps_grow_steadily_lighter(name):
    colours = viewer.lookup(name)
    assert colours.shape == (256, 3) and colours.dtype == np.uint8
    light = (colours / 255.0) ** 2.2 @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light[::8]) > 0).all()


def test_pictures_arrive_unchanged():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (30, 50), dtype=np.uint8)
    assert (decode(viewer.picture_uri(grey, 640)) == grey).all()
    assert (decode(viewer.picture_uri(np.stack([grey] * 3, 2), 640)) == grey).all()
    colour = rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)
    assert (decode(viewer.picture_uri(colour, 640)) == colour).all()


def test_large_pictures_shrink_and_keep_their_shape():
    assert decode(viewer.picture_uri(np.zeros((1000, 2000), np.uint8), 640)).shape == (320, 640)


def test_the_frame_is_as_wide_as_the_pixels_say(predictor):
    html = viewer.scan_figure(predictor.scan, predictor.picture, view="lung window")
    assert f"--ratio:{128 / 96:.4f}" in html and "CT · CHEST" in html and "lung window" in html
    predictor.scan.spacing = (1.0, 0.5)
    html = viewer.scan_figure(predictor.scan, predictor.picture, view="")
    assert f"--ratio:{64 / 96:.4f}" in html


def test_a_chosen_place_is_marked_where_it_is(predictor):
    html = viewer.scan_figure(predictor.scan, predictor.picture, view="", point=(32.0, 72.0))
    assert "left:25.00%;top:75.00%" in html


def test_a_map_lies_over_the_scan_with_its_range(predictor):
    item = next(m for m in predictor.maps() if m.kind == "sam_norm")
    html = viewer.map_figure(predictor.scan, predictor.picture, item, colours="viridis")
    base, over = re.findall(r'src="(data:[^"]+)"', html)
    assert (decode(base) == predictor.picture[..., 0]).all()
    assert (decode(over) == viewer.lookup("viridis")[item.image()]).all()
    assert "Colour scale from 2.5 to 9" in html


def test_a_map_with_colours_of_its_own_has_no_scale(predictor):
    item = next(m for m in predictor.maps() if m.kind == "sam_pca")
    html = viewer.map_figure(predictor.scan, predictor.picture, item, colours="viridis")
    assert "Colour scale" not in html and "principal components" in html


def test_the_list_shows_every_map_and_which_is_on(predictor):
    html = viewer.map_list(predictor.maps(), 1, colours="magma")
    assert html.count("<button") == len(predictor.maps())
    assert re.findall(r'data-index="(\d+)" aria-pressed="true"', html) == ["1"]
    assert "Q-Former, CLIP branch" in html and "Q-Former, SAM branch" in html
    assert viewer.map_list([], 0, colours="magma") == ""


def test_words_are_escaped():
    class Named(Map):
        title = "<b>"

    item = Named("word", "sam", None, "<script>", (0.0, 1.0), np.eye(4, dtype=np.float32))
    html = viewer.map_list([item], 0, colours="magma")
    assert "<script>" not in html and "<b>" not in html
    assert "<i>" not in viewer.example_list([("<i>", np.zeros((4, 4, 3), np.uint8))])
