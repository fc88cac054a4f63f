"""Every number of the system as frozen dataclasses, and their JSON.

A checkpoint's ``config.json`` is one :class:`ModelsConfig` (the frozen parts and the systems built on them) or, inside a
branch or system folder, the part of it that was trained. Reading is strict: a key this version does not know is an error,
never ignored. No torch here, so that ``--help`` and the page's first paint do not wait for it.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class UserError(ValueError):
    """A mistake the user can mend; its text is one sentence that says what is wrong and what to do."""


def parse_point(text: str) -> tuple[float, float]:
    """``"X,Y"`` as two numbers in the picture's pixels; raises :class:`UserError` for anything else."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"{text!r} is not a point; write X,Y in the picture's pixels, such as 120,80.") from None
    return x, y


@dataclass(frozen=True)
class ViewSpec:
    """How one encoder sees a picture: a square of ``size`` pixels.

    ``fit`` is ``"squash"`` (BLIP-2: the whole picture resized to the square, bicubic) or ``"letterbox"`` (SAM: the longest
    side to ``size``, bilinear, then zeros at the right and bottom after normalising). ``mean`` and ``std`` are on the 0-255
    scale. ``grey`` copies the luma to the three channels first (the demo encoders were trained on grey pictures).
    """

    name: str
    size: int
    fit: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    grey: bool = False


@dataclass(frozen=True)
class ClipConfig:
    """The CLIP-style vision transformer (``transformers``' Blip2VisionModel); ``stem`` names its patch embedding.

    ``stem``: ``"patch"`` (one strided convolution, as published) or ``"conv"`` (small strided convolutions; the demo scale).
    """

    hidden: int
    layers: int
    heads: int
    mlp: int
    image_size: int
    patch: int
    stem: str = "patch"
    activation: str = "gelu"
    layer_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        _one_of("stem", self.stem, ("patch", "conv"))


@dataclass(frozen=True)
class SamConfig:
    """SAM's image encoder, prompt encoder and mask decoder (``segment_anything``), sizes as in its ``build_sam``."""

    hidden: int
    layers: int
    heads: int
    global_layers: tuple[int, ...]
    window: int = 14
    image_size: int = 1024
    patch: int = 16
    out: int = 256
    stem: str = "patch"
    decoder_heads: int = 8
    decoder_mlp: int = 2048

    def __post_init__(self) -> None:
        _one_of("stem", self.stem, ("patch", "conv"))


@dataclass(frozen=True)
class QFormerConfig:
    """One Q-Former (BERT-base size in the paper's code); cross-attention stands in every second layer."""

    hidden: int = 768
    layers: int = 12
    heads: int = 12
    mlp: int = 3072
    queries: int = 32
    cross_every: int = 2
    dropout: float = 0.1
    vocab: int = 30523
    text_length: int = 32
    projection: int = 256


@dataclass(frozen=True)
class BranchConfig:
    """One way of looking: encoder → norm → Q-Former → projection.

    ``norm``: ``"layer"`` (LAVIS' trained ``ln_vision``) or ``"identity"``. ``tokens`` (SAM only): ``"positions"`` (every place of
    the feature map is a token; maps need it) or ``"channels"`` (every channel is a token, the authors' code).
    """

    encoder: str
    norm: str = "layer"
    tokens: str = "positions"
    qformer: QFormerConfig = QFormerConfig()

    def __post_init__(self) -> None:
        _one_of("encoder", self.encoder, ("clip", "sam"))
        _one_of("norm", self.norm, ("layer", "identity"))
        _one_of("tokens", self.tokens, ("positions", "channels"))


