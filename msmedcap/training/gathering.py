"""What the objectives ask of the other processes of a training: their rows, with gradient, and sums over all.

Comes in: one process's tensors. Goes out: the global batch's. Without several processes every function hands back what it
got. A process holds as many rows as any other, and the global batch is theirs in the order of the processes
(:func:`msmedcap.training.processes.share`).

Losses follow one rule, since data-parallel training averages gradients: a process's loss is its share of the global sum times
the number of processes, so that the mean over the processes is the global batch's own loss, and so is its gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def count() -> int:
    """How many processes have met to train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if count() > 1 else 0


def gather(rows: Tensor) -> Tensor:
    """``rows [b,...]`` of every process as ``[B,...]``; what their loss has to say of these rows comes back as gradient."""
    if count() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)
    return gathered


def total(values: Tensor) -> Tensor:
    """``values`` summed over the processes, without gradient."""
    summed = values.detach().clone()
    if count() > 1:
        dist.all_reduce(summed)
    return summed


def shown(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``losses`` of this process with their mean over all as value; the gradient stays this process's."""
    if count() == 1:
        return dict(losses)
    means = total(torch.stack([loss.detach().float() for loss in losses.values()])) / count()
    return {name: loss + (mean - loss.detach()) for (name, loss), mean in zip(losses.items(), means, strict=True)}


class _Gather(torch.autograd.Function):
    """All rows forward; backward each process gets the sum of what all of them say of its rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.rows = len(rows)
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(count())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed[rank() * ctx.rows : (rank() + 1) * ctx.rows]
