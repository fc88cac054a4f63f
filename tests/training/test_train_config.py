"""A training's config: JSON and back, presets, and values laid over it from the command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from msmedcap.config import LoopConfig, UserError, from_json, to_json
from msmedcap.data.sets import READERS, SELECTIONS
from msmedcap.evaluation.paper import ROWS, Row
from msmedcap.systems import SYSTEMS
from msmedcap.training.config import DataPart, TrainConfig
from msmedcap.training.course import pace
from msmedcap.training.loop import fit
from msmedcap.training.presets import PRESETS, TABLE_1, describe, read_config, with_values
from tests.training.toy import Plain, part_of

BASE = TrainConfig("alignment", (DataPart("table", "a.csv"), DataPart("roco", "b")), LoopConfig(steps=7, lr=1e-3), branch="clip")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_whole_config_that_can_be_found_and_written(name: str) -> None:
    config = read_config(name)
    assert from_json(TrainConfig, to_json(config)) == config
    assert name in config.out and describe(config)
    if name.startswith("paper"):
        views = (config.branch,) if config.task == "alignment" else SYSTEMS[config.system]
        assert config.models == "full" and set(config.init) == set(views) and config.loop.betas == (0.9, 0.999)
        assert not config.loop.cpu and config.epochs == 3
    for part in (*config.data, *config.val) if config.task in ("alignment", "captioning") else ():
        assert part.name in READERS
        if part.select:
            chosen = SELECTIONS[part.select]
            assert (chosen.reader, chosen.splits[0]) == (part.name, part.split)
            assert not chosen.count or chosen.count == round(1000 * part.weight)


@pytest.mark.parametrize("name", [name for name in PRESETS if PRESETS[name].task == "captioning"])
def test_stage_two_begins_where_a_preset_of_stage_one_ends(name: str) -> None:
    for view, (start,) in PRESETS[name].init.items():
        (first,) = (config for config in PRESETS.values() if f"{config.out}/branch" == start)
        assert (first.task, first.branch) == ("alignment", view)


@pytest.mark.parametrize("row", ROWS, ids=[row.stem for row in ROWS])
def test_the_rows_of_table_1_are_trained_on_what_they_say(row: Row) -> None:
    config = PRESETS[TABLE_1[row.stem]]
    assert (config.system, config.called) == (row.system, row.stem) and len(config.init) == len(row.training)
    for (start,), kind in zip(config.init.values(), row.training, strict=True):
        (first,) = (c for c in PRESETS.values() if f"{c.out}/branch" == start)
        assert {part.kind for part in first.data} == set(kind.split("+"))
    # Section 2.3: on medical pictures; BLIP-2 as it is published has never seen one.
    assert {part.kind for part in config.data} == ({"G"} if row.name == "BLIP2 (G)" else {"M"})


def test_the_papers_epochs_come_to_these_steps() -> None:
    assert PRESETS["paper-stage1-clip"].loop.steps == 15_522  # three times 82,783 pictures in batches of 16
    assert PRESETS["paper-stage1-sam"].loop.steps == 45_522  # 242,783
    assert PRESETS["paper-stage2-msmedcap"].loop.steps == 60_000  # 160,000 in batches of 8


def test_values_are_laid_over_a_config() -> None:
    changed = with_values(
        BASE,
        ["loop.lr=3e-4", "data.0.path=data/my table.csv", "seed=4", "loop.betas=[0.9, 0.95]", "init.clip=bert", "out=12"],
    )
    assert changed.loop.lr == 3e-4 and changed.loop.betas == (0.9, 0.95) and changed.seed == 4
    assert changed.data == (DataPart("table", "data/my table.csv"), BASE.data[1])
    assert changed.init == {"clip": ("bert",)} and changed.out == "12"
    assert dataclasses.replace(BASE, branch="sam") == with_values(BASE, ["branch=sam"])
    assert with_values(BASE, ['init.clip=["bert", "full"]']).init == {"clip": ("bert", "full")}


def test_a_part_may_be_added_and_all_parts_replaced() -> None:
    added = with_values(BASE, ["data.2.name=busi", "data.2.path=c", "data.2.weight=2", "val.0.name=roco", "val.0.path=b"])
    assert added.data == (*BASE.data, DataPart("busi", "c", weight=2.0)) and added.val == (DataPart("roco", "b"),)
    assert with_values(BASE, ['data=[{"name": "busi", "path": "c"}]']).data == (DataPart("busi", "c"),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("speed=1", r"no 'speed' in speed; there are task, data, loop"),
        ("loop.speed=1", r"no 'speed' in loop\.speed; there are steps, lr"),
        ("data.3.path=x", "'3' in data.3.path is no place of a list of 2"),
        ("data.x.path=x", "counted from 0"),
        ("data.2.path=x", r"data\[2\] lacks the keys \['name'\]"),
        ("seed.x=1", "nothing below int"),
        ("seed=four", "seed must be int"),
        ("loop.lr=fast", "lr must be float"),
        ("data.0.kind=X", "G .general. or M"),
        ("seed", "'seed' is not KEY=VALUE"),
        ("batch=0", "multiple of loop.accumulate"),
        ("loop.accumulate=3", r"batch is 16; it must be a multiple of loop.accumulate \(3\)"),
        ("loop.seed=3", "give seed alone"),
        ("augment=2", "from 0 to 1"),
        ("data=[]", "at least one part"),
    ],
)
def test_what_cannot_be_laid_over_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        with_values(BASE, [text])


def test_steps_take_the_place_of_epochs_and_both_at_once_are_refused() -> None:
    paper = PRESETS["paper-stage1-clip"]
    few = with_values(paper, ["loop.steps=10"])
    assert (few.epochs, few.loop.steps) == (0.0, 10)
    assert with_values(paper, ["epochs=1"]).epochs == 1.0
    with pytest.raises(UserError, match="one of epochs and loop.steps"):
        with_values(paper, ["loop.steps=10", "epochs=1"])


def test_a_cache_and_augmentation_are_refused_together() -> None:
    with pytest.raises(UserError, match="as it is; set augment to 0"):
        with_values(BASE, ["cache=c", "augment=0.5"])


def test_a_file_is_read_strictly_and_an_unknown_name_lists_the_presets(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(to_json(BASE))
    assert read_config(str(file), ["seed=2"]) == dataclasses.replace(BASE, seed=2)
    file.write_text(json.dumps({**json.loads(to_json(BASE)), "speed": 1}))
    with pytest.raises(UserError, match=r"unknown keys \['speed'\]"):
        read_config(str(file))
    with pytest.raises(UserError, match="presets are paper-stage1-clip"):
        read_config("paper-stage3")
    with pytest.raises(UserError, match="does not exist"):
        read_config(str(tmp_path / "none.json"))


def test_the_warm_up_begins_where_it_is_told_to() -> None:
    config = LoopConfig(steps=20, lr=1e-4, min_lr=1e-5, start_lr=1e-6, warmup=10)
    rates = [config.lr * pace(step, config) for step in range(20)]
    assert rates[0] == pytest.approx(1e-6) and rates[5] == pytest.approx((1e-6 + 1e-4) / 2) and rates[10] == pytest.approx(1e-4)
    assert all(a < b for a, b in zip(rates[:10], rates[1:11], strict=True)) and rates[19] > 1e-5
    plain = dataclasses.replace(config, start_lr=0.0)
    assert [pace(step, plain) for step in range(10)] == [(step + 1) / 10 for step in range(10)]


def test_a_state_from_before_a_setting_was_known_goes_on_with_its_default_alone(tmp_path: Path) -> None:
    config = LoopConfig(steps=2, lr=1e-3, precision="no")
    fit(Plain(), part_of(1), config, tmp_path, name="plain")
    file = tmp_path / "states" / "step-00000002" / "state.pt"
    state = torch.load(file, weights_only=True)
    del state["config"]["betas"], state["config"]["start_lr"]
    torch.save(state, file)
    fit(Plain(), part_of(1), config, tmp_path, name="plain")
    with pytest.raises(UserError, match=r"betas=\(0\.9, 0\.98\)"):
        fit(Plain(), part_of(1), dataclasses.replace(config, betas=(0.9, 0.999)), tmp_path, name="plain")
