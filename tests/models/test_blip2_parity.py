"""``BLIP2 = (clip,)`` is BLIP-2: the same weights in ``transformers``' own class give the same logits and the same tokens."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Blip2Config, Blip2ForConditionalGeneration

from msmedcap.checkpoints import Frozen, build_captioner
from msmedcap.config import Decoding
from msmedcap.models.captioner import Captioner
from msmedcap.models.clip import ClipEncoder
from msmedcap.models.frozen import freeze
from msmedcap.models.opt import Opt
from msmedcap.models.opt_loading import build_opt
from msmedcap.models.sam import SamEncoder, SamPrompts
from tests import sizes

PROMPT = "a photo of"
VIEW_SIZES = [32, 48]  # the size of the position table, and one it is interpolated to


@dataclass(frozen=True)
class Pair:
    """The same model twice."""

    theirs: Blip2ForConditionalGeneration
    ours: Captioner


@pytest.fixture(scope="module")
def pair() -> Pair:
    clip = dataclasses.replace(sizes.config().clip, stem="patch")
    branch = sizes.config().branches["clip"]
    tokenizer = sizes.tokenizer()
    # One row more than the tokenizer needs: the hub's class marks the query slots with a token of its own.
    language = build_opt(len(tokenizer) + 1, hidden=32, layers=2, heads=2, positions=128)
    config = Blip2Config(
        vision_config={
            "hidden_size": clip.hidden,
            "intermediate_size": clip.mlp,
            "num_hidden_layers": clip.layers,
            "num_attention_heads": clip.heads,
            "image_size": clip.image_size,
            "patch_size": clip.patch,
        },
        qformer_config={
            "hidden_size": branch.qformer.hidden,
            "num_hidden_layers": branch.qformer.layers,
            "num_attention_heads": branch.qformer.heads,
            "intermediate_size": branch.qformer.mlp,
            "encoder_hidden_size": clip.hidden,
        },
        text_config=language.config.to_dict(),
        num_query_tokens=branch.qformer.queries,
        image_token_index=len(tokenizer),
    )
    # Large weights make sharp choices: beams of a nearly even distribution would be told apart by rounding alone.
    theirs = sizes.randomise(Blip2ForConditionalGeneration(config), 5, scale=0.3)
    opt = Opt(language, tokenizer)
    parts = Frozen(freeze(ClipEncoder(clip)), SamEncoder(sizes.config().sam), SamPrompts(sizes.config().sam), opt)
    ours = build_captioner({"clip": branch}, parts).eval()
    transfer(theirs, ours)
    return Pair(theirs, ours)


def transfer(theirs: Blip2ForConditionalGeneration, ours: Captioner) -> None:
    """Every weight of ``theirs`` into ``ours``, strictly: what is left over or missing on either side raises."""
    state = theirs.state_dict()
    branch = ours.branches["clip"]
    norm = "vision_model.post_layernorm."

    def part(prefix: str) -> dict[str, Tensor]:
        keys = [k for k in state if k.startswith(prefix)]
        return {k.removeprefix(prefix): state.pop(k) for k in keys}

    branch.norm.load_state_dict(part(norm))
    branch.encoder.vision.load_state_dict(part("vision_model."))
    branch.qformer.model.load_state_dict(part("qformer."))
    branch.qformer.load_state_dict({"query_tokens": state.pop("query_tokens")}, strict=False)
    branch.projection.load_state_dict(part("language_projection."))
    ours.opt.model.load_state_dict(part("language_model."))
    assert not state


def test_a_layer_norm_of_the_branch_has_the_hubs_epsilon(pair: Pair) -> None:
    assert pair.ours.branches["clip"].norm.eps == pair.theirs.vision_model.post_layernorm.eps


def views(size: int, count: int = 3) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(size))


def their_inputs(pair: Pair, size: int, count: int = 3) -> dict[str, Any]:
    slots = [pair.theirs.config.image_token_id] * pair.theirs.config.num_query_tokens
    ids = torch.tensor([slots + pair.ours.opt.prompt_ids(PROMPT).tolist()]).repeat(count, 1)
    return {
        "pixel_values": views(size, count),
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "interpolate_pos_encoding": True,
    }


@pytest.mark.parametrize("size", VIEW_SIZES)
@torch.no_grad()
def test_logits_of_picture_and_prompt(pair: Pair, size: int) -> None:
    wanted = pair.theirs(**their_inputs(pair, size)).logits
    prefix = pair.ours.prefix(pair.ours.encode({"clip": views(size)}), PROMPT)
    found = pair.ours.opt.model(inputs_embeds=prefix).logits
    assert wanted.std() > 0.5  # logits that say something
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@torch.no_grad()
def test_loss_of_captions_of_several_lengths(pair: Pair) -> None:
    captions, opt = ["Normal.", *sizes.CAPTIONS[:2]], pair.ours.opt
    inputs = their_inputs(pair, 32)
    rows = [opt.caption_ids(c) for c in captions]
    longest = max(map(len, rows))
    text = torch.tensor([r + [opt.tokenizer.pad_token_id] * (longest - len(r)) for r in rows])
    real = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows])
    prompt = inputs["input_ids"]
    inputs["input_ids"] = torch.cat([prompt, text], 1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], real], 1)
    labels = torch.cat([torch.full_like(prompt, -100), text.masked_fill(real == 0, -100)], 1)
    wanted = pair.theirs(**inputs, labels=labels).loss
    found = pair.ours.loss(pair.ours.encode({"clip": views(32)}), captions, PROMPT)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("size", VIEW_SIZES)
@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(prompt=PROMPT, max_new_tokens=12),
        Decoding(prompt=PROMPT, beams=5, min_new_tokens=4, max_new_tokens=12, length_penalty=1.2),
    ],
    ids=["greedy", "beams"],
)
@torch.no_grad()
def test_the_same_tokens(pair: Pair, decoding: Decoding, size: int) -> None:
    inputs, opt = their_inputs(pair, size), pair.ours.opt
    whole = pair.theirs.generate(
        **inputs,
        do_sample=False,
        num_beams=decoding.beams,
        min_new_tokens=decoding.min_new_tokens,
        max_new_tokens=decoding.max_new_tokens,
        length_penalty=decoding.length_penalty,
        eos_token_id=opt.newline,
        pad_token_id=opt.tokenizer.pad_token_id,
    )
    wanted = whole[:, inputs["input_ids"].shape[1] :]
    features = pair.ours.encode({"clip": views(size)})
    said = opt.say(list(pair.ours.prefix(features, PROMPT)), decoding)
    texts = pair.ours.generate(features, decoding)
    assert len({tuple(row) for row in wanted.tolist()}) > 1  # the pictures are told apart
    for one, row in zip(said, wanted.tolist(), strict=True):
        assert list(one.ids) == row[: len(one.ids)] and set(row[len(one.ids) :]) <= {opt.tokenizer.pad_token_id}
    assert texts == [opt.tokenizer.decode(r, skip_special_tokens=True).split("\n")[0].strip() for r in wanted]
