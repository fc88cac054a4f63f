"""From which chance SEG-SAM says that a class is elsewhere in a picture: found on validation pictures, class by class.

A class that nobody labels in pictures of a kind is never denied in training, so its chance there means nothing: it is not said.
Comes in: a models folder with a segmenter, the folder of the chest masks. Goes out: ``present_from`` and ``present_in`` in the
segmenter's config.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from msmedcap import config as configs
from msmedcap.config import ModelsConfig
from msmedcap.data.classes import load_classes
from msmedcap.data.segments import read
from msmedcap.evaluation.segmentation.judge import Presence, judge
from msmedcap.models.frozen import freeze
from msmedcap.models.sam import SamEncoder
from msmedcap.models.weights import empty, load_into
from msmedcap.segmenters import FOLDER, load_segmenter

log = logging.getLogger(__name__)

LEAST_SEEN = 5
"""Prompts in whose pictures a class must be elsewhere; of fewer no limit can be found."""
LEAST_F1 = 0.6
"""A class whose best limit does worse (the harmonic mean of precision and recall) is better not said."""
SET, MODALITIES = "cxr_seg", ("CR", "DX", "RF", "RG", "XA")


def fit_presence(models: Path, data: Path | None) -> dict[str, float]:
    """Find the limits on the chest masks' validation split in ``data``, write them into the segmenter's config, return them.

    Where there are no such masks nothing is changed: every class is then said from a half on.
    """
    folder = None if data is None else data / SET
    if folder is None or not folder.is_dir():
        log.warning("there are no masks at %s: from which chance a class is present stays unmeasured", folder)
        return {}
    known = configs.read(ModelsConfig, models / "config.json")
    encoder = freeze(load_into(empty(lambda: SamEncoder(known.sam)), models / "sam"))
    segmenter = load_segmenter(models / FOLDER, known.sam)
    rows = read(SET, str(folder), load_classes(), split="val")
    with torch.no_grad():
        found = limits(judge(rows, encoder, known.view("sam"), {"SEG-SAM": [segmenter]}).presences, segmenter.names)
    config = dataclasses.replace(segmenter.config, present_from=found, present_in=MODALITIES)
    (models / FOLDER / "config.json").write_text(configs.to_json(config), encoding="utf-8")
    return found


def limits(presences: Sequence[Presence], names: Sequence[str]) -> dict[str, float]:
    """For each class of ``names`` the chance that divides best (by F1) where it is from where it is not.

    Without a class that was seen elsewhere at fewer than :data:`LEAST_SEEN` prompts or divides worse than :data:`LEAST_F1`.
    """
    found = {}
    for place, name in enumerate(names):
        own = [p for p in presences if p.known[place]]
        there = np.array([p.present[place] for p in own], dtype=bool)
        if there.sum() < LEAST_SEEN:
            continue
        scores = np.array([p.scores[place] for p in own])
        best, limit = max((_f1(scores >= at, there), at) for at in np.unique(scores))
        if best >= LEAST_F1:
            below = scores[scores < limit]
            # Half way to the next lower one: the limit itself is a picture's own score.
            found[name] = round(float((limit + below.max()) / 2 if len(below) else limit / 2), 4)
    return found


def _f1(said: np.ndarray, there: np.ndarray) -> float:
    return float(2 * (said & there).sum() / max(1, said.sum() + there.sum()))
