"""EVA's image encoder, f_CLIP of BLIP-2, under LAVIS' names: ``visual_encoder.*`` in a model's file, or ``eva_vit_g.pth`` alone.

Comes in: an open source. Goes out: the plan of ``clip/``. EVA has one matrix for queries, keys and values but biases for queries
and values only, so ours is theirs with zeros between. The published file has a block more than LAVIS reads, and what follows it.
"""

from __future__ import annotations

import math
import re

import torch

from msmedcap.config import ClipConfig, UserError
from msmedcap.convert.ledger import Ledger
from msmedcap.convert.parts import Part, shapes
from msmedcap.convert.source import Source
from msmedcap.models.clip import ClipEncoder

HEAD = 88  # the width of one head, 1408 / 16
BLOCKS = 40  # in the published file; LAVIS reads the state before the last
BEHIND = ("norm.", "fc_norm.", "head.")
NAMES = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj.": "embeddings.patch_embedding.",
    "attn.qkv.": "self_attn.qkv.",
    "attn.proj.": "self_attn.projection.",
    "norm1.": "layer_norm1.",
    "norm2.": "layer_norm2.",
    "mlp.": "mlp.",
}


def plan_encoder(file: Source, ledger: Ledger, near: ClipConfig) -> tuple[Part, ClipConfig] | None:
    """The part ``clip`` of ``file`` and its sizes, or None where it holds no encoder; ``near`` tells the heads at its width.

    Keys that are not needed are entered in the ``ledger``; raises :class:`UserError` where the number of heads is not known.
    """
    keys = file.keys()
    prefix = "visual_encoder." if "visual_encoder.blocks.0.attn.qkv.weight" in keys else ""
    blocks = {int(match[1]) for key in keys if (match := re.match(re.escape(prefix) + r"blocks\.(\d+)\.", key))}
    needed = [f"{prefix}{name}" for name in ("patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight")]
    if not blocks or not set(needed) <= set(keys):
        return None
    whole = not prefix and (len(blocks) == BLOCKS or any(key.startswith(BEHIND) for key in keys))
    patches, places, mlp = (file.shape(key) for key in needed)
    config = ClipConfig(
        hidden=patches[0],
        layers=len(blocks) - whole,
        heads=heads("EVA's encoder", patches[0], HEAD, near=(near.hidden, near.heads)),
        mlp=mlp[0],
        image_size=math.isqrt(places[1] - 1) * patches[-1],
        patch=patches[-1],
    )
    tensors, fresh = {}, {}
    for key in keys:
        rest = key.removeprefix(prefix)
        if whole and rest.startswith(BEHIND):
            ledger.left(key, "stands behind the last block, which LAVIS does not read")
        elif whole and rest.startswith(f"blocks.{config.layers}."):
            ledger.left(key, "the last block: LAVIS reads the state before it")
        elif key.startswith(prefix) and (new := _name(rest)):
            tensors[new] = key
    for i in range(config.layers):
        ours, attention = f"vision.encoder.layers.{i}.self_attn.qkv.bias", f"{prefix}blocks.{i}.attn."
        biases = (f"{attention}q_bias", f"{attention}v_bias")
        if set(biases) <= set(keys):
            queries, values = (file.tensor(key) for key in biases)
            fresh[ours] = (torch.cat([queries, torch.zeros_like(queries), values]), "q_bias, zeros for the keys, v_bias")
            for key in biases:
                ledger.took(key, "clip", ours)
    return Part("clip", "clip", tensors, fresh, shapes(lambda: ClipEncoder(config))), config


def heads(what: str, width: int, each: int, *, near: tuple[int, int] | None) -> int:
    """The attention heads of a model ``width`` wide: those of ``near`` (width, heads) if it is as wide, else ``each`` wide."""
    if near is not None and near[0] == width:
        return near[1]
    if width % each:
        raise UserError(
            f"{what} is {width} wide, and weights do not tell the number of attention heads; "
            "convert into a folder whose config.json names it."
        )
    return width // each


def _name(rest: str) -> str:
    """EVA's name as ours, empty where it has none (the two biases become one)."""
    block = re.match(r"blocks\.(\d+)\.(.+)", rest)
    before, last = (f"vision.encoder.layers.{block[1]}.", block[2]) if block else ("vision.", rest)
    for theirs, ours in NAMES.items():
        if last.startswith(theirs):
            return before + ours + last.removeprefix(theirs)
    return ""
