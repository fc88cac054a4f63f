"""The page of Fig. 4: a column for each scan, under it what is true and what each system said, right and wrong facts marked.

Comes in: :class:`Panel` rows, pictures as displayed and texts with their facts. Goes out: a matplotlib figure as wide as two
columns of a paper (:data:`WIDTH`), as high as its words need, no type below 8 points.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from msmedcap.evaluation.figure4 import text
from msmedcap.evaluation.figure4.choice import letter
from msmedcap.evaluation.figure4.marks import Said, Span
from msmedcap.evaluation.figure4.text import Line

WIDTH, DPI = 516.0, 300  # points; a two-column paper's text is 7.16 inches wide
SIZE, LABEL_WIDTH, GAP, MARGIN = 8.2, 62.0, 11.0, 7.0
LONGEST = 12  # lines of a caption before it is cut
_LEGEND = (
    "Marks: {right}, a fact that the ground truth states; {wrong}, a fact that it does not state or that contradicts it; "
    "missed, a fact of the ground truth that is not stated; no mark, nothing the lexicon can judge. {cut}: cut for room."
)


@dataclass(frozen=True)
class Panel:
    """A case on the page.

    ``picture [H,W,3] uint8`` as displayed and ``ratio``, its width over its height on paper; ``title`` in the line above it;
    ``said``: the texts under it by their label, the ground truth first; ``section`` heads a row of its own.
    """

    picture: np.ndarray
    ratio: float
    title: str
    said: Mapping[str, Said]
    section: str = ""


def legend() -> Said:
    """What the marks mean, each shown on its own words."""
    right, wrong = "blue with a line", "vermilion with a wave"
    words = _LEGEND.format(right=right, wrong=wrong, cut=text.CUT)
    spans = [Span(words.index(w), words.index(w) + len(w), w is right) for w in (right, wrong)]
    return Said(words, tuple(spans))


@dataclass(frozen=True)
class _Row:
    """Panels side by side: their texts in lines, and how high each band of texts is."""

    section: str
    panels: tuple[Panel, ...]
    first: int
    lines: dict[str, list[list[Line]]]
    tails: dict[str, list[list[Line]]]
    bands: dict[str, float]
    picture: float


def lay_out(panels: Sequence[Panel], note: str, *, columns: int = 3) -> Figure:
    """The page with ``columns`` panels side by side (fewer where there are fewer) and ``note`` under them."""
    if not panels:
        raise ValueError("A figure needs at least one panel.")
    columns = max(1, min(columns, max(len(list(group)) for _, group in _sections(panels))))
    column = (WIDTH - 2 * MARGIN - LABEL_WIDTH - GAP * (columns - 1)) / columns
    rows = list(_rows(panels, columns, column))
    wide = WIDTH - 2 * MARGIN
    notes = [text.break_lines(said, wide, SIZE) for said in (Said(note), legend())]
    high = (
        sum(_row_height(row) for row in rows) + sum(text.height(len(lines), SIZE) for lines in notes) + 2 * MARGIN + 10
    )
    figure = Figure(figsize=(WIDTH / 72, high / 72), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(high, 0)
    axes.set_axis_off()
    y = MARGIN
    for row in rows:
        y = _draw_row(axes, row, y, column)
    _rule(axes, y + 1, 0.8)
    y += 7
    for lines in notes:
        y = text.draw_lines(axes, lines, MARGIN, y, SIZE) + 1.5
    axes.set_xlim(0, WIDTH)  # what was drawn must not have moved the page
    axes.set_ylim(high, 0)
    return figure


def _sections(panels: Sequence[Panel]) -> list[tuple[str, list[Panel]]]:
    return [(name, list(group)) for name, group in itertools.groupby(panels, key=lambda panel: panel.section)]


def _rows(panels: Sequence[Panel], columns: int, column: float) -> list[_Row]:
    rows, first = [], 0
    for section, group in _sections(panels):
        for start in range(0, len(group), columns):
            some = tuple(group[start : start + columns])
            rows.append(_row(section if start == 0 else "", some, first, column))
            first += len(some)
    return rows


def _row(section: str, panels: tuple[Panel, ...], first: int, column: float) -> _Row:
    labels = list(dict.fromkeys(label for panel in panels for label in panel.said))
    lines: dict[str, list[list[Line]]] = {}
    tails: dict[str, list[list[Line]]] = {}
    bands = {}
    for label in labels:
        said = [panel.said.get(label, Said("")) for panel in panels]
        lines[label] = [text.break_lines(s, column, SIZE, most=LONGEST) for s in said]
        tails[label] = [text.break_lines(Said(_tail(s)), column, SIZE) for s in said]
        counts = [len(a) + len(b) for a, b in zip(lines[label], tails[label], strict=True)]
        bands[label] = text.height(max(len(_label_lines(label)), *counts), SIZE) + 6.0
    high = float(np.median([column / panel.ratio for panel in panels]))
    return _Row(section, panels, first, lines, tails, bands, min(max(high, 0.65 * column), column))


def _tail(said: Said) -> str:
    """The line under a caption: its score, and what it missed."""
    return "; ".join(part for part in (said.score, f"missed: {', '.join(said.missed)}" if said.missed else "") if part)


def _label_lines(label: str) -> list[str]:
    """A label as it stands in the margin, what is in brackets on a line of its own."""
    head, bracket, rest = label.partition(" (")
    return [head, f"({rest}"] if bracket else [label]


def _row_height(row: _Row) -> float:
    heading = text.height(1, SIZE + 1) + 5 if row.section else 0.0
    return heading + text.height(1, SIZE) + 2 + row.picture + 4 + sum(row.bands.values()) + 8


def _draw_row(axes: Axes, row: _Row, y: float, column: float) -> float:
    if row.section:
        _write(axes, row.section, MARGIN, y + SIZE + 1, size=SIZE + 1, weight="bold")
        y += text.height(1, SIZE + 1) + 5
    lefts = [MARGIN + LABEL_WIDTH + i * (column + GAP) for i in range(len(row.panels))]
    for number, (left, panel) in enumerate(zip(lefts, row.panels, strict=True), row.first):
        _write(axes, letter(number), left, y + SIZE, weight="bold", size=SIZE + 0.6)
        _write(axes, panel.title, left + 11, y + SIZE, colour=text.GREY)
        _draw_picture(axes, panel, left, y + text.height(1, SIZE) + 2, column, row.picture)
    y += text.height(1, SIZE) + 2 + row.picture + 4
    for index, label in enumerate(row.bands):
        if index:
            _rule(axes, y - 0.5, 0.35)
        for number, words in enumerate(_label_lines(label)):
            _write(axes, words, MARGIN, y + 2 + SIZE + text.height(number, SIZE), weight="normal" if number else "bold")
        for left, lines, tail in zip(lefts, row.lines[label], row.tails[label], strict=True):
            below = text.draw_lines(axes, lines, left, y + 2, SIZE)
            text.draw_lines(axes, tail, left, below, SIZE, colour=text.GREY, style="italic")
        y += row.bands[label]
    return y + 8


def _draw_picture(axes: Axes, panel: Panel, left: float, top: float, width: float, height: float) -> None:
    """The whole picture, never cropped, in the middle of a black box; enlarged here once, so that every viewer shows the same."""
    axes.fill(
        [left, left + width, left + width, left], [top, top, top + height, top + height], color="black", linewidth=0
    )
    wide = min(width, height * panel.ratio)
    high = wide / panel.ratio
    x, y = left + (width - wide) / 2, top + (height - high) / 2
    pixels = (max(1, round(wide / 72 * DPI)), max(1, round(high / 72 * DPI)))
    image = np.asarray(Image.fromarray(np.ascontiguousarray(panel.picture)).resize(pixels, Image.Resampling.LANCZOS))
    axes.imshow(image, extent=(x, x + wide, y + high, y), interpolation="none", aspect="auto", zorder=2)


def _write(
    axes: Axes, words: str, x: float, y: float, *, size: float = SIZE, weight: str = "normal", colour: str = text.INK
) -> None:
    axes.text(x, y, words, fontproperties=text.font(size, weight=weight), color=colour, va="baseline", parse_math=False)


def _rule(axes: Axes, y: float, width: float) -> None:
    axes.plot([MARGIN, WIDTH - MARGIN], [y, y], color="#8C8C8C" if width < 0.5 else text.INK, linewidth=width)


def save(figure: Figure, stem: Path) -> list[Path]:
    """``STEM.png`` at 300 dots an inch and ``STEM.pdf`` with its text as text."""
    files = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "pdf")]
    with matplotlib.rc_context({"pdf.fonttype": 42, "text.hinting": "none"}):
        figure.savefig(files[0], dpi=DPI)
        figure.savefig(files[1], metadata={"CreationDate": None})
    return files
