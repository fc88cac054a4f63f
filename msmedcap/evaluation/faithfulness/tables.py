"""The page of the maps' measures, and the same numbers as JSON for whoever shows a map.

Comes in: :class:`~msmedcap.evaluation.faithfulness.judge.Judged` rows. Goes out: the default method, chosen on the one half of the
phantoms; Markdown; and per system and method the numbers of the other half. Intervals are 95 %, over cases (chest films: over
near-duplicate groups), and those of a difference are paired: both maps on the same case.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msmedcap.evaluation.faithfulness.judge import RANDOM_MAPS, TOLERANCE, WHOLE, Judged
from msmedcap.evaluation.faithfulness.judge import SEEN as SEEN_BELOW
from msmedcap.evaluation.faithfulness.sanity import REDRAWN, Redrawn
from msmedcap.evaluation.faithfulness.study import Plan
from msmedcap.evaluation.statistics import Difference, Interval, bootstrap, paired
from msmedcap.explain.faithfulness import BLUR, SHARES
from msmedcap.explain.words import TOGETHER

DUMB = ("random", "centre")
TRUTH = "truth"
SEEN, UNSEEN, PHANTOMS = "phantoms, finding seen", "phantoms, finding not seen", "phantoms"
SAID = "phantoms, finding seen and said by the system itself"
MEASURES = ("pointed", "energy", "deletion", "insertion")
BAR = ("pointed", "deletion")
# Which way each measure is better.
BETTER: Mapping[str, int] = {"pointed": 1, "energy": 1, "deletion": -1, "insertion": 1}
Means = dict[str, tuple[str, float]]


def groups_of(row: Judged) -> tuple[str, ...]:
    """The tables a row counts in: phantoms are parted by whether the system sees the finding; those it names count twice."""
    if row.set != PHANTOMS:
        return (row.set,)
    return (UNSEEN,) if not row.seen else (SEEN, SAID) if row.named else (SEEN,)


def whole(rows: Sequence[Judged]) -> list[Judged]:
    """The rows about all of a system at once: its branches' sum, or its only branch."""
    summed = {row.system for row in rows if row.branch == WHOLE}
    return [row for row in rows if row.branch == WHOLE or row.system not in summed]


def choose(rows: Sequence[Judged], system: str, *, among: Collection[str] = ()) -> str:
    """The method with the least mean rank in the pointing game and in deletion on the choosing half of what ``system`` sees.

    ``among`` are the methods to choose from (default: all there are). Only cases that all of them were judged on count. Raises
    ValueError where there is none.
    """
    own = [r for r in whole(rows) if r.half == "choice" and r.system == system and SEEN in groups_of(r)]
    methods = sorted(m for m in {r.method for r in own} - {*DUMB, TRUTH} if not among or m in among)
    common = set.intersection(*({r.case for r in own if r.method == method} for method in methods)) if methods else set()
    own = [r for r in own if r.case in common]
    if not own:
        raise ValueError(f"No case of the choosing half is one whose finding {system} sees.")
    ranks = np.zeros(len(methods))
    for measure in BAR:
        values = np.array([BETTER[measure] * _mean(_by_case(own, method, measure)) for method in methods])
        # Ties share the better rank: nobody is put behind an equal.
        ranks += [(values > value).sum() for value in values]
    return methods[int(np.argmin(ranks))]


def _by_case(rows: Sequence[Judged], method: str, measure: str) -> Means:
    """Per case the mean of ``measure`` over its maps of ``method`` (random has several), with the case's group."""
    found: dict[str, list[float]] = defaultdict(list)
    groups: dict[str, str] = {}
    for row in rows:
        if row.method == method:
            found[row.case].append(getattr(row, measure))
            groups[row.case] = row.group
    return {case: (groups[case], float(np.mean(values))) for case, values in found.items()}


def _mean(cases: Means) -> float:
    return float(np.nanmean([value for _, value in cases.values()])) if cases else float("nan")


def score(cases: Means) -> Interval:
    """The mean over cases with its interval over their groups."""
    return bootstrap(np.array([value for _, value in cases.values()]), [group for group, _ in cases.values()])


def margin(a: Means, b: Means, *, sign: int) -> Difference:
    """By how much ``a`` is better than ``b`` on the cases of both, with its interval; ``sign`` -1 where less is better."""
    both = [case for case in a if case in b]
    first, second = (np.array([sign * cases[case][1] for case in both]) for cases in (a, b))
    return paired(first, second, [a[case][0] for case in both])


