"""A study's ratings saved elsewhere while it runs: every study's files, and the whole database where it is SQLite.

Comes in: the address of the studies' database and where its files go (:mod:`msmedcap.demo.serving.backups`). Goes out: a
context; what was saved before is brought back first where the database is gone, as on a Space that was restarted.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from msmedcap.demo.review.exports import FILES
from msmedcap.demo.review.rated import read_rated
from msmedcap.demo.serving.backups import Backups, fetch, snapshot
from msmedcap.demo.store import ReviewStore, database_file

DATABASE = "reviews.sqlite"


@contextmanager
def saved(reviews: str, target: str, *, minutes: float) -> Iterator[None]:
    """While it lasts, and once more when it ends, everything of ``reviews`` is saved to ``target`` every ``minutes``.

    A request to end the process (SIGTERM) ends it in order. Raises :class:`~msmedcap.config.UserError` where the target cannot be,
    or what it holds cannot be read.
    """
    file = database_file(reviews)
    if file is not None:
        fetch(target, DATABASE, file)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Backups(lambda: study_files(reviews), target, minutes=minutes):
        yield


def study_files(reviews: str) -> dict[str, str | bytes]:
    """The files of every study by name, ``STUDY-ratings.jsonl`` and so on, the key that unblinds among them; SQLite's file, too."""
    store = ReviewStore(reviews)
    files: dict[str, str | bytes] = {}
    try:
        for study in store.studies():
            rated = read_rated(store, study["key"])
            files |= {f"{study['key']}-{name}": write(rated) for name, write in FILES.items()}
    finally:
        store.close()
    file = database_file(reviews)
    if file is not None:
        files[DATABASE] = snapshot(file)
    return files
