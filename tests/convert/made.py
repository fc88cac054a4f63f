"""Checkpoints as the hub keeps them, at test size, written by ``transformers`` itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    OPTConfig,
)

from msmedcap.config import BranchConfig, ClipConfig
from tests import sizes

CLIP = ClipConfig(hidden=32, layers=2, heads=2, mlp=64, image_size=32, patch=8)
BRANCH = BranchConfig(
    "clip",
    qformer=dataclasses.replace(sizes.config().branches["clip"].qformer, layers=4, vocab=300, text_length=32, dropout=0.1),
)


def blip2_config(**changes: Any) -> Blip2Config:
    """BLIP-2's construction at test size; the Q-Former's widths differ from the encoder's and OPT's."""
    qformer = BRANCH.qformer
    options: dict[str, Any] = dict(
        vision_config={
            "hidden_size": CLIP.hidden,
            "intermediate_size": CLIP.mlp,
            "num_hidden_layers": CLIP.layers,
            "num_attention_heads": CLIP.heads,
            "image_size": CLIP.image_size,
            "patch_size": CLIP.patch,
        },
        qformer_config={
            "hidden_size": qformer.hidden,
            "num_hidden_layers": qformer.layers,
            "num_attention_heads": qformer.heads,
            "intermediate_size": qformer.mlp,
            "vocab_size": qformer.vocab,
        },
        # One row more than the tokenizer needs: the hub's class marks the query slots with a token of its own.
        text_config=OPTConfig(
            vocab_size=len(sizes.tokenizer()) + 1, hidden_size=48, ffn_dim=96, num_hidden_layers=2, num_attention_heads=2,
            word_embed_proj_dim=48, max_position_embeddings=128, dropout=0.0, eos_token_id=50,
        ).to_dict(),
        num_query_tokens=qformer.queries,
        image_token_index=len(sizes.tokenizer()),
        image_text_hidden_size=qformer.projection,
    )  # fmt: skip
    return Blip2Config(**(options | changes))


def blip2(folder: Path, *, dtype: torch.dtype = torch.float32, **saving: Any) -> Blip2ForConditionalGeneration:
    """A BLIP-2 with sharp choices, and its folder as on the hub: weights, configs and a tokenizer."""
    model = sizes.randomise(Blip2ForConditionalGeneration(blip2_config()), 5, scale=0.3).to(dtype)
    model.save_pretrained(folder, **saving)
    sizes.tokenizer().save_pretrained(folder)
    return model


def retrieval(folder: Path) -> Blip2ForImageTextRetrieval:
    """Stage 1's outcome as on the hub (``blip2-itm-vit-g``)."""
    config = blip2_config(image_token_index=None)
    config.qformer_config.use_qformer_text_input = True
    model = sizes.randomise(Blip2ForImageTextRetrieval(config), 6, scale=0.3)
    model.save_pretrained(folder)
    sizes.tokenizer().save_pretrained(folder)
    return model


def edit(file: Path, change: Any) -> None:
    """Change a JSON file in place."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
