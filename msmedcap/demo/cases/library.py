"""The runs a page has to show, and where the pictures of each come from.

Comes in: the server's folder of runs and its data sets' folders. Goes out: a :class:`Library` that reads a run when it is first
asked for. Without a folder of runs there is the one that comes with the package. No gradio.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from msmedcap.config import UserError
from msmedcap.data.scans import ScanError
from msmedcap.data.sets import READERS, Case, read_dataset
from msmedcap.demo.cases import shipped_run
from msmedcap.demo.cases.runs import NO_PICTURE, Entry, Pictures, Run, find_runs, read_run
from msmedcap.evaluation import captions_file

OWN = "Your captions file"


@dataclass(frozen=True)
class Source:
    """A run that can be looked at: ``load`` reads it when it is first asked for, ``picture`` gives the bytes of a case's picture.

    ``picture`` raises ``ScanError`` where there is none.
    """

    load: Callable[[], Run]
    picture: Callable[[Entry], bytes]


class Library:
    """The runs on offer by name, each read once and shared by all visitors; ``visitors`` gives pictures for a visitor's run."""

    def __init__(self, sources: Mapping[str, Source], visitors: Callable[[Entry], bytes]) -> None:
        self._sources = dict(sources)
        self._visitors = visitors
        self._load = functools.cache(lambda name: self._sources[name].load())

    @property
    def names(self) -> list[str]:
        """The runs on offer, in order."""
        return list(self._sources)

    def run(self, name: str, own: Run | None) -> Run:
        """The run ``name``, or the visitor's ``own``; raises :class:`UserError` where there is none."""
        if name == OWN and own is not None:
            return own
        if name not in self._sources:
            raise UserError("This run is no longer open; choose another, or send the captions file again.")
        return self._load(name)

    def picture(self, name: str, entry: Entry) -> bytes:
        """The bytes of a case's picture; raises ``ScanError`` where there is none."""
        return self._visitors(entry) if name == OWN else self._sources[name].picture(entry)


class _OwnPictures:
    """The pictures of a run of the server's owner: by their path, or found by id in the data set (a row of a table, say)."""

    def __init__(self, file: Path, pictures: Pictures, data: Mapping[str, Path]) -> None:
        self._file, self._pictures, self._data = file, pictures, data
        self._lock = threading.Lock()
        self._known: Mapping[str, Case] | None = None

    def read(self, entry: Entry) -> bytes:
        """The bytes of a case's picture; raises ``ScanError`` where there is none."""
        if entry.image is not None:
            return self._pictures.read(entry)
        with self._lock:  # reading a data set takes seconds; one visitor's wait does for all
            if self._known is None:
                self._known = self._cases()
        if entry.id not in self._known:
            raise ScanError(NO_PICTURE)
        return self._known[entry.id].read()

    def _cases(self) -> Mapping[str, Case]:
        opened = captions_file.read(self._file)
        if opened.name not in self._data or opened.name not in READERS:
            return {}
        return {case.id: case for case in read_dataset(opened.name, self._data[opened.name], opened.split)}


def library(runs: Path | None, data: Mapping[str, Path]) -> Library:
    """The library of a server: the captions files in the folder ``runs``, else the shipped one.

    ``data``: data sets' folders by name. Raises :class:`UserError` where ``runs`` is no folder with captions files.
    """
    pictures = Pictures(data)
    sources = {}
    if runs is not None:
        for name, file in find_runs(runs).items():
            of_case = _OwnPictures(file, pictures, data)
            sources[name] = Source(functools.partial(read_run, file, name), of_case.read)
    elif shipped_run.SHIPPED.is_file():
        load = functools.partial(read_run, shipped_run.SHIPPED, shipped_run.NAME)
        sources[shipped_run.NAME] = Source(load, shipped_run.shipped_picture)
    return Library(sources, pictures.read)
