"""Buttons with small pictures: every map, which is on, and nothing unescaped."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from fake import FakePredictor
from PIL import Image

from msmedcap.demo.viewer.thumbnails import ALONE, example_list, map_list
from msmedcap.explain.maps import Map


def pictures(html: str) -> list[np.ndarray]:
    uris = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri)))) for uri in uris]


@pytest.fixture
def predictor(ct_file):
    return FakePredictor().set_scan(ct_file)


@pytest.mark.parametrize("shown", [ALONE, 0, 1])
def test_the_list_shows_the_scan_and_every_map_and_which_is_on(predictor, shown):
    html = map_list(predictor.maps(), shown, predictor.picture)
    assert html.count("<button") == 1 + len(predictor.maps())
    assert re.findall(r'data-index="(-?\d+)" aria-pressed="true"', html) == [str(shown)]
    assert "Q-Former, CLIP branch" in html and "Q-Former, SAM branch" in html
    alone, *over = pictures(html)
    assert (alone == predictor.picture[..., 0]).all() and all((one != predictor.picture).any() for one in over)


def test_a_word_s_map_leaves_the_scan_as_it_is_where_it_is_0():
    values = np.zeros((8, 8), np.float32)
    values[:, 4:] = 0.5
    scan = np.full((8, 8, 3), 120, np.uint8)
    for kind, clear in (("word", True), ("attention", True), ("sam_norm", False)):
        item = Map(kind, "sam", 0, "mass", (0.0, 1.0), values, place=0, method="occlusion")
        _, over = pictures(map_list([item], 0, scan))
        assert (over[:, :4] == 120).all() == clear and (over[:, 4:] != 120).any(-1).all()


def test_a_word_is_quoted_without_its_full_stop():
    item = Map("word", "sam", None, "mass.", (0.0, 1.0), np.eye(4, dtype=np.float32), place=0, method="occlusion")
    html = map_list([item], 0, np.zeros((4, 4, 3), np.uint8))
    assert "<span>“mass”</span>" in html and "mass." not in html


def test_there_is_no_list_without_maps(predictor):
    assert map_list([], ALONE, predictor.picture) == ""


def test_words_are_escaped():
    class Named(Map):
        title = "<b>"

    item = Named("word", "sam", None, "<script>", (0.0, 1.0), np.eye(4, dtype=np.float32))
    html = map_list([item], 0, np.zeros((4, 4, 3), np.uint8))
    assert "<script>" not in html and "<b>" not in html
    assert "<i>" not in example_list([("<i>", np.zeros((4, 4, 3), np.uint8))])


def test_a_large_film_becomes_small_pictures():
    item = Map("attention", "clip", 0, None, (0.0, 1.0), np.random.default_rng(0).random((900, 700)).astype(np.float32))
    assert all(max(one.shape[:2]) <= 176 for one in pictures(map_list([item], 0, np.zeros((900, 700, 3), np.uint8))))
