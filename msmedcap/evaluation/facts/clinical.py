"""Clinical facts as metrics: precision, recall and F1 per kind of fact, hallucination, contradiction and omission rates.

Comes in: reference texts (or the known facts of the cases) and a system's captions. Goes out: counts for each case, whose
sums give every number of the corpus and of any resample of it. The paper's conclusion asks for a metric of this sort; that
of labels with negation goes back to CheXpert (Irvin et al., AAAI 2019).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from msmedcap.evaluation.facts.claims import KINDS, Claims, claims
from msmedcap.evaluation.facts.comparison import Truth, compare, known, told
from msmedcap.evaluation.metric import Array, Metric, Scores

_SOURCE = "this project's clinical lexicon (docs/clinical-facts.md); after CheXpert's labels, Irvin et al., AAAI 2019"
_MISLEADS = "Words are read by a lexicon: what it does not know is not counted, for or against."
_HEADS = {
    "modality": "modality",
    "plane": "plane",
    "view": "view",
    "part": "body part",
    "side": "side",
    "finding": "finding",
    "absent": "denied finding",
    "device": "device",
}
ALL, HALLUCINATION, CONTRADICTION, OMISSION = "facts F1", "hallucination", "contradiction", "omission"


def _metric(name: str, column: str, better: bool, definition: str) -> Metric:
    return Metric(name, column, better, 0, _SOURCE, _MISLEADS, definition)


METRICS = (
    _metric(ALL, "Facts F1", True, "F1 of all claims of all kinds, their counts summed over the cases."),
    *(
        _metric(
            f"{kind} F1", f"{head.capitalize()} F1", True, f"F1 of the claims of {head}, counts summed over the cases."
        )
        for kind, head in _HEADS.items()
    ),
    _metric(HALLUCINATION, "Hallucinated", False, "Share of the captions' claims that the reference does not support."),
    _metric(CONTRADICTION, "Contradicted", False, "Share of the captions' claims that the reference contradicts."),
    _metric(OMISSION, "Omitted", False, "Share of the references' claims that the caption leaves out."),
)
TP, FP, FN, CONTRADICTED = range(4)


@dataclass(frozen=True, eq=False)
class Counts:
    """One kind's counts: ``tp``, ``fp``, ``fn`` and ``contradicted`` (which are among ``fp``), each int64 ``[N]`` by case."""

    tp: Array
    fp: Array
    fn: Array
    contradicted: Array

    @property
    def precision(self) -> float:
        """The share of the captions' claims that are supported; NaN where there is none."""
        return _share(self.tp.sum(), self.tp.sum() + self.fp.sum())

    @property
    def recall(self) -> float:
        """The share of the true claims that the captions state; NaN where there is none."""
        return _share(self.tp.sum(), self.tp.sum() + self.fn.sum())

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall, of the summed counts; NaN where nothing is claimed or true."""
        return _share(2 * self.tp.sum(), 2 * self.tp.sum() + self.fp.sum() + self.fn.sum())


@dataclass(frozen=True, eq=False)
class Clinical:
    """The counts of every kind for ``N`` cases: ``table`` int64 ``[N, kinds, 4]`` with tp, fp, fn and contradicted."""

    table: Array

    def __getitem__(self, kind: str) -> Counts:
        """The counts of a kind of :data:`KINDS`; raises ValueError for another."""
        found = self.table[:, KINDS.index(kind)]
        return Counts(found[:, TP], found[:, FP], found[:, FN], found[:, CONTRADICTED])

    @property
    def all(self) -> Counts:
        """The counts of all kinds together."""
        found = self.table.sum(axis=1)
        return Counts(found[:, TP], found[:, FP], found[:, FN], found[:, CONTRADICTED])

    @property
    def hallucination_rate(self) -> float:
        """The share of the captions' claims that are contradicted or not supported; lower is better."""
        return 1 - self.all.precision

    @property
    def contradiction_rate(self) -> float:
        """The share of the captions' claims that are contradicted; lower is better."""
        return _share(self.all.contradicted.sum(), self.all.tp.sum() + self.all.fp.sum())

    @property
    def unsupported_rate(self) -> float:
        """The share of the captions' claims that nothing supports and nothing contradicts; lower is better."""
        return self.hallucination_rate - self.contradiction_rate

    @property
    def omission_rate(self) -> float:
        """The share of the true claims that the captions leave out; lower is better."""
        return 1 - self.all.recall

    def summary(self) -> dict[str, dict[str, float]]:
        """Per kind and for "all": precision, recall, f1, and the numbers of claims (``said``) and true facts (``true``)."""
        rows = {kind: self[kind] for kind in KINDS} | {"all": self.all}
        return {
            kind: {
                "precision": c.precision,
                "recall": c.recall,
                "f1": c.f1,
                "said": float(c.tp.sum() + c.fp.sum()),
                "true": float(c.tp.sum() + c.fn.sum()),
            }
            for kind, c in rows.items()
        }


