"""How large a scan may be, checked from its header before anything is decoded, and repair of values that are no numbers."""

from __future__ import annotations

import numpy as np

from msmedcap.data.scans.errors import ScanError

MAX_FILE_BYTES = 1 << 30
MAX_FRAME_PIXELS = 64 << 20
MAX_TOTAL_PIXELS = 1 << 30
MAX_STORED_PIXELS = 256 << 20


def check_bytes(size: int) -> None:
    """Raises :class:`ScanError` for an empty file or one over 1 GiB."""
    if size == 0:
        raise ScanError("The file is empty; choose a DICOM, PNG or JPEG picture.")
    if size > MAX_FILE_BYTES:
        raise ScanError(
            f"The file is larger than {MAX_FILE_BYTES >> 30} GiB; choose a smaller series or single frames."
        )


def check_size(height: int, width: int, *, frames: int = 1, stored: bool = False) -> None:
    """Raises :class:`ScanError` where a frame of ``height`` x ``width`` pixels, or all ``frames``, is more than is decoded.

    ``stored``: all frames will be held decoded at once, which has the lower limit.
    """
    if height < 1 or width < 1 or frames < 1:
        raise ScanError("The file says that its picture has no pixels; export it again.")
    if height * width > MAX_FRAME_PIXELS:
        raise ScanError(
            f"The picture is {width} x {height} pixels; at most {MAX_FRAME_PIXELS >> 20} megapixels are read, so export it smaller."
        )
    if height * width * frames > (MAX_STORED_PIXELS if stored else MAX_TOTAL_PIXELS):
        raise ScanError(
            f"The {frames} frames of {width} x {height} pixels are too many to read at once; export fewer frames."
        )


def repair_values(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Float ``values`` with those not finite replaced by the smallest finite one, and how many there were.

    Raises :class:`ScanError` where none is finite.
    """
    fine = np.isfinite(values)
    if fine.all():
        return values, 0
    if not fine.any():
        raise ScanError("No pixel of this picture holds a number (all are NaN or infinite); export it again.")
    return np.where(fine, values, values[fine].min()), int((~fine).sum())