def summary(rows: Sequence[Judged], redrawn: Sequence[Redrawn], *, default: str, best: str = "") -> dict[str, Any]:
    """The reported half's numbers as JSON has them: ``groups`` → system → method → measures and margins over both dumb maps.

    ``default`` is the method chosen among those a reader has, ``best`` that among all.
    """
    own = [row for row in whole(rows) if row.half == "report"]
    groups: dict[str, Any] = {}
    present = {group for row in own for group in groups_of(row)}
    for group in [g for g in (SEEN, SAID, UNSEEN) if g in present] + sorted(present - {SEEN, SAID, UNSEEN}):
        inside = [row for row in own if group in groups_of(row)]
        groups[group] = {
            system: _system([row for row in inside if row.system == system])
            for system in dict.fromkeys(row.system for row in inside)
        }
    kept: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for system, method, part in dict.fromkeys((r.system, r.method, r.part) for r in redrawn):
        alike = [r.likeness for r in redrawn if (r.system, r.method, r.part) == (system, method, part)]
        kept[system][method][part] = _short(float(np.mean(alike)))
    return {"default": default, "best": best or default, "groups": groups, "redrawn": kept}


def _system(rows: Sequence[Judged]) -> dict[str, Any]:
    cases = {row.case: row for row in rows}.values()
    methods: dict[str, Any] = {}
    for method in dict.fromkeys(row.method for row in rows):
        told: dict[str, Any] = {}
        for measure in MEASURES:
            values = _by_case(rows, method, measure)
            if not np.isfinite(_mean(values)):
                continue
            told |= {measure: _list(score(values)), "cases": len(values)}
            if method not in DUMB:
                told[f"{measure} over"] = {
                    dumb: _list(margin(values, _by_case(rows, dumb, measure), sign=BETTER[measure])) for dumb in DUMB
                }
        methods[method] = told
    return {
        "cases": len(cases),
        "named": _short(float(np.mean([row.named for row in cases]))),
        "probability": _short(float(np.mean([row.probability for row in cases]))),
        "painted": _short(float(np.mean([row.painted for row in cases]))),
        "share": _short(float(np.mean([row.share for row in cases]))),
        "methods": methods,
    }


def beats(told: Mapping[str, Any], measure: str) -> bool:
    """Whether a method's entry in :func:`summary` is better than both dumb maps by ``measure``, intervals clear of zero."""
    return all(low > 0 for _, low, _ in told.get(f"{measure} over", {"": [0, 0, 0]}).values())


def write_page(
    told: Mapping[str, Any],
    page: Path,
    *,
    about: Sequence[str],
    unlike: Mapping[str, Any] | None = None,
) -> None:
    """Write :func:`summary`'s numbers to ``page``, with the study's ``kinds`` where they are among them.

    ``unlike`` is what ``unlike.json`` beside the weights holds, where it lies there.
    """
    default = told["default"]
    lines = ["# Do the maps of words show where the model looked?\n", *(f"{sentence}\n" for sentence in about)]
    lines += ["## The bar\n", f"On the choosing half `{default}` is the best of the maps that tell the branches apart"]
    lines[-1] += "" if told["best"] == default else f", and `{told['best']}` the best of all"
    lines[-1] += ". On the other half:\n"
    for method in dict.fromkeys((default, told["best"])):
        lines += [f"`{method}`:\n", *_bar(told, method), ""]
    for group, systems in told["groups"].items():
        lines.append(f"\n## {group[:1].upper()}{group[1:]}\n")
        for system, entry in systems.items():
            lines += [_heading(system, entry), "", *_methods(entry), ""]
    lines += ["\n## Weights drawn anew\n", *_redrawn(told["redrawn"])]
    lines += ["\n## Which phantoms' findings the systems see\n", *_kinds(told.get("kinds", {}))]
    if unlike is not None:
        lines += ["\n## Scans unlike the training data\n", *_unlike(unlike)]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def about(plan: Plan) -> list[str]:
    """What was judged and how, in sentences for the top of the page."""
    shares = ", ".join(f"{share:.0%}" for share in SHARES)
    return [
        "Research demonstration: the maps say where a model looked, not why. Each map is of one word of a caption: the first of "
        'the finding\'s sentence ("Hemorrhage on the left.", "Findings of pneumonia."), or "chest" against both lungs. The true '
        "caption is put into the model's mouth (teacher-forced), also where the model says something else; how often its own "
        "caption has the word stands beside each table. A system's map is the sum of its branches' maps.",
        f"**Pointing game**: the hottest pixel lies in the mask, or within {TOLERANCE:.0%} of the longer side of it. **Energy**: "
        "the share of the map's mass in the mask. **Deletion**: area under the word's probability as the hottest places go "
        f"first and become the blurred picture (Gaussian, sigma {BLUR:.0%} of the longer side), at {shares} of the pixels; lower "
        "is better. **Insertion**: the same from the blurred picture back; higher is better.",
        f"**random**: {RANDOM_MAPS} smooth random maps of the models' grain for each case; **centre**: a Gaussian at the middle; "
        "**truth**: the mask itself, what a map that knows the finding would get. Intervals are 95 %, bootstrap by case, paired "
        "for differences. Words are scored with the encoders in 16 bits.",
        f"**{TOGETHER}** hides soft round places of the picture from all branches at once (8 x 8 places, blurred as above): a map "
        "of the system, not of a branch. The other maps are made for each branch and summed here; a reader can choose any.",
        "A system **sees** a finding where painting it over with its surroundings takes the word's probability below "
        f"{SEEN_BELOW:.0%} of what it was. This hangs on no map. Where a finding is not seen the word comes from elsewhere (the "
        "organ, the habit of the captions), and a map that points at it would be wrong about the model. The default is chosen on "
        "a part of the seen phantoms (by the hash of their names), by the least mean rank in pointing game and deletion; the "
        "tables are of the others.",
        f"Made by `python -m benchmarks.faithfulness --data ../shared/data/cxr_seg` (phantoms of seed {plan.seed}); a method "
        "may have been carried on to more cases than another (`--methods`, `--cases`): differences are of the cases both have.",
    ]


