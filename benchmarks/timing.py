"""How everything here is timed: two ways of doing one thing, alternating, medians, and their ratio.

Times of two runs on a shared machine cannot be compared, ratios of alternating calls in one process can. Comes in: two functions
that do the same work. Goes out: a :class:`Row` of the table.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch
from tqdm import tqdm


@dataclass(frozen=True)
class Row:
    """One line of the table: ``ours`` and ``peer`` in ``unit`` (None: nothing to compare with); ``goal`` bounds ours/peer."""

    group: str
    what: str
    ours: float
    peer: float | None = None
    unit: str = "s"
    goal: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """ours / peer; below 1 ours is faster or smaller."""
        return None if not self.peer else self.ours / self.peer


def pair(
    group: str,
    what: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    rounds: int = 5,
    goal: str = "",
    note: str = "",
    warm: bool = True,
) -> Row:
    """Median seconds of ``ours`` and ``peer``, called in turn (the order alternates too).

    ``warm``: one untimed call of each comes first.
    """
    if warm:
        ours(), peer()
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    both = [("ours", ours), ("peer", peer)]
    for index in tqdm(range(rounds), desc=what, leave=False, mininterval=1, disable=None):
        for name, call in both if index % 2 == 0 else both[::-1]:
            times[name].append(seconds(call))
    return Row(group, what, statistics.median(times["ours"]), statistics.median(times["peer"]), goal=goal, note=note)


def seconds(call: Callable[[], object]) -> float:
    """Wall seconds of one call, with the accelerator's queue drained before and after."""
    _drain()
    start = time.perf_counter()
    call()
    _drain()
    return time.perf_counter() - start


def resident() -> float:
    """This process's resident memory in GiB, after a collection."""
    gc.collect()
    return psutil.Process().memory_info().rss / 2**30


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Modules built inside are born in ``dtype``: a second copy in fp32 would not fit beside the first."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _drain() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
