"""What a metric is and what scoring with it gives: the words that every metric, table and report of this package shares.

Goes out: :class:`Metric` (name, direction, citation, what to beware of), :class:`Scores` (one value per case and the corpus'
value, with what makes the value of a resample exact) and :func:`registry`, every metric there is by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Metric:
    """A metric's entry: ``name`` keys its scores, ``column`` heads its column.

    ``scale`` is the power of ten by which the paper's Table 1 multiplies it (0: as it is), ``source`` who defined it,
    ``misleads`` a sentence for the reader where it is known to reward what is wrong, ``definition`` what it computes.
    """

    name: str
    column: str
    higher_is_better: bool
    scale: int
    source: str
    misleads: str = ""
    definition: str = ""


@dataclass(frozen=True, eq=False)
class Scores:
    """One system's scores by one metric: ``per_case`` float64 ``[N]`` in the cases' order, ``corpus`` the value for all.

    Where the corpus' value is not the mean of the cases', ``counts`` ``[N,K]`` are each case's sufficient statistics and
    ``formula`` maps their sums ``[...,K]`` to corpus values ``[...]``: so the value of any resample is exact.
    """

    corpus: float
    per_case: Array
    counts: Array | None = None
    formula: Callable[[Array], Array] | None = None


def mean_of(per_case: Array) -> Scores:
    """Scores of a metric whose corpus value is the mean over the cases ``[N]``."""
    values = np.asarray(per_case, dtype=np.float64)
    return Scores(float(values.mean()), values)


def registry() -> dict[str, Metric]:
    """Every metric by its name, in the tables' order: words, the challenge's, neural, clinical facts."""
    from msmedcap.evaluation import facts, imageclef, neural, ngrams

    return {metric.name: metric for module in (ngrams, imageclef, neural, facts) for metric in module.METRICS}
