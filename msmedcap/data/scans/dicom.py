"""DICOM: one file's bytes in, a :class:`~msmedcap.data.scans.scan.Scan` without a trace of the patient out.

De-identified by allow-list: what a scan keeps is copied out tag by tag into a fresh dataset (pixels, geometry, windows) and a few
coded facts; all else, private tags and free text included, is left behind with the file.
"""

from __future__ import annotations

import io
import logging
import warnings
import zlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, SecondaryCaptureImageStorage

from msmedcap.data.scans.dicom_frames import DicomFrames
from msmedcap.data.scans.dicom_pixels import decodable
from msmedcap.data.scans.dicom_tags import item_of, spacing, value_of
from msmedcap.data.scans.errors import NoPictureError, ScanError
from msmedcap.data.scans.facts import facts_of
from msmedcap.data.scans.limits import MAX_FILE_BYTES
from msmedcap.data.scans.scan import Frames, Scan
from msmedcap.data.scans.windows import FULL_RANGE, PRESETS, Choice, measured, stored_range

BURNED_IN = "The picture is marked as having burned-in annotation, which may name the patient."
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_TEXT_PRONE = {"US", "IVUS", "SC", "OT", "XA", "RF", "ES", "XC", "SM", "OP", "DOC"}
_SAMPLED_FRAMES = 5


class Stack(Frames, Protocol):
    """Frames that windows can be chosen for, of one file or of several (see :class:`DicomFrames`)."""

    count: int
    colour: bool

    @property
    def repaired(self) -> int:
        """How many pixels held no number."""

    @property
    def as_stored(self) -> bool:
        """Whether values are the stored numbers."""

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and highest number the stored bits allow."""

    def anatomy(self, frame: int) -> np.ndarray:
        """The values of a frame without its padding."""


@dataclass(frozen=True)
class Parts:
    """What is kept of a file: ``clean`` holds pixels only; ``notes`` are sentences for the reader."""

    frames: DicomFrames
    clean: Dataset
    facts: dict[str, str]
    notes: tuple[str, ...]
    spacing: tuple[float, float] | None
    hounsfield: bool


def open_dicom(data: bytes, *, allow_burned_in: bool, sure: bool) -> Scan | None:
    """The scan in ``data``; None where it turns out to be no DICOM file although not ``sure`` beforehand.

    Raises :class:`ScanError` where it holds no picture, cannot be decoded, is too large, or is marked as having
    burned-in annotation and ``allow_burned_in`` is not given.
    """
    dataset = read_dicom(data, sure=sure)
    if dataset is None:
        return None
    parts = parts_of(dataset, allow_burned_in=allow_burned_in)
    return scan_of(parts, parts.frames)


def read_dicom(data: bytes, *, sure: bool) -> Dataset | None:
    """The file's dataset, patient and all, for this package alone; None and errors as for :func:`open_dicom`."""
    # pydicom's warnings quote the values they complain of, names of patients among them.
    warnings.filterwarnings("ignore", module="pydicom")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    _check_inflated(data)
    return _parse(data, sure)


def parts_of(dataset: Dataset, *, allow_burned_in: bool) -> Parts:
    """What is kept of ``dataset``, none of it the patient's; no frame is decoded yet. Raises as :func:`open_dicom`."""
    facts = facts_of(dataset)
    notes = _burned_in(dataset, facts.get("Modality", ""), allow_burned_in)
    clean, count = decodable(dataset)
    hounsfield = facts.get("Modality") == "CT" or str(item_of(dataset, "RescaleType", 0)).strip().upper() == "HU"
    return Parts(DicomFrames(clean, dataset, count), clean, facts, tuple(notes), spacing(dataset), hounsfield)


def scan_of(parts: Parts, frames: Stack, *, between: float | None = None) -> Scan:
    """The scan of ``frames``, described by ``parts``; ``between`` as for :class:`Scan`. Decodes a few of them."""
    first = frames.read(0)
    choices = _choices(frames, parts.clean, parts.hounsfield)
    notes = list(parts.notes)
    if frames.repaired:
        notes.append(f"{frames.repaired} pixels held no number and are shown at the lowest value.")
    return Scan(
        frames,
        kind="DICOM",
        frames=frames.count,
        size=(first.shape[0], first.shape[1]),
        colour=first.ndim == 3,
        choices=choices,
        spacing=parts.spacing,
        between=between,
        facts=parts.facts,
        warnings=tuple(notes),
        curve="linear",
        inverted=parts.clean.PhotometricInterpretation == "MONOCHROME1",
    )


