"""One scan on one sheet: the picture as captioned, the map beside it, the captions below. Goes out: a PNG.

Comes in: the picture, a map as the tray keeps it, captions by system. Drawn on white, to be printed.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from msmedcap.demo.tray.tray import KeptMap
from msmedcap.demo.viewer.encoding import lookup

SIDE = 480  # pixels of a picture's longest side on the sheet
_MARGIN, _GAP, _LINE = 24, 16, 26
_HEAD, _TEXT, _SMALL = 20, 18, 14
_INK, _QUIET, _PAPER = (22, 32, 43), (83, 96, 112), (255, 255, 255)
_COLOURS = "inferno"
_SHARE = 0.55  # of the map over the picture


def panel(
    picture: np.ndarray, kept: KeptMap | None, captions: Mapping[str, str], *, heading: str, ratio: float, note: str
) -> bytes:
    """The sheet. ``picture [H,W,3] uint8`` as displayed; ``ratio`` its width to its height in millimetres."""
    size = (SIDE, max(1, round(SIDE / ratio))) if ratio >= 1 else (max(1, round(SIDE * ratio)), SIDE)
    image = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
    width = 2 * SIDE + _GAP + 2 * _MARGIN
    fonts = {points: ImageFont.load_default(points) for points in (_HEAD, _TEXT, _SMALL)}
    lines = [(name, line) for name, text in captions.items() for line in _wrapped(name, text, fonts[_TEXT], width)]
    top = _MARGIN + _HEAD + _GAP
    below = top + SIDE + _GAP
    sheet = Image.new("RGB", (width, below + _LINE + _LINE * len(lines) + _LINE + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN - 4), heading, _INK, fonts[_HEAD])
    _place(sheet, image, _MARGIN, top)
    draw.text((_MARGIN, below - 8), "Scan as captioned", _QUIET, fonts[_SMALL])
    right = _MARGIN + SIDE + _GAP
    if kept is not None:
        _place(sheet, _over(image, kept), right, top)
        span = f"{kept.title}, {kept.range[0]:.3g} to {kept.range[1]:.3g}"
        draw.text((right, below - 8), span, _QUIET, fonts[_SMALL])
    y = below + _LINE
    for _, line in lines:
        draw.text((_MARGIN, y), line, _INK, fonts[_TEXT])
        y += _LINE
    draw.text((_MARGIN, y + 4), note, _QUIET, fonts[_SMALL])
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _over(image: Image.Image, kept: KeptMap) -> Image.Image:
    with Image.open(io.BytesIO(kept.png)) as stored:
        grey = np.asarray(stored.convert("L"))
    colours = Image.fromarray(lookup(_COLOURS)[grey]).resize(image.size, Image.Resampling.BILINEAR)
    return Image.blend(image, colours, _SHARE)


def _place(sheet: Image.Image, image: Image.Image, left: int, top: int) -> None:
    sheet.paste((0, 0, 0), (left, top, left + SIDE, top + SIDE))
    sheet.paste(image, (left + (SIDE - image.width) // 2, top + (SIDE - image.height) // 2))


def _wrapped(name: str, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """A system's name and caption in lines that fit the sheet."""
    lines, line = [], f"{name}: "
    for word in text.split():
        if font.getlength(line + word) > width - 2 * _MARGIN and line.strip():
            lines.append(line.rstrip())
            line = "    "
        line += word + " "
    return [*lines, line.rstrip()]
