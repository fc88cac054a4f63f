"""Saved states: whole weights from sharded ones, for any number of processes, and random numbers that go on."""

from __future__ import annotations

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, nn

from msmedcap.training import states
from tests.training.toy import finish, start

STEPS, CUT = 4, 2


def model() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2))
    return made, torch.optim.AdamW(made.parameters(), lr=0.1)


def learn(made: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        made(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def shard(index: int, folder: Path) -> None:
    """Process ``index`` of two that hold half of every weight: save after two steps, forget, go on from the state."""
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=index, world_size=2)
    mesh = distributed.init_device_mesh("cpu", (2,))
    for steps in (range(CUT), range(CUT, STEPS)):
        made, optimizer = model()
        fully_shard(made, mesh=mesh)
        optimizer = torch.optim.AdamW(made.parameters(), lr=0.1)
        found = states.newest(folder)
        if found:
            states.restore(made, optimizer, states.load(found[1]), sharded=True)
        learn(made, optimizer, steps)
        parts = states.learned(made, optimizer, sharded=True)
        states.save(folder, steps.stop, parts, keep=2, process=index, wait=distributed.barrier)
    whole = states.weights(made, sharded=True)
    assert bool(whole) is (index == 0)
    if index == 0:
        torch.save(whole, folder / "weights.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_weights_sharded_over_two_processes_are_saved_whole_and_go_on(tmp_path: Path) -> None:
    assert finish(*[start(shard, index, tmp_path) for index in range(2)]) == [0, 0]
    made, optimizer = model()
    learn(made, optimizer, range(STEPS))
    for key, value in torch.load(tmp_path / "weights.pt", weights_only=True).items():
        torch.testing.assert_close(value, made.state_dict()[key], msg=key)
    # And the state they saved is whole: it has every weight in full.
    parts = states.load(tmp_path / "states" / f"step-{CUT:08d}")
    made, optimizer = model()
    learn(made, optimizer, range(CUT))
    for key, value in made.state_dict().items():
        torch.testing.assert_close(parts["model"][key], value, msg=key)
    assert parts["optimizer"]["state"]["0.weight"]["exp_avg"].shape == (6, 4)


def test_the_state_is_there_for_every_process_once_its_save_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle, meeting = states._settle, threading.Barrier(2, timeout=30)

    def slow_disk(path: Path) -> None:
        time.sleep(0.2)
        settle(path)

    def save_and_look(index: int) -> tuple[int, Path] | None:
        states.save(tmp_path, 3, {"value": 1}, keep=1, process=index, wait=lambda: meeting.wait() and None)
        return states.newest(tmp_path)

    monkeypatch.setattr(states, "_settle", slow_disk)
    with ThreadPoolExecutor(2) as both:
        found = list(both.map(save_and_look, range(2)))
    assert found == [(3, tmp_path / "states" / "step-00000003")] * 2


def drawn() -> tuple[float, ...]:
    return random.random(), random.gauss(0, 1), float(np.random.rand()), float(np.random.randn()), float(torch.rand(()))


def test_random_numbers_go_on(tmp_path: Path) -> None:
    drawn()  # numpy and random hold back half of a pair of normal numbers
    states.save(tmp_path, 3, {}, keep=1)
    wanted = [drawn(), drawn()]
    path = tmp_path / "states" / "step-00000003"
    assert states.load_random_numbers(path)
    assert [drawn(), drawn()] == wanted
    assert not states.load_random_numbers(path, process=1)


def test_a_state_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    states.save(tmp_path, 3, {"value": 1}, keep=1)
    states.save(tmp_path, 3, {"value": 2}, keep=1)
    assert states.newest(tmp_path) == (3, tmp_path / "states" / "step-00000003")
    assert states.load(tmp_path / "states" / "step-00000003") == {"value": 1}


def test_the_newest_complete_state_is_found(tmp_path: Path) -> None:
    assert states.newest(tmp_path) is None
    for name in ("step-00000900", "step-00001000", "step-00002000.new", "else"):
        os.makedirs(tmp_path / "states" / name)
    assert states.newest(tmp_path) == (1000, tmp_path / "states" / "step-00001000")
