"""The Q-Former: its attention is the one it used, costs nothing afterwards, and reads a batch as its singles."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from msmedcap.models.qformer import QFormer
from tests import sizes

CONFIG = dataclasses.replace(sizes.config().branches["clip"].qformer, layers=4)
WIDTH = 24


@pytest.fixture
def qformer() -> QFormer:
    return sizes.randomise(QFormer(CONFIG, encoder_width=WIDTH), 1)


def tokens(count: int = 2, length: int = 9) -> Tensor:
    return torch.randn(count, length, WIDTH, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_attend_gives_one_weight_for_each_layer_that_looks(qformer: QFormer) -> None:
    states, attention = qformer.attend(tokens())
    assert attention.layers == (0, 2) == qformer.cross_layers
    assert [tuple(w.shape) for w in attention.weights] == [(2, CONFIG.heads, CONFIG.queries, 9)] * 2
    for weights in attention.weights:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        assert (weights >= 0).all() and weights.std() > 1e-3


@torch.no_grad()
def test_attention_changes_nothing(qformer: QFormer) -> None:
    before = qformer(tokens())
    states, _ = qformer.attend(tokens())
    torch.testing.assert_close(states, before, atol=1e-5, rtol=1e-5)
    assert torch.equal(qformer(tokens()), before)


@torch.no_grad()
def test_attend_gives_sdpa_back_even_when_it_fails(qformer: QFormer) -> None:
    assert qformer.model.config._attn_implementation == "sdpa"
    qformer.attend(tokens())
    assert qformer.model.config._attn_implementation == "sdpa"
    with pytest.raises(RuntimeError):
        qformer.attend(torch.zeros(1, 3, WIDTH + 1))
    assert qformer.model.config._attn_implementation == "sdpa"


@torch.no_grad()
def test_the_weights_are_the_softmax_of_queries_and_keys(qformer: QFormer) -> None:
    seen: list[Tensor] = []
    looking = qformer.model.encoder.layer[2].crossattention.attention
    hook = looking.query.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    _, attention = qformer.attend(tokens())
    hook.remove()

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (CONFIG.heads, -1)).transpose(1, 2)

    queries, keys = heads(looking.query(seen[0])), heads(looking.key(tokens()))
    wanted = (queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5).softmax(-1)
    torch.testing.assert_close(attention.weights[1], wanted, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_batch_equals_its_singles(qformer: QFormer) -> None:
    together = qformer(tokens(4))
    alone = torch.cat([qformer(t[None]) for t in tokens(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_every_query_answers_differently_and_to_the_picture(qformer: QFormer) -> None:
    out = qformer(tokens())
    assert (out[0] - out[1]).abs().max() > 1e-2
    assert (out[0, 0] - out[0, 1]).abs().max() > 1e-2


def test_without_its_text_half_it_says_so(qformer: QFormer) -> None:
    with pytest.raises(ValueError, match="no text half"):
        qformer.joint(tokens(), torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 7, 7, dtype=torch.bool))
