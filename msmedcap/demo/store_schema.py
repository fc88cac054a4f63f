"""The tables of the reader studies, for SQLite and PostgreSQL alike.

A study holds all that reviewing needs, so that it needs no models and no scan folder: a de-identified picture of every case as the
models saw it (a PNG and its hash), the captions, and for a second stage one map for each of them. Visits and ratings are only
ever added, and what an answer means (systems, cases, captions, the letters of a showing) stays as it was: the database itself
refuses to change, replace or delete a row of these tables.
"""

from __future__ import annotations

import sqlalchemy as sa

METADATA = sa.MetaData()


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.Integer, primary_key=True)


def _to(table: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(f"{table}_id", sa.ForeignKey(f"{table}.id"), nullable=nullable, index=True)


STUDY = sa.Table(
    "study",
    METADATA,
    _id(),
    sa.Column("key", sa.String(32), nullable=False, unique=True),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("instructions", sa.Text, nullable=False),
    sa.Column("created", sa.String(32), nullable=False),
    sa.Column("owner_hash", sa.Text, nullable=False),
    sa.Column("seed", sa.Text, nullable=False),  # larger than an integer column
    sa.Column("repeats", sa.Float, nullable=False),
    sa.Column("second_stage", sa.Boolean, nullable=False),
    sa.Column("form_version", sa.Integer, nullable=False),
    sa.Column("made_with", sa.JSON, nullable=False),
)
SYSTEM = sa.Table(
    "system",
    METADATA,
    _id(),
    _to("study"),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
)
CASE = sa.Table(
    "study_case",
    METADATA,
    _id(),
    _to("study"),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("name", sa.Text, nullable=False),  # the owner's; never sent to a reader
    sa.Column("patient_group", sa.Text, nullable=False),
    sa.Column("facts", sa.Text, nullable=False),
    sa.Column("picture", sa.LargeBinary, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.UniqueConstraint("study_id", "number"),
)
CAPTION = sa.Table(
    "caption",
    METADATA,
    _id(),
    _to("study_case"),
    sa.Column("system", sa.Integer, nullable=False),  # its number in the study
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("map", sa.LargeBinary, nullable=True),
    sa.UniqueConstraint("study_case_id", "system"),
)
READER = sa.Table(
    "reader",
    METADATA,
    _id(),
    _to("study"),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("secret_hash", sa.Text, nullable=False),
    sa.UniqueConstraint("study_id", "name"),
    sa.UniqueConstraint("study_id", "number"),
)
LOGIN = sa.Table(
    "login",
    METADATA,
    _id(),
    _to("study"),
    _to("reader", nullable=True),  # none: the study's owner
    sa.Column("token_hash", sa.String(64), nullable=False, unique=True),
    sa.Column("until", sa.Float, nullable=False),  # seconds since 1970
)
ASSIGNMENT = sa.Table(
    "assignment",
    METADATA,
    _id(),
    _to("reader"),
    _to("study_case"),
    sa.Column("key", sa.String(32), nullable=False, unique=True),
    sa.Column("place", sa.Integer, nullable=False),
    sa.Column("stage", sa.Integer, nullable=False),
    sa.Column("repeats", sa.Integer, nullable=True),
    sa.Column("letters", sa.JSON, nullable=False),  # the systems' numbers in the order of the letters
    sa.UniqueConstraint("reader_id", "place"),
)
VISIT = sa.Table(
    "visit",
    METADATA,
    _id(),
    _to("assignment"),
    sa.Column("key", sa.String(32), nullable=False, unique=True),
    sa.Column("opened", sa.Float, nullable=False),
)
RATING = sa.Table(
    "rating",
    METADATA,
    _id(),
    _to("assignment"),
    _to("visit"),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("supersedes", sa.ForeignKey("rating.id"), nullable=True),
    sa.Column("save_key", sa.String(64), nullable=False),
    sa.Column("saved", sa.String(32), nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("complete", sa.Boolean, nullable=False),
    sa.Column("answers", sa.JSON, nullable=False),
    sa.UniqueConstraint("assignment_id", "revision"),
    sa.UniqueConstraint("assignment_id", "save_key"),
)

_KEEP = "only ever added: what readers saw and said is never changed"
_KEPT = (SYSTEM, CASE, CAPTION, ASSIGNMENT, VISIT, RATING)


def _there(table: sa.Table) -> str:
    """SQL for: a row of ``table`` has a key of the NEW one (SQLite's REPLACE would delete it and fire no trigger for that)."""
    unique = [[column.name for column in key.columns] for key in table.constraints if isinstance(key, sa.UniqueConstraint)]
    keys = " OR ".join(f"({' AND '.join(f'{name} = NEW.{name}' for name in names)})" for names in (["id"], *sorted(unique)))
    return f"EXISTS (SELECT 1 FROM {table.name} WHERE {keys})"


for _table in _KEPT:
    for _verb, _when in (("UPDATE", ""), ("DELETE", ""), ("INSERT", f" WHEN {_there(_table)}")):
        _refusal = (
            f"CREATE TRIGGER IF NOT EXISTS {_table.name}_no_{_verb.lower()} BEFORE {_verb} ON {_table.name}{_when} "
            f"BEGIN SELECT RAISE(ABORT, '{_KEEP}'); END"
        )
        # Of the metadata, not of the table: a database that is older than a trigger gets it when it is opened.
        sa.event.listen(METADATA, "after_create", sa.DDL(_refusal).execute_if(dialect="sqlite"))
    _function = (
        f"CREATE OR REPLACE FUNCTION {_table.name}_kept() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_KEEP}'; END $$"
    )
    _refusal = (
        f"CREATE OR REPLACE TRIGGER {_table.name}_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON {_table.name} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {_table.name}_kept()"
    )
    for _statement in (_function, _refusal):
        sa.event.listen(_table, "after_create", sa.DDL(_statement).execute_if(dialect="postgresql"))
