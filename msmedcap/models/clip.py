"""f_CLIP of Eq. 1: the vision transformer pre-trained with image and text, on ``transformers``' Blip2VisionModel.

Comes in: the ``"clip"`` view ``[B,3,S,S]``, normalised. Goes out: ``[B,N,D]``, the CLS token first, then the grid row by
row. The final layer norm is not here: LAVIS trains it (``ln_vision``), so it belongs to the branch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Blip2VisionConfig, Blip2VisionModel

from msmedcap.config import ClipConfig
from msmedcap.models.stem import ConvStem


class ClipEncoder(nn.Module):
    """The CLIP-style encoder; pictures of another size than it was trained at get interpolated position embeddings."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.hidden
        self.vision = Blip2VisionModel(
            Blip2VisionConfig(
                hidden_size=config.hidden,
                intermediate_size=config.mlp,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                image_size=config.image_size,
                patch_size=config.patch,
                hidden_act=config.activation,
                layer_norm_eps=config.layer_norm_eps,
            )
        )
        self.vision.post_layernorm = nn.Identity()
        if config.stem == "conv":
            self.vision.embeddings.patch_embedding = ConvStem(config.hidden, config.patch)
            nn.init.trunc_normal_(self.vision.embeddings.position_embedding, std=0.02)
            nn.init.trunc_normal_(self.vision.embeddings.class_embedding, std=0.02)

    def forward(self, view: Tensor) -> Tensor:
        """``view [B,3,S,S]`` → tokens ``[B,1+(S/patch)²,D]``, before any final norm."""
        resized = view.shape[-1] != self.config.image_size
        return self.vision(view, interpolate_pos_encoding=resized).last_hidden_state

    def places(self, per_token: Tensor) -> Tensor:
        """Values per token ``[...,N]`` as a map ``[...,h,w]`` over the whole view; the CLS token has no place and is dropped."""
        side = int(round((per_token.shape[-1] - 1) ** 0.5))
        return per_token[..., 1:].unflatten(-1, (side, side))


def pooled(tokens: Tensor) -> Tensor:
    """The CLS token and the mean of the grid, side by side: ``[B,N,D] → [B,2D]`` (the contrastive head's input)."""
    return torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=-1)
