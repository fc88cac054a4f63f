"""Real processes killed without warning, at any moment: the run goes on and ends bit for bit where it would have ended."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from msmedcap.config import LoopConfig
from tests.training.toy import finish, rows_of, start, train, train_until

LONG = LoopConfig(steps=240, lr=1e-2, warmup=3, precision="no", save_every=3, ema=0.9, seed=3, cycles=2, patience=200)
SHORT = LoopConfig(steps=7, lr=1e-2, warmup=3, precision="no", save_every=3, ema=0.9, seed=3, keep=1)
CHANGES = 25  # three saves make at least as many


def assert_equal(a: Any, b: Any, where: str = "") -> None:
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def assert_same_end(a: Path, b: Path, config: LoopConfig) -> None:
    """Weights, average, optimiser, scaler and early losses; the random numbers; the log; and nothing else lies there."""
    for file in ("state.pt", "random-0.pt"):
        x, y = (torch.load(f / "states" / f"step-{config.steps:08d}" / file, weights_only=True) for f in (a, b))
        assert_equal(x, y, file)
    assert rows_of(a) == rows_of(b)
    assert [row["step"] for row in rows_of(a)] == list(range(config.steps))
    assert [p.name for p in sorted((a / "states").iterdir())] == [p.name for p in sorted((b / "states").iterdir())]


def whole(folder: Path, config: LoopConfig) -> Path:
    assert finish(start(train, folder, config)) == [0]
    return folder


def written(folder: Path) -> int | None:
    """Which file the log is: a run that begins or goes on writes it anew."""
    return (folder / "log.jsonl").stat().st_ino if (folder / "log.jsonl").exists() else None


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    moments, kills, at = random.Random(7), 0, set()
    cut = tmp_path / "cut"
    for _ in range(100):
        before = written(cut)
        process = start(train, cut, LONG)
        while process.is_alive() and written(cut) == before:
            time.sleep(0.005)
        # The later, the longer: on a busy machine it must get somewhere too.
        process.join(moments.uniform(0.0, 0.8 + 0.2 * kills))
        if not process.is_alive():
            break
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        at.add(len(list((cut / "log.jsonl").open())))
    assert process.exitcode == 0
    assert kills >= 3 and len(at) >= 3
    assert_same_end(cut, whole(tmp_path / "whole", LONG), LONG)


@pytest.mark.slow
def test_killed_at_every_change_a_save_makes(tmp_path: Path) -> None:
    uncut = whole(tmp_path / "whole", SHORT)
    codes = []
    for last in range(1, 200):
        cut = tmp_path / f"cut-{last}"
        process = start(train_until, cut, SHORT, last)
        codes += finish(process)
        if codes[-1] == 0:
            break
        assert codes[-1] == -signal.SIGKILL
        assert_same_end(whole(cut, SHORT), uncut, SHORT)
    assert codes[-1] == 0 and len(codes) > CHANGES, len(codes)
