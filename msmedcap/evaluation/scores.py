"""The scores of every system on captions files: each with its interval, and between systems the difference with its p.

Comes in: captions files (:mod:`~msmedcap.evaluation.captions_file`), no model. Goes out: one JSON-able document. Facts are
counted in :mod:`~msmedcap.evaluation.fact_rates`, what compares with references in :mod:`~msmedcap.evaluation.measures`.

A document holds ``made_with`` per captions file; ``metrics``, what each column is; ``scores``, for each data set and system a
record ``{data, split, system, **score_rows, metrics: {column: {value, low, high, n}}}``; ``differences``, ``{data, split,
metric, a, b, value, low, high, p, p_holm}``; and ``warnings``. Of several data sets there are also the scores of all their
cases together, named ``a+b``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from msmedcap.config import UserError
from msmedcap.evaluation import statistics
from msmedcap.evaluation.captions_file import CaptionsFile
from msmedcap.evaluation.fact_rates import Cases, fact_measures, fact_rates, gather
from msmedcap.evaluation.facts import LEXICON_VERSION
from msmedcap.evaluation.measures import Measure, Wanted, measures

log = logging.getLogger(__name__)

AT_ONCE = 256
"""How many columns of counts, over all systems, are resampled together: memory, not numbers, depends on it."""


def score_files(
    files: Sequence[tuple[CaptionsFile, Collection[str] | None]],
    *,
    systems: Sequence[str] | None = None,
    wanted: Wanted | None = None,
    draws: int = statistics.DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """The document of captions files, each with the ids of the cases that count (None: all).

    ``wanted`` chooses the metrics (default: facts, and words where Java is there). Raises :class:`UserError` for systems or
    metrics that are not there, and for two files of one data set and split.
    """
    wanted = wanted or Wanted()
    whole: dict[str, Any] = {"made_with": {}, "lexicon": LEXICON_VERSION, "metrics": {}}
    whole |= {"scores": [], "differences": [], "warnings": []}
    kept: list[tuple[str, str, Cases]] = []
    for file, only in files:
        if any((name, split) == (file.name, file.split) for name, split, _ in kept):
            raise UserError(
                f"Two captions files are of {file.name} {file.split}; score them one at a time, or name one otherwise."
            )
        whole["made_with"][file.path.stem] = dict(file.made_with)
        kept.append((file.name, file.split, gather(file.rows, systems=systems, only=only)))
    if len(kept) > 1:
        kept.append(("+".join(name for name, _, _ in kept), _common([split for _, split, _ in kept]), joined(kept)))
    for name, split, cases in kept:
        document = score_cases(cases, name, split, wanted=wanted, draws=draws, seed=seed)
        whole["metrics"] |= document["metrics"]
        for key in ("scores", "differences", "warnings"):
            whole[key] += document[key]
    return finite(whole)


def score_file(file: CaptionsFile, *, only: Collection[str] | None = None, **options: Any) -> dict[str, Any]:
    """As :func:`score_files`, of one file."""
    return score_files([(file, only)], **options)


def score_cases(
    cases: Cases, name: str, split: str, *, wanted: Wanted, draws: int = statistics.DRAWS, seed: int = 0
) -> dict[str, Any]:
    """The ``scores``, ``differences``, ``metrics`` and ``warnings`` of gathered cases; with NaN where nothing could be counted."""
    where = {"data": name, "split": split}
    told = f"{name} {split}".strip()
    if not len(cases) or not cases.texts:
        raise UserError(f"{told}: there are no captions to score.")
    warnings = _remarks(cases, told)
    about: dict[str, Any] = {}

    def found() -> Iterator[Measure]:
        if wanted.facts:
            yield from fact_measures(cases)
        notes: list[str] = []
        yield from measures(cases.references, cases.texts, wanted, warnings=notes)
        warnings.extend(f"{told}: {note}" for note in notes)

    scored: dict[str, dict[str, Any]] = {system: {} for system in cases.texts}
    differences: list[dict[str, Any]] = []
    for block in _blocks(found(), len(cases.texts)):
        about |= {measure.column: measure.description() for measure in block}
        values, pairs = compare(block, list(cases.texts), cases.groups, draws=draws, seed=seed)
        differences += [{**where, **pair} for pair in pairs]
        for system in scored:
            scored[system] |= values[system]
    records = [
        {**where, "system": system, **fact_rates(cases, system), "metrics": scored[system]} for system in cases.texts
    ]
    return {"scores": records, "differences": differences, "metrics": about, "warnings": warnings}


def compare(
    found: Sequence[Measure],
    systems: Sequence[str],
    groups: Sequence[str],
    *,
    draws: int = statistics.DRAWS,
    seed: int = 0,
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Every system's score of every measure with its interval, and every pair's difference with its p, Holm-corrected per measure.

    All measures and systems share the resamples, so that their scores can be compared draw by draw.
    """
    scored: dict[str, dict[str, Any]] = {system: {} for system in systems}
    differences: list[dict[str, Any]] = []
    places: dict[int, slice] = {}  # BLEU-1 to 4 are four scores of the same counts
    parts: list[np.ndarray] = []
    width = 0
    for measure in found:
        key = id(measure.counts[systems[0]])
        if key not in places:
            parts.append(np.stack([statistics.group_sums(measure.counts[s], groups) for s in systems], axis=1))
            places[key] = slice(width, width := width + parts[-1].shape[2])
    sums = np.concatenate(parts, axis=2)
    total = sums.sum(0)
    drawn = statistics.resample(sums, draws=draws, seed=seed)
    halves = statistics.random_halves(sums, seed=seed) if len(systems) > 1 else None
    for measure in found:
        here = places[id(measure.counts[systems[0]])]
        for i, system in enumerate(systems):
            interval = statistics.interval(total[i, here], drawn[:, i, here], statistic=measure.statistic)
            scored[system][measure.column] = {**asdict(interval), "n": measure.n}
        if halves is None:
            continue
        pairs = []
        for i, j in combinations(range(len(systems)), 2):
            of_both = (array[..., [i, j], here] for array in (total, drawn, halves))
            difference = statistics.difference(*of_both, statistic=measure.statistic)
            pairs.append({"metric": measure.column, "a": systems[i], "b": systems[j], **asdict(difference)})
        for pair, corrected in zip(pairs, statistics.holm([pair["p"] for pair in pairs]), strict=True):
            differences.append({**pair, "p_holm": corrected})
    return scored, differences


