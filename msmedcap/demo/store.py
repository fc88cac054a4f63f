"""The reader studies in a database: SQLite in one file by default, PostgreSQL by address.

Comes in: a study to keep, logins, visits, answers. Goes out: what a reader is to see, and every answer ever saved. A save is
acknowledged only once it is on the disk (SQLite: write-ahead log, synchronous FULL), and it adds a row: the one before is
superseded, never changed. Saving the same thing twice (the answer to the first was lost on the way) adds one row. SQLAlchemy Core.

    store = ReviewStore("sqlite:///reviews.sqlite")        # or postgresql://user@host/database
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa

from msmedcap.config import UserError
from msmedcap.demo import store_schema as t
from msmedcap.demo.review.design import Slot

Row: TypeAlias = sa.RowMapping

BUSY_MILLISECONDS = 20_000


@dataclass(frozen=True)
class NewCase:
    """A case: ``picture`` is a PNG of ``width`` x ``height`` without metadata; captions, and maps (PNGs), by system.

    ``name`` and ``group`` (the patient's, so far as known) are for the owner alone; ``facts`` is shown to the readers.
    """

    name: str
    picture: bytes
    width: int
    height: int
    captions: Mapping[str, str]
    maps: Mapping[str, bytes] = field(default_factory=dict)
    group: str = ""
    facts: str = ""


@dataclass(frozen=True)
class NewReader:
    """A reader: the login name, the hash of the secret, and what to see in which order."""

    name: str
    secret_hash: str
    slots: Sequence[Slot]


@dataclass(frozen=True)
class NewStudy:
    """A study to keep; ``made_with`` says, for the owner, which weights and settings wrote the captions."""

    title: str
    systems: tuple[str, ...]
    cases: Sequence[NewCase]
    readers: Sequence[NewReader]
    owner_hash: str
    seed: int
    repeats: float
    second_stage: bool
    form_version: int
    instructions: str = ""
    made_with: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Saved:
    """What is on the disk: the number of the row for this showing of the case, and when it was written (UTC)."""

    revision: int
    saved: str
    complete: bool


class ReviewStore:
    """The database at ``url``; makes its tables where there are none. Safe to use from several threads and processes."""

    def __init__(self, url: str) -> None:
        """Raises :class:`UserError` where the address is wrong or the database does not answer."""
        try:
            self._engine = _engine(url)
            t.METADATA.create_all(self._engine)
        except (sa.exc.SQLAlchemyError, ImportError) as error:
            said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise UserError(
                f"The reviews' database cannot be opened ({said}); give sqlite:///FILE or postgresql://USER@HOST/NAME."
            ) from None

    def close(self) -> None:
        """Let go of the connections."""
        self._engine.dispose()

    def create(self, study: NewStudy) -> str:
        """Keep ``study``, all of it or nothing; returns its key."""
        key = secrets.token_hex(4)
        whole = {name: getattr(study, name) for name in _OF_STUDY}
        whole |= {"created": _now(), "seed": str(study.seed), "made_with": dict(study.made_with)}
        with self._write() as db:
            number = _insert(db, t.STUDY, key=key, **whole)
            for i, name in enumerate(study.systems):
                _insert(db, t.SYSTEM, study_id=number, number=i, name=name)
            cases = [_insert_case(db, number, i, case, study.systems) for i, case in enumerate(study.cases)]
            for i, reader in enumerate(study.readers):
                _insert_reader(db, number, i, reader, cases)
        return key

    def add_reader(self, study: int, reader: NewReader) -> None:
        """Let one more read; ``reader`` sees what its slots say. Raises :class:`UserError` where the name is taken."""
        with self._write() as db:
            names = db.execute(sa.select(t.READER.c.name).where(t.READER.c.study_id == study)).scalars().all()
            if reader.name in names:
                raise UserError(f"The study has a reader {reader.name} already; choose another name.")
            of_study = t.CASE.c.study_id == study
            cases = db.execute(sa.select(t.CASE.c.id).where(of_study).order_by(t.CASE.c.number)).scalars().all()
            _insert_reader(db, study, len(names), reader, cases)

    def studies(self) -> Sequence[Row]:
        """All studies, the newest first."""
        return self._all(sa.select(t.STUDY).order_by(t.STUDY.c.id.desc()))

    def study(self, key: str) -> Row:
        """A study by its key; raises :class:`UserError` where there is none."""
        found = self._all(sa.select(t.STUDY).where(t.STUDY.c.key == key))
        if not found:
            raise UserError(f"There is no study {key!r}; the study command lists those there are.")
        return found[0]

    def systems(self, study: int) -> list[str]:
        """The systems' names by their number in the study."""
        named = sa.select(t.SYSTEM.c.name).where(t.SYSTEM.c.study_id == study).order_by(t.SYSTEM.c.number)
        return [row["name"] for row in self._all(named)]

    def readers(self, study: int) -> Sequence[Row]:
        """The readers, in the order of their numbers."""
        return self._all(sa.select(t.READER).where(t.READER.c.study_id == study).order_by(t.READER.c.number))

    def cases(self, study: int) -> Sequence[Row]:
        """The cases without their pictures: id, number, name, patient_group, sha256."""
        columns = (t.CASE.c.id, t.CASE.c.number, t.CASE.c.name, t.CASE.c.patient_group, t.CASE.c.sha256)
        return self._all(sa.select(*columns).where(t.CASE.c.study_id == study).order_by(t.CASE.c.number))

    def captions(self, study: int) -> dict[tuple[int, int], str]:
        """Every caption by (case number, system number)."""
        joined = sa.select(t.CASE.c.number, t.CAPTION.c.system, t.CAPTION.c.text).join_from(t.CAPTION, t.CASE)
        found = self._all(joined.where(t.CASE.c.study_id == study))
        return {(row["number"], row["system"]): row["text"] for row in found}

    def add_login(self, token: str, *, study: int, reader: int | None, seconds: float) -> None:
        """Keep the hash of a login's ``token``; ``reader`` None is the owner."""
        now = time.time()
        with self._write() as db:
            db.execute(sa.delete(t.LOGIN).where(t.LOGIN.c.until < now))
            _insert(db, t.LOGIN, study_id=study, reader_id=reader, token_hash=_digest(token), until=now + seconds)

    def login(self, token: str) -> Row | None:
        """Who ``token`` is: study_id and reader_id; None where it is unknown, over or taken back."""
        valid = (t.LOGIN.c.token_hash == _digest(token)) & (t.LOGIN.c.until > time.time())
        found = self._all(sa.select(t.LOGIN).where(valid))
        return found[0] if found else None

    def drop_login(self, token: str) -> None:
        """Forget a login."""
        with self._write() as db:
            db.execute(sa.delete(t.LOGIN).where(t.LOGIN.c.token_hash == _digest(token)))

    def showings(self, reader: int) -> Sequence[Row]:
        """What ``reader`` sees, in order: the assignment's columns, ``complete`` (None: nothing saved) and ``visited``."""
        visited = sa.exists().where(t.VISIT.c.assignment_id == t.ASSIGNMENT.c.id).label("visited")
        chosen = sa.select(t.ASSIGNMENT, t.RATING.c.complete, visited).join_from(
            t.ASSIGNMENT, t.RATING, (t.RATING.c.assignment_id == t.ASSIGNMENT.c.id) & _is_latest(), isouter=True
        )
        return self._all(chosen.where(t.ASSIGNMENT.c.reader_id == reader).order_by(t.ASSIGNMENT.c.place))

    def case(self, case: int) -> Row:
        """A case with its picture, by its id."""
        return self._all(sa.select(t.CASE).where(t.CASE.c.id == case))[0]

    def case_captions(self, case: int) -> dict[int, Row]:
        """text and map of every caption of a case, by system number."""
        return {row["system"]: row for row in self._all(sa.select(t.CAPTION).where(t.CAPTION.c.study_case_id == case))}

    def latest(self, assignment: int) -> Row | None:
        """The row that counts for a showing; None where nothing was saved."""
        rows = self._all(sa.select(t.RATING).where((t.RATING.c.assignment_id == assignment) & _is_latest()))
        return rows[0] if rows else None

    def visit(self, assignment: int) -> str:
        """Note that a showing was opened; returns the visit's key."""
        key = secrets.token_hex(8)
        with self._write() as db:
            _insert(db, t.VISIT, assignment_id=assignment, key=key, opened=time.time())
        return key

    def save(
        self, assignment: int, visit: str, answers: Mapping[str, Any], *, seconds: float, complete: bool, save_key: str
    ) -> Saved:
        """Add a row of answers and return once it is on the disk; the same ``save_key`` again adds nothing.

        ``seconds`` the reader spent in this visit so far; never more than passed since it began. Raises :class:`UserError`
        where the visit is not one of the showing.
        """
        row = {"answers": dict(answers), "complete": complete, "save_key": save_key, "assignment_id": assignment}
        with self._write() as db:
            return _add_rating(db, assignment, visit, row, seconds)

    def ratings(self, study: int) -> Sequence[Row]:
        """Every row ever saved in a study, oldest first, with ``latest``, the reader's name, and of which showing it is."""
        a, r = t.ASSIGNMENT.c, t.RATING.c
        of_row = (
            r.id,
            r.assignment_id,
            r.visit_id,
            r.revision,
            r.supersedes,
            r.saved,
            r.seconds,
            r.complete,
            r.answers,
        )
        of_showing = (a.place, a.stage, a.repeats, a.letters, t.CASE.c.number.label("case_number"))
        columns = (*of_row, *of_showing, _is_latest().label("latest"), t.READER.c.name.label("reader"))
        joined = sa.select(*columns).select_from(t.RATING).join(t.ASSIGNMENT).join(t.READER).join(t.CASE)
        return self._all(joined.where(t.READER.c.study_id == study).order_by(r.id))

    def _all(self, statement: sa.Select[Any]) -> Sequence[Row]:
        with self._engine.connect() as db:
            return db.execute(statement).mappings().all()

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        """A transaction that is on the disk when the block has ended, or has changed nothing."""
        with self._engine.connect().execution_options(writes=True) as db, db.begin():
            yield db


_OF_STUDY = ("title", "instructions", "owner_hash", "repeats", "second_stage", "form_version")


def database_file(reviews: str) -> Path | None:
    """The file of a SQLite address; None for another database. Raises :class:`UserError` for what is no address."""
    try:
        url = sa.make_url(reviews if "://" in reviews else f"sqlite:///{reviews}")
    except sa.exc.ArgumentError:
        raise UserError(f"{reviews} is no database address; give sqlite:///FILE or postgresql://…") from None
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def _engine(url: str) -> sa.Engine:
    made = sa.engine.make_url(url if "://" in url else f"sqlite:///{url}")
    if made.drivername in ("postgres", "postgresql"):
        made = made.set(drivername="postgresql+psycopg")
    if made.get_backend_name() not in ("sqlite", "postgresql"):
        raise UserError("The reviews' database is sqlite:///FILE or postgresql://USER@HOST/NAME.")
    if made.get_backend_name() == "postgresql":
        return sa.create_engine(made, pool_pre_ping=True)
    if made.database in (None, "", ":memory:"):
        raise UserError("The reviews' database needs a file, such as sqlite:///reviews.sqlite.")
    engine = sa.create_engine(made, connect_args={"timeout": BUSY_MILLISECONDS / 1000})
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where we say so, not where the driver thinks
    for setting in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_MILLISECONDS}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}").close()


