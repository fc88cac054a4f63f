"""Table 1: the paper's seven models beside ours, at whatever scale was trained.

Comes in: ``scores.json`` documents of ``evaluate`` (:mod:`~msmedcap.evaluation.scores`) whose systems are named after the table's
rows (:func:`msmedcap.evaluation.paper.place`). Goes out: :class:`Table`, our scores times the paper's powers of ten, seeds
averaged, and the same as Markdown, CSV, LaTeX and a chart. What was not trained says so; where our ordering is the paper's is
computed (:mod:`~msmedcap.evaluation.table1.order`).

    python -m msmedcap table1 --scores runs/rows/scores.json --out docs
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msmedcap.config import UserError
from msmedcap.evaluation import paper
from msmedcap.evaluation.paper import Column

FACTS = Column("Facts F1", "Facts F1", 2)
COLUMNS: tuple[Column, ...] = (*paper.COLUMNS, FACTS)
GENERAL = "general pictures, at demo scale scenes made by code, not COCO as in the paper"
SHOWN_VARIANTS = {"channels": "SAM's channels as tokens"}


@dataclass(frozen=True)
class Cell:
    """A score as the table prints it: the mean over seeds, its 95 % interval, the standard deviation over seeds.

    ``low`` and ``high`` are the means of the seeds' intervals, as a rule no narrower than the mean's own; NaN where there is none.
    ``spread`` is NaN for a single seed.
    """

    value: float
    low: float
    high: float
    spread: float


@dataclass(frozen=True)
class Ours:
    """What was trained for one row: the systems of its seeds, and a cell for each column that was measured."""

    systems: tuple[str, ...]
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Line:
    """A row of the table: its name, the paper's row where there is one, and ours where it was trained."""

    name: str
    paper: paper.Row | None
    ours: Ours | None


@dataclass(frozen=True)
class Difference:
    """Row ``a`` minus row ``b`` in one column, scaled as its cells; ``signs``: those of every pair of their seeds."""

    value: float
    low: float
    high: float
    signs: frozenset[int]


@dataclass(frozen=True)
class Table:
    """The table: its lines, the differences of ours by (column, name, name), and what they were measured on.

    ``made_with`` by captions file; ``misleads``: what to beware of by column.
    """

    lines: tuple[Line, ...]
    differences: Mapping[tuple[str, str, str], Difference]
    data: str
    split: str
    n: int
    groups: int
    made_with: Mapping[str, Mapping[str, Any]]
    misleads: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    general: str = GENERAL

    @property
    def columns(self) -> tuple[Column, ...]:
        """The paper's columns and the facts, each shown even where we have not measured it."""
        return COLUMNS

    @property
    def missing(self) -> tuple[str, ...]:
        """The columns that none of ours was measured in."""
        have = {name for line in self.lines if line.ours for name in line.ours.cells}
        return tuple(column.name for column in self.columns if column.name not in have)


def read(files: Sequence[Path]) -> list[dict[str, Any]]:
    """The documents; raises :class:`UserError` for a file that is missing or none of ``evaluate``'s."""
    documents = []
    for file in files:
        try:
            document = json.loads(Path(file).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"There is no {file}; evaluate --data NAME=PATH --out DIR writes DIR/scores.json."
            ) from None
        except ValueError:
            document = None
        if not isinstance(document, dict) or not isinstance(document.get("scores"), list):
            raise UserError(f"{file} is not a scores.json of evaluate; run evaluate again.")
        documents.append(document)
    return documents


def rows_from(
    documents: Iterable[Mapping[str, Any]], *, data: str | None = None, split: str | None = None, general: str = GENERAL
) -> Table:
    """The table of the systems in ``documents``, on one data set and split: those named, else the one of most cases.

    ``general`` says what G was. Raises :class:`UserError` where there are no such scores.
    """
    documents = list(documents)
    records = [record for document in documents for record in document["scores"] if record.get("metrics")]
    where = _choose(records, data, split)
    records = [record for record in records if (record["data"], record["split"]) == where]
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for record in {record["system"]: record for record in records}.values():
        by_name.setdefault(paper.place(record["system"]).name, []).append(record)
    lines = [Line(row.name, row, _ours(by_name.pop(row.stem, []))) for row in paper.ROWS]
    lines += [Line(_shown(name), None, _ours(found)) for name, found in sorted(by_name.items())]
    pairs = [d for document in documents for d in document.get("differences", ()) if (d["data"], d["split"]) == where]
    made_with = {name: made for document in documents for name, made in document.get("made_with", {}).items()}
    about = {name: metric for document in documents for name, metric in document.get("metrics", {}).items()}
    misleads = {name: metric["misleads"] for name, metric in about.items() if metric.get("misleads")}
    n, groups = records[0]["n"], records[0]["groups"]
    warnings = _warnings(documents, where)
    return Table(
        tuple(lines),
        _differences(lines, pairs),
        *where,
        n,
        groups,
        made_with,
        misleads,
        warnings=warnings,
        general=general,
    )


