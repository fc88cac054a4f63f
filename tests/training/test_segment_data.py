"""Batches of the segmenter's training: masks follow the picture, sides follow the mirror, draws follow the classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from msmedcap.config import UserError
from msmedcap.data.segments import PackedMask, Segment, SegmentedPicture
from msmedcap.data.views import ViewFrame
from msmedcap.models.frozen import freeze
from msmedcap.training.features import FeatureCache
from msmedcap.training.segment_data import Ahead, SegmentData, classes_of, fill, mirrored
from msmedcap.training.segmentation import UNNAMED
from tests import segments, sizes

NAMES = ("Left Lung", "Right Lung", "heart", "rib left 9")
SPEC = sizes.config().view("sam")


def row(seed: int, *, source: str = "folder", labelled: tuple[str, ...] = NAMES[:3], size: int = 64) -> SegmentedPicture:
    picture, index = segments.chest(seed, size)
    own = tuple(Segment(NAMES[v - 1], PackedMask.of(index == v)) for v in (1, 2, 3))
    return SegmentedPicture(f"{seed}", source, picture, own, frozenset(labelled), f"{seed}", "train")


def data(count: int = 4, **options: object) -> SegmentData:
    return SegmentData([(1.0, [row(i) for i in range(count)])], NAMES, SPEC, **{"draws": 8, **options})  # type: ignore[arg-type]


def grey(view: torch.Tensor) -> torch.Tensor:
    return view[0] * SPEC.std[0] + SPEC.mean[0]


def test_masks_lie_where_the_view_shows_their_object() -> None:
    made = data(strength=1.0)
    shown = 0
    for k in range(8):
        view, seen = made.view(0, k), made.seen(0, k)
        assert view is not None
        heart = seen.masks[2].bool()
        inner = torch.nn.functional.avg_pool2d(heart[None].float(), 3, 1, 1)[0] == 1
        around = torch.nn.functional.max_pool2d(heart[None].float(), 7, 1, 3)[0] == 0
        if inner.sum() > 4:
            shown += 1
            values = grey(view)
            assert values[inner].mean() > values[around & (values > 5)].mean() + 40
    assert shown >= 6


def test_the_plain_view_has_the_masks_of_the_views_frame() -> None:
    made = data()
    _, index = segments.chest(0)
    wanted = ViewFrame(SPEC, *index.shape).masks_to_view(index == 1)
    assert np.array_equal(made.seen(0, 0).masks[0].numpy(), wanted)


def test_a_mirrored_view_swaps_sides_and_what_is_labelled() -> None:
    made = data(draws=24)
    made.rows[0] = row(0, labelled=("Left Lung", "heart", "rib left 9"))
    made.labelled[0] = torch.tensor([True, False, True, True])
    turned = 0
    for k in range(24):
        seen = made.seen(0, k)
        flipped = bool(made.drawn(0, k).flipped[0])
        turned += flipped
        assert seen.classes.tolist() == ([1, 0, 2] if flipped else [0, 1, 2])
        # A class whose other side is none of the classes cannot be said to be there or not in a mirrored view.
        assert seen.labelled.tolist() == ([False, True, True, False] if flipped else [True, False, True, True])
        right, left = ((seen.masks[seen.classes.tolist().index(c)] > 0).nonzero()[:, 1].float() for c in (1, 0))
        if len(right) > 40 and len(left) > 40:
            assert right.mean() < left.mean()
    assert 4 < turned < 20


def test_mirrored_names() -> None:
    assert mirrored(("kidney left", "liver", "kidney right", "lung middle lobe right")).tolist() == [2, 1, 0, UNNAMED]


def test_a_batch_is_a_function_of_its_number_and_shared_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = data().batch(3, 4, each=2)
    again = data().batch(3, 4, each=2)
    assert torch.equal(whole.features, again.features) and torch.equal(whole.masks, again.masks)
    assert not torch.equal(whole.features, data().batch(4, 4, each=2).features)
    parts = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        parts.append(data().batch(3, 4, each=2))
    for name in ("features", "masks", "classes", "objects", "labelled"):
        assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(whole, name)), name
    assert parts[0].picture.tolist() == parts[1].picture.tolist() == [0, 0, 1, 1] and parts[0].seed != parts[1].seed


def test_asked_objects_are_different_ones_as_far_as_there_are() -> None:
    for number in range(6):
        made = data(draws=1).batch(number, 2, each=3)
        assert [sorted(part.tolist()) for part in made.classes.split(3)] == [[0, 1, 2], [0, 1, 2]]
        assert made.objects.tolist() == [[1, 1, 1, 0]] * 2
    more = data(draws=1).batch(0, 1, each=5).classes
    assert sorted(more.bincount().tolist()) == [1, 2, 2]


def test_a_speck_is_neither_asked_for_nor_said_to_be_there() -> None:
    one = row(0)
    speck = np.zeros((64, 64), bool)
    speck[5, 5:8] = True
    own = (*one.segments, Segment("rib left 9", PackedMask.of(speck)), Segment(None, PackedMask.of(speck)))
    changed = SegmentedPicture(one.id, one.source, one.image, own, frozenset(NAMES), one.group, one.split)
    made = SegmentData([(1.0, [changed])], NAMES, SPEC).batch(0, 1, each=3)
    assert 3 not in made.classes.tolist()
    assert made.objects.tolist() == [[1, 1, 1, 0]] and made.labelled.tolist() == [[True, True, True, False]]


def test_rare_classes_and_small_sets_are_drawn_as_often_as_they_are_to_be() -> None:
    common = [row(i) for i in range(30)]
    rare = row(99)
    rare = SegmentedPicture("rare", "folder", rare.image, rare.segments[2:], rare.labelled, "rare", "train")
    other = SegmentedPicture("other", "phantoms", rare.image, row(99).segments[:1], rare.labelled, "other", "train")

    def drawn(balance: float) -> np.ndarray:
        lungs = [SegmentedPicture(r.id, r.source, r.image, r.segments[:2], r.labelled, r.group, r.split) for r in common]
        made = SegmentData([(0.75, [*lungs, rare]), (0.25, [other])], NAMES, SPEC, balance=balance)
        picks = [made._one(torch.Generator().manual_seed(i))[0] for i in range(300)]
        return np.bincount([min(p, 32) for p in picks], minlength=32) / 300

    level, plain = drawn(1.0), drawn(0.0)
    assert abs(level[31] - 0.25) < 0.08 and abs(plain[31] - 0.25) < 0.08
    assert abs(level[30] - 0.25) < 0.08 and plain[30] < 0.06  # one class of three, but one mask of 61


def test_features_are_those_of_the_views(tmp_path: Path) -> None:
    made, encoder = data(2, draws=3), freeze(sizes.frozen().sam)
    plain = made.batch(0, 2, each=2)
    fill(made, FeatureCache(tmp_path, made.ids, encoders={"sam": encoder}, specs={"sam": SPEC}))
    kept = made.batch(0, 2, each=2)
    with torch.no_grad():
        wanted = encoder(plain.features)
    assert torch.equal(kept.masks, plain.masks)
    torch.testing.assert_close(kept.features, wanted, atol=0.05, rtol=0.05)


def test_made_scans_have_one_view() -> None:
    made = SegmentData([(1.0, [row(0), row(1, source="phantoms")])], NAMES, SPEC, draws=3)
    assert made.samples == [(0, 0), (0, 1), (0, 2), (1, 0)] and len(set(made.ids)) == 4


def test_what_cannot_be_read_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gone = SegmentedPicture("gone", "folder", tmp_path / "no.png", row(0).segments, frozenset(NAMES), "gone", "train")
    torn = SegmentedPicture("torn", "folder", row(0).image, (Segment("heart", tmp_path / "no.png"),), frozenset(), "torn", "train")
    made = SegmentData([(1.0, [gone, torn, row(1)])], NAMES, SPEC)
    for number in range(6):
        made.batch(number, 2, each=2)
    assert made.skipped == {"gone", "torn"} and sum("is left out" in r.message for r in caplog.records) == 2
    with pytest.raises(UserError, match="100 pictures in a row"):
        SegmentData([(1.0, [gone])], NAMES, SPEC).batch(0, 1, each=1)


def test_batches_are_made_ahead_in_order() -> None:
    asked: list[int] = []

    def make(number: int) -> int:
        asked.append(number)
        return number * 10

    with Ahead(make, 5) as ahead:  # type: ignore[arg-type]
        assert [ahead(k) for k in range(5)] == [0, 10, 20, 30, 40]  # type: ignore[comparison-overlap]
    assert asked == [0, 1, 2, 3, 4]


def test_classes_are_those_that_are_shown() -> None:
    assert classes_of([row(0)], ("aorta", "heart", "Right Lung", "Left Lung")) == ("heart", "Right Lung", "Left Lung")
    with pytest.raises(UserError, match="no pictures with masks"):
        SegmentData([], NAMES, SPEC)
