"""Pictures with masks: the chest X-ray set's CSV layout and SA-Med2D's official layout.

Comes in: a dataset's folder. Goes out: :class:`MaskedPicture` rows; masks are files, opened when asked for.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class MaskedPicture:
    """A picture and its objects, ``(class name, mask file)`` each; masks may overlap and are 0/255 of the picture's size."""

    image: Path
    masks: tuple[tuple[str, Path], ...]
    source: str

    @property
    def id(self) -> str:
        """The picture's file name, as the caption reader of the same set names it."""
        return self.image.name


def read_cxr_seg(path: Path) -> list[MaskedPicture]:
    """The chest X-rays of ``masks.csv``, sorted by name."""
    found: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    with open(path / "masks.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found[row["image"]].append((row["class"], path / "masks" / row["mask"]))
    return [MaskedPicture(path / "images" / name, tuple(found[name]), "cxr_seg") for name in sorted(found)]


def read_sa_med2d(path: Path) -> list[MaskedPicture]:
    """SA-Med2D's pictures by its image → masks index; the class is the part of a mask's name after its picture's."""
    index = json.loads((path / "image2label_train.json").read_text(encoding="utf-8"))
    rows = []
    for image, masks in sorted(index.items()):
        stem = Path(image).stem
        named = tuple(
            (Path(m).stem.removeprefix(f"{stem}_").rpartition("_")[0].replace("_", " "), path / "masks" / Path(m).name)
            for m in masks
        )
        rows.append(MaskedPicture(path / "images" / Path(image).name, named, "sa_med2d"))
    return rows


def read_mask(path: Path) -> np.ndarray:
    """A mask file as ``[H,W] bool``."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L")) > 127
