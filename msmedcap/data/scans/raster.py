"""Pictures from ordinary image files: PNG, JPEG, TIFF, BMP, WebP and GIF.

In: the file's bytes and the kind told from them. Out: a :class:`~msmedcap.data.scans.scan.Scan` that holds decoded pixels only:
every frame is decoded at opening, so no comment, EXIF block or file name can travel on. Greys of more than 8 bits keep their
range.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from msmedcap.data.scans.errors import ScanError
from msmedcap.data.scans.limits import check_size, repair_values
from msmedcap.data.scans.packed import Packed
from msmedcap.data.scans.scan import Scan
from msmedcap.data.scans.windows import FULL_RANGE, Choice, measured, stored_range

_PHOTOMETRIC = 262
_GREY_ALPHA, _RGB_ALPHA = 4, 6  # PNG colour types
# Of 300 pictures each of four public sets of scans, one (of 1,200) has more than this share of pixels whose channels lie 40 apart.
COLOURED, _CHROMA = 0.2, 40
_SAMPLED_FRAMES = 5


@dataclass(frozen=True)
class _Decoded:
    """Frames as stored: greys [H,W] of any number type, or uint8 [H,W,3]; all alike."""

    arrays: tuple[np.ndarray, ...]

    def read(self, frame: int) -> np.ndarray:
        """See :class:`~msmedcap.data.scans.scan.Frames`."""
        array = self.arrays[frame]
        return array.astype(np.uint8 if array.ndim == 3 else np.float32)

    @property
    def nbytes(self) -> int:
        """See :class:`~msmedcap.data.scans.scan.Frames`."""
        return sum(array.nbytes for array in self.arrays)

    def packed(self) -> Packed:
        """See :class:`~msmedcap.data.scans.scan.Frames`."""
        return Packed(self.arrays)

    def choices(self, frame: int) -> Mapping[str, Choice]:
        """No window of its own: an image file has none."""
        return {}


def open_raster(data: bytes, kind: str) -> Scan:
    """The scan in ``data``, a file of ``kind`` (Pillow's name for the format).

    Raises :class:`ScanError` where it is damaged, too large, or has no finite value.
    """
    try:
        arrays, inverted, notes = _decode(data, kind)
    except ScanError:
        raise
    except Image.DecompressionBombError:
        raise ScanError(f"This {kind} claims far more pixels than any scan has; export it at its real size.") from None
    except Exception:  # Pillow's decoders raise whatever a damaged byte leads them to.
        raise ScanError(f"This {kind} file is damaged or cut short; export or download it again.") from None
    arrays, repaired = _finite(arrays)
    notes += repaired
    arrays = _collapse(arrays)
    colour = arrays[0].ndim == 3
    if colour and _coloured(arrays[0]) > COLOURED:
        notes.append("Much of this picture is in colour, and the models learnt from grey scans: its captions may mean nothing.")
    notes.append(
        f"A {kind} file cannot say whether names or dates are drawn into the picture; look before you share it."
    )
    return Scan(
        _Decoded(tuple(arrays)),
        kind=kind,
        frames=len(arrays),
        size=(arrays[0].shape[0], arrays[0].shape[1]),
        colour=colour,
        choices=_choices(arrays, colour),
        warnings=tuple(notes),
        inverted=inverted,
    )


def _coloured(pixels: np.ndarray) -> float:
    """The share of pixels ``[H,W,3]`` that are plainly coloured; a scan's marks and a Doppler's patches are few."""
    some = pixels[:: 1 + pixels.shape[0] // 256, :: 1 + pixels.shape[1] // 256].astype(np.int16)
    return float((np.ptp(some, axis=2) > _CHROMA).mean())


def _choices(arrays: list[np.ndarray], colour: bool) -> dict[str, Choice]:
    if colour:
        return {FULL_RANGE: stored_range(0, 255)}
    steps = np.unique(np.linspace(0, len(arrays) - 1, _SAMPLED_FRAMES).astype(int))
    found = measured(arrays[step] for step in steps)
    if arrays[0].dtype == np.uint8:
        # 8-bit pictures are made to be seen as they are; stretching them is the second choice.
        return {FULL_RANGE: stored_range(0, 255)} | {name: found[name] for name in found if name != FULL_RANGE}
    return found


def _decode(data: bytes, kind: str) -> tuple[list[np.ndarray], bool, list[str]]:
    """Every frame, whether low values are white, and sentences for the reader."""
    # Our own limit decides, in one sentence; Pillow's warning would only precede it.
    warnings.filterwarnings("ignore", module="PIL")
    image = Image.open(io.BytesIO(data), formats=(kind,))
    check_size(image.height, image.width)
    # A JPEG's further pictures (MPO) are previews or a stereo half, not frames.
    pages = 1 if kind == "JPEG" else int(getattr(image, "n_frames", 1))
    check_size(image.height, image.width, frames=pages, stored=True)
    deep = kind == "PNG" and pages == 1 and data[24] == 16 and data[25] != 0
    if deep:
        return [_deep_png(data)], False, []
    inverted = image.mode.startswith("I;16") and _white_is_zero(image)
    arrays: list[np.ndarray] = []
    for page in range(pages):
        image.seek(page)
        check_size(image.height, image.width)
        arrays.append(_to_array(ImageOps.exif_transpose(image)))
    alike = [array for array in arrays if array.shape[:2] == arrays[0].shape[:2]]
    # Thumbnails and reduced copies are pages of their own in some files.
    notes = (
        [] if len(alike) == pages else ["Only the pages of the first page's size are shown; the others were left out."]
    )
    return alike, inverted, notes


def _white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF's zero is white; Pillow inverts those of 8 bits by itself, those of 16 it leaves."""
    return isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0


def _to_array(image: Image.Image) -> np.ndarray:
    """One Pillow picture as greys [H,W] in their own type, or uint8 [H,W,3]; alpha composited on black."""
    if image.mode == "F" or image.mode == "I" or image.mode.startswith("I;16"):
        array = np.array(image)
        return array.astype(array.dtype.newbyteorder("="))
    if image.has_transparency_data:
        rgba = np.array(image.convert("RGBA"))
        return _on_black(rgba[..., :3], rgba[..., 3], 255)
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))
    return np.array(image.convert("RGB"))


