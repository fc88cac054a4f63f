"""``download``: each public data set from its home, resumed at the byte, checked by hash where its home publishes one.

Comes in: a name of :data:`SOURCES` and a folder. Goes out: the folder in the layout its reader knows. What only a person can
get (a form to sign, terms to accept) is said in one sentence. What is finished stands in ``.download.json`` and is not fetched
again; delete that file to start over.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from msmedcap.config import UserError
from msmedcap.data.download.archives import unpack
from msmedcap.data.download.articles import fetch_pictures, wanted
from msmedcap.data.download.homes import listed, placed
from msmedcap.data.download.masks_csv import write_masks_csv
from msmedcap.data.download.sources import SOURCES, RemoteFile, Source
from msmedcap.data.download.transfer import Client, check_space, fetch, web

__all__ = ["SOURCES", "RemoteFile", "Source", "download"]

log = logging.getLogger(__name__)

DONE = ".download.json"


def download(name: str, out: Path, *, url: str = "", client: Client | None = None) -> Path:
    """Get the data set ``name`` into ``out`` and return that folder.

    ``url`` is the link that came in answer to a request, for a set that must be asked for. Raises :class:`UserError` with one
    sentence: no such set, what to do by hand, too little room (and how much it needs), a hash that does not fit, a home that
    does not answer. What has arrived is kept, so that calling again goes on there.
    """
    if name not in SOURCES:
        raise UserError(f"There is no data set {name!r} to download; there are {', '.join(SOURCES)}.")
    source, out, client = SOURCES[name], Path(out), client or web
    if source.by_hand and not url:
        raise UserError(
            f"{source.by_hand} Then call `download {name} --url LINK --out {out}`, or put {source.layout} under {out} yourself."
        )
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder for the data.")
    log.info("%s, from %s. Terms: %s.", source.title, source.home, source.terms)
    if url:
        files: tuple[RemoteFile, ...] = (RemoteFile(url, f"{name}.archive", unpack=True),)
    else:
        files = listed(source, client=client)
    out.mkdir(parents=True, exist_ok=True)
    _get_all(source, files, out, client)
    if source.articles:
        _get_pictures(source, out, client)
    if source.masks_csv:
        write_masks_csv(out)
    if source.afterwards:
        log.info("%s", source.afterwards)
    return out


def _get_all(source: Source, files: tuple[RemoteFile, ...], out: Path, client: Client) -> None:
    done = _done(out)
    left = [file for file in files if not _finished(file, done, out)]
    here = sum(_size(out / f"{file.path}.part") or _size(out / file.path) for file in left)
    total = sum(file.bytes for file in left)
    largest = max((file.bytes for file in left if file.unpack), default=0)
    # An archive is removed once unpacked: beside what is unpacked only one of them is on the disk at a time.
    check_space(out, total + largest - here, source.title)
    with _bar(total, source.name, "B") as bar:
        for file in left:
            path = out / file.path
            digest = fetch(file, path, client=client, arrived=bar.update)
            if file.unpack:
                count = unpack(path, out, place=lambda name: _place(source, name))
                if not count:
                    raise UserError(
                        f"{path} holds nothing of {source.layout}; its home has changed it, so unpack it by hand."
                    )
                path.unlink()
            done[file.path] = {"digest": file.digest, "sha256": digest, "bytes": file.bytes}
            _write_done(out, done)


def _place(source: Source, name: str) -> str:
    target = placed(source, name)
    return "" if source.leave and re.search(source.leave, target) else target


def _get_pictures(source: Source, out: Path, client: Client) -> None:
    rows = wanted(out)
    with _bar(len(rows), "pictures", "picture") as bar:
        missing = fetch_pictures(rows, client=client, bar=bar)
    if rows and missing == len(rows):
        raise UserError(
            f"None of the {missing:,} pictures of {source.title} is where PubMed Central keeps them; try again later."
        )
    if missing:
        log.warning("%d of %d pictures are no longer in PubMed Central's open-access subset.", missing, len(rows))


def _bar(total: int, doing: str, unit: str) -> Any:
    return tqdm(total=total or None, desc=doing, unit=unit, unit_scale=unit == "B", disable=None, file=sys.stderr)


def _finished(file: RemoteFile, done: Mapping[str, Any], out: Path) -> bool:
    entry = done.get(file.path)
    if not isinstance(entry, dict) or entry.get("digest") != file.digest or entry.get("bytes") != file.bytes:
        return False
    return file.unpack or (out / file.path).is_file() and (not file.bytes or _size(out / file.path) == file.bytes)


def _done(out: Path) -> dict[str, Any]:
    try:
        done = json.loads((out / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return done if isinstance(done, dict) else {}


def _write_done(out: Path, done: Mapping[str, Any]) -> None:
    part = out / f"{DONE}.part"
    part.write_text(json.dumps(done, indent=1), encoding="utf-8")
    os.replace(part, out / DONE)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
