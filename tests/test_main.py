"""The command line keeps its contract: names, JSON lines, one line per mistake, exit status, no PyTorch for --help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import msmedcap
from msmedcap.__main__ import main, parser
from msmedcap.batch import BatchItem
from msmedcap.config import UserError
from msmedcap.data.scans import ScanError, open_scans
from msmedcap.data.sets import Case
from msmedcap.explain.maps import Map
from msmedcap.predictor import Predictor

ROOT = Path(__file__).resolve().parent.parent
SYSTEMS = ("MSMedCap", "BLIP2", "SAM-BLIP2")


@dataclass
class FakePredictor:
    """Says the file's name; refuses files whose name says so."""

    systems: tuple[str, ...] = SYSTEMS
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    segmenter_absent: str | None = "These models cannot segment."

    def set_scan(self, source: Path, **options: Any) -> FakePredictor:
        self.name = Path(source).name
        self.asked = options
        if "bad" in self.name:
            raise ScanError("The file is empty; choose another.")
        if "dumb" in self.name:
            raise UserError("None of the systems could read this scan.")
        if "bug" in self.name:
            raise ZeroDivisionError("division by zero\nsecond line")
        return self

    def captions(
        self, *, systems: tuple[str, ...] | None = None, preset: str = "fast", prompt: str | None = None
    ) -> dict[str, str]:
        self.asked |= {"systems": systems, "preset": preset, "prompt": prompt}
        if prompt == "impossible":
            raise UserError("This prompt cannot be\nused.")
        self.warnings = ["Burned-in text cannot be excluded."]
        self.seconds = {"encode": 0.5, "decode": 0.25}
        print("a library talks")  # must not reach the command's stdout
        return dict.fromkeys(systems or self.systems, f"A scan, {self.name}.")

    def caption_many(self, sources: Iterable[Path], **options: Any) -> Iterator[BatchItem]:
        view = {name: options.pop(name) for name in ("window", "frame", "allow_burned_in") if name in options}
        for index, source in enumerate(sources):
            try:
                captions = self.set_scan(source, **view).captions(**options)
                yield BatchItem(index, captions, "", tuple(self.warnings), self.seconds)
            except Exception as error:
                yield BatchItem(index, error=error)

    def maps(self, *, system: str, point: tuple[float, float] | None = None) -> list[Map]:
        grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
        made = [
            Map("sam_pca", "sam", None, None, (0.0, 1.0), np.stack([grey] * 3, axis=-1)),
            Map("sam_norm", "sam", None, None, (0.0, 19.0), grey.astype(np.float32)),
            Map("attention", "clip", 0, None, (0.0, np.float32(0.1)), grey / np.float32(190)),
            Map("attention", "sam", 2, None, (0.0, 0.2), grey / np.float32(95)),
        ]
        return made + [Map("sam_similarity", "sam", None, None, (-1.0, 1.0), grey / np.float32(19))] if point else made

    def word_maps(self, word: int, *, system: str, method: str = "gradient") -> list[Map]:
        if word > 2:
            raise UserError(f"There is no word {word}: the caption has 3 words, counted from 0.")
        values = np.full((4, 5), 2.0, np.float32)
        text = ("A", "scan,", "a.png.")[word]
        return [Map("word", view, None, text, (0.0, 8.0), values, place=word, method=method) for view in ("clip", "sam")]

    def explain(self, **options: Any) -> tuple[list[Map], dict[str, Any]]:
        return Predictor.explain(self, **options)  # type: ignore[arg-type]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakePredictor:
    predictor = FakePredictor()

    def load(
        models: str = "demo", *, device: str | None = None, load_8bit: bool = False, offload: bool = False
    ) -> FakePredictor:
        if models == "nowhere":
            raise UserError("There is no model folder 'nowhere'.")
        predictor.asked = {"device": device, "load_8bit": load_8bit, "offload": offload}
        return predictor

    module = types.ModuleType("msmedcap.predictor")
    module.load = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "msmedcap.predictor", module)
    monkeypatch.setattr(msmedcap, "predictor", module, raising=False)
    monkeypatch.delenv("MSMEDCAP_DEBUG", raising=False)
    return predictor


@pytest.fixture
def scans(tmp_path: Path) -> Callable[..., Path]:
    def make(*names: str) -> Path:
        for name in names:
            file = tmp_path / "scans" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"pixels")
        return tmp_path / "scans"

    return make


