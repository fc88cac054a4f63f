"""Attention maps: the place a query looked at, relative to even attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from msmedcap.config import ViewSpec
from msmedcap.data.views import ViewFrame
from msmedcap.explain.attention import attention_maps
from msmedcap.models.qformer import QFormerAttention
from msmedcap.systems import CLIP_MEAN, CLIP_STD, SAM_MEAN, SAM_STD
from tests import sizes

CLIP = ViewSpec("clip", 32, "squash", CLIP_MEAN, CLIP_STD)
SAM = ViewSpec("sam", 64, "letterbox", SAM_MEAN, SAM_STD)


def looking_at(place: int, count: int) -> QFormerAttention:
    """Two layers, two heads, three queries: half of all attention on token ``place``, the rest even."""
    weights = torch.full((1, 2, 3, count), 0.5 / count)
    weights[..., place] += 0.5
    return QFormerAttention((0, 2), (weights, weights.roll(1, -1)))


def clip_places(values: Tensor) -> Tensor:
    return sizes.frozen().clip.places(values)


def sam_places(values: Tensor) -> Tensor:
    return values.unflatten(-1, (8, 8))


@pytest.mark.parametrize(("height", "width"), [(60, 100), (100, 60)])
def test_a_token_looked_at_is_bright_at_its_place(height: int, width: int) -> None:
    # CLIP's token 1 + 1·4 + 2: row 1, column 2 of 4 × 4 over the whole picture; SAM's 1·8 + 2 of 8 × 8 over the view.
    for branch, spec, places, place, count in (("clip", CLIP, clip_places, 7, 17), ("sam", SAM, sam_places, 10, 64)):
        frame = ViewFrame(spec, height, width)
        first, second = attention_maps(looking_at(place, count), branch=branch, places=places, frame=frame)
        assert (first.layer, second.layer) == (0, 2) and first.branch == branch and first.kind == "attention"
        assert first.values.shape == (height, width)
        patch = 8.0
        (x, y), (next_x, next_y) = frame.points_to_picture([[2.5 * patch, 1.5 * patch], [3.5 * patch, 1.5 * patch]])
        peak = np.unravel_index(first.values.argmax(), first.values.shape)
        assert abs(peak[0] + 0.5 - y) <= 1.01 and abs(peak[1] + 0.5 - x) <= 1.01
        peak = np.unravel_index(second.values.argmax(), second.values.shape)
        assert abs(peak[0] + 0.5 - next_y) <= 1.01 and abs(peak[1] + 0.5 - next_x) <= 1.01


def test_even_attention_is_one_everywhere_and_cls_has_no_place() -> None:
    weights = torch.full((1, 2, 3, 17), 1 / 64)
    weights[..., 0] = 1 - 16 / 64  # most attention on CLS: the map is of the rest
    (found,) = attention_maps(
        QFormerAttention((0,), (weights,)), branch="clip", places=clip_places, frame=ViewFrame(CLIP, 50, 40)
    )
    np.testing.assert_allclose(found.values, 1.0, atol=1e-5)


def test_the_range_starts_at_nought() -> None:
    frame = ViewFrame(SAM, 64, 64)
    (found, _) = attention_maps(looking_at(10, 64), branch="sam", places=sam_places, frame=frame)
    assert found.range == (0.0, float(found.values.max()))
    assert float(found.values.max()) > 10  # half of all attention on one of 64 places
