"""The decoding benchmark runs at test size, and both sides of a row do the work that it names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

benchmark = pytest.importorskip("benchmarks.decoding", reason="the benchmarks need psutil")


def test_each_way_to_decode_is_compared() -> None:
    rows = benchmark.rows(device=torch.device("cpu"), quick=True)
    assert len({row.what for row in rows}) == len(rows) == 10
    for row in rows:
        assert row.group == "decoding" and row.unit == "s" and row.ours > 0 and row.ratio
        assert row.goal.startswith("≤ ") and "threads" in row.note
    assert sum("greedy" in row.what for row in rows) == sum("5 beams" in row.what for row in rows) == 5


def test_both_sides_say_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: set[int] = set()

    def count(call: Callable[[], list[Any]]) -> int:
        found = call()
        lengths.update(len(getattr(row, "ids", row)) for row in found)
        return len(found)

    monkeypatch.setattr(benchmark, "pair", lambda group, what, ours, peer, **options: (count(ours), count(peer)))
    assert benchmark.rows(device=torch.device("cpu"), quick=True) == [(3, 1), (3, 3), (1, 1), (3, 3), (12, 3)] * 2
    assert lengths == {benchmark.TINY.tokens}
