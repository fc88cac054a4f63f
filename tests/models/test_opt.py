"""The language model: its loss by hand, its stop at the newline, its growing texts, and strict loading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from msmedcap.config import Decoding, UserError
from msmedcap.models.decoding import Said
from msmedcap.models.opt import Opt
from msmedcap.models.opt_loading import load_opt
from tests import sizes

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def opt() -> Opt:
    return sizes.opt()


def prefixes(count: int = 3, length: int = 5) -> Tensor:
    return torch.randn(count, length, 32, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_the_loss_is_that_of_caption_and_newline_after_the_prefix(opt: Opt) -> None:
    caption = sizes.CAPTIONS[0]
    ids = opt.tokenizer(f" {caption}\n", add_special_tokens=False).input_ids
    assert ids[-1] == opt.newline and opt.caption_ids(f"{caption}  ") == ids
    prefix = prefixes(1)
    logits = opt.model(inputs_embeds=torch.cat([prefix, opt.embed(torch.tensor([ids]))], 1)).logits
    wanted = F.cross_entropy(logits[0, prefix.shape[1] - 1 : -1], torch.tensor(ids))
    torch.testing.assert_close(opt.loss(prefix, [caption]), wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_loss_of_a_batch_is_the_mean_over_its_tokens(opt: Opt) -> None:
    captions = ["Normal.", *sizes.CAPTIONS[:2]]
    counts = torch.tensor([len(opt.caption_ids(c)) for c in captions], dtype=torch.float32)
    assert len(set(counts.tolist())) > 1
    alone = torch.stack([opt.loss(p[None], [c]) for p, c in zip(prefixes(), captions, strict=True)])
    wanted = (alone * counts).sum() / counts.sum()
    torch.testing.assert_close(opt.loss(prefixes(), captions), wanted, atol=1e-5, rtol=1e-5)


def test_the_gradient_reaches_the_prefix_alone(opt: Opt) -> None:
    prefix = prefixes(1).requires_grad_()
    opt.loss(prefix, ["A mass."]).backward()
    assert prefix.grad is not None and (prefix.grad.abs().sum(-1) > 0).all()
    assert all(p.grad is None for p in opt.parameters())


def test_an_opt_in_bf16_takes_a_prefix_in_fp32_and_gives_its_gradient() -> None:
    opt, captions = sizes.opt(), list(sizes.CAPTIONS[:3])
    prefix = prefixes().requires_grad_()
    (wanted,) = torch.autograd.grad(opt.loss(prefix, captions), prefix)
    opt.model.bfloat16()
    loss = opt.loss(prefix, captions)
    loss.backward()
    assert prefix.grad is not None and prefix.grad.dtype is torch.float32
    # bf16 has three digits; a gradient that did not flow would be far from this one.
    assert float(F.cosine_similarity(prefix.grad.flatten(), wanted.flatten(), dim=0)) > 0.95


@torch.no_grad()
def test_every_token_has_a_loss_of_its_own(opt: Opt) -> None:
    captions = ["Normal.", *sizes.CAPTIONS[:2]]
    alone = [opt.token_losses(p[None], [c], max_tokens=4) for p, c in zip(prefixes(), captions, strict=True)]
    assert [len(losses) for losses in alone] == [min(4, len(opt.caption_ids(c))) for c in captions]
    torch.testing.assert_close(opt.token_losses(prefixes(), captions, max_tokens=4), torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_a_caption_ends_before_the_newline(opt: Opt) -> None:
    ids = opt.tokenizer(" Normal.\n", add_special_tokens=False).input_ids
    assert ids[-1] == opt.newline
    assert opt.text(Said(tuple(ids))) == opt.text(Said(tuple(ids[:-1]))) == "Normal."


@pytest.mark.parametrize("least", [1, 4])
def test_decoding_stops_at_the_newline_once_the_least_length_is_said(least: int) -> None:
    opt = sizes.opt()
    with torch.no_grad():  # whatever it reads, the newline is what it would rather say
        norm = opt.model.model.decoder.final_layer_norm
        norm.weight.zero_()
        norm.bias.copy_(20 * opt.model.get_input_embeddings().weight[opt.newline])
    assert opt.model(inputs_embeds=prefixes()).logits[:, -1].argmax(-1).tolist() == [opt.newline] * 3
    steps: list[list[str]] = []
    opt.generate(list(prefixes()), Decoding(min_new_tokens=least, max_new_tokens=9), on_tokens=steps.append)
    assert len(steps) == least + 1


def test_growing_texts_grow_and_end_in_the_result(opt: Opt) -> None:
    steps: list[list[str]] = []
    result = opt.generate(list(prefixes()), Decoding(min_new_tokens=4, max_new_tokens=7), on_tokens=steps.append)
    assert steps[-1] == result and 4 <= len(steps) <= 7
    assert all(len(step) == 3 for step in steps)
    lengths = [sum(map(len, step)) for step in steps]
    assert lengths[0] < lengths[-1]


def test_beams_show_the_best_so_far_and_end_in_the_result(opt: Opt) -> None:
    steps: list[list[str]] = []
    decoding = Decoding(beams=2, min_new_tokens=4, max_new_tokens=6)
    result = opt.generate(list(prefixes()), decoding, on_tokens=steps.append)
    assert steps[-1] == result and len(steps) > 3
    assert all(len(step) == 3 for step in steps)


def test_tokens_are_those_of_the_text(opt: Opt) -> None:
    decoding = Decoding(max_new_tokens=6)
    said = opt.say(list(prefixes()), decoding)
    assert [opt.text(one) for one in said] == opt.generate(list(prefixes()), decoding)
    assert all(len(one.ids) == len(one.log_probs) and max(one.log_probs) <= 0 for one in said)


@pytest.fixture
def folder(opt: Opt, tmp_path: Path) -> Path:
    opt.model.save_pretrained(tmp_path)
    opt.tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_saved_and_loaded_it_says_the_same(opt: Opt, folder: Path) -> None:
    again = load_opt(folder, dtype=torch.float32, device=CPU)
    decoding = Decoding(max_new_tokens=6)
    assert again.generate(list(prefixes()), decoding) == opt.generate(list(prefixes()), decoding)
    assert again.newline == opt.newline and again.width == 32
    assert not any(p.requires_grad for p in again.parameters()) and not again.model.training


@pytest.mark.parametrize("change", ["lacks", "has unknown", "has wrong shapes for"])
def test_loading_is_strict(folder: Path, change: str) -> None:
    key, new = "model.decoder.layers.1.fc1.weight", "model.decoder.layers.9.fc1.weight"
    state = load_file(folder / "model.safetensors")
    if change == "has unknown":
        state[new] = state[key].clone()
    elif change == "lacks":
        del state[key]
    else:
        state[key] = torch.zeros(3, 3)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    told = re.escape(f"{change} ['{new if change == 'has unknown' else key}']")
    with pytest.raises(UserError, match=told):
        load_opt(folder, dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_missing_or_damaged_file_is_one_sentence(folder: Path, file: str) -> None:
    (folder / file).write_bytes(b"{no")
    with pytest.raises(UserError, match=str(folder)):
        load_opt(folder, dtype=torch.float32, device=CPU)
    (folder / file).unlink()
    with pytest.raises(UserError, match=str(folder)) as raised:
        load_opt(folder, dtype=torch.float32, device=CPU)
    assert "\n" not in str(raised.value)
