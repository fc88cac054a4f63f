"""What a reader's browser asks of the server, and what it is told: plain JSON, nothing that tells the systems apart.

Comes in: requests ``{"do": ..., "token": ...}``. Goes out: answers as dicts; ``{"error": sentence}`` where something is wrong, with
``"login": True`` where the reader must log in anew. An answer about a case holds a picture, and under each letter a text and
perhaps a map: no names, times, file names or numbers of systems or cases; the key of a showing is random. A save is answered once
it is on the disk. Nothing of a reader is kept here but how often a login failed: another process can go on at any moment.
"""

from __future__ import annotations

import base64
import math
import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any

from msmedcap.config import UserError
from msmedcap.demo.accounts import hash_password, verify
from msmedcap.demo.reading import sentence
from msmedcap.demo.review import forms
from msmedcap.demo.review.design import LETTERS, OWNER
from msmedcap.demo.store import ReviewStore, Row

LOGIN_SECONDS = 12 * 3600.0
_AGAIN = "Your login is over; please log in again. What was shown as saved is saved."
_Told = dict[str, Any]


class Door:
    """Logins of readers and owners; after some failures for one name each further try has to wait longer."""

    FREE, LONGEST = 4, 60.0

    def __init__(self, store: ReviewStore) -> None:
        self._store = store
        self._nobody = hash_password(secrets.token_hex(16))
        self._failed: dict[tuple[str, str], tuple[int, float]] = {}
        self._lock = threading.Lock()

    def enter(self, key: str, name: str, secret: str, *, owner: bool) -> str:
        """A token for the study ``key``; raises :class:`UserError` where name and secret do not fit, or it is too early to try."""
        study = self._study(key)
        who = (key, OWNER if owner else name.strip())
        self._wait(who)
        readers = {} if study is None or owner else {row["name"]: row for row in self._store.readers(study["id"])}
        reader = readers.get(who[1])
        stored = self._nobody if study is None else study["owner_hash"] if owner else None
        if not owner:
            stored = reader["secret_hash"] if reader else self._nobody
        right = verify(secret.strip(), stored or self._nobody)
        if study is None or not right or not (owner or reader):
            with self._lock:
                self._failed[who] = (self._failed.get(who, (0, 0.0))[0] + 1, time.monotonic())
            raise UserError("Name and secret do not fit; they are those that the study's owner gave you.")
        with self._lock:
            self._failed.pop(who, None)
        token = secrets.token_urlsafe(32)
        self._store.add_login(token, study=study["id"], reader=reader["id"] if reader else None, seconds=LOGIN_SECONDS)
        return token

    def _study(self, key: str) -> Row | None:
        try:
            return self._store.study(key)
        except UserError:
            return None

    def _wait(self, who: tuple[str, str]) -> None:
        with self._lock:
            if len(self._failed) > 10_000:
                self._failed.clear()
            failures, last = self._failed.get(who, (0, 0.0))
        wait = min(2.0 ** (failures - self.FREE), self.LONGEST) if failures > self.FREE else 0.0
        left = last + wait - time.monotonic()
        if left > 0:
            raise UserError(f"Too many tries; wait {math.ceil(left)} seconds.")


class Desk:
    """Answers readers from ``store``; one a server, shared by all of them."""

    def __init__(self, store: ReviewStore) -> None:
        self._store = store
        self._door = Door(store)

    def answer(self, asked: Any) -> _Told:
        """The answer to one request, whatever it is."""
        try:
            if not isinstance(asked, Mapping):
                raise UserError("This was no request of the review; load the page again.")
            do = str(asked.get("do"))
            if do == "studies":
                return {"studies": [{"key": row["key"], "title": row["title"]} for row in self._store.studies()]}
            if do == "login":
                told = (str(asked.get(name, ""))[:200] for name in ("study", "name", "secret"))
                return {"token": self._door.enter(*told, owner=False)}
            login = self._store.login(str(asked.get("token", "")))
            if login is None or login["reader_id"] is None:
                return {"error": _AGAIN, "login": True}
            if do == "logout":
                self._store.drop_login(str(asked["token"]))
                return {}
            return self._reading(do, login, asked)
        except Exception as error:
            return {"error": sentence(error, "answering the review")}

    def _reading(self, do: str, login: Row, asked: Mapping[str, Any]) -> _Told:
        reading = _Reading(self._store, login)
        if do == "home":
            return reading.home()
        if do == "case":
            return reading.case(asked.get("place"))
        if do == "save":
            return reading.save(asked)
        raise UserError("This was no request of the review; load the page again.")


class _Reading:
    """One request of a reader who is logged in."""

    def __init__(self, store: ReviewStore, login: Row) -> None:
        self._store, self._login = store, login
        self._showings = store.showings(login["reader_id"])
        self._letters = LETTERS[: len(self._showings[0]["letters"])]

    def home(self) -> _Told:
        """What the reader needs once: the form, the instructions, where to go on."""
        study = next(row for row in self._store.studies() if row["id"] == self._login["study_id"])
        name = next(row["name"] for row in self._store.readers(study["id"]) if row["id"] == self._login["reader_id"])
        told = {"reader": name, "title": study["title"], "instructions": study["instructions"]}
        return {**told, "form": forms.form(self._letters), "at": self._next(), **self._progress()}

    def case(self, place: Any) -> _Told:
        """A showing, opened; raises :class:`UserError` where it is not the reader's to open now."""
        row = self._open(lambda row: row["place"] == place)
        case, captions = self._store.case(row["study_case_id"]), self._store.case_captions(row["study_case_id"])
        shown = []
        for letter, system in zip(self._letters, row["letters"], strict=True):
            shown.append({"letter": letter, "text": captions[system]["text"]})
            if row["stage"] == 2 and captions[system]["map"]:
                shown[-1]["map"] = _uri(captions[system]["map"])
        latest = self._store.latest(row["id"])
        return {
            "case": row["key"],
            "place": row["place"],
            "stage": row["stage"],
            "visit": self._store.visit(row["id"]),
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

    def save(self, asked: Mapping[str, Any]) -> _Told:
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

    def _progress(self) -> _Told:
        """For every showing 2 (finished), 1 (begun) or 0, and which of them can be opened."""
        states = [0 if row["complete"] is None else 1 + row["complete"] for row in self._showings]
        first = sum(row["stage"] == 1 for row in self._showings)
        open_ = [first, len(states)] if self._second_begun() else [0, len(states) if self._first_done() else first]
        return {"states": states, "first": first, "open": open_}


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
