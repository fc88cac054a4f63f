"""Pre-training of the demo SAM encoder, in SAM's own order: masked pictures first (MAE), promptable masks second.

SAM's encoder wants the full token grid (windows, relative positions), so masked patches are replaced by a learned token
instead of being left out. Then points and boxes ask for masks through SAM's prompt encoder and mask decoder, with SAM's
focal, dice and IoU losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msmedcap.models.sam import SamEncoder, SamPrompts


class MaskedTask(nn.Module):
    """Fill in hidden patches: ``views [B,3,S,S]`` → the mean squared error of the hidden patches' normalised pixels."""

    def __init__(self, encoder: SamEncoder, *, hidden_share: float = 0.6, block: int = 2) -> None:
        super().__init__()
        self.encoder = encoder
        config = encoder.config
        self.hidden_share, self.block, self.patch = hidden_share, block, config.patch
        self.mask_token = nn.Parameter(torch.randn(config.hidden) * 0.02)
        self.pixels = nn.Conv2d(config.out, config.patch**2, 1)

    def forward(self, batch: tuple[Tensor, int]) -> dict[str, Tensor]:
        views, seed = batch
        image = self.encoder.image
        x = image.patch_embed(views)
        hidden = self._hidden(x.shape[0], x.shape[1], seed).to(x.device)
        x = torch.where(hidden[..., None], self.mask_token.to(x.dtype), x) + image.pos_embed
        for block in image.blocks:
            x = block(x)
        guess = self.pixels(image.neck(x.permute(0, 3, 1, 2))).float()
        truth = F.pixel_unshuffle(views[:, :1].float(), self.patch)
        mean, var = truth.mean(1, keepdim=True), truth.var(1, keepdim=True)
        error = (guess - (truth - mean) / (var + 1e-2).sqrt()).square().mean(1)
        return {"loss": error[hidden].mean()}

    def _hidden(self, count: int, side: int, seed: int) -> Tensor:
        # Blocks of 2 × 2 patches: at this scale single patches can be guessed from their rims.
        coarse = torch.rand(count, (side // self.block) ** 2, generator=torch.Generator().manual_seed(seed))
        cut = coarse.kthvalue(int(self.hidden_share * coarse.shape[1]), dim=1, keepdim=True).values
        small = (coarse <= cut).view(count, side // self.block, side // self.block)
        return small.repeat_interleave(self.block, 1).repeat_interleave(self.block, 2)


@dataclass(frozen=True)
class PromptBatch:
    """Views with K objects each: ``views [B,3,S,S]``, ``masks [B,K,S,S]`` bool, ``seed`` of the prompts drawn on them."""

    views: Tensor
    masks: Tensor
    seed: int


class PromptableTask(nn.Module):
    """SAM's training on one prompt per object: a click inside the object or a jittered box, half and half."""

    def __init__(self, encoder: SamEncoder, prompts: SamPrompts) -> None:
        super().__init__()
        self.encoder, self.prompts = encoder, prompts

    def forward(self, batch: PromptBatch) -> dict[str, Tensor]:
        features = self.encoder(batch.views).float()
        masks = batch.masks.flatten(0, 1)[:, None]
        by_box = batch.seed % 2 == 0
        if by_box:
            logits, iou = self.prompts(features, boxes=jittered_boxes(masks, batch.seed), multimask=False)
        else:
            logits, iou = self.prompts(features, points=inside_points(masks, batch.seed), multimask=True)
        truth = F.interpolate(masks.float(), logits.shape[-2:], mode="area")
        per_mask = mask_losses(logits.float(), truth)
        best = per_mask["loss"].argmin(1, keepdim=True)  # SAM: only the best of the three masks learns
        losses = {k: v.gather(1, best).mean() for k, v in per_mask.items()}
        iou_error = (iou - overlap(logits, truth)).square().mean()
        losses["iou"] = iou_error
        losses["loss"] = losses["loss"] + iou_error
        return losses


def mask_losses(logits: Tensor, truth: Tensor, *, foreground: float = 0.25) -> Mapping[str, Tensor]:
    """SAM's mask losses per picture and mask ``[B,M]``: ``20 · focal + dice``; ``logits [B,M,h,w]``, ``truth [B,1,h,w]``.

    ``foreground`` is the object's share of the focal loss's weight (RetinaNet's alpha).
    """
    truth = truth.expand_as(logits)
    chance = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    agreement = chance * truth + (1 - chance) * (1 - truth)
    weight = foreground * truth + (1 - foreground) * (1 - truth)
    focal = (weight * (1 - agreement).square() * entropy).mean((2, 3))
    dice = 1 - (2 * (chance * truth).sum((2, 3)) + 1) / (chance.sum((2, 3)) + truth.sum((2, 3)) + 1)
    return {"loss": 20 * focal + dice, "focal": focal, "dice": dice}


@torch.no_grad()
def overlap(logits: Tensor, truth: Tensor) -> Tensor:
    """The true intersection over union of each predicted mask ``[B,M]`` (what SAM's IoU head learns)."""
    guess, real = logits > 0, truth.expand_as(logits) > 0.5
    return (guess & real).sum((2, 3)) / (guess | real).sum((2, 3)).clamp(min=1)


def inside_points(masks: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """One click inside each mask ``[B,1,S,S]``: points ``[B,1,2]`` (x, y) and labels ``[B,1]``.

    Points are pixel indices, as SAM's prompt encoder takes them: it adds the half pixel to the centre itself.
    """
    generator = torch.Generator().manual_seed(seed)
    flat = masks.flatten(1).float().cpu()
    index = torch.multinomial(flat + 1e-12, 1, generator=generator)
    side = masks.shape[-1]
    points = torch.stack([index % side, index // side], dim=-1).float()
    return points.to(masks.device), torch.ones(len(masks), 1, dtype=torch.int, device=masks.device)


def jittered_boxes(masks: Tensor, seed: int) -> Tensor:
    """The box around each mask ``[B,1,S,S]``, each side moved by up to a tenth of its length: ``[B,4]`` x0,y0,x1,y1."""
    generator = torch.Generator().manual_seed(seed)
    boxes = []
    for mask in masks[:, 0].cpu():
        ys, xs = torch.nonzero(mask, as_tuple=True)
        if not len(xs):
            boxes.append(torch.tensor([0.0, 0.0, *mask.shape[::-1]]))
            continue
        box = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()
        reach = (box[2:] - box[:2]).repeat(2) * 0.1
        boxes.append(box + (torch.rand(4, generator=generator) * 2 - 1) * reach)
    return torch.stack(boxes).to(masks.device)
