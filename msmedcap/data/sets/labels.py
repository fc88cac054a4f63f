"""Pictures whose folder is their label, and the chest X-rays of the mask set: splits by near-duplicate group.

Comes in: a folder per label, or ``masks.csv`` beside ``images/``. Goes out: cases whose caption is the plain sentence of the
facts. Nobody says whose pictures these are, so each is looked at once, small, and copies of one film stay in one split; where
the folder has ``train/``, ``val/`` and ``test/`` of its own, they are kept and no picture is looked at.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from msmedcap.config import UserError
from msmedcap.data.captions import plain_caption
from msmedcap.data.groups import near_duplicate_groups
from msmedcap.data.sets.case import Case, split_of

_CHEST = {"modality": "X-ray", "view": "frontal", "part": "chest"}
_BREAST = {"modality": "ultrasound", "part": "breast"}
_KNOWN = {
    "no_findings": {**_CHEST, "label": "no findings"},
    "pneumonia": {**_CHEST, "label": "pneumonia"},
    "covid19": {**_CHEST, "label": "COVID-19"},
    "benign": {**_BREAST, "label": "benign"},
    "malignant": {**_BREAST, "label": "malignant"},
    "normal": {**_BREAST, "label": "normal"},
}
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "dev", "test": "test"}
_FACTS = "facts.json"
# Some sets keep a picture's mask beside it; a mask is no scan.
_MASK = re.compile(r"_mask(_\d+)?\.\w+$", re.I)
_SHARES = {"test": 0.15, "val": 0.1, "train": 0.75}


def read_known_labels(path: Path) -> dict[str, list[Case]]:
    """Chest X-rays or breast ultrasound in one folder per label (``cxr_labels``, ``busi``); :class:`UserError` for others."""
    for folder in _folders(path):
        if folder.name not in _KNOWN:
            raise UserError(f"{folder} is not a label this reader knows; it knows {', '.join(_KNOWN)}.")
    return _grouped(path, _pictures(path, _KNOWN))


def read_labels(path: Path) -> dict[str, list[Case]]:
    """Pictures in one folder per label, whatever the labels are called; the label is all that is known of them.

    More is known where ``facts.json`` says it: a record of facts for each label's folder, and one under ``"*"`` for all, e.g.
    ``{"*": {"modality": "X-ray", "part": "chest"}, "ptx": {"label": "pneumothorax"}}``. Raises :class:`UserError` where there
    are no folders or ``facts.json`` is none.
    """
    folders = _folders(path)
    if not folders:
        raise UserError(f"{path} holds no folders; a label folder set has one folder of pictures per label.")
    if all(folder.name.lower() in _SPLITS for folder in folders):
        splits: dict[str, list[Case]] = {}
        for folder in folders:
            meaning = _meaning(path, _folders(folder))
            for image, facts in _pictures(folder, meaning):
                id = image.relative_to(path).as_posix()
                case = Case(id, image, facts, plain_caption(facts), id, path.name)
                splits.setdefault(_SPLITS[folder.name.lower()], []).append(case)
        return splits
    return _grouped(path, _pictures(path, _meaning(path, folders)))


def read_cxr_seg(path: Path) -> dict[str, list[Case]]:
    """The chest X-rays of the mask set: its ``view`` and ``finding`` columns as facts; raises :class:`UserError` without them."""
    try:
        with open(path / "masks.csv", newline="", encoding="utf-8") as file:
            rows = {row["image"]: row for row in csv.DictReader(file)}
    except (FileNotFoundError, KeyError):
        raise UserError(
            f"{path / 'masks.csv'} is missing or has no column image; is this the mask set's folder?"
        ) from None
    found = []
    for name, row in sorted(rows.items()):
        facts = {"modality": "X-ray", "view": "lateral" if row["view"] == "L" else "frontal", "part": "chest"}
        if "COVID-19" in row["finding"]:
            facts["label"] = "COVID-19"
        elif row["finding"].lower() == "no finding":
            facts["label"] = "no findings"
        elif row["finding"]:
            facts["label"] = "pneumonia"
        found.append((path / "images" / name, facts))
    return _grouped(path, found)


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _pictures(path: Path, meaning: dict[str, dict[str, str]]) -> list[tuple[Path, dict[str, str]]]:
    return [(image, meaning[folder.name]) for folder in _folders(path) for image in _files(folder)]


def _files(folder: Path) -> Iterable[Path]:
    """The files at any depth below ``folder``, masks left out, sorted by their place."""
    found = (Path(at, name) for at, _, names in os.walk(folder) for name in names)
    return sorted(f for f in found if not f.name.startswith(".") and not _MASK.search(f.name) and f.is_file())


def _meaning(path: Path, folders: list[Path]) -> dict[str, dict[str, str]]:
    """The facts of every label: its name as words, a known name as it is known, and what ``facts.json`` adds.

    The known labels' modality and part are left out here: another set's "normal" need not be a breast.
    """
    told: dict[str, dict[str, str]] = {}
    if (path / _FACTS).is_file():
        try:
            told = json.loads((path / _FACTS).read_text(encoding="utf-8"))
            fine = all(isinstance(value, str) for facts in told.values() for value in facts.values())
        except (ValueError, AttributeError):
            fine = False
        if not fine:
            raise UserError(f'{path / _FACTS} is not a record of facts by label, like {{"*": {{"modality": "CT"}}}}.')
    meaning = {}
    for folder in folders:
        known = _KNOWN.get(folder.name, {}).get("label")
        label = known or " ".join(folder.name.replace("_", " ").split())
        meaning[folder.name] = {"label": label, **told.get("*", {}), **told.get(folder.name, {})}
    return meaning


def _grouped(path: Path, found: list[tuple[Path, dict[str, str]]]) -> dict[str, list[Case]]:
    splits: dict[str, list[Case]] = {"train": [], "val": [], "test": []}
    groups = near_duplicate_groups([image for image, _ in found])
    for (image, facts), group in zip(found, groups, strict=True):
        # A group is named by its first member, so that adding pictures elsewhere moves nobody to another split.
        name = found[group][0].relative_to(path).as_posix()
        id = image.relative_to(path).as_posix()
        splits[split_of(name, _SHARES)].append(Case(id, image, facts, plain_caption(facts), name, path.name))
    return splits