def _deep_png(data: bytes) -> np.ndarray:
    """A 16-bit PNG with colours or alpha, which Pillow cuts to 8 bits: greys uint16 [H,W], or uint8 [H,W,3]."""
    if data[25] == _GREY_ALPHA:
        pixels = _png_bytes(data, "RGBA").view(">u2")
    else:
        # Read as big-endian Pillow keeps the high byte of each pair, as little-endian the low one.
        raw = "RGBA;16" if data[25] == _RGB_ALPHA else "RGB;16"
        pixels = _png_bytes(data, raw + "B").astype(np.uint16) << 8 | _png_bytes(data, raw + "L")
    colours = pixels[..., : 1 if pixels.shape[2] == 2 else 3]
    if pixels.shape[2] in (2, 4):
        colours = _on_black(colours, pixels[..., -1], 65535)
    if (colours == colours[..., :1]).all():
        return np.ascontiguousarray(colours[..., 0], dtype=np.uint16)
    return ((colours.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _png_bytes(data: bytes, raw: str) -> np.ndarray:
    """A PNG's channels as uint8 [H,W,C], its unfiltered bytes taken for Pillow's raw mode ``raw``."""
    image = Image.open(io.BytesIO(data), formats=("PNG",))
    image.tile = [tile._replace(args=raw) for tile in image.tile]
    return np.array(image)


def _on_black(colours: np.ndarray, alpha: np.ndarray, opaque: int) -> np.ndarray:
    mixed = (colours.astype(np.uint32) * alpha[..., None] + opaque // 2) // opaque
    return mixed.astype(colours.dtype)


def _collapse(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Colour frames that are grey throughout become greys, so that they can be windowed; mixed modes become colours."""
    if all(array.ndim == 2 or _is_grey(array) for array in arrays):
        return [array if array.ndim == 2 else np.ascontiguousarray(array[..., 0]) for array in arrays]
    if any(array.ndim == 2 and array.dtype != np.uint8 for array in arrays):
        raise ScanError("The file mixes colour pages with 16-bit pages; save the pages you need on their own.")
    return [array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2) for array in arrays]


def _is_grey(array: np.ndarray) -> bool:
    return bool((array[..., 0] == array[..., 1]).all() and (array[..., 0] == array[..., 2]).all())


def _finite(arrays: list[np.ndarray]) -> tuple[list[np.ndarray], list[str]]:
    """The frames with NaN and infinite values replaced by the frame's smallest finite value, and a note if there were any."""
    results = [repair_values(array) if array.dtype.kind == "f" else (array, 0) for array in arrays]
    bad = sum(count for _, count in results)
    note = [f"{bad} pixels held no number and are shown at the lowest value."] if bad else []
    return [array for array, _ in results], note
