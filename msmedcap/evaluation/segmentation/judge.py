"""Every object of a set of pictures, asked for in three ways, and what a segmenter says of it.

The prompts: the exact box around the mask; one click at the mask's centre-most point (the farthest from its edge); one click
anywhere in it, drawn once for all segmenters. The encoder runs once for a picture. Masks are compared in the picture's own frame,
on at most 512 pixels a side. Comes in: segmenters by system, one for each seed. Goes out: :class:`Results`.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

from msmedcap.config import ViewSpec
from msmedcap.data.segments import SegmentedPicture
from msmedcap.data.views import ViewFrame, make_view
from msmedcap.evaluation.overlap import Fit, fit
from msmedcap.models.sam import SamEncoder
from msmedcap.models.segmenter import Prediction, Segmenter

log = logging.getLogger(__name__)

PROMPTS = ("box", "centre click", "random click")
LONGEST = 512
SMALLEST = 16  # pixels, below which a mask is no object to ask for


@dataclass(frozen=True)
class Judged:
    """One answer: which ``system`` and ``seed`` said it of the object ``number`` of ``picture``, asked for by ``prompt``.

    ``name`` is the object's class. ``semantic`` and ``right`` (the class was told right) are None without the semantic decoder.
    """

    system: str
    seed: int
    picture: str
    group: str
    number: int
    name: str
    prompt: str
    binary: Fit
    semantic: Fit | None
    right: bool | None


@dataclass(frozen=True)
class Presence:
    """What a system says of the other classes in a picture when one object is asked for.

    ``scores [K]`` by class, ``present [K]`` and ``known [K]`` bool: whether the class has another object there, and whether the
    data set would say so.
    """

    system: str
    seed: int
    group: str
    prompt: str
    scores: np.ndarray
    present: np.ndarray
    known: np.ndarray


@dataclass(frozen=True)
class Results:
    """All answers; ``classes`` are those of the segmenters, in the order of the presences' scores."""

    answers: list[Judged]
    presences: list[Presence]
    classes: tuple[str, ...]


@torch.inference_mode()
def judge(
    rows: Sequence[SegmentedPicture],
    encoder: SamEncoder,
    spec: ViewSpec,
    systems: Mapping[str, Sequence[Segmenter]],
    *,
    seed: int = 0,
) -> Results:
    """What every segmenter of ``systems`` (by name, one a seed) says of every object of ``rows`` that has a class.

    All that name classes must name the same. Raises ``ValueError`` where they do not.
    """
    naming = [s for own in systems.values() for s in own if s.semantics is not None]
    if len({s.names for s in naming}) > 1:
        raise ValueError("the segmenters name different classes")
    answers: list[Judged] = []
    presences: list[Presence] = []
    for row in tqdm(rows, desc="judging", mininterval=2):
        view = make_view(row.pixels(), spec)[None]
        features = encoder(view).float()
        masks, names = _objects(row)
        if not names:
            continue
        frame = ViewFrame(spec, *masks.shape[1:])
        for prompt in PROMPTS:
            asked = _prompts(masks, prompt, frame, random.Random(f"{seed} {row.id}").getrandbits(31))
            for system, own in systems.items():
                for number, segmenter in enumerate(own):
                    said = segmenter.predict(features, **asked)
                    answers += _judged(said, segmenter, row, masks, names, frame, (system, number, prompt))
                    if said.present is not None and naming:
                        presences += _presences(said.present, segmenter, row, names, (system, number, prompt))
    return Results(answers, presences, naming[0].names if naming else ())


def _objects(row: SegmentedPicture) -> tuple[np.ndarray, list[str]]:
    """The masks that have a class, bool ``[n,h,w]`` on at most :data:`LONGEST` pixels a side, and their classes."""
    masks = row.masks()
    height, width = masks.shape[1:]
    scale = min(1.0, LONGEST / max(height, width))
    sides = [((np.arange(round(s * scale)) + 0.5) / scale).astype(int).clip(max=s - 1) for s in (height, width)]
    small = masks[:, sides[0]][:, :, sides[1]]
    kept = [i for i, s in enumerate(row.segments) if s.name is not None and small[i].sum() >= SMALLEST]
    return small[kept], [str(row.segments[i].name) for i in kept]


def _prompts(masks: np.ndarray, prompt: str, frame: ViewFrame, seed: int) -> dict[str, Tensor]:
    """One prompt for each mask, in the view."""
    if prompt == "box":
        boxes = [_box(mask) for mask in masks]
        return {"boxes": torch.from_numpy(frame.boxes_to_view(boxes))}
    generator = np.random.default_rng(seed)
    points = [centre_most(mask) if prompt == "centre click" else _anywhere(mask, generator) for mask in masks]
    labels = torch.ones(len(points), 1, dtype=torch.int)
    return {"points": torch.from_numpy(frame.points_to_view(points))[:, None], "labels": labels}


def _box(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def centre_most(mask: np.ndarray) -> tuple[float, float]:
    """The centre (x, y) of the pixel of ``mask`` (bool ``[H,W]``) that is farthest from its edge; the picture's rim is one."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), mask.shape)
    return float(column) + 0.5, float(row) + 0.5


def _anywhere(mask: np.ndarray, generator: np.random.Generator) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    i = int(generator.integers(len(rows)))
    return float(columns[i]) + 0.5, float(rows[i]) + 0.5


def _judged(
    said: Prediction,
    segmenter: Segmenter,
    row: SegmentedPicture,
    masks: np.ndarray,
    names: Sequence[str],
    frame: ViewFrame,
    what: tuple[str, int, str],
) -> list[Judged]:
    system, number, prompt = what
    found = []
    for i, (mask, name) in enumerate(zip(masks, names, strict=True)):
        semantic = right = None
        if said.semantic is not None and said.classes is not None:
            semantic = fit(_mask(said.semantic[i], frame), mask)
            right = segmenter.names[int(said.classes[i].argmax())] == name
        binary = fit(_mask(said.binary[i], frame), mask)
        found.append(Judged(system, number, row.id, row.group, i, name, prompt, binary, semantic, right))
    return found


def _mask(logits: Tensor, frame: ViewFrame) -> np.ndarray:
    return frame.heatmap_to_picture(logits.float().cpu().numpy()) > 0


def _presences(
    present: Tensor, segmenter: Segmenter, row: SegmentedPicture, names: Sequence[str], what: tuple[str, int, str]
) -> list[Presence]:
    system, number, prompt = what
    known = np.array([name in row.labelled for name in segmenter.names])
    found = []
    for i, scores in enumerate(present.float().cpu().numpy()):
        others = {*names[:i], *names[i + 1 :]}
        there = np.array([name in others for name in segmenter.names])
        found.append(Presence(system, number, row.group, prompt, scores, there, known))
    return found
