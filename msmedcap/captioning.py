"""From pictures to captions over shared models, one picture or many: what the predictor and the batch have in common.

Comes in: scans, then the encoders' outputs. Goes out: every system's prefix (Eq. 5), then captions, all systems and pictures in
one batch of the language model. A system that fails is left out of its picture's captions and named in the picture's warnings.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msmedcap.checkpoints import Models
from msmedcap.config import Decoding, UserError, ViewSpec
from msmedcap.data.scans import Scan, Window, open_scan
from msmedcap.explain import unlike
from msmedcap.models.branch import Branch
from msmedcap.models.opt import OnTokens, Opt
from msmedcap.models.quality import degenerate
from msmedcap.systems import SYSTEMS

log = logging.getLogger(__name__)

NOTHING_READ = "None of the systems could read this scan; see the log for the reasons."


@dataclass(frozen=True)
class Asked:
    """What is asked of the models: the systems by name, and how they search for their captions."""

    names: tuple[str, ...]
    decoding: Decoding


@dataclass(frozen=True)
class Look:
    """A scan as it is looked at: ``picture`` uint8 [H,W,3], the ``window``'s name (or "W,L") and the frame."""

    scan: Scan
    picture: np.ndarray
    window: str
    frame: int


@dataclass
class Reading:
    """One picture on its way to captions: each system's prefix ``[L,D_llm]``, and sentences about what went wrong."""

    prefixes: dict[str, Tensor] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def systems_of(models: Models) -> tuple[str, ...]:
    """The systems there are weights for, in the order they are shown: the paper's three, then others as the folder lists them."""
    return tuple(name for name in dict.fromkeys((*SYSTEMS, *models.captioners)) if name in models.captioners)


def ask(models: Models, *, systems: Sequence[str] | None, preset: str, prompt: str | None) -> Asked:
    """What these options ask for; raises :class:`UserError` on a preset or system that is not there, or too long a prompt."""
    presets = models.config.presets
    if preset not in presets:
        raise UserError(f"There is no preset {preset!r}; choose from {', '.join(presets)}.")
    known = systems_of(models)
    names = tuple(systems or known)
    if not names:
        raise UserError(" ".join(models.missing.values()) or "These models hold no systems.")
    for name in names:
        if name not in models.captioners:
            unknown = f"There is no system {name!r}; choose from {', '.join(known)}."
            raise UserError(models.missing.get(name, unknown))
    decoding = presets[preset]
    asked = Asked(names, decoding if prompt is None else dataclasses.replace(decoding, prompt=prompt))
    _check_prompt(models, asked)
    return asked


def check_caption(models: Models, name: str, prompt: str, caption: str) -> None:
    """Raises :class:`UserError` where the language model cannot read ``caption`` once more after the picture and ``prompt``.

    It may have more tokens than were said: some that were said are parts of a letter.
    """
    most = max(0, _room(models, name, prompt))
    if (tokens := len(models.frozen.opt.caption_ids(caption))) > most:
        raise UserError(
            f"The caption of {name} is {tokens} tokens long; at most {most} fit beside the picture and the prompt, so its words"
            " cannot be looked at one by one."
        )


def _check_prompt(models: Models, asked: Asked) -> None:
    """Raises :class:`UserError` where the prompt leaves no place for the captions in what the language model can read."""
    prompt = asked.decoding.prompt
    lacking = asked.decoding.max_new_tokens - min(_room(models, name, prompt) for name in asked.names)
    if lacking > 0:
        tokens = len(models.frozen.opt.prompt_ids(prompt)) - 1  # the first only begins the text
        most = max(0, tokens - lacking)
        raise UserError(f"The prompt is {tokens} tokens long; at most {most} fit beside the picture and the caption.")


def _room(models: Models, name: str, prompt: str) -> int:
    """How many tokens a system's language model can still take after what its branches read of the picture and the prompt."""
    opt = models.frozen.opt
    seen = sum(branch.config.qformer.queries for _, branch in models.captioners[name].named_branches())
    positions: int = opt.model.config.max_position_embeddings
    return positions - seen - len(opt.prompt_ids(prompt))


