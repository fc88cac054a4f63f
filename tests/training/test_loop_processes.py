"""Two processes that meet over gloo train as one that holds the whole batch, stopped in between or not."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from msmedcap.config import LoopConfig, UserError
from msmedcap.training.processes import place, share
from tests.training.toy import finish, free_port, meet, rows_of, start

CONFIG = LoopConfig(steps=8, lr=1e-2, warmup=2, precision="no", save_every=3, ema=0.9)


def run(folder: Path, config: LoopConfig, processes: int, *, last: int | None = None) -> list[int | None]:
    port = free_port()
    return finish(*[start(meet, index, processes, port, folder, config, last) for index in range(processes)])


def weights(folder: Path, index: int) -> dict[str, Tensor]:
    return torch.load(folder / f"weights-{index}.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_train_as_one(tmp_path: Path, accumulate: int) -> None:
    config = dataclasses.replace(CONFIG, accumulate=accumulate)
    for processes in (1, 2):
        assert run(tmp_path / str(processes), config, processes) == [0] * processes
    alone, together = rows_of(tmp_path / "1"), rows_of(tmp_path / "2")
    assert [row["step"] for row in together] == list(range(8))
    for a, b in zip(alone, together, strict=True):
        assert b == pytest.approx(a, rel=1e-4)
    ours, theirs = weights(tmp_path / "2", 0), weights(tmp_path / "2", 1)
    for key, wanted in weights(tmp_path / "1", 0).items():
        assert torch.equal(ours[key], theirs[key]), key
        torch.testing.assert_close(ours[key], wanted, atol=5e-6, rtol=1e-4, msg=key)


@pytest.mark.slow
def test_a_stop_that_one_process_is_asked_for_stops_both_at_one_step_and_both_go_on(tmp_path: Path) -> None:
    codes = run(tmp_path / "cut", CONFIG, 2, last=4)
    # Process 1 had the signal; process 0 ends as after Ctrl-C.
    assert codes == [1, 128 + signal.SIGTERM]
    state = tmp_path / "cut" / "states" / "step-00000005"
    assert sorted(p.name for p in state.iterdir()) == ["random-0.pt", "random-1.pt", "state.pt"]
    for folder in ("cut", "whole"):
        assert run(tmp_path / folder, CONFIG, 2) == [0, 0]
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    for key, wanted in weights(tmp_path / "whole", 0).items():
        assert torch.equal(weights(tmp_path / "cut", 1)[key], wanted), key


def test_a_process_alone_has_every_row() -> None:
    assert place() == (0, 1)
    assert share(6) == slice(0, 6)


def test_shares_make_the_batch_and_an_uneven_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    rows: list[int] = []
    for index in range(4):
        monkeypatch.setenv("RANK", str(index))
        assert place() == (index, 4)
        rows += range(12)[share(12)]
    assert rows == list(range(12))
    with pytest.raises(UserError, match="A batch of 6 cannot be shared equally by 4 processes; choose a multiple of 4"):
        share(6)
