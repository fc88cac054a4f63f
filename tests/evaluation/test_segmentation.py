"""SEG-SAM judged: prompts are what they are called, a perfect answer has perfect figures, and the page tells them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from msmedcap.data.segments import PackedMask, Segment, SegmentedPicture
from msmedcap.data.views import ViewFrame
from msmedcap.evaluation.overlap import Fit
from msmedcap.evaluation.segmentation import PROMPTS, Judged, Results, judge, write_page
from msmedcap.evaluation.segmentation.judge import Presence, _objects, _prompts, centre_most
from msmedcap.evaluation.segmentation.presence import limits
from msmedcap.evaluation.segmentation.tables import presence, score
from tests import segmenting, segments, sizes

SPEC = sizes.config().view("sam")


def row(seed: int, *, size: int = 64) -> SegmentedPicture:
    picture, index = segments.chest(seed, size)
    names = ("Left Lung", "Right Lung", None)
    own = tuple(Segment(name, PackedMask.of(index == v)) for v, name in enumerate(names, 1))
    return SegmentedPicture(f"{seed}", "folder", picture, own, frozenset(segmenting.NAMES[:3]), f"group {seed // 2}", "val")


def test_limits_divide_what_is_there_from_what_is_not() -> None:
    def said(scores: list[float], there: list[bool], known: tuple[bool, ...] = (True, True, True)) -> Presence:
        return Presence("s", 0, "g", "box", np.array(scores), np.array(there), np.array(known))

    rows = [said([0.30 + 0.01 * i, 0.5, 0.9], [True, i % 2 == 0, True]) for i in range(6)]
    rows += [said([0.20 + 0.01 * i, 0.5, 0.9], [False, i % 2 == 0, False], (True, True, False)) for i in range(6)]
    found = limits(rows, ("parted", "guessed", "unlabelled"))
    assert found["parted"] == pytest.approx((0.30 + 0.25) / 2)
    assert found["guessed"] <= 0.5 and found["unlabelled"] < 0.9  # nothing below to part them from
    assert limits(rows[:4], ("parted", "guessed", "unlabelled")) == {}, "seen too seldom"
    worse = [said([0.5, 0.5, 0.5], [i == 0 for _ in range(3)]) for i in range(20)] * 5
    assert limits(worse, ("a", "b", "c")) == {}, "no limit tells them"


def test_prompts_lie_where_they_are_said_to() -> None:
    masks, names = _objects(row(0, size=1100))
    assert names == ["Left Lung", "Right Lung"] and masks.shape == (2, 512, 512)
    frame = ViewFrame(SPEC, 512, 512)
    box = _prompts(masks, "box", frame, 0)["boxes"].numpy()
    ys, xs = np.nonzero(masks[0])
    wanted = frame.boxes_to_view([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]])
    np.testing.assert_allclose(box[:1], wanted)
    for prompt in ("centre click", "random click"):
        asked = _prompts(masks, prompt, frame, 0)
        assert asked["points"].shape == (2, 1, 2) and asked["labels"].tolist() == [[1], [1]]
        for mask, (x, y) in zip(masks, frame.points_to_picture(asked["points"][:, 0]), strict=True):
            assert mask[int(y), int(x)]
    again, other = (_prompts(masks, "random click", frame, seed)["points"] for seed in (0, 1))
    assert torch.equal(again, asked["points"]) and not torch.equal(other, asked["points"])


def test_the_centre_most_point_is_farthest_from_the_edge() -> None:
    mask = np.zeros((30, 40), bool)
    mask[:11, 20:40] = True  # it touches the picture's rim, which is an edge as well
    mask[20:25, 2:30] = True
    x, y = centre_most(mask)
    assert (int(y) == 5) and 25 <= x <= 35
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    assert depth[int(y), int(x)] == depth.max()


def test_every_object_is_judged_by_every_system_and_prompt() -> None:
    full, plain = segmenting.segmenter(), segmenting.segmenter(semantics=False, text=False)
    results = judge([row(0), row(2)], sizes.frozen().sam, SPEC, {"full": [full, full], "plain": [plain]})
    assert len(results.answers) == 2 * 2 * 3 * 3 and results.classes == segmenting.NAMES
    assert {a.prompt for a in results.answers} == set(PROMPTS)
    for answer in results.answers:
        assert (answer.semantic is None) == (answer.right is None) == (answer.system == "plain")
    assert len(results.presences) == 2 * 2 * 3 * 2
    one = results.presences[0]
    # The left lung is asked for: of the others, the right one is there.
    assert one.present.tolist() == [False, True, False, False, False] and one.known.tolist() == [True, True, True, False, False]
    twins = [a for a in results.answers if a.system == "full"]
    by_seed = [[(a.binary, a.right) for a in twins if a.seed == seed] for seed in (0, 1)]
    assert by_seed[0] == by_seed[1]


def answer(system: str, picture: int, name: str, dice: float, *, seed: int = 0, right: bool | None = True) -> Judged:
    best = Fit(dice, dice / (2 - dice), 0.01, dice)
    semantic = None if right is None else Fit(dice - 0.01, 0.5, 0.02, 0.5)
    return Judged(system, seed, f"{picture}", f"g{picture}", 0, name, "box", best, semantic, right)


def test_seeds_are_averaged_before_objects() -> None:
    answers = [answer("a", 0, "heart", 0.2, seed=s) for s in range(9)] + [answer("a", 1, "heart", 0.8)]
    assert score(answers, lambda a: a.binary.dice).value == pytest.approx(0.5)
    assert np.isnan(score([], lambda a: a.binary.dice).value)
    assert np.isnan(score([answer("a", 0, "heart", 1, right=None)], lambda a: a.semantic and a.semantic.dice).value)


def test_presence_counts_what_is_known_alone() -> None:
    def said(scores: list[float], there: list[int], known: list[int], group: str) -> Presence:
        return Presence("a", 0, group, "box", np.array(scores), np.array(there, bool), np.array(known, bool))

    right = [said([0.9, 0.1], [1, 0], [1, 1], "x"), said([0.2, 0.8], [0, 1], [1, 1], "y")]
    assert presence(Results([], right, ("p", "q")), "a").value == 1
    wrong = said([0.99, 0.5], [0, 0], [0, 0], "z")  # nobody would have said that the first class is there
    assert presence(Results([], [*right, wrong], ("p", "q")), "a").value == 1
    assert presence(Results([], [*right, said([0.99, 0.0], [0, 0], [1, 1], "z")], ("p", "q")), "a").value == pytest.approx(0.75)
    assert np.isnan(presence(Results([], right, ("p", "q")), "b").value)


def test_the_page_tells_goals_and_every_class(tmp_path: Path) -> None:
    answers = [answer("SEG-SAM", i, "Left Lung", 0.95) for i in range(4)]
    answers += [answer("SAM", i, "Left Lung", 0.7, right=None) for i in range(4)]
    page, raw = tmp_path / "docs" / "page.md", tmp_path / "raw.jsonl"
    write_page(Results(answers, [], ("Left Lung",)), page, main="SEG-SAM", about=["Four pictures."], raw=raw)
    text = page.read_text()
    assert "| Dice of lungs, box | ≥ 0.92 | 0.950 (0.95 to 0.95) | yes |" in text
    assert "| Dice of opacities, box | ≥ 0.60 | – | no |" in text
    names = "right names of lungs, cardiomediastinum, airways, opacities"
    assert all(f"| {names}, {prompt} | ≥ 90% | 1.000 (1.00 to 1.00) | yes |" in text for prompt in ("box", "all prompts"))
    assert "| SAM (1 seed) | 0.700 (0.70 to 0.70) |" in text
    assert "| SEG-SAM | box | 1.000 (1.00 to 1.00) | – | – | – | 1.000 (1.00 to 1.00) | -0.010 (-0.01 to -0.01) |" in text
    assert "| SEG-SAM | centre click | – |" in text and "| SAM | box |" not in text
    assert "| Left Lung | 4 | box | 0.950 (0.95 to 0.95) | 0.905 (0.90 to 0.90) | 1.000 (1.00 to 1.00) |" in text
    assert len(raw.read_text().splitlines()) == 8 and json.loads(raw.read_text().splitlines()[0])["binary"]["dice"] == 0.95
