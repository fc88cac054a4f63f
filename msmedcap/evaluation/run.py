"""Caption data sets into captions files: any systems, batched, resumable, by one process or several.

Comes in: a predictor and the cases of a data set. Goes out: a captions file (:mod:`~msmedcap.evaluation.captions_file`), each
row written as its caption comes. Under ``accelerate launch`` or ``torchrun`` each process captions its share of the cases on
its own device; the processes never talk, process 0 sees the others' rows on disk and makes one file of them all. So the folder
must be one that all see.

    python -m msmedcap evaluate --data medpix=PATH --split dev --out runs/scores
    accelerate launch --num_processes 4 -m msmedcap evaluate --models full --data roco=PATH --split test --out runs/scores
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from msmedcap.batch import BatchItem
from msmedcap.config import UserError
from msmedcap.data.scans import ScanError
from msmedcap.data.sets import Blob, Case, read_dataset
from msmedcap.evaluation.captions_file import CaptionsFile, Store, read
from msmedcap.evaluation.foresight import duration
from msmedcap.training.processes import place

log = logging.getLogger(__name__)

PATIENCE = 3600.0
"""Seconds that process 0 waits for the others without a new row of theirs: the largest models load for that long."""
_RECORDS = ("manifest.json", "training.json")
_LOOK = 2.0
_MEASURED = 64  # captions after which the time left is foreseen: the first batches are small and slow


class Captioner(Protocol):
    """What is asked of a predictor here: pictures in, the captions of every system out."""

    @property
    def systems(self) -> tuple[str, ...]:
        """The systems there are weights for."""

    def caption_many(self, sources: Iterable[Path | bytes], **options: Any) -> Iterator[BatchItem]:
        """An item for each picture, in their order; one that cannot be read has an error."""


@dataclass(frozen=True)
class DataSet:
    """The cases to caption: ``split`` of the data set ``name`` at ``path``, or the first ``limit`` of them.

    ``selection`` and ``clean`` as in :func:`msmedcap.data.sets.read_dataset`.
    """

    name: str
    path: Path
    split: str
    selection: str = ""
    clean: bool = False
    limit: int | None = None

    def cases(self) -> list[Case]:
        """The cases; raises :class:`UserError` where there is no such data set, split or selection, or it is empty."""
        cases = read_dataset(self.name, self.path, self.split, selection=self.selection, clean=self.clean)
        if self.limit is not None and self.limit < 1:
            raise UserError("--limit is a number of cases, at least 1.")
        if not cases:
            raise UserError(f"{self.name} has no cases in its split {self.split!r}.")
        return cases

    @property
    def file_name(self) -> str:
        """What its captions file is called; another selection or cleaning of the same split has another name."""
        parts = [
            self.name,
            *([self.selection] if self.selection else []),
            *(["clean"] if self.clean else []),
            self.split,
        ]
        return "-".join(parts) + ".jsonl"

    @property
    def folder(self) -> Path:
        """What pictures' paths are written relative to."""
        return self.path if self.path.is_dir() else self.path.parent


@dataclass(frozen=True)
class Captioned:
    """A data set's captions file and the ids of the cases that were asked for, which may be a part of it (None: all)."""

    file: CaptionsFile
    ids: frozenset[str] | None = None


def own_device(device: str | None) -> str | None:
    """The device of this process: the one named, else of several processes on one machine each takes its own GPU."""
    alone = place()[1] == 1
    if device is not None or alone or not torch.cuda.is_available():
        return device
    return f"cuda:{int(os.environ.get('LOCAL_RANK', place()[0])) % torch.cuda.device_count()}"


def caption_datasets(
    predictor: Captioner,
    data: Sequence[DataSet],
    *,
    out: Path,
    made_with: Mapping[str, Any],
    systems: Sequence[str] | None = None,
    preset: str = "fast",
) -> list[Captioned] | None:
    """Caption every data set into ``out``; None for a process that is not the first, whose work ends here.

    ``made_with`` says which weights; what else the captions depend on is added to it. Raises :class:`UserError` where files in
    ``out`` were made with something else, a data set is named twice, or another process stopped.
    """
    names = [item.file_name for item in data]
    if len(set(names)) < len(names):
        raise UserError("A data set is named twice; evaluate takes each once.")
    chosen = tuple(systems or predictor.systems)
    rank, processes = place()
    stores: list[tuple[Store, list[str]]] = []
    for item in data:
        cases = item.cases()
        header = {
            **made_with,
            "preset": preset,
            "systems": list(chosen),
            "data": item.name,
            "split": item.split,
            "selection": item.selection,
            "clean": item.clean,
            "cases": len(cases),
            "fingerprint": fingerprint(cases),
        }
        asked = list({case.id: case for case in cases[: item.limit]}.values())
        store = Store(out / item.file_name, header, rank=rank, processes=processes)
        share = asked[rank::processes]
        rows = caption_cases(predictor, share, store=store, folder=item.folder, systems=chosen, preset=preset)
        done = sum(case.id in store.done for case in share)
        for _ in tqdm(rows, item.name, len(share), initial=done, unit="scan", disable=None, file=sys.stderr):
            pass
        stores.append((store, [case.id for case in asked]))
    if rank:
        return None
    for store, ids in stores:
        if processes > 1:
            _await(store, ids, processes)
        store.merge(ids)
    return [Captioned(read(store.file), frozenset(ids)) for store, ids in stores]


