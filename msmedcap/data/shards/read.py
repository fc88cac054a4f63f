"""Read shards: a process's own part of the samples, shuffled, the same for the same seed and epoch, from any position on.

Comes in: a folder of shards, or tar files of anyone's in the same format. A tar is never extracted: only its headers are
followed and the bytes of a picture, a ``.json`` and a ``.txt`` are read; links, odd names and every other extension (pickles
among them, which the package's own decoders would load) stay where they are.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
import logging
import random
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from msmedcap.config import UserError
from msmedcap.data.scans.sniff import sniff
from msmedcap.data.shards.index import INDEX, read_index

log = logging.getLogger(__name__)

T = TypeVar("T")
PICTURES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "dcm")
_TEXTS = ("json", "txt")
_MAX_PICTURE, _MAX_TEXT = 256 << 20, 4 << 20
_REASONS = 3


@dataclass(frozen=True)
class Sample:
    """One picture's bytes (for :func:`msmedcap.data.scans.open_scan`) and what is known of it.

    ``position`` counts the process's samples of this epoch from 0, those skipped included: reading goes on with
    ``start=position + 1``.
    """

    id: str
    image: bytes = field(repr=False)
    facts: Mapping[str, str]
    captions: tuple[str, ...]
    group: str
    source: str
    text: str
    position: int


@dataclass(frozen=True)
class _Found:
    """Where in ``shard`` the members of a sample lie: (offset, size) by extension."""

    shard: Path
    key: str
    spans: Mapping[str, tuple[int, int]]


class _Bad(Exception):
    """A member that is not read; its text says which and why."""


def read_shards(
    source: str | Path,
    *,
    rank: int = 0,
    world: int = 1,
    seed: int = 0,
    epoch: int = 0,
    shuffle: int = 0,
    start: int = 0,
    on_bad: Callable[[str], None] | None = None,
) -> Iterator[Sample]:
    """The samples of process ``rank`` of ``world`` in epoch ``epoch``, from ``start`` on.

    ``source`` is a folder of shards or a pattern (``data/shard-{000000..000011}.tar``, ``data/*.tar``). Whole shards are
    dealt out where there are at least ``world`` of them, samples otherwise, so parts need not be equally long; the workers
    of a torch ``DataLoader`` share their process's part, each with positions of its own. ``shuffle`` is the size of the
    buffer samples are drawn from (0: as written). What is damaged is skipped: ``on_bad`` gets a sentence each, the log
    their number. Raises :class:`UserError` where there are no shards.
    """
    shards = _shards(source)
    rank, world = _worker(rank, world)
    if not 0 <= rank < world or start < 0 or shuffle < 0:
        raise UserError(f"There is no part {rank} of {world} from sample {start} on with a buffer of {shuffle}.")
    return _read(shards, rank, world, f"{seed} {epoch}", shuffle, start, _Counter(on_bad))


class _Counter:
    """Counts what is skipped and passes on why."""

    def __init__(self, on_bad: Callable[[str], None] | None) -> None:
        self.on_bad, self.count, self.first = on_bad, 0, list[str]()

    def __call__(self, sentence: str) -> None:
        self.count += 1
        if len(self.first) < _REASONS:
            self.first.append(sentence)
        if self.on_bad is not None:
            self.on_bad(sentence)


def _read(
    shards: Mapping[Path, int | None], rank: int, world: int, seed: str, shuffle: int, start: int, bad: _Counter
) -> Iterator[Sample]:
    order = list(shards)
    if shuffle:
        random.Random(seed).shuffle(order)
    dealt = len(order) >= world
    found = (one for path in (order[rank::world] if dealt else order) for one in _samples(path, shards[path], bad))
    mine = found if dealt else itertools.islice(found, rank, None, world)
    # Read when a sample enters the buffer, in the order of the file; of those before ``start`` only what is left in it.
    entries = ((one, _try(one) if place >= start else None) for place, one in enumerate(mine))
    drawn = _shuffled(entries, shuffle, random.Random(f"{seed} {rank} {world}"))
    for position, (one, read) in enumerate(drawn):
        if position < start:
            continue
        read = read or _try(one)
        if isinstance(read, str):
            bad(read)
            continue
        yield Sample(**read, position=position)
    if bad.count:
        log.warning("%d samples or members of the shards were skipped. %s", bad.count, " ".join(bad.first))


def _shuffled(items: Iterator[T], size: int, draw: random.Random) -> Iterator[T]:
    """``items`` in an order drawn from a buffer of ``size`` of them; as they come where that is 0."""
    if not size:
        yield from items
        return
    buffer = list(itertools.islice(items, size))
    for item in items:
        at = draw.randrange(size)
        buffer[at], item = item, buffer[at]
        yield item
    draw.shuffle(buffer)
    yield from buffer


def _shards(source: str | Path) -> dict[Path, int | None]:
    """The tar files of ``source`` and how many samples each should hold, where an index says so."""
    folder = Path(source)
    if (folder / INDEX).is_file():
        found: dict[Path, int | None] = {folder / shard.name: shard.samples for shard in read_index(folder).shards}
    elif folder.is_dir():
        found = dict.fromkeys(sorted(folder.glob("*.tar")))
    else:
        from webdataset.shardlists import expand_urls  # type: ignore[import-untyped]

        names = [name for pattern in expand_urls(str(source)) for name in sorted(glob.glob(pattern)) or [pattern]]
        found = dict.fromkeys(Path(name) for name in names)
    if not any(path.is_file() for path in found):
        raise UserError(f"There are no shards at {source}; name a folder of them or a pattern such as data/*.tar.")
    return found


def _worker(rank: int, world: int) -> tuple[int, int]:
    if "torch" in sys.modules:
        from torch.utils.data import get_worker_info

        if (worker := get_worker_info()) is not None:
            return rank + world * worker.id, world * worker.num_workers  # a part of what is the process's own
    return rank, world


def _samples(path: Path, expected: int | None, bad: _Counter) -> Iterator[_Found]:
    """The samples of one shard by their headers; what the index promises and the file has not is one bad thing each."""
    from webdataset.tariterators import group_by_keys  # type: ignore[import-untyped]

    def twice(error: Exception) -> bool:
        bad(f"{path.name} holds a name twice.")
        return True

    count = 0
    for sample in group_by_keys(_members(path, bad), handler=twice):
        count += 1
        yield _Found(
            path, sample["__key__"], {name: span for name, span in sample.items() if not name.startswith("__")}
        )
    for _ in range(count, expected or 0):
        bad(f"{path.name} is cut short or damaged: it should hold {expected} samples, {count} were found.")


def _members(path: Path, bad: _Counter) -> Iterator[dict[str, Any]]:
    """The regular members of a tar as the package's grouping takes them, each with its (offset, size) instead of its bytes."""
    from webdataset.tariterators import base_plus_ext

    try:
        with tarfile.open(path, "r:") as tar:  # never a compressed one, which could unfold to any size
            end, last = path.stat().st_size, -1
            while (member := tar.next()) is not None and member.offset > last:
                last = member.offset
                name = PurePosixPath(member.name)
                odd = (
                    name.is_absolute() or ".." in name.parts or not member.name.isprintable() or len(member.name) > 255
                )
                if member.isdir():
                    continue
                if odd or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                    bad(f"{path.name} holds a link or an odd name, which is never read.")
                elif member.offset_data + member.size > end:
                    return  # what is missing is counted against the index
                elif (base_plus_ext(name.as_posix())[1] or "").lower() in (*PICTURES, *_TEXTS):
                    span = (member.offset_data, member.size)
                    yield {"fname": name.as_posix(), "data": span, "__url__": path.name}
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        bad(f"{path.name} cannot be read on ({type(error).__name__}).")


def _try(one: _Found) -> dict[str, Any] | str:
    """The sample's fields, or the sentence that says what is wrong with it."""
    try:
        return _fields(one)
    except _Bad as error:
        return f"{one.shard.name}, sample {one.key}: {error}"
    except OSError as error:
        return f"{one.shard.name}, sample {one.key}: it cannot be read ({type(error).__name__})."


def _fields(one: _Found) -> dict[str, Any]:
    suffix = next((suffix for suffix in PICTURES if suffix in one.spans), None)
    if suffix is None:
        raise _Bad("it has no picture.")
    read = {name: _bytes(one, name) for name in (suffix, *_TEXTS) if name in one.spans}
    image = read[suffix]
    if suffix != "dcm" and not sniff(image):
        raise _Bad("its picture is damaged.")
    record = _record(read.get("json", b"{}"))
    if record.get("sha256") not in (None, hashlib.sha256(image).hexdigest()):
        raise _Bad("its picture is not the one that was written.")
    facts, captions = record.get("facts") or {}, record.get("captions") or [_text(read.get("txt", b""))]
    defaults = {"id": one.key, "group": one.key, "source": one.shard.parent.name, "text": ""}
    known = {name: record.get(name, default) for name, default in defaults.items()}
    if not (isinstance(facts, dict) and isinstance(captions, list)):
        raise _Bad("its description is not as it should be.")
    if not all(isinstance(text, str) for text in [*facts.values(), *captions, *known.values()]):
        raise _Bad("its description is not as it should be.")
    if not captions[0]:
        raise _Bad("it has no caption.")
    return {"image": image, "facts": facts, "captions": tuple(captions), **known}


def _bytes(one: _Found, name: str) -> bytes:
    offset, size = one.spans[name]
    if size > (_MAX_TEXT if name in _TEXTS else _MAX_PICTURE):
        raise _Bad(f"its .{name} is far too large.")
    with one.shard.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _record(data: bytes) -> dict[str, Any]:
    try:
        record = json.loads(_text(data))
    except (ValueError, RecursionError):
        raise _Bad("its .json is damaged.") from None
    if not isinstance(record, dict):
        raise _Bad("its .json is damaged.")
    return record


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise _Bad("its text is damaged.") from None
