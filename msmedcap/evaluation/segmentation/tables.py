"""The page of SEG-SAM's validation: goals, the ablation, every class, and what else was in the picture.

Comes in: :class:`~msmedcap.evaluation.segmentation.judge.Results`. Goes out: Markdown. Values are means over objects, those of
several seeds averaged first; intervals are 95 %, resampled by group (:mod:`msmedcap.evaluation.statistics`).
"""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from msmedcap.evaluation.overlap import average_precision
from msmedcap.evaluation.segmentation.judge import PROMPTS, Judged, Presence, Results
from msmedcap.evaluation.statistics import Interval, bootstrap

KINDS: Mapping[str, tuple[str, ...]] = {
    "lungs": ("Left Lung", "Right Lung"),
    "cardiomediastinum": ("Cardiomediastinum",),
    "airways": ("Airways",),
    "opacities": ("Ground Glass Opacities", "Consolidation"),
    "lines and tubes": (
        "Endotracheal Tube", "Central Venous Line", "Monitoring Probes", "Nasogastric Tube", "Tubings",
    ),
}  # fmt: skip
NAMED = ("lungs", "cardiomediastinum", "airways", "opacities")
# What of the chest set is to be reached: kind, prompt, Dice.
GOALS = (
    ("lungs", "box", 0.92), ("cardiomediastinum", "box", 0.88), ("opacities", "box", 0.60), ("lungs", "centre click", 0.85),
)  # fmt: skip
NAMES_RIGHT, APART = 0.90, 0.03
PRESENCE_DRAWS = 200

Value = Callable[[Judged], float | None]


def write_page(results: Results, page: Path, *, main: str, about: Sequence[str], raw: Path | None = None) -> None:
    """Write the tables of ``results`` to ``page``: ``main`` is the system whose goals and classes are told.

    ``about`` are the sentences above them (what was judged, by which command); ``raw`` takes every answer as a line of JSON.
    """
    systems = list(dict.fromkeys(a.system for a in results.answers))
    parts = ["# SEG-SAM on pictures it was not trained on\n", *(f"{sentence}\n" for sentence in about)]
    parts += ["\n## Goals\n", *_goals(results, main), "\n## Parts switched off\n", *_ablation(results, systems)]
    parts += ["\n## Names and presence\n", *_naming(results, systems), "\n## Every class\n", *_classes(results, main)]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(line.rstrip("\n") if line.startswith("|") else line for line in parts) + "\n", encoding="utf-8")
    if raw is not None:
        lines = (json.dumps(dataclasses.asdict(answer)) for answer in results.answers)
        raw.write_text("\n".join(lines) + "\n", encoding="utf-8")


def score(answers: Iterable[Judged], value: Value) -> Interval:
    """The mean of ``value`` over objects, seeds averaged first, with its interval over groups; NaN where there are none."""
    found: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    groups: dict[tuple[str, int, str], str] = {}
    for answer in answers:
        told = value(answer)
        if told is not None:
            key = (answer.picture, answer.number, answer.prompt)
            found[key].append(told)
            groups[key] = answer.group
    if not found:
        return Interval(float("nan"), float("nan"), float("nan"))
    return bootstrap(np.array([float(np.mean(v)) for v in found.values()]), [groups[k] for k in found])


def presence(results: Results, system: str) -> Interval:
    """The mean over classes of the average precision of presence, seeds averaged, with its interval over groups."""
    own = [p for p in results.presences if p.system == system]
    if not own:
        return Interval(float("nan"), float("nan"), float("nan"))
    groups = sorted({p.group for p in own})
    by_group = {g: [p for p in own if p.group == g] for g in groups}
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(PRESENCE_DRAWS):
        chosen = generator.integers(0, len(groups), len(groups))
        drawn.append(_mean_precision([p for i in chosen for p in by_group[groups[i]]]))
    finite = np.array(drawn)[np.isfinite(drawn)]
    low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else (float("nan"), float("nan"))
    return Interval(_mean_precision(own), float(low), float(high))


def _mean_precision(presences: Sequence[Presence]) -> float:
    seeds = []
    for seed in sorted({p.seed for p in presences}):
        own = [p for p in presences if p.seed == seed]
        scores, there, known = (np.stack([getattr(p, key) for p in own]) for key in ("scores", "present", "known"))
        each = [average_precision(scores[k, i], there[k, i]) for i in range(scores.shape[1]) for k in (known[:, i],)]
        seeds.append(float(np.nanmean(each)) if np.isfinite(each).any() else float("nan"))
    return float(np.nanmean(seeds)) if np.isfinite(seeds).any() else float("nan")


