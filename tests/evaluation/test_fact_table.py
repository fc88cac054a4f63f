"""Captions are kept as they come, an interrupted run goes on, and the scores are what can be counted by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from msmedcap.batch import BatchItem
from msmedcap.config import UserError
from msmedcap.data.scans import ScanError
from msmedcap.evaluation import fact_table

MADE_WITH = {"models": "demo", "weights": "abc"}


@dataclass(frozen=True)
class Case:
    id: str
    image: Path
    facts: Mapping[str, str]
    group: str


class Said:
    """A predictor that says what it is told for each file name, and notes the pictures it is given."""

    def __init__(self, captions: Mapping[str, dict[str, str] | Exception]) -> None:
        self.by_name, self.seen = captions, []

    def caption_many(self, sources: Iterable[Path]) -> Iterator[BatchItem]:
        for index, source in enumerate(sources):
            self.seen.append(source.name)
            said = self.by_name.get(source.name, ScanError("not a picture"))
            yield BatchItem(index, error=said) if isinstance(said, Exception) else BatchItem(index, said)


CASES = [
    Case("a", Path("a.png"), {"modality": "CT", "plane": "axial", "part": "chest"}, "p1"),
    Case("b", Path("b.png"), {"modality": "MRI", "plane": "sagittal", "part": "spine"}, "p1"),
    Case("c", Path("c.png"), {"modality": "X-ray", "part": "chest", "label": "pneumonia"}, "p2"),
    Case("d", Path("d.png"), {"modality": "ultrasound", "part": "breast", "label": "benign"}, "p3"),
]
CAPTIONS = {
    "a.png": {"MSMedCap": "Axial CT of the chest."},
    "b.png": {"MSMedCap": "Axial MR of the lumbar spine. Axial MR of the lumbar spine."},
    "c.png": {"MSMedCap": "Frontal radiograph of the chest. COVID-19."},
    "d.png": {"MSMedCap": "Ultrasound of the breast. Benign mass."},
}


def scored(said: Said, cases: list[Case], file: Path) -> dict:
    rows = list(fact_table.caption_cases(said, cases, file=file, made_with=MADE_WITH))
    return fact_table.score_rows(rows, "MSMedCap")


def test_scores_are_what_can_be_counted_by_hand(tmp_path: Path) -> None:
    scores = scored(Said(CAPTIONS), CASES, tmp_path / "x.jsonl")
    assert (scores["n"], scores["groups"], scores["unreadable"]) == (4, 3, 0)
    assert scores["modality"]["value"] == 1.0
    assert (scores["plane"]["n"], scores["plane"]["balanced"]) == (2, 0.5)
    assert scores["part"]["value"] == 1.0
    assert (scores["label"]["n"], scores["label"]["value"]) == (2, 0.5)
    assert scores["label"]["recalls"]["pneumonia"]["value"] == 0.0
    assert (scores["distinct"], scores["faulty"]["value"]) == (1.0, 0.25)


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    first = fact_table.caption_cases(Said(CAPTIONS), CASES, file=file, made_with=MADE_WITH)
    rows = [next(first), next(first)]
    first.close()
    with file.open("a") as out:
        out.write('{"id": "c", "gro')  # killed while writing
    again = Said(CAPTIONS)
    rest = list(fact_table.caption_cases(again, CASES, file=file, made_with=MADE_WITH))
    assert again.seen == ["c.png", "d.png"]
    assert rest[:2] == rows
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()[1:]] == list("abcd")


def test_captions_of_other_weights_are_not_mixed_in(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    list(fact_table.caption_cases(Said(CAPTIONS), CASES, file=file, made_with=MADE_WITH))
    with pytest.raises(UserError, match="other weights"):
        list(fact_table.caption_cases(Said(CAPTIONS), CASES, file=file, made_with={**MADE_WITH, "weights": "def"}))


def test_the_digest_tells_weights_apart(tmp_path: Path) -> None:
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt" / "model.safetensors").write_bytes(b"one")
    first = fact_table.weights_digest(tmp_path)
    (tmp_path / "README.md").write_text("not weights")
    assert fact_table.weights_digest(tmp_path) == first
    (tmp_path / "opt" / "model.safetensors").write_bytes(b"two")
    assert fact_table.weights_digest(tmp_path) != first


def test_a_picture_that_cannot_be_read_counts_as_wrong(tmp_path: Path) -> None:
    said = Said({k: v for k, v in CAPTIONS.items() if k != "a.png"})
    scores = scored(said, CASES, tmp_path / "x.jsonl")
    assert scores["unreadable"] == 1
    assert scores["modality"]["value"] == 0.75
    record = {"data": "few", "split": "dev", "system": "MSMedCap", **scores}
    assert "Not read, and counted as wrong: 1 of few dev." in fact_table.table([record], "Facts")


def test_a_mistake_of_ours_ends_the_run_and_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    broken = Said({**CAPTIONS, "c.png": ZeroDivisionError("division by zero")})
    with pytest.raises(ZeroDivisionError):
        list(fact_table.caption_cases(broken, CASES, file=file, made_with=MADE_WITH))
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()[1:]] == ["a", "b"]
    rows = list(fact_table.caption_cases(Said(CAPTIONS), CASES, file=file, made_with=MADE_WITH))
    assert [row["id"] for row in rows] == list("abcd")


def test_a_case_named_twice_is_captioned_once(tmp_path: Path) -> None:
    said = Said(CAPTIONS)
    rows = list(fact_table.caption_cases(said, [*CASES[:2], CASES[0]], file=tmp_path / "x.jsonl", made_with=MADE_WITH))
    assert said.seen == ["a.png", "b.png"] and rows[2] is rows[0]


def test_table_has_a_row_per_record_and_says_what_was_counted(tmp_path: Path) -> None:
    scores = scored(Said(CAPTIONS), CASES[:2], tmp_path / "x.jsonl")
    text = fact_table.table([{"data": "few", "split": "dev", "system": "MSMedCap", **scores}], "Facts")
    row = next(line for line in text.splitlines() if line.startswith("| few"))
    assert "1.00 [.34, 1.00]" in row
    assert row.count("|") == len(fact_table.COLUMNS) + 1
    assert "–" in row  # no case has a label
    assert "version 1" in text
    json.dumps(fact_table.finite(scores), allow_nan=False)
