"""The course of a training: the learning rate at each step, what weight decay touches, and the average of the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from msmedcap.config import LoopConfig


def pace(step: int, config: LoopConfig) -> float:
    """The learning rate at ``step`` as a share of ``config.lr``."""
    length = config.steps // config.cycles
    cycle = min(step // length, config.cycles - 1)
    begin = cycle * length
    length = length if cycle < config.cycles - 1 else config.steps - begin
    step -= begin
    if step < config.warmup:
        foot = config.start_lr / config.lr
        # Without a rate to start from, the first step must not be one of none.
        return foot + (1 - foot) * (step if foot else step + 1) / config.warmup
    share = min(1.0, (step - config.warmup) / max(1, length - config.warmup))
    floor = config.min_lr / config.lr
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


def groups(task: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trained parameters as AdamW takes them: matrices decay, biases, norms' factors and the temperature do not."""
    trained = [p for p in task.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


class Average:
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
        self.steps = state["steps"]
        for key, value in state["values"].items():
            self.values[key].copy_(value)