def _rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_caption_json_is_one_object_per_scan_and_nothing_else(fake, scans, capsys) -> None:
    folder = scans("a.png", "sub/b.png")
    assert main(["caption", str(folder), "--json"]) == 0
    out, err = capsys.readouterr()
    rows = _rows(out)
    assert [row["scan"] for row in rows] == [f"{folder}/a.png", f"{folder}/sub/b.png"]
    assert set(rows[0]) == {"scan", "captions", "seconds", "warnings"}
    assert rows[0]["captions"] == dict.fromkeys(SYSTEMS, "A scan, a.png.")
    assert rows[0]["seconds"] == {"encode": 0.5, "decode": 0.25}
    assert rows[0]["warnings"] == ["Burned-in text cannot be excluded."]
    assert "a library talks" in err


def test_a_strange_file_name_stays_on_its_line(fake, scans, capsys) -> None:
    names = ("a\u2028b\x85.png", os.fsdecode(b"\xff.png"))
    folder = scans(*names)
    assert main(["caption", str(folder), "--json"]) == 0
    assert {row["scan"] for row in _rows(capsys.readouterr().out)} == {f"{folder}/{name}" for name in names}
    assert main(["caption", str(folder)]) == 0


def test_a_scan_is_named_as_reached_from_its_argument(fake, scans, capsys, monkeypatch) -> None:
    monkeypatch.chdir(scans("a.png", "sub/b.png").parent)
    assert main(["caption", "./scans/a.png", "scans/sub", "scans/", "--json"]) == 0
    names = [row["scan"] for row in _rows(capsys.readouterr().out)]
    assert names == ["./scans/a.png", "scans/sub/b.png", "scans/a.png", "scans/sub/b.png"]


def test_options_reach_the_predictor(fake, scans, capsys) -> None:
    file = scans("a.png") / "a.png"
    flags = ["--systems", "BLIP2,MSMedCap", "--preset", "paper", "--prompt", "A scan of"]
    assert main(["caption", str(file), *flags, "--window", "1500,-600", "--frame", "3", "--allow-burned-in"]) == 0
    assert fake.asked == {
        "window": "1500,-600", "frame": 3, "allow_burned_in": True,
        "systems": ("BLIP2", "MSMedCap"), "preset": "paper", "prompt": "A scan of",
    }  # fmt: skip


