"""Many files at once: the slices of a series become one scan, ZIP archives and folders are looked into, the rest stays as it is.

Comes in: files' bytes in any order. Goes out: a :class:`Found` for each scan, and for each file that is none. Slices are those of
one series that lie parallel and are of one size; a localizer of another orientation is a scan of its own, and so is a file of
many frames. They are ordered by their place along the normal of their plane, then by their number in the series. Of each file
only what :mod:`msmedcap.data.scans.dicom` allows is kept; the identifiers that tell which belong together are gone once they have.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom import Dataset

from msmedcap.data.scans.archive import is_zip, zip_contents
from msmedcap.data.scans.dicom import Parts, parts_of, read_dicom, scan_of
from msmedcap.data.scans.dicom_frames import DicomFrames
from msmedcap.data.scans.dicom_tags import number, numbers, value_of
from msmedcap.data.scans.errors import NoPictureError, ScanError
from msmedcap.data.scans.files import find_scans, read_file
from msmedcap.data.scans.limits import MAX_FILE_BYTES, check_bytes, check_size
from msmedcap.data.scans.raster import open_raster
from msmedcap.data.scans.scan import Scan
from msmedcap.data.scans.sniff import refusal, sniff
from msmedcap.data.scans.windows import Choice

STACKED = frozenset({"CT", "MR", "PT", "NM"})
"""Modalities whose series are slices even where a file does not say where it lies."""
_PARALLEL, _SAME_SPACING, _EVEN = 0.01, 1e-3, 0.05
_SAME_PLACE = 1e-3  # mm


class _TooMuchError(ScanError):
    """It is all the files together that are at fault."""


@dataclass(frozen=True)
class Found:
    """A scan made of ``files`` files, or the sentence on why one file is none; ``digest`` tells the same files again."""

    scan: Scan | None
    error: str = ""
    files: int = 1
    digest: str = ""


@dataclass(frozen=True)
class _Slice:
    """A file that may belong to a stack. ``plane`` [6]: the directions of rows and columns; ``corner`` [3] in mm."""

    parts: Parts
    digest: str
    series: str
    instance: str
    number: float
    plane: np.ndarray | None
    corner: np.ndarray | None

    def belongs_to(self, other: _Slice) -> bool:
        """Whether both are slices of one stack."""
        mine, its = self.parts, other.parts
        names = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation")
        same = self.series == other.series and all(mine.clean.get(n) == its.clean.get(n) for n in names)
        kinds = ("Modality", "ViewPosition", "Laterality", "ImageLaterality")
        same = same and all(mine.facts.get(name) == its.facts.get(name) for name in kinds)
        if not same or (mine.spacing is None) != (its.spacing is None) or (self.plane is None) != (other.plane is None):
            return False
        if mine.spacing and its.spacing and not np.allclose(mine.spacing, its.spacing, rtol=_SAME_SPACING):
            return False
        return self.plane is None or other.plane is None or np.allclose(self.plane, other.plane, atol=_PARALLEL)

    def height(self, normal: np.ndarray) -> float:
        """The place along ``normal`` in mm; NaN where the file does not say."""
        return math.nan if self.corner is None else float(self.corner @ normal)


class Slices:
    """One-frame files as the frames of one :class:`~msmedcap.data.scans.dicom.Stack`, of which one stays decoded."""

    def __init__(self, slices: Sequence[DicomFrames]) -> None:
        self._slices, self.count, self.colour = tuple(slices), len(slices), slices[0].colour
        self._last = 0

    @property
    def repaired(self) -> int:
        """The most pixels that held no number in a slice read so far."""
        return max(one.repaired for one in self._slices)

    @property
    def as_stored(self) -> bool:
        """Whether values are the stored numbers in every slice."""
        return all(one.as_stored for one in self._slices)

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and highest number the stored bits allow."""
        return self._slices[0].limits

    @property
    def nbytes(self) -> int:
        """See :class:`~msmedcap.data.scans.scan.Frames`."""
        return sum(one.nbytes for one in self._slices)

    def packed(self) -> Slices:
        """Itself, with no slice decoded."""
        for one in self._slices:
            one.packed()
        return self

    def choices(self, frame: int) -> Mapping[str, Choice]:
        """The windows the slice's own file gives."""
        return self._slices[frame].choices(0)

    def read(self, frame: int) -> np.ndarray:
        """One slice; raises :class:`ScanError` where its file is damaged."""
        self._rest(frame)
        return self._slices[frame].read(0)

    def anatomy(self, frame: int) -> np.ndarray:
        """The values of a slice without its padding, float32 [N]."""
        self._rest(frame)
        return self._slices[frame].anatomy(0)

    def _rest(self, frame: int) -> None:
        # Every slice keeps its own decoded; scrolling through all of them must not fill the memory.
        last, self._last = self._last, frame
        if last != frame:
            self._slices[last].packed()


