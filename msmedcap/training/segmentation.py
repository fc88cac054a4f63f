"""SEG-SAM's training on the features of the frozen SAM encoder: several rounds of prompting, and what each answer costs.

Round one asks with a point or a box, later rounds add a point where the answer before was wrong (SAM's training). The binary
masks cost SAM's focal, dice and IoU losses, where a single point leaves it open what is meant only for the best of three. The
semantic mask costs focal and dice, its name the cross-entropy over all classes. The classes of unprompted objects are a set:
classification-oriented tokens are matched to them one to one at the least cost (Hungarian algorithm), and every token then
costs a focal loss for every class that the picture's data set labels. The cross-mask spatial alignment makes both decoders' masks
overlap. The abstract names these parts; the matching, the alignment's form and all weights are our choice, in
:class:`~msmedcap.config.SegmentationOptions`.

Comes in: :class:`SegmentBatch`. Goes out: losses by name, each the mean over rounds; processes are one, as in
:mod:`~msmedcap.training.gathering`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from msmedcap.config import SegmentationOptions
from msmedcap.models.segmenter import Masks, Prompts, Segmenter, ambiguous, best_mask
from msmedcap.training import gathering
from msmedcap.training.masking import mask_losses, overlap
from msmedcap.training.prompting import error_points, jittered_boxes, points_in

# The focal loss of Deformable DETR's classes (Lin et al. 2017).
ALPHA, GAMMA = 0.25, 2.0
UNNAMED = -1


class SegmentBatch(NamedTuple):
    """B pictures and R of their objects to ask for.

    ``features [B,C,h,w]`` of the frozen encoder; ``masks [R,S,S]`` bool in the view's pixels; ``picture [R]`` whose object each is;
    ``classes [R]`` its class or :data:`UNNAMED`; ``objects [B,K]`` how many objects of each class a picture has in all (those not
    asked for included); ``labelled [B,K]`` bool, which classes its data set labels, so that none of them means absent; ``seed`` of
    the prompts.
    """

    features: Tensor
    masks: Tensor
    picture: Tensor
    classes: Tensor
    objects: Tensor
    labelled: Tensor
    seed: int


class SegmentationTask(nn.Module):
    """A segmenter with the losses of its training; the encoder is no part of it."""

    def __init__(self, segmenter: Segmenter, options: SegmentationOptions | None = None) -> None:
        super().__init__()
        self.segmenter, self.options = segmenter.requires_grad_(True), options or SegmentationOptions()

    def forward(self, batch: SegmentBatch) -> dict[str, Tensor]:
        """``loss``, its parts, and the measures ``overlap`` (IoU) and ``named_right`` (share of names) of the last round."""
        options = self.options
        generator = torch.Generator().manual_seed(batch.seed)
        features = batch.features.float()
        token = self.segmenter.text_token(features)
        prompts = self.first(batch, generator)
        rounds = []
        last = options.rounds if torch.rand((), generator=generator) < options.further else 1
        for number in range(last):
            answer = self.segmenter(features, prompts, token=token)
            rounds.append(self.losses(answer, prompts, batch))
            if number + 1 < last:
                prompts = self.next(answer, prompts, batch.masks, generator)
        parts = {name: torch.stack([r[name] for r in rounds]).mean() for name in rounds[0] if name not in MEASURES}
        loss = sum(getattr(options, name.removeprefix("semantic_")) * value for name, value in parts.items())
        measures = {name: value for name, value in rounds[-1].items() if name in MEASURES}
        return gathering.shown({"loss": torch.as_tensor(loss), **parts, **measures})

    def first(self, batch: SegmentBatch, generator: torch.Generator) -> Prompts:
        """A point in each object, or a jittered box around it; one kind for the batch, as likely as the other."""
        if torch.rand((), generator=generator) < 0.5:
            boxes = jittered_boxes(batch.masks, generator, share=self.options.box_jitter)
            return Prompts(boxes=boxes, picture=batch.picture)
        points = points_in(batch.masks, generator)[:, None]
        labels = torch.ones(points.shape[:2], dtype=torch.int, device=points.device)
        return Prompts(points, labels, picture=batch.picture)

    @torch.no_grad()
    def next(self, answer: Masks, prompts: Prompts, masks: Tensor, generator: torch.Generator) -> Prompts:
        """``prompts`` with one point more, where ``answer`` was wrong, and at times with the answer itself."""
        shown = best_mask(answer.iou, ambiguous(prompts))
        logits = answer.binary[torch.arange(len(shown), device=shown.device), shown].float()
        points, labels = error_points(logits, masks, generator)
        if prompts.points is not None and prompts.labels is not None:
            points, labels = torch.cat([prompts.points, points], 1), torch.cat([prompts.labels, labels], 1)
        keep = torch.rand((), generator=generator) < self.options.keep_mask
        return Prompts(points, labels, prompts.boxes, logits[:, None] if keep else None, prompts.picture)

    def losses(self, answer: Masks, prompts: Prompts, batch: SegmentBatch) -> dict[str, Tensor]:
        """Every loss of one round, unweighted, and its measures."""
        truth = F.interpolate(batch.masks[:, None].float(), answer.binary.shape[-2:], mode="area")
        several = ambiguous(prompts)[:, None]
        single = torch.arange(answer.binary.shape[1], device=several.device) == 0
        taken = torch.where(several, ~single, single)  # SAM's three masks, or its one
        binary = answer.binary.float()
        costs = mask_losses(binary, truth, foreground=self.options.foreground)
        whole = self.options.focal * costs["focal"] + self.options.dice * costs["dice"]
        best = whole.detach().masked_fill(~taken, torch.inf).argmin(1, keepdim=True)
        true_iou = overlap(binary, truth)
        found = {name: mean(costs[name].gather(1, best)[:, 0]) for name in ("focal", "dice")}
        found["iou"] = mean((answer.iou.float() - true_iou).square()[taken])
        found["overlap"] = mean(true_iou.gather(1, best)[:, 0])
        if answer.semantic is None or answer.named is None or answer.others is None:
            return found
        semantic = answer.semantic.float()
        costs = mask_losses(semantic[:, None], truth, foreground=self.options.foreground)
        found |= {f"semantic_{name}": mean(costs[name][:, 0]) for name in ("focal", "dice")}
        rows = torch.arange(len(binary), device=binary.device)
        found["alignment"] = mean(alignment_loss(binary[rows, best[:, 0]], semantic))
        named = batch.classes != UNNAMED
        target = batch.classes.clamp(min=0)
        found["naming"] = mean(F.cross_entropy(answer.named.float(), target, reduction="none"), named)
        found["named_right"] = mean((answer.named.argmax(1) == target).float(), named)
        present, labelled = unprompted(batch)
        found["presence"] = presence_loss(answer.others.float(), present, labelled)
        return found


MEASURES = ("overlap", "named_right")


def mean(values: Tensor, counted: Tensor | None = None) -> Tensor:
    """The mean of ``values [n]``, of those ``counted`` alone where given, over all processes; 0 of none."""
    weights = torch.ones_like(values) if counted is None else counted.to(values)
    count = gathering.total(weights.sum()).clamp(min=1)
    return (values * weights).sum() * gathering.count() / count


def unprompted(batch: SegmentBatch) -> tuple[Tensor, Tensor]:
    """For each of R prompts, the classes ``[R,K]`` of the picture's other objects, and which classes are labelled there at all."""
    own = torch.zeros_like(batch.objects[batch.picture])
    named = batch.classes != UNNAMED
    own[named.nonzero()[:, 0], batch.classes[named]] = 1
    present = batch.objects[batch.picture] - own > 0
    return present, batch.labelled[batch.picture].bool() | present


