"""ROCOv2: the second version of ROCO, as Zenodo has it (CSV) or as the hub has it (parquet with the pictures inside).

Comes in: ``{train,valid,test}_captions.csv`` with ``*_concepts*.csv`` beside the unpacked pictures, or
``[data/]{train,validation,test}-*.parquet``. Goes out: the official splits as ``train``, ``val`` and ``test``. The group is the
article where ``license_information.csv`` names it (the parquet files do not), else the picture.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from msmedcap.config import UserError
from msmedcap.data.sets.case import Blob, Case
from msmedcap.data.sets.parquet import column_names, read_rows
from msmedcap.data.sets.roco import modality_of

_SPLITS = {"train": "train", "valid": "val", "validation": "val", "test": "test"}
_ARTICLE = re.compile(r"PMC\d+|10\.\d{4,}/[^\s,;\"]+")


def read_rocov2(path: Path) -> dict[str, list[Case]]:
    """ROCOv2's pictures and captions; raises :class:`UserError` where neither layout is found."""
    if path.is_file():
        return _read_parquet([path])
    files = sorted(path.glob("*.parquet")) or sorted((path / "data").glob("*.parquet"))
    if files:
        return _read_parquet(files)
    groups = _groups(path / "license_information.csv")
    splits = {
        _SPLITS[name]: _read_csv(path, name, groups)
        for name in ("train", "valid", "test")
        if (path / f"{name}_captions.csv").is_file()
    }
    if not splits:
        raise UserError(f"{path} holds neither train_captions.csv nor train-*.parquet; is this the folder of ROCOv2?")
    return splits


def _read_csv(path: Path, name: str, groups: dict[str, str]) -> list[Case]:
    folder = _pictures(path, name)
    concepts = _concepts(path / f"{name}_concepts.csv") | _concepts(path / f"{name}_concepts_manual.csv")
    cases = []
    for row in _rows(path / f"{name}_captions.csv"):
        id, caption = row.get("ID", ""), " ".join(row.get("Caption", "").split())
        if id and caption:
            facts = modality_of(concepts.get(id, ()))
            cases.append(Case(id, folder / f"{Path(id).name}.jpg", facts, caption, groups.get(id, id), "rocov2"))
    return cases


def _pictures(path: Path, name: str) -> Path:
    """The folder the split's archive was unpacked to."""
    places = (f"{name}_images/{name}", f"{name}_images", f"images/{name}", name, "images")
    return next((path / place for place in places if (path / place).is_dir()), path / name)


def _concepts(file: Path) -> dict[str, list[str]]:
    return {row.get("ID", ""): re.findall(r"C\d{7}", row.get("CUIs", "")) for row in _rows(file)}


def _groups(file: Path) -> dict[str, str]:
    """The article of every picture: the first PMC number or DOI its row of licences names."""
    found = ((row.get("ID", ""), _ARTICLE.search(" ".join(row.values()))) for row in _rows(file))
    return {id: article[0] for id, article in found if article}


def _rows(file: Path) -> Iterator[dict[str, str]]:
    if file.is_file():
        with file.open(newline="", encoding="utf-8-sig", errors="replace") as opened:
            for row in csv.DictReader(opened):
                yield {key.strip(): (value or "").strip() for key, value in row.items() if isinstance(key, str)}


def _read_parquet(files: list[Path]) -> dict[str, list[Case]]:
    splits: dict[str, list[Case]] = {}
    for file in files:
        name = _SPLITS.get(re.split(r"[-._]", file.name)[0])
        if name is None:
            raise UserError(f"{file} is none of train-*.parquet, validation-*.parquet and test-*.parquet.")
        if missing := {"image", "caption"} - set(column_names(file)):
            raise UserError(f"{file} has no column {' and '.join(sorted(missing))}; ROCOv2's parquet files have both.")
        cases = splits.setdefault(name, [])
        for number, row in enumerate(read_rows(file, ("image_id", "caption", "cui"))):
            caption = " ".join((row["caption"] or "").split())
            if caption:
                id = row.get("image_id") or f"{file.stem}/{number}"
                facts = modality_of(row.get("cui") or ())
                cases.append(Case(id, Blob(file, number, "image"), facts, caption, id, "rocov2"))
    return splits