def caption_cases(
    predictor: Captioner,
    cases: Sequence[Case],
    *,
    store: Store,
    folder: Path,
    systems: Sequence[str] | None = None,
    preset: str = "fast",
) -> Iterator[Mapping[str, Any]]:
    """Caption the cases that ``store`` does not hold, each once, and yield each row when it is on disk.

    A picture that cannot be read keeps empty captions and the reason, and counts as wrong. Whatever else goes wrong is raised,
    and nothing of that case is kept.
    """
    todo = list({case.id: case for case in cases if case.id not in store.done}.values())
    if not todo:
        return
    items = predictor.caption_many((_source(case) for case in todo), systems=systems, preset=preset)
    yield from store.append(
        _foreseen((_row(case, item, folder) for case, item in zip(todo, items, strict=True)), len(todo))
    )


def fingerprint(cases: Iterable[Case]) -> str:
    """A short digest of what the cases say, so that captions of another state of the data are told apart."""
    digest = hashlib.sha256()
    for case in cases:
        digest.update(json.dumps([case.id, case.group, dict(case.facts), case.references]).encode())
    return digest.hexdigest()[:16]


def weights_digest(folder: Path) -> str:
    """A short digest of the configs and weights below ``folder``, so that captions of other weights are told apart.

    What captions do not depend on is left out: the segmenter, and the records of training and of publishing.
    """
    digest = hashlib.sha256()
    files = (p for p in folder.rglob("*") if p.suffix in (".json", ".safetensors") and p.name not in _RECORDS)
    for file in sorted(p for p in files if p.relative_to(folder).parts[0] != "segmenter"):
        digest.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as data:
            digest.update(hashlib.file_digest(data, "sha256").digest())
    return digest.hexdigest()[:16]


def _source(case: Case) -> Path | bytes:
    """What is captioned; nothing, which is no picture, where the bytes cannot be had."""
    if case.box is None and isinstance(case.image, Path):
        return case.image
    try:
        return case.read()
    except ScanError:
        return b""


def _row(case: Case, item: BatchItem, folder: Path) -> dict[str, Any]:
    if item.error is not None and not isinstance(item.error, (ValueError, OSError)):
        raise item.error
    return {
        "id": case.id,
        "group": case.group,
        "source": case.source,
        "image": None if isinstance(case.image, Blob) else os.path.relpath(case.image, folder),
        "facts": dict(case.facts),
        "references": list(case.references),
        "captions": item.captions,
        "error": None if item.error is None else str(item.error),
        **({"box": list(case.box)} if case.box is not None else {}),
    }


def _foreseen(rows: Iterable[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
    """The rows; says once, as soon as it has been measured, how long all of them will take."""
    start = time.monotonic()
    for count, row in enumerate(rows, 1):
        if count == _MEASURED and total > 2 * _MEASURED:
            each = (time.monotonic() - start) / count
            log.info(
                "%s captions to go: about %s, at %.2f s each.",
                f"{total - count:,}",
                duration(each * (total - count)),
                each,
            )
        yield row


def _await(store: Store, ids: Sequence[str], processes: int) -> None:
    """Wait until every case has a row; the other processes write theirs beside ours."""
    since = time.monotonic()
    missing = store.missing(ids)
    pause = max(_LOOK, 5 * (time.monotonic() - since))  # a look reads the files
    if missing:
        log.info("Waiting for %d captions of the other %d processes.", missing, processes - 1)
    while missing:
        time.sleep(pause)
        left = store.missing(ids)
        if left < missing:
            missing, since = left, time.monotonic()
        elif time.monotonic() - since > PATIENCE:
            raise UserError(f"{missing} captions of other processes do not come; run the same command again to go on.")
