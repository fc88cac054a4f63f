"""The whole recipe at test size, from nothing to a model folder that captions; stopped and run again it repeats nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import msmedcap
from msmedcap import systems
from msmedcap.checkpoints import load_into, read_weights
from msmedcap.config import LoopConfig
from msmedcap.data.phantoms import make_phantom
from msmedcap.data.phantoms.examples import save_dicom
from msmedcap.models.clip import ClipEncoder
from msmedcap.training import recipe as recipes
from msmedcap.training import rows
from msmedcap.training.recipe import Recipe, build
from msmedcap.training.rows import TABLE_1, Stages, every_row

SHORT = LoopConfig(steps=2, lr=1e-3, warmup=1, ema=0.9, save_every=1, precision="no")
TINY = Recipe(
    phantoms=10, scenes=2, language=SHORT, language_batch=2, row_length=32, contrast=SHORT, contrast_batch=6, masked=SHORT,
    masked_batch=2, promptable=SHORT, promptable_batch=2, draws=2,
    stages=Stages(alignment=SHORT, captioning=SHORT, batch=4),
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``models`` built from nothing and the ``work`` it was built in."""
    folder = tmp_path_factory.mktemp("recipe")
    build(None, folder / "models", folder / "work", rows=folder / "rows", recipe=TINY, config=systems.test())
    return folder


def test_the_folder_captions_a_scan_with_all_three_systems(built: Path, tmp_path: Path) -> None:
    save_dicom(make_phantom(3), tmp_path / "scan.dcm")
    captions = msmedcap.load(str(built / "models"), device="cpu").set_scan(tmp_path / "scan.dcm").captions()
    assert tuple(captions) == tuple(systems.SYSTEMS)


def test_a_second_run_trains_nothing_and_writes_the_same_weights(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (recipes, rows):
        monkeypatch.setattr(module, "fit", lambda *_, **__: pytest.fail("a stage that was done trained again"))
    build(None, tmp_path / "again", built / "work", recipe=TINY, config=systems.test())
    before, after = (read_weights(folder / "systems" / "MSMedCap") for folder in (built / "models", tmp_path / "again"))
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


def test_systems_share_the_branches_of_stage_one_and_each_learns_its_own_stage_two(built: Path) -> None:
    folders = {folder.name for folder in (built / "work" / "alignment").iterdir()}
    assert folders == {"clip-G", "clip-GM", "sam-G", "sam-GM", "sam-GM.channels"}
    start = read_weights(built / "work" / "alignment" / "clip-GM" / "branch")["branch.qformer.query_tokens"]
    alone, both = (
        read_weights(built / "rows" / "systems" / name)["branches.clip.qformer.query_tokens"]
        for name in ("BLIP2-GM", "MSMedCap-GM-GM")
    )
    assert not torch.equal(alone, both)
    assert torch.allclose(alone, start, atol=0.05) and torch.allclose(both, start, atol=0.05)


def test_the_rows_are_one_folder_whose_systems_all_caption(built: Path, tmp_path: Path) -> None:
    save_dicom(make_phantom(3), tmp_path / "scan.dcm")
    captions = msmedcap.load(str(built / "rows"), device="cpu").set_scan(tmp_path / "scan.dcm").captions()
    assert tuple(captions) == tuple(every_row()) and {row.name for row in TABLE_1} < set(captions)


def test_a_shipped_system_is_the_row_it_stands_for(built: Path) -> None:
    shipped, row = (
        read_weights(built / folder) for folder in ("models/systems/MSMedCap", "rows/systems/MSMedCap-G-GM")
    )
    assert shipped.keys() == row.keys() and all(torch.equal(shipped[k], row[k]) for k in row)


def test_another_seed_is_another_stage_two_over_the_same_branches(built: Path) -> None:
    first, second = (read_weights(built / "rows" / "systems" / f"BLIP2-GM{seed}") for seed in ("", ".s1"))
    assert any(not torch.equal(first[key], second[key]) for key in first)
    told = json.loads((built / "rows" / "training.json").read_text())["systems"]
    assert told["BLIP2-GM"]["stage1"] == told["BLIP2-GM.s1"]["stage1"]


def test_every_training_leaves_its_summary(built: Path) -> None:
    told = json.loads((built / "rows" / "training.json").read_text())["systems"]
    assert told.keys() == every_row().keys()
    row = told["MSMedCap-G-GM"]
    assert row["stage1"].keys() == {"clip-G", "sam-GM"} and row["stage1"]["sam-GM"]["steps"] == SHORT.steps
    log = [json.loads(x) for x in (built / "work" / "captioning" / "MSMedCap-G-GM" / "log.jsonl").read_text().splitlines()]
    assert row["stage2"]["loss, last"] == pytest.approx(log[-1]["loss"], abs=1e-4)


def test_what_stage_one_saw_is_what_the_name_says(built: Path) -> None:
    seen = read_weights(built / "work" / "alignment" / "clip-G" / "branch")
    other = read_weights(built / "work" / "alignment" / "clip-GM" / "branch")
    key = "branch.qformer.words.weight"
    assert not torch.equal(seen[key], other[key])


def test_no_file_is_larger_than_a_space_takes_and_none_is_a_pickle(built: Path) -> None:
    files = [p for p in (built / "models").rglob("*") if p.is_file()]
    assert files and max(p.stat().st_size for p in files) < 9_000_000
    assert not [p for p in files if p.suffix in (".bin", ".pt", ".pkl")]
    load_into(ClipEncoder(systems.test().clip), built / "models" / "clip")
