"""SAM as ``segment_anything`` builds it, at test size, and our two halves of it: what the tests of its parts share."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from msmedcap.config import SamConfig, ViewSpec
from msmedcap.models.sam import SamEncoder, SamPrompts
from msmedcap.systems import SAM_MEAN, SAM_STD
from tests import sizes

CONFIG: SamConfig = dataclasses.replace(sizes.config().sam, stem="patch")
SPEC = ViewSpec("sam", CONFIG.image_size, "letterbox", SAM_MEAN, SAM_STD)
PICTURE = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)


def published_sam() -> Sam:
    """SAM as its own ``build_sam`` assembles it, at test size."""
    grid = CONFIG.image_size // CONFIG.patch
    return Sam(
        image_encoder=ImageEncoderViT(
            depth=CONFIG.layers,
            embed_dim=CONFIG.hidden,
            img_size=CONFIG.image_size,
            mlp_ratio=4,
            norm_layer=lambda width: torch.nn.LayerNorm(width, eps=1e-6),
            num_heads=CONFIG.heads,
            patch_size=CONFIG.patch,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=CONFIG.global_layers,
            window_size=CONFIG.window,
            out_chans=CONFIG.out,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=CONFIG.out,
            image_embedding_size=(grid, grid),
            input_image_size=(CONFIG.image_size, CONFIG.image_size),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=CONFIG.out, mlp_dim=CONFIG.decoder_mlp, num_heads=CONFIG.decoder_heads
            ),
            transformer_dim=CONFIG.out,
            iou_head_depth=3,
            iou_head_hidden_dim=CONFIG.out,
        ),
    )


def halves() -> tuple[SamPredictor, SamEncoder, SamPrompts]:
    """SAM by its own predictor with PICTURE set, and our two halves with the same weights."""
    theirs = sizes.randomise(published_sam(), 3)
    encoder, prompts = SamEncoder(CONFIG).eval(), SamPrompts(CONFIG).eval()
    encoder.image.load_state_dict(theirs.image_encoder.state_dict())
    prompts.prompt.load_state_dict(theirs.prompt_encoder.state_dict())
    prompts.decoder.load_state_dict(theirs.mask_decoder.state_dict())
    predictor = SamPredictor(theirs)
    predictor.set_image(PICTURE)
    return predictor, encoder, prompts


# What a user asks: points and their labels in the picture's pixels, a box, or both.
ASKED = {
    "point": ([[13.0, 30.0]], [1], None),
    "two points": ([[13.0, 30.0], [50.0, 8.0]], [1, 0], None),
    "box": (None, None, [4.0, 6.0, 40.0, 31.0]),
    "point in box": ([[20.0, 20.0]], [0], [4.0, 6.0, 40.0, 31.0]),
}
