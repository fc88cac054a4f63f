"""What a study's owner asks of the server: the results as HTML with charts inside, and the files.

Comes in: requests ``{"do": ..., "token": ...}`` of a browser. Goes out: answers as dicts. Only the owner's secret opens them: a
reader's does not, nor does an account of the page. Files are made when they are asked for and never lie on the server's disk.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from typing import Any

from msmedcap.config import UserError
from msmedcap.demo.review import exports, tables
from msmedcap.demo.review.door import STRANGE, Door, Told
from msmedcap.demo.review.rated import Rated, read_rated
from msmedcap.demo.review.results import results
from msmedcap.demo.store import ReviewStore, Row
from msmedcap.evaluation.reader_charts import charts

ZIP = "study.zip"
_TITLES = {
    "preference": "How often each caption was preferred",
    "strength": "Bradley–Terry log-strengths",
    "scales": "Accuracy, completeness, clarity",
    "errors": "Errors a caption, by category",
}


class Ledger:
    """Answers owners from ``store``; one a server."""

    def __init__(self, store: ReviewStore) -> None:
        self._store = store
        self._door = Door(store, owner=True, doing="counting the study")

    def answer(self, asked: Any) -> Told:
        """The answer to one request, whatever it is."""
        return self._door.answer(asked, self._opened)

    def _opened(self, do: str, login: Row, asked: Mapping[str, Any]) -> Told:
        key = next(row["key"] for row in self._store.studies() if row["id"] == login["study_id"])
        rated = read_rated(self._store, key)
        if do == "results":
            return {"html": _html(rated)}
        if do == "export":
            return _file(rated, str(asked.get("file")))
        raise UserError(STRANGE)


def _file(rated: Rated, name: str) -> Told:
    if name == ZIP:
        data, kind = exports.study_zip(rated), "application/zip"
    elif name in exports.FILES:
        data, kind = exports.FILES[name](rated).encode(), "text/plain;charset=utf-8"
    else:
        raise UserError("There is no such file of a study.")
    return {"name": f"{rated.study['key']}-{name}", "type": kind, "data": base64.b64encode(data).decode()}


def _html(rated: Rated) -> str:
    document = results(rated)
    drawn = charts(document)
    parts = [f'<header class="mm-owner-head"><h3>{escape(document["study"]["title"])}</h3>{_buttons()}</header>']
    part, number = "", 0
    for table in tables.tables(document):
        if table.part != part:
            part = table.part
            parts.append(f"<h3>{escape(part)}</h3>")
            if stage := [name for name in drawn if name.startswith(f"stage{number}-")]:
                parts.append(_figures({name: drawn[name] for name in stage}))
            number += 1
        parts.append(tables.html(table))
    return "".join(parts)


def _buttons() -> str:
    files = [ZIP, *exports.FILES]
    named = {ZIP: "All blinded files (ZIP)", exports.KEY: "Unblinding key (CSV)"}
    buttons = "".join(
        f'<button type="button" data-do="export" data-file="{name}">{named.get(name, name)}</button>' for name in files
    )
    more = '<button type="button" data-do="again">Count again</button><button type="button" data-do="leave">Log out</button>'
    return f'<div class="mm-owner-files">{buttons}{more}</div>'


def _figures(drawn: Mapping[str, str]) -> str:
    figures = (
        f"<figure><figcaption>{_TITLES[name.partition('-')[2]]}</figcaption>"
        f'<img alt="{_TITLES[name.partition("-")[2]]}; the numbers are in the tables below" src="{_uri(svg)}"></figure>'
        for name, svg in drawn.items()
    )
    return f'<div class="mm-owner-charts">{"".join(figures)}</div>'


def _uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
