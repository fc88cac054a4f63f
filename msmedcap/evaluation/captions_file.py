"""Captions on disk, apart from any score: one JSONL file per data set and split, and whatever others wrote in a table.

Comes in: rows as a model captions them. Goes out: the same rows, one at a time, for any metric at any later time. The first
line is ``{"made_with": {...}}``, what the captions depend on; then a row for each case::

    {"id", "group", "source", "image", "facts": {}, "references": [], "captions": {system: text}, "error"}

``image`` is the picture's path relative to the data set's folder, null where it is no file of its own; ``box`` stands beside it
where the case is a part of it. Every row is on disk before the next is captioned, so that a process killed in the middle of a
line loses that line. Also read: CSV, TSV and JSONL tables of a ``reference`` and a ``candidate``, where every other column is a
system's captions.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from msmedcap.config import UserError

Row: TypeAlias = Mapping[str, Any]

SUFFIXES = (".jsonl", ".csv", ".tsv")
_OWN = ("id", "group", "source", "image", "error")
_NOT_CAPTIONS = (*_OWN, "facts", "captions", "references", "box", "split")
_REFERENCE = re.compile(r"(?:reference|ground_?truth)s?(?:[_ ]?\d+)?", re.I)


class Rows:
    """The rows of a file, read anew, and one at a time, whenever they are gone through."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __iter__(self) -> Iterator[dict[str, Any]]:
        read = _jsonl_rows if self._file.suffix == ".jsonl" else _table_rows
        for number, raw in enumerate(read(self._file)):
            yield _row(raw, number, self._file)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True)
class CaptionsFile:
    """A captions file: ``made_with`` is its first line (empty for a table of others), ``rows`` can be gone through many times."""

    path: Path
    made_with: Mapping[str, Any]
    rows: Rows

    @property
    def name(self) -> str:
        """The data set's name; that of the file where it does not say."""
        return str(self.made_with.get("data") or _split_name(self.path)[0])

    @property
    def split(self) -> str:
        """The data set's split, empty where unknown."""
        return str(self.made_with.get("split") or _split_name(self.path)[1])

    def systems(self) -> tuple[str, ...]:
        """The systems that captioned, in the order they first occur."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row["captions"]))


def read(file: Path) -> CaptionsFile:
    """Open a captions file, or a table of references and candidates; rows are read when they are gone through.

    A last line that was interrupted is passed over. Raises :class:`UserError` where there is no such file, or it is neither.
    """
    file = Path(file)
    if file.suffix not in SUFFIXES:
        raise UserError(f"{file} is not a captions file; they end in {', '.join(SUFFIXES)}.")
    if not file.is_file():
        raise UserError(
            f"There is no captions file {file}; evaluate --data NAME=PATH --split SPLIT --out DIR writes one."
        )
    first = next(_lines(file), b"") if file.suffix == ".jsonl" else b""
    header = _json(first, file) if first else {}
    opened = CaptionsFile(file, header.get("made_with") or {}, Rows(file))
    row = next(iter(opened.rows), None)
    if row is None and "made_with" not in header:
        raise UserError(f"{file} holds no captions.")
    return opened


class Store:
    """A captions file being written: which cases it holds already, and where new rows go.

    One of several processes writes ``FILE.rankN.jsonl`` beside it, and :meth:`merge` makes one file of all. Rows of a process
    that is gone count, whoever goes on.
    """

    def __init__(self, file: Path, made_with: Mapping[str, Any], *, rank: int = 0, processes: int = 1) -> None:
        """Raises :class:`UserError` where ``file``, or a part of it, was made with something else."""
        self.file = file
        self._header = json.dumps({"made_with": dict(made_with)}).encode() + b"\n"
        self._own = file if processes == 1 else file.with_name(f"{file.stem}.rank{rank}.jsonl")
        file.parent.mkdir(parents=True, exist_ok=True)
        self._start(self._own)
        self.done = set(self._places())

    def append(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Write each row as it comes, and yield it."""
        with self._own.open("ab") as out:
            for row in rows:
                out.write(json.dumps(row).encode() + b"\n")
                out.flush()
                self.done.add(row["id"])
                yield row

    def missing(self, ids: Iterable[str]) -> int:
        """How many of ``ids`` no process has written yet; looks at the files."""
        places = self._places()
        return sum(name not in places for name in ids)

    def merge(self, ids: Iterable[str]) -> None:
        """Put the rows of all processes into the one file, in the order of ``ids``, others after them."""
        parts = self._parts()
        places = self._places()
        if not parts and self._own == self.file:
            return  # one process wrote it, in its order
        new = self.file.with_name(f".{self.file.name}.new")
        open_files: dict[Path, BinaryIO] = {}
        try:
            with new.open("wb") as out:
                out.write(self._header)
                for name in dict.fromkeys([*ids, *places]):
                    if name in places:
                        file, start = places[name]
                        if file not in open_files:
                            open_files[file] = file.open("rb")
                        open_files[file].seek(start)
                        out.write(open_files[file].readline())
        finally:
            for source in open_files.values():
                source.close()
        os.replace(new, self.file)
        for part in parts:
            part.unlink()

    def _parts(self) -> list[Path]:
        return sorted(self.file.parent.glob(f"{_globbed(self.file.stem)}.rank*.jsonl"))

    def _places(self) -> dict[str, tuple[Path, int]]:
        """Where each case's row is: the file, and the byte it starts at."""
        found: dict[str, tuple[Path, int]] = {}
        # The parts first: process 0 removes them only once the file itself has their rows.
        for file in [*self._parts(), self.file]:
            try:
                start = 0
                for number, line in enumerate(_lines(file)):
                    if number:
                        found[sys.intern(_json(line, file)["id"])] = (file, start)
                    elif line != self._header:
                        raise UserError(_OTHER.format(file=file))
                    start += len(line)
            except FileNotFoundError:
                continue
        return found

    def _start(self, file: Path) -> None:
        """Give ``file`` its first line, or cut off a last one that was interrupted."""
        size = file.stat().st_size if file.exists() else 0
        whole = sum(map(len, _lines(file))) if size else 0
        if not whole:
            file.write_bytes(self._header)
        elif whole != size:
            os.truncate(file, whole)


