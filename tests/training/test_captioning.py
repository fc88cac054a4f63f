"""Stage 2: gradients reach the branches alone, and eight pictures are learnt by heart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from msmedcap.checkpoints import Frozen, build_captioner
from msmedcap.config import Decoding, LoopConfig
from msmedcap.models.branch import Branch
from msmedcap.models.opt import Opt
from msmedcap.models.opt_loading import build_opt
from msmedcap.systems import SYSTEMS
from msmedcap.training.alignment import AlignmentTask
from msmedcap.training.captioning import CaptioningTask
from msmedcap.training.language import LanguageTask, pack
from msmedcap.training.loop import fit
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


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_learns_is_q_formers_queries_norms_and_projections(name: str) -> None:
    captioner = sizes.captioner(name, sizes.frozen())
    parts = {key.split(".")[2 + ("qformer" in key)] for key, _ in CaptioningTask(captioner, PROMPT).captioner.named_parameters()}
    assert parts == {"norm", "query_tokens", "model", "projection"}


def test_a_branch_that_stage_one_left_learns_its_projection_again() -> None:
    captioner = sizes.captioner("BLIP2", sizes.frozen())
    captioner.branches["clip"].projection.requires_grad_(False)
    assert all(p.requires_grad for p in CaptioningTask(captioner, PROMPT).parameters())
    assert not any(p.requires_grad for p in captioner.opt.parameters())


def test_a_frozen_opt_in_bf16_trains_a_system_in_fp32(tmp_path: Path) -> None:
    parts = sizes.frozen()
    parts.opt.model.bfloat16()
    captioner, before = sizes.captioner("MSMedCap", parts), states(parts)
    task, features = CaptioningTask(captioner, PROMPT), captioner.encode(sizes.views(8))
    task((features, sizes.CAPTIONS))["loss"].backward()
    assert all(p.grad is not None and p.grad.dtype is torch.float32 for p in task.parameters())
    fit(task, lambda step: (features, sizes.CAPTIONS), FEW, tmp_path, name="bf16")
    assert_frozen(parts, before)


@torch.no_grad()
def test_a_caption_is_learnt_up_to_its_length() -> None:
    captioner = sizes.captioner("BLIP2", sizes.frozen())
    features = captioner.encode(sizes.views(8))
    for length in (3, 64):
        wanted = captioner.opt.loss(captioner.prefix(features, PROMPT), sizes.CAPTIONS, max_tokens=length)
        found = CaptioningTask(captioner, PROMPT, max_tokens=length)((features, sizes.CAPTIONS))["loss"]
        torch.testing.assert_close(found, wanted)


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


LEADS = [caption.partition(". ")[0] + "." for caption in sizes.CAPTIONS]  # eight captions, all different


@pytest.fixture(scope="module")
def led(tmp_path_factory: pytest.TempPathFactory) -> Frozen:
    """Frozen parts whose OPT has read each caption after a keyword.

    The keyword fills the slots the branches' reads will, before the ``</s>`` that begins the prompt: an OPT for which
    ``</s>`` always began something new would have learnt to look no further back.
    """
    torch.manual_seed(0)
    tokenizer, queries = sizes.tokenizer(), sizes.config().branches["clip"].qformer.queries
    model = build_opt(len(tokenizer), hidden=32, layers=2, heads=2, positions=128)
    texts = [f"{f' {key}' * n}</s>{PROMPT} {c}" for n in (queries, 2 * queries) for key, c in zip("ABCDEFGH", LEADS, strict=True)]
    rows = torch.stack([pack([text] * 3, tokenizer, 36)[0] for text in texts])
    loop = LoopConfig(steps=150, lr=1e-2, warmup=20, weight_decay=0.0, precision="no", save_every=150)
    fit(LanguageTask(model), lambda step: rows, loop, tmp_path_factory.mktemp("opt"), name="OPT")
    parts = sizes.frozen()
    return Frozen(parts.clip, parts.sam, parts.prompts, Opt(model, tokenizer))


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_eight_pictures_are_learnt_by_heart(tmp_path: Path, led: Frozen, name: str) -> None:
    torch.manual_seed(1)
    captioner = build_captioner({view: sizes.config().branches[view] for view in SYSTEMS[name]}, led)
    features = captioner.encode(sizes.views(8))
    loop = LoopConfig(steps=300, lr=4e-3, min_lr=5e-4, warmup=20, weight_decay=0.0, precision="no", save_every=300)
    fit(CaptioningTask(captioner, PROMPT), lambda step: (features, LEADS), loop, tmp_path, name=name)
    captioner.eval()
    decoding = Decoding(prompt=PROMPT, max_new_tokens=40)
    assert len(set(LEADS)) == 8 and captioner.generate(features, decoding) == LEADS
    # In another order: a caption is its picture's, not its place's in the batch.
    turned = {view: tokens.flip(0) for view, tokens in features.items()}
    assert captioner.generate(turned, decoding) == LEADS[::-1]
