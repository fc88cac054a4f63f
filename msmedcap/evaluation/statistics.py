"""How sure a score is, and whether two systems differ: bootstrap intervals and paired randomisation, by patient.

Pictures of one patient are alike, so that patients (groups), not pictures, are drawn. Comes in: a number per case, or, for a
score that is no mean (corpus BLEU, F1, a balanced accuracy), the counts per case whose sums it is computed from: then the score
of every resample is exact. NaN marks a case that a mean does not count. Goes out: the value with its 95 % percentile interval
(Efron 1979), or the difference of two systems with its interval and the two-sided p of approximate randomisation (Noreen 1989),
which swaps the systems' outputs patient by patient. Seeds are fixed: the same cases give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
Statistic: TypeAlias = Callable[[Array], Array]
"""Sums ``[..., K]`` over cases to scores ``[...]``."""

DRAWS = 1000
SWAPS = 4999
LEVEL = 95.0
_AT_ONCE = 2**21  # random numbers in memory: draws are made in parts


@dataclass(frozen=True)
class Interval:
    """A score and the bounds of its 95 % interval; NaN where no case counts."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """One system's score minus another's, its 95 % interval, and the two-sided p of there being no difference."""

    value: float
    low: float
    high: float
    p: float


def mean(sums: Array) -> Array:
    """The mean of what was summed: ``[..., 2]``, the sum of the values and how many there are."""
    return ratio(sums[..., 0], sums[..., 1])


def ratio(above: Array, below: Array) -> Array:
    """``above / below``, NaN where ``below`` is 0."""
    below = np.asarray(below, dtype=np.float64)
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below != 0)


def bootstrap(
    per_case: Array,
    groups: Sequence[str] | None = None,
    *,
    statistic: Statistic = mean,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """The score of all cases with its interval over ``draws`` resamples of the groups (without: of the cases).

    ``per_case`` is ``[N]`` for a mean, or ``[N,K]`` with the ``statistic`` of its sums. Raises ValueError where ``groups`` do
    not fit.
    """
    sums = group_sums(per_case, groups)
    return interval(sums.sum(0), resample(sums, draws=draws, seed=seed), statistic=statistic)


def paired(
    a: Array,
    b: Array,
    groups: Sequence[str] | None = None,
    *,
    statistic: Statistic = mean,
    draws: int = DRAWS,
    swaps: int = SWAPS,
    seed: int = 0,
) -> Difference:
    """The score of ``a`` minus that of ``b`` on the same cases, ``[N]`` or ``[N,K]``: interval of resampled, p of swapped groups.

    The p of ``swaps`` swaps is never below ``1 / (swaps + 1)``. Raises ValueError where the cases are not the same number.
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(f"{np.shape(a)} and {np.shape(b)} are not scores of the same cases.")
    both = np.stack([group_sums(a, groups), group_sums(b, groups)], axis=1)
    drawn, halves = resample(both, draws=draws, seed=seed), random_halves(both, draws=swaps, seed=seed)
    return difference(both.sum(0), drawn, halves, statistic=statistic)


def interval(total: Array, drawn: Array, *, statistic: Statistic = mean) -> Interval:
    """The score of the sums ``total [K]`` with the percentiles of those of :func:`resample`, ``drawn [draws,K]``."""
    return _interval(float(_scores(statistic, total)), _scores(statistic, drawn))


def difference(total: Array, drawn: Array, halves: Array, *, statistic: Statistic = mean) -> Difference:
    """The first system's score minus the second's, of the sums ``total [2,K]``.

    ``drawn [draws,2,K]`` are those of :func:`resample`, ``halves [swaps,2,K]`` those of :func:`random_halves`, whose groups
    the two systems exchange.
    """
    first, second = _scores(statistic, total)
    found = _interval(float(first - second), np.subtract(*np.moveaxis(_scores(statistic, drawn), -1, 0)))
    moved = halves[:, 1] - halves[:, 0]
    swapped = _scores(statistic, total[0] + moved) - _scores(statistic, total[1] - moved)
    return Difference(found.value, found.low, found.high, _p(found.value, swapped))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979) of the p of one family of tests; NaN stays and does not count."""
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    order = [i for i in np.argsort(values, kind="stable") if not np.isnan(values[i])]
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, float(values[index]) * (len(order) - rank)))
        adjusted[index] = highest
    return [float(v) for v in adjusted]


def group_sums(per_case: Array, groups: Sequence[str] | None) -> Array:
    """The sums ``[G,K]`` of each group's counts, groups in the order they come; of ``[N]`` the values and how many there are."""
    counts = np.asarray(per_case, dtype=np.float64)
    if counts.ndim == 1:
        held = ~np.isnan(counts)
        counts = np.stack([np.where(held, counts, 0.0), held], axis=1)
    if groups is None:
        return counts
    if len(groups) != len(counts):
        raise ValueError(f"{len(groups)} groups for {len(counts)} cases.")
    number = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    sums = np.zeros((len(number), counts.shape[1]))
    np.add.at(sums, np.fromiter((number[name] for name in groups), dtype=np.int64, count=len(counts)), counts)
    return sums


def resample(sums: Array, *, draws: int = DRAWS, seed: int = 0) -> Array:
    """The sums ``[draws,...]`` over as many groups as there are, drawn with replacement from ``sums [G,...]``."""
    generator = np.random.default_rng(seed)
    size = len(sums)

    def weights(count: int) -> Array:
        drawn = generator.integers(0, size, (count, size))
        drawn += np.arange(count)[:, None] * size
        return np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size)

    return _weighted(sums, draws, weights)


def random_halves(sums: Array, *, draws: int = SWAPS, seed: int = 0) -> Array:
    """The sums ``[draws,...]`` over a random half of the groups: each is in with probability 1/2, by itself."""
    generator = np.random.default_rng([seed, 1])  # not the numbers of the resamples

    def weights(count: int) -> Array:
        bits = np.unpackbits(generator.integers(0, 256, (count, -(-len(sums) // 8)), dtype=np.uint8), axis=1)
        return bits[:, : len(sums)]

    return _weighted(sums, draws, weights)


def _weighted(sums: Array, draws: int, weights: Callable[[int], Array]) -> Array:
    """``weights [draws,G]``, made for a part of the draws at a time, times ``sums [G,...]``."""
    flat = sums.reshape(len(sums), -1).astype(np.float64)
    most = max(1, _AT_ONCE // max(1, len(sums)))
    parts = []
    for start in range(0, draws if len(sums) else 0, most):
        parts.append(weights(min(most, draws - start)).astype(np.float64) @ flat)
    return np.concatenate([np.zeros((0, flat.shape[1])), *parts]).reshape(-1, *sums.shape[1:])


def _p(value: float, swapped: Array) -> float:
    if np.isnan(value):
        return float("nan")
    # Sums in another order differ in their last bits; what is as far off as the value counts as such.
    slack = 1e-9 * max(1.0, abs(value))
    return float((1 + np.count_nonzero(~(np.abs(swapped) < abs(value) - slack))) / (1 + len(swapped)))


def _interval(value: float, drawn: Array) -> Interval:
    drawn = drawn[np.isfinite(drawn)]
    if np.isnan(value) or not len(drawn):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.percentile(drawn, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def _scores(statistic: Statistic, sums: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(statistic(sums), dtype=np.float64)
