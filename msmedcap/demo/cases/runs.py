"""Evaluation runs as the page shows them: a captions file read into cases, and the one place their pictures may come from.

Comes in: the files ``NAME-SPLIT.jsonl`` of ``evaluate``, from the server's owner or from a visitor, and the owner's data
folders. Goes out: a :class:`Run` of :class:`Entry` rows with their errors, and the bytes of a case's picture. A visitor's
file is read strictly and within limits, and what it calls a picture is opened only below a folder the owner named. No gradio.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msmedcap.config import UserError
from msmedcap.data.captions import plain_caption
from msmedcap.data.scans import ScanError
from msmedcap.data.sets import Case
from msmedcap.demo.cases.verdicts import errors, value_of
from msmedcap.evaluation import captions_file
from msmedcap.evaluation.facts import told

MOST_BYTES, MOST_CASES, MOST_SYSTEMS, MOST_TEXT = 16 * 2**20, 20_000, 16, 20_000
UNKNOWN = "not stated"
_PART = re.compile(r"\.rank\d+\.jsonl$")  # what one of several processes has written so far
NO_PICTURE = "The picture of this case is not on this server; only its captions are."


@dataclass(frozen=True, slots=True)
class Entry:
    """One case of a run: what is true of it, what each system wrote, and the kinds of error in each caption.

    ``image`` is the picture's path below its data set's folder, None where it has none; ``source`` names the data set.
    ``modality`` and ``part`` are the lexicon's words, :data:`UNKNOWN` where the case does not say. ``error`` says why the
    picture could not be read when the captions were written.
    """

    id: str
    source: str
    image: str | None
    references: tuple[str, ...]
    captions: Mapping[str, str]
    error: str | None
    modality: str
    part: str
    errors: Mapping[str, frozenset[str]]
    row: Mapping[str, Any]  # as evaluation reads it

    @property
    def text(self) -> str:
        """All words of the case in lower case, for searching."""
        return "\n".join((self.id, *self.references, *self.captions.values())).lower()


@dataclass(frozen=True)
class Run:
    """A captions file: ``name`` for the reader, what it was ``made_with``, its ``systems`` in the order of the file, its cases."""

    name: str
    made_with: Mapping[str, Any]
    systems: tuple[str, ...]
    entries: tuple[Entry, ...]

    @property
    def made(self) -> str:
        """What wrote the captions, in words; empty where the file does not say."""
        said = [f"{key} {self.made_with[key]}" for key in ("models", "weights", "preset") if self.made_with.get(key)]
        return ", ".join(said)


@dataclass(frozen=True)
class Chosen:
    """One case of a run: ``run`` is the run's name."""

    run: str
    entry: Entry


def parse_run(data: bytes, name: str) -> Run:
    """The run in the bytes of a visitor's captions file; a last line that is only half written is left out.

    Raises :class:`UserError`, one sentence that names the line, where the file is too large or not a captions file.
    """
    if len(data) > MOST_BYTES:
        raise UserError(f"This captions file is larger than {MOST_BYTES // 2**20} MB; send a part of it.")
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise UserError(
            "This is not a captions file: it is not UTF-8 text; send a .jsonl that evaluate wrote."
        ) from None
    complete = lines[:-1] if lines[-1].strip() and not _is_json(lines[-1]) and len(lines) > 1 else lines
    made_with: Mapping[str, Any] = {}
    rows: dict[str, Mapping[str, Any]] = {}
    for number, line in enumerate(complete, start=1):
        if not line.strip():
            continue
        record = _record(line, number)
        if "made_with" in record and not rows and "captions" not in record:
            made_with = record["made_with"] if isinstance(record["made_with"], dict) else {}
            continue
        _check(record, number)
        if record["id"] in rows:
            raise UserError(
                f"Line {number} of the captions file repeats the case {record['id'][:80]!r}; every id stands once."
            )
        rows[record["id"]] = record
        if len(rows) > MOST_CASES:
            raise UserError(f"This captions file has more than {MOST_CASES:,} cases; send a part of it.")
    if not rows:
        raise UserError("This captions file holds no case; send a .jsonl that evaluate wrote.")
    systems = tuple(dict.fromkeys(system for row in rows.values() for system in row["captions"]))
    if len(systems) > MOST_SYSTEMS:
        raise UserError(f"This captions file has more than {MOST_SYSTEMS} systems; send fewer.")
    return Run(name, made_with, systems, tuple(_entry(row, systems) for row in rows.values()))


