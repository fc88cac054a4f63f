"""f_SAM of Eq. 2: SAM's image encoder, with the prompt encoder and mask decoder (``segment_anything``) it was trained with.

Comes in: the ``"sam"`` view ``[B,3,S,S]``, normalised and padded at the right and bottom. Goes out: the feature map
``[B,C,h,w]``, and as tokens ``[B,hw,C]`` (``positions``) or ``[B,C,hw]`` (``channels``, the authors' code).
"""

from __future__ import annotations

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn

from msmedcap.config import SamConfig
from msmedcap.models.sam_encoder import SamImageEncoder


class SamEncoder(nn.Module):
    """SAM's image encoder as a branch sees it; ``tokens`` names the reading of its feature map."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        self.image = SamImageEncoder(config)

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
        """Masks for R prompts, K = R / B in a row for each of the B pictures.

        ``features [B,C,h,w]``; ``points`` is (``[R,P,2]`` x,y in view pixels, ``[R,P]`` 1 object, 0 background, -1 padding);
        ``boxes [R,4]`` x0,y0,x1,y1. Returns mask logits ``[R,M,4h,4w]`` and IoU estimates ``[R,M]``; M is 3 with
        ``multimask``, else 1.
        """
        masks, scores = [], []
        place = self.prompt.get_dense_pe()
        prompts = next(len(p) for p in (boxes, points and points[0]) if p is not None)
        if prompts % len(features):
            raise ValueError(f"{prompts} prompts cannot be shared out evenly among {len(features)} pictures")
        each = prompts // len(features)
        for i in range(features.shape[0]):
            # The published decoder takes one picture and many prompts; pictures therefore go one by one.
            own = slice(i * each, (i + 1) * each)
            sparse, dense = self.prompt(
                points=None if points is None else (points[0][own], points[1][own]),
                boxes=None if boxes is None else boxes[own],
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
