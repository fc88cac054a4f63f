"""Stage 2, Section 2.3: a system learns to lead the frozen OPT to the caption; gradients reach the branches alone.

Comes in: the encoders' tokens and captions. Goes out: the system's Q-Formers, queries, norms and projections, trained. Several
processes' losses and gradients are those of one that holds the global batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from msmedcap.models.captioner import Captioner
from msmedcap.training import gathering


class CaptioningTask(nn.Module):
    """A captioner, the prompt it is trained with and how many tokens of a caption it learns."""

    def __init__(self, captioner: Captioner, prompt: str, *, max_tokens: int = 64) -> None:
        super().__init__()
        # Stage 1 leaves the projections aside. The encoders and OPT are no submodules: this does not reach them.
        self.captioner = captioner.requires_grad_(True)
        self.prompt, self.max_tokens = prompt, max_tokens

    def forward(self, batch: tuple[Mapping[str, Tensor], Sequence[str]]) -> dict[str, Tensor]:
        """``({encoder: tokens [b,N,D_enc]}, captions)`` → the language model's loss, the mean over all processes' tokens."""
        features, captions = batch
        captioner = self.captioner
        prefix = captioner.prefix(features, self.prompt)
        losses = captioner.opt.token_losses(prefix, captions, max_tokens=self.max_tokens)
        count = gathering.total(torch.tensor(float(len(losses)), device=losses.device))
        return gathering.shown({"loss": losses.sum() * gathering.count() / count})
