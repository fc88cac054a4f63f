"""One's own pictures: a CSV, TSV or JSONL file with a row for each picture and what is said of it.

Comes in: a file with a column ``image`` (a path from the file's folder) and ``caption``; optional columns are ``split``,
``group`` (patient or article), ``id``, ``facts`` (a record; in a CSV as JSON) and single facts under their own names. Goes out:
the splits of the file, or, where it names none, eight, one and one tenth of the groups as ``train``, ``val`` and ``test``.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from msmedcap.config import UserError
from msmedcap.data.captions import plain_caption
from msmedcap.data.sets.case import Case, split_of

log = logging.getLogger(__name__)

FACTS = ("modality", "plane", "view", "part", "sequence", "finding", "side", "label")
_SHARES = {"test": 0.1, "val": 0.1, "train": 0.8}
_ENDINGS = (".csv", ".tsv", ".jsonl")
_ALIASES = {"validation": "val", "valid": "val"}


def read_table(path: Path) -> dict[str, list[Case]]:
    """The cases of a table, or of the one table in a folder; several rows of one picture are its several captions.

    A row without a caption is given the plain sentence of its facts, and is left out where it has none. Raises
    :class:`UserError` where there is no table, a column is missing or a row cannot be read.
    """
    file = _find(path)
    cases: dict[str, Case] = {}
    places: dict[str, str] = {}
    bare = 0
    for number, row in enumerate(_rows(file), 1):
        case = _case(row, file, number)
        if case is None:
            bare += 1
        elif case.id in cases:
            known = cases[case.id]
            both = tuple(dict.fromkeys(known.references + case.references))
            cases[case.id] = _with(known, both)
        else:
            cases[case.id] = case
            places[case.id] = _split(row, case, file, number)
    if bare:
        log.warning("%d rows of %s have neither caption nor facts and are left out", bare, file)
    splits: dict[str, list[Case]] = {}
    for id, case in cases.items():
        splits.setdefault(places[id], []).append(case)
    _warn_of_leaks(splits, file)
    return splits or {"train": []}


def _find(path: Path) -> Path:
    if path.is_file():
        files = [path]
    else:
        files = [p for p in sorted(path.iterdir()) if p.is_file() and p.suffix.lower() in _ENDINGS]
    if len(files) != 1:
        found = f"{len(files)} tables" if files else "no .csv, .tsv or .jsonl file"
        raise UserError(f"{path} holds {found}; name the file itself.")
    if files[0].suffix.lower() not in _ENDINGS:
        raise UserError(f"{files[0]} is no table; a .csv, .tsv or .jsonl file is needed.")
    return files[0]


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows by the names of their columns in lower case."""
    with file.open(newline="", encoding="utf-8-sig") as lines:
        try:
            if file.suffix.lower() == ".jsonl":
                rows: Iterable[dict[str, Any]] = (json.loads(line) for line in lines if line.strip())
            else:
                rows = csv.DictReader(lines, delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
            for row in rows:
                yield {key.strip().lower(): value for key, value in row.items() if isinstance(key, str)}
        except (ValueError, AttributeError, csv.Error):
            raise UserError(f"{file} is not a whole table: each row must name an image and its caption.") from None


def _case(row: dict[str, Any], file: Path, number: int) -> Case | None:
    image = row.get("image")
    if not isinstance(image, str) or not image.strip():
        raise UserError(f"Row {number} of {file} names no image; a table has the columns image and caption.")
    if "caption" not in row and "captions" not in row and "facts" not in row and not any(name in row for name in FACTS):
        raise UserError(f"{file} has no column caption; a table has the columns image and caption.")
    facts = _facts(row, file, number)
    said = row.get("captions") or row.get("caption") or ""
    texts = [" ".join(str(text).split()) for text in (said if isinstance(said, list) else [said])]
    texts = [text for text in texts if text] or ([plain_caption(facts)] if facts else [])
    if not texts:
        return None
    image = image.strip()
    case = Case(
        str(row.get("id") or image), file.parent / image, facts, texts[0], str(row.get("group") or image), file.stem
    )
    return _with(case, tuple(texts))


def _with(case: Case, captions: tuple[str, ...]) -> Case:
    several = captions if len(captions) > 1 else ()
    return Case(case.id, case.image, case.facts, captions[0], case.group, case.source, captions=several)


def _facts(row: dict[str, Any], file: Path, number: int) -> dict[str, str]:
    told = row.get("facts") or {}
    try:
        told = json.loads(told) if isinstance(told, str) else told
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise UserError(f'The facts in row {number} of {file} are no record, like {{"modality": "CT"}}.')
    named = {name: row[name] for name in FACTS if row.get(name)}
    return {str(name): str(value) for name, value in {**told, **named}.items() if value}


def _split(row: dict[str, Any], case: Case, file: Path, number: int) -> str:
    if "split" not in row:
        return split_of(case.group, _SHARES)
    split = str(row["split"] or "").strip().lower()
    if not split:
        raise UserError(f"Row {number} of {file} has no split; fill the column or leave it out.")
    return _ALIASES.get(split, split)


def _warn_of_leaks(splits: dict[str, list[Case]], file: Path) -> None:
    groups = [{case.group for case in cases} for cases in splits.values()]
    shared = sum(map(len, groups)) - len(set().union(*groups))
    if shared:
        log.warning("%d groups of %s stand in several splits: scores on them will flatter", shared, file)
