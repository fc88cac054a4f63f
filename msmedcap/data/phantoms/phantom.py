"""What a made scan is: values, their window, the displayed picture, exact masks and the facts its caption states.

Comes in: a painted canvas and the facts. Goes out: a :class:`Phantom`. Sides follow the radiological convention: the
patient's left is on the picture's right in axial, coronal and frontal pictures, in facts, masks and captions alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from msmedcap.data.captions import plain_caption
from msmedcap.data.phantoms.canvas import Field, Mask
from msmedcap.data.scans import Window
from msmedcap.data.scans.windows import Choice, greys

Picture = np.ndarray[tuple[int, int], np.dtype[np.uint8]]


@dataclass(frozen=True)
class Phantom:
    """One made scan with its truth.

    ``values`` [H,W] float32 holds whole numbers (HU for CT, arbitrary units else); ``picture`` [H,W] uint8 is ``values`` in
    ``window``; ``masks`` name anatomy, ``"body"`` and, where there is one, ``"lesion"``, bool [H,W]; ``facts`` has the keys
    modality, plane, view, part, sequence, finding, side and size (empty where it does not apply); ``spacing`` is (row,
    column) in mm. The lesion's own class name (for the chest radiograph the mask set's) is a second key with the same mask.
    """

    values: Field
    window: Window
    picture: Picture
    masks: Mapping[str, Mask]
    facts: Mapping[str, str]
    caption: str
    spacing: tuple[float, float]


def finish(
    values: Field,
    masks: Mapping[str, Mask],
    facts: Mapping[str, str],
    *,
    window: Window,
    limits: tuple[int, int],
    spacing: float,
) -> Phantom:
    """Round the values to whole numbers within ``limits``, display them and write the caption; ``spacing`` in mm per pixel."""
    stored = np.clip(np.rint(values), *limits).astype(np.float32)
    every = {key: facts.get(key, "") for key in ("modality", "plane", "view", "part", "sequence", "finding", "side", "size")}
    step = round(spacing, 4)
    return Phantom(
        values=stored,
        window=window,
        picture=greys(stored, Choice(window, curve="linear")),
        masks={name: mask for name, mask in masks.items() if mask.any()},
        facts=every,
        caption=plain_caption(every),
        spacing=(step, step),
    )


def percentile_window(values: Field, rng: np.random.Generator) -> Window:
    """The window a technologist would have set on an arbitrary scale: from about 0 to a high percentile, varied a little."""
    top = float(np.percentile(values, rng.uniform(97.5, 99.7)))
    low = float(rng.uniform(-0.02, 0.04)) * top
    return Window(width=float(max(2, round(top * rng.uniform(0.85, 1.2) - low))), level=float(round((top + low) / 2)))
