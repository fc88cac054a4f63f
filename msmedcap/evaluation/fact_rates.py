"""The facts of the data set that each system states right: modality, plane, body part and label.

Comes in: the rows of a captions file. Goes out: :class:`Cases`, their words column by column, which is all that is kept of
them; and for each system the share of captions that state each fact, which needs no reference and no model. What counts as
right is :func:`msmedcap.evaluation.facts.stated`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from msmedcap.config import UserError
from msmedcap.evaluation import statistics
from msmedcap.evaluation.facts import (
    PLANES,
    accuracy,
    balanced_accuracy,
    canonical,
    distinct_share,
    family,
    is_empty_or_repeats,
    recalls,
    stated,
    wilson,
)
from msmedcap.evaluation.measures import Measure

FACTS = ("modality", "plane", "part", "label")
_NEVER = -1  # a truth that a case does not have


@dataclass
class Cases:
    """The words of a captions file, column by column: what metrics are given."""

    ids: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    facts: list[Mapping[str, str]] = field(default_factory=list)
    references: list[list[str]] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)
    unreadable: int = 0
    repeated: int = 0
    silent: dict[str, int] = field(default_factory=dict)
    """How many pictures that could be read each system has no caption of."""

    def __len__(self) -> int:
        return len(self.ids)


def gather(
    rows: Iterable[Mapping[str, Any]], *, systems: Sequence[str] | None = None, only: Collection[str] | None = None
) -> Cases:
    """The words of ``rows`` for ``systems`` (default: all that occur), of the cases in ``only`` (default: all), each id once.

    A caption that is missing is empty. Raises :class:`UserError` for a system that captioned nothing.
    """
    cases, seen, found = Cases(), set[str](), dict[str, dict[int, str]]()
    for row in rows:
        name = row["id"]
        cases.repeated += name in seen
        if name in seen or (only is not None and name not in only):
            continue
        seen.add(name)
        for system, text in row["captions"].items():
            found.setdefault(system, {})[len(cases)] = text
        cases.ids.append(name)
        cases.groups.append(row["group"])
        cases.facts.append(row["facts"])
        cases.references.append(list(row.get("references") or ()))
        cases.unreadable += row["error"] is not None
    for system in systems or found:
        if cases.ids and system not in found:
            raise UserError(
                f"There are no captions of a system {system!r}; there are those of {', '.join(found) or 'none'}."
            )
        said = found.get(system, {})
        cases.texts[system] = [said.get(index, "") for index in range(len(cases))]
        cases.silent[system] = len(cases) - len(said) - cases.unreadable
    return cases


def score_rows(rows: Iterable[Mapping[str, Any]], system: str) -> dict[str, Any]:
    """The facts that ``system`` states right on ``rows`` of a captions file.

    ``modality``, ``plane``, ``part``, ``label``: ``{value, low, high, n}`` (accuracy with its Wilson interval over the
    ``n`` rows that know the fact), ``balanced`` and ``recalls`` per value; ``plane`` counts axial, coronal and sagittal
    pictures only. ``distinct``: the share of different captions. ``faulty``: the share empty or repeating a sentence.
    """
    return fact_rates(gather(rows, systems=[system]), system)


def fact_rates(cases: Cases, system: str) -> dict[str, Any]:
    """As :func:`score_rows`, of gathered cases."""
    texts = cases.texts[system]
    scores: dict[str, Any] = {"n": len(cases), "groups": len(set(cases.groups))}
    for fact in FACTS:
        pairs = [(truth, said) for truth, said in _truth_and_said(cases, system, fact) if truth is not None]
        truths, said = [truth for truth, _ in pairs], [word for _, word in pairs]
        scores[fact] = {
            **asdict(accuracy(truths, said)),
            "balanced": balanced_accuracy(truths, said),
            "recalls": {value: asdict(rate) for value, rate in recalls(truths, said).items()},
        }
    scores["distinct"] = distinct_share(texts)
    scores["faulty"] = asdict(wilson(sum(map(is_empty_or_repeats, texts)), len(texts)))
    scores["unreadable"] = cases.unreadable
    return scores


def fact_measures(cases: Cases) -> Iterator[Measure]:
    """The facts' accuracies, and for plane and label the mean of the recalls, as measures: with intervals by patient."""
    for fact in FACTS:
        pairs = {system: _truth_and_said(cases, system, fact) for system in cases.texts}
        truths = [truth for truth, _ in next(iter(pairs.values()), [])]
        values = sorted({truth for truth in truths if truth is not None})
        if not values:
            continue
        place = np.array([_NEVER if truth is None else values.index(truth) for truth in truths])
        known = np.eye(len(values))[place] * (place != _NEVER)[:, None]
        hits = {
            system: known * np.array([truth == said for truth, said in said_of])[:, None]
            for system, said_of in pairs.items()
        }
        counts = {system: np.stack([hit.sum(1), known.sum(1)], axis=1) for system, hit in hits.items()}
        n = int(known.sum())
        yield Measure(fact, "facts", counts, n=n, source=f"share of captions that state the {fact} right")
        if fact in ("plane", "label"):
            both = {system: np.concatenate([hit, known], axis=1) for system, hit in hits.items()}
            name = f"{fact} (balanced)"
            yield Measure(
                name, "facts", both, statistic=_mean_recall, n=n, source=f"mean of the recalls of each {fact}"
            )


def _truth_and_said(cases: Cases, system: str, fact: str) -> list[tuple[str | None, str | None]]:
    """For each case what is true (None: unknown, or no plane that counts) and what the caption says."""
    pairs: list[tuple[str | None, str | None]] = []
    for facts, text in zip(cases.facts, cases.texts[system], strict=True):
        value = canonical(fact, facts.get(fact, ""))
        if value is None or (fact == "plane" and value not in PLANES):
            pairs.append((None, None))
        else:
            pairs.append((value, stated(fact, text, among=family(value) if fact == "label" else None)))
    return pairs


def _mean_recall(sums: np.ndarray) -> np.ndarray:
    """Sums ``[..., 2V]`` of hits and cases of V values to the mean recall of those that occur."""
    half = sums.shape[-1] // 2
    recall = statistics.ratio(sums[..., :half], sums[..., half:])
    there = ~np.isnan(recall)
    return statistics.ratio(np.where(there, recall, 0.0).sum(-1), there.sum(-1))
