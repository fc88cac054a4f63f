"""``segment`` on the command line: the contract's keys, masks of the picture's size, mistakes in one line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from msmedcap import segmenters
from msmedcap.__main__ import main
from msmedcap.data.classes import ClassBook, load_classes
from msmedcap.models.segmenter import Prediction, Segmenter
from tests import segmenting, sizes

HEIGHT, WIDTH = 40, 70


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = sizes.write_folder(tmp_path_factory.mktemp("models"))
    segmenters.save_segmenter(segmenting.segmenter(), made / segmenters.FOLDER)
    return str(made)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scan.png")
    return tmp_path / "scan.png"


def run(models: str, scan: Path, out: Path, *flags: str) -> int:
    return main(["segment", str(scan), "--models", models, "--device", "cpu", "--out", str(out), *flags])


def only_row(text: str) -> dict[str, Any]:
    (line,) = text.splitlines()
    return json.loads(line)


PROMPTS = (("--point", "12,30"), ("--point", "12,30", "--point", "60.5,4,0"), ("--box", "5,5,30,35"))


@pytest.mark.parametrize("prompt", PROMPTS)
def test_json_is_one_object_with_the_contracts_keys(
    models: str, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], prompt: tuple[str, ...]
) -> None:
    assert run(models, scan, tmp_path / "out", *prompt, "--json") == 0
    row = only_row(capsys.readouterr().out)
    assert list(row) == ["label", "score", "binary_mask", "semantic_mask", "present"]
    assert row["label"] in segmenting.NAMES and 0 < row["score"] <= 1
    assert all(set(one) == {"label", "score"} for one in row["present"])
    for key in ("binary_mask", "semantic_mask"):
        with Image.open(tmp_path / "out" / row[key]) as image:
            assert image.format == "PNG" and image.mode == "L" and image.size == (WIDTH, HEIGHT)
            assert set(np.unique(np.asarray(image))) <= {0, 255}
    (written,) = json.loads((tmp_path / "out" / "segment.json").read_text())["segments"]
    with Image.open(tmp_path / "out" / written["binary_mask"]) as image:
        assert written["area_px"] == (np.asarray(image) == 255).sum()
    assert written["label"] == row["label"]


def test_for_a_reader_it_says_the_name_and_the_area(
    models: str, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(models, scan, tmp_path / "out", "--point", "12,30") == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split(" (")[0] in segmenting.NAMES and "pixels" in out.splitlines()[0]
    assert str(tmp_path / "out" / "binary.png") in out
    assert "no pixel spacing" in err


def test_dicom_seg_is_written_when_asked_for(models: str, scan: Path, tmp_path: Path) -> None:
    assert run(models, scan, tmp_path / "out", "--point", "12,30") == 0
    assert not list((tmp_path / "out").glob("*.dcm"))
    assert run(models, scan, tmp_path / "out", "--point", "12,30", "--dicom-seg") == 0
    seg = pydicom.dcmread(tmp_path / "out" / "segmentation.dcm")
    with Image.open(tmp_path / "out" / "binary.png") as image:
        assert (seg.pixel_array.reshape(HEIGHT, WIDTH) * 255 == np.asarray(image)).all()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "neither a point nor a box"),
        (("--point", "70.5,3"), "outside the scan, which is 70 x 40 pixels"),
        (("--point", "7,3,0"), "beside"),
        (("--point", "-1,5"), "The point -1,5 lies outside the scan, which is 70 x 40 pixels"),
        (("--point", "5,5", "--point", "-.5,3,0"), "The point -0.5,3 lies outside the scan"),
        (("--box", "-1,2,3,4"), "The box -1,2,3,4 reaches outside the scan"),
        (("--point", "7,3", "--point", "9,9", "--point", "7,3,0"), "The point 7,3 is given as on the structure and as beside it"),
        (("--point", "7,3", "--window", "-5,10"), "A window needs a width above zero"),
        (("--box", "5,5,5,9"), "no area"),
    ],
)
def test_a_wrong_prompt_is_one_line_and_status_2(
    models: str, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], said: str
) -> None:
    assert run(models, scan, tmp_path / "out", *flags, "--json") == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert said in line and "expected one argument" not in line and out == "" and not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [("--point", "7"), ("--point", "7,8,2"), ("--box", "1,2,3"), ("--point", "x,y")])
def test_a_flag_that_cannot_be_read_is_one_line(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run("demo", scan, tmp_path / "out", *flags)
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and flags[0] in line and "write X" in line


def test_models_without_segmenter_say_which_command_makes_it(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = str(sizes.write_folder(tmp_path / "bare"))
    capsys.readouterr()
    assert run(bare, scan, tmp_path / "out", "--point", "7,8") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "segmenter" in line and "python -m msmedcap" in line


def test_explain_writes_what_lies_at_the_hottest_places(
    models: str, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--models", models, "--device", "cpu", "--out", str(tmp_path / "maps"), "--json"]
    assert main(["explain", str(scan), *flags]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows == json.loads((tmp_path / "maps" / "maps.json").read_text())
    assert all(("structure" in row) == (row["kind"] == "attention") for row in rows)
    for row in [row for row in rows if "structure" in row]:
        assert set(row) == {"file", "kind", "branch", "layer", "word", "range", "structure"}
        assert row["structure"]["label"] in segmenting.NAMES
        with Image.open(tmp_path / "maps" / row["file"]) as image:
            x, y = (int(value) for value in row["structure"]["point"])
            assert np.asarray(image)[y, x] == 255


STENT = {
    "name": "Stent", "kind": "device", "synonyms": ["tube of wire"], "appearance": {"X-ray": "a bright mesh of thin wires"},
    "place": "in a vessel or a duct", "shape": "a narrow tube", "neighbours": ["vessel wall"],
}  # fmt: skip


def book(*classes: dict[str, Any]) -> dict[str, Any]:
    return {"version": "1", "reviewed": "2026-11-22", "about": "Our own.", "ignored": {}, "classes": list(classes)}


@pytest.fixture(scope="module")
def readable(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Models whose segmenter's classes were read by their own language model."""
    made = sizes.write_folder(tmp_path_factory.mktemp("models"))
    parts, shipped = sizes.frozen(), load_classes()
    few = ClassBook(shipped.version, shipped.reviewed, shipped.classes[:3], shipped.ignored)
    untrained = segmenters.make_segmenter(few, few.names, sizes.config().sam, parts.prompts, opt=parts.opt, tokens=4)
    segmenters.save_segmenter(untrained, made / segmenters.FOLDER)
    return str(made)


