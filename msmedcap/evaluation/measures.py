"""What is measured: every metric as counts per case, whose sums over any cases give its score over these cases.

Comes in: references and each system's captions, lists of strings. Goes out: a :class:`Measure` for each column. In this form an
interval and a comparison of systems are exact for corpus scores too (BLEU, F1): a resample is a sum. Which metrics are there,
and what they need, is asked here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from msmedcap.config import UserError
from msmedcap.evaluation.foresight import duration
from msmedcap.evaluation.statistics import Statistic, mean

if TYPE_CHECKING:
    from msmedcap.evaluation.metric import Metric, Scores

log = logging.getLogger(__name__)
Found: TypeAlias = "Iterator[tuple[str, Metric, Mapping[str, Scores]]]"
"""The section, the metric and each system's scores."""
Texts: TypeAlias = Mapping[str, Sequence[str]]
"""Each system's captions."""


NGRAMS = ("BLEU", "METEOR", "ROUGE-L", "CIDEr")
IMAGECLEF = "ROUGE-1"
NEURAL = ("bertscore", "bartscore", "bleurt", "imageclef-bertscore", "imageclef-bleurt")
LONG, PROBE, AT_ONCE = 20_000, 500, 1_000


@dataclass(frozen=True)
class Measure:
    """A column of the scores: ``counts`` per system, ``[N]`` or ``[N,K]``, with the ``statistic`` of their sums.

    ``section`` says which table it stands in, ``n`` how many cases count.
    """

    column: str
    section: str
    counts: Mapping[str, np.ndarray]
    statistic: Statistic = mean
    n: int = 0
    higher_is_better: bool = True
    scale: int = 0
    source: str = ""
    misleads: str = ""

    def description(self) -> dict[str, Any]:
        """What a reader must know of the column."""
        names = ("section", "higher_is_better", "scale", "source", "misleads")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Wanted:
    """The metrics asked for. ``ngrams`` None: all, where Java is there; ``neural``: name to model id, empty for the published one.

    ``cache`` names the file where neural metrics keep what they computed.
    """

    facts: bool = True
    clinical: bool = True
    ngrams: tuple[str, ...] | None = None
    imageclef: bool = True
    neural: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None
    cache: Path | None = None


def wanted(
    metrics: Sequence[str] | None = None,
    neural: Sequence[str] = (),
    *,
    device: str | None = None,
    cache: Path | None = None,
) -> Wanted:
    """The metrics named: ``facts``, ``clinical``, ``BLEU``, ``METEOR``, ``ROUGE-L``, ``CIDEr``, ``ROUGE-1`` (default: all of them).

    ``neural`` names some of :data:`NEURAL`, each alone or as ``NAME=MODEL``; those of ImageCLEFmedical Caption prepare texts as
    it does. Raises :class:`UserError` for another.
    """
    models = {}
    for item in neural:
        name, _, model = item.partition("=")
        models[_known(name, NEURAL)] = model
    if metrics is None:
        return Wanted(neural=models, device=device, cache=cache)
    names = {_known(name, ("facts", "clinical", *NGRAMS, IMAGECLEF)) for name in metrics}
    ngrams = tuple(name for name in NGRAMS if name in names)
    return Wanted("facts" in names, "clinical" in names, ngrams, IMAGECLEF in names, models, device, cache)


def measures(
    references: Sequence[Sequence[str]],
    texts: Texts,
    chosen: Wanted,
    *,
    warnings: list[str],
) -> Iterator[Measure]:
    """Every metric of ``chosen`` that compares with references; cases that have none do not count, which ``warnings`` then say.

    Raises :class:`UserError` where a metric that was asked for by name cannot be computed here.
    """
    place = np.array([index for index, found in enumerate(references) if found], dtype=np.int64)
    if not len(place):
        warnings.append("The captions file has no references, so that only facts of the data set are scored.")
        return
    if len(place) < len(references):
        without = len(references) - len(place)
        warnings.append(f"{without} of {len(references)} cases have no reference and do not count in metrics of text.")
    held = [references[i] for i in place]
    said = {system: [captions[i] for i in place] for system, captions in texts.items()}
    computed: list[Callable[[], Found]] = [
        lambda: _ngrams(held, said, chosen, warnings),
        lambda: _imageclef(held, said, chosen),
        lambda: _neural(held, said, chosen, warnings),
        lambda: _clinical(held, said, chosen),
    ]
    for family in computed:
        for section, metric, scores in family():
            yield _measure(section, metric, scores, place, len(references))


def _measure(section: str, metric: Metric, scores: Mapping[str, Scores], place: np.ndarray, cases: int) -> Measure:
    """A metric's scores of the cases at ``place`` among ``cases``."""
    first = next(iter(scores.values()))
    return Measure(
        metric.column,
        section,
        {system: _spread(found, place, cases) for system, found in scores.items()},
        statistic=mean if first.formula is None else first.formula,
        n=len(place),
        higher_is_better=metric.higher_is_better,
        scale=metric.scale,
        source=metric.source,
        misleads=metric.misleads,
    )


