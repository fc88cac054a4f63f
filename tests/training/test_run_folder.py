"""The run folder: what it was made with and when, and a log without steps twice."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch

import msmedcap
from msmedcap import config as configs
from msmedcap.config import LoopConfig, UserError
from msmedcap.training import run_folder as folders
from msmedcap.training.run_folder import Record, Sample, revision, run_folder, side_by_side


@dataclass(frozen=True)
class Config:
    task: str = "alignment"
    loop: LoopConfig = LoopConfig(steps=3, lr=0.1)


def told(folder: Path, name: str) -> dict:  # type: ignore[type-arg]
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_a_run_notes_what_it_was_made_with_and_when(tmp_path: Path) -> None:
    with run_folder(tmp_path / "run", Config(), data="fingerprint"):
        assert told(tmp_path / "run", "run.json")["finished"] is None
    assert configs.read(Config, tmp_path / "run" / "config.json") == Config()
    versions = told(tmp_path / "run", "versions.json")
    assert versions["torch"] == torch.__version__.partition("+")[0] and versions["msmedcap"] == msmedcap.__version__
    run = told(tmp_path / "run", "run.json")
    assert run["data"] == "fingerprint" and len(run["starts"]) == 1 and run["starts"][0]["processes"] == 1
    assert datetime.fromisoformat(run["finished"]) >= datetime.fromisoformat(run["starts"][0]["time"])
    assert not any(str(place) in (tmp_path / "run" / "run.json").read_text() for place in (tmp_path, Path.cwd()))


def test_a_run_that_was_stopped_has_no_end_and_one_start_more_when_it_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), run_folder(tmp_path, Config(), data="a"):
        raise KeyboardInterrupt
    first = told(tmp_path, "run.json")
    assert first["finished"] is None
    with run_folder(tmp_path, Config(), data="a"):
        pass
    run = told(tmp_path, "run.json")
    assert len(run["starts"]) == 2 and run["starts"][0] == first["starts"][0] and run["finished"]


def test_another_configuration_and_other_data_are_refused(tmp_path: Path) -> None:
    with run_folder(tmp_path, Config(), data="a"):
        pass
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    other = Config(task="captioning", loop=LoopConfig(steps=3, lr=0.2))
    with pytest.raises(UserError, match=r"began with another loop\.lr, task; give"), run_folder(tmp_path, other, data="a"):
        pytest.fail("the run went on")
    with pytest.raises(UserError, match="began with other data"), run_folder(tmp_path, Config(), data="b"):
        pytest.fail("the run went on")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    often = Config(loop=LoopConfig(steps=3, lr=0.1, save_every=1))
    with run_folder(tmp_path, often, data="a"):
        assert told(tmp_path, "config.json")["loop"]["save_every"] == 1


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with run_folder(tmp_path / "run", Config(), data="a"):
        pass
    assert not (tmp_path / "run").exists()


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_revision_is_that_of_the_checkout_the_package_lies_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "package" / "run_folder.py"
    module.parent.mkdir()
    monkeypatch.setattr(folders, "__file__", str(module))
    module.write_text("1")
    assert revision() == {"revision": None, "dirty": None}
    git(tmp_path, "init")
    (tmp_path / "else").write_text("1")
    git(tmp_path, "add", "else")
    git(tmp_path, "commit", "-m", "another project's")
    assert revision() == {"revision": None, "dirty": None}
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "ours")
    assert revision() == {"revision": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    module.write_text("2")
    assert revision()["dirty"] is True


def test_the_log_forgets_the_steps_that_are_run_again_and_a_half_written_line(tmp_path: Path) -> None:
    record = Record(tmp_path, 0)
    for step in range(5):
        record.write({"step": step, "seconds": 0.5, "loss": float(step)})
    record.close()
    with open(tmp_path / "log.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 5, "lo')
    Record(tmp_path, 3).close()
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [0, 1, 2]


def test_a_samples_attention_stands_beside_its_picture() -> None:
    picture, attention = np.full((2, 3, 3), 7, np.uint8), np.arange(6, dtype=np.uint8).reshape(2, 3)
    shown = side_by_side(Sample(picture, "", "", attention))
    assert shown.shape == (2, 6, 3) and (shown[:, :3] == 7).all()
    assert all((shown[:, 3:, c] == attention).all() for c in range(3))
    assert side_by_side(Sample(picture, "", "")) is picture


def test_without_tensorboard_the_log_alone_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    record = Record(tmp_path, 0)
    record.write({"step": 0, "seconds": 0.5, "loss": 1.0})
    record.write_samples(iter([Sample(np.zeros((2, 2, 3), np.uint8), "", "")]), 0)
    record.close()
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


def test_tensorboard_shows_losses_apart_the_pace_and_samples(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the optional package tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first in (0, 2):  # the first run is killed after its step 3 and goes on from its state of step 2
        record = Record(tmp_path, first)
        for step in range(first, 4):
            row = {"step": step, "seconds": 0.5, "samples": 8, "lr": 0.1, "grad": 2.0, "loss": float(step + first), "itc": 1.0}
            record.write(row)
        record.write_samples([Sample(np.zeros((4, 6, 3), np.uint8), "a scan", "a CT", np.zeros((4, 6), np.uint8))], 3)
        record.close()
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(board.Tags()["scalars"]) == {"loss/loss", "loss/itc", "train/lr", "train/grad", "train/samples per second"}
    assert [(e.step, e.value) for e in board.Scalars("loss/loss")] == [(0, 0.0), (1, 1.0), (2, 4.0), (3, 5.0)]
    assert board.Scalars("train/samples per second")[0].value == 16.0
    assert (board.Images("samples/0")[0].width, board.Images("samples/0")[0].height) == (12, 4)
    assert b"a scan" in board.Tensors("samples/0/text_summary")[0].tensor_proto.string_val[0]
