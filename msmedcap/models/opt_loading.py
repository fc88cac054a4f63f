"""OPT from a folder or hub id, strictly; its linear layers in 8 bit through bitsandbytes; and an untrained one at a given size.

Comes in: a transformers folder (or hub id). Goes out: :class:`~msmedcap.models.opt.Opt`, or one sentence that says what is wrong.
A local folder is read tensor by tensor into its place; a hub id, or an OPT that does not fit (``device_map``), goes through
``transformers`` and accelerate.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import OPTConfig, OPTForCausalLM
from transformers import logging as transformers_logging

from msmedcap.config import UserError
from msmedcap.models.opt import Opt, OptModel
from msmedcap.models.opt_shapes import opt_shapes
from msmedcap.models.tokens import load_tokenizer
from msmedcap.models.weights import empty, load_into, owned

HEAD = "lm_head.weight"


def load_opt(
    source: str | Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    load_8bit: bool = False,
    device_map: Mapping[str, str | int] | None = None,
) -> Opt:
    """OPT from a folder or hub id, in ``dtype`` on ``device``.

    ``load_8bit`` quantises the linear layers inside the decoder with bitsandbytes; embeddings, norms and the head stay in
    ``dtype``. ``device_map`` (module name → device, ``"cpu"`` or ``"disk"``) keeps layers elsewhere until they are needed: on the
    disk they are read from the folder at every step. Raises :class:`UserError` when a file is missing or damaged, or a weight is
    missing or left over.
    """
    _has_config(source)
    if load_8bit and device_map:
        raise UserError("An OPT in 8 bit cannot be offloaded; use one of --load-8bit and --offload.")
    try:
        tokenizer = load_tokenizer(source)
        if Path(source).is_dir() and not device_map:
            model = _from_folder(Path(source), dtype=dtype, device=device, load_8bit=load_8bit)
        else:
            model = _from_transformers(source, dtype=dtype, device_map=device_map or {"": str(device)}, load_8bit=load_8bit)
    except UserError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"The language model {source} cannot be loaded ({reason}); copy or download it again.") from error
    return Opt(model, tokenizer)


def source_shapes(source: str | Path) -> dict[str, tuple[int, ...]]:
    """The weights of the OPT that ``source`` (a folder or hub id) describes, by name; only its config is read."""
    _has_config(source)
    try:
        return opt_shapes(OPTConfig.from_pretrained(str(source)).to_dict())
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"The language model {source} cannot be loaded ({reason}); copy or download it again.") from None


def _has_config(source: str | Path) -> None:
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():  # transformers would assume OPT-125m
        raise UserError(f"The language model {source} has no config.json; copy or download it again.")


def _from_folder(folder: Path, *, dtype: torch.dtype, device: torch.device, load_8bit: bool) -> OptModel:
    config = OPTConfig.from_pretrained(folder, dtype=dtype)
    model = empty(lambda: OPTForCausalLM(config))
    quantised = _quantise(model) if load_8bit else set()

    def place(name: str, value: Tensor) -> Tensor:
        return _int8(value, device) if name in quantised else owned(value, device, dtype)

    load_into(model, folder, place=place, tied=(HEAD,) if config.tie_word_embeddings else ())
    head, table = model.lm_head.weight, model.get_input_embeddings().weight
    if config.tie_word_embeddings and not head.is_meta and not torch.equal(head, table):
        raise UserError(f"The weights in {folder} do not fit this version: lm_head.weight is not the table it is tied to.")
    model.tie_weights()
    return model


def _from_transformers(
    source: str | Path, *, dtype: torch.dtype, device_map: Mapping[str, str | int], load_8bit: bool
) -> OptModel:
    options: dict[str, Any] = {"dtype": dtype, "device_map": dict(device_map), "use_safetensors": True}
    if load_8bit:
        from transformers import BitsAndBytesConfig

        _quiet_bitsandbytes()
        options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["lm_head"])
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)  # it warns of what the plan asked for
    transformers_logging.disable_progress_bar()  # one file a second is no progress to watch; the commands show their own
    model, report = OPTForCausalLM.from_pretrained(
        str(source), output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    # transformers would fill a missing weight with random numbers and go on.
    wrong = [key for key, *_ in report["mismatched_keys"]]
    problems = {"lacks": report["missing_keys"], "has unknown": report["unexpected_keys"], "has wrong shapes for": wrong}
    if told := "; ".join(f"{what} {sorted(keys)}" for what, keys in problems.items() if keys):
        raise UserError(f"The language model {source} does not fit this version: it {told}.")
    return model


def _quantise(model: OptModel) -> set[str]:
    """Put bitsandbytes' linear layers where the decoder has its own, still without memory; returns their weights' names."""
    _quiet_bitsandbytes()
    from bitsandbytes.nn import Linear8bitLt

    layers = model.model.decoder.layers
    names = [name for name, module in layers.named_modules() if isinstance(module, nn.Linear)]
    for name in names:
        path, _, last = name.rpartition(".")
        old = layers.get_submodule(name)
        # The threshold of the LLM.int8() paper: columns with larger values are multiplied unquantised.
        new = Linear8bitLt(
            old.in_features, old.out_features, old.bias is not None, has_fp16_weights=False, threshold=6.0, device="meta"
        )
        setattr(layers.get_submodule(path), last, new)
    return {f"model.decoder.layers.{name}.weight" for name in names}


def _int8(value: Tensor, device: torch.device) -> Tensor:
    """One weight as bitsandbytes keeps it, quantised on ``device``."""
    from bitsandbytes.nn import Int8Params

    return Int8Params(value, requires_grad=False, has_fp16_weights=False).to(device)


def _quiet_bitsandbytes() -> None:
    """It warns at every product that it casts to 16 bit, and at import of 4-bit kernels that nobody asked for."""
    for name in ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops"):
        logging.getLogger(name).setLevel(logging.ERROR)


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