def read_run(file: Path, name: str) -> Run:
    """The run in a captions file of the server's owner; raises :class:`UserError` where it is none."""
    opened = captions_file.read(file)
    rows = []
    for number, row in enumerate(opened.rows, start=1):
        _check(row, number)
        rows.append({**row, "source": row["source"] or opened.name})
    systems = tuple(dict.fromkeys(system for row in rows for system in row["captions"]))
    return Run(name, opened.made_with, systems, tuple(_entry(row, systems) for row in rows))


def find_runs(folder: Path) -> dict[str, Path]:
    """The captions files in ``folder`` and the folders in it, by their path without the ending, sorted.

    Raises :class:`UserError` where the folder is missing or holds none.
    """
    if not folder.is_dir():
        raise UserError(f"The folder of evaluation runs {folder} does not exist; give the --out folder of evaluate.")
    found = [*folder.glob("*.jsonl"), *folder.glob("*/*.jsonl")]
    files = sorted(file for file in found if not _PART.search(file.name))
    if not files:
        raise UserError(f"There is no captions file (NAME-SPLIT.jsonl) in {folder}; give the --out folder of evaluate.")
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


class Pictures:
    """Where pictures of cases may come from: ``folders`` of data sets by name, which the server's owner gave, and nothing else."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        resolved = {name: Path(path).resolve() for name, path in folders.items()}
        self._folders = {name: path.parent if path.is_file() else path for name, path in resolved.items()}

    def read(self, entry: Entry) -> bytes:
        """The bytes of a case's picture; raises ``ScanError`` where it has none below its data set's folder.

        The path comes from a file that anyone may have written: links are followed first, and what lies outside is not
        told apart from what does not exist.
        """
        folder = self._folders.get(entry.source)
        if folder is None or not entry.image or "\0" in entry.image:
            raise ScanError(NO_PICTURE)
        try:
            file = (folder / entry.image).resolve(strict=True)
            if not file.is_relative_to(folder) or not file.is_file():
                raise ScanError(NO_PICTURE)
            box = entry.row.get("box")
            case = Case(entry.id, file, {}, "", "", entry.source, box=(box[0], box[1], box[2], box[3]) if box else None)
            return case.read()
        except (OSError, RuntimeError):
            raise ScanError(NO_PICTURE) from None


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _record(line: str, number: int) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError(f"Line {number} of the captions file is not JSON; send a .jsonl that evaluate wrote.") from None
    if not isinstance(record, dict):
        raise UserError(f"Line {number} of the captions file is not a case; send a .jsonl that evaluate wrote.")
    return record


def _check(record: Mapping[str, Any], number: int) -> None:
    def wrong(what: str) -> UserError:
        return UserError(f"Line {number} of the captions file {what}; send a .jsonl that evaluate wrote.")

    if not _is_text(record.get("id")) or not record["id"]:
        raise wrong("has no id")
    if not _is_words(record.get("captions")):
        raise wrong("has no captions by system")
    references, facts = record.get("references", []), record.get("facts", {})
    if not isinstance(references, list) or not all(map(_is_text, references)):
        raise wrong("has references that are no list of texts")
    if not _is_words(facts):
        raise wrong("has facts that are no texts by name")
    if not all(record.get(key) is None or _is_text(record[key]) for key in ("image", "source", "error")):
        raise wrong("has an image, source or error that is no text")
    box = record.get("box")
    if box is not None and not (isinstance(box, list) and len(box) == 4 and all(map(_is_share, box))):
        raise wrong("has a box that is not four shares of the picture")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MOST_TEXT


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 <= value <= 1


def _is_words(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_text(k) and _is_text(v) for k, v in value.items())


def _entry(row: Mapping[str, Any], systems: Sequence[str]) -> Entry:
    facts = row.get("facts") or {}
    references = tuple(row.get("references") or ()) or ((plain_caption(facts),) if facts else ())
    captions = {system: row["captions"].get(system, "") for system in systems}
    error, truth = row.get("error"), told(references)
    return Entry(
        id=row["id"],
        source=row.get("source") or "",
        image=row.get("image"),
        references=references,
        captions=captions,
        error=error,
        modality=value_of("modality", facts, references) or UNKNOWN,
        part=value_of("part", facts, references) or UNKNOWN,
        errors={system: errors(truth, text, unreadable=error is not None) for system, text in captions.items()},
        row={
            **row,
            "group": row.get("group") or row["id"],
            "references": references,
            "captions": captions,
            "error": error,
        },
    )


def values(entries: Iterable[Entry], of: str) -> list[str]:
    """The different values of an entry's ``of`` ("modality", "part"), sorted, :data:`UNKNOWN` last."""
    found = {getattr(entry, of) for entry in entries}
    return sorted(found, key=lambda value: (value == UNKNOWN, value))
