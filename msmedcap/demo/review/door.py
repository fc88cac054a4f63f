"""Who comes in to a study: readers at one door, owners at another, and what both may ask before they are known.

Comes in: requests ``{"do": ..., "token": ...}`` of a browser. Goes out: answers as dicts; ``{"error": sentence}`` where something
is wrong, with ``"login": True`` where one must log in anew and ``"again": True`` where the fault is the server's (a database that
is locked, a full disk) and the same request may go well later. Nothing of a visitor is kept here but how often a login failed:
another process can go on at any moment.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msmedcap.config import UserError
from msmedcap.demo.review.design import OWNER
from msmedcap.demo.serving.accounts import hash_password, verify
from msmedcap.demo.store import ReviewStore, Row

LOGIN_SECONDS = 12 * 3600.0
STRANGE = "This was no request of the review; load the page again."
_FAILED = "The server could not do this now; please try again."
_AGAIN = "Your login is over; please log in again. What was shown as saved is saved."
Told = dict[str, Any]
log = logging.getLogger(__name__)


class Door:
    """Logins of readers and owners; after some failures for one name each further try has to wait longer."""

    FREE, LONGEST = 4, 60.0

    def __init__(self, store: ReviewStore, *, owner: bool, doing: str) -> None:
        """``owner``: whether studies' owners come in here, or readers; ``doing`` names the work in the log."""
        self._store, self._owner, self._doing = store, owner, doing
        self._nobody = hash_password(secrets.token_hex(16))
        self._failed: dict[tuple[str, str], tuple[int, float]] = {}
        self._lock = threading.Lock()

    def answer(self, asked: Any, opened: Callable[[str, Row, Mapping[str, Any]], Told]) -> Told:
        """The answer to one request, whatever it is; ``opened`` (what to do, the login, the request) answers who is logged in."""
        try:
            if not isinstance(asked, Mapping):
                raise UserError(STRANGE)
            do = str(asked.get("do"))
            if do == "studies":
                return {"studies": _titled(self._store.studies())}
            if do == "login":
                study, name, secret = (str(asked.get(part, ""))[:200] for part in ("study", "name", "secret"))
                return {"token": self._enter(study, OWNER if self._owner else name.strip(), secret)}
            login = self._store.login(str(asked.get("token", "")))
            if login is None or (login["reader_id"] is None) != self._owner:
                return {"error": _AGAIN, "login": True}
            if do == "logout":
                self._store.drop_login(str(asked["token"]))
                return {}
            return opened(do, login, asked)
        except UserError as error:
            return {"error": str(error)}
        except Exception as error:  # the browser keeps what it sent, and sends it again
            log.error("failed", exc_info=error, extra={"doing": self._doing})
            return {"error": _FAILED, "again": True}

    def _enter(self, key: str, name: str, secret: str) -> str:
        """A token for the study ``key``; raises :class:`UserError` where name and secret do not fit, or it is too early to try."""
        study, owner = self._study(key), self._owner
        who = (key, name)
        self._count(who)
        readers = {} if study is None or owner else {row["name"]: row for row in self._store.readers(study["id"])}
        reader = readers.get(name)
        stored = self._nobody if study is None else study["owner_hash"] if owner else None
        if not owner:
            stored = reader["secret_hash"] if reader else self._nobody
        right = verify(secret.strip(), stored or self._nobody)
        if study is None or not right or not (owner or reader):
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

    def _count(self, who: tuple[str, str]) -> None:
        """Count a try as failed before it is checked: tries that run side by side must not all slip through."""
        with self._lock:
            if len(self._failed) > 10_000:
                self._failed.clear()
            (failures, last), now = self._failed.get(who, (0, 0.0)), time.monotonic()
            wait = min(2.0 ** (failures - self.FREE), self.LONGEST) if failures > self.FREE else 0.0
            left = last + wait - now
            if left > 0:
                raise UserError(f"Too many tries; wait {math.ceil(left)} seconds.")
            self._failed[who] = (failures + 1, now)


def _titled(studies: Sequence[Row]) -> list[Told]:
    """The studies for a list; those of one title have their key behind it."""
    titles = [row["title"] for row in studies]
    return [
        {"key": row["key"], "title": row["title"] if titles.count(row["title"]) == 1 else f"{row['title']} ({row['key']})"}
        for row in studies
    ]
