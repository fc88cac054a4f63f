"""The scores as a reader wants them: Markdown tables with intervals, who differs from whom, and what each metric hides.

Comes in: a document of :mod:`~msmedcap.evaluation.scores`. Goes out: Markdown, and ``scores.json`` beside it with every number.
Where a metric is known to mislead, its warning stands under the table it is in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from msmedcap.evaluation.facts import LEXICON_VERSION, Rate

COLUMNS = (
    "data",
    "split",
    "system",
    "n",
    "modality",
    "plane (balanced)",
    "part",
    "label",
    "label (balanced)",
    "distinct",
    "faulty",
)
SECTIONS = {
    "text": "Words shared with the references",
    "neural": "Likeness to the references, as language models see it",
    "clinical": "Clinical facts, against those the references state",
    "facts": "Facts of the data set stated right, as above, with bootstrap intervals",
}
SURE = 0.05
MOST_PAIRS = 6
"""Of more pairs of systems than these the tables show the differences that are sure; ``scores.json`` has all."""


def write(document: Mapping[str, Any], out: Path, heading: str, *, command: str = "") -> str:
    """Write ``scores.json`` and ``scores.md`` into ``out``; returns the Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    text = markdown(document, heading, command=command)
    (out / "scores.json").write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    (out / "scores.md").write_text(text, encoding="utf-8")
    return text


def markdown(document: Mapping[str, Any], heading: str, *, command: str = "") -> str:
    """The whole report under ``heading``; ``command`` is what it is made with."""
    records = document["scores"]
    parts = [f"# {heading}\n"]
    if command:
        parts.append(f"Made with `{command}`.\n")
    if document["warnings"]:
        parts.append("\n".join(f"- {warning}" for warning in dict.fromkeys(document["warnings"])) + "\n")
    known = [r for r in records if any(r[fact]["n"] for fact in ("modality", "plane", "part", "label"))]
    if known:
        parts.append(fact_table(known, "## Facts stated right"))
    for (data, split), each in groupby(records, key=lambda r: (r["data"], r["split"])):
        of_one = list(each)
        where = f"{data} {split}".strip()
        for section, title in SECTIONS.items():
            columns = [name for name, metric in document["metrics"].items() if metric["section"] == section]
            parts += _section(of_one, {name: document["metrics"][name] for name in columns}, f"## {where}: {title}")
        pairs = [d for d in document["differences"] if (d["data"], d["split"]) == (data, split)]
        parts += _differences(pairs, document["metrics"], f"## {where}: differences between systems")
    parts.append(_made_with(document["made_with"]))
    return "\n".join(parts)


def fact_table(records: Sequence[Mapping[str, Any]], heading: str) -> str:
    """A Markdown table of records ``{data, split, system, **score_rows}``, with what the reader must know under it."""
    rows = [
        [
            r["data"],
            r["split"],
            r["system"],
            str(r["n"]),
            _rate(r["modality"]),
            _share(r["plane"]["balanced"]),
            _rate(r["part"]),
            _rate(r["label"]),
            _share(r["label"]["balanced"]),
            _share(r["distinct"]),
            _rate(r["faulty"]),
        ]
        for r in records
    ]
    lines = [heading, "", *_table(COLUMNS, rows)]
    unread = {(r["data"], r["split"]): r["unreadable"] for r in records if r["unreadable"]}
    lines += ["", *(f"Not read, and counted as wrong: {n} of {data} {split}." for (data, split), n in unread.items())]
    lines += [
        "A fact is right where the caption's first word for it is the data set's; a caption that does not say is",
        "wrong. In brackets the 95 % Wilson interval; it takes pictures for independent, so several of one patient",
        "make it too narrow. Balanced: the mean of the recalls. Distinct: the share of different captions. Faulty:",
        "empty, or with a sentence said twice.",
        f"Words counted: `msmedcap.evaluation.facts.LEXICON`, version {LEXICON_VERSION}.",
    ]
    return "\n".join(lines) + "\n"


