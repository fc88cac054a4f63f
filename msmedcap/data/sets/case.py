"""A picture with what is known of it, and how the picture behind it is opened.

Every reader gives :class:`Case` rows: words and a place, never pixels. :func:`open_case` opens the one picture asked for, and
:func:`stream` opens one after the other and counts those that cannot be opened instead of stopping at them.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from msmedcap.data.scans import Scan, ScanError, open_scan
from msmedcap.data.sets.parquet import read_cell

log = logging.getLogger(__name__)

_SHOWN_REASONS = 5


@dataclass(frozen=True, slots=True)
class Blob:
    """A picture that is no file of its own: row ``row`` of column ``column`` of a parquet file."""

    file: Path
    row: int
    column: str

    def read(self) -> bytes:
        """The picture's bytes; raises :class:`ScanError` where they cannot be had."""
        return read_cell(self.file, self.row, self.column)


@dataclass(frozen=True, slots=True)
class Case:
    """One picture and what is known of it.

    ``facts`` may hold ``modality`` (CT, MRI, X-ray, ultrasound), ``plane`` or ``view``, ``part``, ``sequence``, ``finding``,
    ``side`` and ``label``; a key that is absent is unknown. ``group`` is the patient, article or near-duplicate group that
    splits keep together. ``captions`` holds all references where a picture has several, the first of them is ``caption``.
    ``box`` cuts a part out of the picture: x0, y0, x1, y1 as shares of its width and height.
    """

    id: str
    image: Path | Blob
    facts: Mapping[str, str]
    caption: str
    group: str
    source: str
    text: str = field(default="", repr=False)
    captions: tuple[str, ...] = ()
    box: tuple[float, float, float, float] | None = None

    @property
    def references(self) -> tuple[str, ...]:
        """Everything that was said of the picture, at least its caption."""
        return self.captions or (self.caption,)

    def read(self) -> bytes:
        """The bytes of the picture's file, or a PNG of its ``box``; raises :class:`ScanError` where there is none."""
        try:
            data = self.image.read() if isinstance(self.image, Blob) else self.image.read_bytes()
        except OSError:
            raise ScanError("This file is missing or cannot be read.") from None
        return data if self.box is None else _cut(data, self.box)


def open_case(case: Case) -> Scan:
    """The scan of a case; raises :class:`ScanError` where its picture is missing, damaged or no picture."""
    if case.box is None and isinstance(case.image, Path):
        return open_scan(case.image)
    return open_scan(case.read())


def _cut(data: bytes, box: tuple[float, float, float, float]) -> bytes:
    picture = open_scan(data).picture()
    height, width = picture.shape[:2]
    x0, y0 = (max(0, round(share * size)) for share, size in zip(box[:2], (width, height), strict=True))
    x1, y1 = (min(size, round(share * size)) for share, size in zip(box[2:], (width, height), strict=True))
    if x1 <= x0 or y1 <= y0:
        raise ScanError("The part of the picture that was asked for is empty.")
    file = io.BytesIO()
    Image.fromarray(picture[y0:y1, x0:x1]).save(file, "PNG")
    return file.getvalue()


def split_of(group: str, shares: Mapping[str, float]) -> str:
    """The split a group falls in: a hash of its name against cumulative ``shares`` (which sum to 1)."""
    place = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    for name, share in shares.items():
        if place < share:
            return name
        place -= share
    return name


class Skipped:
    """The pictures that could not be opened: how many, and why, with the first case of each reason."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    @property
    def count(self) -> int:
        """How many pictures were skipped."""
        return self.reasons.total()

    def add(self, case: Case, reason: str) -> None:
        """Count ``case`` as skipped for ``reason``."""
        self.reasons[reason] += 1
        self.first.setdefault(reason, case.id)

    def __str__(self) -> str:
        """The count and the most frequent reasons in one line."""
        told = [
            f"{n} × {reason} (first: {self.first[reason]})" for reason, n in self.reasons.most_common(_SHOWN_REASONS)
        ]
        more = len(self.reasons) - len(told)
        return (
            f"{self.count} pictures were skipped: "
            + "; ".join(told)
            + (f"; and {more} more reasons" if more > 0 else "")
        )


def stream(
    cases: Iterable[Case], *, skipped: Skipped | None = None, on_bad: Callable[[Case, str], None] | None = None
) -> Iterator[tuple[Case, Scan]]:
    """Each case with its scan, opened when its turn comes; one that cannot be opened is counted, never fatal.

    ``skipped`` collects what was left out, ``on_bad`` hears of each; one warning sums them up when the last case is through
    or the reading is given up.
    """
    skipped = Skipped() if skipped is None else skipped
    before = skipped.count
    try:
        for case in cases:
            try:
                scan = open_case(case)
            except ScanError as error:
                skipped.add(case, str(error))
                if on_bad is not None:
                    on_bad(case, str(error))
                continue
            yield case, scan
    finally:
        if skipped.count > before:
            log.warning("%s", skipped)