def clinical(
    references: Sequence[str | Sequence[str]] | None,
    candidates: Sequence[str],
    *,
    facts: Sequence[Mapping[str, str]] | None = None,
) -> Clinical:
    """``candidates`` [N] against ``references`` [N] (a text or several for each), or against the known ``facts`` [N].

    With several references a claim is true where one of them makes it. Raises ValueError unless exactly one of ``references``
    and ``facts`` is given, with one entry for each candidate.
    """
    if (references is None) == (facts is None):
        raise ValueError("Give references or facts, one of them.")
    truths = map(told, references) if references is not None else map(known, facts or ())
    return clinical_claims(truths, map(claims, candidates))


def clinical_claims(truths: Iterable[Truth | Claims], said: Iterable[Claims]) -> Clinical:
    """As :func:`clinical`, of claims, which are taken one case at a time; raises ValueError where there are more of one."""
    rows = array("q")
    for truth, claimed in zip(truths, said, strict=True):
        judged = compare(truth, claimed)
        for kind in KINDS:
            rows.extend(judged[kind].counts)
    return Clinical(np.array(rows, dtype=np.int64).reshape(-1, len(KINDS), 4))


def score(
    references: Sequence[Sequence[str]], candidates: Sequence[str], *, metrics: Sequence[str] | None = None
) -> dict[str, Scores]:
    """The metrics named (default: all of :data:`METRICS`) of ``candidates`` against ``references``.

    ``per_case`` is NaN for a case without a claim of the kind. Raises KeyError for a metric of another name.
    """
    found = clinical(references, candidates)
    return {name: scores_of(found, name) for name in metrics or [metric.name for metric in METRICS]}


def scores_of(found: Clinical, name: str) -> Scores:
    """One metric of :data:`METRICS` by name, from counts; raises KeyError for another name."""
    totals = found.table.sum(axis=1)
    formulas = {ALL: _f1, HALLUCINATION: _hallucinated, CONTRADICTION: _contradicted, OMISSION: _omitted}
    formulas |= {f"{kind} F1": _f1 for kind in KINDS}
    formula = formulas[name]
    counts = totals if name in (ALL, HALLUCINATION, CONTRADICTION, OMISSION) else found.table[:, KINDS.index(name[:-3])]
    counts = counts.astype(np.float64)
    return Scores(float(formula(counts.sum(axis=0))), formula(counts), counts, formula)


def _ratio(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.full(np.shape(below), math.nan), where=np.asarray(below) > 0)


def _rate(sums: Array, *, above: tuple[float, ...], below: tuple[float, ...]) -> Array:
    return _ratio(sums @ np.array(above), sums @ np.array(below))


_f1 = partial(_rate, above=(2, 0, 0, 0), below=(2, 1, 1, 0))
_hallucinated = partial(_rate, above=(0, 1, 0, 0), below=(1, 1, 0, 0))
_contradicted = partial(_rate, above=(0, 0, 0, 1), below=(1, 1, 0, 0))
_omitted = partial(_rate, above=(0, 0, 1, 0), below=(1, 0, 1, 0))


def _share(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else math.nan
