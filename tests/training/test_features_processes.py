"""The cache between real processes: killed in the middle of a write, two at once, one that hangs and dies, and flat memory."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.training import writing

ROOT = Path(__file__).resolve().parent.parent.parent


@contextmanager
def process(folder: Path, log: Path, mode: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.training.writing", str(folder), str(log), mode]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as one:
        try:
            yield one
        finally:
            one.kill()


def ended(one: subprocess.Popen[str]) -> str:
    out, errors = one.communicate(timeout=400)
    assert one.returncode == 0, errors
    return out


def encoded(*logs: Path) -> list[int]:
    return [int(line) for log in logs for line in log.read_text().splitlines()]


def everything_is_right(folder: Path) -> None:
    cache, rows = writing.cache(folder), torch.arange(writing.COUNT)
    assert len(cache.missing()) == 0
    assert torch.equal(cache.batch(rows)["toy"], writing.expected(rows))
    assert not [*folder.rglob("*.part"), *folder.rglob("*.claim")]


@pytest.mark.slow
def test_a_writer_killed_in_mid_write_leaves_whole_shards_and_the_next_one_makes_the_rest(tmp_path: Path) -> None:
    folder, log = tmp_path / "cache", tmp_path / "first"
    with process(folder, log, "die") as one:
        one.wait(timeout=400)
        assert one.returncode == -9
    assert len(list(folder.rglob("*.safetensors"))) == 2 and len(list(folder.rglob("*.part"))) == 1
    assert len(list(folder.rglob("*.claim"))) == 1

    cache, again = writing.cache(folder), tmp_path / "second"
    missing = cache.missing().tolist()
    assert len(missing) == writing.COUNT - 2 * writing.SHARD
    cache.fill(writing.noted(again, 0), batch=writing.BATCH, progress=False)
    assert sorted(encoded(again)) == missing
    everything_is_right(folder)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["work", "unlocked"])
def test_two_writers_share_the_work_and_where_there_are_locks_no_picture_is_encoded_twice(tmp_path: Path, mode: str) -> None:
    folder, logs = tmp_path / "cache", [tmp_path / "one", tmp_path / "two"]
    with process(folder, logs[0], mode) as one, process(folder, logs[1], mode) as two:
        until(lambda: all(log.with_suffix(".ready").is_file() for log in logs))
        for log in logs:
            log.with_suffix(".go").touch()
        ended(one)
        ended(two)
    assert all(log.stat().st_size for log in logs)  # each had its share
    times = Counter(encoded(*logs))
    assert times.keys() == set(range(writing.COUNT))
    assert mode == "unlocked" or set(times.values()) == {1}
    everything_is_right(folder)


@pytest.mark.slow
def test_a_writer_waits_for_another_and_takes_over_when_that_one_is_killed(tmp_path: Path) -> None:
    folder, logs = tmp_path / "cache", [tmp_path / "hangs", tmp_path / "waits"]
    with process(folder, logs[0], "hang") as hangs:
        until(logs[0].is_file)
        logs[1].with_suffix(".go").touch()
        with process(folder, logs[1], "work") as waits:
            until(lambda: len(list(folder.rglob("*.safetensors"))) == writing.COUNT // writing.SHARD - 1)
            with pytest.raises(subprocess.TimeoutExpired):
                waits.wait(timeout=1)
            assert set(encoded(logs[0])).isdisjoint(encoded(logs[1]))
            hangs.kill()
            ended(waits)
    everything_is_right(folder)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="this system does not say what a process holds")
def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    with process(tmp_path, tmp_path / "log", "memory") as one:
        assert int(ended(one)) < 60e6


def until(true: object, *, seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, "what was waited for never came"
        time.sleep(0.05)
