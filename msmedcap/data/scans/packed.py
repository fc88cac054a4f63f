"""Pictures that wait to be looked at again: decoded frames compressed without loss, for a tray of many scans.

In: the frames of an image file, which are all decoded when it is opened. Out: the same scan in about half the memory or less. A
DICOM file's frames lie as the file has them already.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msmedcap.data.scans.windows import Choice

_LEVEL = 1


@dataclass(frozen=True)
class _Frame:
    data: bytes
    shape: tuple[int, ...]
    kind: np.dtype

    def array(self) -> np.ndarray:
        array = np.frombuffer(zlib.decompress(self.data), self.kind).reshape(self.shape)
        # Sums wrap around as the differences did, so they come out exactly.
        return np.cumsum(array, axis=1, dtype=self.kind) if self.kind.kind in "iu" else array


class Packed:
    """Compressed frames; implements :class:`~msmedcap.data.scans.scan.Frames`, safe to share by threads."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        """``arrays``: greys [H,W] of any number type, or uint8 [H,W,3]."""
        self._frames = [_packed(array) for array in arrays]

    @property
    def nbytes(self) -> int:
        """See :class:`~msmedcap.data.scans.scan.Frames`."""
        return sum(len(frame.data) for frame in self._frames)

    def packed(self) -> Packed:
        """Itself: no frame stays decoded."""
        return self

    def read(self, frame: int) -> np.ndarray:
        """See :class:`~msmedcap.data.scans.scan.Frames`."""
        array = self._frames[frame].array()
        return array.astype(np.uint8 if array.ndim == 3 else np.float32)

    def choices(self, frame: int) -> Mapping[str, Choice]:
        """No window of its own: an image file has none."""
        return {}


def _packed(array: np.ndarray) -> _Frame:
    if array.dtype.kind in "iu":
        # Neighbours are alike: their differences compress far better than they do.
        array = np.diff(array, axis=1, prepend=np.zeros_like(array[:, :1]))
    return _Frame(zlib.compress(array.tobytes(), _LEVEL), array.shape, array.dtype)
