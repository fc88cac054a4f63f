"""An opened scan: de-identified, and the same for every file kind.

In: a :class:`Frames` (the pixels as some decoder holds them) and what is known of them. Out: values in the scan's own units and
pictures as displayed. Nothing here knows a path, a patient or a file format.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from msmedcap.data.scans.errors import ScanError
from msmedcap.data.scans.windows import PRESETS, Choice, Window, checked, greys, parse_window


class Frames(Protocol):
    """The pixels behind a scan; safe to read from several threads."""

    def read(self, frame: int) -> np.ndarray:
        """One frame, the caller's own: float32 [H,W] in the scan's units (finite), or uint8 [H,W,3] colours."""

    def choices(self, frame: int) -> Mapping[str, Choice]:
        """The windows the file itself gives for one frame; may be empty."""

    @property
    def nbytes(self) -> int:
        """How many bytes the pixels take as they are held."""

    def packed(self) -> Frames:
        """The same frames in as little memory as they can be had from without loss."""


class Scan:
    """An opened, de-identified scan; holds no path and no patient tag.

    ``frames``, ``height``, ``width`` in pixels; ``kind`` ("DICOM", "PNG", ...); ``spacing`` mm per pixel (row, column) or None;
    ``between`` mm from a frame to the next where they are slices at even steps, else None; ``facts`` the allow-listed tags;
    ``colour``; ``warnings`` sentences for the reader; ``windows`` the choices that make sense here, the default first, named by
    ``default_window``; ``id`` is a made-up name, of nothing that is in the file.
    """

    def __init__(
        self,
        pixels: Frames,
        *,
        kind: str,
        frames: int,
        size: tuple[int, int],
        colour: bool,
        choices: Mapping[str, Choice],
        spacing: tuple[float, float] | None = None,
        between: float | None = None,
        facts: Mapping[str, str] | None = None,
        warnings: tuple[str, ...] = (),
        curve: str = "linear_exact",
        inverted: bool = False,
    ) -> None:
        """``choices`` besides the file's own, in order; ``curve`` is how manual windows apply; ``inverted``: low is white."""
        self.id = uuid.uuid4().hex
        self.kind, self.frames, self.colour, self.spacing = kind, frames, colour, spacing
        self.between = between
        self.height, self.width = size
        self.facts: Mapping[str, str] = dict(facts or {})
        self.warnings = warnings
        self._pixels, self._choices, self._curve, self._inverted = pixels, dict(choices), curve, inverted
        self.windows: Mapping[str, Window] = {name: choice.window for name, choice in self._all(0).items()}
        self.default_window = next(iter(self.windows))

    @property
    def nbytes(self) -> int:
        """How many bytes the pixels take in memory, as they are held (a DICOM file's frames stay as the file has them)."""
        return self._pixels.nbytes

    def packed(self) -> Scan:
        """The same scan in as little memory as it can be had from without loss, for one that nobody looks at now."""
        other = copy.copy(self)
        other._pixels = self._pixels.packed()
        return other

    def values(self, frame: int = 0) -> np.ndarray:
        """One frame as float32 [H,W] in the scan's units (HU for CT), or uint8 [H,W,3] where it is in colour.

        Raises :class:`ScanError` where the frame does not exist or cannot be decoded.
        """
        return self._read(frame)

    def picture(self, window: str | Window | None = None, frame: int = 0) -> np.ndarray:
        """One frame as displayed: uint8 [H,W,3], windowed, MONOCHROME1 inverted; colours are shown as stored by default.

        Raises :class:`ScanError` on an unknown window or frame, or a frame that is one flat grey.
        """
        values = self._read(frame)
        _, choice = self._resolve(window, frame)
        if (values == values[0, 0]).all():
            where = f"Frame {frame}" if self.frames > 1 else "The picture"
            then = "choose another frame" if self.frames > 1 else "choose another file"
            raise ScanError(f"{where} is one flat grey, so there is nothing to describe; {then}.")
        shown = greys(values, choice)
        if self._inverted:
            shown = 255 - shown
        return shown if self.colour else np.repeat(shown[..., None], 3, axis=2)

    def resolve_window(self, window: str | Window | None, frame: int = 0) -> tuple[str, Window | None]:
        """The name and numbers of ``window``: one of :attr:`windows`, ``"W,L"`` text, a :class:`Window`, or None (default).

        The numbers are None where the file's lookup table, not a width and level, decides. Raises :class:`ScanError`
        on an unknown name.
        """
        name, choice = self._resolve(window, frame)
        return name, None if choice.lut is not None else choice.window

    def _resolve(self, window: str | Window | None, frame: int) -> tuple[str, Choice]:
        known = self._all(frame)
        if window is None:
            name = self.default_window if self.default_window in known else next(iter(known))
            return name, known[name]
        if isinstance(window, Window):
            return f"{window.width:g},{window.level:g}", Choice(checked(window), self._curve)
        wanted = " ".join(window.lower().replace("_", " ").split())
        for name, choice in known.items():
            if wanted in (name.lower(), name.lower().split(" (")[0]):
                return name, choice
        if (manual := parse_window(window)) is not None:
            return f"{manual.width:g},{manual.level:g}", Choice(manual, self._curve)
        why = " is in Hounsfield units and needs a CT" if wanted in PRESETS else " is not known here"
        raise ScanError(f'The window "{window}"{why}; use one of {", ".join(known)}, or width,level such as 400,40.')

    def _all(self, frame: int) -> dict[str, Choice]:
        return {**self._pixels.choices(frame), **self._choices}

    def _read(self, frame: int) -> np.ndarray:
        if isinstance(frame, bool) or not 0 <= frame < self.frames:
            count = f"{self.frames} frames, numbered from 0" if self.frames > 1 else "one frame, number 0"
            raise ScanError(f"This scan has {count}; there is no frame {frame}.")
        return self._pixels.read(frame)
