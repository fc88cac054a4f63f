"""``/segment`` for programs: what the command answers, to the byte, one sentence for a mistake, nothing of an upload kept."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from msmedcap import segmenters
from msmedcap.__main__ import main
from msmedcap.predictor import load
from tests import segmenting, sizes


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = sizes.write_folder(tmp_path_factory.mktemp("models"))
    segmenters.save_segmenter(segmenting.segmenter(), made / segmenters.FOLDER)
    return str(made)


@pytest.fixture(scope="module")
def page(serve: Callable, models: str) -> Iterator:
    with serve(load(models, device="cpu")) as served:
        yield served


@pytest.fixture(scope="module")
def client(page) -> Client:
    return Client(page.url, verbose=False)


def command(models: str, scan: Path, out: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> dict:
    """What the command prints, with files relative to ``out``."""
    capsys.readouterr()
    assert main(["segment", str(scan), "--models", models, "--device", "cpu", "--out", str(out), "--json", *flags]) == 0
    row = json.loads(capsys.readouterr().out)
    return {**row, **{key: Path(row[key]).name for key in ("binary_mask", "semantic_mask") if row[key]}}


@pytest.mark.parametrize(
    ("asked", "flags"),
    [
        ({"points": "40,30"}, ["--point", "40,30"]),
        (
            {"points": " 40.5,30 ; 90,12,0", "box": "5,5,120,90"},
            ["--point", "40.5,30", "--point", "90,12,0", "--box", "5,5,120,90"],
        ),
        ({"box": "90,80,10,20", "window": "lung"}, ["--box", "90,80,10,20", "--window", "lung"]),
    ],
)
def test_it_answers_as_the_command(
    client: Client,
    models: str,
    ct_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    asked: dict,
    flags: list,
) -> None:
    record, files = client.predict(handle_file(ct_file), **asked, api_name="/segment")
    assert record == command(models, ct_file, tmp_path / "out", capsys, *flags)
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {Path(file).name: Path(file).read_bytes() for file in files} == written
    with Image.open(io.BytesIO(written[record["binary_mask"]])) as mask:
        assert mask.size == (128, 96)
    assert "PATIENT" not in str(record) + written["segment.json"].decode()


def test_dicom_seg_comes_when_asked_for(client: Client, ct_file: Path) -> None:
    record, files = client.predict(handle_file(ct_file), box="20,20,100,80", dicom_seg=True, api_name="/segment")
    found = {Path(file).name: Path(file) for file in files}
    seg, image = pydicom.dcmread(found["segmentation.dcm"]), pydicom.dcmread(found["image.dcm"])
    assert (seg.pixel_array.reshape(96, 128) * 255 == np.asarray(Image.open(found[record["binary_mask"]]))).all()
    assert not (seg.PatientName or seg.PatientID or image.PatientName or image.PatientID)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "neither a point nor a box"),
        ({"points": "here"}, "is not a point; write X,Y"),
        ({"points": "3,3;4,4,5"}, "is not a point"),
        ({"points": "500,3"}, "outside the scan, which is 128 x 96 pixels"),
        ({"points": "3,3,0"}, "beside"),
        ({"box": "1,2,3"}, "is not a box; write X0,Y0,X1,Y1"),
        ({"box": "5,5,5,9"}, "no area"),
        ({"points": "3,3", "window": "nonsense"}, "window"),
        ({"points": "3,3", "frame": 4}, "frame"),
    ],
)
def test_a_mistake_is_the_commands_one_sentence(client: Client, ct_file: Path, asked: dict, said: str) -> None:
    with pytest.raises(AppError, match=said) as raised:
        client.predict(handle_file(ct_file), **asked, api_name="/segment")
    assert "Traceback" not in str(raised.value) and "\n" not in str(raised.value)


def test_uploads_are_gone_after_the_call(page, client: Client, ct_file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    for scan, points in ((ct_file, "3,3"), (ct_file, "nowhere"), (bad, "3,3")):
        try:
            client.predict(handle_file(scan), points=points, api_name="/segment")
        except AppError:
            continue
    assert [path for path in page.kept() if path.name in (ct_file.name, bad.name)] == []


def test_models_without_segmenter_say_which_command_makes_it(serve: Callable, tmp_path: Path, ct_file: Path) -> None:
    bare = load(str(sizes.write_folder(tmp_path / "bare")), device="cpu")
    with serve(bare) as served, pytest.raises(AppError, match="segmenter.*python -m msmedcap"):
        Client(served.url, verbose=False).predict(handle_file(ct_file), points="3,3", api_name="/segment")


def explained(models: str, scan: Path, out: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> list[dict]:
    """The items that the command ``explain`` prints."""
    capsys.readouterr()
    assert main(["explain", str(scan), "--models", models, "--device", "cpu", "--out", str(out), "--json", *flags]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("asked", "flags"),
    [
        ({}, []),
        (
            {"system": "BLIP2", "point": "20,30", "word": 0, "method": "attention", "window": "lung"},
            ["--system", "BLIP2", "--point", "20,30", "--word", "0", "--method", "attention", "--window", "lung"],
        ),
        ({"word": 0}, ["--word", "0"]),
    ],
)
def test_explain_answers_as_the_command(
    client: Client, models: str, ct_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: dict, flags: list[str]
) -> None:
    items, files = client.predict(handle_file(ct_file), **asked, api_name="/explain")
    wanted = explained(models, ct_file, tmp_path / "out", capsys, *flags)
    assert items == wanted and len(files) == len(items)
    looked = [item for item in items if item["kind"] in ("attention", "word")]
    assert looked and all("structure" in item for item in looked)
    assert ("word" in {item["kind"] for item in items}) == ("word" in asked)
    for item, file in zip(items, files, strict=True):
        assert Path(file).read_bytes() == (tmp_path / "out" / item["file"]).read_bytes()


def test_explain_shows_the_frame_that_is_asked_for(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "two.gif"
    draw = np.random.default_rng(0)
    first, second = (Image.fromarray(draw.integers(0, 256, (40, 60), dtype=np.uint8)) for _ in range(2))
    first.save(path, save_all=True, append_images=[second])
    shown = [client.predict(handle_file(path), frame=frame, api_name="/explain")[1] for frame in (0, 1)]
    assert [Path(file).name for file in shown[0]] == [Path(file).name for file in shown[1]]
    assert any(Path(one).read_bytes() != Path(other).read_bytes() for one, other in zip(*shown, strict=True))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"word": 99}, "There is no word 99"),
        ({"word": 0, "method": "magic"}, "There is no method 'magic'"),
        ({"method": "rollout"}, "name the word, too"),
    ],
)
def test_a_wrong_word_is_one_sentence(client: Client, ct_file: Path, asked: dict, said: str) -> None:
    with pytest.raises(AppError, match=said) as raised:
        client.predict(handle_file(ct_file), **asked, api_name="/explain")
    assert "Traceback" not in str(raised.value) and "\n" not in str(raised.value)


def test_a_prompt_that_does_not_fit_is_one_sentence(client: Client, ct_file: Path) -> None:
    with pytest.raises(AppError, match="tokens long; at most .* fit beside the picture and the caption"):
        client.predict(handle_file(ct_file), prompt="Ä" * 400, api_name="/caption")


def test_a_place_on_and_beside_is_one_sentence(client: Client, ct_file: Path) -> None:
    with pytest.raises(AppError, match="The point 5,6 is given as on the structure and as beside it"):
        client.predict(handle_file(ct_file), points="5,6;9,9;5,6,0", api_name="/segment")
