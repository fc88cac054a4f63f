"""Scores kept on disk, so that a run goes on where it was cut off and an unchanged pair is never computed twice.

Comes in: what fixes a number (metric, model digest, settings) with a reference and a candidate. Goes out: the values kept
for it. One SQLite file; each writing is one transaction, so that whatever kills the process leaves whole values and nothing
else. Several processes may share the file.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msmedcap.config import UserError

Pair = tuple[str, str]
CHUNK = 500  # SQLite's oldest limit on the placeholders of one statement is 999.


@dataclass(frozen=True)
class Value:
    """A pair's numbers, and whether one of its texts was longer than the model reads and was cut."""

    numbers: tuple[float, ...]
    cut: bool


class Store:
    """The file ``file``, made on first use; with None everything stays in memory. Raises :class:`UserError` for another file."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(file if file is not None else ":memory:", timeout=60)
        with self._readable(), self._db:
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, numbers BLOB, cut INTEGER) WITHOUT ROWID"
            )

    def get(self, key: str, pairs: Sequence[Pair]) -> dict[Pair, Value]:
        """Those of ``pairs`` that are kept under ``key``."""
        found = {}
        with self._readable():
            for start in range(0, len(pairs), CHUNK):
                names = {_name(key, pair): pair for pair in pairs[start : start + CHUNK]}
                marks = ",".join("?" * len(names))
                rows = self._db.execute(f"SELECT key, numbers, cut FROM scores WHERE key IN ({marks})", list(names))
                for name, numbers, cut in rows:
                    found[names[name]] = Value(struct.unpack(f"<{len(numbers) // 8}d", numbers), bool(cut))
        return found

    def put(self, key: str, values: Mapping[Pair, Value]) -> None:
        """Keeps ``values`` under ``key``, all of them or, where the process dies, none."""
        rows = [
            (_name(key, pair), struct.pack(f"<{len(value.numbers)}d", *value.numbers), value.cut)
            for pair, value in values.items()
        ]
        with self._readable(), self._db:
            self._db.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?)", rows)

    def close(self) -> None:
        """Lets the file go."""
        self._db.close()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"The kept scores in {self.file} cannot be used ({error}); delete the file or name another."
            ) from None


def _name(key: str, pair: Pair) -> bytes:
    return hashlib.sha256(json.dumps([key, *pair]).encode()).digest()