def look(
    source: str | Path | bytes | Scan, *, window: str | Window | None, frame: int, allow_burned_in: bool
) -> Look:
    """The scan in a file or its bytes, or one already open, as displayed; raises ``ScanError``."""
    scan = source if isinstance(source, Scan) else open_scan(source, allow_burned_in=allow_burned_in)
    picture = scan.picture(window, frame)
    return Look(scan, picture, scan.resolve_window(window, frame)[0], frame)


def specs(models: Models, asked: Asked) -> list[ViewSpec]:
    """The views that the systems asked for look through, each once."""
    views = dict.fromkeys(view for name in asked.names for view, _ in models.captioners[name].named_branches())
    return [_spec(models, view, asked.decoding.view_sizes.get(view)) for view in views]


class Features:
    """The encoders' outputs ``[B,...]`` for B pictures, in the encoders' own dtype; each is computed once, when asked for."""

    def __init__(self, models: Models, views: Callable[[ViewSpec], Tensor]) -> None:
        """``views`` gives the pictures as a spec has them, float32 ``[B,3,S,S]``."""
        self._models, self._views = models, views
        self._known: dict[ViewSpec, Tensor] = {}
        self._lock = threading.Lock()  # a click and a caption may want the same encoding at once

    @torch.inference_mode()
    def __call__(self, view: str, size: int | None = None) -> Tensor:
        """The output of the encoder ``view``; ``size`` in pixels where a preset looks at another."""
        spec = _spec(self._models, view, size)
        with self._lock:
            if spec not in self._known:
                encoder = self._models.frozen.encoder(view)
                # The device is the models': weights that wait elsewhere between passes do not tell where the pass runs.
                pixels = self._views(spec).to(self._models.device, next(encoder.parameters()).dtype)
                self._known[spec] = encoder(pixels)
            return self._known[spec]


def tokens_of(branch: Branch, features: Tensor) -> Tensor:
    """An encoder's output as the branch's tokens ``[B,N,D_enc]``, in the dtype of what was trained.

    The frozen parts may run in fewer bits; where they do not, nothing is copied.
    """
    return branch.tokens(features).to(branch.projection.weight.dtype)


@torch.inference_mode()
def read(models: Models, asked: Asked, features: Features, *, count: int = 1) -> list[Reading]:
    """Each of ``count`` pictures' prefixes from their ``features``.

    For one picture a system that fails is left out with a warning, and UserError is raised where none is left. Of several
    pictures nobody knows whose fault it was, so the failure is raised.
    """
    readings = [Reading() for _ in range(count)]
    for name in asked.names:
        try:
            prefixes = _prefix(models, name, asked.decoding, features)
        except (RuntimeError, FloatingPointError) as error:
            if count > 1:
                raise
            _failed(readings[0], name, error)
            continue
        for reading, prefix in zip(readings, prefixes, strict=True):
            reading.prefixes[name] = prefix
    if not readings[0].prefixes:
        raise UserError(NOTHING_READ)
    for reading, sentence in zip(readings, _unlike(models, asked, readings[0], features), strict=False):
        reading.warnings += [sentence] if sentence else []
    return readings


def _unlike(models: Models, asked: Asked, reading: Reading, features: Features) -> list[str | None]:
    """For each picture the warning that it is unlike the training data, if it is: from what the systems read already saw."""
    check = unlike.load(models.folder) if models.folder else None
    if check is None:
        return []
    seen = {}
    for name in reading.prefixes:
        for view, _ in models.captioners[name].named_branches():
            size = asked.decoding.view_sizes.get(view)
            # Features of another size of view are not those that the check knows.
            if _spec(models, view, size).size == check.sizes.get(view):
                seen[view] = features(view, size)
    return check.sentences(seen)


