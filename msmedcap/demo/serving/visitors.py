"""Who is the same visitor: a page that is loaded again finds what it held before, and nobody else does.

Comes in: the key of an open page (gradio's, new at each load) and the token a browser's tab kept, which anybody may have made up.
Goes out: the visitor's number. A token is 256 random bits, made here; only its digest is kept, so nothing that is remembered
opens a session, and a token is compared, never used as a name. A visitor who has left is known for a while, for a reload and a
lost connection look alike: the page goes, and comes back or not. No gradio here.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass, field

GRACE_SECONDS = 300.0
TOKEN_BYTES = 32
_LONGEST_TOKEN = 64
_MOST_PAGES = 16


@dataclass
class _Visitor:
    login: str = ""  # under which the token was given out
    token: bytes = b""  # the digest
    pages: list[str] = field(default_factory=list)  # every key so far; the open ones are also in ``here``
    here: set[str] = field(default_factory=set)
    left: float | None = None


class Visitors:
    """The visitors by their pages and tokens. Not safe for use from several threads: its owner holds a lock."""

    def __init__(self, *, grace: float = GRACE_SECONDS) -> None:
        self._grace = grace
        self._visitors: dict[int, _Visitor] = {}
        self._pages: dict[str, int] = {}
        self._tokens: dict[bytes, int] = {}
        self._made = 0

    def __len__(self) -> int:
        return len(self._visitors)

    def of(self, page: str) -> int:
        """The visitor of a page, made where there is none; a page that comes back after a lost connection is here again."""
        number = self._pages.get(page)
        if number is None:
            self._made += 1
            number = self._made
            self._visitors[number] = _Visitor()
        self._enter(number, page)
        return number

    def at(self, page: str) -> int | None:
        """The visitor of a page, or None; does not count as use."""
        return self._pages.get(page)

    def known(self, token: object, *, login: str) -> int | None:
        """The visitor whose token this is and who is logged in by the same name (or not at all), or None."""
        if not isinstance(token, str) or not 0 < len(token) <= _LONGEST_TOKEN:
            return None
        number = self._tokens.get(_digest(token))
        return number if number is not None and self._visitors[number].login == login else None

    def join(self, page: str, number: int) -> None:
        """A page belongs to the visitor ``number`` from now on, and to nobody else."""
        before = self._visitors.get(self._pages.get(page, 0))
        if before is not None and page in before.pages:
            before.pages.remove(page)
            before.here.discard(page)
        self._enter(number, page)

    def token(self, number: int, *, login: str) -> str:
        """A new token for the visitor ``number``, to be kept by the browser; an older one opens nothing any more."""
        visitor, token = self._visitors[number], secrets.token_urlsafe(TOKEN_BYTES)
        self._tokens.pop(visitor.token, None)
        visitor.token, visitor.login = _digest(token), login
        self._tokens[visitor.token] = number
        return token

    def leave(self, page: str) -> int:
        """A page is closed, or its connection lost: the number of the visitor who has no page open any more, else 0."""
        number = self._pages.get(page, 0)
        visitor = self._visitors.get(number)
        if visitor is None:
            return 0
        visitor.here.discard(page)
        if visitor.here:
            return 0
        visitor.left = time.monotonic()
        return number

    def left(self, number: int) -> float | None:
        """When the visitor's last page was closed (:func:`time.monotonic`); None while one is open, or nothing is known."""
        visitor = self._visitors.get(number)
        return None if visitor is None else visitor.left

    def gone(self) -> list[int]:
        """The visitors who left and did not come back in time."""
        since = time.monotonic() - self._grace
        return [n for n, v in self._visitors.items() if v.left is not None and v.left <= since]

    def forget(self, number: int) -> None:
        """Nothing of the visitor ``number`` is known any more; nothing happens where there is none."""
        visitor = self._visitors.pop(number, None)
        if visitor is None:
            return
        for page in visitor.pages:
            self._pages.pop(page, None)
        self._tokens.pop(visitor.token, None)

    def _enter(self, number: int, page: str) -> None:
        visitor = self._visitors[number]
        visitor.left = None
        visitor.here.add(page)
        self._pages[page] = number
        if page not in visitor.pages:
            visitor.pages.append(page)
        while len(visitor.pages) > _MOST_PAGES:
            old = visitor.pages.pop(0)
            visitor.here.discard(old)
            self._pages.pop(old, None)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
