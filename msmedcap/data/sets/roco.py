"""ROCO: radiology pictures of PubMed Central with their captions, in the layout of its repository (razorx89/roco-dataset).

Comes in: ``[data/]{train,validation,test}/{radiology,non-radiology}/`` with ``captions.txt`` (id, tab, caption), ``images/`` and,
where they are there, ``cuis.txt``, ``licences.txt`` and ``dlinks.txt``. Goes out: the official splits of the radiology pictures
(``train``, ``val``, ``test``), the others beside them (``train-non-radiology`` …); the group is the article. The official
splits part pictures, not articles: about one picture in six has a sibling in a split of a tenth. The named selections keep
articles apart (:mod:`msmedcap.data.sets.selection`).
"""

from __future__ import annotations

import csv
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from msmedcap.config import UserError
from msmedcap.data.sets.case import Case

log = logging.getLogger(__name__)

# Concepts that name how the picture was taken; a picture that carries exactly one kind has that modality.
MODALITIES = {
    "C0040405": "CT",
    "C0024485": "MRI",
    "C0231881": "MRI",
    "C1306645": "X-ray",
    "C0041618": "ultrasound",
    "C0013516": "ultrasound",
}
_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_ARTICLE = re.compile(r"PMC\d+")


def read_roco(path: Path) -> dict[str, list[Case]]:
    """ROCO's pictures and captions; raises :class:`UserError` where there is no ``captions.txt``."""
    root = path / "data" if (path / "data").is_dir() else path
    splits = {}
    for folder, split in _SPLITS.items():
        for kind in ("radiology", "non-radiology"):
            if (root / folder / kind / "captions.txt").is_file():
                splits[split if kind == "radiology" else f"{split}-{kind}"] = _read(root / folder / kind)
    if not splits:
        raise UserError(f"{path} holds no train/radiology/captions.txt; is this the folder of ROCO?")
    return splits


def modality_of(concepts: Iterable[str]) -> dict[str, str]:
    """``{"modality": …}`` where exactly one is among ``concepts`` (UMLS identifiers), else nothing."""
    found = {MODALITIES[concept] for concept in concepts if concept in MODALITIES}
    return {"modality": found.pop()} if len(found) == 1 else {}


def _read(folder: Path) -> list[Case]:
    concepts = {id: row for id, *row in _rows(folder / "cuis.txt")}
    names = _names(folder)
    images = _listing(folder / "images")
    cases, bare = [], 0
    for id, *words in _rows(folder / "captions.txt"):
        caption = " ".join(" ".join(words).split())
        if not caption:
            bare += 1
            continue
        article = _ARTICLE.match(names.get(id, ""))
        place = folder / "images" / _image(id, names.get(id, ""), images)
        group = article[0] if article else id
        cases.append(Case(id, place, modality_of(concepts.get(id, ())), caption, group, "roco"))
    if bare:
        log.warning("%d pictures of %s have no caption and are left out", bare, folder)
    return cases


def _image(id: str, name: str, images: Mapping[str, str]) -> str:
    """The picture's file: named by its id, or by article and figure as the repository's own script names it."""
    return images.get(id) or images.get(Path(name).stem if name else "") or (name if images and name else f"{id}.jpg")


def _names(folder: Path) -> dict[str, str]:
    """``PMC…_FIGURE.jpg`` of every id, from the licences or else from the download links."""
    names: dict[str, str] = {}
    for id, *row in _rows(folder / "dlinks.txt"):
        if (article := _ARTICLE.search(row[0] if row else "")) and len(row) > 1:
            names[id] = f"{article[0]}_{Path(row[-1].strip()).name}"
    licences = folder / "licences.txt"
    if licences.is_file():
        with licences.open(newline="", encoding="utf-8-sig") as file:
            names |= {row[0]: Path(row[1]).name for row in csv.reader(file) if len(row) > 1 and _ARTICLE.match(row[1])}
    return names


def _listing(folder: Path) -> dict[str, str]:
    """The names of the files in ``folder`` by their stem; one look at the folder instead of one at each file."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        return {Path(entry.name).stem: entry.name for entry in entries}


def _rows(file: Path) -> Iterator[list[str]]:
    # Not splitlines(): captions hold characters it takes for line ends.
    if file.is_file():
        for line in file.read_text(encoding="utf-8-sig", errors="replace").split("\n"):
            id, *row = line.strip("\r").split("\t")
            if id.strip() and row:
                yield [id.strip(), *(cell.strip() for cell in row)]
