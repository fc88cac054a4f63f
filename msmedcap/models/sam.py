"""f_SAM of Eq. 2: SAM's image encoder, with the prompt encoder and mask decoder it was trained with, on ``segment_anything``.

Comes in: the ``"sam"`` view ``[B,3,S,S]``, normalised and padded at the right and bottom. Goes out: the feature map
``[B,C,h,w]``, and as tokens ``[B,hw,C]`` (``positions``) or ``[B,C,hw]`` (``channels``, the authors' code).
"""

from __future__ import annotations

from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn

from msmedcap.config import SamConfig
from msmedcap.models.stem import ConvStem


class _GridStem(nn.Module):
    """A convolutional stem in the layout ``segment_anything`` expects of its patch embedding, ``[B,h,w,D]``."""

    def __init__(self, hidden: int, patch: int) -> None:
        super().__init__()
        self.stem = ConvStem(hidden, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.stem(x).permute(0, 2, 3, 1)


def image_encoder(config: SamConfig) -> ImageEncoderViT:
    """``segment_anything``'s image encoder at ``config``'s size, ``[B,3,S,S] → [B,out,S/patch,S/patch]``."""
    encoder = ImageEncoderViT(
        depth=config.layers,
        embed_dim=config.hidden,
        img_size=config.image_size,
        mlp_ratio=4,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_heads=config.heads,
        patch_size=config.patch,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=config.global_layers,
        window_size=config.window,
        out_chans=config.out,
    )
    if config.stem == "conv":
        encoder.patch_embed = _GridStem(config.hidden, config.patch)
        nn.init.trunc_normal_(encoder.pos_embed, std=0.02)
    return encoder


class SamEncoder(nn.Module):
    """SAM's image encoder as a branch sees it; ``tokens`` names the reading of its feature map."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        self.image = image_encoder(config)

    def forward(self, view: Tensor) -> Tensor:
        """``view [B,3,S,S]`` → feature map ``[B,C,h,w]``."""
        return self.image(view)

    def token_width(self, reading: str) -> int:
        """The width of a token under ``reading`` (``positions`` or ``channels``)."""
        return self.config.out if reading == "positions" else (self.config.image_size // self.config.patch) ** 2


def to_tokens(features: Tensor, reading: str) -> Tensor:
    """The feature map ``[B,C,h,w]`` as tokens: ``positions`` ``[B,hw,C]`` row by row, ``channels`` ``[B,C,hw]``."""
    if reading == "positions":
        return features.flatten(2).transpose(1, 2)
    if reading == "channels":
        return features.flatten(2)
    raise ValueError(f"SAM tokens are read as 'positions' or 'channels', not {reading!r}")


def to_features(tokens: Tensor, reading: str, grid: tuple[int, int]) -> Tensor:
    """The inverse of :func:`to_tokens`: tokens back to the feature map ``[B,C,h,w]``."""
    channels_first = tokens.transpose(1, 2) if reading == "positions" else tokens
    return channels_first.unflatten(2, grid)


class SamPrompts(nn.Module):
    """SAM's prompt encoder and mask decoder: points and boxes in view pixels → mask logits and their estimated IoU."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        grid = config.image_size // config.patch
        self.prompt = PromptEncoder(
            embed_dim=config.out,
            image_embedding_size=(grid, grid),
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=16,
        )
        self.decoder = MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=config.out, mlp_dim=config.decoder_mlp, num_heads=config.decoder_heads
            ),
            transformer_dim=config.out,
            iou_head_depth=3,
            iou_head_hidden_dim=config.out,
        )

    def forward(
        self,
        features: Tensor,
        *,
        points: tuple[Tensor, Tensor] | None = None,
        boxes: Tensor | None = None,
        multimask: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Masks for one prompt per picture.

        ``features [B,C,h,w]``; ``points`` is (``[B,P,2]`` x,y in view pixels, ``[B,P]`` 1 object, 0 background, -1 padding);
        ``boxes [B,4]`` x0,y0,x1,y1. Returns mask logits ``[B,M,4h,4w]`` and IoU estimates ``[B,M]``; M is 3 with
        ``multimask``, else 1.
        """
        masks, scores = [], []
        place = self.prompt.get_dense_pe()
        for i in range(features.shape[0]):
            # The published decoder takes one picture and many prompts; pictures therefore go one by one.
            sparse, dense = self.prompt(
                points=None if points is None else (points[0][i : i + 1], points[1][i : i + 1]),
                boxes=None if boxes is None else boxes[i : i + 1],
                masks=None,
            )
            mask, score = self.decoder(
                image_embeddings=features[i : i + 1],
                image_pe=place,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=multimask,
            )
            masks.append(mask)
            scores.append(score)
        return torch.cat(masks), torch.cat(scores)
