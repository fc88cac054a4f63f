"""SAM's image encoder against ``segment_anything``'s own and ``transformers``' (sdpa): bf16 at 1024 px, and the demo size trained.

Random weights, the same tensors in ours and in the published encoder; the arithmetic does not depend on them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn
from transformers import SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionEncoder

from benchmarks.timing import Row, default_dtype, pair
from msmedcap import systems
from msmedcap.config import SamConfig
from msmedcap.models.sam_encoder import SamImageEncoder

GROUP = "SAM encoder"
SIZES = {"b": "ViT-B", "h": "ViT-H"}


def rows(*, device: torch.device, quick: bool) -> list[Row]:
    """Forward passes at full size in bf16 and at the demo size in fp32, and a demo training step; ``quick`` at test size."""
    found: list[Row] = []
    rounds = 1 if quick else 5
    for size, name in SIZES.items():
        config = _tiny() if quick else systems.SAM_SIZES[size]
        found += _forward_rows(config, f"{name}, {config.image_size} px, bf16", device=device, rounds=rounds)
    demo = _tiny() if quick else systems.demo().sam
    return found + _demo_rows(demo, f"demo size, {demo.image_size} px, fp32", device=device, rounds=4 * rounds)


def published(config: SamConfig, ours: SamImageEncoder) -> ImageEncoderViT:
    """``segment_anything``'s own image encoder on the very tensors of ``ours``; a convolutional stem is taken over whole."""
    with torch.device("meta"):
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
        encoder.patch_embed = ours.patch_embed
    encoder.load_state_dict(ours.state_dict(), assign=True)
    return encoder.train(ours.training)


def _forward_rows(config: SamConfig, name: str, *, device: torch.device, rounds: int) -> list[Row]:
    with default_dtype(torch.bfloat16), torch.device(device), torch.no_grad():
        ours = SamImageEncoder(config).eval()
        picture = torch.randn(1, 3, config.image_size, config.image_size)
    theirs = published(config, ours)
    found = [_race(f"{name}: segment_anything", ours, theirs, picture, rounds=rounds, goal="≤ 0.67")]
    del theirs
    with default_dtype(torch.bfloat16), torch.device(device):
        hub = SamVisionEncoder(_hub_config(config)).eval()
    goal = "≤ 1" if device.type == "cuda" else ""
    peer = f"{name}: transformers, sdpa"
    return [*found, _race(peer, ours, lambda x: hub(x).last_hidden_state, picture, rounds=rounds, goal=goal)]


def _race(
    what: str, ours: nn.Module, theirs: Callable[[Tensor], Tensor], picture: Tensor, *, rounds: int, goal: str
) -> Row:
    with torch.inference_mode():
        return pair(GROUP, what, lambda: ours(picture), lambda: theirs(picture), rounds=rounds, goal=goal)


def _demo_rows(config: SamConfig, name: str, *, device: torch.device, rounds: int) -> list[Row]:
    with torch.device(device):
        ours = SamImageEncoder(config).eval()
        one = torch.randn(1, 3, config.image_size, config.image_size)
        some = torch.randn(8, 3, config.image_size, config.image_size)
    forward = _race(f"{name}, one picture", ours, published(config, ours), one, rounds=rounds, goal="≤ 1.05")
    ours.train()
    theirs = published(config, ours)

    def step(model: nn.Module) -> None:
        model.zero_grad()
        model(some).square().mean().backward()

    what = f"{name}, forward and backward of 8"
    return [forward, pair(GROUP, what, lambda: step(ours), lambda: step(theirs), rounds=rounds, goal="≤ 1.05")]


def _hub_config(config: SamConfig) -> SamVisionConfig:
    return SamVisionConfig(
        hidden_size=config.hidden,
        output_channels=config.out,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        image_size=config.image_size,
        patch_size=config.patch,
        window_size=config.window,
        global_attn_indexes=list(config.global_layers),
        mlp_dim=4 * config.hidden,
        attn_implementation="sdpa",
    )


def _tiny() -> SamConfig:
    return dataclasses.replace(systems.test().sam, stem="patch")
