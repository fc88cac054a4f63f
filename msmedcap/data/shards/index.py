"""``index.json`` of a folder of shards: what was written, how many samples each shard holds and the hash it must have."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from msmedcap.config import UserError

INDEX = "index.json"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*\.tar", re.ASCII)


@dataclass(frozen=True)
class Shard:
    """One tar file: its samples, the cases that could not be written, its size in bytes and its SHA-256."""

    name: str
    samples: int
    skipped: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardIndex:
    """What a folder of shards holds; ``fingerprint`` is of the cases asked for, ``size`` how many of them make a shard."""

    fingerprint: str
    size: int
    cases: int
    shards: tuple[Shard, ...] = ()

    @property
    def samples(self) -> int:
        """The samples in all shards written so far."""
        return sum(shard.samples for shard in self.shards)

    @property
    def skipped(self) -> int:
        """The cases that could not be written."""
        return sum(shard.skipped for shard in self.shards)

    @property
    def complete(self) -> bool:
        """Whether every case asked for was written or skipped."""
        return self.samples + self.skipped == self.cases


def read_index(folder: Path) -> ShardIndex:
    """The index of ``folder``; raises :class:`UserError` where there is none or it is damaged."""
    path = Path(folder) / INDEX
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        shards = tuple(Shard(**row) for row in read.pop("shards"))
        index = ShardIndex(**read, shards=shards)
        numbers = [index.size, index.cases, *(n for s in shards for n in (s.samples, s.skipped, s.bytes))]
        fine = all(isinstance(n, int) and n >= 0 for n in numbers) and all(_NAME.fullmatch(s.name) for s in shards)
    except FileNotFoundError:
        raise UserError(f"{folder} has no {INDEX}, so it is no folder of shards; write them with `shards`.") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        fine = False
    if not fine:
        raise UserError(f"{path} is damaged; remove it and write the shards again.")
    return index


def write_index(folder: Path, index: ShardIndex) -> None:
    """Put ``index`` into ``folder`` whole or not at all."""
    part = folder / f".{INDEX}.part"
    with part.open("w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(index), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, folder / INDEX)


def check_shards(folder: Path) -> list[str]:
    """A sentence for every shard of ``folder`` that is missing or not the file its index names; reads all of them."""
    wrong = []
    for shard in read_index(folder).shards:
        path = Path(folder) / shard.name
        if not path.is_file():
            wrong.append(f"{shard.name} is missing.")
        elif path.stat().st_size != shard.bytes or sha256(path) != shard.sha256:
            wrong.append(f"{shard.name} is damaged.")
    return wrong


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
