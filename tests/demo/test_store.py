"""The reviews' database: rows are only added, what was acknowledged is there, two readers at once lose nothing."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from review_study import SYSTEMS, made_study

from msmedcap.config import UserError
from msmedcap.demo import store_schema
from msmedcap.demo.store import NewReader, ReviewStore


@pytest.fixture(scope="module")
def postgres():
    """The address of a PostgreSQL server of the test's own."""
    pytest.importorskip("psycopg", reason="PostgreSQL is tested with psycopg")
    pgserver = pytest.importorskip("pgserver", reason="PostgreSQL is tested where the pgserver package brings a server")
    with tempfile.TemporaryDirectory(prefix="reviews-") as folder:
        Path(folder).chmod(0o755)  # where tests run as root the server runs as another user
        for attempt in range(6):
            try:
                server = pgserver.get_server(Path(folder) / "data")
                break
            except subprocess.CalledProcessError as error:
                pytest.skip(f"PostgreSQL does not start here: {error}")
            except subprocess.TimeoutExpired:  # it gives a start ten seconds; on a busy machine the server is still coming up
                assert attempt < 5, "PostgreSQL took a minute and had not started"
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'reviews.sqlite'}"
    return request.getfixturevalue("postgres")


@pytest.fixture
def store(url):
    opened = ReviewStore(url)
    yield opened
    opened.close()


@pytest.fixture
def study(store):
    return store.study(store.create(made_study().study))


@pytest.fixture
def showing(store, study):
    return store.showings(store.readers(study["id"])[0]["id"])[0]


def save(store, showing, visit, number, **more):
    given = {"seconds": 0.0, "complete": False, "save_key": f"save-{number}", **more}
    return store.save(showing["id"], visit, {"confidence": number}, **given)


def test_a_study_comes_back_as_it_was_kept(store, study):
    assert study["title"] == "Chest films, spring" and int(study["seed"]) == 11
    assert store.systems(study["id"]) == list(SYSTEMS)
    assert [row["name"] for row in store.readers(study["id"])] == ["anna", "ben"]
    cases = store.cases(study["id"])
    assert [row["name"] for row in cases] == [f"PATIENT-{i}.dcm" for i in range(6)]
    case = store.case(cases[2]["id"])
    assert case["picture"][:4] == b"\x89PNG" and (case["width"], case["height"]) == (64, 48)
    made = made_study().study
    assert case["picture"] == made.cases[2].picture
    assert store.captions(study["id"])[2, 1] == made.cases[2].captions["BLIP2"]
    shown = store.showings(store.readers(study["id"])[1]["id"])
    slots = [(slot.place, slot.stage, list(slot.order), slot.repeats) for slot in made.readers[1].slots]
    assert [(row["place"], row["stage"], row["letters"], row["repeats"]) for row in shown] == slots
    assert [row["complete"] for row in shown] == [None] * len(slots) and not any(row["visited"] for row in shown)


def test_every_save_is_a_row_and_the_last_counts(store, study, showing):
    visit = store.visit(showing["id"])
    saved = [save(store, showing, visit, number, complete=number == 2) for number in (1, 2, 3)]
    assert [one.revision for one in saved] == [1, 2, 3]
    rows = store.ratings(study["id"])
    assert [row["answers"]["confidence"] for row in rows] == [1, 2, 3]
    assert [row["latest"] for row in rows] == [False, False, True]
    assert [row["supersedes"] for row in rows] == [None, rows[0]["id"], rows[1]["id"]]
    assert store.latest(showing["id"])["answers"] == {"confidence": 3}
    assert store.showings(store.readers(study["id"])[0]["id"])[0]["complete"] is False


def test_a_save_that_is_sent_twice_is_one_row(store, study, showing):
    visit = store.visit(showing["id"])
    first = save(store, showing, visit, 1)
    save(store, showing, visit, 2)
    assert save(store, showing, visit, 1) == first
    assert len(store.ratings(study["id"])) == 2 and store.latest(showing["id"])["answers"] == {"confidence": 2}


