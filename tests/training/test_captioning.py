"""Stage 2: gradients reach the branches alone, and eight pictures are learnt by heart."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from msmedcap.checkpoints import Frozen
from msmedcap.config import Decoding
from msmedcap.models.branch import Branch
from msmedcap.models.opt import Opt, build_opt
from msmedcap.systems import SYSTEMS
from msmedcap.training.alignment import AlignmentTask
from msmedcap.training.captioning import CaptioningTask
from msmedcap.training.language import LanguageTask, pack
from msmedcap.training.loop import LoopConfig, fit
from tests import sizes

PROMPT = "The scan shows:"
FEW = LoopConfig(steps=2, lr=1e-2, warmup=1, precision="no")


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def unchanged(module: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def assert_frozen(parts: Frozen, before: Sequence[dict[str, Tensor]]) -> None:
    for module, state in zip((parts.clip, parts.sam, parts.prompts, parts.opt.model), before, strict=True):
        assert unchanged(module, state)
        assert not any(m.training for m in module.modules())
        assert not any(p.requires_grad or p.grad is not None for p in module.parameters())


def states(parts: Frozen) -> list[dict[str, Tensor]]:
    return [snapshot(m) for m in (parts.clip, parts.sam, parts.prompts, parts.opt.model)]


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_step_leaves_frozen_parts_bit_identical_and_moves_every_trained_one(tmp_path: Path, name: str) -> None:
    parts = sizes.frozen()
    captioner, before = sizes.captioner(name, parts), states(parts)
    features = captioner.encode(sizes.views(8))
    task = CaptioningTask(captioner, PROMPT)
    trained = {k: p.detach().clone() for k, p in task.named_parameters()}
    fit(task, lambda step: (features, sizes.CAPTIONS), FEW, tmp_path, name=name)
    assert_frozen(parts, before)
    assert trained and all(p.requires_grad for p in task.parameters())
    still = {k for k, p in task.named_parameters() if torch.equal(p, trained[k])}
    # Softmax is blind to a bias that all keys share: its gradient is rounding.
    assert {k for k in still if not k.endswith("key.bias")} == set()
    assert captioner.branches[SYSTEMS[name][0]].training


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_trained_parameter_gets_a_gradient(name: str) -> None:
    captioner = sizes.captioner(name, sizes.frozen()).train()
    captioner.loss(captioner.encode(sizes.views(8)), sizes.CAPTIONS, PROMPT).backward()
    without = {k for k, p in captioner.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)}
    assert {k for k in without if not k.endswith("key.bias")} == set()


@pytest.mark.parametrize("name", ["clip", "sam"])
def test_stage_one_leaves_the_encoder_bit_identical(tmp_path: Path, name: str) -> None:
    parts = sizes.frozen()
    before = states(parts)
    branch = Branch(sizes.config().branches[name], parts.encoder(name), llm_width=parts.opt.width, text=True)
    tokens = branch.encode(sizes.views(8)[name])
    query = branch.qformer.query_tokens.detach().clone()
    fit(AlignmentTask(branch, parts.opt.tokenizer), lambda step: (tokens, sizes.CAPTIONS, step), FEW, tmp_path, name=name)
    assert_frozen(parts, before)
    assert not torch.equal(query, branch.qformer.query_tokens)


def test_systems_of_one_encoder_train_apart(tmp_path: Path) -> None:
    parts = sizes.frozen()
    ours, baseline = sizes.captioner("MSMedCap", parts), sizes.captioner("BLIP2", parts, seed=11)
    before = snapshot(baseline)
    features = ours.encode(sizes.views(8))
    fit(CaptioningTask(ours, PROMPT), lambda step: (features, sizes.CAPTIONS), FEW, tmp_path, name="MSMedCap")
    assert unchanged(baseline, before)


@pytest.fixture(scope="module")
def led(tmp_path_factory: pytest.TempPathFactory) -> Frozen:
    """Frozen parts whose OPT has read the captions after a keyword each, so that something before the prompt can lead it."""
    tokenizer = sizes.tokenizer()
    model = build_opt(len(tokenizer), hidden=32, layers=2, heads=2, positions=128)
    texts = [f"{key}. {PROMPT} {caption}" for key, caption in zip("ABCDEFGH", sizes.CAPTIONS, strict=True)]
    rows = torch.stack([pack([text, text, text], tokenizer, 40)[0] for text in texts])
    loop = LoopConfig(steps=250, lr=1e-2, warmup=20, weight_decay=0.0, precision="no", save_every=250)
    fit(LanguageTask(model), lambda step: rows, loop, tmp_path_factory.mktemp("opt"), name="OPT")
    return dataclasses.replace(sizes.frozen(), opt=Opt(model, tokenizer))


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_eight_pictures_are_learnt_by_heart(tmp_path: Path, led: Frozen, name: str) -> None:
    captioner = sizes.captioner(name, led)
    features = captioner.encode(sizes.views(8))
    loop = LoopConfig(steps=250, lr=1e-2, min_lr=1e-4, warmup=20, weight_decay=0.0, precision="no", save_every=250)
    fit(CaptioningTask(captioner, PROMPT), lambda step: (features, sizes.CAPTIONS), loop, tmp_path, name=name)
    captioner.eval()
    said = captioner.generate(features, Decoding(prompt=PROMPT, max_new_tokens=40))
    assert said == list(sizes.CAPTIONS)
    # Each picture by itself, and in another order: the caption is the picture's, not the place's in the batch.
    turned = {view: tokens.flip(0) for view, tokens in features.items()}
    assert captioner.generate(turned, Decoding(prompt=PROMPT, max_new_tokens=40)) == said[::-1]
