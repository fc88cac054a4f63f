"""What a study's readers said survives the disk it was written on."""

from __future__ import annotations

import signal

import pytest
from review_study import Reader, made_study

from msmedcap.config import UserError
from msmedcap.demo.review.rated import read_rated
from msmedcap.demo.review.saving import DATABASE, saved, study_files
from msmedcap.demo.store import ReviewStore, database_file


@pytest.fixture(autouse=True)
def _same_signals():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def reviews(tmp_path):
    return f"sqlite:///{tmp_path / 'disk' / 'reviews.sqlite'}"


def rate(reviews: str) -> str:
    """A study of which one case is rated; its key."""
    store = ReviewStore(reviews)
    key = store.create(made_study(3).study)
    reader = Reader(store, key, "anna")
    case = reader.ask("case", place=reader.ask("home")["at"])
    assert "error" not in reader.save(case, {"confidence": 3})
    return key


def test_every_study_is_a_set_of_files_and_the_database_itself(reviews, tmp_path):
    (tmp_path / "disk").mkdir()
    key = rate(reviews)
    files = study_files(reviews)
    assert {f"{key}-{name}" for name in ("long.csv", "wide.csv", "ratings.jsonl")} | {DATABASE} < set(files)
    assert '"confidence": 3' in files[f"{key}-ratings.jsonl"]


def test_saving_leaves_no_connection_open(reviews, tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    rate(reviews)
    closed = []
    monkeypatch.setattr(ReviewStore, "close", lambda self: closed.append(self))
    study_files(reviews)
    monkeypatch.setattr("msmedcap.demo.review.saving.read_rated", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        study_files(reviews)
    assert len(closed) == 2


def test_a_database_that_is_gone_comes_back_with_all_that_was_saved(reviews, tmp_path):
    (tmp_path / "disk").mkdir()
    target = str(tmp_path / "bucket")
    with saved(reviews, target, minutes=60):
        key = rate(reviews)
    for file in (tmp_path / "disk").iterdir():
        file.unlink()
    with saved(reviews, target, minutes=60):
        rows = read_rated(ReviewStore(reviews), key).rows
    assert [row["answers"] for row in rows] == [{"confidence": 3}]


def test_a_postgresql_address_has_no_file():
    assert database_file("postgresql://anna@localhost/reviews") is None
    with pytest.raises(UserError, match="sqlite:///FILE"):
        database_file("://reviews")
