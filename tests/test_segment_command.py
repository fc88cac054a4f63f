"""``segment`` on the command line: the contract's keys, masks of the picture's size, mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from msmedcap import segmenters
from msmedcap.__main__ import main
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
        (("--box", "5,5,5,9"), "no area"),
    ],
)
def test_a_wrong_prompt_is_one_line_and_status_2(
    models: str, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], said: str
) -> None:
    assert run(models, scan, tmp_path / "out", *flags, "--json") == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert said in line and out == "" and not (tmp_path / "out").exists()


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
