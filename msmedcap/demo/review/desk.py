"""What a reader's browser asks of the server, and what it is told: plain JSON, nothing that tells the systems apart.

Comes in: requests that passed the :class:`~msmedcap.demo.review.door.Door`. Goes out: answers as dicts. An answer about a case
holds a picture, and under each letter a text and perhaps a map: no names, times, file names or numbers of systems or cases; the
key of a showing is random. A save is answered once it is on the disk.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

from msmedcap.config import UserError
from msmedcap.demo.review import forms
from msmedcap.demo.review.design import LETTERS
from msmedcap.demo.review.door import STRANGE, Door, Told
from msmedcap.demo.store import ReviewStore, Row


class Desk:
    """Answers readers from ``store``; one a server, shared by all of them."""

    def __init__(self, store: ReviewStore) -> None:
        self._store = store
        self._door = Door(store, owner=False, doing="answering the review")

    def answer(self, asked: Any) -> Told:
        """The answer to one request, whatever it is."""
        return self._door.answer(asked, self._reading)

    def _reading(self, do: str, login: Row, asked: Mapping[str, Any]) -> Told:
        reading = _Reading(self._store, login)
        if do == "home":
            return reading.home()
        if do == "case":
            return reading.case(asked.get("place"))
        if do == "save":
            return reading.save(asked)
        raise UserError(STRANGE)


class _Reading:
    """One request of a reader who is logged in."""

    def __init__(self, store: ReviewStore, login: Row) -> None:
        self._store, self._login = store, login
        self._showings = store.showings(login["reader_id"])
        self._letters = LETTERS[: len(self._showings[0]["letters"])]

    def home(self) -> Told:
        """What the reader needs once: the form, the instructions, where to go on."""
        study = next(row for row in self._store.studies() if row["id"] == self._login["study_id"])
        name = next(row["name"] for row in self._store.readers(study["id"]) if row["id"] == self._login["reader_id"])
        told = {"study": study["key"], "reader": name, "title": study["title"], "instructions": study["instructions"]}
        return {**told, "form": forms.form(self._letters), "at": self._next(), **self._progress()}

    def case(self, place: Any) -> Told:
        """A showing, opened; raises :class:`UserError` where it is not the reader's to open now."""
        row = self._open(lambda row: row["place"] == place)
        case, captions = self._store.case(row["study_case_id"]), self._store.case_captions(row["study_case_id"])
        shown = []
        for letter, system in zip(self._letters, row["letters"], strict=True):
            shown.append({"letter": letter, "text": captions[system]["text"]})
            if row["stage"] == 2 and captions[system]["map"]:
                shown[-1]["map"] = _uri(captions[system]["map"])
        latest, visit = self._store.latest(row["id"]), self._store.visit(row["id"])
        self._showings = self._store.showings(self._login["reader_id"])  # the visit may have closed the first part
        return {
            "case": row["key"],
            "place": row["place"],
            "stage": row["stage"],
            "visit": visit,
            "picture": _uri(case["picture"]),
            "width": case["width"],
            "height": case["height"],
            "facts": case["facts"],
            "captions": shown,
            "answers": latest["answers"] if latest else {},
            "complete": bool(latest and latest["complete"]),
            "saved": latest["saved"] if latest else None,
            **self._progress(),
        }

    def save(self, asked: Mapping[str, Any]) -> Told:
        """Keep the answers; ``complete`` asks for the case to be finished, which waits for what is still open."""
        row = self._open(lambda row: row["key"] == asked.get("case"))
        answers = forms.check(asked.get("answers") or {}, self._letters)
        missing = forms.missing(answers, self._letters)
        complete = bool(asked.get("complete")) and not missing
        if complete:
            answers = forms.completed(answers, self._letters)
        key, seconds = asked.get("save"), asked.get("seconds")
        if not (isinstance(key, str) and 8 <= len(key) <= 64) or not isinstance(seconds, (int, float)):
            raise UserError("The answers are not in the form's format; load the page again.")
        spent = float(seconds) if math.isfinite(seconds) else 0.0
        visit = str(asked.get("visit"))
        saved = self._store.save(row["id"], visit, answers, seconds=spent, complete=complete, save_key=key)
        self._showings = self._store.showings(self._login["reader_id"])
        told = {"revision": saved.revision, "saved": saved.saved, "complete": saved.complete, "missing": missing}
        return {**told, "answers": answers, "at": self._next(), **self._progress()}

    def _open(self, wanted: Any) -> Row:
        row = next((row for row in self._showings if wanted(row)), None)
        if row is None:
            raise UserError("There is no such case in your list; load the page again.")
        if row["stage"] == 2 and not self._first_done():
            raise UserError("The second part, with maps, opens once the first is finished.")
        if row["stage"] == 1 and self._second_begun():
            raise UserError("The first part is closed: you have seen maps of its cases.")
        return row

    def _first_done(self) -> bool:
        return all(row["complete"] for row in self._showings if row["stage"] == 1)

    def _second_begun(self) -> bool:
        return any(row["visited"] for row in self._showings if row["stage"] == 2)

    def _next(self) -> int | None:
        """The first showing that is not finished; None after the last."""
        return next((row["place"] for row in self._showings if not row["complete"]), None)

    def _progress(self) -> Told:
        """For every showing 2 (finished), 1 (begun) or 0, and which of them can be opened."""
        states = [0 if row["complete"] is None else 1 + row["complete"] for row in self._showings]
        first = sum(row["stage"] == 1 for row in self._showings)
        open_ = [first, len(states)] if self._second_begun() else [0, len(states) if self._first_done() else first]
        return {"states": states, "first": first, "open": open_}


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
