"""Which system readers prefer, and how far readers agree: with each other, and with themselves.

Comes in: wins by case, and ratings ``[U,R]`` of U units (a case, or a case's caption) by R readers, categories numbered from 0,
NaN where a reader did not judge. Goes out: Bradley-Terry strengths (Bradley & Terry 1952), Krippendorff's alpha (2011), weighted
Cohen's kappa (1968), Fleiss' kappa (1971, for any number of ratings a unit), each with a 95 % interval from resampled cases, and
raw agreement to stand beside them: a kappa is low wherever nearly all ratings are alike. Every coefficient is a function of sums
over units, so that each resample is exact, and a thousand of them take milliseconds (:mod:`~msmedcap.evaluation.statistics`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from msmedcap.evaluation.statistics import Interval, bootstrap, group_sums, interval, ratio, resample

Array: TypeAlias = np.ndarray
Groups: TypeAlias = Sequence[str] | None

PRIOR = 0.1
"""Ties added to every pair of systems, so that one that never won has a strength."""
_STEPS = 2000


@dataclass(frozen=True)
class Strengths:
    """Bradley-Terry: log-strengths that sum to 0, one for each system, and ``beats[i][j]``, the chance that i is preferred to j."""

    log: tuple[Interval, ...]
    beats: tuple[tuple[Interval, ...], ...]


@dataclass(frozen=True)
class RawAgreement:
    """The share of pairs of ratings of one unit that are the same: ``pairs`` of them, over ``units`` rated by two or more."""

    share: Interval
    pairs: int
    units: int


def bradley_terry(wins: Array, groups: Groups = None, *, prior: float = PRIOR, seed: int = 0) -> Strengths:
    """Strengths from ``wins [N,S,S]``: how often (a tie: half) the row's system was preferred to the column's in each judgement.

    ``groups`` names the case of each judgement; cases are resampled. Raises ValueError on another shape.
    """
    wins = np.asarray(wins, dtype=np.float64)
    if wins.ndim != 3 or wins.shape[1] != wins.shape[2]:
        raise ValueError(f"{wins.shape} are not wins of systems over systems.")
    systems = wins.shape[1]
    sums = group_sums(wins.reshape(len(wins), -1), groups)
    drawn = resample(sums, seed=seed).reshape(-1, systems, systems)
    logs, logs_drawn = (_log_strengths(part, prior) for part in (sums.sum(0).reshape(systems, systems), drawn))

    def beats(i: int, j: int) -> Interval:
        return interval(logs, logs_drawn, statistic=lambda log: 1 / (1 + np.exp(log[..., j] - log[..., i])))

    def strength(i: int) -> Interval:
        return interval(logs, logs_drawn, statistic=lambda log: log[..., i])

    return Strengths(
        tuple(strength(i) for i in range(systems)),
        tuple(tuple(beats(i, j) for j in range(systems)) for i in range(systems)),
    )


def krippendorff_alpha(ratings: Array, values: int, *, level: str, groups: Groups = None, seed: int = 0) -> Interval:
    """Alpha of ``ratings [U,R]`` over categories 0 to ``values - 1``, at ``level`` nominal, ordinal or interval.

    NaN where no unit was rated twice or only one category occurs. Raises ValueError on another level.
    """
    if level not in ("nominal", "ordinal", "interval"):
        raise ValueError(f"Alpha has no level {level!r} here.")
    pairs = coincidences(ratings, values).reshape(len(ratings), -1)
    return bootstrap(pairs, groups, statistic=partial(_alpha, values=values, level=level), seed=seed)


def fleiss_kappa(ratings: Array, values: int, *, groups: Groups = None, seed: int = 0) -> Interval:
    """Fleiss' kappa of nominal ``ratings [U,R]``; units rated less than twice do not count."""
    counts = _counts(ratings, values)
    n = counts.sum(1)
    twice = n >= 2
    agreeing = ratio((counts * (counts - 1)).sum(1), n * (n - 1))
    per_unit = np.column_stack([np.where(twice, np.nan_to_num(agreeing), 0), twice, counts * twice[:, None]])
    return bootstrap(per_unit, groups, statistic=_fleiss, seed=seed)


def weighted_kappa(
    a: Array, b: Array, values: int, *, weights: str = "quadratic", groups: Groups = None, seed: int = 0
) -> Interval:
    """Cohen's kappa of two raters' ratings ``[U]``; ``weights`` none, linear or quadratic. Raises ValueError on others."""
    if weights not in ("none", "linear", "quadratic"):
        raise ValueError(f"Kappa has no weights {weights!r}.")
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    table = np.zeros((len(a), values, values))
    both = np.flatnonzero(~np.isnan(a) & ~np.isnan(b))
    table[both, a[both].astype(int), b[both].astype(int)] = 1
    statistic = partial(_kappa, values=values, weights=weights)
    return bootstrap(table.reshape(len(a), -1), groups, statistic=statistic, seed=seed)


