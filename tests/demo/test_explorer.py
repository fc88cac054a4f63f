"""The explorer's promises: what counts as which error, filters that say what they leave, strict files, pictures from one place."""

from __future__ import annotations

import json

import pytest
from fake import FakePredictor
from PIL import Image

from msmedcap.config import UserError
from msmedcap.data.scans import ScanError, open_scan
from msmedcap.demo.cases import cards as case_cards
from msmedcap.demo.cases import runs, shipped_run
from msmedcap.demo.cases.browsing import Wanted, browse, disagreement
from msmedcap.demo.cases.explorer import OWN
from msmedcap.demo.cases.figure import _ids
from msmedcap.demo.cases.library import library
from msmedcap.demo.cases.runs import Chosen, Pictures, find_runs, parse_run, read_run
from msmedcap.demo.cases.verdicts import errors
from msmedcap.demo.session import Session
from msmedcap.evaluation.facts import told

TRUE = "Axial CT of the chest. Nodule on the right."


def row(name: str, captions: dict, **more) -> dict:
    return {"id": name, "source": "made", "image": f"{name}.png", "references": [TRUE], "captions": captions, **more}


ROWS = [
    row("a", {"MSMedCap": TRUE, "BLIP2": TRUE}),
    row("b", {"MSMedCap": "Axial CT of the chest. Nodule on the left.", "BLIP2": TRUE}),
    row("c", {"MSMedCap": "Coronal MRI of the head.", "BLIP2": ""}),
    row("d", {"MSMedCap": "", "BLIP2": ""}, error="This file is damaged."),
    row("e", {"MSMedCap": "Ultrasound of the breast.", "BLIP2": TRUE}, references=["Ultrasound of the breast. Benign mass."]),
]


def lines(*records: dict) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


@pytest.fixture(scope="module")
def run():
    return parse_run(lines({"made_with": {"models": "demo", "weights": "ab12"}}, *ROWS), "made")


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        (TRUE, {"right"}),
        ("Axial MRI of the chest. Nodule on the right.", {"modality"}),
        ("Coronal CT of the chest. Nodule on the right.", {"plane"}),
        ("CT of the chest. Nodule on the right.", {"plane"}),
        ("Axial CT of the chest. Nodule on the left.", {"side"}),
        ("Axial CT of the abdomen. Nodule on the right.", {"part"}),
        ("Axial CT of the chest.", {"missed"}),
        ("Axial CT of the chest. Nodule on the right. Pneumothorax.", {"made up"}),
        ("Axial CT of the chest. No nodule.", {"missed"}),
        (f"{TRUE} Nodule on the right.", {"faulty"}),
    ],
)
def test_each_error_has_its_kind(caption, expected):
    assert errors(told([TRUE]), caption) == expected


def test_a_normal_study_must_be_called_so():
    truth = told(["Axial CT of the head. No findings."])
    assert errors(truth, "Axial CT of the head.") == {"missed"}
    assert errors(truth, "Axial CT of the head. Hemorrhage.") == {"made up"}
    assert errors(truth, "", unreadable=True) == {"unreadable"}


def test_a_file_is_read_with_what_made_it(run):
    assert run.systems == ("MSMedCap", "BLIP2") and len(run.entries) == 5
    assert run.made == "models demo, weights ab12"
    assert (run.entries[0].modality, run.entries[0].part, run.entries[4].part) == ("CT", "chest", "breast")


def test_counts_say_what_a_click_will_show(run):
    wanted = Wanted(system="MSMedCap", part="chest")
    found = browse(run, wanted)
    assert len(found.order) == 4 and found.counts["part"] == {"": 5, "chest": 4, "breast": 1}
    for kind, count in found.counts["kind"].items():
        assert len(browse(run, Wanted(system="MSMedCap", part="chest", kind=kind)).order) == count
    assert found.counts["kind"]["side"] == found.counts["kind"]["right"] == found.counts["kind"]["unreadable"] == 1


def test_a_kind_without_a_system_is_anybodys(run):
    assert [run.entries[i].id for i in browse(run, Wanted(kind="right", order="file")).order] == ["a", "b"]
    assert [run.entries[i].id for i in browse(run, Wanted(kind="right", system="MSMedCap", order="file")).order] == ["a"]


def test_cases_are_sorted_and_searched(run):
    ids = [run.entries[i].id for i in browse(run, Wanted(order="errors")).order]
    assert ids[-1] == "a" and ids[0] in ("c", "e")
    assert [run.entries[i].id for i in browse(run, Wanted(order="few")).order][0] == "a"
    apart = browse(run, Wanted(order="disagree")).order
    assert [disagreement(run.entries[i]) for i in apart] == sorted((disagreement(e) for e in run.entries), reverse=True)
    assert disagreement(run.entries[0]) == disagreement(run.entries[3]) == 0
    assert [run.entries[i].id for i in browse(run, Wanted(text="CORONAL mri")).order] == ["c"]
    assert browse(run, Wanted(text="nobody")).order == ()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x89PNG\r\n\x1a\n\xff", "not UTF-8"),
        (b"", "holds no case"),
        (b"not json\n{}\n", "Line 1"),
        (b"[1]\n", "Line 1"),
        (b"[" * 100_000 + b"\n{}\n", "Line 1"),
        (lines({"id": "a"}), "no captions"),
        (lines({"id": "a", "captions": {"A": 3}}), "no captions"),
        (lines({"id": 7, "captions": {}}), "no id"),
        (lines({"id": "a", "captions": {"A": "x" * 30_000}}), "no captions"),
        (lines(row("a", {}, references="text")), "references"),
        (lines(row("a", {}, facts=["CT"])), "facts"),
        (lines(row("a", {}, image=["x"])), "image"),
        (lines(row("a", {}, box=[0, 0, 2, 9])), "box"),
        (lines(ROWS[0], ROWS[0]), "repeats"),
        (lines(row("a", {str(i): "" for i in range(20)})), "systems"),
    ],
)
def test_a_bad_file_is_one_sentence(data, said):
    with pytest.raises(UserError, match=said) as raised:
        parse_run(data, "x")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 200


