"""One encoder's features of one kind of view on disk: a folder of safetensors shards, and where in them each sample lies.

The folder's name follows from the encoder's weights, the view, the augmentation draw and the stored type, so that a changed
encoder never finds another's features. A shard counts once it is renamed into place; it is never changed, only replaced.
Reading maps a shard, copies the rows asked for and lets go of it: memory does not grow with the number of samples.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from msmedcap.config import UserError, ViewSpec, to_json

log = logging.getLogger(__name__)

DTYPE = torch.bfloat16
ABOUT = "cache.json"
# Raised when an encoder's code, and with it what it makes of the same weights, changes.
VERSION = 1


@dataclass(frozen=True)
class Key:
    """What features depend on; ``weights`` is :func:`encoder_digest`, ``draw`` names the augmentation."""

    encoder: str
    weights: str
    view: ViewSpec
    draw: str
    dtype: str = str(DTYPE).removeprefix("torch.")
    version: int = VERSION

    @property
    def folder(self) -> str:
        """The name of the folder that holds such features."""
        return f"{self.encoder}-{hashlib.sha256(to_json(self).encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class StoredCache:
    """A cache that lies in a folder: which encoder (name and weights' digest), view size and draw, and its bytes."""

    folder: Path
    encoder: str
    weights: str
    size: int
    draw: str
    bytes: int


def encoder_digest(encoder: nn.Module) -> str:
    """A digest of the encoder's every tensor (name, type, shape, values) and of its config where it has one."""
    digest = hashlib.sha256(repr(getattr(encoder, "config", None)).encode())
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def list_caches(folder: Path) -> list[StoredCache]:
    """The caches in ``folder``, by name; any may be deleted while no training reads it.

    Others may be writing and deleting meanwhile: what has gone between the listing and the look is left out.
    """
    found = []
    for about in sorted(folder.glob(f"*/{ABOUT}")):
        with contextlib.suppress(FileNotFoundError):
            key = json.loads(about.read_text(encoding="utf-8"))["key"]
            size = sum(_size(path) for path in about.parent.iterdir())
            found.append(StoredCache(about.parent, key["encoder"], key["weights"], key["view"]["size"], key["draw"], size))
    return found


def _size(file: Path) -> int:
    """The bytes of ``file``; 0 of one that has gone (a part file is renamed, a claim removed by whoever is done with it)."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def name_of(ids: Sequence[str]) -> str:
    """The name of the shard that holds exactly these samples."""
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()[:32]


class Shelf:
    """The features of ``len(slots)`` samples (id → slot) under ``key`` in the folder ``root``."""

    def __init__(self, root: Path, key: Key, slots: Mapping[str, int], *, shape_of: Callable[[], tuple[int, ...]]) -> None:
        self.folder = root / key.folder
        self.shape = self._describe(key, shape_of)
        self._slots = slots
        self._files: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        # Of each slot: the shard (its number in _files; -1: none) and the row in it, and whether its picture could be read.
        self._place = torch.full((len(slots), 2), -1, dtype=torch.int64)
        self._good = torch.zeros(len(slots), dtype=torch.bool)
        self.refresh()

    @property
    def row_bytes(self) -> int:
        """The bytes of one sample's features."""
        return math.prod(self.shape) * DTYPE.itemsize

    def lacks(self, slots: Tensor) -> Tensor:
        """For each of ``slots [S]`` whether no shard holds it."""
        return self._place[slots, 0] < 0

    def good(self, slots: Tensor) -> Tensor:
        """For each of ``slots [S]`` whether its features are here, of a picture that could be read."""
        return self._good[slots]

    def forget_bad(self) -> None:
        """Count the samples whose pictures could not be read as lacking, so that they are tried again."""
        self._place[~self._good] = -1

    def refresh(self) -> None:
        """Find what other processes have finished since."""
        with os.scandir(self.folder) as entries:
            times = {e.name: e.stat().st_mtime_ns for e in entries if e.name.endswith(".safetensors")}
        for name in sorted(times):
            if self._seen.get(name) != times[name]:
                self._register(name)
                self._seen[name] = times[name]

    def read(self, slots: Tensor, dtype: torch.dtype) -> Tensor:
        """The features of ``slots [S]`` in that order as ``[S,…]``; all must be here."""
        out = torch.empty(len(slots), *self.shape, dtype=dtype)
        rows_of: dict[int, list[tuple[int, int]]] = {}
        for position, (file, row) in enumerate(self._place[slots].tolist()):
            rows_of.setdefault(file, []).append((position, row))
        names = list(self._files)
        for number, rows in rows_of.items():
            file = self.folder / names[number]
            try:
                with safe_open(file, framework="pt") as shard:
                    features = shard.get_slice("features")
                    for position, row in rows:
                        out[position] = features[row : row + 1][0]
            except (OSError, SafetensorError) as error:
                raise UserError(f"{file} can no longer be read ({error}); start again to make it anew.") from error
        return out

    def write(self, slots: Tensor, features: Tensor, good: Tensor, *, claimed: str, alone: bool) -> None:
        """Store ``features [S,…]`` of ``slots [S]`` and which pictures were ``good [S]`` as one shard, whole or not at all.

        ``claimed`` is the name of the claim; ``alone``: nobody else can be writing under it. Raises :class:`UserError` where
        the disk is full.
        """
        if alone:  # what else bears that name is of a process that died while it wrote
            for rest in self.folder.glob(f"{claimed}.*.part"):
                rest.unlink(missing_ok=True)
        keys = list(self._slots)
        ids = [keys[slot] for slot in slots.tolist()]
        words = torch.frombuffer(bytearray(json.dumps(ids).encode()), dtype=torch.uint8)
        new, name = self.folder / f"{claimed}.{uuid.uuid4().hex}.part", f"{name_of(ids)}.safetensors"
        try:
            save_file({"features": features, "good": good.to(torch.uint8), "ids": words}, new)
            new.chmod((self.folder / ABOUT).stat().st_mode)  # safetensors makes files that only their owner reads
            with open(new, "rb") as file:
                os.fsync(file.fileno())
            new.replace(self.folder / name)
        except (OSError, SafetensorError) as error:
            new.unlink(missing_ok=True)
            raise UserError(f"{self.folder} cannot be written ({error}); free some space there and start again.") from error
        self.refresh()

    def _describe(self, key: Key, shape_of: Callable[[], tuple[int, ...]]) -> tuple[int, ...]:
        about = self.folder / ABOUT
        if not about.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"key": json.loads(to_json(key)), "shape": shape_of()}, indent=2) + "\n"
            new = about.with_suffix(f".{uuid.uuid4().hex}.part")
            new.write_text(text, encoding="utf-8")
            new.replace(about)
        return tuple(json.loads(about.read_text(encoding="utf-8"))["shape"])

    def _register(self, name: str) -> None:
        try:
            with safe_open(self.folder / name, framework="pt") as shard:
                ids = json.loads(bytes(shard.get_tensor("ids").tolist()))
                good = shard.get_tensor("good").bool()
                if shard.get_slice("features").get_shape() != [len(ids), *self.shape]:
                    raise SafetensorError("its features have another shape")
        except (OSError, SafetensorError) as error:
            log.warning("%s is damaged (%s): its pictures are encoded again", self.folder / name, error)
            return
        number = self._files.setdefault(name, len(self._files))
        rows = [row for row, key in enumerate(ids) if key in self._slots]
        slots = torch.tensor([self._slots[ids[row]] for row in rows], dtype=torch.int64)
        # A picture that could not be read once may have been read since; never the other way round.
        news = ~self._good[slots]
        slots, kept = slots[news], torch.tensor(rows, dtype=torch.int64)[news]
        self._place[slots] = torch.stack([torch.full_like(kept, number), kept], dim=1)
        self._good[slots] = good[kept]
