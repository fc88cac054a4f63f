"""Many scans, captioned as each would be by itself, in their order and in flat memory: a thousand files or a hundred thousand.

Comes in: files, their bytes or open scans, taken one by one. Goes out: a :class:`BatchItem` for each. Batches go side by side
through worker threads, so that one decodes files while another computes. A picture is dropped once its views are made. What
fails together is tried in halves, in the end alone: a scan that fails disturbs no other.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from msmedcap import captioning, memory
from msmedcap.captioning import Asked, Features, Look, Reading
from msmedcap.checkpoints import Models
from msmedcap.config import UserError, ViewSpec
from msmedcap.data.scans import Scan, Window
from msmedcap.data.views import make_view

log = logging.getLogger(__name__)

Source: TypeAlias = str | Path | bytes | Scan

BATCH = 16
PIXELS_AT_ONCE = 16 * 256**2
"""How much of the largest view an encoder sees in one pass: 16 pictures of the demo's, one of SAM's 1024 x 1024."""
CACHE_BYTES = 2**30
"""How much a worker's captions may take for the keys and values of what they said so far."""
WORKERS = 2
_AHEAD = 2  # batches handed out before the first is done, so that no worker waits for a slow neighbour


@dataclass(frozen=True)
class BatchItem:
    """One scan's outcome: ``index`` in the order the scans came, and captions by system, or the ``error`` that kept them.

    ``warnings`` and ``window`` are what a :class:`~msmedcap.predictor.Predictor` would say. ``seconds`` is the scan's share of
    the time of its batch, beside which others may have run.
    """

    index: int
    captions: dict[str, str] = field(default_factory=dict)
    window: str = ""
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    error: Exception | None = None


def caption_many(
    models: Models,
    sources: Iterable[Source],
    *,
    systems: Sequence[str] | None = None,
    preset: str = "fast",
    prompt: str | None = None,
    window: str | Window | None = None,
    frame: int = 0,
    allow_burned_in: bool = False,
    batch: int = BATCH,
    workers: int | None = None,
) -> Iterator[BatchItem]:
    """A :class:`BatchItem` for each of ``sources``, in their order; options as for the predictor, the same for all scans.

    ``batch`` bounds the scans captioned together, ``workers`` the batches side by side (default: 2, or 1 where PyTorch may use
    one thread). Batches start at one scan, so that the first captions come early. Raises UserError, at once, on options that are
    wrong; whatever one scan raises is in its item.
    """
    if batch < 1 or (workers is not None and workers < 1):
        raise UserError("A batch holds at least one scan, and at least one worker is needed.")
    asked = captioning.ask(models, systems=systems, preset=preset, prompt=prompt)

    def look(source: Source) -> Look:
        return captioning.look(source, window=window, frame=frame, allow_burned_in=allow_burned_in)

    lane = _Lane(models, asked, look, batch)
    few = models.device.type == "cpu" and torch.get_num_threads() < WORKERS
    return _run(lane, iter(sources), batch, workers or (1 if few else WORKERS))


def _run(lane: _Lane, sources: Iterator[Source], batch: int, workers: int) -> Iterator[BatchItem]:
    threads = torch.get_num_threads()
    groups = _groups(sources, batch)
    start = list(islice(groups, 2))
    # Threads that split one small product wait for each other, workers with a product each do not; a single scan needs them.
    share = max(1, threads // min(workers, max(1, len(start))))
    pool = ThreadPoolExecutor(workers, "captions", initializer=torch.set_num_threads, initargs=(share,))
    waiting: deque[Future[list[BatchItem]]] = deque()
    try:
        for group in chain(start, groups):
            waiting.append(pool.submit(lane.caption, group))
            if len(waiting) > workers + _AHEAD:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _groups(sources: Iterator[Source], batch: int) -> Iterator[list[tuple[int, Source]]]:
    """The sources with their numbers in groups of 1, 1, 2, 4, ... up to ``batch``."""
    taken = 0
    numbered = enumerate(sources)
    while group := list(islice(numbered, min(batch, max(1, taken)))):
        taken += len(group)
        yield group


@dataclass
class _Work:
    """A scan on its way through a worker."""

    index: int
    source: Source | None
    views: dict[ViewSpec, Tensor] = field(default_factory=dict)
    window: str = ""
    warnings: tuple[str, ...] = ()
    reading: Reading = field(default_factory=Reading)
    captions: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"encode": 0.0, "decode": 0.0})
    error: Exception | None = None

    def item(self) -> BatchItem:
        """What is handed out of it."""
        told = (*self.warnings, *self.reading.warnings)
        if self.error is not None:
            return BatchItem(self.index, window=self.window, warnings=told, error=self.error)
        seconds = {name: round(value, 3) for name, value in self.seconds.items()}
        return BatchItem(self.index, self.captions, self.window, told, seconds)


