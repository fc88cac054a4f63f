"""Published mask sets: the chest X-ray set's CSV, SA-Med2D's two layouts, and a plain folder of pictures and index masks.

Comes in: the set's folder. Goes out: rows of :class:`~msmedcap.data.segments.picture.SegmentedPicture`; labels are led to classes,
and splits are the set's own, else by group.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from msmedcap.config import UserError
from msmedcap.data import masks
from msmedcap.data.classes import ClassBook
from msmedcap.data.groups import near_duplicate_groups
from msmedcap.data.segments.picture import IndexMask, Segment, SegmentedPicture
from msmedcap.data.segments.places import absent
from msmedcap.data.sets import labels
from msmedcap.data.sets.case import split_of

INDEX, MAPPING, SAMPLE = "SAMed2D_v1.json", "SAMed2D_v1_class_mapping_id.json", "image2label_train.json"
# What a folder's index mask says of value 0.
BACKGROUND = 0
_SHARES = {"test": 0.1, "val": 0.1, "train": 0.8}
# modality--set--patient and more--direction_slice--class_number.png; a picture's name ends before the class.
_MASK_NAME = re.compile(r"(?P<picture>.+--.+)--(?P<kind>\d+)_\d+$")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def read_chest(path: str, book: ClassBook) -> list[SegmentedPicture]:
    """The chest X-ray set (``masks.csv``): every mask of its 13 classes; splits are those of its captions."""
    folder = Path(path)
    cases = labels.read_cxr_seg(folder)
    where = {case.image: (split, case.group) for split, found in cases.items() for case in found}
    rows = masks.read_cxr_seg(folder)
    every = {name for row in rows for label, _ in row.masks if (name := book.resolve(label))}
    labelled = frozenset(every | absent(every, book.names))
    found = []
    for row in rows:
        split, group = where[row.image]
        segments = tuple(Segment(book.resolve(label), file) for label, file in row.masks)
        found.append(SegmentedPicture(row.id, "cxr_seg", row.image, segments, labelled, group, split))
    return found


def read_sa_med2d(path: str, book: ClassBook) -> list[SegmentedPicture]:
    """SA-Med2D-20M as published (``SAMed2D_v1.json``), or SAM-Med2D's small sample (``image2label_train.json``).

    A mask's class is told by its file's name: in the sample by a word, in the published set by the number that
    ``SAMed2D_v1_class_mapping_id.json`` gives the class in that source. Groups are patients: slices of one body stay in one split
    (the sample, a training index, is all for training). Labelled is what any picture of the same source has a mask of.
    """
    folder = Path(path)
    if (folder / INDEX).is_file():
        told = _published(folder, book)
    elif (folder / SAMPLE).is_file():
        told = [
            (row.image, row.id.partition("_")[0], row.id.rpartition("_")[0],
             tuple(Segment(book.resolve(label), file) for label, file in row.masks))
            for row in masks.read_sa_med2d(folder)
        ]  # fmt: skip
    else:
        raise UserError(f"{path} holds neither {INDEX} nor {SAMPLE}; name the folder with images/ and masks/.")
    sources: dict[str, set[str]] = defaultdict(set)
    for _, source, _, segments in told:
        sources[source] |= {s.name for s in segments if s.name is not None}
    sample = not (folder / INDEX).is_file()
    rows = []
    labelled = {source: frozenset(names | absent(names, book.names)) for source, names in sources.items()}
    for image, source, patient, segments in told:
        if segments:
            split = "train" if sample else split_of(patient, _SHARES)
            rows.append(SegmentedPicture(image.name, "sa_med2d", image, segments, labelled[source], patient, split))
    return rows


def _published(folder: Path, book: ClassBook) -> list[tuple[Path, str, str, tuple[Segment, ...]]]:
    """Picture, source, patient and masks of every entry of the index."""
    index, mapping = _json(folder / INDEX), _json(folder / MAPPING)
    names = {source: {int(number): label for label, number in classes.items()} for source, classes in mapping.items()}
    known: dict[str, str | None] = {label: book.resolve(label) for classes in mapping.values() for label in classes}
    found = []
    for image, files in sorted(index.items()):
        parts = Path(image).stem.split("--")
        if len(parts) < 3:
            raise UserError(f"{INDEX} names the picture {image}; SA-Med2D's are modality--set--patient--slice.png.")
        modality, source, patient = parts[:3]
        segments = []
        for file in files:
            match = _MASK_NAME.match(Path(file).stem)
            label = names.get(source, {}).get(int(match["kind"])) if match else None
            segments.append(Segment(known[label] if label is not None else None, folder / file))
        found.append((folder / image, f"{modality} {source}", f"{source} {patient}", tuple(segments)))
    return found


def read_folder(path: str, book: ClassBook) -> list[SegmentedPicture]:
    """A plain folder: ``images/``, ``masks/`` with an index map of the same stem for each picture, and ``names.json``.

    ``names.json`` gives the label of every value, ``{"1": "liver", "2": "spleen"}``; 0 is the background. Near-duplicates
    stay in one split. Raises :class:`UserError` for a picture without a mask, and a value without a name.
    """
    folder = Path(path)
    images = sorted(f for f in (folder / "images").glob("*") if f.suffix.lower() in _PICTURES)
    if not images:
        raise UserError(f"{folder / 'images'} holds no pictures; a folder of masks has images/, masks/ and names.json.")
    told = {int(value): label for value, label in _json(folder / "names.json").items()}
    names = {value: book.resolve(label) for value, label in told.items()}
    every = {name for name in names.values() if name}
    labelled = frozenset(every | absent(every, book.names))
    groups = near_duplicate_groups(images)
    rows = []
    for image, group in zip(images, groups, strict=True):
        file = folder / "masks" / f"{image.stem}.png"
        segments = tuple(Segment(names[value], IndexMask(file, value)) for value in _values(file, told))
        if segments:
            split = split_of(images[group].name, _SHARES)
            rows.append(SegmentedPicture(image.name, folder.name, image, segments, labelled, images[group].name, split))
    return rows


def _values(file: Path, told: dict[int, str]) -> list[int]:
    """The values of an index map but for the background."""
    try:
        with Image.open(file) as image:
            values = [int(v) for v in np.unique(np.asarray(image)) if v != BACKGROUND]
    except FileNotFoundError:
        raise UserError(f"{file} is missing; every picture needs an index map of its name.") from None
    if unknown := [v for v in values if v not in told]:
        raise UserError(f"{file} has the value {unknown[0]}, which names.json does not name.")
    return values


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; it says what the masks are.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}).") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} must be a JSON object.")
    return found
