"""The visitors of the load figures: their scans differ, a mixed-up answer is noticed, and a short run of the real page is clean."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import visitors
from benchmarks.visitor import Failed, Visitor
from benchmarks.visitors import Record, cases, report, run, visit
from msmedcap.data.scans import open_scan
from msmedcap.demo.page import build_page

sys.path.insert(0, str(Path(__file__).parents[1] / "demo"))
from fake import FakePredictor


@pytest.fixture(scope="module")
def address():
    import socket

    page = build_page(FakePredictor(slow=0.01))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    yield page.launch(host="127.0.0.1", port=port)
    page.blocks.close()


def test_every_visitor_has_a_scan_of_its_own():
    made = cases(20)
    pictures = [open_scan(case.data).picture() for case in made]
    assert len({picture.tobytes() for picture in pictures}) == 20
    assert {open_scan(case.data).kind for case in made} == {"DICOM", "PNG"}
    for case, picture in zip(made, pictures, strict=True):
        assert 0 < case.place[0] < picture.shape[1] and 0 < case.place[1] < picture.shape[0]


def test_a_visit_shows_the_scan_and_the_same_one_again_the_same(address):
    first, second = cases(2)
    record = Record()
    with Visitor(address) as visitor:
        one, again = visit(visitor, first, record), visit(visitor, first, record, again=True)
        other = visit(visitor, second, record)
    assert set(one) == {"picture", "captions", "map", "outlines"} and one == again
    assert all(one[what] != other[what] for what in ("picture", "captions", "map"))
    expected = FakePredictor().set_scan(first.data).captions()
    assert one["captions"] == expected
    times = {name: len(took) for name, took in record.seconds.items()}
    assert times == {"open": 2, "maps": 3, "captions": 3, "place": 3, "segment": 3}


def test_captions_that_are_stopped_are_not_compared(address, monkeypatch):
    record, (case,) = Record(), cases(1)
    monkeypatch.setattr(visitors, "_finished", lambda visitor: False)
    with Visitor(address) as visitor:
        assert "captions" not in visit(visitor, case, record, stop=True)
    assert record.counts["stopped"] == 1


def test_what_the_page_refuses_is_a_failure(address):
    with Visitor(address) as visitor, pytest.raises(Failed, match="not a picture"):
        visitor.open(b"dear doctor")


def test_another_scans_answer_is_noticed():
    record = Record()
    record.check("captions", {"MSMedCap": "A chest."}, {"MSMedCap": "A chest."}, number=1)
    record.check("captions", {"MSMedCap": "A head."}, {"MSMedCap": "A chest."}, number=2)
    assert record.counts["checked"] == 2 and len(record.mixed) == 1 and "visitor 2" in record.mixed[0]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_short_run_is_clean():
    record, after = run(visitors=3, seconds=15, say=lambda text: None)
    said = report(record, after, visitors=3, seconds=15)
    assert not record.errors and not record.mixed and not after["files"] and not after["log"], said
    assert record.counts["rounds"] >= 3 and after["different"] == 3 and after["health"]["queue"] == 0
    assert "| captions |" in said and "0 errors, 0 of" in said
