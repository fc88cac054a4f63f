"""A small task whose state has every kind of part, trained in real processes that a test may kill or let meet."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from msmedcap.config import LoopConfig
from msmedcap.training.loop import fit
from msmedcap.training.processes import share

ROWS = 16


class Toy(nn.Module):
    """Everything whose state a run must carry on: weights, running statistics, and random numbers of three kinds."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.GELU(), nn.Linear(8, 1))

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        x, y = batch
        error = (self.body(x)[:, 0] + 0.1 * (random.random() + np.random.randn()) - y).square().mean()
        return {"loss": error, "size": self.body[0].weight.norm()}


class Plain(nn.Module):
    """Nothing random and nothing that one row has of another, so that a batch may be parted; half of it waits for odd batches."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1))
            self.sometimes = nn.Linear(4, 1)

    def forward(self, batch: tuple[Tensor, Tensor, int]) -> dict[str, Tensor]:
        x, y, number = batch
        said = self.body(x)[:, 0]
        if number % 2:
            said = said + self.sometimes(x)[:, 0]
        return {"loss": (said - y).square().mean()}


def batch_of(step: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(step))
    return x, x.sum(1)


def part_of(accumulate: int) -> Callable[[int], tuple[Tensor, Tensor, int]]:
    """This process's part of micro batch k, where ``accumulate`` of them make up a step's batch."""

    def part(k: int) -> tuple[Tensor, Tensor, int]:
        step, micro = divmod(k, accumulate)
        size = ROWS // accumulate
        x, y = (rows[micro * size : (micro + 1) * size][share(size)] for rows in batch_of(step))
        return x, y, step

    return part


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The log without the times."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A process of its own, quick to start: forked from one that has imported everything and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "tests.training.toy"])  # an optimiser would import the first
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def finish(*started: BaseProcess, seconds: float = 400) -> list[int | None]:
    """The exit codes once all have ended. One that fails ends the others too, which would wait for it; so does the time."""
    end = time.monotonic() + seconds
    try:
        while any(one.is_alive() for one in started) and time.monotonic() < end:
            if any(one.exitcode for one in started):
                break
            time.sleep(0.01)
    finally:
        if any(one.exitcode for one in started):
            for one in started:
                one.join(60)  # what stops by itself has a code of its own
        for one in started:
            if one.is_alive():
                one.kill()
            one.join(60)
    return [one.exitcode for one in started]


def train(folder: Path, config: LoopConfig) -> None:
    """A whole run of the toy, in a process started for it."""
    torch.set_num_threads(1)
    torch.rand(os.getpid() % 13)  # every process begins with other random numbers
    fit(Toy(), batch_of, config, folder, name="toy")


def train_until(folder: Path, config: LoopConfig, last: int) -> None:
    """As :func:`train`, but the power goes out at the ``last`` change to a file; what is then being written is half written."""
    changes = 0

    def failing(change: Callable[..., Any], *, half: bool = False) -> Callable[..., Any]:
        def changed(*arguments: Any, **options: Any) -> Any:
            nonlocal changes
            changes += 1
            if changes == last:
                if half:
                    arguments[1].write(b"half")
                    arguments[1].flush()
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **options)

        return changed

    torch.save = failing(torch.save, half=True)
    os.fsync = failing(os.fsync)
    os.unlink = failing(os.unlink)
    shutil.rmtree = failing(shutil.rmtree)
    Path.rename = failing(Path.rename)  # type: ignore[method-assign]
    Path.mkdir = failing(Path.mkdir)  # type: ignore[method-assign]
    train(folder, config)


def meet(index: int, processes: int, port: int, folder: Path, config: LoopConfig, last: int | None) -> None:
    """Process ``index`` of a run of :class:`Plain`, its weights go to ``folder``; at batch ``last`` number 1 is asked to stop."""
    torch.set_num_threads(1)
    place = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": processes, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({name: str(value) for name, value in place.items()})
    task = Plain()
    with torch.no_grad():
        task.body[0].bias.add_(float(index))  # whatever a process begins with, process 0's weights count

    def batch(k: int) -> tuple[Tensor, Tensor, int]:
        if k == last and index == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return part_of(config.accumulate)(k)

    fit(task, batch, config, folder, name="plain")
    torch.save(task.state_dict(), folder / f"weights-{index}.pt")


def free_port() -> int:
    with socket.socket() as open_socket:
        open_socket.bind(("127.0.0.1", 0))
        return int(open_socket.getsockname()[1])