def _prefix(models: Models, name: str, decoding: Decoding, features: Features) -> Tensor:
    """The system's prefixes ``[B,L,D_llm]``; raises FloatingPointError where they are not finite."""
    captioner = models.captioners[name]
    tokens = {
        view: tokens_of(branch, features(view, decoding.view_sizes.get(view))) for view, branch in captioner.named_branches()
    }
    prefixes = captioner.prefix(tokens, decoding.prompt)
    if not bool(torch.isfinite(prefixes).all()):
        raise FloatingPointError("its features are not finite numbers")
    return prefixes


def write(
    models: Models, asked: Asked, readings: Sequence[Reading], *, on_tokens: OnTokens | None = None
) -> list[dict[str, str]]:
    """Each reading's captions by system, decoded as one batch; what is wrong with one is added to its warnings.

    Where the batch fails, the systems of a single picture are decoded one by one; for several pictures the failure is raised.
    A caption that the 8-bit language model spoiled is decoded again with the 16-bit one, if there is one.
    """
    rows = [(reading, name) for reading in readings for name in reading.prefixes]
    opt = models.frozen.opt
    try:
        texts: list[str | None] = [*opt.generate([r.prefixes[name] for r, name in rows], asked.decoding, on_tokens=on_tokens)]
    except RuntimeError as error:
        if len(readings) > 1:
            raise
        log.warning("the batch failed (%s); decoding one system at a time", error)
        texts = []
        for reading, name in rows:
            try:
                texts += opt.generate([reading.prefixes[name]], asked.decoding)
            except RuntimeError as own:
                _failed(reading, name, own)
                texts.append(None)
    texts = _mended(models, asked.decoding, rows, texts)
    said: dict[int, dict[str, str]] = {id(reading): {} for reading in readings}
    for (reading, name), text in zip(rows, texts, strict=True):
        if text is not None:
            said[id(reading)][name] = text
    return [said[id(reading)] for reading in readings]


def _mended(
    models: Models, decoding: Decoding, rows: Sequence[tuple[Reading, str]], texts: Sequence[str | None]
) -> list[str | None]:
    """``texts`` with the degenerate ones decoded again by the 16-bit language model; warns of each, mended or not."""
    faults = {i: fault for i, text in enumerate(texts) if text is not None and (fault := degenerate(text))}
    if not faults:
        return list(texts)
    again: list[str] | None = None
    try:
        if (opt := models.fallback()) is not None:
            again = _again(opt, decoding, [rows[i][0].prefixes[rows[i][1]] for i in faults])
    except (RuntimeError, UserError) as error:
        if isinstance(error, RuntimeError) and rows[0][0] is not rows[-1][0]:
            raise
        log.warning("the 16-bit language model failed: %s", error)
    mended = list(texts)
    for place, (i, fault) in enumerate(faults.items()):
        reading, name = rows[i]
        if again is not None:
            mended[i] = again[place]
            told = f"the 8-bit language model returned {fault}; this one is from the 16-bit model."
            if rest := degenerate(again[place]):
                told = f"the language model returned {rest}, in 16 bits as in 8."
        elif models.spare is not None:
            told = f"the 8-bit language model returned {fault}, and the 16-bit one could not be used."
        else:
            told = f"the language model returned {fault}."
        reading.warnings.append(f"{name}: {told}")
    return mended


def _again(opt: Opt, decoding: Decoding, prefixes: Sequence[Tensor]) -> list[str]:
    # The prefixes serve both models: in 8 bit the embeddings are as they were. The fallback may lie on another device.
    return opt.generate([prefix.to(opt.model.device) for prefix in prefixes], decoding)


def _spec(models: Models, view: str, size: int | None) -> ViewSpec:
    spec = models.config.view(view)
    return spec if size is None else dataclasses.replace(spec, size=size)


def _failed(reading: Reading, name: str, error: Exception) -> None:
    log.warning("%s failed: %s", name, error)
    reading.warnings.append(f"{name} could not caption this scan; the other systems are not affected.")