def _begin(connection: sa.Connection) -> None:
    # A writer waits for its turn at once: a reader that turns writer half way cannot.
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _is_latest() -> sa.ColumnElement[bool]:
    """Whether no other row of the showing supersedes this one."""
    other = t.RATING.alias()
    return ~sa.exists().where(
        (other.c.assignment_id == t.RATING.c.assignment_id) & (other.c.revision > t.RATING.c.revision)
    )


def _insert(db: sa.Connection, table: sa.Table, **values: Any) -> int:
    key = db.execute(sa.insert(table).values(**values)).inserted_primary_key
    assert key is not None
    return int(key[0])


def _insert_case(db: sa.Connection, study: int, number: int, case: NewCase, systems: Sequence[str]) -> int:
    kept = {"name": case.name, "patient_group": case.group or case.name, "facts": case.facts, "picture": case.picture}
    size = {"width": case.width, "height": case.height, "sha256": hashlib.sha256(case.picture).hexdigest()}
    id_ = _insert(db, t.CASE, study_id=study, number=number, **kept, **size)
    for i, system in enumerate(systems):
        _insert(db, t.CAPTION, study_case_id=id_, system=i, text=case.captions[system], map=case.maps.get(system))
    return id_


def _insert_reader(db: sa.Connection, study: int, number: int, reader: NewReader, cases: Sequence[int]) -> None:
    id_ = _insert(db, t.READER, study_id=study, number=number, name=reader.name, secret_hash=reader.secret_hash)
    for slot in reader.slots:
        shown = {"place": slot.place, "stage": slot.stage, "repeats": slot.repeats, "letters": list(slot.order)}
        _insert(db, t.ASSIGNMENT, reader_id=id_, study_case_id=cases[slot.case], key=secrets.token_hex(8), **shown)


