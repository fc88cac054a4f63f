"""The SAM encoder's benchmark runs through at test size and compares every pair."""

from __future__ import annotations

import torch

from benchmarks import sam_encoder


def test_rows_at_test_size() -> None:
    rows = sam_encoder.rows(device=torch.device("cpu"), quick=True)
    assert len(rows) == len({row.what for row in rows}) == 6
    assert all(row.ours > 0 and row.peer and row.ratio for row in rows)
    assert [row.goal for row in rows] == ["≤ 0.67", "", "≤ 0.67", "", "≤ 1.05", "≤ 1.05"]
