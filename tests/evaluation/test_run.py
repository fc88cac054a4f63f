"""Captions are kept as they come, a run that was killed goes on, and several processes make the file that one would."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from msmedcap.batch import BatchItem
from msmedcap.config import UserError
from msmedcap.data.scans import ScanError
from msmedcap.data.sets import Blob, Case
from msmedcap.evaluation import captions_file, foresight, run
from msmedcap.evaluation.captions_file import Store
from msmedcap.evaluation.run import DataSet

MADE_WITH = {"models": "demo", "weights": "abc"}


class Said:
    """A predictor that says what it is told for each file name, and notes the pictures it is given."""

    systems = ("MSMedCap",)

    def __init__(self, captions: Mapping[str, dict[str, str] | Exception]) -> None:
        self.by_name, self.seen, self.options = captions, [], {}

    def caption_many(self, sources: Iterable[Path | bytes], **options: Any) -> Iterator[BatchItem]:
        self.options = options
        for index, source in enumerate(sources):
            name = source.name if isinstance(source, Path) else f"{len(source)} bytes"
            self.seen.append(name)
            said = self.by_name.get(name, ScanError("not a picture"))
            yield BatchItem(index, error=said) if isinstance(said, Exception) else BatchItem(index, said)


def case(name: str, group: str = "p", **facts: str) -> Case:
    return Case(name, Path(f"data/{name}.png"), facts, f"Caption of {name}.", group, "few")


CASES = [case("a", "p1", modality="CT"), case("b", "p1"), case("c", "p2"), case("d", "p3")]
CAPTIONS: dict[str, dict[str, str] | Exception] = {f"{name}.png": {"MSMedCap": f"CT {name}."} for name in "abcd"}


def captioned(said: Said, cases: Sequence[Case], file: Path, made_with: Mapping[str, str] = MADE_WITH) -> list[dict]:
    list(run.caption_cases(said, cases, store=Store(file, made_with), folder=Path("data")))
    return list(captions_file.read(file).rows)


def ids(file: Path) -> list[str]:
    return [json.loads(line)["id"] for line in file.read_text().splitlines()[1:]]


def test_rows_hold_what_is_known_and_what_was_said(tmp_path: Path) -> None:
    first = captioned(Said(CAPTIONS), CASES, tmp_path / "x.jsonl")[0]
    assert first == {
        "id": "a",
        "group": "p1",
        "source": "few",
        "image": "a.png",
        "facts": {"modality": "CT"},
        "references": ["Caption of a."],
        "captions": {"MSMedCap": "CT a."},
        "error": None,
    }


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    first = run.caption_cases(Said(CAPTIONS), CASES, store=Store(file, MADE_WITH), folder=Path("data"))
    rows = [next(first), next(first)]
    first.close()
    with file.open("a") as out:
        out.write('{"id": "c", "gro')  # killed while writing
    again = Said(CAPTIONS)
    assert captioned(again, CASES, file)[:2] == rows
    assert again.seen == ["c.png", "d.png"]
    assert ids(file) == list("abcd")


def test_captions_of_other_weights_are_not_mixed_in(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    captioned(Said(CAPTIONS), CASES, file)
    with pytest.raises(UserError, match="other weights"):
        captioned(Said(CAPTIONS), CASES, file, {**MADE_WITH, "weights": "def"})


def test_a_picture_that_cannot_be_read_has_the_reason(tmp_path: Path) -> None:
    rows = captioned(Said({k: v for k, v in CAPTIONS.items() if k != "b.png"}), CASES, tmp_path / "x.jsonl")
    assert [row["error"] for row in rows] == [None, "not a picture", None, None]
    assert rows[1]["captions"] == {}


def test_a_mistake_of_ours_ends_the_run_and_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    broken = Said({**CAPTIONS, "c.png": ZeroDivisionError("division by zero")})
    with pytest.raises(ZeroDivisionError):
        captioned(broken, CASES, file)
    assert ids(file) == ["a", "b"]
    assert [row["id"] for row in captioned(Said(CAPTIONS), CASES, file)] == list("abcd")


def test_a_case_named_twice_is_captioned_once(tmp_path: Path) -> None:
    said = Said(CAPTIONS)
    rows = captioned(said, [*CASES[:2], CASES[0]], tmp_path / "x.jsonl")
    assert said.seen == ["a.png", "b.png"] and [row["id"] for row in rows] == ["a", "b"]


def test_a_part_of_a_picture_and_a_picture_in_a_table_are_captioned_from_bytes(tmp_path: Path) -> None:
    picture = tmp_path / "whole.png"
    Image.linear_gradient("L").save(picture)
    part = Case("part", picture, {}, "", "p", "few", box=(0.0, 0.0, 0.5, 1.0))
    gone = Case("gone", Blob(tmp_path / "no.parquet", 0, "image"), {}, "", "p", "few")
    said = Said({})
    rows = captioned(said, [part, gone], tmp_path / "x.jsonl")
    assert said.seen[0] == f"{len(part.read())} bytes" and said.seen[1] == "0 bytes"
    assert rows[0]["box"] == [0.0, 0.0, 0.5, 1.0] and rows[1]["image"] is None


def test_the_digest_tells_weights_apart(tmp_path: Path) -> None:
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt" / "model.safetensors").write_bytes(b"one")
    first = run.weights_digest(tmp_path)
    (tmp_path / "README.md").write_text("not weights")
    (tmp_path / "training.json").write_text("{}")
    (tmp_path / "segmenter").mkdir()
    (tmp_path / "segmenter" / "model.safetensors").write_bytes(b"no caption depends on it")
    assert run.weights_digest(tmp_path) == first
    (tmp_path / "opt" / "model.safetensors").write_bytes(b"two")
    assert run.weights_digest(tmp_path) != first


def test_the_fingerprint_tells_data_apart() -> None:
    assert run.fingerprint(CASES) == run.fingerprint(
        [dataclasses.replace(c, image=Path("elsewhere.png")) for c in CASES]
    )
    assert run.fingerprint(CASES) != run.fingerprint([dataclasses.replace(CASES[0], caption="Other."), *CASES[1:]])
    assert run.fingerprint(CASES) != run.fingerprint(CASES[:3])


@pytest.fixture
def table(tmp_path: Path) -> DataSet:
    """A data set of six pictures that are not there, which Said does not mind."""
    lines = [
        json.dumps({"id": f"k{i}", "image": f"k{i}.png", "caption": f"Caption {i}.", "split": "test"}) for i in range(6)
    ]
    (tmp_path / "few.jsonl").write_text("\n".join(lines) + "\n")
    return DataSet("table", tmp_path / "few.jsonl", "test")


SIX: dict[str, dict[str, str] | Exception] = {f"k{i}.png": {"MSMedCap": f"Said {i}.", "BLIP2": "CT."} for i in range(6)}


def evaluated(said: Said, data: DataSet, out: Path, **options: Any) -> list[run.Captioned] | None:
    return run.caption_datasets(said, [data], out=out, made_with=MADE_WITH, **options)


def test_a_data_set_becomes_a_file_that_says_what_made_it(table: DataSet, tmp_path: Path) -> None:
    said = Said(SIX)
    (found,) = evaluated(said, table, tmp_path / "out", systems=["MSMedCap", "BLIP2"], preset="paper") or []
    assert found.file.path == tmp_path / "out" / "table-test.jsonl"
    assert (found.file.name, found.file.split) == ("table", "test")
    made = found.file.made_with
    assert (made["weights"], made["preset"], made["systems"], made["cases"]) == (
        "abc",
        "paper",
        ["MSMedCap", "BLIP2"],
        6,
    )
    assert said.options == {"systems": ("MSMedCap", "BLIP2"), "preset": "paper"}
    assert [row["image"] for row in found.file.rows] == [f"k{i}.png" for i in range(6)]
    with pytest.raises(UserError, match="other weights or settings"):
        evaluated(said, table, tmp_path / "out")


def test_a_limit_can_grow_and_shrink(table: DataSet, tmp_path: Path) -> None:
    for limit, new in ((2, ["k0.png", "k1.png"]), (4, ["k2.png", "k3.png"]), (1, [])):
        said = Said(SIX)
        (found,) = evaluated(said, dataclasses.replace(table, limit=limit), tmp_path / "out") or []
        assert said.seen == new
        assert len(found.ids) == limit


@pytest.mark.parametrize("stopped", [0, 2])
def test_processes_share_the_cases_and_make_one_file(
    table: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: int
) -> None:
    out = tmp_path / "out"
    if stopped:  # an earlier run of one process, stopped early
        evaluated(Said(SIX), dataclasses.replace(table, limit=stopped), out)
    monkeypatch.setattr(run, "_LOOK", 0.01)
    monkeypatch.setenv("WORLD_SIZE", "3")
    seen = []
    for rank in (2, 1):
        monkeypatch.setenv("RANK", str(rank))
        said = Said(SIX)
        assert evaluated(said, table, out) is None
        seen += said.seen
    assert len(list(out.glob("*.rank*.jsonl"))) == 2
    monkeypatch.setenv("RANK", "0")
    said = Said(SIX)
    (found,) = evaluated(said, table, out) or []
    assert sorted(seen + said.seen) == sorted(list(SIX)[stopped:])
    assert [row["id"] for row in found.file.rows] == [f"k{i}" for i in range(6)]
    assert not list(out.glob("*.rank*.jsonl"))


def test_the_first_process_waits_for_the_others(
    table: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_LOOK", 0.01)
    monkeypatch.setattr(run, "place", lambda: (0, 2))
    found: list[run.Captioned] = []
    first = threading.Thread(target=lambda: found.extend(evaluated(Said(SIX), table, tmp_path / "out") or []))
    first.start()
    end = time.monotonic() + 60
    while sum(len(file.read_text().splitlines()) for file in (tmp_path / "out").glob("*.rank0.jsonl")) < 3:  # its share
        assert time.monotonic() < end and first.is_alive()
        time.sleep(0.01)
    assert first.is_alive() and not found
    monkeypatch.setattr(run, "place", lambda: (1, 2))
    evaluated(Said(SIX), table, tmp_path / "out")
    first.join(120)
    assert not first.is_alive()
    assert [row["id"] for row in found[0].file.rows] == [f"k{i}" for i in range(6)]


def test_a_process_that_stopped_is_not_waited_for_without_end(
    table: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_LOOK", 0.01)
    monkeypatch.setattr(run, "PATIENCE", 0.05)
    monkeypatch.setattr(run, "place", lambda: (0, 2))
    with pytest.raises(UserError, match="3 captions of other processes do not come; run the same command again"):
        evaluated(Said(SIX), table, tmp_path / "out")
    monkeypatch.setattr(run, "place", lambda: (0, 1))
    said = Said(SIX)
    (found,) = evaluated(said, table, tmp_path / "out") or []
    assert said.seen == ["k1.png", "k3.png", "k5.png"]  # alone it goes on from the process's rows
    assert [row["id"] for row in found.file.rows] == [f"k{i}" for i in range(6)]


def test_each_process_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert run.own_device(None) is None  # alone: the default
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert run.own_device(None) == "cuda:1"
    assert run.own_device("cpu") == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run.own_device(None) is None


_SLOW = """
import sys, time
from pathlib import Path
from msmedcap.data.sets import Case
from msmedcap.evaluation.captions_file import Store
store = Store(Path(sys.argv[1]), {"models": "demo", "weights": "abc"})
rows = ({"id": f"{i}", "captions": {"MSMedCap": "x" * 20000}, "error": None} for i in range(10**6))
for row in store.append(rows):
    pass
"""


@pytest.mark.slow
def test_a_process_that_is_killed_loses_one_row_at_most(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    process = subprocess.Popen([sys.executable, "-c", _SLOW, str(file)], env={**os.environ, "PYTHONPATH": os.getcwd()})
    while not file.exists() or file.stat().st_size < 3e6:
        time.sleep(0.01)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    lines = file.read_bytes().split(b"\n")
    store = Store(file, MADE_WITH)
    assert len(store.done) >= len(lines) - 2  # without the first line and what stands after the last end of line
    assert store.done == {str(i) for i in range(len(store.done))}


def test_mistakes_are_told(table: DataSet, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="named twice"):
        run.caption_datasets(Said(SIX), [table, table], out=tmp_path, made_with=MADE_WITH)
    with pytest.raises(UserError, match="at least 1"):
        evaluated(Said(SIX), dataclasses.replace(table, limit=0), tmp_path)


def test_times_are_said_as_one_says_them() -> None:
    assert [foresight.duration(s) for s in (0.2, 40, 720, 12600)] == ["1 s", "40 s", "12 min", "3.5 h"]
