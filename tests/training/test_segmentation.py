"""SEG-SAM's training: each loss means what it says, prompts are drawn where they should be, and a few pictures are learnt."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from msmedcap.config import LoopConfig, SegmentationOptions, UserError
from msmedcap.models.sam import SamPrompts
from msmedcap.models.segmenter import Prompts, Segmenter
from msmedcap.training.loop import fit
from msmedcap.training.masking import mask_losses
from msmedcap.training.prompting import error_points, jittered_boxes, points_in
from msmedcap.training.segmentation import (
    UNNAMED,
    SegmentationTask,
    SegmentBatch,
    alignment_loss,
    match,
    presence_loss,
    unprompted,
)
from tests import segmenting, sizes

SIDE, CLASSES = segmenting.SIDE, len(segmenting.NAMES)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def squares() -> Tensor:
    """Four masks ``[4,S,S]`` of the view: three boxes and one that is empty."""
    masks = torch.zeros(4, SIDE, SIDE, dtype=torch.bool)
    masks[0, 8:24, 10:20] = True
    masks[1, 30:60, 32:62] = True
    masks[2, 5, 7] = True
    return masks


def batch(seed: int = 0, *, features: Tensor | None = None) -> SegmentBatch:
    """Two pictures: one with classes 0 and 1, the other with class 2 twice and 3 besides; class 4 is nowhere labelled."""
    masks = torch.zeros(4, SIDE, SIDE, dtype=torch.bool)
    masks[0, :, : SIDE // 2] = True
    masks[1, :, SIDE // 2 :] = True
    masks[2, : SIDE // 2] = True
    masks[3, SIDE // 2 :] = True
    objects = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 2, 1, 0]])
    labelled = torch.tensor([[True] * 4 + [False]] * 2)
    given = segmenting.features(2) if features is None else features
    return SegmentBatch(given, masks, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 2, 3]), objects, labelled, seed)


def test_points_lie_in_their_region_and_everywhere_in_it() -> None:
    masks, found = squares(), []
    for seed in range(200):
        points = points_in(masks, generator(seed))
        assert torch.equal(points[:3] - 0.5, (points[:3] - 0.5).round())
        x, y = points[:3].long().unbind(1)
        assert bool(masks[torch.arange(3), y, x].all())
        assert points[2].tolist() == [7.5, 5.5] and points[3].tolist() == [SIDE / 2, SIDE / 2]
        found.append(points[0])
    every = torch.stack(found)
    assert every.amin(0).tolist() == [10.5, 8.5] and every.amax(0).tolist() == [19.5, 23.5]
    assert (every.mean(0) - torch.tensor([15.0, 16.0])).abs().max() < 1


def test_boxes_are_the_masks_own_but_for_their_noise() -> None:
    masks = squares()
    exact = jittered_boxes(masks, generator(), share=0)
    wanted = [[10, 8, 20, 24], [32, 30, 62, 60], [7, 5, 8, 6], [0, 0, SIDE, SIDE]]
    assert exact.tolist() == [[float(v) for v in box] for box in wanted]
    noise = torch.stack([jittered_boxes(masks, generator(seed), share=0.1) - exact for seed in range(300)])
    assert noise[:, :3].abs().max() <= 20 / 1024 * SIDE
    assert 0.3 < noise[:, 0, 0].std() < 1.1 and noise[:, 0].mean().abs() < 0.2
    boxes = exact + noise[0]
    assert bool((boxes >= 0).all() and (boxes <= SIDE).all())


def test_the_next_point_says_what_was_wrong() -> None:
    masks = squares()[[0, 1, 0]]
    missed, too_much = torch.full((SIDE // 2, SIDE // 2), -5.0), torch.full((SIDE // 2, SIDE // 2), 5.0)
    right = (masks[2].float() * 10 - 5)[::2, ::2]
    logits = torch.stack([missed, too_much, right])
    for seed in range(20):
        points, labels = error_points(logits, masks, generator(seed))
        x, y = points[:, 0].long().unbind(1)
        inside = masks[torch.arange(3), y, x]
        assert labels[:, 0].tolist() == inside.int().tolist()
        assert inside[0] and not inside[1]


def test_a_round_adds_one_point_and_keeps_what_was_asked() -> None:
    segmenter, one = segmenting.segmenter(), batch()
    task = SegmentationTask(segmenter, SegmentationOptions(keep_mask=1.0))
    kinds = set()
    for seed in range(12):
        prompts = task.first(one, generator(seed))
        kinds.add(prompts.boxes is None)
        answer = segmenter(one.features, prompts)
        after = task.next(answer, prompts, one.masks, generator(seed))
        assert after.points is not None and after.labels is not None and after.masks is not None
        assert after.points.shape == (4, 1 if prompts.points is None else 2, 2) and after.picture is one.picture
        assert (after.boxes is None) == (prompts.boxes is None) and not after.masks.requires_grad
        assert after.masks.shape == (4, 1, *answer.binary.shape[-2:])
        without = SegmentationTask(segmenter, SegmentationOptions(keep_mask=0.0))
        assert without.next(answer, prompts, one.masks, generator(seed)).masks is None
    assert kinds == {True, False}


def test_the_alignment_costs_nothing_if_and_only_if_the_masks_are_equal() -> None:
    one = torch.randn(5, 16, 16, generator=generator())
    assert alignment_loss(one, one.clone()).abs().max() == 0
    other = one.clone()
    other[:, 3, 4] += 0.5
    found = alignment_loss(one, other)
    assert bool((found > 0).all())
    torch.testing.assert_close(found, alignment_loss(other, one))
    apart = torch.full((1, 8, 8), -30.0)
    assert alignment_loss(apart, -apart)[0] > 0.99
    worse = one.clone()
    worse[:, 3, 4] += 2.0
    assert bool((alignment_loss(one, worse) > found).all())


def test_the_alignment_pulls_both_masks() -> None:
    a, b = (torch.randn(2, 8, 8, generator=generator(seed)).requires_grad_() for seed in (0, 1))
    alignment_loss(a, b).sum().backward()
    assert a.grad is not None and b.grad is not None and bool((a.grad != 0).all() and (b.grad != 0).all())


def test_the_cheapest_matching_is_found() -> None:
    others = torch.full((1, 3, 4), -4.0)
    # Token 0 likes class 2 best but is the only one for class 1; the greedy choice would be dearer.
    others[0, 0, 2], others[0, 0, 1], others[0, 2, 2] = 3.0, 2.5, 2.8
    (token, kind), *rest = match(others, torch.tensor([[False, True, True, False]]))
    assert not rest and dict(zip(token.tolist(), kind.tolist(), strict=True)) == {0: 1, 2: 2}


def test_the_presence_does_not_depend_on_the_order_of_tokens_or_classes() -> None:
    others = torch.randn(3, 6, 5, generator=generator()) * 2
    present = torch.tensor([[1, 0, 1, 0, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]).bool()
    labelled = torch.tensor([[1, 1, 1, 0, 1], [1, 1, 1, 1, 1], [1, 1, 0, 0, 1]]).bool()
    loss = presence_loss(others, present, labelled)
    tokens, classes, rows = torch.tensor([3, 1, 5, 0, 2, 4]), torch.tensor([4, 2, 0, 1, 3]), torch.tensor([2, 0, 1])
    torch.testing.assert_close(presence_loss(others[:, tokens], present, labelled), loss)
    torch.testing.assert_close(presence_loss(others[..., classes], present[:, classes], labelled[:, classes]), loss)
    torch.testing.assert_close(presence_loss(others[rows], present[rows], labelled[rows]), loss)


def test_the_presence_is_cheap_when_it_is_right_and_silent_of_what_is_not_labelled() -> None:
    present = torch.tensor([[True, True, False, False]])
    labelled = torch.tensor([[True, True, True, False]])
    right = torch.full((1, 5, 4), -8.0)
    right[0, 1, 0] = right[0, 4, 1] = 8.0
    assert presence_loss(right, present, labelled) < 1e-3
    wrong = right.clone()
    wrong[0, 2, 2] = 8.0
    assert presence_loss(wrong, present, labelled) > 1
    silent = right.clone()
    silent[0, 2, 3] = 8.0
    torch.testing.assert_close(presence_loss(silent, present, labelled), presence_loss(right, present, labelled))
    twice = right.clone()
    twice[0, 2, 0] = 8.0  # two tokens for one object
    assert presence_loss(twice, present, labelled) > 1


def test_more_classes_than_tokens_are_matched_as_far_as_tokens_go() -> None:
    others = torch.randn(1, 2, 5, generator=generator())
    ((token, kind),) = match(others, torch.ones(1, 5, dtype=torch.bool))
    assert sorted(token.tolist()) == [0, 1] and len(set(kind.tolist())) == 2
    assert presence_loss(others, torch.ones(1, 5, dtype=torch.bool), torch.ones(1, 5, dtype=torch.bool)).isfinite()


def test_the_prompted_object_is_not_among_the_others_unless_it_has_a_like() -> None:
    one = batch()
    present, labelled = unprompted(one)
    wanted = [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 0, 0]]
    assert present.int().tolist() == wanted
    assert not labelled[:, 4].any() and bool(labelled[:, :4].all())
    unnamed = one._replace(classes=torch.full_like(one.classes, UNNAMED))
    assert unprompted(unnamed)[0].int().tolist() == (one.objects[one.picture] > 0).int().tolist()


def test_the_loss_is_the_weighted_sum_of_its_parts() -> None:
    options = SegmentationOptions(focal=3, dice=5, iou=7, naming=11, presence=13, alignment=17)
    found = SegmentationTask(segmenting.segmenter(), options)(batch())
    parts = {
        "focal": 3, "dice": 5, "iou": 7, "semantic_focal": 3, "semantic_dice": 5, "naming": 11, "presence": 13, "alignment": 17,
    }
    assert set(found) == {"loss", "overlap", "named_right", *parts}
    torch.testing.assert_close(found["loss"], torch.stack([w * found[n] for n, w in parts.items()]).sum())
    assert all(bool(found[name].isfinite()) and found[name] > 0 for name in parts)


def test_a_part_that_is_switched_off_costs_nothing() -> None:
    plain = SegmentationTask(segmenting.segmenter(semantics=False, text=False))(batch())
    assert set(plain) == {"loss", "focal", "dice", "iou", "overlap"}
    on, off = (
        SegmentationTask(segmenting.segmenter(), SegmentationOptions(alignment=weight))(batch()) for weight in (1.0, 0.0)
    )
    torch.testing.assert_close(on["loss"] - on["alignment"], off["loss"])


def test_a_share_of_the_batches_goes_beyond_the_first_round() -> None:
    def losses(seed: int, **given: float) -> float:
        task = SegmentationTask(segmenting.segmenter(), SegmentationOptions(**given))  # type: ignore[arg-type]
        return task(batch(seed))["loss"].item()

    once, twice = ([losses(seed, rounds=rounds) for seed in range(12)] for rounds in (1, 2))
    assert [losses(seed, rounds=2, further=0) for seed in range(12)] == once
    some = [losses(seed, rounds=2, further=0.5) for seed in range(12)]
    assert all(found in pair for found, *pair in zip(some, once, twice, strict=True))
    assert some not in (once, twice)


def test_the_objects_share_of_the_focal_loss_weighs_what_is_missed_against_what_is_too_much() -> None:
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., :4] = 1
    missed, too_much = torch.full_like(truth, -5), torch.full_like(truth, 5)
    even, sam = ([mask_losses(x, truth, **given)["focal"] for x in (missed, too_much)] for given in ({"foreground": 0.5}, {}))
    torch.testing.assert_close(even[0], even[1])
    torch.testing.assert_close(3 * sam[0], sam[1])
    given = SegmentationOptions(foreground=0.9, dice=0, iou=0, naming=0, presence=0, alignment=0, focal=1)
    found, light = (
        SegmentationTask(segmenting.segmenter(), options)(batch())["focal"]
        for options in (given, dataclasses.replace(given, foreground=0.25))
    )
    assert found != light


def test_objects_without_a_name_teach_masks_alone() -> None:
    one = batch()
    found = SegmentationTask(segmenting.segmenter())(one._replace(classes=torch.full_like(one.classes, UNNAMED)))
    assert found["naming"] == 0 and found["named_right"] == 0 and found["focal"] > 0


def test_the_same_batch_costs_the_same_and_another_seed_asks_otherwise() -> None:
    task = SegmentationTask(segmenting.segmenter())
    one, again, other = task(batch(3)), task(batch(3)), task(batch(4))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert one["loss"] != other["loss"]


def test_where_one_click_is_asked_only_the_best_of_three_masks_learns() -> None:
    segmenter = segmenting.segmenter(semantics=False, text=False)
    task, one = SegmentationTask(segmenter, SegmentationOptions(rounds=1, iou=0)), batch()

    def boxed(seed: int) -> bool:
        return task.first(one, generator(seed)).boxes is not None

    task(one._replace(seed=next(s for s in range(20) if not boxed(s))))["loss"].backward()
    learnt = [
        any(p.grad is not None and bool(p.grad.any()) for p in net.parameters())
        for net in segmenter.prompts.decoder.output_hypernetworks_mlps
    ]
    assert not learnt[0] and any(learnt[1:])
    segmenter.zero_grad()
    task(one._replace(seed=next(s for s in range(20) if boxed(s))))["loss"].backward()
    decoder = segmenter.prompts.decoder
    assert any(bool(p.grad.any()) for p in decoder.output_hypernetworks_mlps[0].parameters() if p.grad is not None)
    assert not any(
        p.grad is not None and bool(p.grad.any()) for net in decoder.output_hypernetworks_mlps[1:] for p in net.parameters()
    )


def test_every_weight_learns_in_some_round() -> None:
    segmenter = segmenting.segmenter()
    task, reached = SegmentationTask(segmenter, SegmentationOptions(keep_mask=1.0)), set()
    for seed in range(4):
        segmenter.zero_grad(set_to_none=True)
        task(batch(seed))["loss"].backward()
        reached |= {n for n, p in segmenter.named_parameters() if p.grad is not None and bool(p.grad.any())}
    missing = {name for name, _ in segmenter.named_parameters()} - reached
    # Of SAM's three masks for a lone click those learn that were best for some object.
    assert {n for n in missing if "output_hypernetworks_mlps" not in n} == set()
    assert "prompts.decoder.output_hypernetworks_mlps.0.layers.0.weight" in reached


@pytest.mark.parametrize(
    ("name", "value"), [("focal", -1.0), ("alignment", -0.1), ("rounds", 0), ("foreground", 1.5), ("further", -0.1)]
)
def test_options_that_cannot_be_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=name):
        dataclasses.replace(SegmentationOptions(), **{name: value})


def told_apart(segmenter: Segmenter, one: SegmentBatch) -> tuple[float, float, list[int], Tensor]:
    """The mean IoU of the binary and of the semantic masks for a box, the names, and who is said to be present."""
    ious: list[list[float]] = [[], []]
    names, present = [], []
    for i, row in enumerate(one.picture):
        box = jittered_boxes(one.masks[i : i + 1], generator(), share=0)
        answer = segmenter.predict(one.features[row : row + 1], boxes=box)
        assert answer.semantic is not None and answer.classes is not None and answer.present is not None
        truth = one.masks[i, ::2, ::2]
        for which, logits in enumerate((answer.binary[0], answer.semantic[0])):
            ious[which].append(float(((logits > 0) & truth).sum() / ((logits > 0) | truth).sum()))
        names.append(int(answer.classes.argmax()))
        present.append(answer.present[0] > 0.5)
    return sum(ious[0]) / 4, sum(ious[1]) / 4, names, torch.stack(present)


def objects_in_features() -> Tensor:
    """Features of :func:`batch` in which each object has a mean of its own, as a trained encoder's would."""
    features = 0.3 * segmenting.features(2)
    mean = torch.randn(4, features.shape[1], 1, 1, generator=generator(9))
    half = features.shape[-1] // 2
    features[0, :, :, :half] += mean[0]
    features[0, :, :, half:] += mean[1]
    features[1, :, :half] += mean[2]
    features[1, :, half:] += mean[3]
    return features


