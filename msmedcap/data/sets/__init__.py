"""Data sets: the published layouts of pictures with captions or labels, each read into splits of :class:`Case` rows.

Comes in: a data set's folder (or file) as its home publishes it. Goes out: ``{split: cases}``; the words are read at once, the
pictures one at a time, when :func:`stream` or :func:`open_case` gets to them. Splits are the official ones, else by patient,
article or near-duplicate group.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msmedcap.config import UserError
from msmedcap.data.sets.case import Blob, Case, Skipped, open_case, split_of, stream
from msmedcap.data.sets.cleaning import clean as clean_caption
from msmedcap.data.sets.coco import read_coco2014, read_coco2017
from msmedcap.data.sets.labels import read_cxr_seg, read_known_labels, read_labels
from msmedcap.data.sets.medicat import read_medicat
from msmedcap.data.sets.medpix import read_medpix
from msmedcap.data.sets.roco import read_roco
from msmedcap.data.sets.rocov2 import read_rocov2
from msmedcap.data.sets.selection import SELECTIONS, Selection, select
from msmedcap.data.sets.tables import read_table

__all__ = [
    "FACT_SETS",
    "READERS",
    "SELECTIONS",
    "Blob",
    "Case",
    "Selection",
    "Skipped",
    "clean_caption",
    "open_case",
    "read_dataset",
    "select",
    "split_of",
    "stream",
]

READERS: dict[str, Callable[[Path], Mapping[str, Sequence[Case]]]] = {
    "medpix": read_medpix,
    "cxr_labels": read_known_labels,
    "busi": read_known_labels,
    "cxr_seg": read_cxr_seg,
    "coco2014": read_coco2014,
    "coco2017": read_coco2017,
    "roco": read_roco,
    "rocov2": read_rocov2,
    "medicat": read_medicat,
    "table": read_table,
    "labels": read_labels,
}
# The sets whose captions are made of facts, which the demo weights are trained on.
FACT_SETS = ("medpix", "cxr_labels", "busi", "cxr_seg")
_FILES = ("medicat", "rocov2", "table")
_ALIASES = {"validation": "val", "valid": "val"}


def read_dataset(
    name: str, path: Path, split: str, *, selection: str = "", take_all: bool = False, clean: bool = False
) -> list[Case]:
    """The cases of ``split`` of the dataset ``name`` at ``path``.

    ``selection`` names one of :data:`SELECTIONS`, which ``take_all`` lets be smaller than its name says; ``clean`` takes the
    figure's apparatus out of the captions. Raises :class:`UserError` for an unknown name, split or selection, for a selection
    of another set or split, and for a folder that is not the data set's.
    """
    if name not in READERS:
        raise UserError(f"There is no reader for a dataset named {name!r}; there are {', '.join(READERS)}.")
    path = Path(path)
    if not path.is_dir() and not (path.is_file() and name in _FILES):
        raise UserError(f"The dataset folder {path} does not exist.")
    split = _ALIASES.get(split, split)
    if selection:
        _check(selection, name, split)
        cases = select(selection, READERS[name](path), take_all=take_all)
    else:
        splits = READERS[name](path)
        if split not in splits:
            raise UserError(f"{name} has no split {split!r}; it has {', '.join(splits)}.")
        cases = list(splits[split])
    return [_cleaned(case) for case in cases] if clean else cases


def _check(selection: str, name: str, split: str) -> None:
    if selection not in SELECTIONS:
        raise UserError(f"There is no selection named {selection!r}; there are {', '.join(SELECTIONS)}.")
    chosen = SELECTIONS[selection]
    if (chosen.reader, chosen.splits[0]) != (name, split):
        raise UserError(
            f"{selection} is a selection of {chosen.reader}'s split {chosen.splits[0]!r}, not of {name}'s {split!r}."
        )


def _cleaned(case: Case) -> Case:
    captions = tuple(clean_caption(text) for text in case.captions)
    return dataclasses.replace(case, caption=clean_caption(case.caption), captions=captions)
