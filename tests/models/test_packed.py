"""Packed linear layers compute what they did before, gradient and state included, and nothing else is touched."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from msmedcap.config import Decoding
from msmedcap.models.decoding import decode
from msmedcap.models.frozen import freeze
from msmedcap.models.opt import OptModel
from msmedcap.models.opt_loading import build_opt
from msmedcap.models.packed import PackedLinear, pack
from tests import sizes

pytestmark = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()),
    reason="this processor multiplies no bf16",
)


def language(dtype: torch.dtype = torch.bfloat16) -> OptModel:
    return freeze(sizes.randomise(build_opt(96, hidden=64, layers=2, heads=2, positions=64), 1).to(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 4, 17])
def test_products_and_gradients_are_the_linear_layers(rows: int, bias: bool, dtype: torch.dtype) -> None:
    linear = freeze(nn.Linear(48, 80, bias=bias).to(dtype))
    packed = PackedLinear(linear)
    values = torch.randn(rows, 48, dtype=dtype)
    one, other = values.clone().requires_grad_(), values.clone().requires_grad_()
    wanted, found = linear(one), packed(other[None])
    assert found.shape == (1, rows, 80)
    close = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 5e-2, "rtol": 2e-2}
    torch.testing.assert_close(found[0], wanted, **close)
    wanted.sum().backward()
    found.sum().backward()
    assert one.grad is not None and one.grad.abs().max() > 0.1
    torch.testing.assert_close(other.grad, one.grad, **close)


def test_every_layer_is_packed_and_the_state_stays() -> None:
    model, plain = language(), language().state_dict()
    assert pack(model) == 2 * 6 + 1
    assert isinstance(model.model.decoder.layers[1].fc2, PackedLinear) and isinstance(model.lm_head, PackedLinear)
    assert pack(model) == 0
    state = model.state_dict()
    assert state.keys() == plain.keys() and all(torch.equal(state[key], plain[key]) for key in plain)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_packed_model_says_what_it_said(beams: int) -> None:
    prefixes = [torch.randn(n, 64, generator=torch.Generator().manual_seed(n)) for n in (5, 3)]
    model, decoding = language(), Decoding(beams=beams, min_new_tokens=6, max_new_tokens=6)
    wanted = decode(model, prefixes, decoding, newline=9)
    pack(model)
    found = decode(model, prefixes, decoding, newline=9)
    assert [said.ids[0] for said in found] == [said.ids[0] for said in wanted]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.log_probs[0], other.log_probs[0], atol=0.05, rtol=0.05)


@torch.no_grad()
def test_in_full_precision_the_logits_are_the_same() -> None:
    model, inputs = language(torch.float32), torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    wanted = model(inputs_embeds=inputs).logits
    assert pack(model) == 13
    torch.testing.assert_close(model(inputs_embeds=inputs).logits, wanted, atol=1e-5, rtol=1e-5)


def test_what_is_trained_or_of_another_kind_stays() -> None:
    class Own(nn.Linear):
        """A layer that multiplies in its own way, as 8-bit ones do."""

    kept = nn.Sequential(nn.Linear(8, 8), freeze(Own(8, 8)), freeze(nn.Linear(8, 8).half()))
    assert pack(kept) == 0 and [type(module) for module in kept] == [nn.Linear, Own, nn.Linear]
