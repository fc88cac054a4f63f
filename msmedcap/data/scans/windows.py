"""Windows: which of a scan's values become black, which white, and along which curve.

In: values float32 [H,W] in the scan's own units (HU for CT). Out: uint8 [H,W] greys as displayed. The curves are DICOM's
(PS3.3 C.11.2): ``linear``, ``linear_exact``, ``sigmoid`` and the lookup table a file may carry.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from msmedcap.data.scans.errors import ScanError


@dataclass(frozen=True)
class Window:
    """A display window: ``width`` values around ``level``, in the scan's own units (HU for CT)."""

    width: float
    level: float


PRESETS: dict[str, Window] = {
    "soft tissue": Window(400, 40),
    "lung": Window(1500, -600),
    "bone": Window(2500, 480),
    "brain": Window(80, 40),
    "liver": Window(150, 90),
    "mediastinum": Window(500, 50),
}
"""The usual CT windows, in Hounsfield units."""

PERCENTILE = "percentile"
FULL_RANGE = "full range"
_TAILS = (0.5, 99.5)
_SAMPLE_PIXELS = 4 << 20


@dataclass(frozen=True)
class Lut:
    """A file's own lookup table: ``table`` float32 [N] in 0-1 for the values ``first``, ``first + 1``, ..."""

    first: int
    table: np.ndarray


@dataclass(frozen=True)
class Choice:
    """A window with the curve to apply it by; a ``lut`` takes the curve's place."""

    window: Window
    curve: str = "linear_exact"
    lut: Lut | None = None


def greys(values: np.ndarray, choice: Choice) -> np.ndarray:
    """Windowed ``values`` (any shape) as uint8 of the same shape: 0 at and below the window, 255 at and above it."""
    values = values.astype(np.float32, copy=False)
    width, level = choice.window.width, choice.window.level
    if choice.lut is not None:
        index = np.clip(np.rint(values) - choice.lut.first, 0, len(choice.lut.table) - 1).astype(np.intp)
        share = choice.lut.table[index]
    elif choice.curve == "sigmoid":
        share = 1 / (1 + np.exp(np.clip(-4 * (values - level) / width, -80, 80)))
    elif choice.curve == "linear" and width == 1:
        share = (values > level - 0.5).astype(np.float32)
    elif choice.curve == "linear" and width > 1:
        share = (values - (level - 0.5)) / (width - 1) + 0.5
    else:
        share = (values - level) / width + 0.5
    return (np.clip(share, 0, 1) * 255 + 0.5).astype(np.uint8)


def parse_window(text: str) -> Window | None:
    """The window in ``"W,L"`` (also ``"W/L"`` or ``"W L"``), or None where ``text`` is not two numbers.

    Raises :class:`ScanError` where the width is not above zero.
    """
    number = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
    match = re.fullmatch(rf"\s*({number})\s*[,;/\s]\s*({number})\s*", text)
    return checked(Window(float(match[1]), float(match[2]))) if match else None


def checked(window: Window) -> Window:
    """``window`` itself; raises :class:`ScanError` where no picture can be made with it."""
    if not (math.isfinite(window.width) and math.isfinite(window.level) and window.width > 0):
        raise ScanError("A window needs a width above zero and a finite level, for example 400,40.")
    return window


def measured(samples: Iterable[np.ndarray]) -> dict[str, Choice]:
    """The windows that follow from the values themselves: ``percentile`` (0.5-99.5 %) and ``full range``.

    ``samples`` are finite values of a few frames, padding left out.
    """
    low, high, thinned = math.inf, -math.inf, []
    for sample in samples:
        low, high = min(low, float(sample.min())), max(high, float(sample.max()))
        thinned.append(sample.ravel()[:: 1 + sample.size // _SAMPLE_PIXELS])
    tails = [float(value) for value in np.percentile(np.concatenate(thinned), _TAILS)]
    if tails[1] <= tails[0]:
        tails = [low, high]
    return {PERCENTILE: Choice(_between(*tails)), FULL_RANGE: Choice(_between(low, high))}


def stored_range(low: float, high: float) -> Choice:
    """The ``full range`` of pictures meant to be seen as stored (8 bit and less)."""
    return Choice(_between(low, high))


def _between(low: float, high: float) -> Window:
    return Window(max(high - low, 1e-6), (low + high) / 2)
