"""The cache of a list of samples: what is lacking is encoded by whoever comes first, and any batch is read from disk.

Comes in: the samples' ids, the frozen encoders with their views, and (to fill it) a function that gives the views of rows. Goes
out: :class:`FeatureCache`. Equal ids share one picture's features; all processes of a training call ``fill`` and share the work.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from msmedcap.config import UserError, ViewSpec
from msmedcap.training.features.claims import Hold, claim
from msmedcap.training.features.shelf import DTYPE, Key, Shelf, encoder_digest, list_caches, name_of

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")

# Rows [B] → each encoder's views [B,3,S,S] by name, and optionally under BAD which pictures could not be read, [B] bool.
ViewsOf = Callable[[Tensor], Mapping[str, Tensor]]
BAD = "bad"
BATCH = 32
SHARD_BYTES = 128_000_000
SHARD_ROWS = 1024
WAIT_SECONDS = 0.2


class FeatureCache:
    """The frozen encoders' features of samples, by row; on disk in ``folder``, bfloat16.

    ``ids [P]`` name each sample's picture, uniquely among all that share the folder. ``draw`` names the augmentation whose
    views these are. Raises ``ValueError`` for no samples, for encoders without views, or not frozen ones.
    """

    def __init__(
        self,
        folder: Path,
        ids: Sequence[str],
        *,
        encoders: Mapping[str, nn.Module],
        specs: Mapping[str, ViewSpec],
        draw: str = "plain",
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        if not ids or not encoders or set(encoders) - set(specs):
            raise ValueError(f"A cache needs samples and a view for each encoder, not {len(ids)} and {list(specs)}.")
        if training := [n for n, e in encoders.items() if any(m.training for m in e.modules())]:
            raise ValueError(f"Freeze the encoders first: {', '.join(training)} would give other features each time.")
        self.folder = folder
        self._shard_bytes = shard_bytes
        self._encoders = dict(encoders)
        self._specs = {name: specs[name] for name in encoders}
        self._ids = list(dict.fromkeys(ids))
        slots = {key: slot for slot, key in enumerate(self._ids)}
        self._slot = torch.tensor([slots[key] for key in ids])
        self._first = torch.full((len(slots),), len(ids)).scatter_reduce(0, self._slot, torch.arange(len(ids)), "amin")
        keys = {name: Key(name, encoder_digest(e), specs[name], draw) for name, e in encoders.items()}
        self._shelves = {n: Shelf(folder, key, slots, shape_of=partial(self._shape, n)) for n, key in keys.items()}
        self._warn_of_outdated(keys)

    def __len__(self) -> int:
        return len(self._slot)

    def missing(self) -> Tensor:
        """The rows that some encoder has not seen yet."""
        return self._lacks(self._slot).nonzero()[:, 0]

    def good_rows(self) -> Tensor:
        """The rows whose features are here, of pictures that could be read."""
        return self._good(self._slot).nonzero()[:, 0]

    def bad_rows(self) -> Tensor:
        """The rows whose pictures could not be read."""
        return (~self._good(self._slot) & ~self._lacks(self._slot)).nonzero()[:, 0]

    def refresh(self) -> None:
        """Find what other processes have finished since."""
        for shelf in self._shelves.values():
            shelf.refresh()

    def bytes_in_all(self) -> int:
        """The size of the whole cache of these samples."""
        return sum(len(self._ids) * shelf.row_bytes for shelf in self._shelves.values())

    def bytes_to_write(self) -> int:
        """How much of it is still to be written."""
        slots = torch.arange(len(self._ids))
        return sum(int(shelf.lacks(slots).sum()) * shelf.row_bytes for shelf in self._shelves.values())

    def batch(
        self, rows: Tensor, *, only: Collection[str] | None = None, dtype: torch.dtype = torch.float32
    ) -> dict[str, Tensor]:
        """Features ``[B,…]`` by encoder (``only`` those named) of ``rows [B]``, in that order, on the CPU.

        Raises ``ValueError`` for rows that were never encoded or whose pictures could not be read.
        """
        slots = self._slot[rows.cpu()]
        if not (fine := self._good(slots)).all():
            names = [self._ids[slot] for slot in slots[~fine].tolist()]
            raise ValueError(f"{len(names)} of these samples have no features, such as {names[0]}; take good_rows() after fill().")
        return {n: s.read(slots, dtype) for n, s in self._shelves.items() if only is None or n in only}

    def fill(
        self, views_of: ViewsOf, *, batch: int = BATCH, option: str = "--cache", retry: bool = False, progress: bool = True
    ) -> None:
        """Encode what is missing, ``batch`` pictures at a time, beside any other process that does so; ends when all is there.

        ``retry`` tries pictures again that could not be read before. Raises :class:`UserError` where the disk lacks room
        (naming ``option``, with which the user chooses the folder) and ``FloatingPointError`` where an encoder gives no numbers.
        """
        if retry:
            for shelf in self._shelves.values():
                shelf.forget_bad()
        demand_room([self], option=option)
        rows = min(SHARD_ROWS, self._shard_bytes // max(shelf.row_bytes for shelf in self._shelves.values()))
        chunks = torch.arange(len(self._ids)).split(max(1, rows // batch) * batch)
        shown = None if progress else True
        with tqdm(total=len(self._ids), desc="features", unit="picture", disable=shown, file=sys.stderr) as bar:
            while lacking := [chunk for chunk in chunks if self._lacks(chunk).any()]:
                self._show(bar)
                # Each process begins elsewhere, so that they seldom meet, even on a disk without locks.
                start = zlib.crc32(f"{socket.gethostname()} {os.getpid()}".encode()) % len(lacking)
                taken = [self._take(chunk, views_of, batch, bar) for chunk in lacking[start:] + lacking[:start]]
                if not any(taken):
                    time.sleep(WAIT_SECONDS)  # the rest is in other hands; if they die, their claims come free
                self.refresh()
            self._show(bar)
        if len(bad := self.bad_rows()):
            log.warning("%d of %d samples have a picture that cannot be read; training goes on without them", len(bad), len(self))

    def _take(self, chunk: Tensor, views_of: ViewsOf, batch: int, bar: tqdm) -> bool:
        """Encode what ``chunk`` of slots lacks and nobody else is at; whether there was any."""
        name = name_of([self._ids[slot] for slot in chunk.tolist()])
        todo, alone = {}, {}
        with ExitStack() as claims:
            for encoder, shelf in self._shelves.items():
                if shelf.lacks(chunk).any() and (held := claims.enter_context(claim(shelf.folder / f"{name}.claim"))):
                    alone[encoder] = held is Hold.ALONE
                    shelf.refresh()  # who held the claim before us may have finished
                    if (lacks := shelf.lacks(chunk)).any():
                        todo[encoder] = chunk[lacks]
            if not todo:
                return False
            slots = torch.cat(list(todo.values())).unique()
            made, good = self._make(slots, todo, views_of, batch, bar)
            for encoder, mine in todo.items():
                fine = good[torch.searchsorted(slots, mine)]
                self._shelves[encoder].write(mine, made[encoder], fine, claimed=name, alone=alone[encoder])
        return True

    def _make(
        self, slots: Tensor, todo: Mapping[str, Tensor], views_of: ViewsOf, batch: int, bar: tqdm
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The features of each encoder's ``todo`` slots, and which of ``slots`` have a picture that could be read."""
        made: dict[str, list[Tensor]] = {encoder: [] for encoder in todo}
        good = []
        parts = slots.split(batch)
        for part, views in zip(parts, _ahead(lambda part: views_of(self._first[part]), parts), strict=True):
            good.append(~views[BAD] if BAD in views else torch.ones(len(part), dtype=torch.bool))
            for encoder, mine in todo.items():
                wanted = torch.isin(part, mine)
                chosen = self._checked(encoder, views, len(part))
                # Picking keeps no layout of memory, so nothing is picked where all are wanted.
                features = self._encode(encoder, chosen if wanted.all() else chosen[wanted])
                fine = good[-1][wanted]
                if not features[fine].isfinite().all():
                    raise FloatingPointError(f"The {encoder} encoder gives values that are no numbers; its weights are damaged.")
                features[~fine] = 0
                made[encoder].append(features)
            bar.update(len(part))
        return {encoder: torch.cat(parts) for encoder, parts in made.items()}, torch.cat(good)

    @torch.no_grad()
    def _encode(self, encoder: str, views: Tensor) -> Tensor:
        module = self._encoders[encoder]
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        if not len(views):
            return torch.empty(0, *self._shelves[encoder].shape, dtype=DTYPE)
        with torch.autocast(device.type, DTYPE):
            return module(views.to(device)).to("cpu", DTYPE).contiguous()

    def _shape(self, encoder: str) -> tuple[int, ...]:
        size = self._specs[encoder].size
        return tuple(self._encode(encoder, torch.zeros(1, 3, size, size)).shape[1:])

    def _checked(self, encoder: str, views: Mapping[str, Tensor], count: int) -> Tensor:
        wanted = (count, 3, self._specs[encoder].size, self._specs[encoder].size)
        if tuple(views[encoder].shape) != wanted:
            raise ValueError(f"The {encoder} views are {list(views[encoder].shape)}, but {list(wanted)} was asked for.")
        return views[encoder]

    def _lacks(self, slots: Tensor) -> Tensor:
        return torch.stack([shelf.lacks(slots) for shelf in self._shelves.values()]).any(0)

    def _good(self, slots: Tensor) -> Tensor:
        return torch.stack([shelf.good(slots) for shelf in self._shelves.values()]).all(0)

    def _show(self, bar: tqdm) -> None:
        bar.n = len(self._ids) - int(self._lacks(torch.arange(len(self._ids))).sum())
        bar.refresh()

    def _warn_of_outdated(self, keys: Mapping[str, Key]) -> None:
        for old in list_caches(self.folder):
            if old.encoder in keys and old.weights != keys[old.encoder].weights:
                size = f"{old.bytes / 1e9:.2f} GB"
                log.warning("%s (%s) was made by other weights of %s and is not used; delete it", old.folder, size, old.encoder)


