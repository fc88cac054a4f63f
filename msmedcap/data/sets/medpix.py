"""MedPix 2.0: CT and MR pictures of teaching cases, with plane, sequence, body part and what the picture shows.

Comes in: ``{train,dev[,test]}/descriptions.jsonl`` with ``images/`` in each, or the published layout
(``splitted_dataset/descriptions_{train,dev,test}.jsonl`` beside ``images/``). Goes out: the official splits by patient, a tenth
of train's patients as ``val``; the caption is the plain sentence of the facts, ``text`` what the case's author wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msmedcap.config import UserError
from msmedcap.data.captions import find_finding, find_side, plain_caption
from msmedcap.data.sets.case import Case, split_of

_PARTS = {
    "Head": "head",
    "Thorax": "chest",
    "Abdomen": "abdomen",
    "Spine and Muscles": "musculoskeletal system",
    "Reproductive and Urinary System": "pelvis",
}
_PLANES = {"axial": "axial", "transverse": "axial", "coronal": "coronal", "sagittal": "sagittal"}
_SEQUENCES = (
    ("FLAIR", "FLAIR"),
    ("DWI", "diffusion-weighted"),
    ("ADC", "diffusion-weighted"),
    ("T1W", "T1-weighted"),
    ("T2", "T2-weighted"),
    ("PDW", "proton density"),
    ("Angiography/Venography", "angiographic"),
)


def read_medpix(path: Path) -> dict[str, list[Case]]:
    """MedPix 2.0; raises :class:`UserError` where its descriptions are not there."""
    splits: dict[str, list[Case]] = {"train": [], "val": [], "dev": []}
    for folder, words, pictures, ending in _places(path):
        for row in _rows(words):
            facts, text = _facts(row)
            split = split_of(row["U_id"], {"val": 0.1, "train": 0.9}) if folder == "train" else folder
            image = pictures / f"{row['image']}.{ending}"
            splits.setdefault(split, []).append(
                Case(row["image"], image, facts, plain_caption(facts), row["U_id"], "medpix", text)
            )
    return splits


def _places(path: Path) -> Iterator[tuple[str, Path, Path, str]]:
    """(split, descriptions, folder of pictures, their ending), in either layout."""
    root = path / "MedPix-2-0" if (path / "MedPix-2-0").is_dir() else path
    published = root / "splitted_dataset"
    if published.is_dir():
        for split in ("train", "dev", "test"):
            whole = published / f"descriptions_{split}.jsonl"
            halves = sorted(published.glob(f"descriptions_{split}_[12].jsonl"))
            for words in [whole] if whole.is_file() or not halves else halves:
                yield split, words, root / "images", "png"
        return
    for split in ("train", "dev", "test"):
        words = path / split / "descriptions.jsonl"
        if split != "test" or words.is_file():
            yield split, words, path / split / "images", "jpg"


def _facts(row: dict[str, Any]) -> tuple[dict[str, str], str]:
    description = row["Description"]
    caption = description.get("Caption") or ""
    kind = description.get("Modality") or ""
    facts = {"modality": {"CT": "CT", "MR": "MRI"}[row["Type"]]}
    if facts["modality"] == "MRI":
        facts["sequence"] = next((name for mark, name in _SEQUENCES if mark in kind), "")
    facts["plane"] = _PLANES.get((description.get("Plane") or "").lower(), "")
    facts["part"] = _PARTS.get(row.get("Location Category") or "", "")
    if facts["part"] == "musculoskeletal system" and row.get("Location") == "Spine":
        facts["part"] = "spine"
    # The case's title would name a mass for every slice of the patient, also for those that do not show it.
    facts["finding"] = find_finding(caption)
    facts["side"] = find_side(caption) if facts["finding"] else ""
    return {k: v for k, v in facts.items() if v}, caption


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.strip())
    except FileNotFoundError:
        raise UserError(f"{path} is missing; is this the folder of MedPix 2.0 with train/ and dev/ in it?") from None
    except ValueError:
        raise UserError(f"{path} is damaged; fetch it again.") from None
