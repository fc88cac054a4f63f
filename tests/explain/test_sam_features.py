"""SAM's feature maps: what was bright in the features is bright at its place on the picture."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from msmedcap.config import ViewSpec
from msmedcap.data.views import ViewFrame
from msmedcap.explain.sam_features import norm_map, pca_map, similarity_map
from msmedcap.systems import SAM_MEAN, SAM_STD

SPEC = ViewSpec("sam", 64, "letterbox", SAM_MEAN, SAM_STD)
SHAPES = [(120, 200), (200, 120), (64, 64), (40, 50)]


def bright_square(height: int, width: int) -> tuple[torch.Tensor, ViewFrame, tuple[slice, slice]]:
    """Features [C,8,8] that are strong on the view's tokens (1..2, 2..3) alone, and those tokens' pixels on the picture."""
    frame = ViewFrame(SPEC, height, width)
    features = torch.full((5, 8, 8), 0.1)
    features[:, 1:3, 2:4] = torch.tensor([3.0, -4.0, 0.0, 1.0, 2.0])[:, None, None]
    x0, y0, x1, y1 = frame.boxes_to_picture([[16.0, 8.0, 32.0, 24.0]])[0]
    return features, frame, (slice(round(y0), round(y1)), slice(round(x0), round(x1)))


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_a_bright_square_comes_back_at_its_place(height: int, width: int) -> None:
    features, frame, place = bright_square(height, width)
    found = norm_map(features, frame)
    assert found.kind == "sam_norm" and found.values.shape == (height, width) and found.values.dtype == np.float32
    low, high = found.range
    bright = found.values > (low + high) / 2
    wanted = np.zeros((height, width), bool)
    wanted[place] = True
    assert (bright & wanted).sum() / (bright | wanted).sum() > 0.75
    # Measured from the mean of the picture's tokens, four of which are the square: how far it and the rest stand off it.
    apart = float((features[:, 1, 2] - features[:, 0, 0]).norm())
    share = 4 / (math.ceil(8 * frame.height / 64) * math.ceil(8 * frame.width / 64))
    assert low == pytest.approx(share * apart, rel=1e-3) and high == pytest.approx((1 - share) * apart, rel=0.05)


def test_strength_does_not_see_what_all_places_share() -> None:
    features, frame, _ = bright_square(64, 64)
    shifted = features + torch.randn(5, 1, 1, generator=torch.Generator().manual_seed(0))
    assert np.allclose(norm_map(features, frame).values, norm_map(shifted, frame).values, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_likeness_to_a_point_is_highest_where_the_features_are_alike(height: int, width: int) -> None:
    features, frame, (rows, columns) = bright_square(height, width)
    inside = ((columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2)
    found = similarity_map(features, frame, inside)
    assert found.range == (-1.0, 1.0) and np.abs(found.values).max() <= 1 + 1e-5
    assert found.values[int(inside[1]), int(inside[0])] == pytest.approx(1.0, abs=1e-4)
    assert found.values[-1, -1] < 0
    outside = similarity_map(features, frame, (width - 0.5, height - 0.5))
    assert outside.values[-1, -1] == pytest.approx(1.0, abs=1e-4)
    assert outside.values[int(inside[1]), int(inside[0])] < 0


@pytest.mark.parametrize("point", [(0, 0), (200, 120), (0, 120), (200, 0)])
def test_likeness_to_a_corner_is_a_number(point: tuple[float, float]) -> None:
    features, frame, _ = bright_square(120, 200)
    assert np.isfinite(similarity_map(features, frame, point).values).all()


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_main_components_are_colours_of_the_pictures_size(height: int, width: int) -> None:
    features, frame, _ = bright_square(height, width)
    features = features + 0.01 * torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    found = pca_map(features, frame)
    assert found.kind == "sam_pca" and found.values.shape == (height, width, 3) and found.values.dtype == np.uint8


def test_the_first_component_is_the_square() -> None:
    features, frame, (rows, columns) = bright_square(64, 64)
    red = pca_map(features + 0.01 * torch.randn(features.shape, generator=torch.Generator().manual_seed(0)), frame).values[..., 0]
    inside = red[rows, columns][4:-4, 4:-4].astype(int)
    outside = np.concatenate([red[40:].ravel(), red[:, 48:].ravel()]).astype(int)
    assert abs(inside.mean() - outside.mean()) > 200


@pytest.mark.parametrize("kind", [pca_map, norm_map])
def test_padding_takes_no_part(kind) -> None:  # type: ignore[no-untyped-def]
    frame = ViewFrame(SPEC, 32, 64)
    features = torch.randn(6, 8, 8, generator=torch.Generator().manual_seed(1))
    other = features.clone()
    other[:, 5:] = 50.0  # the picture lies in the first four rows; the fifth is bordered by its last pixels
    assert np.array_equal(kind(features, frame).values, kind(other, frame).values)


def test_colours_do_not_depend_on_the_sign_of_a_component() -> None:
    features, frame, _ = bright_square(64, 64)
    features = features + 0.1 * torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    # Mirrored features give the mirrored colours, whatever sign the decomposition chose.
    mirrored = pca_map(features.flip(2), frame).values[:, ::-1].astype(int)
    assert np.abs(mirrored - pca_map(features, frame).values).max() <= 1


def test_two_channels_leave_the_third_colour_dark() -> None:
    frame = ViewFrame(SPEC, 64, 64)
    values = pca_map(torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0)), frame).values
    assert values.shape == (64, 64, 3) and not values[..., 2].any() and values[..., 1].any()
