"""Captions are read as they were written, by us or by others, and one at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msmedcap.config import UserError
from msmedcap.evaluation.captions_file import Store, read

MADE_WITH = {"data": "medpix", "split": "dev", "weights": "abc"}
ROW = {
    "id": "a",
    "group": "p1",
    "source": "medpix",
    "image": "dev/images/a.jpg",
    "facts": {"modality": "CT"},
    "references": ["Axial CT.", "CT."],
    "captions": {"MSMedCap": "CT.", "BLIP2": ""},
    "error": None,
}


def write(file: Path, *rows: dict) -> Path:
    list(Store(file, MADE_WITH).append(rows))
    return file


def test_what_was_written_is_read(tmp_path: Path) -> None:
    opened = read(write(tmp_path / "x.jsonl", ROW, {**ROW, "id": "b", "box": [0, 0, 0.5, 1]}))
    assert opened.made_with == MADE_WITH
    assert (opened.name, opened.split, opened.systems()) == ("medpix", "dev", ("MSMedCap", "BLIP2"))
    assert list(opened.rows) == [ROW, {**ROW, "id": "b", "box": [0, 0, 0.5, 1]}]
    assert len(opened.rows) == 2


def test_a_last_line_that_was_interrupted_is_passed_over(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", ROW)
    with file.open("a") as out:
        out.write('{"id": "b", "capt')
    assert [row["id"] for row in read(file).rows] == ["a"]


def test_rows_without_references_are_read(tmp_path: Path) -> None:
    file = tmp_path / "medpix-dev.jsonl"
    file.write_text(
        '{"made_with": {}}\n{"id": "a", "group": "p", "facts": {}, "captions": {"A": "CT."}, "error": null}\n'
    )
    opened = read(file)
    (row,) = opened.rows
    assert (row["references"], row["image"], row["source"]) == ([], None, "")
    assert (opened.name, opened.split) == ("medpix", "dev")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", 'id,reference,candidate\n7,"Axial CT, chest.",CT.\n'),
        ("x.csv", '\ufeffid,ground_truth,candidate\n7,"Axial CT, chest.",CT.\n'),
        ("x.tsv", "id\treference\tcandidate\n7\tAxial CT, chest.\tCT.\n"),
        ("x.jsonl", '{"id": 7, "reference": "Axial CT, chest.", "candidate": "CT."}'),
        ("x.jsonl", '{"id": 7, "references": ["Axial CT, chest."], "captions": {"candidate": "CT."}}\n'),
    ],
)
def test_tables_of_others_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    (row,) = read(tmp_path / name).rows
    assert (row["id"], row["group"], row["references"]) == ("7", "7", ["Axial CT, chest."])
    assert (row["captions"], row["error"]) == ({"candidate": "CT."}, None)


def test_every_other_column_is_a_system_and_there_may_be_several_references(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("group,reference_1,reference_2,ours,theirs\np,One.,,A.,B.\np,One.,Two.,A.,B.\n")
    opened = read(file)
    first, second = opened.rows
    assert opened.systems() == ("ours", "theirs")
    assert (first["references"], second["references"]) == (["One."], ["One.", "Two."])
    assert (first["id"], second["id"], second["group"]) == ("0", "1", "p")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.txt", "CT.", "is not a captions file"),
        ("x.jsonl", "", "holds no captions"),
        ("x.csv", "reference\nOne.\n", "needs a column 'candidate'"),
        ("x.jsonl", "not json\n", "a line in it is no JSON"),
        ("x.jsonl", "[1]\n", "is no JSON object"),
    ],
)
def test_what_is_no_captions_file_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        list(read(tmp_path / name).rows)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no captions file"):
        read(tmp_path / "x.jsonl")


def test_rows_of_processes_are_merged_in_the_order_of_the_cases(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    write(file, {**ROW, "id": "z"}, {**ROW, "id": "b"})
    for rank, name in ((0, "c"), (1, "ä")):
        list(Store(file, MADE_WITH, rank=rank, processes=2).append([{**ROW, "id": name}]))
    (tmp_path / "x.rank7.jsonl").write_text(
        json.dumps({"made_with": MADE_WITH}) + '\n{"id": "d", "cap'
    )  # one that is gone
    store = Store(file, MADE_WITH, rank=0, processes=2)
    assert store.done == {"z", "b", "c", "ä"}
    assert store.missing(["ä", "d"]) == 1
    store.merge(["ä", "b", "c"])
    assert [row["id"] for row in read(file).rows] == ["ä", "b", "c", "z"]
    assert [f.name for f in tmp_path.iterdir()] == ["x.jsonl"]


def test_a_part_made_with_something_else_is_refused(tmp_path: Path) -> None:
    list(Store(tmp_path / "x.jsonl", {**MADE_WITH, "weights": "old"}, rank=1, processes=2).append([ROW]))
    with pytest.raises(UserError, match=r"x\.rank1\.jsonl holds captions of other weights"):
        Store(tmp_path / "x.jsonl", MADE_WITH)
