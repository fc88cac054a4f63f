"""What a study found: preferences, strengths, scales, errors, and how far the readers agree, as one JSON-able document.

Comes in: a study's opened answers. Goes out: for each stage, numbers with 95 % intervals. Intervals of win rates are Wilson's,
which take every answer for independent, and beside them those of resampled cases (patients where known), which do not. Where
systems wrote the same words, a preference for one counts for each; ties and "all bad" leave every pair level. Second showings of
a case count for nothing but how far a reader agrees with himself.
"""

from __future__ import annotations

import math
import statistics as plain
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from msmedcap.demo.review import forms
from msmedcap.demo.review.design import LETTERS
from msmedcap.demo.review.rated import Rated, Showing
from msmedcap.evaluation import agreement
from msmedcap.evaluation.facts import wilson
from msmedcap.evaluation.statistics import Interval, bootstrap

HARMS = tuple(value for value, _ in forms.OF_CAPTION[-1].options if value != forms.CANNOT)
MANY_ERRORS = 5
SIGNIFICANT = "significant errors"
_Document = dict[str, Any]


def results(rated: Rated) -> _Document:
    """The document: ``study``, ``systems``, ``progress``, and ``stages`` by number, each with what was answered in it."""
    study = rated.study
    told = {"title": study["title"], "key": study["key"], "created": study["created"], "made_with": study["made_with"]}
    told |= {"cases": len(rated.cases), "readers": list(rated.readers), "rows": len(rated.rows)}
    stages = {}
    for number in (1, 2):
        if showings := rated.stage(number):
            stages[str(number)] = _stage(rated, showings)
    if "1" in stages:
        stages["1"]["repeated"] = _repeated(rated)
    return {"study": told, "systems": list(rated.systems), "progress": _progress(rated), "stages": stages}


def _stage(rated: Rated, showings: Sequence[Showing]) -> _Document:
    judged = [showing for showing in showings if showing.preference is not None]
    return {
        "finished": len(showings),
        "preference": _preference(rated, showings, judged),
        "bradley_terry": _strengths(rated, judged) if judged else None,
        "scales": {key: _scale(rated, showings, key) for key in forms.SCALES},
        "harm": {system: dict(_counts(showings, system, "harm")) for system in rated.systems},
        "errors": _errors(rated, showings),
        "agreement": [_agree(rated, showings, item) for item in _ITEMS] if len(rated.readers) > 1 else [],
    }


def _progress(rated: Rated) -> list[_Document]:
    told = []
    for reader in rated.readers:
        mine = [showing for showing in rated.showings if showing.reader == reader]
        seconds = plain.median(showing.seconds for showing in mine) if mine else None
        told.append({"reader": reader, "finished": len(mine), "of": rated.assigned[reader], "median_seconds": seconds})
    return told


def _preference(rated: Rated, showings: Sequence[Showing], judged: Sequence[Showing]) -> _Document:
    """Per system how often its caption was preferred; how often each letter was, which the system must not explain."""
    per_system = []
    for system in rated.systems:
        won = [float(system in _winners(rated, showing)) for showing in judged]
        rate = wilson(int(sum(won)), len(won))
        by_case = _mean(won, judged)
        told = {"system": system, "wins": int(sum(won)), "n": len(won), "rate": _number(rate.value)}
        told |= {"low": _number(rate.low), "high": _number(rate.high)}
        per_system.append({**told, "case_low": _number(by_case.low), "case_high": _number(by_case.high)})
    said = Counter(str(showing.answers.get("preference")) for showing in showings)
    alike = sum(any(len(rated.same_words(s.case, system)) > 1 for system in rated.systems) for s in judged)
    return {
        "systems": per_system,
        **{key: said[key] for key in (forms.TIE, forms.ALL_BAD, forms.CANNOT)},
        "letters": {letter: said[letter] for letter in LETTERS[: len(rated.systems)]},
        "same_words": alike,
    }


def _winners(rated: Rated, showing: Showing) -> frozenset[str]:
    chosen = showing.preference
    return rated.same_words(showing.case, chosen) if chosen in rated.systems else frozenset()


def _strengths(rated: Rated, judged: Sequence[Showing]) -> _Document:
    count = len(rated.systems)
    wins = np.zeros((len(judged), count, count))
    for n, showing in enumerate(judged):
        winners = _winners(rated, showing)
        won = np.array([system in winners for system in rated.systems])
        level = won[:, None] & won if winners else np.ones((count, count), bool)
        wins[n] = (won[:, None] & ~won) + 0.5 * (level & ~np.eye(count, dtype=bool))
    found = agreement.bradley_terry(wins, [showing.group for showing in judged])
    return {
        "systems": [{"system": name, **_told(each)} for name, each in zip(rated.systems, found.log, strict=True)],
        "beats": [
            {"a": a, "b": b, **_told(found.beats[i][j])}
            for i, a in enumerate(rated.systems)
            for j, b in enumerate(rated.systems)
            if i < j
        ],
    }


def _scale(rated: Rated, showings: Sequence[Showing], key: str) -> list[_Document]:
    told = []
    for system in rated.systems:
        values = np.array([_float(showing.of(system, key)) for showing in showings])
        mean = _mean(values, showings)
        known = values[~np.isnan(values)]
        spread = {str(step): int((known == step).sum()) for step in range(1, 6)}
        told.append({"system": system, **_told(mean), "n": len(known), "answers": spread})
    return told


def _counts(showings: Sequence[Showing], system: str, key: str) -> Counter[str]:
    counted = Counter(str(showing.of(system, key) or forms.CANNOT) for showing in showings)
    return Counter({value: counted[value] for value in (*HARMS, forms.CANNOT)})