def _section(records: Sequence[Mapping[str, Any]], metrics: Mapping[str, Mapping[str, Any]], heading: str) -> list[str]:
    """A table with a row for each metric and a column for each system, and what the metrics hide."""
    counted = {name for r in records for name, score in r["metrics"].items() if score["value"] is not None}
    metrics = {name: metric for name, metric in metrics.items() if name in counted}
    if not metrics:
        return []
    rows = []
    for name, metric in metrics.items():
        scores = [r["metrics"].get(name) for r in records]
        best = _best(scores, higher=metric["higher_is_better"])
        cells = [_score(score, bold=i in best) for i, score in enumerate(scores)]
        n = next((str(score["n"]) for score in scores if score), "")
        rows.append([f"{name} {'↑' if metric['higher_is_better'] else '↓'}", n, *cells])
    lines = [heading, "", *_table(["metric", "n", *(r["system"] for r in records)], rows), ""]
    n, groups = records[0]["n"], records[0]["groups"]
    drawn = f"patient or group ({groups} of them)" if groups < n else "case"
    bold = (
        " Bold: the best value, which says nothing about chance; the differences below do." if len(records) > 1 else ""
    )
    lines.append(f"In brackets the 95 % bootstrap interval, drawn by {drawn}; ↑ higher is better.{bold}")
    misleads = dict.fromkeys(metric["misleads"] for metric in metrics.values() if metric["misleads"])
    lines += ["", *(f"- **Mind:** {sentence}" for sentence in misleads)] if misleads else []
    sources: dict[str, list[str]] = {}
    for name, metric in metrics.items():
        sources.setdefault(metric["source"], []).append(name)
    lines += ["", *(f"- {', '.join(names)}: {source}" for source, names in sources.items() if source)]
    return ["\n".join(lines) + "\n"]


def _differences(
    pairs: Sequence[Mapping[str, Any]], metrics: Mapping[str, Mapping[str, Any]], heading: str
) -> list[str]:
    if not pairs:
        return []
    many = len({(d["a"], d["b"]) for d in pairs}) > MOST_PAIRS
    pairs = [d for d in pairs if d["value"] is not None]
    shown = [d for d in pairs if not many or _sure(d)]
    rows = [
        [
            f"{d['metric']} {'↑' if metrics[d['metric']]['higher_is_better'] else '↓'}",
            f"{d['a']} − {d['b']}",
            _interval(d),
            _p(d["p"]),
            f"**{_p(d['p_holm'])}**" if _sure(d) else _p(d["p_holm"]),
        ]
        for d in shown
    ]
    lines = [heading, "", *_table(["metric", "systems", "difference", "p", "p (Holm)"], rows), ""]
    lines.append(
        "Interval: paired bootstrap by patient. p: two-sided approximate randomisation by patient; p (Holm) is corrected for "
        f"the pairs of systems within a metric, not for the number of metrics; bold below {SURE}."
    )
    if many:
        lines.append(f"Shown are the {len(shown)} of {len(pairs)} differences that are sure; `scores.json` has all.")
    return ["\n".join(lines) + "\n"]


def _made_with(made_with: Mapping[str, Any]) -> str:
    lines = ["## What was scored", ""]
    for name, made in made_with.items():
        told = [f"{key} {_plain(value)}" for key, value in made.items() if value not in ("", None, False, [], {})]
        lines.append(f"- `{name}`: {', '.join(told) or 'a table of captions; it does not say what made them'}.")
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> str:
    return (
        " ".join(map(str, value))
        if isinstance(value, (list, tuple))
        else f"`{value}`"
        if isinstance(value, str)
        else str(value)
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(cells)} |" for cells in rows)]


def _best(scores: Sequence[Mapping[str, Any] | None], *, higher: bool) -> set[int]:
    """Which of several scores is the best; none where all are alike."""
    values = {i: score["value"] for i, score in enumerate(scores) if score and score["value"] is not None}
    if len(set(values.values())) < 2:
        return set()
    best = max(values.values()) if higher else min(values.values())
    return {i for i, value in values.items() if value == best}


def _sure(difference: Mapping[str, Any]) -> bool:
    return difference["p_holm"] is not None and difference["p_holm"] < SURE


def _score(score: Mapping[str, Any] | None, *, bold: bool) -> str:
    if score is None or score["value"] is None:
        return "–"
    said = _interval(score)
    value, _, rest = said.partition(" ")
    return f"**{value}** {rest}" if bold else said


def _interval(score: Mapping[str, Any]) -> str:
    if score["value"] is None:
        return "–"
    bounds = "" if score["low"] is None else f" [{score['low']:.3f}, {score['high']:.3f}]"
    return f"{score['value']:.3f}{bounds}"


def _p(p: float | None) -> str:
    return "–" if p is None else "< .001" if p < 0.001 else f"{p:.3f}"


def _share(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.2f}".lstrip("0") if value < 1 else "1.00"


def _rate(rate: Mapping[str, Any]) -> str:
    value = Rate(rate["value"], rate["low"], rate["high"], rate["n"])
    return "–" if value.n == 0 else f"{_share(value.value)} [{_share(value.low)}, {_share(value.high)}]"