def test_a_visitor_file_has_limits(monkeypatch):
    monkeypatch.setattr(runs, "MOST_CASES", 3)
    with pytest.raises(UserError, match="more than 3 cases"):
        parse_run(lines(*ROWS), "x")
    monkeypatch.setattr(runs, "MOST_BYTES", 100)
    with pytest.raises(UserError, match="larger than"):
        parse_run(lines(*ROWS), "x")


def test_a_last_line_half_written_is_left_out():
    assert len(parse_run(lines(*ROWS)[:-40], "x").entries) == 4


@pytest.fixture
def folder(tmp_path):
    """A data set's folder with one picture, one picture and a link beside it, outside of it."""
    inside = tmp_path / "data"
    inside.mkdir()
    for file in (inside / "a.png", tmp_path / "secret.png"):
        Image.linear_gradient("L").resize((8, 8)).save(file)
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    return inside


def entry(**more):
    return parse_run(lines(row("a", {"A": TRUE}, **more)), "x").entries[0]


def test_pictures_come_from_the_owners_folder(folder):
    pictures = Pictures({"made": folder})
    assert open_scan(pictures.read(entry())).picture().shape == (8, 8, 3)
    assert open_scan(pictures.read(entry(box=[0, 0, 0.5, 1]))).picture().shape == (8, 4, 3)


@pytest.mark.parametrize("image", ["../secret.png", "link.png", "{outside}", "none.png", ".", "", None, "a\0.png", "x" * 5000])
def test_nothing_outside_of_it_is_opened(folder, image):
    asked = image and image.replace("{outside}", str(folder.parent / "secret.png"))
    with pytest.raises(ScanError, match="not on this server"):
        Pictures({"made": folder}).read(entry(image=asked))
    with pytest.raises(ScanError, match="not on this server"):
        Pictures({"other": folder}).read(entry())


def test_runs_are_found_and_opened(tmp_path, folder):
    out = tmp_path / "out"
    (out / "dev").mkdir(parents=True)
    (out / "dev" / "made-dev.jsonl").write_bytes(lines({"made_with": {}}, *[{**r, "source": ""} for r in ROWS]))
    (out / "dev" / "made-dev.rank1.jsonl").write_bytes(lines({"made_with": {}}))
    assert list(find_runs(out)) == ["dev/made-dev"]
    shelf = library(out, {"made": folder})
    assert shelf.names == ["dev/made-dev"]
    opened = shelf.run("dev/made-dev", None)
    assert len(opened.entries) == 5 and open_scan(shelf.picture("dev/made-dev", opened.entries[0]))
    with pytest.raises(UserError, match="no longer open"):
        shelf.run(OWN, None)


def test_a_folder_without_runs_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no captions file"):
        find_runs(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        find_runs(tmp_path / "none")


def test_the_shipped_run_has_its_scans():
    run = read_run(shipped_run.SHIPPED, "shipped")
    assert len(run.entries) >= 50 and run.systems == ("MSMedCap", "BLIP2", "SAM-BLIP2")
    scan = open_scan(shipped_run.shipped_picture(run.entries[0]))
    assert scan.kind == "DICOM" and scan.facts["Modality"] == "CT"
    assert shipped_run.phantom_scan(0)[1] == run.entries[0].references[0]
    with pytest.raises(ScanError):
        shipped_run.shipped_picture(entry())


def test_the_shipped_run_can_be_made_again(tmp_path, monkeypatch):
    two = shipped_run.combinations()[:2]
    monkeypatch.setattr(shipped_run, "combinations", lambda: two)
    monkeypatch.setattr(shipped_run, "folder_of", lambda models: tmp_path)
    file = tmp_path / "made" / "run.jsonl"
    shipped_run.write_shipped_run(FakePredictor(), file)
    run = read_run(file, "run")
    assert [e.id for e in run.entries] == ["phantom-0", "phantom-1"] and "mean grey" in run.entries[0].captions["BLIP2"]


def test_words_are_escaped_and_facts_marked(run):
    html = case_cards.marked_caption((TRUE,), "Axial CT of the chest. Mass <b>.")
    assert "<b>" not in html and "&lt;b&gt;" in html
    assert '<mark class="mm-yes">CT<span' in html and '<mark class="mm-no">Mass<span' in html and "not said: nodule" in html
    bad = parse_run(lines(row("<i>", {"<u>": "<s>"}, source="<q>", references=["<em>"])), "<h1>")
    page = case_cards.case_table(bad, [0], page=0, pages=2, pictures={0: ""})
    page += case_cards.case_panel(Chosen("<h1>", bad.entries[0]), None)
    assert not any(tag in page for tag in ("<i>", "<u>", "<s>", "<q>", "<em>", "<h1>"))


def test_another_scan_closes_the_case_and_another_window_does_not(run, ct_file):
    session = Session(FakePredictor())
    session.open(ct_file.read_bytes())
    session.case = Chosen("made", run.entries[0])
    session.open(session.scan, window="lung")
    assert session.case is not None
    with pytest.raises(ScanError):
        session.open(b"not a scan")
    assert session.case is not None
    session.open(ct_file.read_bytes())
    assert session.case is None


def test_ids_are_read_from_a_line():
    assert _ids(" a, b;c  a") == ("a", "b", "c")
    for text in ("", " ,; ", " ".join(map(str, range(13)))):
        with pytest.raises(UserError):
            _ids(text)
