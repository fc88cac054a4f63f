"""The demo-scale rows: that each is measured, on the real page too."""

from __future__ import annotations

import pytest
import torch

demo_scale = pytest.importorskip("benchmarks.demo_scale", reason="the benchmarks need psutil and httpx")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_batches_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = demo_scale.batches(CPU, quick=True)
    assert [row.what.split(" ", 1)[0] for row in rows] == ["6", "a", "12", "12", "12"]
    assert all(row.group == "demo scale" and row.ours > 0 for row in rows[:4])
    assert rows[0].ratio and rows[1].ratio
    assert 0 < rows[3].ours <= (demo_scale.os.cpu_count() or 1) + 0.2


@pytest.mark.slow
def test_page_and_command_are_measured() -> None:
    seconds = [row for row in [*demo_scale.cold_start(CPU, times=1), *demo_scale.page(CPU, visits=2)] if row.unit == "s"]
    found = {row.what: row.ours for row in seconds}
    chain = [found[f"page: {what}"] for what in ("upload to first pixels", "upload to maps", "upload to the first words")]
    assert chain == sorted(chain) and chain[-1] <= found["page: upload to three captions"]
    assert found["cold start to the first captions (command)"] > 0
