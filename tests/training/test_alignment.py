"""Stage 1: who sees whom, and what counts as a match."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from msmedcap.models.branch import Branch
from msmedcap.training.alignment import SMOOTHING, AlignmentTask, attention_mask, contrast_loss
from tests import sizes

QUERIES = sizes.config().branches["clip"].qformer.queries
LENGTH = 6


@pytest.fixture(scope="module")
def task() -> AlignmentTask:
    parts = sizes.frozen()
    branch = Branch(sizes.config().branches["clip"], parts.clip, llm_width=32, text=True)
    return sizes.randomise(AlignmentTask(branch, parts.opt.tokenizer), 3)


def tokens(count: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(count, 17, 32, generator=torch.Generator().manual_seed(seed))


def joint(task: AlignmentTask, objective: str, features: Tensor, ids: Tensor, real: Tensor | None = None) -> Tensor:
    real = torch.ones_like(ids, dtype=torch.bool) if real is None else real
    with torch.no_grad():
        return task.branch.qformer.joint(features, ids, attention_mask(real, QUERIES, objective))


def moved(task: AlignmentTask, objective: str, *, word: int | None = None) -> list[bool]:
    """Which of the Q + T states move when ``word`` (or, without one, the picture) is another."""
    ids = torch.arange(10, 10 + LENGTH).expand(2, -1)
    other, features = ids.clone(), tokens()
    if word is None:
        features = tokens(seed=1)
    else:
        other[:, word] += 100
    difference = joint(task, objective, tokens(), ids) - joint(task, objective, features, other)
    return (difference.abs().amax((0, 2)) > 1e-6).tolist()


ALL, NONE = True, False


@pytest.mark.parametrize("word", range(LENGTH))
def test_contrast_keeps_queries_and_text_apart(task: AlignmentTask, word: int) -> None:
    assert moved(task, "itc", word=word) == [NONE] * QUERIES + [ALL] * LENGTH


def test_contrast_text_does_not_see_the_picture(task: AlignmentTask) -> None:
    assert moved(task, "itc") == [ALL] * QUERIES + [NONE] * LENGTH


@pytest.mark.parametrize("word", range(LENGTH))
def test_generation_is_causal_and_hides_the_text_from_the_queries(task: AlignmentTask, word: int) -> None:
    assert moved(task, "itg", word=word) == [NONE] * QUERIES + [NONE] * word + [ALL] * (LENGTH - word)


@pytest.mark.parametrize("word", range(LENGTH))
def test_matching_lets_all_see_all(task: AlignmentTask, word: int) -> None:
    assert moved(task, "itm", word=word) == [ALL] * (QUERIES + LENGTH)


@pytest.mark.parametrize("objective", ["itg", "itm"])
def test_text_sees_the_picture_through_the_queries(task: AlignmentTask, objective: str) -> None:
    assert moved(task, objective) == [ALL] * (QUERIES + LENGTH)


@pytest.mark.parametrize("objective", ["itc", "itg", "itm"])
def test_padding_is_seen_by_nobody(task: AlignmentTask, objective: str) -> None:
    ids = torch.arange(10, 10 + LENGTH).expand(2, -1)
    other = ids.clone()
    other[:, -2:] = 99
    real = torch.ones_like(ids, dtype=torch.bool)
    real[:, -2:] = False
    a, b = joint(task, objective, tokens(), ids, real), joint(task, objective, tokens(), other, real)
    torch.testing.assert_close(a[:, : QUERIES + LENGTH - 2], b[:, : QUERIES + LENGTH - 2], atol=1e-6, rtol=0)


def test_queries_of_contrast_are_those_of_stage_two(task: AlignmentTask) -> None:
    ids = torch.arange(10, 10 + LENGTH).expand(2, -1)
    alone = task.branch.qformer(tokens())
    torch.testing.assert_close(joint(task, "itc", tokens(), ids)[:, :QUERIES], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(joint(task, "itg", tokens(), ids)[:, :QUERIES], alone, atol=1e-5, rtol=1e-5)


def test_contrast_by_hand_two_captions() -> None:
    similarity = torch.tensor([[2.0, 0.0], [1.0, 3.0]])

    def row(right: float, wrong: float) -> float:
        log = math.log(math.exp(right) + math.exp(wrong))
        return -(1 - SMOOTHING / 2) * (right - log) - SMOOTHING / 2 * (wrong - log)

    rows = (row(2, 0) + row(3, 1)) / 2
    columns = (row(2, 1) + row(3, 0)) / 2
    found = contrast_loss(similarity, torch.eye(2, dtype=torch.bool))
    assert float(found) == pytest.approx((rows + columns) / 2, rel=1e-6)


def test_contrast_by_hand_the_same_caption_twice() -> None:
    similarity = torch.tensor([[2.0, 0.0], [1.0, 3.0]])

    def row(a: float, b: float) -> float:  # both carry the caption: each is half the target, smoothing changes nothing
        return math.log(math.exp(a) + math.exp(b)) - (a + b) / 2

    wanted = ((row(2, 0) + row(1, 3)) / 2 + (row(2, 1) + row(0, 3)) / 2) / 2
    assert float(contrast_loss(similarity, torch.ones(2, 2, dtype=torch.bool))) == pytest.approx(wanted, rel=1e-6)


def test_equal_captions_pull_together_what_one_hot_targets_would_push_apart() -> None:
    similarity = torch.zeros(3, 3, requires_grad=True)
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    contrast_loss(similarity, same).backward()
    assert similarity.grad is not None
    assert torch.equal(similarity.grad < 0, same)  # a step down raises exactly the pairs that share a caption


def pairs_asked(
    task: AlignmentTask, captions: list[str], monkeypatch: pytest.MonkeyPatch, *, seed: int = 0
) -> list[tuple[int, str]]:
    """The (picture, caption) pairs the matching head is asked about, with pictures told apart by their tokens."""
    seen: list[tuple[int, str]] = []
    features = tokens(len(captions))
    qformer, real_joint = task.branch.qformer, task.branch.qformer.joint
    normed = task.branch.norm(features)

    def spy(images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        if len(images) == 3 * len(captions):
            for image, row in zip(images, ids, strict=True):
                picture = int((normed - image).abs().sum((1, 2)).argmin())
                seen.append((picture, sizes.tokenizer().decode(row, skip_special_tokens=True)))
        return real_joint(images, ids, mask)

    with monkeypatch.context() as patch:
        patch.setattr(qformer, "joint", spy)
        task((features, captions, seed))
    return seen


def test_negatives_never_carry_an_equal_caption(task: AlignmentTask, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = ["Mass.", "Mass.", "Cyst.", "Mass.", "Cyst."]
    short = [sizes.tokenizer().decode(sizes.tokenizer()(c, add_special_tokens=False).input_ids) for c in captions]
    chosen = set()
    for seed in range(12):
        asked = pairs_asked(task, captions, monkeypatch, seed=seed)
        assert asked[:5] == list(enumerate(short))  # the true pairs
        assert len(asked) == 15
        assert all(captions[picture] != caption for picture, caption in asked[5:])
        chosen.add(tuple(asked[5:]))
    assert len(chosen) > 1  # negatives are drawn, not always the same


def test_negatives_are_a_function_of_the_seed(task: AlignmentTask, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = list(sizes.CAPTIONS)
    assert pairs_asked(task, captions, monkeypatch, seed=5) == pairs_asked(task, captions, monkeypatch, seed=5)


@torch.no_grad()
def test_a_batch_of_one_caption_has_nothing_to_match(task: AlignmentTask) -> None:
    losses = task((tokens(3), ["No findings."] * 3, 0))
    assert float(losses["itm"]) == 0.0
    assert all(bool(torch.isfinite(v)) for v in losses.values())
    assert float(losses["loss"]) == pytest.approx(float(losses["itc"] + losses["itg"]))


@torch.no_grad()
def test_the_loss_is_the_sum_of_the_three(task: AlignmentTask) -> None:
    losses = task((tokens(8), list(sizes.CAPTIONS), 0))
    assert float(losses["itm"]) > 0
    assert float(losses["loss"]) == pytest.approx(float(losses["itc"] + losses["itm"] + losses["itg"]), rel=1e-6)


@torch.no_grad()
def test_generation_does_not_see_the_word_it_is_to_say(task: AlignmentTask) -> None:
    # Changing the last word alone must leave the loss of every earlier word as it was.
    ids = torch.arange(10, 10 + LENGTH).expand(2, -1).clone()
    real = torch.ones_like(ids, dtype=torch.bool)
    states = []
    for last in (15, 77):
        ids[:, -1] = last
        states.append(joint(task, "itg", tokens(), ids, real)[:, QUERIES:-1])
    assert torch.equal(states[0], states[1])


def test_every_trained_weight_learns_and_the_encoder_does_not(task: AlignmentTask) -> None:
    parts = sizes.frozen()
    for name in ("clip", "sam"):
        branch = Branch(sizes.config().branches[name], parts.encoder(name), llm_width=32, text=True)
        fresh = AlignmentTask(branch, parts.opt.tokenizer).train()
        features = branch.encode(sizes.views(8)[name])
        fresh((features, list(sizes.CAPTIONS), 0))["loss"].backward()
        without = {k for k, p in fresh.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)}
        # The projection into the language model waits for stage 2; softmax is blind to a bias all keys share.
        assert {k for k in without if not k.endswith("key.bias")} == {"branch.projection.weight", "branch.projection.bias"}
        assert not any(k.startswith("branch.encoder") for k, _ in fresh.named_parameters())
        assert all(p.grad is None for p in parts.encoder(name).parameters())
