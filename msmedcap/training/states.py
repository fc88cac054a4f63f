"""The saved states of a run: everything it needs to go on as if it had never stopped.

A state is a folder ``states/step-N``: ``state.pt`` (weights, optimiser, average, scaler) and ``random-P.pt`` for each process P
(the random numbers of Python, numpy, torch and the GPU). It is written under another name, forced to disk and renamed, so that a
state that bears its name is complete whenever the run was killed. Reading takes tensors and plain values alone, never a pickled
object. Processes on several machines need one shared folder.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as whole

from msmedcap.config import UserError

WHOLE = whole.StateDictOptions(full_state_dict=True, cpu_offload=True)


def newest(folder: Path) -> tuple[int, Path] | None:
    """The step and the folder of the newest complete state of the run in ``folder``; UserError for what an older version left."""
    for name in ("state", "state.old"):
        if (folder / name).exists():
            raise UserError(
                f"{folder / name} was saved by an older version; this one cannot go on from it: delete it to train from the start."
            )
    found = [(int(m[1]), p) for p in (folder / "states").glob("step-*") if (m := re.fullmatch(r"step-(\d+)", p.name))]
    return max(found, default=None)


def save(
    folder: Path, step: int, parts: Mapping[str, Any], *, keep: int, process: int = 0, wait: Callable[[], None] = lambda: None
) -> None:
    """Save ``parts`` (tensors and plain values) and this process's random numbers as the state after ``step`` steps.

    Every process calls it at the same step, and ``wait`` returns once all have called it; number 0 writes ``parts``, then deletes
    all but the newest ``keep`` states. Once it returns the state is there for all. A state already there is left as it is.
    """
    states = folder / "states"
    done, new = states / f"step-{step:08d}", states / f"step-{step:08d}.new"
    there = done.exists()  # asked by all before any can rename
    wait()
    if there:
        return
    if process == 0:
        tidy(folder, keep=keep)
        new.mkdir(parents=True)
    wait()
    _write(new / f"random-{process}.pt", random_numbers())
    if process == 0:
        _write(new / "state.pt", dict(parts))
    wait()
    if process == 0:
        _settle(new)
        new.rename(done)
        _settle(states)
        tidy(folder, keep=keep)
    # None may ask for the newest state before this one is it: they would go on from two, and wait for each other for ever.
    wait()


def tidy(folder: Path, *, keep: int) -> None:
    """Delete what a killed save left, and all but the newest ``keep`` states; process 0 alone calls it."""
    states = folder / "states"
    for leftover in states.glob("*.new"):
        shutil.rmtree(leftover)
    for old in sorted(states.glob("step-*"))[:-keep]:
        # Renamed first: a state half deleted must not bear a state's name.
        gone = old.with_suffix(".new")
        old.rename(gone)
        shutil.rmtree(gone)


def load(path: Path) -> dict[str, Any]:
    """The parts of the state in ``path``, on the CPU; UserError where it cannot be read."""
    return _read(path / "state.pt")


def load_random_numbers(path: Path, *, process: int = 0) -> bool:
    """Continue the random numbers of ``process``; False where the state holds none for it (it was saved by fewer processes)."""
    file = path / f"random-{process}.pt"
    if not file.is_file():
        return False
    set_random_numbers(_read(file))
    return True


def random_numbers() -> dict[str, Any]:
    """Where the random numbers of Python, numpy, torch and (once it is in use) the GPU stand, as tensors and plain values."""
    drawn: Any = np.random.get_state(legacy=False)
    state = {
        "python": random.getstate(),
        "numpy": {"key": torch.from_numpy(drawn["state"]["key"].astype(np.int64)), "pos": int(drawn["state"]["pos"])},
        "gauss": {"has_gauss": int(drawn["has_gauss"]), "gauss": float(drawn["gauss"])},
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_numbers(state: Mapping[str, Any]) -> None:
    """Put back what :func:`random_numbers` gave."""
    random.setstate(state["python"])
    numbers = {"key": state["numpy"]["key"].numpy().astype(np.uint32), "pos": state["numpy"]["pos"]}
    np.random.set_state({"bit_generator": "MT19937", **state["gauss"], "state": numbers})
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def learned(model: nn.Module, optimizer: torch.optim.Optimizer, *, sharded: bool) -> dict[str, Any]:
    """Weights and optimiser state of a run, whole; every process must call it where the weights are ``sharded`` over them."""
    if sharded:
        weights, steps = whole.get_state_dict(model, optimizer, options=WHOLE)
        return {"model": weights, "optimizer": steps}
    return {"model": dict(model.state_dict()), "optimizer": optimizer.state_dict()}


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, parts: Mapping[str, Any], *, sharded: bool) -> None:
    """Put back what :func:`learned` gave; whole states fit any number of processes."""
    if sharded:
        whole.set_state_dict(
            model, optimizer, model_state_dict=parts["model"], optim_state_dict=parts["optimizer"], options=WHOLE
        )
    else:
        model.load_state_dict(parts["model"])
        optimizer.load_state_dict(parts["optimizer"])


def weights(model: nn.Module, *, sharded: bool) -> dict[str, Tensor]:
    """The weights by name, whole (where they are ``sharded``: on the CPU, and in process 0 alone)."""
    return dict(whole.get_model_state_dict(model, options=WHOLE) if sharded else model.state_dict())


def _read(file: Path) -> dict[str, Any]:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever broken bytes lead the reader to
        raise UserError(f"{file} cannot be read; delete its folder to go on from the state before it.") from error


def _write(file: Path, value: dict[str, Any]) -> None:
    with open(file, "wb") as out:
        torch.save(value, out)
        out.flush()
        os.fsync(out.fileno())


def _settle(folder: Path) -> None:
    """Force the names in ``folder`` to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
