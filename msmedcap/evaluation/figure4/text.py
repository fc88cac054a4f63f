"""Text with marked facts, broken into lines and drawn by measured widths, for the panels of Fig. 4.

Comes in: a text and the spans of its facts (:class:`Said`). Goes out: lines on a page whose unit is the point (1/72 inch) and
whose y grows downwards. A right fact is blue, underlined and followed by a tick; a wrong one is vermilion, underlined by a wave
and followed by a cross: either can be told from the other without colour. All text stays text in a PDF.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties

from msmedcap.evaluation.figure4.marks import SIGNS, Said

RIGHT, WRONG, INK, GREY = "#00509E", "#B03A00", "#1A1A1A", "#5A5A5A"
COLOURS = {"right": RIGHT, "wrong": WRONG}
CUT = "[\u2026]"
_SIGN_FONT = "DejaVu Sans"  # comes with matplotlib and has the signs
_FONTS = ("Liberation Sans", "Arial", "Helvetica", "Nimbus Sans")
_PRECISION = 10  # text is measured at ten dots a point
_LEADING = 1.28


Style: TypeAlias = Literal["normal", "italic"]


@dataclass(frozen=True)
class Piece:
    """Characters of one look: ``kind`` is "", "right", "wrong", "right sign" or "wrong sign"; ``x`` from the line's start."""

    text: str
    kind: str
    x: float
    width: float


Line: TypeAlias = tuple[Piece, ...]


@functools.cache
def families() -> tuple[str, ...]:
    """The sans-serif families to draw with, those installed here first; the last one is always there."""
    known = {font.name for font in font_manager.fontManager.ttflist}
    return (*[name for name in _FONTS if name in known][:1], _SIGN_FONT)


@functools.cache
def font(size: float, *, weight: str = "normal", style: Style = "normal", sign: bool = False) -> FontProperties:
    """The font of ``size`` points."""
    return FontProperties(family=[_SIGN_FONT] if sign else list(families()), size=size, weight=weight, style=style)


@functools.lru_cache(maxsize=8192)
def measure(text: str, size: float, weight: str = "normal", sign: bool = False) -> float:
    """The width of ``text`` in points."""
    props = font(size, weight=weight, sign=sign)
    width, _, _ = _renderer().get_text_width_height_descent(text, props, False)
    return float(width) / _PRECISION


@functools.cache
def _renderer() -> RendererAgg:
    return RendererAgg(8, 8, 72 * _PRECISION)


def break_lines(said: Said, width: float, size: float, *, most: int | None = None) -> list[Line]:
    """``said`` in lines of at most ``width`` points; after ``most`` lines it is cut, visibly (:data:`CUT`)."""
    lines: list[list[Piece]] = [[]]
    x = 0.0
    space = measure(" ", size)
    for gap, word in _words(said, width, size):
        long = sum(_width(text, kind, size) for text, kind in word)
        before = space if lines[-1] and gap is not None else 0.0
        if lines[-1] and x + before + long > width:
            lines.append([])
            x, before = 0.0, 0.0
        if before:
            lines[-1].append(Piece(" ", gap or "", x, before))
            x += before
        for text, kind in word:
            advance = _width(text, kind, size)
            lines[-1].append(Piece(text, kind, x, advance))
            x += advance
    if most is not None and len(lines) > most:
        lines = [*lines[: most - 1], _cut(lines[most - 1], width, size)]
    return [tuple(_merged(line)) for line in lines if line]


def _width(text: str, kind: str, size: float) -> float:
    sign = kind.endswith("sign")
    return measure(text, 0.82 * size, sign=True) + 0.06 * size if sign else measure(text, size)


def _words(said: Said, width: float, size: float) -> Iterator[tuple[str | None, list[tuple[str, str]]]]:
    """Each word as pieces ``(text, kind)``, with the kind of the space before it (None: it sticks to the word before)."""
    kinds = [""] * len(said.text)
    ends: dict[int, str] = {}
    for span in said.spans:
        kind = "right" if span.right else "wrong"
        kinds[span.start : span.end] = [kind] * (span.end - span.start)
        ends[span.end - 1] = kind
    for match in re.finditer(r"\S+", said.text):
        start = match.start()
        before = kinds[start - 1] if start and kinds[start - 1] == kinds[start] and start - 1 not in ends else ""
        word: list[tuple[str, str]] = []
        for place in range(start, match.end()):
            if word and word[-1][1] == kinds[place]:
                word[-1] = (word[-1][0] + said.text[place], kinds[place])
            else:
                word.append((said.text[place], kinds[place]))
            if place in ends:
                word.append((SIGNS[ends[place]], f"{ends[place]} sign"))
        yield from ((before if first else None, part) for first, part in _fitting(word, width, size))


def _fitting(word: list[tuple[str, str]], width: float, size: float) -> Iterator[tuple[bool, list[tuple[str, str]]]]:
    """``word`` whole, or, where it is wider than a line, in stretches that fit."""
    if sum(_width(text, kind, size) for text, kind in word) <= width:
        yield True, word
        return
    first = True
    for text, kind in word:
        while text:
            take = len(text)
            while take > 1 and _width(text[:take], kind, size) > width:
                take -= 1
            yield first, [(text[:take], kind)]
            text, first = text[take:], False


def _cut(line: list[Piece], width: float, size: float) -> list[Piece]:
    mark = measure(f" {CUT}", size)
    while line and line[-1].x + line[-1].width + mark > width:
        line = line[:-1]
    end = line[-1].x + line[-1].width if line else 0.0
    return [*line, Piece(f" {CUT}", "", end, mark)]


def _merged(line: Sequence[Piece]) -> Iterator[Piece]:
    """Neighbours of one look as one piece, so that a PDF holds stretches of text and not single words."""
    held: Piece | None = None
    for piece in line:
        if held is not None and held.kind == piece.kind and not piece.kind.endswith("sign"):
            held = Piece(held.text + piece.text, held.kind, held.x, piece.x + piece.width - held.x)
            continue
        if held is not None:
            yield held
        held = piece
    if held is not None:
        yield held


def draw_lines(
    axes: Axes, lines: Sequence[Line], x: float, y: float, size: float, *, colour: str = INK, style: Style = "normal"
) -> float:
    """Draw ``lines`` with the top of the first at ``y`` and return where the next would start."""
    for line in lines:
        base = y + size
        for piece in line:
            mark = piece.kind.split(" ")[0]
            sign = piece.kind.endswith("sign")
            axes.text(
                x + piece.x + (0.06 * size if sign else 0.0),
                base,
                piece.text,
                fontproperties=font(0.82 * size if sign else size, style=style, sign=sign),
                color=COLOURS.get(mark, colour),
                va="baseline",
                ha="left",
                parse_math=False,
            )
            if mark and not sign:
                _underline(axes, mark, x + piece.x, x + piece.x + piece.width, base + 0.24 * size)
        y += _LEADING * size
    return y


def _underline(axes: Axes, mark: str, left: float, right: float, y: float) -> None:
    if mark == "right":
        axes.plot([left, right], [y, y], color=RIGHT, linewidth=0.8, solid_capstyle="butt")
        return
    steps = max(2, round((right - left) / 0.4))
    xs = [left + (right - left) * i / steps for i in range(steps + 1)]
    axes.plot(xs, [y - 0.75 * math.sin((v - left) * 2 * math.pi / 3.6) for v in xs], color=WRONG, linewidth=0.8)


def height(lines: int, size: float) -> float:
    """How high so many lines are, in points."""
    return lines * _LEADING * size