def _parse(data: bytes, sure: bool) -> Dataset | None:
    """The file's dataset; None where ``data`` is no DICOM file and nobody was ``sure`` that it is."""
    try:
        dataset = dcmread(io.BytesIO(data), force=True)
        found = any(name in dataset for name in _PIXELS)
        shape = all(isinstance(value_of(dataset, name), int) for name in ("Rows", "Columns"))
        kind = UID(str(value_of(dataset, "SOPClassUID") or ""))
    except Exception:  # Damaged bytes make pydicom raise nearly anything.
        if not sure:
            return None
        raise ScanError("This DICOM file is damaged or cut short; export or download it again.") from None
    name = kind.name if kind.name != str(kind) else ""
    if not sure and not name and not (found and shape and kind):
        return None
    if "DirectoryRecordSequence" in dataset:
        raise NoPictureError("This is a DICOMDIR, the index of a disc; choose one of the picture files beside it.")
    if found and shape:
        return dataset
    if name and "Image" not in name and not found:
        raise NoPictureError(f"This DICOM file holds no picture ({name}); choose an image of the series.")
    raise ScanError("This DICOM file is damaged or cut short: its picture is missing; export or download it again.")


def _check_inflated(data: bytes) -> None:
    """Raises :class:`ScanError` where a deflated dataset unpacks to more than a file may hold."""
    syntax, start = _file_meta(data)
    if syntax != str(DeflatedExplicitVRLittleEndian).encode():
        return
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    size, rest = 0, data[start:]
    try:
        while rest and not unpacker.eof:
            size += len(unpacker.decompress(rest, 1 << 24))
            rest = unpacker.unconsumed_tail
            if size > MAX_FILE_BYTES:
                raise ScanError("This DICOM file unpacks to more than 1 GiB; export it without compression.")
    except zlib.error:
        raise ScanError("This DICOM file is damaged or cut short; export or download it again.") from None


def _file_meta(data: bytes) -> tuple[bytes, int]:
    """The transfer syntax named in the file's meta group, and where the dataset after it starts."""
    position, syntax = 132 if data.startswith(b"DICM", 128) else 0, b""
    while data.startswith(b"\2\0", position) and position + 12 <= len(data):
        long = data[position + 4 : position + 6] in (b"OB", b"OW", b"UN", b"UT", b"SQ")
        header = 12 if long else 8
        length = int.from_bytes(data[position + header - (4 if long else 2) : position + header], "little")
        if data.startswith(b"\x10\0", position + 2):
            syntax = data[position + header : position + header + length].rstrip(b"\0 ")
        position += header + length
    return syntax, position


def _burned_in(dataset: Dataset, modality: str, allowed: bool) -> list[str]:
    """Warnings about text in the picture; raises :class:`ScanError` where it is marked and not ``allowed``."""
    marked = str(value_of(dataset, "BurnedInAnnotation") or "").strip().upper()
    if marked == "YES":
        if not allowed:
            raise ScanError(
                "The picture is marked as having burned-in annotation, which may name the patient; "
                "allow burned-in annotation if you have checked that it does not."
            )
        return [BURNED_IN]
    captured = value_of(dataset, "SOPClassUID") == SecondaryCaptureImageStorage
    if marked != "NO" and (captured or modality in _TEXT_PRONE or not modality):
        return ["The file does not say whether names or dates are burned into the picture; look before you share it."]
    return []


def _choices(frames: Stack, clean: Dataset, hounsfield: bool) -> dict[str, Choice]:
    """The windows besides the file's own, in order."""
    if frames.colour:
        return {FULL_RANGE: stored_range(0, 255)}
    steps = np.unique(np.linspace(0, frames.count - 1, _SAMPLED_FRAMES).astype(int))
    found = measured(frames.anatomy(step) for step in steps)
    if hounsfield:
        return {name: Choice(window, "linear") for name, window in PRESETS.items()} | found
    if frames.as_stored and clean.BitsStored <= 8:
        return {FULL_RANGE: stored_range(*frames.limits)} | {n: c for n, c in found.items() if n != FULL_RANGE}
    return found