def raw_agreement(ratings: Array, *, within: float = 0.0, groups: Groups = None, seed: int = 0) -> RawAgreement:
    """How often two raters of a unit of ``ratings [U,R]`` say the same, or differ by at most ``within``."""
    ratings = np.asarray(ratings, dtype=np.float64)
    upper = np.triu_indices(ratings.shape[1], 1)
    apart = np.abs(ratings[:, :, None] - ratings[:, None, :])[:, upper[0], upper[1]]
    known = ~np.isnan(apart)
    per_unit = np.column_stack([(apart <= within).sum(1), known.sum(1)])
    share = bootstrap(per_unit.astype(np.float64), groups, seed=seed)
    return RawAgreement(share, int(known.sum()), int(known.any(1).sum()))


def coincidences(ratings: Array, values: int) -> Array:
    """Krippendorff's coincidences ``[U,V,V]`` of ``ratings [U,R]``: the pairs of a unit's m ratings, each weighing 1/(m-1)."""
    counts = _counts(ratings, values)
    m = counts.sum(1)
    pairs = counts[:, :, None] * counts[:, None, :]
    pairs[:, np.arange(values), np.arange(values)] -= counts
    return np.where((m >= 2)[:, None, None], pairs / np.maximum(m - 1, 1)[:, None, None], 0.0)


def _counts(ratings: Array, values: int) -> Array:
    """How many ratings of each unit fall in each category, ``[U,V]``."""
    return (np.asarray(ratings, dtype=np.float64)[:, :, None] == np.arange(values)).sum(1).astype(np.float64)


def _alpha(sums: Array, *, values: int, level: str) -> Array:
    pairs = sums.reshape(*sums.shape[:-1], values, values)
    n = pairs.sum(-1)
    total = n.sum(-1)
    apart = _distance(n, level)
    observed = (pairs * apart).sum((-2, -1)) / total
    expected = (n[..., :, None] * n[..., None, :] * apart).sum((-2, -1)) / (total * (total - 1))
    return 1 - ratio(observed, expected)


def _distance(n: Array, level: str) -> Array:
    """How far two categories are apart, squared, ``[...,V,V]``, where the categories occur ``n [...,V]`` times."""
    places = np.arange(n.shape[-1], dtype=np.float64)
    if level == "nominal":
        return (places[:, None] != places).astype(np.float64)
    if level == "interval":
        return (places[:, None] - places) ** 2
    middle = np.cumsum(n, -1) - n / 2  # of the ranks of a category
    return (middle[..., :, None] - middle[..., None, :]) ** 2


def _fleiss(sums: Array) -> Array:
    observed = ratio(sums[..., 0], sums[..., 1])
    counts = sums[..., 2:]
    chance = (ratio(counts, counts.sum(-1, keepdims=True)) ** 2).sum(-1)
    return ratio(observed - chance, 1 - chance)


def _kappa(sums: Array, *, values: int, weights: str) -> Array:
    table = sums.reshape(*sums.shape[:-1], values, values)
    places = np.arange(values)
    apart = np.abs(places[:, None] - places).astype(np.float64)
    apart = {"none": (apart > 0).astype(np.float64), "linear": apart, "quadratic": apart**2}[weights]
    n = table.sum((-2, -1))
    chance = table.sum(-1)[..., :, None] * table.sum(-2)[..., None, :]
    return 1 - ratio((table * apart).sum((-2, -1)) * n, (chance * apart).sum((-2, -1)))


def _log_strengths(wins: Array, prior: float) -> Array:
    """The likeliest log-strengths ``[...,S]`` (Hunter 2004) of ``wins [...,S,S]`` and ``prior`` ties for every pair."""
    systems = wins.shape[-1]
    others = 1 - np.eye(systems)
    wins = (wins + prior / 2) * others
    games = wins + np.swapaxes(wins, -1, -2)
    strength = np.ones((*wins.shape[:-2], systems))
    for _ in range(_STEPS):
        together = strength[..., :, None] + strength[..., None, :]
        new = wins.sum(-1) / (games / together).sum(-1)
        new /= np.exp(np.log(new).mean(-1, keepdims=True))
        done = np.abs(np.log(new) - np.log(strength)).max() < 1e-10
        strength = new
        if done:
            break
    return np.log(strength)
