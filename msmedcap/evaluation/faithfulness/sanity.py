"""Does a map hang on what was learnt? Weights are drawn anew, part by part, and the map is compared with what it was.

Comes in: loaded models and cases. Goes out: the rank correlation of every method's map before and after (Adebayo et al. 2018). A
map that stays the same shows the picture, not the model.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from msmedcap.checkpoints import Models
from msmedcap.evaluation.faithfulness.cases import Case
from msmedcap.evaluation.faithfulness.judge import WHOLE, Looker
from msmedcap.explain.faithfulness import likeness
from msmedcap.models.captioner import Captioner

REDRAWN = ("projection", "qformer", "everything trained")


@dataclass(frozen=True)
class Redrawn:
    """How alike a case's map by ``method`` is (-1 to 1) once the weights of ``part`` were drawn anew."""

    case: str
    group: str
    system: str
    method: str
    part: str
    likeness: float


def redraw(models: Models, system: str, part: str, *, seed: int) -> Models:
    """The models with ``part`` (one of :data:`REDRAWN`) of every branch of ``system`` drawn anew; what is shared stays.

    Each weight keeps its mean and spread, so that the signal keeps its size.
    """
    whole = models.captioners[system]
    frozen = [whole.opt, *(branch.encoder for _, branch in whole.named_branches())]
    changed: Captioner = copy.deepcopy(whole, {id(part): part for part in frozen})
    generator = torch.Generator().manual_seed(seed)
    for _, branch in changed.named_branches():
        chosen: nn.Module = branch if part == "everything trained" else getattr(branch, part)
        with torch.no_grad():
            for weight in chosen.parameters():
                drawn = torch.randn(weight.shape, generator=generator)
                weight.copy_(drawn * weight.std(correction=0) + weight.mean())
    return dataclasses.replace(models, captioners={**models.captioners, system: changed})


def sanity(models: Models, system: str, methods: Sequence[str], cases: Iterable[Case]) -> list[Redrawn]:
    """A row for every case, method and part that is drawn anew (each case with weights of its own)."""
    rows = []
    for number, case in enumerate(cases):
        before = Looker(models, system, case).maps(methods)
        for part in REDRAWN:
            after = Looker(redraw(models, system, part, seed=number), system, case).maps(methods)
            for (method, branch), heat in before.items():
                if branch == WHOLE or (method, WHOLE) not in before:
                    rows.append(Redrawn(case.id, case.group, system, method, part, likeness(heat, after[method, branch])))
    return rows
