"""Where our ordering of the models is the paper's and where it is not, pair by pair and metric by metric.

Comes in: a :class:`~msmedcap.evaluation.table1.Table`. Goes out: for every pair of the paper's models that we trained, whether
our difference agrees in sign with the paper's, disagrees, or cannot be told from none; per metric Kendall's tau-b (Kendall
1945) of the two orderings. Higher is better in every column, so a sign is an ordering.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from msmedcap.evaluation.paper import Column
from msmedcap.evaluation.table1 import Difference, Line, Table

AGREES, DISAGREES, OPEN, TIED = "agrees", "disagrees", "not separable", "tied in the paper"


@dataclass(frozen=True)
class Pair:
    """Two models in one column: the paper's difference ``a`` minus ``b``, ours, and the verdict."""

    column: str
    a: str
    b: str
    paper: float
    ours: Difference
    verdict: str


@dataclass(frozen=True)
class Agreement:
    """One column: its pairs, tau-b of the two orderings (NaN where it has none), and tau's bounds by what is not separable.

    ``low`` and ``high`` are what tau would be if every pair that is not separable were ordered against the paper, or with it;
    of the pairs that the paper does not tie.
    """

    column: str
    pairs: tuple[Pair, ...]
    tau: float
    low: float
    high: float

    def count(self, verdict: str) -> int:
        """How many pairs have this verdict."""
        return sum(pair.verdict == verdict for pair in self.pairs)


def agreements(table: Table) -> list[Agreement]:
    """An :class:`Agreement` for each of the paper's columns in which two of its models were trained and measured here."""
    found = []
    for column in table.columns:
        lines = [line for line in table.lines if line.paper and line.ours and column.name in line.ours.cells]
        lines = [line for line in lines if line.paper and column.name in line.paper.printed]
        pairs = [pair for a, b in combinations(lines, 2) if (pair := _pair(table, column, a, b)) is not None]
        if pairs:
            found.append(_agreement(column, lines, pairs))
    return found


def verdict(paper: float, ours: Difference) -> str:
    """What can be said of one pair: ours counts where its interval leaves out 0 and every pair of seeds has its sign."""
    if paper == 0:
        return TIED
    sure = (ours.low > 0 or ours.high < 0) and len(ours.signs) == 1
    if not sure:
        return OPEN
    return AGREES if (ours.value > 0) == (paper > 0) else DISAGREES


def tau_b(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-b of two lists of scores of the same models; NaN where either has only ties."""
    signs = [(_sign(a - b), _sign(c - d)) for (a, c), (b, d) in combinations(list(zip(first, second, strict=True)), 2)]
    untied = sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs)
    return sum(a * b for a, b in signs) / math.sqrt(untied) if untied else math.nan


def _pair(table: Table, column: Column, a: Line, b: Line) -> Pair | None:
    difference = table.differences.get((column.name, a.name, b.name))
    if difference is None or a.paper is None or b.paper is None:
        return None
    printed = round(a.paper.printed[column.name] - b.paper.printed[column.name], 6)
    return Pair(column.name, a.name, b.name, printed, difference, verdict(printed, difference))


def _agreement(column: Column, lines: Sequence[Line], pairs: Sequence[Pair]) -> Agreement:
    printed = [line.paper.printed[column.name] for line in lines if line.paper]
    ours = [line.ours.cells[column.name].value for line in lines if line.ours]
    counts = {kind: sum(pair.verdict == kind for pair in pairs) for kind in (AGREES, DISAGREES, OPEN)}
    told = sum(counts.values())
    low, high = (
        (counts[AGREES] - counts[DISAGREES] + sign * counts[OPEN]) / told if told else math.nan for sign in (-1, 1)
    )
    return Agreement(column.name, tuple(pairs), tau_b(printed, ours), low, high)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