def _bar(told: Mapping[str, Any], default: str) -> list[str]:
    rows = [["cases", "system", *(f"{m}, better than {d} by" for m in BAR for d in DUMB), "both beaten"]]
    for group, systems in told["groups"].items():
        for system, entry in systems.items():
            own = entry["methods"].get(default, {})
            if all(f"{m} over" in own for m in BAR):
                cells = [_interval(own[f"{m} over"][d]) for m in BAR for d in DUMB]
                rows.append([f"{group} ({own['cases']})", system, *cells, "yes" if all(beats(own, m) for m in BAR) else "no"])
    return _table(rows)


def _heading(system: str, entry: Mapping[str, Any]) -> str:
    return (
        f"**{system}**, {entry['cases']} cases. Its own caption has the word in {entry['named']:.0%}. Probability of the "
        f"word {entry['probability']:.3f}, with what is under the mask painted over {entry['painted']:.3f}; the mask covers "
        f"{entry['share']:.1%} of the picture."
    )


def _methods(entry: Mapping[str, Any]) -> list[str]:
    rows = [["map", "cases", "pointing game ↑", "energy in mask ↑", "deletion ↓", "insertion ↑"]]
    for method, own in entry["methods"].items():
        rows.append([method, str(own.get("cases", 0)), *(_interval(own[m]) if m in own else "–" for m in MEASURES)])
    return _table(rows)


def _redrawn(told: Mapping[str, Any]) -> list[str]:
    if not told:
        return ["Not measured in this run.\n"]
    rows = [["system", "map", *REDRAWN]]
    for system, methods in told.items():
        rows += [[system, method, *(f"{parts[p]:.2f}" for p in REDRAWN)] for method, parts in methods.items()]
    return _table(rows)


def _kinds(kinds: Mapping[str, Sequence[tuple[str, int, int]]]) -> list[str]:
    cells = {(kind, system): f"{seen} of {made}" for system, own in kinds.items() for kind, made, seen in own}
    rows = [[kind, *(cells.get((kind, system), "–") for system in kinds)] for kind in sorted({kind for kind, _ in cells})]
    return _table([["phantom", *(f"{system} sees" for system in kinds)], *rows])


def _unlike(told: Mapping[str, Any]) -> list[str]:
    """The false alarms and what was detected, for each choice of encoders."""
    names = list(told["measured"])
    lines = [
        "A scan is warned of where the encoders' features lie farther from training pictures than those of "
        f"{next(iter(told['limits'].values()))['share']:.0%} of pictures split off them by patient. Measured on pictures held "
        "back from both: the share that is warned of (a false alarm, where the picture is a scan as the models know them) and, "
        "for strange pictures, the area under the ROC curve against all held-back ones. Both encoders are asked where the "
        "systems that caption use both.\n",
    ]
    rows = [["pictures", "how many", *(f"{name}: alarms, AUC" for name in names)]]
    for kind, first in told["measured"][names[0]].items():
        cells = [told["measured"][name][kind] for name in names]
        strange = [f"{cell['alarms']:.1%}" + (f", {cell['auc']:.2f}" if "auc" in cell else "") for cell in cells]
        rows.append([kind.removeprefix("strange/"), f"{first['pictures']:.0f}", *strange])
    return [*lines, *_table(rows)]


def write_json(told: Mapping[str, Any], file: Path) -> None:
    """Write :func:`summary`'s numbers to ``file``."""
    file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _interval(values: Sequence[float]) -> str:
    value, low, high = values
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def _list(found: Interval | Difference) -> list[float]:
    return [_short(found.value), _short(found.low), _short(found.high)]


def _short(value: float) -> float:
    return round(value, 4)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = rows
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]
