"""Trainings by name, and how one is changed from the command line.

Comes in: a name of :data:`PRESETS` or a JSON file, and texts like ``loop.lr=3e-4`` or ``data.0.path=data/mine``. Goes out: a
:class:`~msmedcap.training.config.TrainConfig`. The ``paper-`` presets are the paper's runs, with what it leaves open as
:mod:`.defaults` has it; data lies below ``data/``, runs below ``runs/``, models in ``checkpoints/full``. The ``demo-`` presets
train the shipped size on the samples beside the checkout. No torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msmedcap import config as configs
from msmedcap.config import LoopConfig, SegmentationOptions, UserError
from msmedcap.systems import SYSTEMS
from msmedcap.training.config import DataPart, TrainConfig
from msmedcap.training.defaults import BERT, STAGE_1, STAGE_2, StageDefaults
from msmedcap.training.segment_config import SegmentTraining

# Each weight is the part's pictures in thousands, so that all are drawn equally often.
COCO = DataPart("coco2014", "data/coco2014", kind="G", weight=82.783)
ROCO = DataPart("roco", "data/roco", select="paper-roco-train", weight=60.0)
MEDICAT = DataPart("medicat", "data/medicat", select="paper-medicat-train", weight=100.0)
G, M = (COCO,), (ROCO, MEDICAT)
DATA = {"g": G, "gm": G + M, "m": M}
VAL_G = DataPart("coco2014", "data/coco2014", split="val", kind="G")
VAL_M = DataPart("roco", "data/roco", split="val", select="roco-val")
VAL = {"g": (VAL_G,), "gm": (VAL_G, VAL_M), "m": (VAL_M,)}
# Section 2.2: SAM's Q-Former begins with BERT's weights, CLIP's with BLIP-2's, below which BERT's give the text half it lacks.
STARTS = {"clip": (BERT, "full"), "sam": (BERT,)}

# Table 1's rows, as their systems are called (on what the Q-Formers saw, CLIP's first), and the presets of their stage 2.
TABLE_1 = {
    "BLIP2-G": "paper-stage2-blip2-g",
    "BLIP2-GM": "paper-stage2-blip2",
    "SAM-BLIP2-GM": "paper-stage2-sam-blip2",
    "MSMedCap-G-G": "paper-stage2-msmedcap-g-g",
    "MSMedCap-GM-G": "paper-stage2-msmedcap-gm-g",
    "MSMedCap-GM-GM": "paper-stage2-msmedcap-gm-gm",
    "MSMedCap-G-GM": "paper-stage2-msmedcap",
}


def _paced(stage: StageDefaults, parts: tuple[DataPart, ...]) -> dict[str, Any]:
    """A stage's settings; ``steps`` as the paper's numbers of pictures give them."""
    pictures = round(1000 * sum(part.weight for part in parts))
    loop = LoopConfig(
        steps=math.ceil(stage.epochs * pictures / stage.batch), lr=stage.lr, min_lr=stage.min_lr, start_lr=stage.start_lr,
        warmup=stage.warmup, weight_decay=stage.weight_decay, betas=stage.betas, clip=stage.clip, save_every=1000, cpu=False,
    )  # fmt: skip
    given = {"epochs": float(stage.epochs), "batch": stage.batch, "seed": stage.seed, "text_length": stage.text_length}
    return {"loop": loop, "models": "full", **given}


def _stage1(name: str, branch: str, kind: str) -> TrainConfig:
    starts = {branch: STARTS[branch]}
    more: dict[str, Any] = {"branch": branch, "init": starts, "tokenizer": BERT, "val": VAL[kind], "out": f"runs/{name}"}
    return TrainConfig("alignment", DATA[kind], **_paced(STAGE_1, DATA[kind]), **more)


def _stage2(name: str, system: str, branches: tuple[str, ...], kind: str = "m") -> TrainConfig:
    row = next(row for row, preset in TABLE_1.items() if preset == name)
    starts = {view: (f"runs/{branch}/branch",) for view, branch in zip(SYSTEMS[system], branches, strict=True)}
    more: dict[str, Any] = {"system": system, "called": row, "init": starts, "val": VAL[kind], "out": f"runs/{name}"}
    return TrainConfig("captioning", DATA[kind], **_paced(STAGE_2, DATA[kind]), **more)


def _paper() -> dict[str, TrainConfig]:
    clip, sam = {"g": "paper-stage1-clip", "gm": "paper-stage1-clip-gm"}, {"g": "paper-stage1-sam-g", "gm": "paper-stage1-sam"}
    made = {name: _stage1(name, branch, kind) for branch, kinds in (("clip", clip), ("sam", sam)) for kind, name in kinds.items()}
    rows = {
        "paper-stage2-msmedcap": ("MSMedCap", (clip["g"], sam["gm"])),
        "paper-stage2-msmedcap-g-g": ("MSMedCap", (clip["g"], sam["g"])),
        "paper-stage2-msmedcap-gm-g": ("MSMedCap", (clip["gm"], sam["g"])),
        "paper-stage2-msmedcap-gm-gm": ("MSMedCap", (clip["gm"], sam["gm"])),
        "paper-stage2-blip2": ("BLIP2", (clip["gm"],)),
        "paper-stage2-sam-blip2": ("SAM-BLIP2", (sam["gm"],)),
    }
    made |= {name: _stage2(name, system, branches) for name, (system, branches) in rows.items()}
    # BLIP-2 as it is published has never seen a medical picture, in stage 2 neither.
    return made | {"paper-stage2-blip2-g": _stage2("paper-stage2-blip2-g", "BLIP2", (clip["g"],), "g")}


def _demo() -> dict[str, TrainConfig]:
    beside = "../shared/data"
    weights = {"medpix": 0.6, "cxr_labels": 0.2, "busi": 0.2}
    data, val = (
        tuple(DataPart(name, f"{beside}/{name}", split=split, weight=weight) for name, weight in weights.items())
        for split in ("train", "val")
    )
    given: dict[str, Any] = {"val": val, "val_count": 192, "batch": 48, "cache": "runs/demo-features"}
    stage1 = LoopConfig(steps=450, lr=5e-4, ema=0.995, save_every=150)
    stage2 = dataclasses.replace(stage1, steps=600)
    made = {}
    for view in ("clip", "sam"):
        name = f"demo-alignment-{view}"
        made[name] = TrainConfig("alignment", data, stage1, branch=view, out=f"runs/{name}", **given)
    for system, views in SYSTEMS.items():
        name = f"demo-captioning-{system.lower()}"
        starts: dict[str, tuple[str, ...]] = {view: (f"runs/demo-alignment-{view}/branch",) for view in views}
        made[name] = TrainConfig("captioning", data, stage2, system=system, init=starts, out=f"runs/{name}", **given)
    return made


def _segmentation() -> dict[str, TrainConfig]:
    """SEG-SAM at both scales; its abstract gives no numbers: at full scale SAM's, as far as a decoder's training has them."""
    beside, chest = "../shared/data", "cxr_seg"
    demo = TrainConfig(
        "segmentation",
        (
            DataPart(chest, f"{beside}/cxr_seg", weight=0.7),
            DataPart("phantoms", "600", weight=0.25),
            DataPart("sa_med2d", f"{beside}/sa_med2d_sample", weight=0.05),
        ),
        LoopConfig(steps=6500, lr=1e-3, warmup=50, ema=0.99, save_every=100),
        val=(DataPart(chest, f"{beside}/cxr_seg", split="val"),),
        batch=8, val_count=48, cache="runs/demo-segment-features", out="runs/demo-segmentation",
        # Frozen features of 16 x 16 places and few steps: told densely where, masks not too small, first answers first.
        segments=SegmentTraining(
            draws=32, dense_prompts=True,
            options=SegmentationOptions(foreground=0.6, alignment=0.3, naming=0.5, rounds=2, further=0.25),
        ),
    )  # fmt: skip
    full = TrainConfig(
        "segmentation",
        (DataPart("sa_med2d", "data/SAMed2Dv1", weight=0.95), DataPart(chest, "data/cxr_seg", weight=0.05)),
        LoopConfig(steps=90_000, lr=1e-4, warmup=250, weight_decay=0.1, save_every=1000, precision="bf16", cpu=False),
        val=(DataPart("sa_med2d", "data/SAMed2Dv1", split="val"), DataPart(chest, "data/cxr_seg", split="val")),
        models="full", batch=64, val_count=2048, out="runs/full-segmentation",
        segments=SegmentTraining(
            draws=1000, tokens=100, text_encoder="openai/clip-vit-large-patch14", options=SegmentationOptions(rounds=9)
        ),
    )  # fmt: skip
    return {"demo-segmentation": demo, "full-segmentation": full}


PRESETS: dict[str, TrainConfig] = {**_paper(), **_demo(), **_segmentation()}


def describe(config: TrainConfig) -> str:
    """What a training does, in one line."""
    whats = {"alignment": f"stage 1 of the {config.branch} branch", "segmentation": "SEG-SAM"}
    what = whats.get(config.task, f"{config.task} by {config.system}")
    names = " + ".join(f"{part.name} ({part.kind})" for part in config.data)
    long = f"{config.epochs:g} epochs" if config.epochs else f"{config.loop.steps} steps"
    return f"{what} on {names}; {long} in batches of {config.batch}, {config.models} models, into {config.out or 'no folder yet'}"


def read_config(source: str, sets: Sequence[str] = ()) -> TrainConfig:
    """The training that ``source`` (a preset's name or a JSON file) describes, changed by ``sets`` (each ``key=value``).

    Raises :class:`UserError` for an unknown name, key or value.
    """
    if source in PRESETS:
        config = PRESETS[source]
    elif source.endswith(".json") or Path(source).is_file():
        config = configs.read(TrainConfig, Path(source))
    else:
        raise UserError(f"{source!r} is neither a JSON file nor a preset; presets are {', '.join(PRESETS)}.")
    return with_values(config, sets)


def with_values(config: TrainConfig, sets: Sequence[str]) -> TrainConfig:
    """``config`` with ``key=value`` laid over it: keys are dotted (``loop.lr``, ``data.0.path``), values JSON or else text.

    A part of a list that is one beyond its end is added to it; text for a list of texts is one of them. Raises :class:`UserError`
    for an unknown key, with those that are known, and for a value of another type.
    """
    tree = json.loads(configs.to_json(config))
    keys = set()
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"{text!r} is not KEY=VALUE, such as loop.lr=3e-4.")
        _put(TrainConfig, tree, key.split("."), value, where=key)
        keys.add(key)
    if {"loop.steps", "epochs"} <= keys:
        raise UserError("epochs decide how many steps there are; set one of epochs and loop.steps.")
    if "loop.steps" in keys:
        tree["epochs"] = 0.0
    return configs.from_json(TrainConfig, json.dumps(tree))


def _put(kind: Any, tree: Any, keys: list[str], value: str, *, where: str) -> None:
    """Lay ``value`` into ``tree``, which is JSON of the type ``kind``, below ``keys``."""
    key, rest = keys[0], keys[1:]
    place: Any = key
    kind = _given(kind)
    if dataclasses.is_dataclass(kind):
        hints: Mapping[str, Any] = typing.get_type_hints(kind)
        if key not in hints:
            raise UserError(f"There is no {key!r} in {where}; there are {', '.join(hints)}.")
        inner = hints[key]
    elif typing.get_origin(kind) is dict:
        inner = typing.get_args(kind)[1]
    elif typing.get_origin(kind) is tuple:
        if not (key.isdecimal() and int(key) <= len(tree)):
            raise UserError(f"{key!r} in {where} is no place of a list of {len(tree)}; places are counted from 0.")
        inner, place = typing.get_args(kind)[0], int(key)
        if place == len(tree):
            tree.append(None)
    else:
        raise UserError(f"{where} goes deeper than this config; there is nothing below {kind.__name__}.")
    if rest:
        if (tree.get(place) if isinstance(tree, dict) else tree[place]) is None:
            tree[place] = _empty(_given(inner))
        below = tree[place]
        _put(inner, below, rest, value, where=where)
    else:
        tree[place] = _parsed(inner, value)


def _given(kind: Any) -> Any:
    """The type of what may be left out (``T | None``): T."""
    args = typing.get_args(kind)
    return next(a for a in args if a is not type(None)) if type(None) in args else kind


def _empty(kind: Any) -> Any:
    return [] if typing.get_origin(kind) is tuple else {}


def _parsed(kind: Any, value: str) -> Any:
    """``value`` as JSON where that is what ``kind`` wants, else as text."""
    try:
        found = json.loads(value)
    except ValueError:
        found = value
    if kind is str and not isinstance(found, str):
        return value
    texts = typing.get_origin(kind) is tuple and typing.get_args(kind)[0] is str
    return [value] if texts and not isinstance(found, list) else found
