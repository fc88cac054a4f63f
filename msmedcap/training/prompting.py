"""The prompts that SAM is trained with: a point in the object or a jittered box first, then points where the answer was wrong.

Comes in: masks ``[R,S,S]`` of the view and a generator on the CPU, so that every device draws the same. Goes out: points and
boxes in continuous pixels of the view (a pixel's centre lies at + 0.5), as the segmenter takes them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# SAM's limit of a box side's noise, as a share of the view's side: 20 of 1024 pixels.
FARTHEST = 20 / 1024


def points_in(region: Tensor, generator: torch.Generator) -> Tensor:
    """The centre of any pixel of each region ``[R,S,S]`` bool: ``[R,2]`` x, y; an empty region gives the view's centre."""
    side = region.shape[-1]
    reached = region.flatten(1).cumsum(1)
    count = reached[:, -1]
    chance = torch.rand(len(region), generator=generator, dtype=torch.float64).to(region.device)
    wanted = (chance * count).long().clamp(max=(count - 1).clamp(min=0)) + 1
    index = torch.searchsorted(reached, wanted[:, None])[:, 0]
    points = torch.stack([index % side, index // side], dim=1).float() + 0.5
    middle = points.new_full((2,), side / 2)
    return torch.where(count[:, None] > 0, points, middle)


def jittered_boxes(masks: Tensor, generator: torch.Generator, *, share: float) -> Tensor:
    """The box around each mask ``[R,S,S]`` bool, its sides moved by noise of deviation ``share`` of their length: ``[R,4]``.

    An empty mask gets the whole view.
    """
    side = masks.shape[-1]
    corners = []
    for along in (masks.any(1), masks.any(2)):  # columns, rows
        first = along.float().argmax(1)
        last = side - along.flip(1).float().argmax(1)
        corners.append(torch.stack([first, last], dim=1).float())
    low, high = torch.stack(corners, dim=2).unbind(1)
    noise = torch.randn(len(masks), 4, generator=generator).to(masks.device)
    moved = (noise * (high - low).repeat(1, 2) * share).clamp(-FARTHEST * side, FARTHEST * side)
    return (torch.cat([low, high], dim=1) + moved).clamp(0, side)


def error_points(logits: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One point of each answer's error: ``logits [R,h,w]``, ``masks [R,S,S]`` bool → points ``[R,1,2]``, labels ``[R,1]``.

    The label is 1 where the object was missed and 0 where too much was taken; an answer without error gets a point of the object.
    """
    answer = F.interpolate(logits[:, None].float(), masks.shape[-2:], mode="bilinear", align_corners=False)[:, 0] > 0
    wrong = answer != masks
    region = torch.where(wrong.flatten(1).any(1)[:, None, None], wrong, masks)
    points = points_in(region, generator)
    column, row = points.long().unbind(1)
    labels = masks[torch.arange(len(masks), device=masks.device), row, column].int()
    return points[:, None], labels[:, None]
