"""OPT from a folder or hub id, strictly; its linear layers in 8 bit through bitsandbytes; and an untrained one at a given size.

Comes in: a transformers folder (or hub id). Goes out: :class:`~msmedcap.models.opt.Opt`, or one sentence that says what is wrong.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import OPTConfig, OPTForCausalLM
from transformers import logging as transformers_logging

from msmedcap.config import UserError
from msmedcap.models.opt import Opt, OptModel
from msmedcap.models.tokens import load_tokenizer


def load_opt(source: str | Path, *, dtype: torch.dtype, device: torch.device, load_8bit: bool = False) -> Opt:
    """OPT from a folder or hub id, in ``dtype`` on ``device``; ``load_8bit`` quantises its linear layers with bitsandbytes.

    Raises :class:`UserError` when a file is missing or damaged, or a weight is missing or left over.
    """
    options: dict[str, object] = {"dtype": dtype, "use_safetensors": True, "ignore_mismatched_sizes": True}
    if load_8bit:
        from transformers import BitsAndBytesConfig

        options |= {"quantization_config": BitsAndBytesConfig(load_in_8bit=True), "device_map": {"": device}}
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():  # transformers would assume OPT-125m
        raise UserError(f"The language model {source} has no config.json; copy or download it again.")
    transformers_logging.disable_progress_bar()  # one file a second is no progress to watch; the commands show their own
    try:
        model, report = OPTForCausalLM.from_pretrained(str(source), output_loading_info=True, **options)
        tokenizer = load_tokenizer(source)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"The language model {source} cannot be loaded ({reason}); copy or download it again.") from error
    # transformers would fill a missing weight with random numbers and go on.
    wrong = [key for key, *_ in report["mismatched_keys"]]
    problems = {"lacks": report["missing_keys"], "has unknown": report["unexpected_keys"], "has wrong shapes for": wrong}
    if told := "; ".join(f"{what} {sorted(keys)}" for what, keys in problems.items() if keys):
        raise UserError(f"The language model {source} does not fit this version: it {told}.")
    return Opt(model if load_8bit else model.to(device), tokenizer)


def build_opt(vocab: int, *, hidden: int, layers: int, heads: int, positions: int = 256) -> OptModel:
    """A random OPT of OPT-125m's construction (pre-norm, tied embeddings) at the given size, to be pre-trained."""
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=vocab,
            hidden_size=hidden,
            ffn_dim=4 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            word_embed_proj_dim=hidden,
            max_position_embeddings=positions,
            dropout=0.0,
            bos_token_id=2,
            eos_token_id=2,
            pad_token_id=1,
        )
    )
