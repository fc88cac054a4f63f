"""Stage 2, Section 2.3: a system learns to lead the frozen OPT to the caption; gradients reach the branches alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from msmedcap.models.captioner import Captioner


class CaptioningTask(nn.Module):
    """A captioner and the prompt it is trained with."""

    def __init__(self, captioner: Captioner, prompt: str) -> None:
        super().__init__()
        self.captioner = captioner
        self.prompt = prompt

    def forward(self, batch: tuple[Mapping[str, Tensor], Sequence[str]]) -> dict[str, Tensor]:
        """``({encoder: tokens [B,N,D_enc]}, captions)`` → the language model's loss."""
        features, captions = batch
        return {"loss": self.captioner.loss(features, captions, self.prompt)}
