"""BLIP-2 as the hub keeps it (``transformers``' names) into a model folder.

Comes in: a folder or id of ``Blip2ForConditionalGeneration`` on OPT (``Salesforce/blip2-opt-2.7b``, ``-6.7b``, ``-coco``), which
gives ``clip/``, ``opt/`` and ``systems/BLIP2``, or of ``Blip2ForImageTextRetrieval`` (``Salesforce/blip2-itm-vit-g``), stage 1's
outcome, which gives ``clip/`` and ``alignment/clip``. Sizes come from ``config.json`` and are held against the weights' shapes.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msmedcap import config as configs
from msmedcap import systems
from msmedcap.checkpoints import SystemConfig
from msmedcap.config import BranchConfig, ClipConfig, ModelsConfig, QFormerConfig, UserError
from msmedcap.convert.fetch import TOKENIZER, fetch, read_json
from msmedcap.convert.ledger import Ledger
from msmedcap.convert.parts import Part, refuse_exchange, shapes, write_parts
from msmedcap.convert.source import Source, open_source
from msmedcap.convert.writer import update_config
from msmedcap.models.branch import Branch
from msmedcap.models.clip import ClipEncoder
from msmedcap.models.opt_shapes import opt_shapes

# What transformers takes for a size that config.json does not name: BLIP-2's own.
VISION: dict[str, Any] = {
    "hidden_size": 1408, "num_hidden_layers": 39, "num_attention_heads": 16, "intermediate_size": 6144, "image_size": 224,
    "patch_size": 14, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "qkv_bias": True,
}  # fmt: skip
QFORMER: dict[str, Any] = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "hidden_dropout_prob": 0.1, "cross_attention_frequency": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
}  # fmt: skip
# The fields of OPT's config; what else older files carry there are settings of generate.
OPT = (
    "vocab_size", "hidden_size", "num_hidden_layers", "ffn_dim", "max_position_embeddings", "do_layer_norm_before",
    "_remove_final_layer_norm", "word_embed_proj_dim", "dropout", "attention_dropout", "num_attention_heads",
    "activation_function", "layerdrop", "init_std", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id",
    "enable_bias", "layer_norm_elementwise_affine", "tie_word_embeddings",
)  # fmt: skip
EMBEDDING, HEAD = "language_model.model.decoder.embed_tokens.weight", "language_model.lm_head.weight"
HEADS = {"vision_projection.": "vision_proj.", "text_projection.": "text_proj.", "itm_head.": "itm_head."}
TEXTS = {
    "embeddings.word_embeddings.weight": "branch.qformer.words.weight",
    "embeddings.position_embeddings.weight": "branch.qformer.positions.weight",
}


def convert_hub(source: str, out: Path) -> Ledger:
    """Convert the BLIP-2 folder or hub id ``source`` into ``out``; :class:`UserError` if it is none or not whole."""
    folder = fetch(source)
    if not folder.is_dir():
        raise UserError(f"{source} is a file; name the whole folder from the hub, with its config.json.")
    raw = read_json(folder)
    if raw.get("model_type") != "blip-2":
        mend = " Use: python -m msmedcap convert sam." if raw.get("model_type") == "sam" else ""
        raise UserError(f"{source} holds a model of type {raw.get('model_type')!r}, not blip-2.{mend}")
    clip = clip_config(raw.get("vision_config") or {})
    with open_source(folder) as opened:
        branch = BranchConfig("clip", qformer=_qformer_config(raw, opened))
        _check_folder(out, clip, raw)
        ledger = Ledger()
        stage_1 = "itm_head.weight" in opened.keys()  # noqa: SIM118 - not a mapping
        for key in opened.keys():  # noqa: SIM118
            if why := _constant(key, text=stage_1):
                ledger.left(key, why)
        parts = [_clip(opened, clip)]
        if stage_1:
            parts.append(_alignment(opened, clip, branch, folder))
        else:
            parts += [_opt(opened, raw, folder, ledger), _blip2(opened, clip, branch)]
        write_parts(opened, parts, out, ledger)
    update_config(out, lambda before: _config(before, clip, branch, opt=not stage_1), systems.full())
    return ledger


def _check_folder(out: Path, clip: ClipConfig, raw: dict[str, Any]) -> None:
    """Refuse to exchange the encoder or the language model under systems that were trained with others."""
    if (out / "config.json").is_file():
        before = configs.read(ModelsConfig, out / "config.json").clip
        # Another picture size is no other encoder: its position embeddings are interpolated.
        if dataclasses.replace(before, image_size=clip.image_size) != clip:
            refuse_exchange(out, "clip", but="BLIP2")
    text, there = raw.get("text_config") or {}, (out / "opt" / "config.json").is_file()
    if text and there and read_json(out / "opt").get("hidden_size") != text.get("hidden_size"):
        refuse_exchange(out, "opt", but="BLIP2")


def clip_config(raw: dict[str, Any]) -> ClipConfig:
    """The encoder's sizes from ``vision_config``; :class:`UserError` for a construction that is not BLIP-2's."""
    vision = VISION | {k: v for k, v in raw.items() if v is not None}
    _must("vision_config", vision, qkv_bias=True)
    return ClipConfig(
        hidden=vision["hidden_size"],
        layers=vision["num_hidden_layers"],
        heads=vision["num_attention_heads"],
        mlp=vision["intermediate_size"],
        image_size=_side(vision["image_size"]),
        patch=_side(vision["patch_size"]),
        activation=vision["hidden_act"],
        layer_norm_eps=float(vision["layer_norm_eps"]),
    )


def _side(size: Any) -> int:
    """A square's side, which newer configs may write as two numbers."""
    sides = set(size) if isinstance(size, list) else {size}
    if len(sides) != 1 or not isinstance(side := sides.pop(), int):
        raise UserError(f"The checkpoint's encoder sees pictures or patches of {size}; only squares can be converted.")
    return side