def test_caption_for_a_reader_puts_warnings_on_stderr(fake, scans, capsys) -> None:
    file = scans("a.png") / "a.png"
    assert main(["caption", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == str(file)
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(SYSTEMS)
    assert f"{file}: Burned-in text cannot be excluded." in err.splitlines()


@pytest.mark.parametrize("broken", ["bad.png", "bug.png", "dumb.png"])
def test_a_bad_scan_among_many_is_reported_and_skipped(fake, scans, capsys, broken: str) -> None:
    folder = scans("a.png", broken, "c.png")
    assert main(["caption", str(folder), "--json"]) == 1
    out, err = capsys.readouterr()
    assert [Path(row["scan"]).name for row in _rows(out)] == ["a.png", "c.png"]
    (line,) = [line for line in err.splitlines() if broken in line]
    assert line.startswith(f"{folder}/{broken}: ")
    assert "Traceback" not in err


def test_a_missing_scan_among_many_is_reported_and_skipped(fake, scans, capsys) -> None:
    folder = scans("a.png")
    assert main(["caption", str(folder / "nothing.png"), str(folder / "a.png"), "--json"]) == 1
    out, err = capsys.readouterr()
    assert len(_rows(out)) == 1
    assert "nothing.png" in err.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["caption", "nothing.png"], "nothing.png"),
        (["caption", "{dir}", "--models", "nowhere"], "There is no model folder 'nowhere'."),
        (["caption", "{dir}", "--prompt", "impossible"], "This prompt cannot be used."),
        (["caption", "{dir}/bad.png"], "The file is empty; choose another."),
        (["explain", "{dir}", "--out", "{dir}/maps"], "explain takes one scan"),
        (["explain", "{dir}/bad.png", "--out", "{dir}/maps"], "The file is empty; choose another."),
        (["explain", "{dir}/bug.png", "--out", "{dir}/maps"], "MSMEDCAP_DEBUG=1"),
        (["explain", "{dir}/a.png", "--out", "{dir}/bad.png"], "bad.png is a file; name a folder with --out."),
        (["explain", "{dir}/a.png", "--out", "{dir}/bad.png/maps"], "bad.png is a file; name a folder with --out."),
        (["explain", "{dir}/a.png", "--out", "{dir}/maps", "--method", "rollout"], "name the word with --word N"),
        (["segment", "{dir}/a.png", "--point", "1,1", "--out", "{dir}/bad.png"], "bad.png is a file; name a folder with --out."),
        (["segment", "{dir}/a.png", "--point", "1,1", "--out", "{dir}/o", "--classes", "{dir}/no.json"], "no.json does not exist"),
        (["segment", "{dir}/a.png", "--point", "1,1", "--out", "{dir}/o", "--classes", "{dir}/a.png"], "a.png is not valid JSON"),
        (["demo-weights", "--data", "{dir}/nowhere"], "nowhere does not exist"),
        (["demo-weights", "--device", "cuda"], "on the CPU"),
        (["evaluate", "--data", "other={dir}", "--split", "dev", "--out", "{dir}/o"], "'other'"),
        (["evaluate", "--out", "{dir}/o"], "--captions"),
        (["table1", "--scores", "{dir}/no.json", "--out", "{dir}/o"], "no.json"),
        (["figure4", "--data", "roco={dir}/no", "--out", "{dir}/o"], "does not exist"),
        (["train", "alignment", "--config", "nothing"], "'nothing'"),
        (["evaluate", "--data", "medpix={dir}/no", "--split", "dev", "--out", "{dir}/o"], "does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(fake, scans, capsys, arguments: list[str], said: str) -> None:
    folder = scans("a.png", "bad.png", "bug.png")
    assert main([a.format(dir=folder) for a in arguments]) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line != "a library talks"]
    assert len(lines) == 1 and said in lines[0]
    assert out == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["segmnt"], "segmnt"),
        (["caption"], "SCAN"),
        (["caption", "x", "--systems", "GPT"], "'GPT'"),
        (["explain", "x", "--out", "y", "--system", "GPT"], "'GPT'"),
        (["caption", "x", "--systems", ""], "--systems: '' holds no name"),
        (["caption", "x", "--systems", " , "], "--systems: ' , ' holds no name"),
        (["caption", "x", "--preset", "slow"], "slow"),
        (["explain", "x", "--out", "y", "--point", "-1"], "'-1' is not a point; write X,Y"),
        (["segment", "x", "--out", "y", "--point", "-.5,3,2"], "'-.5,3,2' is not a point; write X,Y"),
        (["segment", "x", "--out", "y", "--box", "-1,2,3"], "'-1,2,3' is not a box; write X0,Y0,X1,Y1"),
        (["segment", "x", "--out", "y", "--point", "--json"], "expected one argument"),
        (["caption", "x", "--frame", "-1"], "--frame"),
        (["explain", "x"], "--out"),
        (["explain", "x", "--out", "y", "--point", "3"], "X,Y"),
        (["explain", "x", "--out", "y", "--word", "-1"], "--word"),
        (["evaluate", "--data", "medpix", "--split", "dev", "--out", "y"], "NAME=PATH"),
    ],
)
def test_a_wrong_flag_is_one_line_and_status_2(capsys, arguments: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and "--help" in line


def test_coordinates_below_zero_reach_our_own_checks(fake, scans, tmp_path) -> None:
    scan, out = str(scans("a.png") / "a.png"), str(tmp_path / "maps")
    args = parser().parse_args(["explain", scan, "--out", out, "--point=-1,5"])
    assert args.point == (-1, 5)
    assert main(["caption", scan, "--window", "-5,10"]) == 0
    assert fake.asked["window"] == "-5,10"


@pytest.mark.parametrize("command", ["caption", "explain", "segment"])
def test_a_zip_is_told_as_the_page_tells_it(command: str, tmp_path: Path, capsys) -> None:
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 256, (20, 30), dtype=np.uint8)).save(tmp_path / "scan.png")
    (tmp_path / "note.txt").write_text("dear doctor")
    holds = {"empty": [], "text": ["note.txt"], "scan": ["scan.png"]}
    for name, files in holds.items():
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for file in files:
                archive.write(tmp_path / file, file)
    flags = {"caption": [], "explain": ["--out", str(tmp_path / "o")], "segment": ["--out", str(tmp_path / "o"), "--point", "1,1"]}
    for name, files in holds.items():
        path = tmp_path / f"{name}.zip"
        assert main([command, str(path), *flags[command], "--device", "cpu"]) == 2
        out, err = capsys.readouterr()
        (line,) = [line for line in err.splitlines() if line.startswith(str(path))]
        (found,) = open_scans([path])
        if "scan.png" in files:
            wanted = "This is a ZIP archive with scans in it; unpack it and name the folder, or open it on the page."
            assert found.scan is not None
        else:
            wanted = found.error
            assert "This ZIP archive holds no scan" in wanted
        assert line == f"{path}: {wanted}" and out == "" and not (tmp_path / "o").exists()