class Collector:
    """Takes files one by one and makes scans of them at the end; holds no more than ``most_bytes`` of their pixels."""

    def __init__(self, *, allow_burned_in: bool = False, most_bytes: int = MAX_FILE_BYTES) -> None:
        self._allow_burned_in, self._room = allow_burned_in, most_bytes
        self._items: list[Found | _Slice] = []
        self.left_out = 0
        """Files of archives and folders that are sound but no pictures."""

    def add(self, data: bytes) -> None:
        """Take a file or a ZIP archive. What is wrong with one is kept for :meth:`found`.

        Raises :class:`ScanError` where the files together are more than ``most_bytes``; nothing of this one is kept then.
        """
        if not is_zip(data):
            return self._add(data)
        before = (len(self._items), self.left_out, self._room)
        try:
            for content in zip_contents(data):
                self._add(content, among_others=True)
            if len(self._items) == before[0]:
                raise ScanError("This ZIP archive holds no scan; choose one with DICOM, PNG or JPEG pictures in it.")
        except ScanError as error:
            del self._items[before[0] :]
            _, self.left_out, self._room = before
            if isinstance(error, _TooMuchError):
                raise
            self._items.append(Found(None, str(error), digest=_digest(data)))
        return None

    def add_folder(self, folder: Path) -> None:
        """Take every file below ``folder``, of which those that are no pictures are only counted; raises as :meth:`add`."""
        for file in find_scans(folder):
            try:
                self._add(read_file(file), among_others=True)
            except _TooMuchError:
                raise
            except ScanError as error:
                self._items.append(Found(None, str(error)))

    def found(self) -> list[Found]:
        """Every scan and every failure, in the order in which their first files came."""
        results: list[Found | list[_Slice]] = []
        stacks: dict[str, list[list[_Slice]]] = {}
        for item in self._items:
            if isinstance(item, Found):
                results.append(item)
                continue
            known = stacks.setdefault(item.series, [])
            stack = next((stack for stack in known if item.belongs_to(stack[0])), None)
            if stack is None:
                stack = []
                known.append(stack)
                results.append(stack)
            stack.append(item)
        return [item if isinstance(item, Found) else _stacked(item) for item in results]

    def _add(self, data: bytes, *, among_others: bool = False) -> None:
        digest = _digest(data)
        try:
            check_bytes(len(data))
            item = self._opened(data, digest)
        except NoPictureError as error:
            if among_others:
                self.left_out += 1
                return
            item = Found(None, str(error), digest=digest)
        except ScanError as error:
            item = Found(None, str(error), digest=digest)
        pixels = item.parts.frames if isinstance(item, _Slice) else item.scan
        size = pixels.nbytes if pixels is not None else 0
        if size > self._room:
            raise _TooMuchError("These files hold more than can be kept at once; send fewer, or one series at a time.")
        self._room -= size
        self._items.append(item)

    def _opened(self, data: bytes, digest: str) -> Found | _Slice:
        kind = sniff(data)
        if kind not in ("DICOM", ""):
            scan = open_raster(data, kind)
            if scan.frames == 1:
                scan.picture()  # refuses one flat grey
            return Found(scan.packed(), digest=digest)
        dataset = read_dicom(data, sure=kind == "DICOM")
        if dataset is None:
            raise NoPictureError(refusal(data))
        parts = parts_of(dataset, allow_burned_in=self._allow_burned_in)
        one = _slice(dataset, parts, digest)
        return one if one is not None else _single(parts, digest)