def _qformer_config(raw: dict[str, Any], source: Source) -> QFormerConfig:
    qformer = QFORMER | {k: v for k, v in (raw.get("qformer_config") or {}).items() if v is not None}
    _must("qformer_config", qformer, hidden_act="gelu", layer_norm_eps=1e-12)
    words = "embeddings.word_embeddings.weight"
    there = words in source.keys()  # noqa: SIM118 - not a mapping
    return QFormerConfig(
        hidden=qformer["hidden_size"],
        layers=qformer["num_hidden_layers"],
        heads=qformer["num_attention_heads"],
        mlp=qformer["intermediate_size"],
        queries=raw.get("num_query_tokens") or 32,
        cross_every=qformer["cross_attention_frequency"],
        dropout=float(qformer["hidden_dropout_prob"]),
        vocab=source.shape(words)[0] if there else qformer["vocab_size"],
        projection=raw.get("image_text_hidden_size") or 256,
    )


def _must(name: str, raw: dict[str, Any], **fixed: object) -> None:
    for key, value in fixed.items():
        if raw.get(key, value) != value:
            raise UserError(f"The checkpoint's {name}.{key} is {raw[key]!r}; this version knows {value!r} alone.")


def _constant(key: str, *, text: bool) -> str:
    """Why ``key`` is not needed, or nothing."""
    if key.endswith("position_ids"):
        return "position numbers, a constant"
    if not text and re.fullmatch(r"qformer\.encoder\.layer\.\d+\.(intermediate|output)\..*", key):
        return "the Q-Former's text half, which a captioner does not use"
    return ""


def _below(source: Source, prefix: str, new: str, *, text: bool = True) -> dict[str, str]:
    """Our names for all keys below ``prefix``, which becomes ``new``."""
    keys = [k for k in source.keys() if k.startswith(prefix) and not _constant(k, text=text)]  # noqa: SIM118
    return {new + key.removeprefix(prefix): key for key in keys}


def _clip(source: Source, clip: ClipConfig) -> Part:
    tensors = _below(source, "vision_model.", "vision.")
    tensors = {new: key for new, key in tensors.items() if not key.startswith("vision_model.post_layernorm.")}
    return Part("clip", "clip", tensors, wanted=shapes(lambda: ClipEncoder(clip)))


def _branch(source: Source, prefix: str, *, text: bool) -> dict[str, str]:
    norm = _below(source, "vision_model.post_layernorm.", prefix + "norm.")
    qformer = _below(source, "qformer.", prefix + "qformer.model.", text=text)
    return norm | {prefix + "qformer.query_tokens": "query_tokens"} | qformer


def _blip2(source: Source, clip: ClipConfig, config: BranchConfig) -> Part:
    prefix = "branches.clip."
    tensors = _branch(source, prefix, text=False) | _below(source, "language_projection.", prefix + "projection.")
    width = _width(source, "language_projection.weight")
    own = shapes(lambda: Branch(config, ClipEncoder(clip), llm_width=width))
    texts = {"config.json": configs.to_json(SystemConfig("BLIP2", {"clip": config}))}
    return Part("systems/BLIP2", "BLIP2/clip", tensors, wanted={prefix + k: v for k, v in own.items()}, texts=texts)


