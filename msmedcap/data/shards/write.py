"""Write cases as shards: one after the other, each whole or not there, finished ones kept when the work is taken up again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from msmedcap.config import UserError
from msmedcap.data.scans import ScanError
from msmedcap.data.sets import Case
from msmedcap.data.shards.bare import bare_picture
from msmedcap.data.shards.index import INDEX, Shard, ShardIndex, read_index, sha256, write_index

log = logging.getLogger(__name__)

SHARD_SIZE = 1000
_REASONS = 3


def write_shards(
    cases: Sequence[Case], out: Path, *, size: int = SHARD_SIZE, anonymous: bool = False, progress: bool = True
) -> ShardIndex:
    """Write ``cases`` into ``out`` as shards of ``size`` cases each, and return their index.

    A picture that cannot be read is counted and skipped. ``anonymous`` replaces every id and group by a number in order of
    appearance; of a DICOM they always are, for they may name a patient. Called again with the same cases it goes on after
    the last whole shard. Raises :class:`UserError` where ``out`` holds shards of other cases, or the disk is full.
    """
    if size < 1:
        raise UserError(f"A shard holds at least one sample, not {size}.")
    if not cases:
        raise UserError("There are no cases to write; check the dataset's folder and split.")
    out = Path(out)
    index = _begin(out, ShardIndex(_fingerprint(cases, size, anonymous), size, len(cases)))
    numbers = {group: number for number, group in enumerate(dict.fromkeys(case.group for case in cases))}
    kept = {shard.name: shard for shard in index.shards if _whole(out, shard)}
    index = dataclasses.replace(index, shards=())
    reasons: list[str] = []
    with tqdm(total=len(cases), desc="shards", unit="case", disable=None if progress else True, file=sys.stderr) as bar:
        for number, start in enumerate(range(0, len(cases), size)):
            name = f"shard-{number:06d}.tar"
            rows = range(start, min(start + size, len(cases)))
            if name not in kept:
                try:
                    kept[name] = _write(out, name, {row: cases[row] for row in rows}, numbers, anonymous, reasons)
                except OSError as error:
                    reason = error.strerror or type(error).__name__
                    raise UserError(
                        f"{out / name} cannot be written ({reason}); free some space and call again."
                    ) from error
            index = dataclasses.replace(index, shards=(*index.shards, kept[name]))
            write_index(out, index)
            bar.update(len(rows))
    if index.skipped:
        log.warning("%d of %d cases were skipped. %s", index.skipped, index.cases, " ".join(reasons))
    return index


def _begin(out: Path, asked: ShardIndex) -> ShardIndex:
    """The index to go on with; the folder is made if it is not there."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder for the shards.")
    if (out / INDEX).exists():
        found = read_index(out)
        if dataclasses.replace(found, shards=()) != asked:
            raise UserError(f"{out} holds shards of other cases or of another size; name an empty folder.")
        return found
    if out.is_dir() and any(out.glob("*.tar")):
        raise UserError(f"{out} holds tar files that no index lists; name an empty folder.")
    out.mkdir(parents=True, exist_ok=True)
    write_index(out, asked)  # from here on the folder is known as ours, also if no shard is ever finished
    return asked


def _whole(out: Path, shard: Shard) -> bool:
    path = out / shard.name
    return path.is_file() and path.stat().st_size == shard.bytes and sha256(path) == shard.sha256


def _write(
    out: Path, name: str, cases: Mapping[int, Case], numbers: Mapping[str, int], anonymous: bool, reasons: list[str]
) -> Shard:
    """One shard under ``name``; its members are called by the case's number, never by its id."""
    import webdataset  # type: ignore[import-untyped]  # imports torch, which takes seconds

    part, samples = out / f".{name}.part", 0
    with part.open("wb") as file:
        with webdataset.TarWriter(file, user="", group="", mode=0o644, encoder=False, mtime=0) as tar:
            for row, case in cases.items():
                try:
                    sample = _sample(row, case, numbers, anonymous)
                except (ScanError, OSError) as error:
                    if len(reasons) < _REASONS:
                        reason = str(error) if isinstance(error, ScanError) else "The file cannot be read."
                        reasons.append(f"{case.id}: {reason}")
                    continue
                tar.write({"__key__": f"{row:09d}", **sample})
                samples += 1
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, out / name)
    path = out / name
    return Shard(name, samples, len(cases) - samples, path.stat().st_size, sha256(path))


def _sample(row: int, case: Case, numbers: Mapping[str, int], anonymous: bool) -> dict[str, bytes]:
    """The members of one sample by their extension."""
    suffix, picture, kind = bare_picture(_read(case))
    hide = anonymous or kind == "DICOM"
    record: dict[str, Any] = {
        "id": f"case-{row}" if hide else case.id,
        "group": f"group-{numbers[case.group]}" if hide else case.group,
        "source": case.source,
        "facts": dict(case.facts),
        "captions": list(_captions(case)),
        "sha256": hashlib.sha256(picture).hexdigest(),
    }
    if case.text:
        record["text"] = case.text
    text = json.dumps(record, ensure_ascii=False)
    return {suffix: picture, "json": text.encode(), "txt": case.caption.encode()}


def _captions(case: Case) -> tuple[str, ...]:
    return getattr(case, "captions", ()) or (case.caption,)


def _read(case: Case) -> bytes:
    return case.read()


def _fingerprint(cases: Sequence[Case], size: int, anonymous: bool) -> str:
    """A hash of what the cases say and how they are to be written; where their pictures lie does not count."""
    digest = hashlib.sha256(json.dumps([size, anonymous]).encode())
    for case in cases:
        row = [case.id, case.group, case.source, *_captions(case), case.text, sorted(case.facts.items())]
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()
