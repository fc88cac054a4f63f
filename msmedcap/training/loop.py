"""One short loop for every task, on ``accelerate``.

A task is a module that turns a batch into named losses; batches come from a function of the step, so that a run that was
stopped sees the same pictures when it goes on. Comes in: task, batches, :class:`LoopConfig`, a folder. Goes out: the trained task
(its averaged weights where asked for) and ``log.jsonl`` in the folder.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from tqdm import tqdm

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopConfig:
    """Length and pace of a training; the learning rate warms up linearly, then falls as a cosine to ``min_lr``."""

    steps: int
    lr: float
    min_lr: float = 1e-5
    warmup: int = 50
    weight_decay: float = 0.05
    clip: float = 1.0
    precision: str = "bf16"
    ema: float = 0.0
    save_every: int = 200
    seed: int = 0
    # The demo recipe keeps pictures, caches and frozen parts in main memory, so it trains there also where there is a GPU.
    cpu: bool = True


class Task(Protocol):
    """What the loop asks of a task: losses by name; ``"loss"`` is the one that is minimised, the others are logged."""

    def __call__(self, batch: Any) -> Mapping[str, Tensor]: ...


def fit(task: nn.Module, batch_of: Callable[[int], Any], config: LoopConfig, folder: Path, *, name: str) -> None:
    """Train ``task`` in place for ``config.steps`` steps, resuming from ``folder`` if it holds a saved state.

    ``batch_of(step)`` must give the same batch for the same step. Raises FloatingPointError when a loss is not a number.
    """
    accelerator = Accelerator(mixed_precision=config.precision, cpu=config.cpu)
    set_seed(config.seed)
    optimizer = torch.optim.AdamW(_groups(task, config.weight_decay), lr=config.lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _pace(step, config))
    model, optimizer, schedule = accelerator.prepare(task, optimizer, schedule)
    average = _Average(task, config.ema) if config.ema else None
    if average:
        accelerator.register_for_checkpointing(average)
    state = folder / "state"
    first = _resume(accelerator, state, folder)
    model.train()
    with open(_ready(folder) / "log.jsonl", "a", encoding="utf-8") as record:
        bar = tqdm(range(first, config.steps), initial=first, total=config.steps, desc=name, mininterval=2, dynamic_ncols=True)
        for step in bar:
            began = time.perf_counter()
            losses = model(batch_of(step))
            accelerator.backward(losses["loss"])
            accelerator.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            if average:
                average.update(task)
            values = {k: float(v.detach()) for k, v in losses.items()}
            if not math.isfinite(values["loss"]):
                raise FloatingPointError(f"{name}: the loss is {values['loss']} at step {step}; lower the learning rate.")
            bar.set_postfix({k: f"{v:.3f}" for k, v in values.items()}, refresh=False)
            row = {"step": step, "seconds": round(time.perf_counter() - began, 3), **values}
            record.write(json.dumps(row) + "\n")
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                record.flush()
                _save(accelerator, state, step + 1)
    if average:
        average.copy_to(task)


class _Average:
    """An exponential moving average of all weights and buffers, saved and restored with the run."""

    def __init__(self, task: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.values = {k: v.detach().clone() for k, v in task.state_dict().items()}

    @torch.no_grad()
    def update(self, task: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        for key, value in task.state_dict().items():
            if value.is_floating_point():
                self.values[key].lerp_(value, 1 - decay)
            else:
                self.values[key].copy_(value)

    def copy_to(self, task: nn.Module) -> None:
        task.load_state_dict(self.values)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.values = state["steps"], state["values"]


def _groups(task: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    trained = [p for p in task.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def _pace(step: int, config: LoopConfig) -> float:
    if step < config.warmup:
        return (step + 1) / config.warmup
    share = min(1.0, (step - config.warmup) / max(1, config.steps - config.warmup))
    floor = config.min_lr / config.lr
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


def _ready(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _resume(accelerator: Accelerator, state: Path, folder: Path) -> int:
    old = state.with_name("state.old")
    if old.exists() and not state.exists():  # stopped between the two renames of _save
        old.rename(state)
    # A state is complete only once its step file stands in it.
    if not (state / "step.json").is_file():
        return 0
    accelerator.load_state(str(state), load_kwargs={"weights_only": True})
    step = json.loads((state / "step.json").read_text())["step"]
    log.info("%s: resuming at step %d", folder.name, step)
    return step


def _save(accelerator: Accelerator, state: Path, step: int) -> None:
    new, old = state.with_name("state.new"), state.with_name("state.old")
    shutil.rmtree(new, ignore_errors=True)
    accelerator.save_state(str(new))
    (new / "step.json").write_text(json.dumps({"step": step}))
    shutil.rmtree(old, ignore_errors=True)
    if state.exists():
        state.rename(old)
    new.rename(state)
    shutil.rmtree(old, ignore_errors=True)
