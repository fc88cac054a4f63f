"""Arrays as text that a page can carry: PNGs as ``data:`` addresses, grids of values, colour maps. No gradio here.

Pictures travel inside the page, never as files: a file in the server's cache could be fetched by every visitor who learns its
address. Values that are to be computed with in the browser (windowing, thresholds) do not travel as PNG: a browser that guards
against fingerprinting may add noise to what is read back from a picture. They are packed here and unpacked, exactly, by
``static/viewer_pixels.js``: each value as its difference from its left neighbour, low bytes before high bytes, deflated.
"""

from __future__ import annotations

import base64
import functools
import io
import zlib
from typing import Any

import numpy as np
from PIL import Image

COLOUR_MAPS = ("inferno", "viridis", "magma", "cividis")  # perceptually uniform, all of them
SCAN_SIDE, MAP_SIDE, THUMB_SIDE = 1280, 640, 112
_LEVELS = 65535
# A map that fades is opaque from this share of its scale on. Its colours begin where a colour map is no longer all but black:
# what is low is told by being clear, and dark would hide the scan.
_OPAQUE_FROM, _COLOURS_FROM = 1 / 3, 0.35
_RISE = 0.7  # below 1, so that what is low but not nothing can still be seen


@functools.cache
def lookup(name: str) -> np.ndarray:
    """The colours of a colour map of :data:`COLOUR_MAPS`: ``[256,3] uint8``, row i for grey value i."""
    from matplotlib import colormaps

    return (colormaps[name](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


@functools.cache
def fading(name: str) -> np.ndarray:
    """The colours of a map whose 0 means nothing: ``[256,4] uint8``, clear at grey 0; row i for grey value i."""
    share = np.arange(256) / 255
    colours = lookup(name)[((_COLOURS_FROM + (1 - _COLOURS_FROM) * share) * 255).round().astype(int)]
    opacity = ((share / _OPAQUE_FROM).clip(0, 1) ** _RISE * 255).round().astype(np.uint8)
    return np.concatenate([colours, opacity[:, None]], axis=1)


def picture_uri(pixels: np.ndarray, longest: int) -> str:
    """``pixels [H,W] or [H,W,3] uint8`` as a ``data:`` PNG, shrunk (never enlarged) to ``longest`` pixels on its longest side."""
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if max(image.size) > longest:
        image.thumbnail((longest, longest), Image.Resampling.BOX if longest <= THUMB_SIDE else Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=3)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def values_grid(values: np.ndarray, longest: int) -> dict[str, Any]:
    """``values [H,W] float32`` for the browser: ``{data, width, height, bytes, slope, intercept}``.

    A value is ``slope * stored + intercept``. Whole numbers that span less than 65536 arrive exactly; others to 1/65535 of
    their span. Shrunk (never enlarged) to ``longest`` pixels on the longest side, without leaving the values' range.
    """
    low, high = float(values.min()), float(values.max())
    whole = high - low <= _LEVELS and low == round(low) and bool((values == np.rint(values)).all())
    if max(values.shape) > longest:
        share = longest / max(values.shape)
        size = (max(1, round(values.shape[1] * share)), max(1, round(values.shape[0] * share)))
        image = Image.fromarray(np.ascontiguousarray(values, np.float32))
        values = np.asarray(image.resize(size, Image.Resampling.LANCZOS)).clip(low, high)
    slope = 1.0 if whole or high <= low else (high - low) / _LEVELS
    stored = np.rint((values - low) / slope)
    narrow = float(stored.max()) <= 255
    grid = packed_grid(stored.astype(np.uint8 if narrow else np.uint16))
    return {**grid, "slope": slope, "intercept": low}


def packed_grid(stored: np.ndarray) -> dict[str, Any]:
    """``stored [H,W] uint8 or uint16`` as ``{data, width, height, bytes}``; ``data`` is base64 text."""
    steps = stored.copy()
    steps[:, 1:] -= stored[:, :-1]  # wraps around, and wraps back when summed
    planes = [(steps >> shift).astype(np.uint8).tobytes() for shift in range(0, 8 * stored.itemsize, 8)]
    data = base64.b64encode(zlib.compress(b"".join(planes), 3)).decode()
    return {"data": data, "width": stored.shape[1], "height": stored.shape[0], "bytes": stored.itemsize}