def alignment_loss(binary: Tensor, semantic: Tensor) -> Tensor:
    """The cross-mask spatial alignment of masks' logits ``[R,h,w]``: their dice distance ``[R]``, 0 if and only if they are equal.

    ``Σ (p - q)² / Σ (p² + q²)``, the dice loss with squares in the denominator: with plain sums, two equal soft masks would cost.
    """
    p, q = binary.sigmoid(), semantic.sigmoid()
    return (p - q).square().sum((1, 2)) / (p.square() + q.square()).sum((1, 2)).clamp(min=1e-6)


def presence_loss(others: Tensor, present: Tensor, labelled: Tensor) -> Tensor:
    """The set prediction's loss: logits ``others [R,Q,K]``, classes ``present [R,K]`` bool, ``labelled [R,K]`` bool.

    Each present class is matched to one token (of more classes than tokens, the cheapest Q are). The focal losses are summed and
    divided by the number of present classes; a class that is not labelled costs nothing.
    """
    target = torch.zeros_like(others)
    for row, (token, kind) in enumerate(match(others.detach(), present)):
        target[row, token, kind] = 1.0
    chance = others.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(others, target, reduction="none")
    miss = torch.where(target > 0, 1 - chance, chance)
    weight = torch.where(target > 0, ALPHA, 1 - ALPHA)
    costs = (weight * miss**GAMMA * entropy * labelled[:, None]).sum()
    return costs * gathering.count() / gathering.total(present.sum().float()).clamp(min=1)


@torch.no_grad()
def match(others: Tensor, present: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
    """For each of R prompts, tokens and the classes they are matched to, at the least cost: ``others [R,Q,K]``, ``present [R,K]``.

    The cost of a token and a class is what the focal loss would change by if the token were to say the class.
    """
    yes = ALPHA * (1 - others.sigmoid()) ** GAMMA * -F.logsigmoid(others)
    no = (1 - ALPHA) * others.sigmoid() ** GAMMA * -F.logsigmoid(-others)
    costs: np.ndarray = (yes - no).float().cpu().numpy()
    pairs = []
    for cost, there in zip(costs, present.cpu(), strict=True):
        kinds = there.nonzero()[:, 0]
        token, column = linear_sum_assignment(cost[:, kinds.numpy()])
        pairs.append((torch.from_numpy(token).to(others.device), kinds[torch.from_numpy(column)].to(others.device)))
    return pairs
