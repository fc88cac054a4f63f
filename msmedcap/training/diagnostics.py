"""What is wrong with a training that learns nothing, found early and said in one sentence.

Measures a task may return beside its loss (they are logged with it), and the rules that turn a step's logged values into a
sentence, or None where all is well. The loop asks the rules after every step and stops with :class:`TrainingFailed`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msmedcap.config import UserError

QUERY_SPREAD, ITC_SPREAD = "query_spread", "itc_spread"
# Far above the rounding of equal vectors, far below what a drawn Q-Former shows before its first step.
NOTHING = 1e-5


class TrainingFailed(UserError):
    """The run cannot succeed as it is set up; its text says what was seen, at which step, and what to try."""


@torch.no_grad()
def query_spread(states: Tensor) -> Tensor:
    """How far apart a picture's query outputs ``[B,Q,D]`` point: 1 - mean cosine of two; 0 is one vector (one query has 1)."""
    if states.shape[1] == 1:
        return states.new_ones((), dtype=torch.float32)
    unit = F.normalize(states.float(), dim=-1)
    # Distances between unit vectors, for one minus a cosine rounds to nothing long before the vectors are equal.
    centred = unit - unit.mean(1, keepdim=True)
    return centred.square().sum((1, 2)).mean() / (states.shape[1] - 1)


@torch.no_grad()
def similarity_spread(similarity: Tensor) -> Tensor:
    """The standard deviation of ``similarity [B,B']`` (cosines, before the temperature); 0 where no pair differs from another."""
    return similarity.float().std(correction=0)


def symptom(values: Mapping[str, float]) -> str | None:
    """What a step's values by name show: dead queries or a collapsed contrast, where the task measures them."""
    if values.get(QUERY_SPREAD, 1.0) < NOTHING:
        return "the queries are dead: all give the same output; lower the learning rate, or begin from other weights"
    if values.get(ITC_SPREAD, 1.0) < NOTHING:
        return "the contrast has collapsed: all pictures are as near to all captions; lower the learning rate, or enlarge the batch"
    return None


def not_a_number(values: Mapping[str, float]) -> str | None:
    """Says so where ``values["loss"]`` is NaN or infinite, with the parts of the loss that are."""
    if math.isfinite(values["loss"]):
        return None
    parts = [f"{k} is {v}" for k, v in values.items() if k != "loss" and not math.isfinite(v)]
    return f"the loss is {values['loss']}{' (' + ', '.join(parts) + ')' if parts else ''}; lower the learning rate"


def bad_gradient(norm: float, parameters: Iterable[tuple[str, nn.Parameter]]) -> str | None:
    """Says so where the gradient's ``norm`` is NaN or infinite, naming the first of ``parameters`` that has such a gradient."""
    if math.isfinite(norm):
        return None
    for name, parameter in parameters:
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            return f"the gradient of {name} is not finite; lower the learning rate, or train with precision bf16 or no"
    return f"the gradient's norm is {norm}; lower the learning rate, or train with precision bf16 or no"


def not_falling(losses: Sequence[float]) -> str | None:
    """Says so where the last fifth of ``losses`` (at least ten) is not below the first fifth by more than the fifths' own noise."""
    size = max(2, len(losses) // 5)
    first, last = torch.tensor(losses[:size]), torch.tensor(losses[-size:])
    noise = float((first.var() / size + last.var() / size).sqrt())
    if float(first.mean() - last.mean()) > noise:
        return None
    return (
        f"the loss has not fallen over {len(losses)} steps ({float(first.mean()):.4g}, then {float(last.mean()):.4g}); "
        "raise the learning rate, or check that the data and the captions belong together"
    )
