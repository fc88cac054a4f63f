"""SAM into a model folder, from segment-anything's ``.pth`` or from the hub's ``facebook/sam-vit-*`` (``transformers``' names).

Comes in: a file, folder or hub id. Goes out: ``sam/`` (the image encoder) and ``sam_prompts/`` (prompt encoder and mask decoder),
the same whichever format the weights came in. A ``.pth`` tells its sizes by its shapes: layers of global attention have longer
tables of relative positions than windowed ones, and a table's width is a head's.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from msmedcap import config as configs
from msmedcap import systems
from msmedcap.config import ModelsConfig, SamConfig, UserError
from msmedcap.convert.fetch import fetch, read_json
from msmedcap.convert.ledger import Ledger
from msmedcap.convert.parts import Part, Shapes, refuse_exchange, shapes, write_parts
from msmedcap.convert.source import Source, open_source
from msmedcap.convert.writer import update_config
from msmedcap.models.sam import SamEncoder, SamPrompts

NAMES = {"b": "ViT-B", "l": "ViT-L", "h": "ViT-H"}
# The official file's modules and ours, which are segment-anything's own classes.
OFFICIAL = {"image_encoder.": "image.", "prompt_encoder.": "prompt.", "mask_decoder.": "decoder."}

# transformers' names, as patterns, and ours; the first that fits is applied, then the next table.
HUB: tuple[tuple[str, str], ...] = (
    (r"vision_encoder\.patch_embed\.projection\.", "image.patch_embed.proj."),
    (r"vision_encoder\.layers\.(\d+)\.layer_norm([12])\.", r"image.blocks.\1.norm\2."),
    (r"vision_encoder\.layers\.(\d+)\.", r"image.blocks.\1."),
    (r"vision_encoder\.neck\.conv1\.", "image.neck.0."),
    (r"vision_encoder\.neck\.layer_norm1\.", "image.neck.1."),
    (r"vision_encoder\.neck\.conv2\.", "image.neck.2."),
    (r"vision_encoder\.neck\.layer_norm2\.", "image.neck.3."),
    (r"vision_encoder\.pos_embed$", "image.pos_embed"),
    (r"prompt_encoder\.mask_embed\.conv1\.", "prompt.mask_downscaling.0."),
    (r"prompt_encoder\.mask_embed\.layer_norm1\.", "prompt.mask_downscaling.1."),
    (r"prompt_encoder\.mask_embed\.conv2\.", "prompt.mask_downscaling.3."),
    (r"prompt_encoder\.mask_embed\.layer_norm2\.", "prompt.mask_downscaling.4."),
    (r"prompt_encoder\.mask_embed\.conv3\.", "prompt.mask_downscaling.6."),
    (r"prompt_encoder\.point_embed\.(\d)\.", r"prompt.point_embeddings.\1."),
    (r"prompt_encoder\.(no_mask_embed|not_a_point_embed)\.", r"prompt.\1."),
    (r"mask_decoder\.transformer\.layers\.(\d+)\.layer_norm([1-4])\.", r"decoder.transformer.layers.\1.norm\2."),
    (r"mask_decoder\.transformer\.layer_norm_final_attn\.", "decoder.transformer.norm_final_attn."),
    (r"mask_decoder\.transformer\.", "decoder.transformer."),
    (r"mask_decoder\.upscale_conv1\.", "decoder.output_upscaling.0."),
    (r"mask_decoder\.upscale_layer_norm\.", "decoder.output_upscaling.1."),
    (r"mask_decoder\.upscale_conv2\.", "decoder.output_upscaling.3."),
    (r"mask_decoder\.(output_hypernetworks_mlps\.\d|iou_prediction_head)\.proj_in\.", r"decoder.\1.layers.0."),
    (r"mask_decoder\.(output_hypernetworks_mlps\.\d|iou_prediction_head)\.layers\.0\.", r"decoder.\1.layers.1."),
    (r"mask_decoder\.(output_hypernetworks_mlps\.\d|iou_prediction_head)\.proj_out\.", r"decoder.\1.layers.2."),
    (r"mask_decoder\.(iou_token|mask_tokens)\.", r"decoder.\1."),
)
# transformers keeps one table under two names; a file holds either or both.
POINTS = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")
OUR_POINTS = "prompt.pe_layer.positional_encoding_gaussian_matrix"

# What transformers takes for a size that config.json does not name: ViT-B's and the published decoder's.
VISION: dict[str, Any] = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "global_attn_indexes": [2, 5, 8, 11],
    "window_size": 14, "image_size": 1024, "patch_size": 16, "output_channels": 256,
}  # fmt: skip
DECODER: dict[str, Any] = {"num_attention_heads": 8, "mlp_dim": 2048}
FIXED: dict[str, dict[str, object]] = {
    "vision_config": {
        "hidden_act": "gelu", "layer_norm_eps": 1e-6, "qkv_bias": True, "use_abs_pos": True, "use_rel_pos": True,
    },
    "mask_decoder_config": {
        "hidden_act": "relu", "attention_downsample_rate": 2, "num_multimask_outputs": 3, "iou_head_depth": 3,
    },
    "prompt_encoder_config": {"hidden_act": "gelu", "num_point_embeddings": 4},
}  # fmt: skip


def convert_sam(source: str, out: Path, *, size: str | None = None) -> Ledger:
    """Convert SAM from a ``.pth``, a hub folder or a hub id into ``out``.

    ``size`` (``b``, ``l`` or ``h``) is what the user says it is: checked where given. :class:`UserError` if it is another size, not
    SAM's or not whole.
    """
    path = fetch(source)
    with open_source(path) as opened:
        if "image_encoder.pos_embed" in opened.keys():  # noqa: SIM118 - not a mapping
            config, names = official_config(opened), {k: official_name(k) for k in opened.keys()}  # noqa: SIM118
        elif "vision_encoder.pos_embed" in opened.keys():  # noqa: SIM118
            config, names = _hub_config(read_json(path)), hub_names(opened)
        else:
            raise UserError(f"{source} is not SAM: it has neither segment-anything's nor the hub's names.")
        check_size(config, size)
        if (out / "config.json").is_file() and configs.read(ModelsConfig, out / "config.json").sam != config:
            refuse_exchange(out, "sam")
        ledger = Ledger()
        for key, new in names.items():
            if not new and (why := _constant(key)):
                ledger.left(key, why)
        parts = [
            _part(names, "image.", "sam", shapes(lambda: SamEncoder(config))),
            _part(names, ("prompt.", "decoder."), "sam_prompts", shapes(lambda: SamPrompts(config))),
        ]
        write_parts(opened, parts, out, ledger)
    update_config(
        out,
        lambda before: dataclasses.replace(
            before,
            sam=config,
            views=tuple(dataclasses.replace(v, size=config.image_size) if v.name == "sam" else v for v in before.views),
        ),
        systems.full(),
    )
    return ledger


def size_name(config: SamConfig) -> str:
    """What a reader calls SAM of these sizes: ``ViT-H``, or its width and depth."""
    for size, known in systems.SAM_SIZES.items():
        if (known.hidden, known.layers) == (config.hidden, config.layers):
            return NAMES[size]
    return f"a SAM of width {config.hidden} and {config.layers} layers"


def check_size(config: SamConfig, size: str | None) -> None:
    """Refuse a ``size`` that is unknown or not that of ``config``."""
    if size is None:
        return
    if size not in systems.SAM_SIZES:
        raise UserError(f"SAM's size is b, l or h, not {size!r}.")
    if size_name(config) != NAMES[size]:
        raise UserError(f"The checkpoint is {size_name(config)}, not {NAMES[size]}; leave the size out or name the right one.")


def official_config(source: Source, prefix: str = "image_encoder.", decoder: str = "mask_decoder.") -> SamConfig:
    """SAM's sizes from the shapes of segment-anything's names below ``prefix``; the decoder's 8 heads leave no trace in them."""
    keys = set(source.keys())

    def shape(name: str, at: str = prefix) -> tuple[int, ...]:
        if at + name not in keys:
            raise UserError(f"The checkpoint lacks {at + name}; it is not SAM's, or not whole.")
        return source.shape(at + name)

    _, grid, _, hidden = shape("pos_embed")
    patch = shape("patch_embed.proj.weight")[-1]
    layers = len({m[1] for key in keys if (m := re.match(re.escape(prefix) + r"blocks\.(\d+)\.", key))})
    # A table reaches from one end of what a layer sees to the other: 2 * side - 1 rows.
    sides = [(shape(f"blocks.{i}.attn.rel_pos_h")[0] + 1) // 2 for i in range(layers)]
    windows = {side for side in sides if side != grid}
    if len(windows) > 1:
        raise UserError(f"The checkpoint's windows are {sorted(windows)} wide; SAM has one size for all layers.")
    mlp = "transformer.layers.0.mlp.lin1.weight"
    return SamConfig(
        hidden=hidden,
        layers=layers,
        heads=hidden // shape("blocks.0.attn.rel_pos_h")[1],
        global_layers=tuple(i for i, side in enumerate(sides) if side == grid),
        window=windows.pop() if windows else SamConfig.window,
        image_size=grid * patch,
        patch=patch,
        out=shape("neck.0.weight")[0],
        decoder_mlp=shape(mlp, decoder)[0] if decoder + mlp in keys else SamConfig.decoder_mlp,
    )


def official_name(key: str) -> str:
    """Our name for segment-anything's ``key``, or nothing."""
    for theirs, ours in OFFICIAL.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return ""


def hub_names(source: Source) -> dict[str, str]:
    """Our name for each of the hub's keys, or nothing."""
    names = {key: _hub_name(key) for key in source.keys()}  # noqa: SIM118 - not a mapping
    for key in POINTS:
        if key in names and OUR_POINTS not in names.values():
            names[key] = OUR_POINTS
    return names


def _hub_name(key: str) -> str:
    for pattern, ours in HUB:
        new, count = re.subn("^" + pattern, ours, key)
        if count:
            return new
    return ""


def _constant(key: str) -> str:
    """Why ``key`` is not needed, or nothing."""
    if key in ("pixel_mean", "pixel_std"):
        return "the view's normalisation, a constant"
    return "the points' table again (shared)" if key in POINTS else ""


def _part(names: dict[str, str], prefixes: str | tuple[str, ...], folder: str, wanted: Shapes) -> Part:
    return Part(folder, folder, {new: key for key, new in names.items() if new.startswith(prefixes)}, wanted=wanted)


def _hub_config(raw: dict[str, Any]) -> SamConfig:
    vision, decoder = VISION | (raw.get("vision_config") or {}), DECODER | (raw.get("mask_decoder_config") or {})
    for name, fixed in FIXED.items():
        own = raw.get(name) or {}
        for key, value in fixed.items():
            if own.get(key, value) != value:
                raise UserError(f"The checkpoint's {name}.{key} is {own[key]!r}; this version knows {value!r} alone.")
    return SamConfig(
        hidden=vision["hidden_size"],
        layers=vision["num_hidden_layers"],
        heads=vision["num_attention_heads"],
        global_layers=tuple(vision["global_attn_indexes"]),
        window=vision["window_size"],
        image_size=vision["image_size"],
        patch=vision["patch_size"],
        out=vision["output_channels"],
        decoder_heads=decoder["num_attention_heads"],
        decoder_mlp=decoder["mlp_dim"],
    )