def _alignment(source: Source, clip: ClipConfig, config: BranchConfig, folder: Path) -> Part:
    tensors = _branch(source, "branch.", text=True) | {new: key for key, new in TEXTS.items()}
    for theirs, ours in HEADS.items():
        tensors |= _below(source, theirs, ours)
    hidden, qformer = config.qformer.hidden, config.qformer
    heads = {"vision_proj": qformer.projection, "text_proj": qformer.projection, "itm_head": 2}
    wanted = {
        f"branch.{k}": v
        for k, v in shapes(lambda: Branch(config, ClipEncoder(clip), llm_width=1, text=True)).items()
        if not k.startswith("projection.")
    }
    wanted |= {f"{head}.weight": (width, hidden) for head, width in heads.items()}
    wanted |= {f"{head}.bias": (width,) for head, width in heads.items()}
    fresh = _unpublished(hidden, qformer.vocab)
    wanted |= {new: tuple(tensor.shape) for new, (tensor, _) in fresh.items()}
    return Part(
        "alignment/clip", "stage 1/clip", tensors, fresh, wanted,
        texts={"config.json": configs.to_json(config)}, copies=_files(folder, TOKENIZER),
    )  # fmt: skip


def _unpublished(hidden: int, vocab: int) -> dict[str, tuple[Tensor, str]]:
    """Stage 1's weights that the hub's class leaves out: the head of ITG, drawn as BERT's, and the temperature."""
    why = "not published; drawn from N(0, 0.02), to be trained"
    drawn = torch.empty(hidden, hidden).normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    return {
        "itg_head.0.weight": (drawn, why),
        "itg_head.0.bias": (torch.zeros(hidden), "not published; begun at 0"),
        "itg_head.2.weight": (torch.ones(hidden), "not published; begun at 1"),
        "itg_head.2.bias": (torch.zeros(hidden), "not published; begun at 0"),
        "itg_bias": (torch.zeros(vocab), "not published; begun at 0"),
        "temp": (torch.tensor(0.07), "not published; begun at 0.07 as in training"),
    }


def _opt(source: Source, raw: dict[str, Any], folder: Path, ledger: Ledger) -> Part:
    text = raw.get("text_config") or {}
    if text.get("model_type") != "opt":
        raise UserError(f"The checkpoint's language model is {text.get('model_type')!r}; only BLIP-2 on OPT can be converted.")
    tensors = _below(source, "language_model.", "")
    embedding, head = EMBEDDING.removeprefix("language_model."), HEAD.removeprefix("language_model.")
    if text.get("tie_word_embeddings", True) and head in tensors:
        # One matrix under two names; files keep it under either or under both.
        if embedding in tensors:
            ledger.left(HEAD, "the token embeddings again (tied)")
        tensors.setdefault(embedding, tensors[head])
        del tensors[head]
    if embedding not in tensors:
        raise UserError(f"The checkpoint lacks {EMBEDDING}; it is not whole.")
    # The rows that are there count: newer files have one more for the query slots' own token.
    own = {key: text[key] for key in OPT if key in text} | {"vocab_size": source.shape(tensors[embedding])[0]}
    config = {"architectures": ["OPTForCausalLM"], "model_type": "opt"} | own
    copies = _files(folder, (*TOKENIZER, "generation_config.json"))
    if not {"tokenizer.json", "vocab.json"} & {file.name for file in copies}:
        raise UserError(f"{folder} has no tokenizer (tokenizer.json, or vocab.json and merges.txt); download it from the hub.")
    texts = {"config.json": json.dumps(config, indent=2) + "\n"}
    return Part("opt", "opt", tensors, wanted=opt_shapes(own), texts=texts, copies=copies)


def _files(folder: Path, names: tuple[str, ...]) -> tuple[Path, ...]:
    return tuple(folder / name for name in names if (folder / name).is_file())


def _width(source: Source, key: str) -> int:
    if key not in source.keys():  # noqa: SIM118 - not a mapping
        raise UserError(f"The checkpoint lacks {key}; it is not BLIP-2's, or not whole.")
    return source.shape(key)[0]


def _config(before: ModelsConfig, clip: ClipConfig, branch: BranchConfig, *, opt: bool) -> ModelsConfig:
    views = tuple(dataclasses.replace(v, size=clip.image_size) if v.name == "clip" else v for v in before.views)
    after = dataclasses.replace(before, clip=clip, views=views, branches=before.branches | {"clip": branch})
    return dataclasses.replace(after, opt="opt") if opt else after