def _add_rating(db: sa.Connection, assignment: int, visit: str, row: Mapping[str, Any], seconds: float) -> Saved:
    r, v = t.RATING.c, t.VISIT.c
    of_showing = r.assignment_id == assignment
    # Who saves the same showing elsewhere is waited for: two must not take the same number. (SQLite lets one write at a time.)
    db.execute(sa.select(t.ASSIGNMENT.c.id).where(t.ASSIGNMENT.c.id == assignment).with_for_update())
    known = db.execute(sa.select(t.RATING).where(of_showing & (r.save_key == row["save_key"]))).mappings().first()
    if known is not None:
        return Saved(known["revision"], known["saved"], known["complete"])
    opened = db.execute(sa.select(t.VISIT).where((v.key == visit) & (v.assignment_id == assignment))).mappings().first()
    if opened is None:
        raise UserError("This case was not opened here; load the page again.")
    last = db.execute(sa.select(r.id, r.revision).where(of_showing).order_by(r.revision.desc())).first()
    revision, saved = (last.revision + 1 if last else 1), _now()
    spent = min(max(seconds, 0.0), max(time.time() - opened["opened"], 0.0))
    more = {"visit_id": opened["id"], "saved": saved, "seconds": round(spent, 2)}
    _insert(db, t.RATING, **row, **more, revision=revision, supersedes=last.id if last else None)
    return Saved(revision, saved, row["complete"])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
