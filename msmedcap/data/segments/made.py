"""Phantoms as pictures with masks: what is drawn is known exactly.

Comes in: how many. Goes out: rows, nine tenths of them for training. All that phantoms of a kind can show is labelled in
each of that kind, besides what lies elsewhere in the body.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from tqdm import tqdm

from msmedcap.config import UserError
from msmedcap.data.classes import ClassBook
from msmedcap.data.phantoms import Phantom, phantoms
from msmedcap.data.segments.picture import PackedMask, Segment, SegmentedPicture
from msmedcap.data.segments.places import absent

SIZE = 320
SEED = 11  # not the phantoms of the encoders' training
# The tenth part is held out.
HELD_OUT = 10
# Where the body ends says nothing that is worth a name.
LEFT_OUT = ("body",)


def read_phantoms(path: str, book: ClassBook) -> list[SegmentedPicture]:
    """As many phantoms as ``path`` says; every tenth is of the split val. Raises :class:`UserError` where it is no number."""
    if not path.isdecimal() or int(path) < 1:
        raise UserError(f"The path of phantoms says how many are made, such as 500; it is {path!r}.")
    count = int(path)
    made: list[tuple[str, np.ndarray, tuple[Segment, ...]]] = []
    names: dict[str, set[str]] = defaultdict(set)
    for phantom in tqdm(phantoms(count, seed=SEED, size=SIZE), total=count, desc="making scans", mininterval=2):
        kind = f"{phantom.facts['modality']} {phantom.facts['part']} {phantom.facts['plane']}"
        segments = tuple(_segments(phantom, book))
        names[kind] |= {s.name for s in segments if s.name is not None}
        made.append((kind, phantom.picture, segments))
    rows = []
    for i, (kind, picture, segments) in enumerate(made):
        if segments:
            labelled = frozenset(names[kind] | absent(names[kind], book.names))
            split = "val" if i % HELD_OUT == HELD_OUT - 1 else "train"
            rows.append(SegmentedPicture(f"{SEED}-{i}", "phantoms", picture, segments, labelled, f"phantom {i}", split))
    return rows


def _segments(phantom: Phantom, book: ClassBook) -> list[Segment]:
    """The masks that have a class; ``lesion`` where nothing says which."""
    found = []
    for name, mask in phantom.masks.items():
        own = book.resolve(name)
        if own is not None and name not in LEFT_OUT and not (name == "lesion" and _named_otherwise(phantom.masks)):
            found.append(Segment(own, PackedMask.of(mask)))
    return found


def _named_otherwise(masks: Mapping[str, np.ndarray]) -> bool:
    """Whether the lesion's mask stands there a second time, under its own name."""
    return any(name != "lesion" and np.array_equal(mask, masks["lesion"]) for name, mask in masks.items())