def test_new_classes_are_named_for_this_run_without_training(
    readable: str, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in Path(readable).rglob("*") if path.is_file()}
    file = tmp_path / "ours.json"
    file.write_text(json.dumps(book(STENT)))
    known: list[tuple[str, ...]] = []
    asked = Segmenter.predict

    def watched(self: Segmenter, *args: Any, **options: Any) -> Prediction:
        """Finds the class that was named last the likeliest."""
        known.append(self.names)
        said = asked(self, *args, **options)
        assert said.classes is not None and said.classes.shape[-1] == len(self.names)
        return dataclasses.replace(said, classes=said.classes.roll(len(self.names) - 1 - int(said.classes.argmax()), -1))

    assert run(readable, scan, tmp_path / "out", "--point", "12,30", "--json") == 0
    without = only_row(capsys.readouterr().out)
    monkeypatch.setattr(Segmenter, "predict", watched)
    assert run(readable, scan, tmp_path / "with", "--point", "12,30", "--json", "--classes", str(file)) == 0
    out, err = capsys.readouterr()
    row = only_row(out)
    assert list(row) == list(without) and row["label"] == "Stent" and "Named from their descriptions alone: Stent." in err
    assert known == [(*(c.name for c in load_classes().classes[:3]), "Stent")]
    assert {path: path.read_bytes() for path in Path(readable).rglob("*") if path.is_file()} == before


def test_classes_that_are_known_change_nothing_and_are_told(
    readable: str, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ours.json"
    file.write_text(json.dumps(book({**STENT, "name": "left_lung", "synonyms": []})))
    assert run(readable, scan, tmp_path / "out", "--point", "12,30", "--json") == 0
    without = only_row(capsys.readouterr().out)
    assert run(readable, scan, tmp_path / "out", "--point", "12,30", "--json", "--classes", str(file)) == 0
    out, err = capsys.readouterr()
    assert only_row(out) == without and f"{file} holds no class that is new to this segmenter." in err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not valid JSON"),
        ("[]", "it must be an object with version"),
        (json.dumps(book({**STENT, "kind": "robot"})), "class 1 (Stent): kind must be one of"),
        (json.dumps(book()), "at least one class"),
    ],
)
def test_a_file_that_holds_no_classes_is_one_line(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    file = tmp_path / "ours.json"
    file.write_text(content)
    assert run("nowhere", scan, tmp_path / "out", "--point", "12,30", "--classes", str(file)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(str(file)) and said in line


def test_a_folder_that_is_a_file_is_blamed_itself(
    models: str, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "afile").write_text("")
    assert run(models, scan, tmp_path / "afile", "--point", "12,30") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{tmp_path / 'afile'} is a file; name a folder with --out."
