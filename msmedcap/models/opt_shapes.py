"""What OPT of a given config consists of, without the memory for it: a converter checks a checkpoint against it.

Comes in: the fields of an OPT ``config.json``. Goes out: names and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import OPTConfig, OPTForCausalLM


def opt_shapes(fields: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of OPT's weights, its head left out where it is the token embeddings again (tied)."""
    config = OPTConfig(**fields)
    with torch.device("meta"):
        state = OPTForCausalLM(config).state_dict()
    return {
        name: tuple(value.shape)
        for name, value in state.items()
        if not (config.tie_word_embeddings and name == "lm_head.weight")
    }
