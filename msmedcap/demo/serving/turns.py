"""Whose turn it is at the models: one at a time, in the order of coming, with a number that says how many are before you.

Comes in: a visitor's key. Goes out: a :class:`Ticket` that tells its place while it waits and can be given up. Gradio's own queue
knows the order too but shows it only in its own progress overlay; a lock of ours can be said in our words and cancelled at
once. No gradio here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType


class Cancelled(Exception):
    """The visitor gave the place up while waiting."""


class Ticket:
    """A place in the line; a context manager, and leaving it lets the next one in, whether one waited or ran."""

    def __init__(self, turns: Turns, owner: str) -> None:
        self._turns, self.owner = turns, owner
        self.cancelled = False  # who runs looks at it between two steps and stops

    def wait(self, *, beat: float = 1.0) -> Iterator[int]:
        """How many are before this one, when that changes and at least every ``beat`` seconds; ends when it is its turn.

        Nothing is yielded where nobody is before it. Raises :class:`Cancelled` where the ticket is given up meanwhile.
        """
        told: int | None = None
        while True:
            ahead = self._turns._ahead(self, told=told, seconds=beat)
            if self.cancelled:
                raise Cancelled
            if ahead == 0:
                return
            told = ahead
            yield ahead

    def __enter__(self) -> Ticket:
        self._turns._join(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turns._leave(self)


class Turns:
    """The line before the models of one server; safe to use from several threads."""

    def __init__(self) -> None:
        self._line: list[Ticket] = []  # the first one runs
        self._changed = threading.Condition()
        self._since = 0.0  # when the first one's turn came

    def ticket(self, owner: str) -> Ticket:
        """A ticket for ``owner`` (a visitor's key); entering it (``with``) takes the last place."""
        return Ticket(self, owner)

    @contextmanager
    def turn(self, owner: str = "") -> Iterator[Ticket]:
        """Wait without a word, then have the models alone; raises :class:`Cancelled` where the place is given up."""
        with self.ticket(owner) as ticket:
            for _ in ticket.wait():
                pass
            yield ticket

    def cancel(self, owner: str) -> int:
        """Give up the places of ``owner``: waiting ones end, the running one is told; returns how many there were."""
        with self._changed:
            found = [ticket for ticket in self._line if ticket.owner == owner]
            for ticket in found:
                ticket.cancelled = True
            self._changed.notify_all()
        return len(found)

    @property
    def waiting(self) -> int:
        """How many wait; the one whose turn it is does not count."""
        return max(0, len(self._line) - 1)

    @property
    def running(self) -> float | None:
        """For how many seconds the present one has had its turn; None while nobody is there."""
        with self._changed:
            return time.monotonic() - self._since if self._line else None

    def _join(self, ticket: Ticket) -> None:
        with self._changed:
            self._line.append(ticket)
            if len(self._line) == 1:
                self._since = time.monotonic()

    def _leave(self, ticket: Ticket) -> None:
        with self._changed:
            if ticket not in self._line:
                return
            first = self._line[0] is ticket
            self._line.remove(ticket)
            if first:
                self._since = time.monotonic()
            self._changed.notify_all()

    def _ahead(self, ticket: Ticket, *, told: int | None, seconds: float) -> int:
        """The number before ``ticket``, as soon as it differs from ``told``, or after ``seconds``."""
        until = time.monotonic() + seconds
        with self._changed:
            while True:
                ahead = self._line.index(ticket)
                left = until - time.monotonic()
                if ticket.cancelled or ahead == 0 or ahead != told or left <= 0:
                    return ahead
                self._changed.wait(left)


def place_words(ahead: int) -> str:
    """What a waiting visitor reads."""
    return f"Waiting for the models: {ahead} ahead of you."