@pytest.mark.slow
def test_a_few_objects_are_learnt_by_heart(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        segmenter = segmenting.untrained(SamPrompts(sizes.config().sam))
    task, one = SegmentationTask(segmenter, SegmentationOptions(rounds=1)), batch(features=objects_in_features())
    config = LoopConfig(steps=160, lr=3e-3, min_lr=1e-4, warmup=10, weight_decay=0.0, precision="no", save_every=160)
    fit(task, lambda step: one._replace(seed=step), config, tmp_path, name="segmentation")
    binary, semantic, names, present = told_apart(segmenter.eval(), one)
    assert binary > 0.95 and semantic > 0.95
    assert names == one.classes.tolist()
    assert torch.equal(present[:, :4], unprompted(one)[0][:, :4])


def test_a_step_moves_the_segmenter_and_a_resumed_run_ends_alike(tmp_path: Path) -> None:
    config = LoopConfig(steps=2, lr=1e-3, warmup=1, precision="no", save_every=1)

    def trained(folder: Path, stop: int | None = None) -> Segmenter:
        segmenter = segmenting.untrained(sizes.frozen().prompts)

        def at(step: int) -> SegmentBatch:
            if step == stop:
                raise InterruptedError
            return batch(step)

        fit(SegmentationTask(segmenter, SegmentationOptions(rounds=1)), at, config, folder, name="segmentation")
        return segmenter

    with pytest.raises(InterruptedError):
        trained(tmp_path / "stopped", 1)
    torch.rand(5)
    straight, resumed = trained(tmp_path / "straight"), trained(tmp_path / "stopped")
    begun = segmenting.untrained(sizes.frozen().prompts).state_dict()
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    assert not torch.equal(begun["semantics.segmentation_token"], straight.state_dict()["semantics.segmentation_token"])


def test_prompts_of_a_batch_belong_to_their_picture() -> None:
    segmenter, one = segmenting.segmenter(), batch()
    boxes = jittered_boxes(one.masks, generator(), share=0)
    swapped = one._replace(features=one.features.flip(0), picture=1 - one.picture)
    a = segmenter(one.features, Prompts(boxes=boxes, picture=one.picture))
    b = segmenter(swapped.features, Prompts(boxes=boxes, picture=swapped.picture))
    torch.testing.assert_close(a.binary, b.binary, atol=1e-5, rtol=1e-4)