def open_scans(sources: Iterable[bytes | Path], *, allow_burned_in: bool = False) -> list[Found]:
    """The scans in files, ZIP archives (bytes or paths) and folders, and why others are none; slices of a series as one scan.

    Raises :class:`ScanError` where a path is missing or empty, or everything together is more than 1 GiB.
    """
    collector = Collector(allow_burned_in=allow_burned_in)
    for source in sources:
        if isinstance(source, bytes):
            collector.add(source)
        elif source.is_dir():
            collector.add_folder(source)
        else:
            collector.add(read_file(source))
    return collector.found()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _slice(dataset: Dataset, parts: Parts, digest: str) -> _Slice | None:
    """The file as a slice; None where it is a picture of its own."""
    series = str(value_of(dataset, "SeriesInstanceUID") or "").strip()
    if parts.frames.count > 1 or not series:
        return None
    plane, corner = (numbers(value_of(dataset, f"Image{name}Patient")) for name in ("Orientation", "Position"))
    placed = len(plane) == 6 and len(corner) == 3 and bool(np.isfinite([*plane, *corner]).all())
    if not placed and parts.facts.get("Modality") not in STACKED:
        return None  # two views of a chest are no stack though they are one series
    return _Slice(
        parts,
        digest,
        series,
        str(value_of(dataset, "SOPInstanceUID") or ""),
        number(value_of(dataset, "InstanceNumber")),
        np.array(plane) if placed else None,
        np.array(corner) if placed else None,
    )


def _single(parts: Parts, digest: str) -> Found:
    scan = scan_of(parts, parts.frames)
    if scan.frames == 1:
        scan.picture()
    return Found(scan.packed(), digest=digest)


def _stacked(slices: Sequence[_Slice]) -> Found:
    """The scan of slices that belong together; the same slice sent twice counts once."""
    count = len(slices)
    slices = list({one.instance or one.digest: one for one in reversed(slices)}.values())[::-1]
    digest = slices[0].digest if count == 1 else _digest("".join(sorted(one.digest for one in slices)).encode())
    first = slices[0]
    try:
        if len(slices) == 1:
            return replace(_single(first.parts, digest), files=count)
        check_size(first.parts.clean.Rows, first.parts.clean.Columns, frames=len(slices))
        plane = first.plane if first.plane is not None else np.zeros(6)
        normal = np.cross(plane[:3], plane[3:])
        heights = {id(one): one.height(normal) for one in slices}
        last = math.inf
        slices.sort(key=lambda one: tuple(last if math.isnan(v) else v for v in (heights[id(one)], one.number)))
        between, notes = _steps([heights[id(one)] for one in slices])
        shared = {item for one in slices for item in one.parts.facts.items()}
        facts = {name: code for name, code in first.parts.facts.items() if sum(name == n for n, _ in shared) == 1}
        told = tuple(dict.fromkeys([*(note for one in slices for note in one.parts.notes), *notes]))
        parts = replace(slices[0].parts, facts=facts, notes=told)
        scan = scan_of(parts, Slices([one.parts.frames for one in slices]), between=between)
        return Found(scan.packed(), files=count, digest=digest)
    except ScanError as error:
        return Found(None, str(error), files=count, digest=digest)


def _steps(heights: Sequence[float]) -> tuple[float | None, list[str]]:
    """Millimetres from slice to slice where that is one number, and what the reader must know of the order."""
    if any(math.isnan(height) for height in heights):
        return None, ["The files do not say where their slices lie; they are ordered by their numbers."]
    steps = np.diff(heights)
    if (steps < _SAME_PLACE).any():
        return None, ["Several pictures of this series lie at the same place (phases or echoes); they follow each other."]
    middle = float(np.median(steps))
    if (abs(steps - middle) > _EVEN * middle).any():
        span = f"{steps.min():.3g} to {steps.max():.3g} mm"
        return None, [f"The slices of this series lie {span} apart: some may be missing."]
    return middle, []
