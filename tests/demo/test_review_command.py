"""The study command: from scans or captions to a study, its secrets, its results and its files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from fake import FakePredictor
from PIL import Image
from review_study import Reader, answers

from msmedcap.config import UserError
from msmedcap.data.scans import ScanError
from msmedcap.demo.review import command, desk
from msmedcap.demo.store import ReviewStore

SYSTEMS = ("MSMedCap", "BLIP2", "SAM-BLIP2")


class Said:
    """Collects what a command prints."""

    def __init__(self) -> None:
        self.records: list[dict] = []
        self.text: list[str] = []
        self.notes: list[str] = []

    def result(self, text, *records):
        self.text.append(text)
        self.records += records

    def note(self, text):
        self.notes.append(text)


class Plain(FakePredictor):
    """Captions that name no system, as a study needs them."""

    def fresh(self):
        return Plain(systems=self.systems)

    def captions(self, *, systems=None, preset="fast", prompt=None):
        said = super().captions(systems=systems, preset=preset)
        return {name: f"{text.partition(', seen by')[0]}, variant {len(name)}." for name, text in said.items()}


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'reviews.sqlite'}"


@pytest.fixture
def study(url, monkeypatch):
    """A function that runs ``study ARGUMENTS`` and returns the exit status and what was said."""
    monkeypatch.setattr(command, "_predictor", lambda args: Plain())

    def run(*arguments):
        parser = argparse.ArgumentParser()
        parser.set_defaults(
            models="demo", device=None, load_8bit=False, offload=False, typed="python -m msmedcap study …"
        )
        command.add_study_options(parser)
        said = Said()
        return command.run_study(parser.parse_args([*map(str, arguments), "--reviews", url]), said), said

    return run


@pytest.fixture
def scans(tmp_path, ct_file):
    folder = tmp_path / "scans"
    folder.mkdir()
    for grey in (40, 80, 120):
        Image.linear_gradient("L").resize((32, 24)).point(lambda value, grey=grey: value * grey // 255).save(
            folder / f"film-{grey}.png"
        )
    (folder / "ct").write_bytes(ct_file.read_bytes())
    return folder


@pytest.fixture
def captions(tmp_path, scans):
    file = tmp_path / "runs" / "films-test.jsonl"
    file.parent.mkdir()
    rows = [
        {"id": f"film-{grey}", "group": "p", "source": "films", "image": f"film-{grey}.png", "references": ["A film."],
         "captions": {"one": f"Grey {grey}.", "two": "A film."}}
        for grey in (40, 80, 120, 200)
    ]  # fmt: skip
    header = {"made_with": {"models": "demo", "data": "films", "split": "test"}}
    file.write_text("".join(json.dumps(row) + "\n" for row in (header, *rows)), encoding="utf-8")
    return file


def test_a_folder_of_scans_becomes_a_study(study, scans, url):
    (scans / "letter.txt").write_text("dear doctor")
    status, said = study("make", scans, "--readers", "anna,ben", "--second-stage")
    (record,) = said.records
    assert status == 1 and record["skipped"] == ["letter.txt"] and said.notes[0].startswith("letter.txt: ")
    assert record["cases"] == 4 and tuple(record["systems"]) == SYSTEMS and record["showings"] == 8
    assert set(record["secrets"]) == {"anna", "ben", "owner"} and record["secrets"]["anna"] in said.text[0]
    store = ReviewStore(url)
    kept = store.study(record["study"])
    assert "secrets" not in json.dumps(dict(kept["made_with"]))
    captioned = store.captions(kept["id"])
    assert len(captioned) == 12 and all("variant" in text for text in captioned.values())
    case = store.case(store.cases(kept["id"])[0]["id"])
    assert all(row["map"] for row in store.case_captions(case["id"]).values())


def test_captions_of_a_run_become_a_study(study, captions, scans):
    status, said = study("make", captions, "--readers", "anna", "--data", f"films={scans}")
    (record,) = said.records
    assert status == 1 and record["cases"] == 3 and record["systems"] == ["one", "two"]
    assert record["skipped"] == ["film-200"] and "not on this server" in said.notes[0]
    status, said = study("make", captions.parent, "--readers", "anna", "--data", f"films={scans}", "--cases", "2")
    assert said.records[0]["cases"] == 2


def test_cases_of_scans_are_drawn_too(study, scans, url):
    for _ in range(2):
        _, said = study("make", scans, "--readers", "anna", "--cases", "2", "--seed", "4")
        assert said.records[0]["cases"] == 2
    store = ReviewStore(url)
    one, two = ([row["name"] for row in store.cases(kept["id"])] for kept in store.studies())
    assert one == two and set(one) < {"film-40.png", "film-80.png", "film-120.png", "ct"}


def test_a_database_that_is_not_there_is_not_made(study, url, tmp_path):
    known = (["list"], ["results", "00000000"], ["reader", "00000000", "--readers", "a"])
    for action in (*known, ["make", tmp_path / "none", "--readers", "a"]):
        with pytest.raises((UserError, ScanError), match="no database|no file or folder"):
            study(*action)
    assert not (tmp_path / "reviews.sqlite").exists()
    ReviewStore(url).close()
    status, said = study("list")
    assert status == 0 and "no study" in said.notes[0]


def test_without_a_source_the_made_scans_are_read(study):
    status, said = study("make", "--readers", "anna", "--cases", "6", "--seed", "1")
    assert status == 0 and said.records[0]["cases"] == 6 and said.records[0]["showings"] == 7


def test_the_seed_fixes_orders_and_letters(study, captions, scans, url):
    for _ in range(2):
        study("make", captions, "--readers", "anna", "--data", f"films={scans}", "--seed", "5")
    store = ReviewStore(url)
    orders = []
    for kept in store.studies():
        shown = store.showings(store.readers(kept["id"])[0]["id"])
        numbers = {row["id"]: row["number"] for row in store.cases(kept["id"])}
        orders.append([(numbers[row["study_case_id"]], row["letters"]) for row in shown])
    assert orders[0] == orders[1]


def test_a_reader_comes_later_and_accounts_bring_their_own_secrets(study, captions, scans, url, tmp_path):
    from msmedcap.demo.serving.accounts import hash_password

    accounts = tmp_path / "accounts"
    accounts.write_text(f"ben:{hash_password('bens own')}\n")
    _, said = study("make", captions, "--accounts", accounts, "--data", f"films={scans}")
    key = said.records[0]["study"]
    assert set(said.records[0]["secrets"]) == {"owner"}
    _, said = study("reader", key, "--readers", "cy")
    secrets = {"ben": "bens own", "cy": said.records[0]["secret"]}
    at_desk = desk.Desk(ReviewStore(url))
    for name, secret in secrets.items():
        assert "token" in at_desk.answer({"do": "login", "study": key, "name": name, "secret": secret})
    with pytest.raises(UserError, match="already"):
        study("reader", key, "--readers", "cy")
    _, said = study("list")
    assert said.records[0]["readers"] == ["ben", "cy"] and said.records[0]["study"] == key


def test_results_and_files_are_written(study, url, tmp_path):
    from review_study import made_study

    store = ReviewStore(url)
    key = store.create(made_study().study)
    Reader(store, key, "anna").finish_all(lambda case: answers(case, preference="A"))
    _, said = study("results", key, "--out", tmp_path / "out")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"results.md", "results.json", "stage1-preference.svg", "stage1-scales.svg"} <= names
    assert said.text[0].startswith("# Chest films, spring") and json.loads(
        Path(tmp_path / "out/results.json").read_text()
    )
    _, said = study("export", key, "--out", tmp_path / "files")
    assert {Path(record["file"]).name for record in said.records if not record["blinded"]} == {"unblinding-key.csv"}
    assert {file.name for file in (tmp_path / "files").iterdir()} >= {
        "long.csv",
        "wide.csv",
        "ratings.jsonl",
        "study.zip",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["make", "{captions}"], "needs readers"),
        (["make", "{captions}", "--readers", "owner"], "cannot be a reader's name"),
        (["make", "{captions}", "--readers", "a", "--repeats", "0.5"], "share of repeated"),
        (["make", "{captions}", "--readers", "a", "--systems", "one,three"], "no system 'three'"),
        (["make", "{captions}", "--readers", "a", "--systems", "one", "--data", "films={scans}"], "2 to 5 systems"),
        (["make", "{captions}", "--readers", "a"], "No case is left"),
        (["make", "{captions}", "--readers", "a", "--second-stage"], "no system 'one'"),
        (["make", "nowhere.jsonl", "--readers", "a"], "no captions file"),
        (["make", "{captions}", "--readers", "a", "--cases", "0"], "at least one case"),
        (["make", "{scans}", "--readers", "a", "--cases", "-5"], "at least one case"),
        (["make", "{captions}", "--readers", "a", "--window", "lung"], "captions of a run are there already"),
        (["make", "{captions}", "--readers", "a", "--preset", "paper"], "captions of a run are there already"),
        (["results"], "needs the study's key"),
        (["results", "00000000"], "no study"),
        (["export", "00000000"], "--out"),
        (["reader", "00000000"], "one new reader"),
    ],
)
def test_mistakes_are_said_in_a_sentence(study, captions, scans, url, arguments, said):
    ReviewStore(url).close()
    with pytest.raises(UserError, match=said):
        study(*(argument.format(captions=captions, scans=scans) for argument in arguments))


def test_a_caption_that_names_its_system_keeps_the_case_out(study, scans, monkeypatch):
    monkeypatch.setattr(command, "_predictor", lambda args: FakePredictor())
    with pytest.raises(UserError, match="No case is left"):
        study("make", scans, "--readers", "anna")
