"""Which of several training processes this one is, and which rows of a global batch are its own.

A launcher (``accelerate launch``, ``torchrun``) starts one process for each device; alone, a process is number 0 of 1. No
``accelerate`` here, so that tasks and data may ask. Every process works out the same global batch and takes its own rows; gradients
are the mean over processes, so that a loss which is a mean over rows becomes the mean over the global batch.
"""

from __future__ import annotations

import os

from torch import distributed

from msmedcap.config import UserError


def place() -> tuple[int, int]:
    """This process's number and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    # Before the processes have met, the launcher's own variables say the same.
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def share(count: int) -> slice:
    """This process's rows of a global batch of ``count``; :class:`UserError` where the processes' parts would not be equal."""
    index, processes = place()
    if count % processes:
        raise UserError(f"A batch of {count} cannot be shared equally by {processes} processes; choose a multiple of {processes}.")
    size = count // processes
    return slice(index * size, (index + 1) * size)
