"""OPT reading its own caption: the log-probabilities of generation, transformers' eager attention, gradients that are true."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from msmedcap.config import Decoding
from msmedcap.models.opt import Opt
from msmedcap.models.spoken import spoken
from tests import sizes


def prefixes(opt: Opt, count: int, slots: int, seed: int = 5) -> torch.Tensor:
    return torch.randn(count, slots, opt.width, generator=torch.Generator().manual_seed(seed))


def test_teacher_forced_log_probabilities_are_those_of_generation() -> None:
    opt = sizes.opt()
    prefix = prefixes(opt, 3, 7)
    for row, said in zip(prefix, opt.say(list(prefix), Decoding(max_new_tokens=9)), strict=True):
        heard = spoken(opt, row[None], said.ids)
        torch.testing.assert_close(heard.log_probs[0], torch.tensor(said.log_probs), atol=1e-4, rtol=0)
        assert heard.logits[0].argmax(-1).tolist() == list(said.ids)  # it was greedy


def test_attention_and_logits_are_the_libraries_own_in_eager_mode() -> None:
    opt = sizes.opt()
    prefix, ids = prefixes(opt, 2, 5), [40, 41, 42, 43]
    model = copy.deepcopy(opt.model)
    model.set_attn_implementation("eager")
    inputs = torch.cat([prefix, opt.embed(torch.tensor(ids[:-1])).expand(2, -1, -1)], dim=1)
    with torch.no_grad():
        theirs = model(inputs_embeds=inputs, attention_mask=torch.ones(inputs.shape[:2]).long(), output_attentions=True)
        ours = spoken(opt, prefix, ids)
    assert len(ours.attention) == len(theirs.attentions) == 2
    for mine, other in zip(ours.attention, theirs.attentions, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.logits, theirs.logits[:, ours.first :], atol=1e-4, rtol=1e-4)


def test_an_opt_that_normalises_after_the_sum_is_read_alike() -> None:
    config = OPTConfig(
        vocab_size=len(sizes.tokenizer()), hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2,
        word_embed_proj_dim=16, do_layer_norm_before=False, dropout=0.0, max_position_embeddings=64,
    )
    opt = Opt(sizes.randomise(OPTForCausalLM(config), 3, scale=0.3), sizes.tokenizer())
    prefix, ids = prefixes(opt, 2, 5), [40, 41, 42]
    inputs = torch.cat([prefix, opt.embed(torch.tensor(ids[:-1])).expand(2, -1, -1)], dim=1)
    with torch.no_grad():
        theirs = opt.model(inputs_embeds=inputs, attention_mask=torch.ones(inputs.shape[:2]).long()).logits
        torch.testing.assert_close(spoken(opt, prefix, ids).logits, theirs[:, 4:], atol=1e-4, rtol=1e-4)


def test_the_gradient_to_a_slot_is_the_finite_difference() -> None:
    opt = copy.deepcopy(sizes.opt()).double()
    prefix = prefixes(opt, 1, 4).double().requires_grad_()
    ids, slot, step = [40, 41, 42], 2, 1e-6
    (gradient,) = torch.autograd.grad(spoken(opt, prefix, ids).log_probs[0, 1], prefix)
    direction = torch.randn(opt.width, generator=torch.Generator().manual_seed(1)).double()
    nudge = torch.zeros_like(prefix)
    nudge[0, slot] = step * direction
    with torch.no_grad():
        up, down = (float(spoken(opt, prefix + sign * nudge, ids).log_probs[0, 1]) for sign in (1, -1))
    assert abs(float(gradient[0, slot] @ direction)) > 1e-3
    assert float(gradient[0, slot] @ direction) == pytest.approx((up - down) / (2 * step), rel=1e-5)


def test_a_slot_does_not_hear_what_comes_later() -> None:
    opt = sizes.opt()
    for weights in spoken(opt, prefixes(opt, 1, 4), [40, 41, 42]).attention:
        assert not weights.triu(1).any()
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_no_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="no tokens"):
        spoken(sizes.opt(), prefixes(sizes.opt(), 1, 4), [])
