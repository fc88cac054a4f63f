"""A picture and its named masks, whatever set they come from.

Comes in: files, or arrays of a made scan. Goes out: :class:`SegmentedPicture`, whose pixels and masks are read when asked for.
Masks may overlap; each is bool of its picture's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from msmedcap.config import UserError
from msmedcap.data.masks import read_mask
from msmedcap.data.scans import open_scan


@dataclass(frozen=True)
class IndexMask:
    """The pixels of the file ``path`` that have ``value``: one class of an index map."""

    path: Path
    value: int

    def read(self) -> np.ndarray:
        """The mask, bool ``[H,W]``."""
        with Image.open(self.path) as image:
            return np.asarray(image if image.mode in ("P", "L", "I", "I;16") else image.convert("L")) == self.value


@dataclass(frozen=True)
class PackedMask:
    """A mask in memory at a bit a pixel."""

    bits: np.ndarray
    shape: tuple[int, int]

    @staticmethod
    def of(mask: np.ndarray) -> PackedMask:
        """``mask`` (bool ``[H,W]``) packed."""
        return PackedMask(np.packbits(mask), (int(mask.shape[0]), int(mask.shape[1])))

    def read(self) -> np.ndarray:
        """The mask, bool ``[H,W]``."""
        height, width = self.shape
        return np.unpackbits(self.bits, count=height * width).astype(bool).reshape(self.shape)


@dataclass(frozen=True)
class Segment:
    """One object: the name of its class (None where the set's label is none of the book's) and its mask.

    A mask that is a path is a file of 0 and 255.
    """

    name: str | None
    mask: Path | IndexMask | PackedMask

    def read(self) -> np.ndarray:
        """The mask, bool ``[H,W]``."""
        return read_mask(self.mask) if isinstance(self.mask, Path) else self.mask.read()


@dataclass(frozen=True)
class SegmentedPicture:
    """A picture with its ``segments``.

    - ``id``: names it within its ``source``, the set's name.
    - ``image``: its file, or uint8 ``[H,W]``.
    - ``labelled``: the classes that would have a mask here if they were to be seen; of any other, no mask says nothing.
    - ``group``: of pictures that a split must not tear apart (a patient, a film and its copies); ``split``: train, val or test.
    """

    id: str
    source: str
    image: Path | np.ndarray
    segments: tuple[Segment, ...]
    labelled: frozenset[str]
    group: str
    split: str

    @cached_property
    def names(self) -> frozenset[str]:
        """The classes that have a mask."""
        return frozenset(s.name for s in self.segments if s.name is not None)

    def pixels(self) -> np.ndarray:
        """The picture as displayed, uint8 ``[H,W,3]``; raises ``ScanError`` where its file cannot be read."""
        if isinstance(self.image, Path):
            return open_scan(self.image).picture()
        return np.repeat(self.image[..., None], 3, axis=2)

    def masks(self) -> np.ndarray:
        """The masks in the order of ``segments``, bool ``[n,H,W]``; raises :class:`UserError` where one cannot be read."""
        found = []
        for segment in self.segments:
            try:
                found.append(segment.read())
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                raise UserError(f"A mask of {self.source} {self.id} cannot be read ({error}).") from error
        if len({mask.shape for mask in found}) > 1:
            raise UserError(f"The masks of {self.source} {self.id} differ in size.")
        return np.stack(found)
