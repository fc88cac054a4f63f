"""Where a process trains: the CPU, or the GPU that its launcher gives it.

Comes in: a :class:`~msmedcap.training.config.TrainConfig` and what was asked for. Goes out: a device, and the config that says the
same to the loop.
"""

from __future__ import annotations

import dataclasses
import os

import torch

from msmedcap.config import UserError
from msmedcap.training.config import TrainConfig

AUTOCAST = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def sharded() -> bool:
    """Whether the launcher has FSDP shard the weights."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true")


def placed(config: TrainConfig, asked: str | None) -> tuple[TrainConfig, torch.device]:
    """Where this process trains, with ``loop.cpu`` saying the same; :class:`UserError` for a CUDA device that is not here."""
    if asked and asked.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("There is no CUDA device here; leave --device out, or give cpu.")
    cpu = asked == "cpu" or (asked is None and config.loop.cpu) or not torch.cuda.is_available()
    config = dataclasses.replace(config, loop=dataclasses.replace(config.loop, cpu=cpu))
    if cpu:
        return config, torch.device("cpu")
    index = torch.device(asked).index if asked else None
    where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) if index is None else index)
    torch.cuda.set_device(where)
    return config, where