def _errors(rated: Rated, showings: Sequence[Showing]) -> list[_Document]:
    """Mean number of errors a caption, by category, weight and system; cases that could not be judged do not count."""
    told = []
    for item in forms.ERRORS:
        for weight in forms.WEIGHTS:
            for system in rated.systems:
                key = f"error.{item.key}.{weight}"
                values = np.array([_float(showing.of(system, key)) for showing in showings])
                mean = _mean(values, showings)
                named = {"category": item.key, "weight": weight, "system": system, "total": int(np.nansum(values))}
                told.append({**named, **_told(mean)})
    return told


def _preferred(rated: Rated) -> tuple[str, ...]:
    return (*rated.systems, forms.TIE, forms.ALL_BAD)


def _significant(showing: Showing, system: str) -> float:
    counted = [_float(showing.of(system, f"error.{item.key}.significant")) for item in forms.ERRORS]
    return min(sum(counted), MANY_ERRORS)


def _category(showing: Showing, system: str, item: str) -> float:
    """An answer about a caption as the number of its category; NaN where there is none."""
    if item == SIGNIFICANT:
        return _significant(showing, system)
    value = showing.of(system, item)
    if item == "harm":
        return float(HARMS.index(value)) if value in HARMS else math.nan
    return _float(value) - 1


_ITEMS: Mapping[str, tuple[int, str]] = {
    "preference": (0, "nominal"),
    **dict.fromkeys(forms.SCALES, (5, "ordinal")),
    "harm": (len(HARMS), "ordinal"),
    SIGNIFICANT: (MANY_ERRORS + 1, "ordinal"),
}
_Value = Callable[[Showing], list[float]]


def _values(rated: Rated, item: str) -> _Value:
    """A function of a showing to its categories: one for the preference, else one for each system."""
    if item != "preference":
        return lambda showing: [_category(showing, system, item) for system in rated.systems]
    among = _preferred(rated)

    def preferred(showing: Showing) -> list[float]:
        if showing.preference is None:
            return [math.nan]
        # Of the same words under two letters readers may prefer either: that is no disagreement.
        alike = _winners(rated, showing) or {showing.preference}
        return [float(min(among.index(name) for name in alike))]

    return preferred


def _agree(rated: Rated, showings: Sequence[Showing], item: str) -> _Document:
    """Between readers: raw agreement, alpha, for the preference Fleiss' kappa, and weighted kappa for each pair of readers."""
    values, level = _ITEMS[item]
    values = values or len(_preferred(rated))
    cases = sorted({showing.case: showing.group for showing in showings}.items())
    width = 1 if item == "preference" else len(rated.systems)
    table = np.full((len(cases), width, len(rated.readers)), math.nan)
    row, column = ({name: i for i, name in enumerate(names)} for names in ([c for c, _ in cases], rated.readers))
    read = _values(rated, item)
    for showing in showings:
        table[row[showing.case], :, column[showing.reader]] = read(showing)
    flat = table.reshape(-1, len(rated.readers))
    groups = [group for _, group in cases for _ in range(width)]
    raw = agreement.raw_agreement(flat, groups=groups)
    told: _Document = {"item": item, "level": level, "units": raw.units, "pairs": raw.pairs, "raw": _told(raw.share)}
    told["alpha"] = _told(agreement.krippendorff_alpha(flat, values, level=level, groups=groups))
    if level == "nominal":
        told["fleiss"] = _told(agreement.fleiss_kappa(flat, values, groups=groups))
    else:
        told["within_one"] = _told(agreement.raw_agreement(flat, within=1, groups=groups).share)
    told["kappa"] = [
        {"a": a, "b": b, **_told(_kappa(flat[:, i], flat[:, j], values, level, groups))}
        for i, a in enumerate(rated.readers)
        for j, b in enumerate(rated.readers)
        if i < j
    ]
    return told


def _repeated(rated: Rated) -> list[_Document]:
    """Within readers: what was said of a case at its second showing against its first, all readers together."""
    first = {(showing.reader, showing.place): showing for showing in rated.showings}
    again = [showing for showing in rated.showings if showing.repeats is not None]
    pairs = [(first[key], later) for later in again if (key := (later.reader, later.repeats or 0)) in first]
    told = []
    for item, (values, level) in _ITEMS.items() if pairs else ():
        read = _values(rated, item)
        rows = [(a, b, one.group) for one, other in pairs for a, b in zip(read(one), read(other), strict=True)]
        both, groups = np.array([row[:2] for row in rows]), [row[2] for row in rows]
        raw = agreement.raw_agreement(both, groups=groups)
        kappa = _kappa(both[:, 0], both[:, 1], values or len(_preferred(rated)), level, groups)
        told.append({"item": item, "units": raw.units, "raw": _told(raw.share), "kappa": _told(kappa)})
    return told


def _kappa(a: np.ndarray, b: np.ndarray, values: int, level: str, groups: Sequence[str]) -> Interval:
    weights = "none" if level == "nominal" else "quadratic"
    return agreement.weighted_kappa(a, b, values, weights=weights, groups=groups)


def _mean(values: Sequence[float] | np.ndarray, showings: Sequence[Showing]) -> Interval:
    """The mean over showings with its interval by resampled cases; NaN where there are none."""
    if not len(values):
        return Interval(math.nan, math.nan, math.nan)
    return bootstrap(np.asarray(values, dtype=np.float64), [showing.group for showing in showings])


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)


def _told(found: Interval) -> _Document:
    return {"value": _number(found.value), "low": _number(found.low), "high": _number(found.high)}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)