_OTHER = "{file} holds captions of other weights or settings; delete it or choose another --out."


def _lines(file: Path) -> Iterator[bytes]:
    """The whole lines of a file; a last one without its end was interrupted."""
    with file.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield line


def _json(line: bytes, file: Path) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        raise UserError(
            f"{file} is damaged: a line in it is no JSON; delete that line, it is captioned again."
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"{file} is not a captions file: a line in it is no JSON object.")
    return value


def _jsonl_rows(file: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_lines_or_last(file)):
        value = _json(line, file)
        if number or "made_with" not in value:
            yield value


def _lines_or_last(file: Path) -> Iterator[bytes]:
    """As :func:`_lines`, and a last line that is whole but for its end, as other programs leave it."""
    with file.open("rb") as lines:
        for line in lines:
            if line.strip() and (line.endswith(b"\n") or line.rstrip().endswith(b"}")):
                yield line


def _table_rows(file: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(2**24)
    with file.open(encoding="utf-8-sig", newline="") as text:
        yield from csv.DictReader(text, delimiter="\t" if file.suffix == ".tsv" else ",")


def _row(raw: Mapping[str, Any], number: int, file: Path) -> dict[str, Any]:
    """A row in the one format, whatever the file's."""
    name = str(raw.get("id") or number)
    captions = raw.get("captions")
    if captions is None:
        given = {k: v for k, v in raw.items() if k and k not in _NOT_CAPTIONS and not _REFERENCE.fullmatch(k)}
        captions = {k: v for k, v in given.items() if isinstance(v, str)}
    if not captions and not raw.get("error"):
        raise UserError(
            f"{file} has no captions in row {number + 1}; it needs a column 'candidate', or one named as the system."
        )
    return {
        "id": name,
        "group": str(raw.get("group") or name),
        "source": str(raw.get("source") or ""),
        "image": raw.get("image") or None,
        "facts": dict(raw.get("facts") or {}) if not isinstance(raw.get("facts"), str) else {},
        "references": _references(raw),
        "captions": dict(captions),
        "error": raw.get("error") or None,
        **({"box": raw["box"]} if raw.get("box") else {}),
    }


def _references(raw: Mapping[str, Any]) -> list[str]:
    """All references of a row: a list, or columns ``reference``, ``reference2``, ... without the empty ones."""
    found: list[str] = []
    for key, value in raw.items():
        if key and _REFERENCE.fullmatch(key):
            found += [value] if isinstance(value, str) else list(value or ())
    return [text for text in found if text.strip()]


def _split_name(file: Path) -> tuple[str, str]:
    name, dash, split = file.stem.rpartition("-")
    return (name, split) if dash else (split, "")


def _globbed(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)
