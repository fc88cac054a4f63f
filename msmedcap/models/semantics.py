"""SEG-SAM's semantic-aware decoder: what the prompted object is, where it is as that class sees it, and what else is there.

The abstract fixes the tokens and their work, not their shapes. Our choices: the decoder is built as SAM's own (a two-way
transformer of its own between tokens and picture, the same upscaling), so that it can begin with SAM's weights, and shares no
weight with SAM's. Its tokens are one segmentation-oriented token, Q classification-oriented tokens and the prompt tokens.

- The segmentation-oriented token gives one class of the prompted object and one mask (through SAM's hypernetwork): the two
  together are its semantic mask. Scores of classes compete (softmax). The mask follows the class: the classes' vectors,
  weighed by their chances, are added to the token before the hypernetwork, so that a click, whose place alone may mean
  several structures, is answered with the one that is named.
- Each classification-oriented token gives a score for every class, each for itself (sigmoid): a picture's labels are often
  incomplete, and a class that was not labelled must not count as absent. A token that fits no class has low scores
  throughout, so there is no class "nothing". A class is present as much as its best token says.
- A score is the cosine of a token and a class's vector, times a learned scale: classes are vectors, not rows of a layer.

Comes in: SAM's features and prompt tokens. Goes out: :class:`Said`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# A class is rarely among the unprompted ones: scores begin at this chance (RetinaNet's prior).
PRIOR = 0.01


@dataclass(frozen=True)
class Said:
    """What the decoder says of R prompts.

    Logits: ``mask [R,4h,4w]``; ``named [R,K]`` of the prompted object's class; ``others [R,Q,K]`` of each token's.
    """

    mask: Tensor
    named: Tensor
    others: Tensor


class SemanticDecoder(nn.Module):
    """The decoder around ``transformer`` (SAM's two-way form: ``(image, place, tokens) → tokens, image``) and ``upscaling``.

    ``upscaling`` makes ``[R,C,h,w] → [R,C/8,4h,4w]``; both are the caller's, and only this decoder's.
    """

    def __init__(self, transformer: nn.Module, upscaling: nn.Module, *, width: int, tokens: int) -> None:
        super().__init__()
        self.transformer, self.upscaling = transformer, upscaling
        self.segmentation_token = nn.Parameter(torch.randn(1, width) * 0.02)
        self.classification_tokens = nn.Parameter(torch.randn(tokens, width) * 0.5)
        self.to_mask = mlp(width, width // 8)
        self.to_object = mlp(width, width)
        self.to_others = mlp(width, width)
        self.from_class = nn.Linear(width, width)
        nn.init.zeros_(self.from_class.weight)
        nn.init.zeros_(self.from_class.bias)
        self.object_score = ClassScore()
        self.others_score = ClassScore(prior=PRIOR)

    def forward(self, image: Tensor, place: Tensor, prompt: Tensor, classes: Tensor, *, followed: int) -> Said:
        """``image [R,C,h,w]`` (features plus dense prompt), ``place [R,C,h,w]``, ``prompt [R,T,C]`` → :class:`Said`.

        ``classes [K,C]`` are told apart; the mask follows the first ``followed`` of them.
        """
        count, _, height, width = image.shape
        own = torch.cat([self.segmentation_token, self.classification_tokens]).expand(count, -1, -1)
        tokens, seen = self.transformer(image, place, torch.cat([own.to(prompt.dtype), prompt], dim=1))
        large = self.upscaling(seen.transpose(1, 2).unflatten(2, (height, width)))
        named = self.object_score(self.to_object(tokens[:, 0]), classes)
        chance = named[:, :followed].softmax(-1).detach()  # names are learnt from names alone
        asked = tokens[:, 0] + self.from_class(chance.to(tokens) @ F.normalize(classes[:followed], dim=-1).to(tokens))
        mask = torch.einsum("rc,rchw->rhw", self.to_mask(asked), large)
        return Said(mask, named, self.others_score(self.to_others(tokens[:, 1 : own.shape[1]]), classes))


class ClassScore(nn.Module):
    """The logit of a class: the cosine of what was said and the class's vector, scaled; with a ``prior``, also shifted."""

    def __init__(self, *, prior: float | None = None) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.shift = None if prior is None else nn.Parameter(torch.tensor(math.log(prior / (1 - prior))))

    def forward(self, said: Tensor, classes: Tensor) -> Tensor:
        """``said [...,D]``, ``classes [K,D]`` → logits ``[...,K]``, in fp32: in 16 bits near cosines are equal."""
        with torch.autocast(said.device.type, enabled=False):
            likeness = F.normalize(said.float(), dim=-1) @ F.normalize(classes.float(), dim=-1).T
            logits = likeness * self.log_scale.float().clamp(max=math.log(100.0)).exp()
            return logits if self.shift is None else logits + self.shift


def mlp(width: int, out: int) -> nn.Sequential:
    """Three layers from ``width`` to ``out``, as SAM's hypernetworks are."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))