@dataclass(frozen=True)
class Decoding:
    """How a caption is searched for. ``view_sizes`` overrides a view's side in pixels for this preset."""

    beams: int = 1
    min_new_tokens: int = 1
    max_new_tokens: int = 60
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0
    prompt: str = ""
    view_sizes: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class ModelsConfig:
    """A folder of models: its views, its frozen parts, its branches, its systems and its decoding presets.

    ``opt`` is a folder inside the checkpoint or a hub id. ``dtype`` is what the frozen parts run in on an accelerator.
    """

    name: str
    views: tuple[ViewSpec, ...]
    clip: ClipConfig
    sam: SamConfig
    opt: str
    branches: dict[str, BranchConfig]
    systems: dict[str, tuple[str, ...]]
    presets: dict[str, Decoding]
    train_prompt: str = ""

    def view(self, name: str) -> ViewSpec:
        """The view an encoder (``"clip"`` or ``"sam"``) sees."""
        for spec in self.views:
            if spec.name == name:
                return spec
        raise UserError(f"This model folder has no view named {name!r}; its config.json lists {[v.name for v in self.views]}.")


@dataclass(frozen=True)
class SegmenterConfig:
    """SEG-SAM beyond SAM's own parts: what names a mask, and what can be switched off.

    - ``classes``: the names a mask can have, in the order of every score; the text token summarises the first ``summarised``, which
      are those of the training. Later ones are named, too, but change nothing for the others.
    - ``semantics``: the semantic-aware decoder; without it masks have no names. ``tokens`` is the number of its
      classification-oriented tokens, so the most classes of unprompted objects it can tell.
    - ``text``: the text-to-vision module; without it each class is a learned vector and no class can be added.
    - ``text_encoder``: who read the descriptions, ``"opt"`` (the language model of the same models folder) or a hub id;
      ``text_width`` is the width of what it says, ``text_parts`` the number of sentences of a class.
    - ``dense_prompts``: points and boxes are also laid as a map into SAM's mask input; ours, without it prompts are SAM's.
    - ``present_from``: the chance from which a class is said to be elsewhere in the picture, found on validation pictures; other
      classes are not said. Empty where nobody measured: all are, from a half on. ``present_in``: the DICOM modalities of those
      pictures; of a scan that is known to be of another nothing is said.
    """

    classes: tuple[str, ...]
    summarised: int
    semantics: bool = True
    text: bool = True
    tokens: int = 24
    text_encoder: str = "opt"
    text_width: int = 256
    text_parts: int = 5
    dense_prompts: bool = False
    present_from: dict[str, float] = field(default_factory=dict)
    present_in: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes) or not self.classes:
            raise UserError("classes must be at least one name, each once.")
        if not 1 <= self.summarised <= len(self.classes):
            raise UserError(f"summarised is {self.summarised}; it must be between 1 and {len(self.classes)}, the count of classes.")
        for name in ("tokens", "text_width", "text_parts"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1.")


@dataclass(frozen=True)
class SegmentationOptions:
    """How SEG-SAM is prompted in training, and what each loss weighs (0 switches one off).

    Sources: *SAM* (Kirillov et al. 2023, Section 3 and Appendix A); *DETR* (Carion et al. 2020, its matching; here with the
    focal class cost of Deformable DETR, Zhu et al. 2021, and its weight 2); *ours* (SEG-SAM's abstract names the loss, not its
    weight).

    - ``focal``, ``dice``, ``iou``: 20, 1, 1, SAM; for the binary masks and, less ``iou``, for the semantic mask.
    - ``foreground``: the object's share of the focal loss's weight: 0.25, RetinaNet's alpha (Lin et al. 2017), as SAM 2's code.
    - ``naming``: cross-entropy of the prompted object's class; ours.
    - ``presence``: the set prediction's focal loss; DETR.
    - ``alignment``: the cross-mask spatial alignment; ours.
    - ``rounds``: prompts per object, the first a point or a box (one half each), the others points in the error; SAM has 11,
      the demo scale 2 for time. ``further``: the share of batches that go beyond the first; ours, SAM's all do.
    - ``box_jitter``: deviation of a box's sides as a share of its length, at most 20 of 1024 pixels; SAM.
    - ``keep_mask``: how often a round also gets the mask of the round before; SAM always, ours less often, since a reader who
      sets several points at once has no such mask.
    """

    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    foreground: float = 0.25
    naming: float = 1.0
    presence: float = 2.0
    alignment: float = 1.0
    rounds: int = 3
    further: float = 1.0
    box_jitter: float = 0.1
    keep_mask: float = 0.5

    def __post_init__(self) -> None:
        for name in ("focal", "dice", "iou", "naming", "presence", "alignment", "box_jitter", "keep_mask"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}; it must not be negative.")
        for name in ("foreground", "further"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be from 0 to 1.")
        if self.rounds < 1:
            raise UserError(f"rounds is {self.rounds}; it must be at least 1.")


@dataclass(frozen=True)
class LoopConfig:
    """Length and pace of a training: AdamW; the learning rate warms up linearly, then falls as a cosine to ``min_lr``.

    The warm-up begins with ``start_lr`` (0: with the first of its ``warmup`` equal steps). ``betas`` are AdamW's.
    ``steps`` counts optimiser steps, each of ``accumulate`` micro batches. The course of the learning rate runs ``cycles``
    times within ``steps`` (warm restarts); the last cycle takes what does not divide evenly. ``clip`` bounds the gradient's
    norm; ``precision`` is ``"no"``, ``"bf16"`` or ``"fp16"``; ``ema`` is the decay of the averaged weights (0: none). Every
    ``save_every`` steps the state is saved; the last ``keep`` states stay. ``patience``: stop where the loss has not fallen
    over the first so many steps (0: never).
    ``cpu`` trains in main memory also where there is a GPU: the demo recipe keeps pictures, caches and frozen parts there.
    """

    steps: int
    lr: float
    min_lr: float = 1e-5
    warmup: int = 50
    weight_decay: float = 0.05
    clip: float = 1.0
    precision: str = "bf16"
    ema: float = 0.0
    save_every: int = 200
    seed: int = 0
    cpu: bool = True
    cycles: int = 1
    accumulate: int = 1
    keep: int = 2
    patience: int = 0
    betas: tuple[float, float] = (0.9, 0.98)
    start_lr: float = 0.0

    def __post_init__(self) -> None:
        _one_of("precision", self.precision, ("no", "bf16", "fp16"))
        for name in ("steps", "save_every", "cycles", "accumulate", "keep"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.cycles > self.steps:
            raise UserError(f"cycles is {self.cycles}; it must be at most steps ({self.steps}).")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"{name} is {value!r}; it must be one of {', '.join(known)}.")


def to_json(config: Any) -> str:
    """A config as indented JSON, keys in field order."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(kind: type[T], text: str) -> T:
    """The config of type ``kind`` in ``text``; an unknown or missing key raises :class:`UserError` naming it."""
    return _build(kind, json.loads(text), kind.__name__)


def read(kind: type[T], path: Path) -> T:
    """The config of type ``kind`` in the file ``path``."""
    try:
        return from_json(kind, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; name a model folder that holds a config.json.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}).") from None


def _build(kind: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise UserError(f"{where} must be a JSON object, not {type(value).__name__}.")
        hints = typing.get_type_hints(kind)
        fields = {f.name: f for f in dataclasses.fields(kind)}
        if unknown := sorted(set(value) - set(fields)):
            raise UserError(f"{where} has unknown keys {unknown}; it knows {sorted(fields)}.")
        required = {
            n for n, f in fields.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        }
        if missing := sorted(required - set(value)):
            raise UserError(f"{where} lacks the keys {missing}.")
        return kind(**{n: _build(hints[n], v, f"{where}.{n}") for n, v in value.items()})  # type: ignore[operator]
    if origin is tuple:
        item = args[0]
        fixed = len(args) != 2 or args[1] is not Ellipsis
        if not isinstance(value, (list, tuple)) or (fixed and len(value) != len(args)):
            raise UserError(f"{where} must be a list{f' of {len(args)} values' if fixed else ''}.")
        return tuple(_build(item, v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise UserError(f"{where} must be a JSON object.")
        return {k: _build(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _build(next(a for a in args if a is not type(None)), value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{where} must be {kind.__name__}, not {value!r}.")
    return value
