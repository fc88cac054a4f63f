"""MS COCO captions: 2014 and 2017, as unpacked from the official archives.

Comes in: ``annotations/captions_{train,val}YEAR.json`` beside ``{train,val}YEAR/*.jpg``. Goes out: a case per picture with its
five captions. The official splits are kept; a picture is its own group, under the number it has in both years.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from msmedcap.config import UserError
from msmedcap.data.sets.case import Case


def read_coco2014(path: Path) -> dict[str, list[Case]]:
    """COCO captions 2014, the general pictures of the paper; raises :class:`UserError` where the annotations are not there."""
    return _read(path, "2014")


def read_coco2017(path: Path) -> dict[str, list[Case]]:
    """COCO captions 2017; raises :class:`UserError` where the annotations are not there."""
    return _read(path, "2017")


def _read(path: Path, year: str) -> dict[str, list[Case]]:
    splits = {}
    for split in ("train", "val"):
        words = path / "annotations" / f"captions_{split}{year}.json"
        if words.is_file():
            splits[split] = _read_split(words, path / f"{split}{year}", f"coco{year}")
    if not splits:
        raise UserError(
            f"{path / 'annotations'} holds no captions_train{year}.json; unpack annotations_trainval{year}.zip there."
        )
    return splits


def _read_split(words: Path, pictures: Path, source: str) -> list[Case]:
    try:
        said = json.loads(words.read_text(encoding="utf-8"))
        captions: dict[int, list[str]] = defaultdict(list)
        for row in said["annotations"]:
            if text := " ".join(row["caption"].split()):
                captions[row["image_id"]].append(text)
        return [
            Case(
                Path(row["file_name"]).stem,
                pictures / Path(row["file_name"]).name,
                {},
                captions[row["id"]][0],
                f"coco/{row['id']}",
                source,
                captions=tuple(captions[row["id"]]),
            )
            for row in said["images"]
            if row["id"] in captions
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{words} is not a whole COCO caption file; unpack it again.") from None
