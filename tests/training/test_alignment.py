"""Stage 1: who sees whom, and what counts as a match."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from benchmarks.stage1 import unshared
from msmedcap.config import UserError
from msmedcap.models.branch import Branch
from msmedcap.models.qformer import Seen
from msmedcap.training import alignment
from msmedcap.training.alignment import (
    AlignmentTask,
    attention_mask,
    contrast_loss,
    decoder_id,
    draw_negatives,
    match_pairs,
)
from msmedcap.training.defaults import AlignmentOptions
from tests import sizes

QUERIES = sizes.config().branches["clip"].qformer.queries
LENGTH = 6
SMOOTHING = AlignmentOptions().smoothing


@pytest.fixture(scope="module")
def task() -> AlignmentTask:
    parts = sizes.frozen()
    branch = Branch(sizes.config().branches["clip"], parts.clip, llm_width=32, text=True)
    return sizes.randomise(AlignmentTask(branch, parts.opt.tokenizer), 3)


def tokens(count: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(count, 17, 32, generator=torch.Generator().manual_seed(seed))


def joint(task: AlignmentTask, objective: str, features: Tensor, ids: Tensor, real: Tensor | None = None) -> Tensor:
    """The Q + T states of ``objective``, by the pass that stage 1 makes for it."""
    real = torch.ones_like(ids, dtype=torch.bool) if real is None else real
    mask, qformer = attention_mask(real, QUERIES, objective), task.branch.qformer
    with torch.no_grad():
        seen = qformer.look(features)
        if objective == "itm":
            return qformer.joint(seen, torch.arange(len(ids)), ids, mask)
        return torch.cat(qformer.apart(seen, ids, mask[:, QUERIES:]), dim=1)


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
    found = contrast_loss(similarity, similarity.T, torch.eye(2, dtype=torch.bool), smoothing=SMOOTHING)
    assert float(found) == pytest.approx((rows + columns) / 2, rel=1e-6)


def test_contrast_by_hand_the_same_caption_twice() -> None:
    similarity = torch.tensor([[2.0, 0.0], [1.0, 3.0]])

    def row(a: float, b: float) -> float:  # both carry the caption: each is half the target, smoothing changes nothing
        return math.log(math.exp(a) + math.exp(b)) - (a + b) / 2

    wanted = ((row(2, 0) + row(1, 3)) / 2 + (row(2, 1) + row(0, 3)) / 2) / 2
    found = contrast_loss(similarity, similarity.T, torch.ones(2, 2, dtype=torch.bool), smoothing=SMOOTHING)
    assert float(found) == pytest.approx(wanted, rel=1e-6)


def test_equal_captions_pull_together_what_one_hot_targets_would_push_apart() -> None:
    similarity = torch.zeros(3, 3, requires_grad=True)
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    contrast_loss(similarity, similarity.T, same, smoothing=SMOOTHING).backward()
    assert similarity.grad is not None
    assert torch.equal(similarity.grad < 0, same)  # a step down raises exactly the pairs that share a caption


def pairs_asked(
    task: AlignmentTask, captions: list[str], monkeypatch: pytest.MonkeyPatch, *, seed: int = 0
) -> list[tuple[int, str]]:
    """The (picture, caption) pairs the matching head is asked about."""
    seen: list[tuple[int, str]] = []
    qformer, real_joint = task.branch.qformer, task.branch.qformer.joint

    def spy(pictures: Seen, which: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        said = [sizes.tokenizer().decode(row, skip_special_tokens=True) for row in ids]
        seen.extend(zip(which.tolist(), said, strict=True))
        return real_joint(pictures, which, ids, mask)

    with monkeypatch.context() as patch:
        patch.setattr(qformer, "joint", spy)
        task((tokens(len(captions)), captions, seed))
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


def test_captions_that_read_the_same_are_the_same(task: AlignmentTask, monkeypatch: pytest.MonkeyPatch) -> None:
    # They differ where the Q-Former has stopped reading: as a negative one would contradict the other.
    long = "Axial CT of the chest. Nodule on the right."
    captions = [long + " No findings.", long + " Malignant mass.", "Mass."]
    for seed in range(8):
        asked = pairs_asked(task, captions, monkeypatch, seed=seed)
        assert all((picture == 2) != (caption == asked[2][1]) for picture, caption in asked[3:])


def test_draws_follow_the_softmax_and_never_take_an_equal_caption() -> None:
    similarity = torch.tensor([[0.0, 1.0, 2.0, 9.0]]).expand(4000, -1)
    same = torch.tensor([[False, False, False, True]]).expand(4000, -1)
    chances = torch.rand(4000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    counts = draw_negatives(similarity, same, chances).bincount(minlength=4) / 4000
    wanted = torch.tensor([0.0, 1.0, 2.0]).softmax(0)
    torch.testing.assert_close(counts, torch.cat([wanted, torch.zeros(1)]), atol=0.02, rtol=0)


@pytest.mark.parametrize("chance", [0.0, 1 - 2**-53])
def test_the_ends_of_chance_draw_the_first_and_the_last_that_may_be(chance: float) -> None:
    same = torch.tensor([[True, False, False, True]])
    drawn = draw_negatives(torch.zeros(1, 4), same, torch.tensor([chance], dtype=torch.float64))
    assert int(drawn) == (1 if chance == 0 else 2)


def test_a_pair_belongs_to_the_process_that_holds_its_picture() -> None:
    image_of, text_of = torch.tensor([3, 2, 0, 0]), torch.tensor([1, 3, 0, 0])
    found = []
    for mine in (slice(0, 2), slice(2, 4)):
        pictures, captioned = match_pairs(image_of, text_of[mine], mine)
        found.append(list(zip((pictures + mine.start).tolist(), captioned.tolist(), strict=True)))
    assert found == [[(0, 0), (1, 1), (0, 2), (0, 3), (0, 1), (1, 3)], [(2, 2), (3, 3), (3, 0), (2, 1), (2, 0), (3, 0)]]
    pictures, captioned = match_pairs(image_of, text_of, slice(0, 4))
    together = list(zip(pictures.tolist(), captioned.tolist(), strict=True))
    assert sorted(together) == sorted(found[0] + found[1])
    assert together[:4] == [(0, 0), (1, 1), (2, 2), (3, 3)]


def chosen_negatives(options: AlignmentOptions, number: int, *, temp: float = 0.07) -> set[int]:
    """The captions that 64 pictures, all of them nearest to caption 7, get as negatives."""
    branch = Branch(sizes.config().branches["clip"], sizes.frozen().clip, llm_width=32, text=True)
    task = AlignmentTask(branch, sizes.tokenizer(), options=options)
    with torch.no_grad():
        task.temp.fill_(temp)
    toward = torch.zeros(64, 64)
    toward[:, 7] = 1.0
    pairs = task.pairs((toward, toward), torch.eye(64, dtype=torch.bool), slice(0, 64), number)
    assert pairs is not None
    return set(pairs[1][128:].tolist()) - {int(pairs[1][128 + 7])}  # what picture 7 itself got aside


def test_negatives_are_hard_from_the_first_batch() -> None:
    assert AlignmentOptions().hard_after == 0
    assert chosen_negatives(AlignmentOptions(), 0) == {7}


def test_negatives_may_be_uniform_for_some_batches() -> None:
    options = AlignmentOptions(hard_after=3)
    for number in range(3):
        assert len(chosen_negatives(options, number)) > 30
    assert chosen_negatives(options, 3) == {7}


def test_the_learned_temperature_says_how_hard_negatives_are() -> None:
    assert len(chosen_negatives(AlignmentOptions(), 0, temp=0.5)) > 30


def test_a_picture_that_all_captions_take_is_read_in_pieces(task: AlignmentTask, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = (tokens(8), list(sizes.CAPTIONS), 1)
    rows: list[int] = []
    real_joint = task.branch.qformer.joint

    def spy(pictures: Seen, which: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        rows.append(len(which))
        return real_joint(pictures, which, ids, mask)

    def run() -> tuple[float, dict[str, Tensor]]:
        task.zero_grad()
        loss = task(batch)["itm"]
        loss.backward()
        found = {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}
        task.zero_grad()
        return float(loss.detach()), found

    monkeypatch.setattr(task.branch.qformer, "joint", spy)
    whole = run()
    assert rows == [24]
    monkeypatch.setattr(alignment, "LIMIT", 1)
    pieces = run()
    assert rows[1:4] == [8, 8, 8] and sorted(rows[4:]) == [8, 8, 8]  # read again in the backward pass
    assert pieces[0] == pytest.approx(whole[0], rel=1e-6)
    assert pieces[1].keys() == whole[1].keys()
    for name, wanted in whole[1].items():
        torch.testing.assert_close(pieces[1][name], wanted, atol=1e-6, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


def test_a_tokenizer_of_another_vocabulary_is_refused() -> None:
    config = sizes.config().branches["clip"]
    config = dataclasses.replace(config, qformer=dataclasses.replace(config.qformer, vocab=60))
    task = AlignmentTask(Branch(config, sizes.frozen().clip, llm_width=32, text=True), sizes.tokenizer())
    with pytest.raises(UserError, match=r"The tokenizer has \d+ words, the Q-Former 60"):
        task((tokens(3), ["A.", "B.", "C."], 0))


def test_generation_begins_with_dec_or_else_with_s() -> None:
    class Words(dict[str, int]):
        def get_vocab(self) -> dict[str, int]:
            return self

    assert decoder_id(Words({"<s>": 4, "[DEC]": 9})) == 9  # type: ignore[arg-type]
    assert decoder_id(sizes.tokenizer()) == sizes.tokenizer().get_vocab()["<s>"]
    with pytest.raises(UserError, match=r"neither \[DEC\] nor <s>"):
        decoder_id(Words({"a": 0}))  # type: ignore[arg-type]


@torch.no_grad()
def test_a_batch_of_one_caption_has_nothing_to_match(task: AlignmentTask) -> None:
    losses = task((tokens(3), ["No findings."] * 3, 0))
    assert float(losses["itm"]) == 0.0
    assert losses.keys() == {"loss", "itc", "itm", "itg", "query_spread", "itc_spread"}
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


@pytest.mark.parametrize("view", ["clip", "sam"])
@pytest.mark.parametrize("captions", [list(sizes.CAPTIONS), ["Mass.", "Mass.", "A cyst on the left.", "Mass."]])
def test_sharing_changes_neither_the_loss_nor_any_gradient(view: str, captions: list[str]) -> None:
    parts = sizes.frozen()
    branch = Branch(sizes.config().branches[view], parts.encoder(view), llm_width=32, text=True)
    task = sizes.randomise(AlignmentTask(branch, parts.opt.tokenizer), 4)
    with torch.no_grad():
        task.temp.fill_(0.07)
    batch = (branch.encode(sizes.views(len(captions))[view]), captions, 7)

    def run(loss: Tensor) -> tuple[float, dict[str, Tensor]]:
        task.zero_grad()
        loss.backward()
        return float(loss.detach()), {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}

    ours, theirs = run(task(batch)["loss"]), run(unshared(task, batch))
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    assert ours[1].keys() == theirs[1].keys()
    for name, wanted in theirs[1].items():
        torch.testing.assert_close(ours[1][name], wanted, atol=2e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


def test_a_step_projects_every_picture_once(task: AlignmentTask) -> None:
    asked: list[tuple[int, ...]] = []
    layers = [layer for layer in task.branch.qformer.model.encoder.layer if layer.has_cross_attention]
    heads = [
        part for layer in layers for part in (layer.crossattention.attention.key, layer.crossattention.attention.value)
    ]
    hooks = [part.register_forward_hook(lambda module, args, out: asked.append(tuple(out.shape))) for part in heads]
    losses = task((tokens(8), list(sizes.CAPTIONS), 0))
    for hook in hooks:
        hook.remove()
    assert float(losses["itm"].detach()) > 0
    assert asked == [(8, 17, task.branch.config.qformer.hidden)] * len(heads)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same_losses() -> None:
    branch = Branch(sizes.config().branches["clip"], sizes.frozen().clip, llm_width=32, text=True)
    task = sizes.randomise(AlignmentTask(branch, sizes.tokenizer()), 5)
    with torch.no_grad():
        here = task((tokens(8), list(sizes.CAPTIONS), 1))
        there = task.to("cuda")((tokens(8).to("cuda"), list(sizes.CAPTIONS), 1))
    for name, value in here.items():
        torch.testing.assert_close(there[name].cpu(), value, atol=1e-3, rtol=1e-3)
