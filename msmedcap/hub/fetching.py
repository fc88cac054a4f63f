"""``pull``: a model folder from the hub or a mirror, resumed at the byte, refused where a hash does not fit, whole or not there.

Everything first lands in ``OUT/.partial``. Only when every file has its hash do they move into place, ``config.json`` last: a
folder without it is no model folder, so nothing ever loads half of one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from msmedcap import config as configs
from msmedcap.config import ModelsConfig, UserError
from msmedcap.hub import folder as folders
from msmedcap.hub.folder import CARD, CONFIG, LONGEST_MANIFEST, MANIFEST, Entry
from msmedcap.hub.sentences import one_sentence
from msmedcap.hub.sources import Source, open_source

log = logging.getLogger(__name__)

PARTIAL = ".partial"


def pull(repo: str, out: Path, *, revision: str | None = None, client: HfApi | None = None) -> Path:
    """Get the model folder ``repo`` (``USER/NAME``, ``USER/NAME@REVISION``, a path, ``file://…``) into ``out`` and return it.

    Files that are there and right are not fetched again; a stopped pull goes on at the byte. Raises :class:`UserError` with one
    sentence when a file does not fit its SHA-256 (it is removed, so that the next pull gets it anew), a name would leave the
    folder, the disk is full, or the hub does not answer.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder for the models.")
    with one_sentence(repo):
        source = open_source(repo, revision=revision, client=client)
        if source.folder is not None and out.resolve().is_relative_to(source.folder):
            raise UserError(f"{out} is in the folder to pull from; name another one to pull into.")
        wanted = _wanted(source)
        before = _before(out)
        _no_links(out, [*wanted, *before])
        present = _present(out, wanted)
        _no_strangers(out, wanted, before, present)
        out.mkdir(parents=True, exist_ok=True)
        staging = out / PARTIAL
        _tidy(staging, wanted)
        _fetch_all(source, wanted, present, staging)
        _install(out, wanted, present, stale=set(before) - set(wanted))
    return out


def _wanted(source: Source) -> dict[str, Entry]:
    """Every file to have, with its hash: from the manifest if there is one, else from what the place vouches for."""
    listed = source.entries()
    if CONFIG not in listed:
        raise UserError(f"{source.name} holds no {CONFIG}, so it is no model folder; published checkpoints need `convert` first.")
    if MANIFEST not in listed:
        log.info("%s has no %s; its files are checked against what the place itself says of them.", source.name, MANIFEST)
        for name in listed:  # from a hub's listing, which anyone may have made
            folders.safe_name(name, source.name)
        folders.no_clashes(listed, source.name)
        return {name: entry if entry.expected else _hashed(source, name, entry) for name, entry in listed.items()}
    claimed = folders.parse_manifest(_text(source, MANIFEST, listed[MANIFEST]), source.name)
    if CONFIG not in claimed:
        raise UserError(f"The {MANIFEST} of {source.name} does not list {CONFIG}; have the folder pushed again.")
    for name, entry in claimed.items():
        own = listed.get(name)
        if own is None:
            raise UserError(f"{source.name} lacks {name}, which its {MANIFEST} lists; have the folder pushed again.")
        if name == CARD and own.expected:  # the hub's page lets an owner edit the card, and the hub vouches for it
            claimed[name] = own
        elif own.bytes != entry.bytes or (own.sha256 and own.sha256 != entry.sha256):
            raise UserError(
                f"{name} at {source.name} is damaged: it is not the file its {MANIFEST} names ({own.bytes:,} bytes there, "
                f"{entry.bytes:,} listed); have the folder pushed again."
            )
    if others := sorted(set(listed) - set(claimed) - {MANIFEST}):
        log.info("Not in the %s of %s and left there: %s.", MANIFEST, source.name, ", ".join(others))
    return claimed


def _text(source: Source, name: str, entry: Entry) -> bytes:
    """A small file whole, checked as far as the place vouches for it."""
    content = b""
    for chunk in source.chunks(name, 0):
        content += chunk
        if len(content) > LONGEST_MANIFEST:
            raise UserError(f"The {name} of {source.name} is far too long; have the folder pushed again.")
    digest = entry.hasher()
    digest.update(content)
    if entry.expected and digest.hexdigest() != entry.expected:
        raise UserError(f"{name} from {source.name} arrived damaged; pull again.")
    return content


def _hashed(source: Source, name: str, entry: Entry) -> Entry:
    digest = hashlib.sha256()
    with folders.progress(entry.bytes, f"hashing {name}") as bar:
        for chunk in source.chunks(name, 0):
            digest.update(chunk)
            bar.update(len(chunk))
    return dataclasses.replace(entry, sha256=digest.hexdigest())


def _before(out: Path) -> dict[str, Entry]:
    """What an earlier pull put into ``out``."""
    try:
        return folders.parse_manifest((out / MANIFEST).read_bytes(), str(out))
    except (OSError, UserError):  # none, or not one of ours: then what lies there counts as somebody else's
        return {}


def _present(out: Path, wanted: Mapping[str, Entry]) -> set[str]:
    """The files that ``out`` has already, byte for byte."""
    there = {name: entry for name, entry in wanted.items() if _size(out / name) == entry.bytes}
    with folders.progress(sum(entry.bytes for entry in there.values()), f"checking {out}") as bar:
        return {name for name, entry in there.items() if entry.fits(out / name, bar)}


def _no_links(out: Path, names: list[str]) -> None:
    """Nothing below ``out`` may be written through a link, which could lead anywhere."""
    for name in (PARTIAL, MANIFEST, *names):
        for path in (Path(name), *Path(name).parents):
            if path != Path() and (out / path).is_symlink():
                raise UserError(f"{out / path} is a link, and a pull writes through none; remove it or name another folder.")
            if path != Path() and (out / PARTIAL / path).is_symlink():
                raise UserError(f"{out / PARTIAL} holds a link, which no pull made; remove that folder and pull again.")


def _no_strangers(out: Path, wanted: Mapping[str, Entry], before: Mapping[str, Entry], present: set[str]) -> None:
    """What no pull put into ``out`` is neither overwritten nor mixed with what this one brings."""
    if not out.is_dir():
        return
    for name, path in folders.walk(out):
        if name in before or name in present or name == MANIFEST:
            continue
        if name in wanted or path.suffix == ".safetensors" or name.endswith(folders.INDEX):
            raise UserError(f"{out} already holds a {name} that no pull put there; name an empty folder, or move that file away.")


def _tidy(staging: Path, wanted: Mapping[str, Entry]) -> None:
    """Drop what an earlier pull of something else left unfinished."""
    if staging.is_dir():
        for name, path in list(folders.walk(staging)):
            if name not in wanted:
                path.unlink()


def _fetch_all(source: Source, wanted: Mapping[str, Entry], present: set[str], staging: Path) -> None:
    """Every file that ``out`` lacks into ``staging``; the config first, which tells a model folder from any other repository."""
    missing = [name for name in sorted(wanted, key=lambda n: (n != CONFIG, n)) if name not in present]
    need = sum(max(0, wanted[n].bytes - _size(staging / n)) for n in missing)
    free = shutil.disk_usage(staging.parent).free
    if need > free:
        raise UserError(
            f"{source.name} needs {need / 1e9:.2f} GB more and the disk of {staging.parent} has {free / 1e9:.2f} GB free; "
            "free some space or name a folder on another disk."
        )
    with folders.progress(sum(entry.bytes for entry in wanted.values()), f"pull {source.name}") as bar:
        bar.update(sum(wanted[name].bytes for name in present))
        for name in missing:
            _fetch(source, name, wanted[name], staging / name, bar)
            if name == CONFIG:
                _check_config(source, staging)


def _check_config(source: Source, staging: Path) -> None:
    try:
        configs.read(ModelsConfig, staging / CONFIG)
    except UserError as error:
        shutil.rmtree(staging)
        raise UserError(
            f"{source.name} is not a model folder of this version; published checkpoints need `python -m msmedcap convert` first "
            f"({str(error).rstrip('.')})."
        ) from None


def _fetch(source: Source, name: str, entry: Entry, path: Path, bar: Any) -> None:
    """One file, from where it stopped; if what was kept turns out to belong to other bytes, once more from the start."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if _size(path) > entry.bytes:
        path.unlink()
    kept = _size(path)
    digest, size = entry.hasher(), 0
    for chunk in folders.read(path, bar=bar) if kept else ():
        digest.update(chunk)
        size += len(chunk)
    with path.open("ab") as file:
        for chunk in source.chunks(name, size) if size < entry.bytes else ():
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            bar.update(len(chunk))
            if size > entry.bytes:
                break
    if size < entry.bytes:
        raise UserError(f"{name} from {source.name} broke off at {size:,} of {entry.bytes:,} bytes; pull again to go on there.")
    if digest.hexdigest() == entry.expected:
        return
    path.unlink()
    bar.update(-size)
    if not kept:
        raise UserError(
            f"{name} from {source.name} is damaged: its hash is {digest.hexdigest()[:16]}…, not {entry.expected[:16]}…; it was "
            "removed: pull again, and if it stays so have the folder pushed again."
        )
    _fetch(source, name, entry, path, bar)


def _install(out: Path, wanted: Mapping[str, Entry], present: set[str], *, stale: set[str]) -> None:
    """Move what is staged into place. The old config leaves first, the new one comes last: in between there is no model folder."""
    staging = out / PARTIAL
    staged = [name for name in wanted if name not in present and name != CONFIG]
    if (staged or stale) and CONFIG in present:
        staging.mkdir(exist_ok=True)
        os.replace(out / CONFIG, staging / CONFIG)
    elif CONFIG not in present:
        (out / CONFIG).unlink(missing_ok=True)
    for name in staged:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(staging / name, out / name)
    for name in sorted(stale - {CONFIG}):
        (out / name).unlink(missing_ok=True)
    config = staging / CONFIG if (staging / CONFIG).is_file() else out / CONFIG
    at = {name: config if name == CONFIG else out / name for name in wanted}
    rows: dict[str, dict[str, str | int]] = {
        name: {"sha256": entry.sha256 or _sha256(at[name]), "bytes": entry.bytes} for name, entry in wanted.items()
    }
    folders.write_manifest(out, rows)
    if config != out / CONFIG:
        os.replace(config, out / CONFIG)
    shutil.rmtree(staging, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
