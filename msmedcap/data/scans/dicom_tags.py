"""What a DICOM dataset says of one frame: functional groups merged, then scale, windows and spacing read as plain numbers.

Enhanced multi-frame files say it per frame, else for all frames, else at the top level as the classic ones do; :func:`item_of`
looks in that order, so the rest of the package need not know the difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from pydicom import Dataset

from msmedcap.data.scans.windows import Choice, Lut, Window

_GROUPS = {
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
    "WindowCenterWidthExplanation": "FrameVOILUTSequence",
    "VOILUTFunction": "FrameVOILUTSequence",
    "PixelSpacing": "PixelMeasuresSequence",
}
_KNOWN_WORDS = {
    "ABDOMEN", "ANGIO", "BODY", "BONE", "BRAIN", "BREAST", "CHEST", "CONTRAST", "DEFAULT", "FULL", "HARDER", "HEAD", "HIGH",
    "LIVER", "LOW", "LUNG", "LUNGS", "MEDIASTINUM", "NARROW", "NECK", "NORMAL", "PELVIS", "SINUS", "SKULL", "SOFT", "SOFTER",
    "SPINE", "STANDARD", "STROKE", "THORAX", "TISSUE", "USER", "WIDE", "WINDOW",
}  # fmt: skip
_CENTIMETRES = 3
_TWO_DIMENSIONAL = 1


def value_of(dataset: Dataset, name: str) -> Any:
    """The value of ``name`` at the top level of ``dataset``; None where it is missing, empty or cannot be read."""
    try:
        value = dataset.get(name)
    except Exception:  # pydicom converts on access; one damaged optional value is no reason to refuse the scan.
        return None
    return None if value == "" else value


def item_of(dataset: Dataset, name: str, frame: int) -> Any:
    """The value of ``name`` for ``frame`` (per-frame group, then shared group, then top level), or None."""
    per_frame = value_of(dataset, "PerFrameFunctionalGroupsSequence") or []
    shared = value_of(dataset, "SharedFunctionalGroupsSequence") or []
    for item in [*per_frame[frame : frame + 1], *shared[:1]] if name in _GROUPS else []:
        inner = value_of(item, _GROUPS[name])
        if inner and (found := value_of(inner[0], name)) is not None:
            return found
    return value_of(dataset, name)


def numbers(value: Any) -> list[float]:
    """``value`` (one number, several, text or nothing) as floats; those that are none or not finite are NaN."""
    if value is None or value == "":
        return []
    many = (
        value
        if isinstance(value, (list, tuple)) or hasattr(value, "__iter__") and not isinstance(value, str)
        else [value]
    )
    return [number(item) for item in many]


def number(value: Any) -> float:
    """``value`` as a finite float, else NaN."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return math.nan
    return found if math.isfinite(found) else math.nan


def rescale(dataset: Dataset, frame: int) -> tuple[float, float]:
    """Slope and intercept of ``frame``; (1, 0) where the file gives none that can be used."""
    slope, intercept = (number(item_of(dataset, name, frame)) for name in ("RescaleSlope", "RescaleIntercept"))
    return (slope if math.isfinite(slope) and slope != 0 else 1.0, intercept if math.isfinite(intercept) else 0.0)


def modality_lut(dataset: Dataset) -> Lut | None:
    """The file's modality lookup table; its table holds output values as they are."""
    sequence = value_of(dataset, "ModalityLUTSequence")
    found = _table(sequence[0], dataset) if sequence else None
    return None if found is None else Lut(found[0], found[1])


def file_choices(dataset: Dataset, frame: int) -> Iterator[tuple[str, Choice]]:
    """The windows the file gives ``frame``: "file", "file 2 (lung)", ..., then "file LUT"."""
    widths, levels = (numbers(item_of(dataset, name, frame)) for name in ("WindowWidth", "WindowCenter"))
    texts = item_of(dataset, "WindowCenterWidthExplanation", frame) or []
    words = [texts] if isinstance(texts, str) else list(texts)
    curve = str(item_of(dataset, "VOILUTFunction", frame) or "LINEAR").strip().lower()
    curve = curve if curve in ("linear", "linear_exact", "sigmoid") else "linear"
    usable = [
        (Window(width, level), words[index] if index < len(words) else "")
        for index, (width, level) in enumerate(zip(widths, levels, strict=False))
        if width > 0 and math.isfinite(level)
    ]
    for index, (window, text) in enumerate(usable):
        name = "file" if index == 0 else f"file {index + 1}"
        yield name + _explained(str(text)) if index else name, Choice(window, curve)
    tables = [_table(item, dataset) for item in value_of(dataset, "VOILUTSequence") or []]
    for index, found in enumerate(table for table in tables if table is not None):
        first, table, top = found
        window = Window(len(table), first + len(table) / 2)
        lut = Lut(first, np.minimum(table / top, 1).astype(np.float32))
        yield "file LUT" if index == 0 else f"file LUT {index + 1}", Choice(window, "linear_exact", lut)


def spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Millimetres per pixel (row, column): patient plane first, then detector plane, then an ultrasound's calibration."""
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        found = numbers(item_of(dataset, name, 0))
        if len(found) == 2 and all(value > 0 for value in found):
            return found[0], found[1]
    regions = [
        (abs(number(value_of(region, "PhysicalDeltaY"))) * 10, abs(number(value_of(region, "PhysicalDeltaX"))) * 10)
        for region in value_of(dataset, "SequenceOfUltrasoundRegions") or []
        if value_of(region, "RegionSpatialFormat") == _TWO_DIMENSIONAL
        and value_of(region, "PhysicalUnitsXDirection") == value_of(region, "PhysicalUnitsYDirection") == _CENTIMETRES
    ]
    # Regions of different scale have no one spacing, and a wrong millimetre is worse than none.
    if regions and all(value > 0 for value in regions[0]) and all(np.allclose(regions[0], other) for other in regions):
        return regions[0]
    return None


def _explained(text: str) -> str:
    """`` (lung)`` where ``text`` consists of words for windows; free text is dropped, for it may name anybody."""
    words = text.upper().replace("_", " ").split()
    return f" ({' '.join(words).lower()})" if words and all(word in _KNOWN_WORDS for word in words) else ""


def _table(item: Dataset, dataset: Dataset) -> tuple[int, np.ndarray, float] | None:
    """A LUT item's first mapped value, its entries (float32 [N]) and the highest value its bits allow."""
    descriptor, data = value_of(item, "LUTDescriptor"), value_of(item, "LUTData")
    if descriptor is None or data is None or len(descriptor) != 3:
        return None
    entries, first, bits = int(descriptor[0]) or 65536, int(descriptor[1]), int(descriptor[2])
    if isinstance(data, bytes):
        order = "<" if dataset.original_encoding[1] is not False else ">"
        table = np.frombuffer(data, np.uint8 if len(data) == entries else np.dtype(f"{order}u2"))
    else:
        table = np.atleast_1d(np.asarray(data))
    if not 1 <= bits <= 16 or not len(table):
        return None
    return first, table[:entries].astype(np.float32), float(2**bits - 1)