def _of(results: Results, system: str, kind: str | None = None, prompt: str | None = None) -> list[Judged]:
    return [
        a
        for a in results.answers
        if a.system == system and (kind is None or a.name in KINDS[kind]) and prompt in (None, a.prompt)
    ]


def _goals(results: Results, main: str) -> list[str]:
    rows = [["what", "goal", f"{main} (95 % interval)", "reached"]]
    for kind, prompt, least in GOALS:
        got = score(_of(results, main, kind, prompt), _dice)
        rows.append([f"Dice of {kind}, {prompt}", f"≥ {least:.2f}", told(got), _yes(got.value >= least)])
    for asked in (PROMPTS[0], None):
        right = score([a for kind in NAMED for a in _of(results, main, kind, asked)], _right)
        what = f"right names of {', '.join(NAMED)}, {asked or 'all prompts'}"
        rows.append([what, f"≥ {NAMES_RIGHT:.0%}", told(right), _yes(right.value >= NAMES_RIGHT)])
    apart = score(_of(results, main), _apart)
    rows.append(["semantic less binary Dice, all prompts", f"≥ -{APART}", told(apart), _yes(apart.value >= -APART)])
    return _table(rows)


def _ablation(results: Results, systems: Sequence[str]) -> list[str]:
    lines = []
    for prompt in PROMPTS:
        rows = [[f"Dice, {prompt}", *KINDS, "all"]]
        for system in systems:
            seeds = len({a.seed for a in results.answers if a.system == system})
            cells = [told(score(_of(results, system, kind, prompt), _dice)) for kind in (*KINDS, None)]
            rows.append([f"{system} ({seeds} seed{'s' * (seeds != 1)})", *cells])
        lines += [*_table(rows), ""]
    return lines


def _naming(results: Results, systems: Sequence[str]) -> list[str]:
    kinds = [f"right names, {kind}" for kind in NAMED]
    rows = [["system", "prompt", *kinds, "right names, these", "semantic less binary Dice"]]
    there = [["system", "presence mAP"]]
    for system in systems:
        if not any(a.semantic is not None for a in _of(results, system)):
            continue
        for prompt in PROMPTS:
            each = [_of(results, system, kind, prompt) for kind in NAMED]
            right = [told(score(own, _right)) for own in (*each, [a for own in each for a in own])]
            rows.append([system, prompt, *right, told(score(_of(results, system, prompt=prompt), _apart))])
        there.append([system, told(presence(results, system))])
    return [*_table(rows), "", *_table(there)]


def _classes(results: Results, main: str) -> list[str]:
    rows = [["class", "objects", "prompt", "Dice", "IoU", "HD95, % of the diagonal", "NSD at 1 %", "semantic Dice", "named right"]]
    own = _of(results, main)
    for name in dict.fromkeys(c for c in results.classes if any(a.name == c for a in own)):
        for prompt in PROMPTS:
            these = [a for a in own if a.name == name and a.prompt == prompt]
            count = len({(a.picture, a.number) for a in these})
            values: tuple[Value, ...] = (
                _dice, lambda a: a.binary.iou, lambda a: 100 * a.binary.hd95, lambda a: a.binary.nsd,
                lambda a: None if a.semantic is None else a.semantic.dice, _right,
            )  # fmt: skip
            rows.append([name, str(count), prompt, *(told(score(these, value)) for value in values)])
    return _table(rows)


def _dice(answer: Judged) -> float:
    return answer.binary.dice


def _apart(answer: Judged) -> float | None:
    return None if answer.semantic is None else answer.semantic.dice - answer.binary.dice


def _right(answer: Judged) -> float | None:
    return None if answer.right is None else float(answer.right)


def told(value: Interval) -> str:
    """A value and its interval as a cell of a table; a dash where there is none."""
    if np.isnan(value.value):
        return "–"
    digits = 2 if abs(value.value) < 10 else 1
    return f"{value.value:.{digits + 1}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = rows
    return [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *(f"| {' | '.join(row)} |" for row in body)]