def joined(kept: Iterable[tuple[str, str, Cases]]) -> Cases:
    """All cases of several data sets as one, for the systems that captioned them all."""
    kept = list(kept)
    whole = Cases()
    systems = [system for system in kept[0][2].texts if all(system in cases.texts for _, _, cases in kept)]
    whole.texts = {system: [text for _, _, cases in kept for text in cases.texts[system]] for system in systems}
    for name, _, cases in kept:
        whole.ids += [f"{name}/{case}" for case in cases.ids]
        whole.groups += [f"{name}/{group}" for group in cases.groups]
        whole.facts += cases.facts
        whole.references += cases.references
        whole.unreadable += cases.unreadable
    return whole


def _blocks(found: Iterable[Measure], systems: int) -> Iterator[list[Measure]]:
    """The measures, as many at a time as are resampled together; what was scored can be let go."""
    block: list[Measure] = []
    counted: dict[int, int] = {}
    for measure in found:
        counts = next(iter(measure.counts.values()))
        width = systems * (counts.shape[1] if counts.ndim > 1 else 2)
        if block and id(counts) not in counted and sum(counted.values()) + width > AT_ONCE:
            yield block
            block, counted = [], {}
        block.append(measure)
        counted[id(counts)] = width
    if block:
        yield block


def _common(splits: Sequence[str]) -> str:
    return splits[0] if len(set(splits)) == 1 else "+".join(splits)


def finite(value: Any) -> Any:
    """``value`` with every NaN inside it as None, which JSON can say."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, (list, tuple)) else value


def _remarks(cases: Cases, where: str) -> list[str]:
    """What a reader of the scores must know of the cases."""
    told = []
    if cases.unreadable:
        told.append(
            f"{where}: {cases.unreadable} pictures could not be read; their captions are empty and count as wrong."
        )
    if cases.repeated:
        told.append(f"{where}: {cases.repeated} rows have the id of an earlier row and do not count.")
    for system, count in cases.silent.items():
        if count:
            told.append(
                f"{where}: {system} gave no caption of {count} pictures that could be read; they count as wrong."
            )
    return told