class _Lane:
    """What a worker does with a group of scans; holds nothing of them between calls."""

    def __init__(self, models: Models, asked: Asked, look: Callable[[Source], Look], batch: int) -> None:
        self._models, self._asked, self._look = models, asked, look
        self._specs = captioning.specs(models, asked)
        pixels = max(spec.size for spec in self._specs) ** 2
        room = min(CACHE_BYTES, memory.free_bytes(models.device) // (4 * WORKERS))
        self._read = _Halving(self._read_part, "encode", min(batch, PIXELS_AT_ONCE // pixels))
        self._write = _Halving(self._write_part, "decode", min(batch, room // _scan_bytes(models, asked)))

    def caption(self, group: Sequence[tuple[int, Source]]) -> list[BatchItem]:
        """The items of a group of numbered sources."""
        works = [_Work(index, source) for index, source in group]
        for part in _parts(works, self._read.most):
            for work in part:
                self._open(work)
            self._read(part)
            for work in part:
                work.views.clear()
        self._write(works)
        return [work.item() for work in works]

    def _open(self, work: _Work) -> None:
        try:
            assert work.source is not None
            look = self._look(work.source)
            work.source, work.window, work.warnings = None, look.window, look.scan.warnings
            start = time.perf_counter()
            work.views = {spec: make_view(look.picture, spec) for spec in self._specs}
            work.seconds["encode"] = time.perf_counter() - start
        except Exception as error:  # whatever is wrong with one scan is its own
            work.error = error

    def _read_part(self, works: Sequence[_Work]) -> None:
        features = Features(self._models, lambda spec: torch.stack([work.views[spec] for work in works]))
        for work, reading in zip(works, captioning.read(self._models, self._asked, features, count=len(works)), strict=True):
            work.reading = reading

    def _write_part(self, works: Sequence[_Work]) -> None:
        readings = [work.reading for work in works]
        for work, captions in zip(works, captioning.write(self._models, self._asked, readings), strict=True):
            work.captions = captions


class _Halving:
    """Does a step for at most ``most`` scans at once; where it fails, for each half, until only those fail that fail alone."""

    def __init__(self, step: Callable[[Sequence[_Work]], None], clock: str, most: int) -> None:
        self._step, self._clock, self.most = step, clock, max(1, most)

    def __call__(self, works: Sequence[_Work]) -> None:
        """Do the step for the scans that have no error, and give an error to those that fail."""
        sound = [work for work in works if work.error is None]
        start = time.perf_counter()
        done = 0
        while done < len(sound):
            part = sound[done : done + self.most]
            self._try(part)
            done += len(part)
        for work in sound:
            work.seconds[self._clock] += (time.perf_counter() - start) / len(sound)

    def _try(self, works: Sequence[_Work]) -> None:
        half = len(works) // 2
        try:
            return self._step(works)
        except Exception as error:
            if not half:
                works[0].error = error
                return None
            log.warning("%d scans failed together (%s); trying them in halves", len(works), error)
            if _is_memory(error):
                self.most = min(self.most, half)  # the batches to come would fail in the same way
        # Outside of the handler: the failure holds on to everything the step had in memory.
        self._try(works[:half])
        self._try(works[half:])
        return None


def _scan_bytes(models: Models, asked: Asked) -> int:
    """The keys and values of all captions of one scan."""
    opt, decoding = models.frozen.opt, asked.decoding
    branches = [[branch for _, branch in models.captioners[name].named_branches()] for name in asked.names]
    queries = sum(branch.config.qformer.queries for system in branches for branch in system)
    said = decoding.beams * decoding.max_new_tokens + len(opt.prompt_ids(decoding.prompt))
    config = opt.model.config
    token = 2 * config.num_hidden_layers * config.hidden_size * opt.model.dtype.itemsize
    return token * (queries + len(branches) * said)


def _is_memory(error: Exception) -> bool:
    # On the CPU PyTorch raises a plain RuntimeError for it.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "memory" in str(error)


def _parts(works: Sequence[_Work], size: int) -> Iterator[Sequence[_Work]]:
    for start in range(0, len(works), size):
        yield works[start : start + size]
