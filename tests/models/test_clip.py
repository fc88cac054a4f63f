"""The CLIP encoder: both stems, other view sizes, token order."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from msmedcap.models.clip import ClipEncoder, pooled
from msmedcap.models.stem import ConvStem
from tests import sizes

CONFIG = sizes.config().clip


def encoder(stem: str) -> ClipEncoder:
    return sizes.randomise(ClipEncoder(dataclasses.replace(CONFIG, stem=stem)), 1)


@pytest.mark.parametrize("stem", ["patch", "conv"])
@pytest.mark.parametrize("size", [32, 48, 64])
@torch.no_grad()
def test_a_view_of_any_size_gives_its_grid_of_tokens(stem: str, size: int) -> None:
    tokens = encoder(stem)(torch.zeros(2, 3, size, size))
    assert tokens.shape == (2, 1 + (size // CONFIG.patch) ** 2, CONFIG.hidden)


@pytest.mark.parametrize("stem", ["patch", "conv"])
@torch.no_grad()
def test_positions_are_interpolated_not_cut(stem: str) -> None:
    clip = encoder(stem)
    table = clip.vision.embeddings.position_embedding
    side = CONFIG.image_size // CONFIG.patch
    # A table that rises from left to right alone must, at twice the size, rise from left to right over the same range.
    table.zero_()
    table[0, 1:] = torch.arange(side).repeat(side)[:, None].float()
    flat = clip.vision.embeddings(torch.zeros(1, 3, 64, 64), interpolate_pos_encoding=True)
    table.zero_()
    slope = (flat - clip.vision.embeddings(torch.zeros(1, 3, 64, 64), interpolate_pos_encoding=True))[0, 1:, 0].view(8, 8)
    assert torch.allclose(slope, slope[:1].expand(8, -1), atol=1e-5)
    assert (slope[0].diff() > 0).all() and slope[0, 0].abs() < 0.3 and (slope[0, -1] - (side - 1)).abs() < 0.3


@torch.no_grad()
def test_tokens_come_row_by_row_after_the_cls_token() -> None:
    clip = encoder("patch")
    table = clip.vision.embeddings.position_embedding
    table.zero_()
    view = torch.zeros(1, 3, 32, 32)
    bright = view.clone()
    bright[..., 8:16, 24:32] = 1.0  # row 1, column 3 of a 4 × 4 grid
    moved = (clip.vision.embeddings(bright) - clip.vision.embeddings(view)).abs().sum(-1)[0]
    assert moved.nonzero().flatten().tolist() == [1 + 1 * 4 + 3]
    assert clip.places(moved).nonzero().tolist() == [[1, 3]]


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("stem", ["patch", "conv"])
@torch.no_grad()
def test_a_batch_equals_its_singles(stem: str, size: int) -> None:
    clip, view = encoder(stem), torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(clip(view), torch.cat([clip(v[None]) for v in view]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_pooled_is_cls_beside_the_mean_of_the_grid() -> None:
    tokens = torch.tensor([[[1.0, 2.0], [3.0, 5.0], [5.0, 9.0]]])
    assert pooled(tokens).tolist() == [[1.0, 2.0, 4.0, 7.0]]


@pytest.mark.parametrize("patch", [4, 8, 16, 32])
@torch.no_grad()
def test_the_convolutional_stem_stands_in_for_a_patch_embedding(patch: int) -> None:
    stem = ConvStem(32, patch).eval()
    assert stem(torch.zeros(1, 3, 2 * patch, 3 * patch)).shape == (1, 32, 2, 3)
    assert stem.weight.dtype == torch.float32


def test_a_stem_needs_a_power_of_two() -> None:
    with pytest.raises(ValueError, match="power of two, not 14"):
        ConvStem(32, 14)
