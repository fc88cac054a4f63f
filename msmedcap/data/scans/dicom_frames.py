"""The frames of a DICOM picture, decoded one at a time from a dataset that holds pixels only.

Out: greys as float32 in the scan's units (Hounsfield for CT), or colours as uint8 RGB. Windows, scales and tables are read from the
file once, at opening, as plain numbers; the file's dataset is not kept.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydicom import Dataset
from pydicom.pixels import apply_color_lut, get_decoder, pixel_array
from pydicom.uid import UID

from msmedcap.data.scans.dicom_tags import file_choices, modality_lut, number, rescale, value_of
from msmedcap.data.scans.errors import ScanError
from msmedcap.data.scans.limits import repair_values
from msmedcap.data.scans.windows import Choice

_PREFERRED = ("pylibjpeg", "pyjpegls", "pillow")
_OVERLAY_POSITIONS = [(group, 0x0102) for group in range(0x6000, 0x6020, 2)]


class DicomFrames:
    """Decoded frames and their own windows; implements :class:`~msmedcap.data.scans.scan.Frames`, safe to share by threads."""

    def __init__(self, clean: Dataset, dataset: Dataset, count: int) -> None:
        """``clean`` is kept and decoded from; of ``dataset`` only numbers are copied. ``count`` is the number of frames."""
        self._clean, self.count = clean, count
        self._plugin = _plugin(clean.file_meta.TransferSyntaxUID)
        self.colour = clean.SamplesPerPixel == 3 or clean.PhotometricInterpretation == "PALETTE COLOR"
        self._lut = modality_lut(dataset)
        enhanced = "PerFrameFunctionalGroupsSequence" in dataset
        described = range(count if enhanced else 1)
        self._rescale = [rescale(dataset, frame) for frame in described]
        self._choices = [dict(() if self.colour else file_choices(dataset, frame)) for frame in described]
        padding = [number(value_of(dataset, name)) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
        self._padding = None if np.isnan(padding[0]) else (np.nanmin(padding), np.nanmax(padding))
        # Old overlays hide in the unused high bits; left there they would count as brightness.
        self._overlaid = any(
            tag in dataset and number(dataset[tag].value) >= clean.BitsStored for tag in _OVERLAY_POSITIONS
        )
        self.repaired = 0
        self._last: tuple[int, np.ndarray] | None = None

    @property
    def as_stored(self) -> bool:
        """Whether values are the stored numbers, with no scale or table between."""
        return self._lut is None and set(self._rescale) == {(1.0, 0.0)} and "PixelData" in self._clean

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and highest number the stored bits allow."""
        bits, signed = self._clean.BitsStored, self._clean.PixelRepresentation
        return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)

    @property
    def nbytes(self) -> int:
        """See :class:`~msmedcap.data.scans.scan.Frames`."""
        name = next(name for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if name in self._clean)
        return len(self._clean[name].value)

    def packed(self) -> DicomFrames:
        """Itself, without the frame that was decoded last: the others lie as the file has them."""
        self._last = None
        return self

    def choices(self, frame: int) -> Mapping[str, Choice]:
        """The windows the file gives for ``frame``."""
        return self._choices[frame if len(self._choices) > 1 else 0]

    def read(self, frame: int) -> np.ndarray:
        """One frame: float32 [H,W] in the scan's units, or uint8 [H,W,3]; raises :class:`ScanError` where it is damaged."""
        stored = self._stored(frame)
        return self._coloured(stored) if self.colour else self._scaled(stored, frame)

    def anatomy(self, frame: int) -> np.ndarray:
        """The values of ``frame`` without its padding, float32 [N]; all of them where there is nothing but padding."""
        stored = self._stored(frame)
        values = self._scaled(stored, frame)
        if self._padding is None:
            return values.ravel()
        inside = (stored < self._padding[0]) | (stored > self._padding[1])
        return values[inside] if inside.any() else values.ravel()

    def _stored(self, frame: int) -> np.ndarray:
        """The stored numbers of one frame; the last one stays decoded, for turning the window."""
        last = self._last
        if last is None or last[0] != frame:
            # One assignment of a pair: threads may decode twice, but never mix two frames, so no lock is needed.
            last = self._last = (frame, self._decode(frame))
        return last[1]

    def _decode(self, frame: int) -> np.ndarray:
        try:
            pixels = pixel_array(self._clean, index=frame, decoding_plugin=self._plugin)
        except Exception:  # Each decoder has its own errors; their texts say nothing a reader can act on.
            where = f"Frame {frame} of this DICOM file" if self.count > 1 else "This DICOM picture"
            raise ScanError(
                f"{where} cannot be decoded: it is damaged or cut short; export or download it again."
            ) from None
        if not self._overlaid or pixels.dtype.kind not in "iu":
            return pixels
        spare = pixels.dtype.itemsize * 8 - self._clean.BitsStored
        return (pixels << spare) >> spare

    def _scaled(self, stored: np.ndarray, frame: int) -> np.ndarray:
        if self._lut is not None:
            index = np.clip(stored.astype(np.int64) - self._lut.first, 0, len(self._lut.table) - 1)
            return self._lut.table[index]
        slope, intercept = self._rescale[frame if len(self._rescale) > 1 else 0]
        values, bad = repair_values((stored.astype(np.float64) * slope + intercept).astype(np.float32))
        self.repaired = max(self.repaired, bad)
        return values

    def _coloured(self, stored: np.ndarray) -> np.ndarray:
        bits = self._clean.BitsStored
        if self._clean.PhotometricInterpretation == "PALETTE COLOR":
            try:
                stored = apply_color_lut(stored, self._clean)[..., :3]
            except Exception:
                raise ScanError("This DICOM picture's colour table is damaged; export it as RGB.") from None
            bits = 8 if stored.max() < 256 else 16
        if bits <= 8:
            return stored.astype(np.uint8)
        return (stored.astype(np.float64) * (255 / (2.0**bits - 1)) + 0.5).astype(np.uint8)


def _plugin(syntax: UID) -> str:
    """The decoder to use for ``syntax``, "" for pydicom's own choice.

    GDCM comes last: over a damaged frame it can end the whole program, where the others raise an error.
    """
    available = get_decoder(syntax).available_plugins if syntax.is_encapsulated else ()
    return next((plugin for plugin in _PREFERRED if plugin in available), "")