def demand_room(caches: Sequence[FeatureCache], *, option: str) -> None:
    """Say how large ``caches`` (in one folder) are; raises :class:`UserError` where what is to be written does not fit the disk."""
    folder = caches[0].folder
    in_all, needed = (sum(size) / 1e9 for size in zip(*((c.bytes_in_all(), c.bytes_to_write()) for c in caches), strict=True))
    free = shutil.disk_usage(folder).free / 1e9
    log.info("feature cache in %s: %.2f GB, %.2f GB of it to be written, %.2f GB free", folder, in_all, needed, free)
    if needed > free:
        raise UserError(
            f"The feature cache takes {needed:.2f} GB more in {folder}, where {free:.2f} GB are free; "
            f"free some space or name a folder on a larger disk with {option}."
        )


def dataset_cache(
    count: int,
    views_of: ViewsOf,
    encoders: Mapping[str, nn.Module],
    specs: Mapping[str, ViewSpec],
    folder: Path,
    *,
    ids: Sequence[str],
    draw: str = "plain",
    batch: int = BATCH,
    option: str = "--cache",
    retry: bool = False,
) -> FeatureCache:
    """The filled cache of a dataset of ``count`` rows; :class:`FeatureCache` and its ``fill`` say what is what and what is raised.

    ``views_of(rows [B])`` gives each encoder's views ``[B,3,S,S]`` by name, and under ``"bad"`` (``[B]`` bool, where any) which
    pictures could not be read.
    """
    if len(ids) != count:
        raise ValueError(f"{count} rows need as many ids, not {len(ids)}.")
    cache = FeatureCache(folder, ids, encoders=encoders, specs=specs, draw=draw)
    cache.fill(views_of, batch=batch, option=option, retry=retry)
    return cache


def _ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The results in order; while one is in use the next is being made."""
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for item in items:
            done, waiting = waiting, pool.submit(function, item)
            if done:
                yield done.result()
        if waiting:
            yield waiting.result()