def _warnings(documents: Sequence[Mapping[str, Any]], where: tuple[str, str]) -> tuple[str, ...]:
    """The documents' warnings, without those on another data set or split."""
    others = {(record["data"], record["split"]) for document in documents for record in document["scores"]} - {where}
    told = dict.fromkeys(warning for document in documents for warning in document.get("warnings", ()))
    return tuple(w for w in told if not any(w.startswith(f"{data} {split}".strip() + ":") for data, split in others))


def _choose(records: Sequence[Mapping[str, Any]], data: str | None, split: str | None) -> tuple[str, str]:
    fitting = [r for r in records if (data is None or r["data"] == data) and (split is None or r["split"] == split)]
    if not fitting:
        known = sorted({f"{r['data']} {r['split']}" for r in records})
        asked = " ".join(word for word in (data, split) if word) or "a data set"
        raise UserError(f"There are no scores on {asked}; there are those on {', '.join(known) or 'none'}.")
    most = max(fitting, key=lambda r: r["n"])
    return most["data"], most["split"]


def _ours(records: Sequence[Mapping[str, Any]]) -> Ours | None:
    if not records:
        return None
    records = sorted(records, key=lambda record: paper.place(record["system"]).seed)
    cells = {}
    for column in COLUMNS:
        found = [record["metrics"][column.name] for record in records if _number(record["metrics"].get(column.name))]
        if len(found) == len(records):
            cells[column.name] = _cell(found, 10**column.power)
    return Ours(tuple(record["system"] for record in records), cells)


def _number(score: Mapping[str, Any] | None) -> bool:
    return score is not None and score.get("value") is not None and math.isfinite(score["value"])


def _cell(found: Sequence[Mapping[str, Any]], scale: int) -> Cell:
    values = [score["value"] * scale for score in found]
    low, high = (statistics.fmean(_scaled(score.get(end), scale) for score in found) for end in ("low", "high"))
    return Cell(statistics.fmean(values), low, high, statistics.stdev(values) if len(values) > 1 else math.nan)


def _scaled(value: float | None, scale: int) -> float:
    return math.nan if value is None else value * scale


def _differences(lines: Sequence[Line], pairs: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, str], Difference]:
    """Every two lines' difference in every column: the mean over the pairs of their seeds."""
    power = {column.name: column.power for column in COLUMNS}
    order = {line.name: index for index, line in enumerate(lines)}
    owner = {system: line.name for line in lines if line.ours for system in line.ours.systems}
    found: dict[tuple[str, str, str], list[tuple[float, float, float]]] = {}
    for pair in pairs:
        a, b = owner.get(pair["a"]), owner.get(pair["b"])
        if a is None or b is None or a == b or pair["metric"] not in power or pair["value"] is None:
            continue
        value, low, high = (_scaled(pair[end], 10 ** power[pair["metric"]]) for end in ("value", "low", "high"))
        if order[a] > order[b]:
            a, b, value, low, high = b, a, -value, -high, -low
        found.setdefault((pair["metric"], a, b), []).append((value, low, high))
    means = {key: [statistics.fmean(ends) for ends in zip(*each, strict=True)] for key, each in found.items()}
    signs = {key: frozenset(_sign(value) for value, _, _ in each) for key, each in found.items()}
    return {key: Difference(value, low, high, signs[key]) for key, (value, low, high) in means.items()}


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _shown(name: str) -> str:
    """A system that is no row of the paper: a variant of one by the row's name, else by its own."""
    place = paper.place(name)
    if place.row is None:
        return name
    return f"{place.row.name}, {SHOWN_VARIANTS.get(place.variant, place.variant)}"


def write(out: Path, table: Table, *, stem: str = "table1", command: str = "") -> list[Path]:
    """Write ``OUT/STEM.md``, ``.csv``, ``.tex``, ``.png`` and ``.pdf`` and return them; ``command`` is printed under the table."""
    from msmedcap.evaluation.table1 import chart, formats

    out.mkdir(parents=True, exist_ok=True)
    files = []
    for suffix, text in (
        ("md", formats.markdown(table, command=command)),
        ("csv", formats.csv_text(table)),
        ("tex", formats.latex(table)),
    ):
        files.append(out / f"{stem}.{suffix}")
        files[-1].write_text(text, encoding="utf-8")
    return files + chart.write(chart.chart(table), out / stem)
