"""Pictures as text: lossless, in the right shape, colours that can be trusted."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from msmedcap.demo.viewer.encoding import COLOUR_MAPS, lookup, picture_uri


def decode(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))))


@pytest.mark.parametrize("name", COLOUR_MAPS)
def test_colour_maps_grow_steadily_lighter(name):
    colours = lookup(name)
    assert colours.shape == (256, 3) and colours.dtype == np.uint8
    light = (colours / 255.0) ** 2.2 @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light[::8]) > 0).all()


def test_pictures_arrive_unchanged():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (30, 50), dtype=np.uint8)
    assert (decode(picture_uri(grey, 640)) == grey).all()
    assert (decode(picture_uri(np.stack([grey] * 3, 2), 640)) == grey).all()
    colour = rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)
    assert (decode(picture_uri(colour, 640)) == colour).all()


def test_large_pictures_shrink_and_keep_their_shape():
    assert decode(picture_uri(np.zeros((1000, 2000), np.uint8), 640)).shape == (320, 640)