def _spread(found: Scores, place: np.ndarray, cases: int) -> np.ndarray:
    """The counts of a system, or its scores where they are a mean; the cases elsewhere than at ``place`` do not count."""
    if len(place) == cases:
        return found.per_case if found.counts is None else found.counts
    if found.counts is None:
        spread = np.full(cases, np.nan)
        spread[place] = found.per_case
        return spread
    counts = np.zeros((cases, found.counts.shape[1]))
    counts[place] = found.counts
    return counts


def _ngrams(references: Sequence[Sequence[str]], texts: Texts, chosen: Wanted, warnings: list[str]) -> Found:
    names = NGRAMS if chosen.ngrams is None else chosen.ngrams
    if not names:
        return
    from msmedcap.evaluation import ngrams

    try:
        _foresee(
            lambda some: ngrams.score_systems(references[:some], _first(texts, some), metrics=names), references, texts
        )
        scored = ngrams.score_systems(references, texts, metrics=names)
    except UserError as error:
        if chosen.ngrams is not None:
            raise
        warnings.append(f"Without {', '.join(names)}: {error}")
        return
    for metric in ngrams.METRICS:
        if all(metric.name in scores for scores in scored.values()):
            yield "text", metric, {system: scores[metric.name] for system, scores in scored.items()}


def _first(texts: Texts, some: int) -> dict[str, Sequence[str]]:
    return {system: captions[:some] for system, captions in texts.items()}


def _foresee(compute: Callable[[int], Any], references: Sequence[Sequence[str]], texts: Texts) -> None:
    """Where there is much to compute, measure a part of it and say how long the whole will take."""
    if len(references) * len(texts) < LONG:
        return
    took = []
    for some in (PROBE, 3 * PROBE):  # two, because the programs take long to start
        start = time.monotonic()
        compute(some)
        took.append(time.monotonic() - start)
    each = max(0.0, took[1] - took[0]) / (2 * PROBE)
    seconds = took[0] + each * (len(references) - PROBE)
    many = f"{len(references):,} captions of {len(texts)} systems"
    log.info("%s: about %s for the metrics of words.", many, duration(seconds))


def _imageclef(references: Sequence[Sequence[str]], texts: Texts, chosen: Wanted) -> Found:
    if not chosen.imageclef:
        return
    from msmedcap.evaluation import imageclef

    (metric,) = imageclef.METRICS
    yield "text", metric, {system: imageclef.rouge1(references, captions) for system, captions in texts.items()}


def _neural(references: Sequence[Sequence[str]], texts: Texts, chosen: Wanted, warnings: list[str]) -> Found:
    if not chosen.neural:
        return
    from msmedcap.evaluation import neural
    from msmedcap.evaluation.imageclef import prepare

    for name, model in chosen.neural.items():
        task, _, kind = name.rpartition("-")
        metric = {m.name.lower(): m for m in neural.METRICS}[kind]
        options: dict[str, Any] = {"model": model} if model else {}
        truths, said = references, texts
        if task:
            metric = dataclasses.replace(metric, name=name, column=f"{metric.column} (ImageCLEF)", scale=0)
            options = {"model": neural.IMAGECLEF_BERT, "idf": True, **options} if kind == "bertscore" else options
            truths = [[prepare(text) for text in case] for case in references]
            said = {system: [prepare(text) for text in captions] for system, captions in texts.items()}
        if chosen.cache is not None:
            options["cache"] = chosen.cache
        notes: list[str] = []
        options |= {"device": chosen.device, "notes": notes}
        score = getattr(neural, kind)
        yield "neural", metric, {system: score(truths, captions, **options) for system, captions in said.items()}
        warnings += dict.fromkeys(notes)


def _clinical(references: Sequence[Sequence[str]], texts: Texts, chosen: Wanted) -> Found:
    if not chosen.clinical:
        return
    from msmedcap.evaluation.facts import METRICS, Clinical, claims, clinical_claims, scores_of, told

    tables: dict[str, list[np.ndarray]] = {system: [] for system in texts}
    for start in range(0, len(references), AT_ONCE):  # claims take more memory than the texts they are read from
        part = slice(start, start + AT_ONCE)
        truths = [told(found) for found in references[part]]
        for system, captions in texts.items():
            tables[system].append(clinical_claims(truths, [claims(text) for text in captions[part]]).table)
    counted = {system: Clinical(np.concatenate(parts)) for system, parts in tables.items()}
    for metric in METRICS:
        yield "clinical", metric, {system: scores_of(found, metric.name) for system, found in counted.items()}


def _known(name: str, names: Sequence[str]) -> str:
    """``name`` as it is written in ``names``, in whatever case and with - or _ it comes."""
    for known in names:
        if known.lower().replace("_", "-") == name.strip().lower().replace("_", "-"):
            return known
    raise UserError(f"There is no metric {name!r} here; choose from {', '.join(names)}.")
