"""The results of a reader study as charts: who is preferred, how strongly, how captions are rated, which errors they make.

Comes in: the document of a study's results. Goes out: SVG texts by name, in the colours of Okabe and Ito, which readers with any
colour vision can tell apart; systems also differ by the form of their mark.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_LOOKS = (("#0072B2", "o"), ("#E69F00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#56B4E9", "v"))
_STEPS = ("#D55E00", "#E69F00", "#BBBBBB", "#56B4E9", "#0072B2")
_INK = "#1A1A1A"
_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "reader study",
    "text.parse_math": False,
}


def charts(document: Mapping[str, Any]) -> dict[str, str]:
    """An SVG for each of preference, strength, scales and errors, and each stage that has answers: ``stage1-preference``."""
    made = {}
    with matplotlib.rc_context(_STYLE):
        for number, stage in document["stages"].items():
            systems = document["systems"]
            made[f"stage{number}-preference"] = _preference(stage["preference"], systems)
            if stage["bradley_terry"]:
                made[f"stage{number}-strength"] = _strength(stage["bradley_terry"]["systems"])
            made[f"stage{number}-scales"] = _scales(stage["scales"], systems)
            made[f"stage{number}-errors"] = _errors(stage["errors"], systems)
    return made


def _preference(found: Mapping[str, Any], systems: Sequence[str]) -> str:
    figure, axes = _figure(0.7 + 0.42 * len(systems))
    for row, told in enumerate(found["systems"]):
        if told["rate"] is not None:
            _point(axes, row, {"value": told["rate"], "low": told["low"], "high": told["high"]})
    axes.set_xlim(0, 1)
    _rows(axes, systems)
    axes.axvline(1 / len(systems), color="#999999", linewidth=0.8, linestyle=":")
    axes.set_xlabel("share of judged cases in which the caption was preferred (Wilson 95 %); dotted: chance")
    return _svg(figure)


def _strength(found: Sequence[Mapping[str, Any]]) -> str:
    figure, axes = _figure(0.7 + 0.42 * len(found))
    for row, told in enumerate(found):
        _point(axes, row, told)
    _rows(axes, [told["system"] for told in found])
    axes.axvline(0, color="#999999", linewidth=0.8, linestyle=":")
    axes.set_xlabel("Bradley–Terry log-strength (95 %, resampled cases)")
    return _svg(figure)


def _scales(found: Mapping[str, Sequence[Mapping[str, Any]]], systems: Sequence[str]) -> str:
    """Shares of the answers 1 to 5, a bar for each scale and system."""
    figure, axes = _figure(0.9 + 0.26 * len(found) * (len(systems) + 0.6))
    labels: list[str] = []
    places: list[float] = []
    place = 0.0
    for key, scale in found.items():
        for told in scale:
            left, total = 0.0, max(1, told["n"])
            for step, colour in enumerate(_STEPS, start=1):
                share = told["answers"][str(step)] / total
                axes.barh(place, share, left=left, color=colour, height=0.8, label=str(step) if not places else None)
                left += share
            mean = "" if told["value"] is None else f"{told['value']:.2f}"
            axes.text(1.01, place, mean, va="center", color=_INK)
            labels.append(f"{key}, {told['system']}")
            places.append(place)
            place += 1
        place += 0.6
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of answers; right: mean")
    figure.legend(loc="outside upper right", ncols=5, frameon=False, title="1 (bad) to 5 (good)")
    return _svg(figure)


def _errors(found: Sequence[Mapping[str, Any]], systems: Sequence[str]) -> str:
    """Mean significant and other errors a caption by category: filled and open marks."""
    categories = list(dict.fromkeys(told["category"] for told in found))
    figure, axes = _figure(0.9 + 0.44 * len(categories))
    for told in found:
        if told["value"] is None:
            continue
        number, filled = systems.index(told["system"]), told["weight"] == "significant"
        row = categories.index(told["category"]) + (number - (len(systems) - 1) / 2) * 0.24
        label = told["system"] if filled and told["category"] == categories[0] else None
        _point(axes, row, told, look=number, filled=filled, label=label)
    axes.set_xlim(left=0)
    _rows(axes, [name.replace("_", " ") for name in categories])
    axes.set_xlabel("errors a caption, mean (95 %, resampled cases); filled: clinically significant, open: not")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper right", ncols=len(systems), frameon=False)
    return _svg(figure)


def _point(
    axes: Axes,
    row: float,
    told: Mapping[str, Any],
    *,
    look: int | None = None,
    filled: bool = True,
    label: str | None = None,
) -> None:
    colour, mark = _LOOKS[(int(row) if look is None else look) % len(_LOOKS)]
    if told["low"] is not None:
        axes.plot([told["low"], told["high"]], [row, row], color=colour, linewidth=1.4, solid_capstyle="butt")
    face = colour if filled else "white"
    axes.plot([told["value"]], [row], mark, color=colour, markerfacecolor=face, markersize=5.5, label=label)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)


def _figure(high: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, high), layout="constrained", facecolor="white")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
