"""A study's answers as files: CSV for statisticians, JSONL with every row ever saved, and the key that opens the letters, apart.

Comes in: a study's :class:`~msmedcap.demo.review.rated.Rated`. Goes out: the content of each file. All but the key are blinded:
they hold letters and numbers of cases, no system and no name of a case. So the analysis can be written before the key is opened.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from msmedcap.demo.review import forms
from msmedcap.demo.review.design import LETTERS
from msmedcap.demo.review.rated import Rated

KEY = "unblinding-key.csv"
_ABOUT = """{title}

long.csv       a line for each answer of each finished case
wide.csv       a line for each finished case of a reader
ratings.jsonl  every row ever saved, in order; "latest" are those that count, the others were superseded

stage 1: without maps; stage 2: with maps. place: the reader's n-th case, from 0. repeats: the place of the first showing
where the case was shown again. seconds: on the case, over all visits. Which system stood under which letter, and the cases'
names, are in unblinding-key.csv, by reader and place.
"""
_WHERE = ("reader", "place", "stage", "case", "repeats", "seconds", "revisions")


def long_csv(rated: Rated) -> str:
    """A line for each answer: where it was given, the letter (empty: of the whole case), the item, the value."""

    def lines() -> Iterator[Sequence[Any]]:
        for showing in rated.showings:
            where = [getattr(showing, name) for name in _WHERE]
            for key, value in sorted(showing.answers.items()):
                letter, dot, item = key.partition(".")
                yield [*where, letter if dot else "", item if dot else key, value]

    return _csv([*_WHERE, "letter", "item", "value"], lines())


def wide_csv(rated: Rated) -> str:
    """A line for each finished case of a reader, a column for each question."""
    letters = LETTERS[: len(rated.systems)]
    of_caption = [item.key for item in forms.OF_CAPTION] + forms.error_keys()
    keys = [item.key for item in forms.OF_CASE] + [f"{letter}.{key}" for letter in letters for key in of_caption]
    rows = (
        [*(getattr(showing, name) for name in _WHERE), *(showing.answers.get(key) for key in keys)]
        for showing in rated.showings
    )
    return _csv([*_WHERE, *keys], rows)


def ratings_jsonl(rated: Rated) -> str:
    """Every row ever saved, a JSON object each, superseded ones too."""
    names = (
        "id",
        "supersedes",
        "latest",
        "reader",
        "place",
        "stage",
        "repeats",
        "revision",
        "saved",
        "seconds",
        "complete",
    )
    lines = [
        json.dumps({**{name: row[name] for name in names}, "case": row["case_number"], "answers": row["answers"]})
        for row in rated.rows
    ]
    return "".join(f"{line}\n" for line in lines)


def key_csv(rated: Rated) -> str:
    """Which system stood under which letter for each row that was saved, and the case's name and caption."""
    names = {row["number"]: row["name"] for row in rated.cases}
    shown = {(row["reader"], row["place"]): (row["case_number"], row["letters"]) for row in rated.rows}
    rows = (
        [reader, place, case, names[case], letter, rated.systems[system], rated.captions[case, system]]
        for (reader, place), (case, order) in sorted(shown.items())
        for letter, system in zip(LETTERS, order, strict=False)
    )
    return _csv(["reader", "place", "case", "name", "letter", "system", "caption"], rows)


FILES: dict[str, Callable[[Rated], str]] = {
    "long.csv": long_csv,
    "wide.csv": wide_csv,
    "ratings.jsonl": ratings_jsonl,
    KEY: key_csv,
}


def study_zip(rated: Rated) -> bytes:
    """The blinded files together; the key is not among them."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.txt", _ABOUT.format(title=rated.study["title"]))
        for name, write in FILES.items():
            if name != KEY:
                archive.writestr(name, write(rated))
    return file.getvalue()


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return file.getvalue()


def _cell(value: Any) -> Any:
    """A value as a cell; a text that a spreadsheet would run as a formula is made plain text."""
    if isinstance(value, float):
        return round(value, 2)
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value
