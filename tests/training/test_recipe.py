"""The whole recipe at test size, from nothing to a model folder that captions; stopped and run again it repeats nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import msmedcap
from msmedcap import systems
from msmedcap.checkpoints import load_into, read_weights
from msmedcap.config import LoopConfig
from msmedcap.data.phantoms import make_phantom
from msmedcap.data.phantoms.examples import save_dicom
from msmedcap.models.branch import Branch
from msmedcap.models.clip import ClipEncoder
from msmedcap.training import recipe as recipes
from msmedcap.training.recipe import Recipe, build, without_text

SHORT = LoopConfig(steps=2, lr=1e-3, warmup=1, ema=0.9, save_every=1, precision="no")
TINY = Recipe(
    phantoms=10, scenes=2, language=SHORT, language_batch=2, row_length=32, contrast=SHORT, contrast_batch=6, masked=SHORT,
    masked_batch=2, promptable=SHORT, promptable_batch=2, draws=2, alignment=SHORT, captioning=SHORT, batch=4,
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``models`` built from nothing and the ``work`` it was built in."""
    folder = tmp_path_factory.mktemp("recipe")
    build(None, folder / "models", folder / "work", recipe=TINY, config=systems.test())
    return folder


def test_the_folder_captions_a_scan_with_all_three_systems(built: Path, tmp_path: Path) -> None:
    save_dicom(make_phantom(3), tmp_path / "scan.dcm")
    captions = msmedcap.load(str(built / "models"), device="cpu").set_scan(tmp_path / "scan.dcm").captions()
    assert tuple(captions) == tuple(systems.SYSTEMS)


def test_a_second_run_trains_nothing_and_writes_the_same_weights(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "fit", lambda *_, **__: pytest.fail("a stage that was done trained again"))
    build(None, tmp_path / "again", built / "work", recipe=TINY, config=systems.test())
    before, after = (read_weights(folder / "systems" / "MSMedCap") for folder in (built / "models", tmp_path / "again"))
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


def test_every_system_starts_from_the_same_stage_one_branches_but_learns_its_own(built: Path) -> None:
    alone = read_weights(built / "models" / "systems" / "BLIP2")
    both = read_weights(built / "models" / "systems" / "MSMedCap")
    stage1 = without_text(read_weights(built / "work" / "alignment" / "clip" / "branch"))
    key = "qformer.query_tokens"
    assert not torch.equal(alone[f"branches.clip.{key}"], both[f"branches.clip.{key}"])
    assert torch.allclose(alone[f"branches.clip.{key}"], stage1[key], atol=0.05)


def test_dropping_the_text_half_leaves_exactly_a_branch_without_text() -> None:
    config = systems.test()
    encoder = ClipEncoder(config.clip)
    with_text = Branch(config.branches["clip"], encoder, llm_width=16, text=True).state_dict()
    assert without_text(with_text).keys() == Branch(config.branches["clip"], encoder, llm_width=16).state_dict().keys()


def test_no_file_is_larger_than_a_space_takes_and_none_is_a_pickle(built: Path) -> None:
    files = [p for p in (built / "models").rglob("*") if p.is_file()]
    assert files and max(p.stat().st_size for p in files) < 9_000_000
    assert not [p for p in files if p.suffix in (".bin", ".pt", ".pkl")]
    load_into(ClipEncoder(systems.test().clip), built / "models" / "clip")
