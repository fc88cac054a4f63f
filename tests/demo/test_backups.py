"""Ratings reach the folder or the data set, whole, on time and at the end; a failure is survived and its words are not logged."""

from __future__ import annotations

import os
import sqlite3
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import EntryNotFoundError

from msmedcap.config import UserError
from msmedcap.demo.serving.backups import Backups, fetch, snapshot


class FakeApi:
    """What the hub was asked for: the data set's settings and the files of each commit."""

    def __init__(self, *, broken: int = 0, closed: bool = False) -> None:
        self.made: list[dict] = []
        self.commits: list[dict[str, str]] = []
        self._broken, self._closed = broken, closed

    def create_repo(self, **settings):
        if self._closed:
            raise PermissionError("hf_secret_token may not write")
        self.made.append(settings)
        return SimpleNamespace(repo_id=settings["repo_id"])

    def run_as_future(self, task):
        future: Future = Future()
        try:
            future.set_result(task())
        except Exception as error:
            future.set_exception(error)
        return future

    def hf_hub_download(self, repository, name, *, repo_type):
        assert (repository, repo_type) == ("anna/ratings", "dataset")
        if self._closed:
            raise PermissionError("hf_secret_token may not read")
        if self.saved is None:
            raise EntryNotFoundError("no such file")
        return str(self.saved / name)

    saved: Path | None = None

    def create_commit(self, *, repo_id, repo_type, operations, **more):
        if self._broken:
            self._broken -= 1
            raise ConnectionError("hf_secret_token at 10.0.0.1")
        self.commits.append({op.path_in_repo: op.path_or_fileobj.read().decode() for op in operations})


def _exports(*texts: str):
    """An export that gives each of ``texts`` in turn, then the last one for ever."""
    left = list(texts)
    return lambda: {"ratings.jsonl": left.pop(0) if len(left) > 1 else left[0]}


def _until(true) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def test_a_folder_gets_them_on_time_and_at_the_end(tmp_path):
    folder, now = tmp_path / "bucket" / "ratings", ["one\n"]
    with Backups(lambda: {"ratings.jsonl": now[0], "../evil": "x"}, str(folder), minutes=0.0005):
        _until(lambda: (folder / "ratings.jsonl").is_file())
        now[0] = "one\ntwo\n"
        _until(lambda: (folder / "ratings.jsonl").read_text() == "one\ntwo\n")
        now[0] = "one\ntwo\nthree\n"
    assert (folder / "ratings.jsonl").read_text() == "one\ntwo\nthree\n"
    assert sorted(path.name for path in folder.iterdir()) == ["evil", "ratings.jsonl"]
    assert not (tmp_path / "bucket" / "evil").exists()


def test_the_end_saves_what_no_turn_did(tmp_path):
    with Backups(_exports("last\n"), str(tmp_path), minutes=60):
        assert not (tmp_path / "ratings.jsonl").exists()
    assert (tmp_path / "ratings.jsonl").read_text() == "last\n"


def test_a_data_set_gets_whole_exports_and_no_empty_commits(monkeypatch):
    api = FakeApi()
    with Backups(_exports("one\n", "one\n", "one\ntwo\n"), "hub:anna/ratings", minutes=60, api=api) as backups:
        assert backups.save() and backups.save() and backups.save()
    (made,) = api.made
    assert made["repo_id"] == "anna/ratings" and made["repo_type"] == "dataset" and made["private"] is True
    assert api.commits == [{"ratings/ratings.jsonl": "one\n"}, {"ratings/ratings.jsonl": "one\ntwo\n"}]


def test_a_failure_is_tried_again_and_keeps_its_words(caplog):
    api = FakeApi(broken=1)
    with Backups(_exports("one\n"), "hub:anna/ratings", minutes=60, api=api) as backups:
        assert not backups.save()
        assert backups.save()
    assert api.commits == [{"ratings/ratings.jsonl": "one\n"}]
    assert [r.getMessage() for r in caplog.records if r.name == "msmedcap.demo.serving.backups"] == [
        "the backup failed; it is tried again"
    ]


