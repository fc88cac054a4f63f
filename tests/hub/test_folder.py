"""What may travel, what a whole folder is, and its manifest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from msmedcap import checkpoints, segmenters, systems
from msmedcap.config import UserError, to_json
from msmedcap.hub import manifest
from msmedcap.hub.folder import check, model_files, write_manifest
from tests import segmenting, sizes


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(UserError) as raised:
        check(folder)
    told = str(raised.value)
    assert "\n" not in told and told.endswith(".")
    for word in words:
        assert word in told, told


def test_the_manifest_has_every_file_sorted_with_size_and_hash(folder: Path) -> None:
    found = manifest(folder)
    there = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == {n: {"sha256": hashlib.sha256(c).hexdigest(), "bytes": len(c)} for n, c in there.items()}
    assert list(found) == sorted(found)
    write_manifest(folder, found)
    assert json.loads((folder / "manifest.json").read_text()) == found == manifest(folder)
    assert list(json.loads((folder / "manifest.json").read_text())) == sorted(found)


def test_a_stop_while_the_manifest_is_written_leaves_the_old_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(folder, manifest(folder))
    old = (folder / "manifest.json").read_bytes()

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_manifest(folder, {})
    assert (folder / "manifest.json").read_bytes() == old


def test_a_whole_folder_is_its_config(folder: Path) -> None:
    assert check(folder) == sizes.config()


@pytest.mark.parametrize("name", ["x.bin", "clip/x.pth", "opt/x.pt", "systems/BLIP2/x.PKL", "x.ckpt", "x.npz"])
def test_what_can_carry_code_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    refused(folder, name, "code")


@pytest.mark.parametrize("name", ["state/model.safetensors", "run/state.old/step.json", "optimizer.safetensors", "scheduler.json"])
def test_a_training_state_is_refused(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"{}")
    refused(folder, name, "training run")


def test_hidden_and_other_files_stay_behind(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = model_files(folder)
    for name in (".env.json", ".cache/x.json", "clip/.x.safetensors", "scan.dcm", "notes.csv", "clip.new/half.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"patient")
    with caplog.at_level("INFO", "msmedcap"):
        assert model_files(folder) == before
    assert "scan.dcm" in caplog.text and ".env" not in caplog.text
    assert check(folder) == sizes.config()


def test_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    os.symlink(tmp_path / "secret.json", folder / "clip" / "config.json")
    refused(folder, "link")


def test_a_cut_weight_file_is_refused(folder: Path) -> None:
    file = folder / "sam" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    refused(folder, "sam/model.safetensors", "cannot be read")


@pytest.mark.parametrize("part", ["clip", "sam", "opt", "systems/MSMedCap"])
def test_a_part_that_a_system_needs_must_be_there(folder: Path, part: str) -> None:
    for file in (folder / part).glob("model*.safetensors"):
        file.unlink()
    refused(folder, part, "not whole")


def test_a_part_that_no_system_needs_may_be_absent(folder: Path) -> None:
    for name in ("MSMedCap", "SAM-BLIP2"):
        for file in (folder / "systems" / name).iterdir():
            file.unlink()
    (folder / "sam" / "model.safetensors").unlink()
    assert check(folder) == sizes.config()
    for file in (folder / "systems" / "BLIP2").iterdir():
        file.unlink()
    refused(folder, "no system's weights")


def test_an_index_must_fit_its_files(folder: Path) -> None:
    state = load_file(folder / "clip" / "model.safetensors")
    (folder / "clip" / "model.safetensors").unlink()
    names = sorted(state)
    one, two = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    save_file({n: state[n] for n in names[:3]}, folder / "clip" / one)
    save_file({n: state[n] for n in names[3:]}, folder / "clip" / two)
    index = folder / "clip" / checkpoints.INDEX
    table = {n: one if i < 3 else two for i, n in enumerate(names)}
    index.write_text(json.dumps({"weight_map": table}))
    assert check(folder) == sizes.config()
    index.write_text(json.dumps({"weight_map": table | {"more": one}}))
    refused(folder, one, "lacks more")
    index.write_text(json.dumps({"weight_map": table}))
    (folder / "clip" / two).unlink()
    refused(folder, two, "not there")
    index.write_text("[]")
    refused(folder, "index")


def test_a_config_of_something_else_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    refused(folder, "lacks the keys")
    (folder / "config.json").unlink()
    refused(folder, "config.json", "does not exist")
    refused(folder / "nowhere", "no folder")


def test_a_language_model_elsewhere_on_this_machine_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text(to_json(dataclasses.replace(systems.test(), opt="/home/somebody/opt")))
    refused(folder, "outside the folder")
    (folder / "config.json").write_text(to_json(dataclasses.replace(systems.test(), opt="facebook/opt-2.7b")))
    assert check(folder).opt == "facebook/opt-2.7b"


def test_a_segmenter_travels_whole_or_not_at_all(folder: Path) -> None:
    segmenters.save_segmenter(segmenting.segmenter(), folder / "segmenter")
    assert check(folder) == sizes.config()
    assert {"segmenter/config.json", "segmenter/model.safetensors"} <= set(manifest(folder))
    (folder / "segmenter" / "model.safetensors").rename(folder / "weights")
    refused(folder, "segmenter/ has no weights")
    (folder / "weights").rename(folder / "segmenter" / "model.safetensors")
    (folder / "segmenter" / "config.json").unlink()
    refused(folder, "segmenter")
