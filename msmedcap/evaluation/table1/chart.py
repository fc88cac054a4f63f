"""Table 1 as a chart: for each metric the paper's numbers on the left and ours on the right, a line per model.

Comes in: a :class:`~msmedcap.evaluation.table1.Table`. Goes out: a matplotlib figure as wide as two columns of a paper, as PNG and
PDF. The two halves of a metric have axes of their own: what can be compared is the order, not the length. The kinds of model are
told apart by the form of the mark as well as by colour; ours are filled and carry their interval and, small, each seed's spread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from msmedcap.evaluation.figure4.text import families, measure
from msmedcap.evaluation.paper import Column, place
from msmedcap.evaluation.table1 import Line, Table

DPI, WIDTH = 300, 7.16
LOOKS = {"BLIP2": ("#E69F00", "s"), "SAM-BLIP2": ("#009E73", "^"), "MSMedCap": ("#0072B2", "o")}
OTHER = ("#777777", "D")
_ACROSS, SIZE = 3, 8.0
_INK, _GREY = "#1A1A1A", "#5A5A5A"
SIDES = ("paper", "ours")
STYLE: dict[Any, Any] = {
    "font.size": SIZE,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "pdf.fonttype": 42,
    "text.hinting": "none",
    "text.parse_math": False,
}


def chart(table: Table) -> Figure:
    """The chart of :func:`columns_of` the table."""
    columns = columns_of(table)
    lines = list(table.lines)
    down = math.ceil(len(columns) / _ACROSS)
    high = 0.45 + down * (0.78 + 0.165 * _places(lines)[-1])
    margin = max(measure(part, SIZE) for line in lines for part in _name(line).split("\n")) / 72 + 0.1
    with matplotlib.rc_context(STYLE | {"font.family": list(families())}):
        figure = Figure(figsize=(WIDTH, high), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        outer = figure.add_gridspec(
            down,
            _ACROSS,
            left=margin / WIDTH,
            right=0.985,
            top=1 - 0.4 / high,
            bottom=0.55 / high,
            hspace=0.5,
            wspace=0.12,
        )
        for number, column in enumerate(columns):
            inner = outer[number // _ACROSS, number % _ACROSS].subgridspec(1, 2, wspace=0.14)
            axes = [figure.add_subplot(inner[0, side]) for side in range(2)]
            for side, half in zip(SIDES, axes, strict=True):
                _half(half, lines, column, side, names=number % _ACROSS == 0 and side == "paper")
            _title(figure, axes, column)
        _legend(figure, table)
    return figure


def _places(lines: Sequence[Line]) -> list[float]:
    """Where each line stands: one below the other, with room for a name of two lines."""
    places: list[float] = []
    for line in lines:
        places.append((places[-1] + 1 if places else 0.0) + 0.45 * ("\n" in _name(line)))
    return places


def _name(line: Line) -> str:
    """The line's name; what follows a model's brackets stands on a line of its own."""
    return line.name.replace("), ", "),\n")


def columns_of(table: Table) -> list[Column]:
    """The columns that the paper or we have a number in."""
    return [
        column
        for column in table.columns
        if any(_numbers(line, column, side) for line in table.lines for side in SIDES)
    ]


def write(figure: Figure, stem: Path) -> list[Path]:
    """``STEM.png`` at 300 dots an inch and ``STEM.pdf`` with its text as text."""
    files = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "pdf")]
    with matplotlib.rc_context(STYLE):
        figure.savefig(files[0], dpi=DPI)
        figure.savefig(files[1], metadata={"CreationDate": None})
    return files


def _half(axes: Axes, lines: Sequence[Line], column: Column, side: str, *, names: bool) -> None:
    places = _places(lines)
    axes.set_ylim(places[-1] + 0.7, -0.6)
    axes.set_yticks(places, [_name(line) for line in lines] if names else [""] * len(lines))
    axes.tick_params(axis="y", length=0)
    axes.spines[["left", "right", "top"]].set_visible(False)
    for y in places:
        axes.axhline(y, color="#E4E4E4", linewidth=0.6, zorder=0)
    if side == "ours":
        axes.set_facecolor("#F3F6FA")
    drawn = any(_numbers(line, column, side) for line in lines)
    for y, line in zip(places, lines, strict=True):
        if numbers := _numbers(line, column, side):
            _point(axes, y, line, numbers, filled=side == "ours")
        elif drawn and side == "ours" and line.ours is None:
            axes.text(
                0.5, y, "not trained", transform=axes.get_yaxis_transform(), ha="center", va="center", color=_GREY
            )
    if drawn:
        axes.margins(x=0.16)
        axes.set_xticks(_ticks(axes))
    else:
        axes.set_xticks([])
        axes.set_xlim(0, 1)
        said = "not in the paper" if side == "paper" else "not measured"
        axes.text(
            0.5, places[-1] / 2, said, rotation=90, ha="center", va="center", color=_GREY, backgroundcolor="white"
        )


def _ticks(axes: Axes) -> list[float]:
    """Two or three round numbers of the axis, as many as have room beside each other."""
    low, high = axes.get_xlim()
    ticks = [float(tick) for tick in MaxNLocator(3, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= high]
    room = axes.get_position().width * WIDTH * 72
    while len(ticks) > 1 and sum(measure(f"{tick:g}0", SIZE) for tick in ticks) > 0.8 * room:
        ticks = [ticks[0], ticks[-1]] if len(ticks) > 2 else ticks[:1]
    return ticks


def _numbers(line: Line, column: Column, side: str) -> tuple[float, float, float, float] | None:
    """(value, low, high, spread) as drawn; None where there is nothing to draw."""
    if side == "paper":
        value = line.paper.printed.get(column.name) if line.paper else None
        return None if value is None else (value, math.nan, math.nan, math.nan)
    cell = line.ours.cells.get(column.name) if line.ours else None
    return None if cell is None else (cell.value, cell.low, cell.high, cell.spread)


def _point(axes: Axes, y: float, line: Line, numbers: tuple[float, float, float, float], *, filled: bool) -> None:
    value, low, high, spread = numbers
    colour, form = _look(line)
    if not math.isnan(low + high):
        axes.plot([low, high], [y, y], color=colour, linewidth=1.1, solid_capstyle="butt", zorder=2)
    if not math.isnan(spread):
        axes.plot(
            [value - spread, value + spread], [y, y], color=colour, linewidth=2.8, solid_capstyle="butt", zorder=2
        )
    face = colour if filled else "white"
    axes.plot(
        [value], [y], form, markersize=4.6, markerfacecolor=face, markeredgecolor=colour, markeredgewidth=1.0, zorder=3
    )


def _look(line: Line) -> tuple[str, str]:
    if line.paper is not None:
        return LOOKS[line.paper.system]
    found = place(line.ours.systems[0]).row if line.ours else None
    name = found.system if found else line.ours.systems[0] if line.ours else ""
    return LOOKS.get(name, OTHER)


def _title(figure: Figure, axes: Sequence[Axes], column: Column) -> None:
    power = str(column.power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    left, right = (half.get_position() for half in axes)
    middle, top = (left.x0 + right.x1) / 2, left.y1
    inch = 1 / figure.get_figheight()
    figure.text(
        middle, top + 0.17 * inch, f"{column.printed} ×10{power}", ha="center", va="bottom", weight="bold", color=_INK
    )
    for half, side in ((left, "paper"), (right, "ours")):
        figure.text((half.x0 + half.x1) / 2, top + 0.03 * inch, side, ha="center", va="bottom", color=_GREY)


def _legend(figure: Figure, table: Table) -> None:
    marks = [
        Line2D([], [], linestyle="", marker=form, markersize=5, color=colour, label=name)
        for name, (colour, form) in LOOKS.items()
    ]
    marks.append(
        Line2D([], [], linestyle="", marker="o", markersize=5, markerfacecolor="white", color=_GREY, label="as printed")
    )
    marks.append(Line2D([], [], color=_GREY, linewidth=1.1, label="95 % interval"))
    if any(line.ours and len(line.ours.systems) > 1 for line in table.lines):
        marks.append(Line2D([], [], color=_GREY, linewidth=2.8, label="± SD over seeds"))
    figure.legend(
        handles=marks, loc="lower center", ncols=len(marks), frameon=False, handletextpad=0.4, columnspacing=1.4
    )
