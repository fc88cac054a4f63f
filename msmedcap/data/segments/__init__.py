"""Pictures with named masks: the published layouts, made scans and plain folders as rows of one type.

Comes in: where a set lies. Goes out: :class:`SegmentedPicture` rows with their split; labels are led to the classes of a
:class:`~msmedcap.data.classes.ClassBook`, and one that is none of them leaves its mask without a name. Masks and pictures are
files, opened when asked for; made scans are kept packed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msmedcap.config import UserError
from msmedcap.data.classes import ClassBook
from msmedcap.data.segments.made import read_phantoms
from msmedcap.data.segments.picture import IndexMask, PackedMask, Segment, SegmentedPicture
from msmedcap.data.segments.places import absent
from msmedcap.data.segments.sets import read_chest, read_folder, read_sa_med2d

__all__ = [
    "READERS", "IndexMask", "PackedMask", "Segment", "SegmentedPicture", "absent", "read", "read_chest", "read_folder",
    "read_phantoms", "read_sa_med2d",
]

Reader = Callable[[str, ClassBook], list[SegmentedPicture]]
# The phantoms' path says how many of them are made.
READERS: Mapping[str, Reader] = {
    "cxr_seg": read_chest,
    "sa_med2d": read_sa_med2d,
    "folder": read_folder,
    "phantoms": read_phantoms,
}


def read(name: str, path: str, book: ClassBook, *, split: str = "") -> list[SegmentedPicture]:
    """The rows of the set ``name`` at ``path``, of one ``split`` ("": of all); raises :class:`UserError` where there are none."""
    if name not in READERS:
        raise UserError(f"There is no set of masks {name!r}; there are {', '.join(READERS)}.")
    rows = READERS[name](path, book)
    chosen = [row for row in rows if split in ("", row.split)]
    if not chosen:
        have = ", ".join(sorted({row.split for row in rows})) or "none"
        raise UserError(f"{name} at {path} has no pictures with masks in the split {split or 'any'}; its splits are {have}.")
    return chosen