def test_debug_shows_the_traceback(fake, scans, monkeypatch) -> None:
    monkeypatch.setenv("MSMEDCAP_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["caption", str(scans("bug.png"))])


def test_explain_writes_pngs_and_their_list(fake, scans, capsys, tmp_path) -> None:
    out = tmp_path / "maps"
    assert main(["explain", str(scans("a.png") / "a.png"), "--out", str(out), "--point", "2,1.5", "--json"]) == 0
    items = _rows(capsys.readouterr().out)
    assert items == json.loads((out / "maps.json").read_text())
    assert [i["file"] for i in items] == [
        "sam-pca.png", "sam-norm.png", "attention-clip-layer0.png", "attention-sam-layer2.png", "sam-similarity.png"
    ]  # fmt: skip
    assert set(items[0]) == {"file", "kind", "branch", "layer", "word", "range"}
    assert items[1]["range"] == [0.0, 19.0]
    assert items[2] | {"range": None} == {
        "file": "attention-clip-layer0.png", "kind": "attention", "branch": "clip", "layer": 0, "word": None, "range": None
    }  # fmt: skip
    with Image.open(out / "sam-norm.png") as png:
        assert (png.mode, png.size) == ("L", (5, 4))
        assert np.array_equal(np.asarray(png), np.rint(np.arange(20) * 255 / 19).reshape(4, 5))
    with Image.open(out / "sam-pca.png") as png:
        assert png.mode == "RGB"


def test_explain_a_word_of_the_caption(fake, scans, capsys, tmp_path) -> None:
    scan, out = str(scans("a.png") / "a.png"), tmp_path / "maps"
    files = set()
    for flags in (["--word", "1"], ["--word", "2"], ["--word", "1", "--method", "attention"]):
        assert main(["explain", scan, "--out", str(out), *flags, "--json"]) == 0
        items = [item for item in _rows(capsys.readouterr().out) if item["kind"] == "word"]
        assert [(i["branch"], i["layer"], i["range"]) for i in items] == [("clip", None, [0, 8]), ("sam", None, [0, 8])]
        assert {i["word"] for i in items} == {"scan," if flags[1] == "1" else "a.png."}
        for item in items:
            with Image.open(out / item["file"]) as png:
                assert (png.mode, png.size, png.getpixel((0, 0))) == ("L", (5, 4), 64)
        files |= {item["file"] for item in items}
    assert len(files) == 6  # no map takes another's place
    assert main(["explain", scan, "--out", str(out)]) == 0
    assert "word" not in {item["kind"] for item in json.loads((out / "maps.json").read_text())}


def test_explain_a_word_there_is_none_of(fake, scans, capsys, tmp_path) -> None:
    assert main(["explain", str(scans("a.png") / "a.png"), "--out", str(tmp_path / "maps"), "--word", "3", "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.splitlines() == ["There is no word 3: the caption has 3 words, counted from 0."]


@pytest.fixture
def evaluated(fake, tmp_path, monkeypatch, capsys) -> tuple[Path, list[dict]]:
    """The folder of an evaluation of two one-case sets, and the scores that were printed."""
    case = Case("a", tmp_path / "a.png", {"modality": "CT"}, "Axial CT of the chest.", "p", "medpix")
    module = types.ModuleType("msmedcap.checkpoints")
    module.folder_of = lambda models: tmp_path  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "msmedcap.checkpoints", module)
    monkeypatch.setattr("msmedcap.evaluation.run.read_dataset", lambda name, path, split, **options: [case])
    data = ["--data", f"medpix={tmp_path}", "--data", f"busi={tmp_path}", "--split", "dev", "--metrics", "facts,clinical"]
    assert main(["evaluate", *data, "--out", str(tmp_path / "o"), "--json"]) == 0
    return tmp_path / "o", _rows(capsys.readouterr().out)


def test_evaluate_keeps_captions_and_writes_the_scores(evaluated) -> None:
    folder, rows = evaluated
    assert [(r["data"], r["system"]) for r in rows] == [
        (data, system) for data in ("medpix", "busi", "medpix+busi") for system in SYSTEMS
    ]
    assert rows[0]["modality"]["value"] == 0.0 and rows[0]["label"]["value"] is None
    assert json.loads((folder / "scores.json").read_text())["scores"] == rows
    assert "| medpix+busi | dev | BLIP2 | 2 |" in (folder / "scores.md").read_text()
    assert "python -m msmedcap evaluate" in (folder / "scores.md").read_text()
    assert len((folder / "busi-dev.jsonl").read_text().splitlines()) == 2


def test_captions_that_are_there_are_scored_without_a_model(evaluated, monkeypatch, capsys, tmp_path) -> None:
    folder, before = evaluated
    monkeypatch.setattr("msmedcap.commands.evaluation.load_predictor", lambda args: pytest.fail("no model is needed"))
    files = [str(folder / f"{name}-dev.jsonl") for name in ("medpix", "busi")]
    flags = ["--metrics", "facts,clinical", "--out", str(tmp_path / "again"), "--json"]
    assert main(["evaluate", "--captions", *files, *flags]) == 0
    assert _rows(capsys.readouterr().out) == before


def test_table_1_is_written_from_the_scores(evaluated, tmp_path, capsys) -> None:
    folder, _ = evaluated
    assert main(["table1", "--scores", str(folder / "scores.json"), "--out", str(tmp_path / "t")]) == 0
    assert "BLIP2 (G)" in capsys.readouterr().out
    assert {file.suffix for file in (tmp_path / "t").iterdir()} == {".md", ".csv", ".tex", ".png", ".pdf"}


def test_presets_are_listed_and_a_training_needs_a_name(capsys) -> None:
    assert main(["train", "--list", "--json"]) == 0
    names = {row["name"] for row in _rows(capsys.readouterr().out)}
    assert {"paper-stage1-clip", "paper-stage1-sam", "paper-stage2-msmedcap", "demo-alignment-clip"} <= names
    assert main(["train", "alignment"]) == 2
    assert "train --list" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["caption", "explain", "segment", "demo-weights", "train", "evaluate", "table1", "figure4"])
def test_every_command_has_the_common_flags(command: str, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        parser().parse_args([command, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("--models", "--device", "--load-8bit", "--json"))


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["caption", "--help"], 0), (["caption"], 2)])
def test_help_and_wrong_flags_do_not_wait_for_torch(arguments: list[str], status: int) -> None:
    code = (
        "import sys\nfrom msmedcap.__main__ import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as stop:\n    status = stop.code or 0\n"
        "print(status, [m for m in ('torch', 'transformers', 'gradio') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == f"{status} []"


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = (
        "import sys\nfrom msmedcap import __main__ as m, commands\n"
        "def run(args, out):\n    for _ in range(100000):\n        out.result('x' * 100)\n    return 0\n"
        "commands.run_caption = run\nsys.exit(m.main(['caption', 'x']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.read(10)
        child.stdout.close()
        said = child.stderr.read()
        assert child.wait(30) == 1
    assert said == b""


@pytest.mark.slow
def test_the_shipped_weights_caption_a_picture_and_nothing_else_is_said(tmp_path: Path) -> None:
    if not (ROOT / "checkpoints" / "demo" / "config.json").is_file():
        pytest.skip("there are no weights in checkpoints/demo; make them with: python -m msmedcap demo-weights")
    rows, columns = np.mgrid[:96, :128]
    picture = np.where((rows - 48) ** 2 + (columns - 64) ** 2 < 1600, 160, 10) + rows // 4
    Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "disc.png")
    command = [sys.executable, "-m", "msmedcap", "caption", str(tmp_path / "disc.png"), "--json", "--device", "cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = _rows(done.stdout)
    assert set(row["captions"]) == set(SYSTEMS) and all(row["captions"].values())
    assert all(row["seconds"][key] > 0 for key in ("encode", "decode"))


@pytest.mark.parametrize("there", [True, False])
def test_demo_weights_take_the_data_beside_the_checkout_or_none(there, tmp_path, monkeypatch, capsys) -> None:
    from msmedcap.commands import training as commands
    from msmedcap.evaluation import segmentation, unlike
    from msmedcap.training import recipe, segmenting

    beside = tmp_path / "shared" / "data"
    if there:
        beside.mkdir(parents=True)
    asked: list[Path | None] = []
    monkeypatch.setattr(commands, "DATA_BESIDE", beside)
    monkeypatch.setattr(recipe, "build", lambda data, out, work, rows: asked.append(data))
    monkeypatch.setattr(segmenting, "demo_segmenter", lambda data, models, work: asked.append(data))
    monkeypatch.setattr(segmentation, "fit_presence", lambda models, data: asked.append(data))
    monkeypatch.setattr(unlike, "fit_unlike", lambda models, data, work: asked.append(data))
    assert main(["demo-weights", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]) == 0
    assert asked == 4 * [beside if there else None]
    assert (str(beside) if there else "made scans alone") in capsys.readouterr().err
