"""The lexicon agrees with real data that says the same in another way; the tables are made as documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from msmedcap.evaluation.facts import agreement

ROCO_STATES = Path(__file__).with_name("clinical_roco_states.jsonl")


@pytest.mark.slow
def test_real_data_agree(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agreement.main([str(shared_data), "--roco-states", str(ROCO_STATES)])
    out = capsys.readouterr().out
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line.startswith("| ")
    ][1:]
    found = {(row[0], row[1]): (_share(row[5]), _share(row[6])) for row in rows}
    floors = {
        ("MedPix captions", "modality"): (0.98, 0.5),
        ("MedPix captions", "plane"): (0.9, 0.3),
        ("MedPix captions", "part"): (0.88, 0.75),
        ("cxr_labels label words", "label"): (1.0, 1.0),
        ("busi label words", "label"): (1.0, 1.0),
        ("cxr_seg class words", "finding, device, part, side"): (1.0, 1.0),
        ("cxr_seg finding column", "finding"): (1.0, 1.0),
        ("ROCO captions", "modality"): (0.95, 0.93),
        ("ROCO captions", "part"): (0.93, 0.93),
        ("ROCO captions", "finding"): (0.9, 0.9),
        ("ROCO captions", "device"): (0.95, 0.95),
    }
    for key, (precision, recall) in floors.items():
        assert found[key][0] >= precision and found[key][1] >= recall, key
    assert "clinical_roco_states.jsonl: texts 106" in out


def _share(cell: str) -> float:
    return float(cell.removesuffix(" %")) / 100


def test_an_empty_folder_gives_an_empty_table(tmp_path: Path) -> None:
    assert agreement.measure(tmp_path) == []


def test_the_shares_of_the_table() -> None:
    text = agreement.table([agreement.Agreement("a", "b", "c", 4, 2, 1), agreement.Agreement("a", "b", "c", 0, 0, 0)])
    assert "| a | b | c | 4 | 50.0 % | 50.0 % | 25.0 % |" in text
    assert "| a | b | c | 0 | – | – | – |" in text


def test_states_are_counted_by_hand() -> None:
    rows = [
        ("No mass. Left cyst.", {"absent": {"mass": ""}, "present": {"cyst": "left"}}),
        ("Mass.", {"absent": {"mass": ""}}),
    ]
    found = agreement.measure_states(rows)
    assert found == {
        "texts": 2,
        "claims": 3,
        "precision": 2 / 3,
        "recall": 2 / 3,
        "texts without error": 0.5,
        "sides right": 1.0,
    }
    assert agreement.measure_states(rows[1:], states=("absent",))["recall"] == 0
