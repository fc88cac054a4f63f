"""Reading pictures one at a time, and the named selections."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msmedcap.config import UserError
from msmedcap.data.scans import ScanError, write_dicom
from msmedcap.data.sets import (
    SELECTIONS,
    Case,
    Selection,
    Skipped,
    open_case,
    read_dataset,
    select,
    selection,
    stream,
)


def case(image: Path, n: int = 0) -> Case:
    return Case(f"case {n}", image, {}, "Words.", f"p{n}", "made")


def tree(root: Path) -> list[Case]:
    """Five pictures: two whole (JPEG, DICOM), one cut off, one that is none, one missing."""
    grey = np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint8)
    Image.fromarray(grey).save(root / "0.jpg")
    write_dicom(root / "1.dcm", grey.astype(np.float32), modality="CT", body_part="CHEST", spacing=None, window=None)
    Image.fromarray(grey).save(root / "2.png")
    (root / "2.png").write_bytes((root / "2.png").read_bytes()[:200])
    (root / "3.jpg").write_text("words")
    return [case(root / name, n) for n, name in enumerate(("0.jpg", "1.dcm", "2.png", "3.jpg", "4.jpg"))]


def test_bad_pictures_are_counted_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    skipped, heard = Skipped(), []
    with caplog.at_level(logging.WARNING, logger="msmedcap.data.sets.case"):
        read = list(stream(tree(tmp_path), skipped=skipped, on_bad=lambda bad, reason: heard.append((bad.id, reason))))
    assert [(c.id, scan.kind, scan.width) for c, scan in read] == [("case 0", "JPEG", 32), ("case 1", "DICOM", 32)]
    assert skipped.count == 3 and [id for id, _ in heard] == ["case 2", "case 3", "case 4"]
    assert len(caplog.records) == 1 and caplog.text.count("case ") == 3 and "3 pictures were skipped" in caplog.text


def test_many_bad_pictures_make_one_short_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not list(stream(case(tmp_path / f"{n}.png", n) for n in range(500)))
    assert len(caplog.records) == 1 and "500 ×" in caplog.text and caplog.text.count("(first: case 0)") == 1


def test_nothing_is_said_where_nothing_was_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(list(stream(tree(tmp_path)[:2]))) == 2 and not caplog.records


def test_reading_waits_for_its_turn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    taken = []

    def cases() -> object:
        for found in [tree(tmp_path)[3], tree(tmp_path)[0], tree(tmp_path)[1]]:
            taken.append(found.id)
            yield found

    reading = stream(cases())  # type: ignore[arg-type]
    assert taken == []
    assert next(reading)[0].id == "case 0" and taken == ["case 3", "case 0"]
    reading.close()  # type: ignore[attr-defined]
    assert "1 pictures were skipped" in caplog.text


def test_a_case_is_small_and_travels_to_other_processes(tmp_path: Path) -> None:
    made = Case("a", tmp_path / "a.png", {"modality": "CT"}, "One.", "p", "made", captions=("One.", "Two."))
    assert pickle.loads(pickle.dumps(made)) == made and not hasattr(made, "__dict__")
    assert made.references == ("One.", "Two.") and case(tmp_path).references == ("Words.",)


def test_an_empty_part_of_a_picture_is_a_scan_error(tmp_path: Path) -> None:
    whole = tree(tmp_path)[0]
    with pytest.raises(ScanError, match="part of the picture"):
        open_case(Case("a", whole.image, {}, "W", "p", "s", box=(0.5, 0.5, 0.5, 0.9)))
    assert open_case(Case("a", whole.image, {}, "W", "p", "s", box=(-1.0, 0.0, 0.5, 2.0))).width == 16
    with pytest.raises(ScanError, match="missing"):
        open_case(Case("a", tmp_path / "no.png", {}, "W", "p", "s", box=(0.0, 0.0, 1.0, 1.0)))


def articles(count: int, split: str, *, first: int = 0) -> list[Case]:
    """Two pictures of each article, the second of every fourth article left to another split."""
    return [
        Case(f"{split}/{n}/{k}", Path("x"), {}, "W", f"PMC{n}", "roco")
        for n in range(first, first + count)
        for k in range(2)
    ]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {
        "test": Selection("roco", ("test",), 10),
        "train": Selection("roco", ("train", "val"), 50, apart=("test",)),
    }
    monkeypatch.setattr(
        selection, "SELECTIONS", {**sizes, "rest": Selection("roco", ("val",), 0, apart=("train", "test"))}
    )


SPLITS = {"train": articles(24, "train"), "val": articles(20, "val", first=24), "test": articles(8, "test")}


@pytest.mark.usefixtures("small")
def test_a_selection_has_its_size_and_shares_no_article() -> None:
    test, train, rest = (select(name, SPLITS) for name in ("test", "train", "rest"))
    assert (len(test), len(train)) == (10, 50)
    groups = [{c.group for c in cases} for cases in (test, train, rest)]
    assert not groups[0] & groups[1] and not groups[2] & (groups[0] | groups[1]) and rest
    # What train itself has comes first; val only makes up the number.
    assert [c.id.split("/")[0] for c in train] == ["train"] * 38 + ["val"] * 12


@pytest.mark.usefixtures("small")
def test_a_selection_depends_on_names_alone() -> None:
    again = {split: cases[::-1] for split, cases in SPLITS.items()}
    assert select("train", again) == select("train", SPLITS)
    more = {**SPLITS, "test": SPLITS["test"] + articles(1, "test", first=500)}
    before, after = select("test", SPLITS), select("test", more)
    kept = [c for c in after if not c.id.startswith("test/500")]
    assert kept == before[: len(kept)] and len(kept) >= 8


@pytest.mark.usefixtures("small")
def test_too_few_pictures_are_one_sentence_or_all() -> None:
    few = {"train": articles(3, "train", first=90), "test": SPLITS["test"]}
    with pytest.raises(UserError, match="train asks for 50 pictures and there are 6"):
        select("train", few)
    assert len(select("train", few, take_all=True)) == 6
    with pytest.raises(UserError, match="no selection named 'x'; there are test, train, rest"):
        select("x", few)


def test_only_cases_with_the_facts_asked_for_are_selected() -> None:
    cases = [Case(f"{n}", Path("x"), {"radiology": "yes"} if n % 3 else {}, "W", f"{n}", "medicat") for n in range(30)]
    chosen = select("medicat-radiology-train", {"train": cases})
    assert {c.id for c in chosen} == {f"{n}" for n in range(30) if n % 3}


def test_the_papers_sizes() -> None:
    sizes = {name: chosen.count for name, chosen in SELECTIONS.items() if name.startswith("paper")}
    assert sizes == {
        "paper-roco-train": 60_000,
        "paper-roco-test": 8_000,
        "paper-medicat-train": 100_000,
        "paper-medicat-test": 50_000,
    }


def test_a_data_set_is_read_with_a_selection_and_cleaned(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "radiology"
    folder.mkdir(parents=True)
    (folder / "captions.txt").write_text("".join(f"ROCO_{n}\tFigure {n}. CT (arrow).\n" for n in range(5)))
    cases = read_dataset("roco", tmp_path, "train", selection="paper-roco-train", take_all=True, clean=True)
    assert len(cases) == 5 and {c.caption for c in cases} == {"CT."}
    assert {c.caption for c in read_dataset("roco", tmp_path, "train")} == {
        f"Figure {n}. CT (arrow)." for n in range(5)
    }
    with pytest.raises(UserError, match="asks for 60,000 pictures and there are 5"):
        read_dataset("roco", tmp_path, "train", selection="paper-roco-train")
    with pytest.raises(UserError, match="of roco's split 'train', not of roco's 'val'"):
        read_dataset("roco", tmp_path, "validation", selection="paper-roco-train")
    with pytest.raises(UserError, match="no selection named 'paper'"):
        read_dataset("roco", tmp_path, "train", selection="paper")
