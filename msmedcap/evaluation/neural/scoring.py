"""Many pairs through one model: each distinct pair once, sorted by length, in batches, kept as they come, with an honest estimate.

Comes in: a :class:`Scorer` and pairs of reference and candidate. Goes out: its numbers for every pair, in the pairs' order,
and what happened on the way. The order of the pairs, the batch size and what was kept before change no number (beyond
the last bits of floating-point sums).
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from tqdm import tqdm

from msmedcap.config import UserError
from msmedcap.evaluation.foresight import duration
from msmedcap.evaluation.neural.store import Pair, Store, Value

log = logging.getLogger(__name__)

PROBES = 4  # batches measured before the estimate, spread over the lengths, after one that warms up
SAVE_EVERY = 2.0  # seconds; what a power cut may cost (writing after each fast batch would cost more than computing it)
WORTH_TELLING = 20.0  # seconds; a shorter run is over before its estimate is read


class Scorer(Protocol):
    """A metric with its model. ``key`` holds everything that fixes its numbers besides the two texts."""

    name: str
    key: str

    def __call__(self, pairs: Sequence[Pair]) -> list[Value]: ...


@dataclass(frozen=True)
class Run:
    """``numbers`` [N, width] float64 in the order of the pairs; ``cut`` and ``empty``: pairs with a shortened or an empty text."""

    numbers: np.ndarray
    cut: int
    empty: int
    computed: int


def run(scorer: Scorer, pairs: Sequence[Pair], *, store: Store, batch: int, progress: bool = True) -> Run:
    """Scores ``pairs`` (at least one), taking from ``store`` what is there and adding the rest batch by batch.

    Raises :class:`UserError` where a number is not finite, which half precision can cause; nothing of that batch is kept.
    """
    if batch < 1:
        raise UserError(f"The batch is {batch}; it must be at least 1.")
    distinct = list(dict.fromkeys(pairs))
    known = store.get(scorer.key, distinct)
    todo = sorted((p for p in distinct if p not in known), key=lambda p: (len(p[0]) + len(p[1]), p), reverse=True)
    batches = [todo[start : start + batch] for start in range(0, len(todo), batch)]
    with tqdm(
        total=len(todo), desc=scorer.name, unit="pair", disable=None if progress else True, file=sys.stderr
    ) as bar:
        clock = _Clock(scorer.name, batches, len(distinct) - len(todo))
        waiting: dict[Pair, Value] = {}
        saved = time.perf_counter()
        try:
            for index in clock.order():
                before = time.perf_counter()
                fresh = _compute(scorer, batches[index])
                waiting.update(fresh)
                now = time.perf_counter()
                clock.took(index, now - before)
                if now - saved >= SAVE_EVERY:
                    store.put(scorer.key, waiting)
                    known.update(waiting)
                    waiting, saved = {}, now
                bar.update(len(fresh))
        finally:
            store.put(scorer.key, waiting)
            known.update(waiting)
    values = [known[pair] for pair in pairs]
    empty = sum(not reference.strip() or not candidate.strip() for reference, candidate in pairs)
    numbers = np.array([value.numbers for value in values], dtype=np.float64)
    return Run(numbers, cut=sum(v.cut for v in values), empty=empty, computed=len(todo))


class _Clock:
    """Measures batches of several lengths first and says from them how long the rest will take."""

    def __init__(self, name: str, batches: Sequence[Sequence[Pair]], kept: int) -> None:
        self.name, self.kept = name, kept
        # A padded batch costs about as many positions as its longest pair has, times its pairs.
        self.costs = [
            len(chunk) * max(len(reference) + len(candidate) + 2 for reference, candidate in chunk) for chunk in batches
        ]
        self.pairs = sum(map(len, batches))
        spread = np.linspace(0, len(batches) - 1, PROBES + 2).round().astype(int)[1:-1]
        self.probes = list(dict.fromkeys(spread.tolist())) if len(batches) > PROBES + 2 else []
        self.seconds: dict[int, float] = {}

    def order(self) -> list[int]:
        """The longest batch first (if memory runs out, it does so now), then the probes, then the rest."""
        first = [0, *self.probes] if self.costs else []
        return first + [i for i in range(len(self.costs)) if i not in set(first)]

    def took(self, index: int, seconds: float) -> None:
        """Notes a batch; after the last probe the estimate is logged."""
        self.seconds[index] = seconds
        if self.probes and index == self.probes[-1]:
            left = self.estimate()
            if left >= WORTH_TELLING:
                log.info("%s: %d pairs to compute (%d were kept); measured %d of %d batches: about %s to go.", self.name,
                         self.pairs, self.kept, len(self.seconds), len(self.costs), duration(left))  # fmt: skip

    def estimate(self) -> float:
        """Seconds for the batches that were not run yet, from the probes' seconds per cost."""
        rate = sum(self.seconds[i] for i in self.probes) / sum(self.costs[i] for i in self.probes)
        return rate * sum(cost for i, cost in enumerate(self.costs) if i not in self.seconds)


def _compute(scorer: Scorer, pairs: Sequence[Pair]) -> dict[Pair, Value]:
    try:
        values = dict(zip(pairs, scorer(pairs), strict=True))
    except torch.cuda.OutOfMemoryError:
        values = {}  # the error holds the batch's tensors until this block is left, so the halves wait
    if not values:
        if len(pairs) == 1:
            raise UserError(f"{scorer.name} does not fit into the accelerator's memory; choose the device cpu.")
        half = len(pairs) // 2
        return {**_compute(scorer, pairs[:half]), **_compute(scorer, pairs[half:])}
    if not np.isfinite([value.numbers for value in values.values()]).all():
        raise UserError(f"{scorer.name} gave numbers that are not finite; choose the number type float32 or bfloat16.")
    return values
