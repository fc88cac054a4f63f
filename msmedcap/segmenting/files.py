"""Segmentations as files: masks and an index map as PNG, everything else as JSON, and DICOM-SEG where it is wanted.

Comes in: the answers on one scan, in the order they are to be numbered. Goes out: files in one folder; ``segment.json`` names
them relative to it and says what their values mean. What DICOM-SEG refers to: :mod:`msmedcap.data.scans.segments`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msmedcap.config import UserError
from msmedcap.data.classes import load_classes
from msmedcap.data.scans import BURNED_IN, Scan
from msmedcap.data.scans.segments import Segment, write_dicom_seg, write_index, write_mask
from msmedcap.segmenting.regions import HotSpot, Segmentation

INDEX, FACTS = "index.png", "segment.json"
UNNAMED = "unnamed"
"""What a mask is called in a DICOM-SEG where no class was told."""


def write_segmentations(
    found: Sequence[Segmentation], folder: Path, *, scan: Scan, picture: np.ndarray, dicom_seg: bool = False
) -> list[dict[str, Any]]:
    """Write the masks of ``found``, all of one ``picture`` uint8 [H,W,3] of ``scan``; returns a record of each.

    A record is ``{label, score, binary_mask, semantic_mask, present: [{label, score}]}``, its files relative to ``folder``: masks
    0/255 of the picture's size. Besides: ``index.png`` (``i + 1`` in the i-th binary mask, the last on top), ``segment.json`` and,
    with ``dicom_seg``, ``segmentation.dcm`` and the ``image.dcm`` it is about. Raises :class:`UserError` where there is no
    answer, or none that a DICOM-SEG could hold.
    """
    if not found:
        raise UserError("There is no mask to write; prompt for one first.")
    if dicom_seg and not any(one.area_px for one in found):
        raise UserError("The mask is empty, and a DICOM-SEG cannot hold that; mark another place.")
    folder.mkdir(parents=True, exist_ok=True)
    records, rows = [], []
    for number, one in enumerate(found, 1):
        before = f"{number}-" if len(found) > 1 else ""
        files: dict[str, str | None] = {"binary_mask": f"{before}binary.png", "semantic_mask": None}
        write_mask(folder / f"{before}binary.png", one.binary)
        if one.semantic is not None:
            files["semantic_mask"] = f"{before}semantic.png"
            write_mask(folder / f"{before}semantic.png", one.semantic)
        present = [{"label": label, "score": score} for label, score in one.present or ()]
        records.append({"label": one.label, "score": one.score, **files, "present": present})
        rows.append({**records[-1], "index": number, **_measures(one)})
    write_index(folder / INDEX, [one.binary for one in found])
    facts: dict[str, Any] = {
        "width": scan.width, "height": scan.height, "spacing_mm": scan.spacing, "area_note": found[0].area_note,
        "index_map": INDEX, "segments": rows,
    }  # fmt: skip
    if dicom_seg:
        facts["dicom_image"], facts["dicom_seg"] = _write_dicom(found, folder, scan, picture)
    _write(folder / FACTS, facts)
    return records


def structure_record(spot: HotSpot) -> dict[str, Any]:
    """The hottest place of a map and the structure that lies there, as ``maps.json`` carries it.

    ``{point: [x, y], value, label, score, area_px, area_mm2, area_note}``, the point in the picture's pixels.
    """
    found = spot.structure
    return {
        "point": list(spot.point), "value": spot.value, "label": found.label, "score": found.score,
        "area_px": found.area_px, "area_mm2": found.area_mm2, "area_note": found.area_note,
    }  # fmt: skip


def _measures(one: Segmentation) -> dict[str, Any]:
    semantic = None if one.semantic is None else int(one.semantic.sum())
    prompt = {"points": one.prompt.points, "box": one.prompt.box}
    return {
        "iou": one.iou,
        "area_px": one.area_px,
        "area_mm2": one.area_mm2,
        "semantic_area_px": semantic,
        "prompt": prompt,
    }


def _write_dicom(found: Sequence[Segmentation], folder: Path, scan: Scan, picture: np.ndarray) -> tuple[str, str]:
    book = load_classes()
    segments = []
    for one in found:
        known = book.resolve(one.label) if one.label else None
        kind = book.get(known).kind if known else "region"
        segments.append(Segment(one.label or UNNAMED, one.binary, kind))
    burned_in = BURNED_IN in scan.warnings
    image, seg = write_dicom_seg(folder, picture, segments, spacing=scan.spacing, burned_in=burned_in)
    return image.name, seg.name


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
