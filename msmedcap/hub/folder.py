"""What of a model folder may travel, whether it is whole, and the manifest that says what each file must be.

Comes in: a folder, or the names and manifest another place claims to hold. Goes out: files that are safetensors or text under
harmless names, with their sizes and hashes, or one sentence that says which file is wrong.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from msmedcap import config as configs
from msmedcap.config import ModelsConfig, SegmenterConfig, UserError

log = logging.getLogger(__name__)

MANIFEST, CARD, CONFIG = "manifest.json", "README.md", "config.json"
SEGMENTER = "segmenter"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
KINDS = frozenset({".safetensors", ".json", ".txt", ".md"})
# Formats that can carry code, or are a training run's: none of them ever leaves, or is taken.
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".npy", ".npz", ".msgpack", ".h5"})
RUN_FOLDERS = frozenset({"state", "state.new", "state.old"})
RUN_FILES = ("optimizer", "scheduler", "random_states", "scaler", "sampler", "trainer_state", "training_args")
UNFINISHED = (".new", ".old")  # a part that a stopped conversion left beside the whole one
CHUNK = 1 << 20
LONGEST_MANIFEST = 16 << 20


@dataclass(frozen=True)
class Entry:
    """What a file must be: its size and its SHA-256, or (small files on the hub without one) its git blob id."""

    bytes: int
    sha256: str | None
    blob: str | None = None

    @property
    def expected(self) -> str:
        """The digest the file must have, in hex."""
        return self.sha256 or self.blob or ""

    def hasher(self) -> Any:
        """A fresh hash to feed the file's bytes to; its ``hexdigest()`` is to be :attr:`expected`."""
        return hashlib.sha256() if self.sha256 else hashlib.sha1(b"blob %d\0" % self.bytes, usedforsecurity=False)

    def fits(self, path: Path, bar: Any) -> bool:
        """Whether ``path`` is that file, byte for byte; ``bar`` counts what was read."""
        if not path.is_file() or path.stat().st_size != self.bytes:
            return False
        digest = self.hasher()
        for chunk in read(path, bar=bar):
            digest.update(chunk)
        return bool(digest.hexdigest() == self.expected)


def read(path: Path, start: int = 0, *, bar: Any = None) -> Iterator[bytes]:
    """The bytes of a file from ``start`` on, counted by ``bar`` if there is one."""
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(CHUNK):
            if bar is not None:
                bar.update(len(chunk))
            yield chunk


def progress(total: int, doing: str) -> Any:
    """A bar on stderr that counts bytes and shows itself after two seconds."""
    return tqdm(total=total, desc=doing, unit="B", unit_scale=True, delay=2, disable=None, file=sys.stderr)


def safe_name(name: str, where: str) -> PurePosixPath:
    """``name`` as a path below a model folder; :class:`UserError` if it could be written elsewhere or is of another kind."""
    path = PurePosixPath(name)
    odd = "\\" in name or ":" in name or not name.isprintable()
    if odd or path.is_absolute() or path.as_posix() != name or any(p.startswith(".") for p in path.parts):
        raise UserError(f"{where} names a file {name!r} that would not stay in the folder; nothing was taken from it.")
    if path.suffix.lower() in PICKLES:
        raise UserError(f"{where} lists {name}, a format that can carry code; only safetensors and text are taken.")
    if path.suffix not in KINDS:
        raise UserError(f"{where} lists {name}, which is neither safetensors nor text (json, txt, md); it was not taken.")
    return path


def walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file below ``folder`` that is not hidden, as (name with forward slashes, path), sorted; a link raises."""
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        for name in [*folders, *files]:
            path = Path(root, name)
            if name.startswith("."):
                continue
            if path.is_symlink():
                raise UserError(f"{path} is a link; make a copy of the folder with its links resolved (cp -rL) and use that.")
            if path.is_file():
                found.append((path.relative_to(folder).as_posix(), path))
    yield from sorted(found)


def model_files(folder: Path) -> dict[str, Path]:
    """The files of ``folder`` that may leave it: safetensors and text, none hidden, the manifest itself not among them.

    A pickle, a training state or a link raises :class:`UserError` naming it; files of other kinds stay behind with a note.
    """
    kept: dict[str, Path] = {}
    left: list[str] = []
    for name, path in walk(folder):
        parts = PurePosixPath(name).parts
        if RUN_FOLDERS & set(parts[:-1]) or parts[-1].startswith(RUN_FILES):
            raise UserError(f"{folder} holds a training run's state ({name}); push a model folder without it.")
        if path.suffix.lower() in PICKLES:
            raise UserError(f"{folder} holds {name}, a format that can carry code; take it out, only safetensors are pushed.")
        if name == MANIFEST:
            continue
        if path.suffix not in KINDS or any(p.endswith(UNFINISHED) for p in parts[:-1]):
            left.append(name)
            continue
        safe_name(name, str(folder))
        kept[name] = path
    if left:
        log.info("Left out, neither safetensors nor text of a finished part: %s.", ", ".join(left))
    return kept


def check(folder: Path) -> ModelsConfig:
    """The config of a model folder that is whole; :class:`UserError` says which file is missing, damaged or out of place.

    Whole means: ``config.json`` is one, at least one system (or stage-1 branch) is there with the frozen parts it needs, every
    safetensors file can be read, and every index fits its files. Where there is a segmenter it is whole, too, and SAM's
    encoder is there for it.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; name a model folder, such as checkpoints/demo.")
    config = configs.read(ModelsConfig, folder / CONFIG)
    files = model_files(folder)
    held = {name: _keys(path) for name, path in files.items() if path.suffix == ".safetensors"}
    for name, path in files.items():
        if name.endswith(".safetensors.index.json"):
            _check_index(path, PurePosixPath(name).parent, held)
    complete = [name for name in config.systems if f"systems/{name}/{CONFIG}" in files]
    if not complete and not any(name.startswith("alignment/") for name in held):
        raise UserError(f"{folder} holds no system's weights (systems/NAME/); make them with convert, train or demo-weights.")
    segmenter = any(name.startswith(f"{SEGMENTER}/") for name in files)
    if segmenter:
        configs.read(SegmenterConfig, folder / SEGMENTER / CONFIG)
    encoders = {config.branches[branch].encoder for name in complete for branch in config.systems[name]}
    needed = [f"systems/{name}" for name in complete] + sorted(encoders)
    if "/" not in config.opt:
        needed += [config.opt] if complete else []
    elif Path(config.opt).is_absolute() or ".." in Path(config.opt).parts:
        raise UserError(f"{folder / CONFIG} has the language model at {config.opt}, outside the folder; copy it to opt/.")
    needed += [SEGMENTER, "sam"] if segmenter else []
    for part in dict.fromkeys(needed):
        if not any(PurePosixPath(name).parent.as_posix() == part for name in held):
            users = ", ".join([*complete, *([SEGMENTER] if segmenter else [])])
            raise UserError(f"{folder} is not whole: {part}/ has no weights, and {users} cannot run without them.")
    return config


def manifest(folder: Path) -> dict[str, dict[str, str | int]]:
    """``{"name": {"sha256", "bytes"}}`` of every file that travels, sorted by name; a bar on stderr when it takes long."""
    files = model_files(folder)
    found: dict[str, dict[str, str | int]] = {}
    with progress(sum(p.stat().st_size for p in files.values()), "hashing") as bar:
        for name, path in sorted(files.items()):
            digest, size = hashlib.sha256(), 0
            for chunk in read(path, bar=bar):
                digest.update(chunk)
                size += len(chunk)
            found[name] = {"sha256": digest.hexdigest(), "bytes": size}
    return found


def write_manifest(folder: Path, entries: Mapping[str, Mapping[str, str | int]]) -> None:
    """``manifest.json``, in one step: it is the old one or the new one, never half of either."""
    new = folder / f".{MANIFEST}.new"
    new.write_text(json.dumps(dict(sorted(entries.items())), indent=1) + "\n", encoding="utf-8")
    os.replace(new, folder / MANIFEST)


def parse_manifest(text: bytes, where: str) -> dict[str, Entry]:
    """The entries of a manifest from elsewhere; anything but harmless names, hashes and sizes raises :class:`UserError`."""
    try:
        rows = json.loads(text)
        entries = {name: Entry(row["bytes"], row["sha256"]) for name, row in rows.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(f"The {MANIFEST} of {where} is damaged; have the folder pushed again.") from None
    for name, entry in entries.items():
        safe_name(name, f"The {MANIFEST} of {where}")
        hexadecimal = isinstance(entry.sha256, str) and len(entry.sha256) == 64 and set(entry.sha256) <= set("0123456789abcdef")
        if not hexadecimal or type(entry.bytes) is not int or entry.bytes < 0 or name == MANIFEST:
            raise UserError(f"The {MANIFEST} of {where} is damaged at {name}; have the folder pushed again.")
    no_clashes(entries, where)
    return entries


def no_clashes(names: Iterable[str], where: str) -> None:
    """No two names may be one file where upper and lower case are the same, and none may be a folder of another."""
    taken: dict[str, str] = {}
    for name in names:
        if (other := taken.setdefault(name.lower(), name)) != name:
            raise UserError(f"{where} lists both {other} and {name}, which some disks take for one file; nothing was taken.")
    for name in names:
        for parent in PurePosixPath(name.lower()).parents:
            if parent.as_posix() in taken:
                raise UserError(f"{where} lists {name} inside {taken[parent.as_posix()]}, which is a file; nothing was taken.")


def _keys(path: Path) -> set[str]:
    """The names in a safetensors file, whose header must fit its length."""
    try:
        with safe_open(path, framework="numpy") as file:
            return set(file.keys())
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}); make or copy it again before pushing.") from None


def _check_index(index: Path, part: PurePosixPath, held: Mapping[str, set[str]]) -> None:
    try:
        table: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {(part / shard).as_posix(): {k for k, s in table.items() if s == shard} for shard in set(table.values())}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{index} is not an index of weights; make or copy the folder again.") from None
    for name, keys in sorted(files.items()):
        if name not in held:
            raise UserError(f"{index.parent} is not whole: {index.name} lists {Path(name).name}, which is not there.")
        if lost := sorted(keys - held[name]):
            raise UserError(f"{index.parent} is not whole: {Path(name).name} lacks {lost[0]}, which {index.name} puts there.")