@pytest.mark.parametrize("table", ["rating", "visit", "assignment", "caption", "study_case", "system"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET id = id + 100"])
def test_the_database_itself_keeps_what_was_saved(url, store, study, showing, table, statement):
    save(store, showing, store.visit(showing["id"]), 1)
    other = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with pytest.raises(sa.exc.SQLAlchemyError, match="only ever added"), other.begin() as db:
        db.execute(sa.text(statement.format(table)))
    other.dispose()
    assert len(store.ratings(study["id"])) == 1


REPLACED = {
    "the same row": "SELECT id, assignment_id, visit_id, 1, supersedes, save_key, saved, 0, 0, '{}' FROM rating",
    "the same revision": "SELECT NULL, assignment_id, visit_id, 1, NULL, 'other', saved, 0, 0, '{}' FROM rating",
    "the same save": "SELECT NULL, assignment_id, visit_id, 9, NULL, save_key, saved, 0, 0, '{}' FROM rating",
}


@pytest.mark.parametrize("rows", REPLACED.values(), ids=REPLACED)
def test_sqlite_replaces_nothing_that_was_saved(tmp_path, rows):
    file = tmp_path / "reviews.sqlite"
    store = ReviewStore(f"sqlite:///{file}")
    study = store.study(store.create(made_study().study))
    shown = store.showings(store.readers(study["id"])[0]["id"])[0]
    save(store, shown, store.visit(shown["id"]), 1)
    columns = "id, assignment_id, visit_id, revision, supersedes, save_key, saved, seconds, complete, answers"
    with sqlite3.connect(file) as db, pytest.raises(sqlite3.IntegrityError, match="only ever added"):
        db.execute(f"INSERT OR REPLACE INTO rating ({columns}) {rows}")
    assert [row["answers"] for row in store.ratings(study["id"])] == [{"confidence": 1}]
    store.close()


def test_a_database_older_than_a_trigger_gets_it(tmp_path):
    file = tmp_path / "reviews.sqlite"
    ReviewStore(f"sqlite:///{file}").close()
    with sqlite3.connect(file) as db:
        db.execute("DROP TRIGGER assignment_no_update")
    ReviewStore(f"sqlite:///{file}").close()
    with sqlite3.connect(file) as db:
        made = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")}
    assert {"assignment_no_update", "caption_no_update", "rating_no_insert"} <= made


def test_the_time_on_a_case_is_never_longer_than_the_visit(store, study, showing):
    visit = store.visit(showing["id"])
    save(store, showing, visit, 1, seconds=3600.0)
    save(store, showing, visit, 2, seconds=-5.0)
    save(store, showing, visit, 3, seconds=0.001)
    seconds = [row["seconds"] for row in store.ratings(study["id"])]
    assert 0 <= seconds[0] < 60 and seconds[1] == 0 and seconds[2] <= 0.01


def test_a_visit_of_another_case_is_refused(store, study):
    first, second = store.showings(store.readers(study["id"])[0]["id"])[:2]
    with pytest.raises(UserError, match="not opened here"):
        save(store, second, store.visit(first["id"]), 1)
    assert not store.ratings(study["id"])


def test_a_study_is_kept_whole_or_not_at_all(store):
    study = made_study().study
    broken = NewReader("cy", "hash", [*study.readers[0].slots, study.readers[0].slots[0]])  # two cases in one place
    before = len(store.studies())
    with pytest.raises(sa.exc.IntegrityError):
        store.create(type(study)(**{**study.__dict__, "readers": [broken]}))
    assert len(store.studies()) == before


def test_one_more_reader(store, study):
    slots = made_study().study.readers[0].slots
    store.add_reader(study["id"], NewReader("cy", "hash", slots))
    cy = store.readers(study["id"])[2]
    assert (cy["name"], cy["number"]) == ("cy", 2) and len(store.showings(cy["id"])) == len(slots)
    with pytest.raises(UserError, match="already"):
        store.add_reader(study["id"], NewReader("cy", "hash", slots))


def test_logins_end(store, study):
    store.add_login("token", study=study["id"], reader=None, seconds=60)
    store.add_login("late", study=study["id"], reader=None, seconds=-1)
    assert store.login("token")["study_id"] == study["id"] and store.login("late") is None and store.login("") is None
    store.drop_login("token")
    assert store.login("token") is None


def test_the_token_itself_is_not_kept(store, study):
    store.add_login("very-secret-token", study=study["id"], reader=None, seconds=60)
    kept = store._all(sa.select(store_schema.LOGIN))
    assert not any("very-secret-token" in str(value) for row in kept for value in row.values())


def test_two_readers_at_once_lose_nothing(url, store, study):
    """Each through a connection pool of its own, as two servers would; one of them saves the same case from many tabs."""
    one, other = (store.showings(reader["id"])[0] for reader in store.readers(study["id"])[:2])
    showings = [one, *[other] * 6]
    told: list[list[int]] = [[] for _ in showings]

    def rate(number: int) -> None:
        mine = ReviewStore(url)
        visit = mine.visit(showings[number]["id"])
        for i in range(25):
            told[number].append(save(mine, showings[number], visit, f"{number}-{i}").revision)
        mine.close()

    threads = [threading.Thread(target=rate, args=(number,)) for number in range(len(showings))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told[0] == list(range(1, 26))
    assert all(numbers == sorted(numbers) for numbers in told)
    assert sorted(sum(told[1:], [])) == list(range(1, 151))
    rows = store.ratings(study["id"])
    assert len(rows) == 175 and sum(row["latest"] for row in rows) == 2


def test_a_save_waits_for_the_disk(tmp_path):
    store = ReviewStore(f"sqlite:///{tmp_path / 'reviews.sqlite'}")
    with store._engine.connect() as db:
        asked = [
            db.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
        assert asked == ["wal", 2, 1]
        assert db.exec_driver_sql("PRAGMA busy_timeout").scalar() >= 10_000
    store.close()


def test_a_plain_path_is_a_file(tmp_path):
    ReviewStore(str(tmp_path / "plain.sqlite")).close()
    with sqlite3.connect(tmp_path / "plain.sqlite") as db:
        assert db.execute("SELECT count(*) FROM rating").fetchone() == (0,)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("mysql://somewhere/reviews", "sqlite:///FILE or postgresql"),
        ("sqlite://", "needs a file"),
        ("sqlite:////nowhere/at/all/reviews.sqlite", "cannot be opened"),
        ("postgresql://nobody@127.0.0.1:1/none", "cannot be opened"),
    ],
)
def test_a_wrong_address_is_said_in_a_sentence(address, said):
    with pytest.raises(UserError, match=said):
        ReviewStore(address)


def test_the_reviews_need_no_models():
    code = "import sys, msmedcap.demo.review.desk, msmedcap.demo.review.ledger; print('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
