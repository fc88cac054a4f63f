"""Several data sets as one index that is drawn from by weight, and its pictures opened one at a time.

Comes in: :class:`~msmedcap.training.config.DataPart`. Goes out: rows, numbers of samples in the parts laid end to end, as a pure
function of how many were drawn before: the same whoever asks and wherever a run goes on. A part is gone through in a shuffled
order, each of its pictures once before any comes again. A picture that cannot be read gives way to the next good one of its part,
the same in every process.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msmedcap.config import UserError
from msmedcap.data.scans import Scan, ScanError, open_scan
from msmedcap.data.sets import Case, Skipped, clean_caption, open_case, read_dataset
from msmedcap.data.shards.stored import stored_cases
from msmedcap.training.config import DataPart

# So many draws hold each part exactly by its weight, in a shuffled order.
BLOCK = 10_000


@dataclass(frozen=True)
class Picture:
    """What training sees of a sample: ``pixels`` uint8 ``[H,W,3]`` and everything that was said of it."""

    pixels: np.ndarray
    captions: tuple[str, ...]


class Mixture:
    """The samples of ``parts`` as one index; ``seed`` shuffles them.

    Raises :class:`UserError` for a part that cannot be found or is empty.
    """

    def __init__(self, parts: Sequence[DataPart], *, seed: int = 0) -> None:
        self.parts, self.seed, self.skipped = tuple(parts), seed, Skipped()
        read = [read_part(part) for part in parts]
        self.cases, self._openers = [cases for cases, _ in read], [opener for _, opener in read]
        if empty := [part.name for part, cases in zip(parts, self.cases, strict=True) if not cases]:
            raise UserError(f"There are no pictures in {', '.join(empty)}; check the path and the split.")
        self.starts = [0, *accumulate(len(cases) for cases in self.cases)]
        self._quotas = _quotas([part.weight for part in parts])
        self._bad: set[int] = set()
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.starts[-1]

    def rows(self, first: int, count: int) -> Tensor:
        """The samples of draws ``first`` to ``first + count - 1``: ``[count]``."""
        with self._lock:
            return torch.tensor([self._row(place) for place in range(first, first + count)])

    def part_of(self, row: int) -> int:
        """The number of the part that sample ``row`` belongs to."""
        return bisect.bisect_right(self.starts, row) - 1

    def case(self, row: int) -> Case:
        """What is known of sample ``row``."""
        part = self.part_of(row)
        return self.cases[part][row - self.starts[part]]

    def next_of_part(self, row: int) -> int:
        """The sample after ``row`` in its part, after the last the first."""
        part = self.part_of(row)
        start, end = self.starts[part], self.starts[part + 1]
        return start + (row + 1 - start) % (end - start)

    def good(self, row: int, known: Callable[[int], bool]) -> int:
        """``row``, or the next sample of its part that is ``known`` to be good; :class:`UserError` where none is."""
        found = row
        while not known(found):
            if (found := self.next_of_part(found)) == row:
                name = self.parts[self.part_of(row)].name
                raise UserError(f"None of the pictures of {name} can be read; check its path ({self.skipped}).")
        return found

    def open(self, row: int) -> Picture:
        """The picture of sample ``row``, or of the next of its part that can be read; a bad one is counted once."""
        found: list[Picture] = []

        def readable(row: int) -> bool:
            if row not in self._bad and (picture := self.read(row)):
                found.append(picture)
            return bool(found)

        self.good(row, readable)
        return found[0]

    def read(self, row: int) -> Picture | None:
        """The picture of sample ``row``; None (and counted) where it cannot be read."""
        part = self.part_of(row)
        case = self.case(row)
        try:
            return Picture(self._openers[part](row - self.starts[part]).picture(), case.references)
        except (ScanError, OSError) as error:
            with self._lock:
                if row not in self._bad:
                    self._bad.add(row)
                    self.skipped.add(case, str(error))
            return None

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the samples' names and captions, in order; where their pictures lie does not count."""
        digest = hashlib.sha256()
        for part, cases in zip(self.parts, self.cases, strict=True):
            digest.update(f"{part.name} {part.weight} {len(cases)}\n".encode())
            for case in cases:
                digest.update("\0".join((case.id, *case.references, "\n")).encode())
        return digest.hexdigest()[:16]

    def share_of(self, kind: str) -> float:
        """How much of what is drawn is of ``kind`` (G or M)."""
        weights = [part.weight for part in self.parts]
        return sum(w for w, part in zip(weights, self.parts, strict=True) if part.kind == kind) / sum(weights)

    def _row(self, place: int) -> int:
        block, inside = divmod(place, BLOCK)
        parts, before = self._once(("block", block), lambda: self._block(block))
        part = int(parts[inside])
        turn = block * self._quotas[part] + int(before[inside])
        cycle, step = divmod(turn, len(self.cases[part]))
        order = self._once(("order", part, cycle), lambda: self._shuffled(f"{part} {cycle}", len(self.cases[part])))
        return self.starts[part] + int(order[step])

    def _block(self, number: int) -> tuple[Tensor, Tensor]:
        """The part of each draw of a block ``[BLOCK]``, and how many draws before it in the block are of that part."""
        quotas = torch.tensor(self._quotas)
        parts = torch.arange(len(quotas)).repeat_interleave(quotas)[self._shuffled(f"block {number}", BLOCK)]
        one_hot = torch.nn.functional.one_hot(parts, len(quotas))
        return parts, (one_hot.cumsum(0) - one_hot).gather(1, parts[:, None])[:, 0]

    def _shuffled(self, name: str, count: int) -> Tensor:
        return torch.randperm(count, generator=torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {name}".encode())))

    def _once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, kept while it is in use: a batch needs at most two blocks and two orders of a part."""
        if key not in self._kept:
            self._kept[key] = make()
            while len(self._kept) > 2 * len(self.parts) + 2:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def read_part(part: DataPart) -> tuple[list[Case], Callable[[int], Scan]]:
    """The cases of a part and what opens the picture of the one with a given number.

    Raises :class:`UserError` as :func:`msmedcap.data.sets.read_dataset` does, and for a selection from shards.
    """
    if part.name != "shards":
        path = Path(part.path)
        cases = read_dataset(
            part.name, path, part.split, selection=part.select, take_all=part.fewer, clean=part.clean
        )
        return cases, lambda number: open_case(cases[number])
    if part.select:
        raise UserError(f"A selection is made before shards are written; set select of {part.path} to nothing.")
    stored = stored_cases(part.path)
    cases, spans = [case for case, _ in stored], [span for _, span in stored]
    if part.clean:
        cases = [dataclasses.replace(case, captions=tuple(map(clean_caption, case.references))) for case in cases]
    return cases, lambda number: open_scan(spans[number].read())


def _quotas(weights: Sequence[float]) -> list[int]:
    """How many of :data:`BLOCK` draws are each part's: by weight, none without any."""
    exact = [weight / sum(weights) * BLOCK for weight in weights]
    quotas = [max(1, int(share)) for share in exact]
    while rest := BLOCK - sum(quotas):
        lacking = [share - quota for share, quota in zip(exact, quotas, strict=True)]
        quotas[lacking.index(max(lacking)) if rest > 0 else quotas.index(max(quotas))] += 1 if rest > 0 else -1
    return quotas