def test_an_export_that_fails_does_not_end_the_study(tmp_path):
    def export():
        raise OSError("the database is locked")

    with Backups(export, str(tmp_path), minutes=60) as backups:
        assert not backups.save()


@pytest.mark.parametrize(
    ("target", "api", "said"),
    [
        ("hub:ratings", FakeApi(), "hub:OWNER/NAME"),
        ("hub:anna/ratings", None, "HF_TOKEN"),
        ("hub:anna/ratings", FakeApi(closed=True), "cannot be opened"),
        ("/proc/nowhere", None, "another folder"),
    ],
)
def test_what_cannot_be_is_one_sentence(target, api, said, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UserError, match=said) as raised:
        Backups(_exports(""), target, api=api)
    assert "secret" not in str(raised.value).replace("the secret HF_TOKEN", "") and "\n" not in str(raised.value)


def test_minutes_must_be(tmp_path):
    with pytest.raises(UserError, match="minutes"):
        Backups(_exports(""), str(tmp_path), minutes=0)


def test_nothing_half_written_is_left(tmp_path):
    with Backups(_exports("x" * 100_000), str(tmp_path), minutes=60) as backups:
        backups.save()
        before = (tmp_path / "ratings.jsonl").stat().st_mtime_ns
        backups.save()
        assert (tmp_path / "ratings.jsonl").stat().st_mtime_ns == before
    assert [Path(name).suffix for name in os.listdir(tmp_path)] == [".jsonl"]


def _database(file: Path, *rows: int) -> None:
    with sqlite3.connect(file) as base:
        base.execute("pragma journal_mode=wal")
        base.execute("create table if not exists t (x)")
        base.executemany("insert into t values (?)", [(row,) for row in rows])
    base.close()


def _rows(file: Path) -> list[int]:
    base = sqlite3.connect(file)
    try:
        return [row for (row,) in base.execute("select x from t order by x")]
    finally:
        base.close()


def test_a_database_goes_and_comes_back_after_a_restart(tmp_path):
    here, bucket = tmp_path / "disk" / "reviews.sqlite", tmp_path / "bucket"
    here.parent.mkdir()
    _database(here, 1, 2)
    writer = sqlite3.connect(here)  # a row is being written while it is saved: it is not in, and does no harm
    writer.execute("insert into t values (3)")
    with Backups(lambda: {"reviews.sqlite": snapshot(here)}, str(bucket), minutes=60) as backups:
        assert backups.save()
    writer.rollback()
    writer.close()
    assert not fetch(str(bucket), "reviews.sqlite", here)  # the one that is there counts
    new = tmp_path / "new disk" / "reviews.sqlite"
    assert fetch(str(bucket), "reviews.sqlite", new) and _rows(new) == [1, 2]


def test_a_database_comes_back_from_the_hub(tmp_path):
    api = FakeApi()
    assert not fetch("hub:anna/ratings", "reviews.sqlite", tmp_path / "new.sqlite", api=api)
    api.saved = tmp_path
    (tmp_path / "ratings").mkdir()
    _database(tmp_path / "ratings" / "reviews.sqlite", 7)
    assert fetch("hub:anna/ratings", "reviews.sqlite", tmp_path / "new.sqlite", api=api)
    assert _rows(tmp_path / "new.sqlite") == [7]


def test_what_may_be_there_but_cannot_be_read_stops_the_start(tmp_path):
    with pytest.raises(UserError, match="cannot be read") as raised:
        fetch("hub:anna/ratings", "reviews.sqlite", tmp_path / "new", api=FakeApi(closed=True))
    assert "secret" not in str(raised.value)
    assert not fetch(str(tmp_path / "nothing"), "reviews.sqlite", tmp_path / "new")
