"""Who sees which case when, and under which letter each system's caption stands.

Comes in: how many cases and systems, which reader, the study's seed. Goes out: a reader's :class:`Slot` list, which stays on the
server. The letters are rows of Latin squares: over a reader's cases every system stands under every letter equally often (or once
more), and so it does over the readers of one case. The square is dealt to the cases by the seed, so that no row tells another.
A share of the cases comes a second time, far from the first and under other letters: what a reader repeats measures the reader.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

LETTERS = "ABCDE"
OWNER = "owner"  # who may see the results; no reader can be called so
FEWEST_FOR_REPEATS = 6


@dataclass(frozen=True)
class Slot:
    """One showing of a case: ``order[i]`` is the number of the system whose caption stands under ``LETTERS[i]``.

    ``place`` counts a reader's showings from 0; ``stage`` is 1, or 2 where maps are shown; ``repeats`` is the place of the first
    showing where this is a second one.
    """

    place: int
    stage: int
    case: int
    order: tuple[int, ...]
    repeats: int | None = None


def plan(
    cases: int, systems: int, *, reader: int, seed: int, repeats: float = 0.1, second_stage: bool = False
) -> list[Slot]:
    """What ``reader`` (counted from 0) sees, in order; the same for the same numbers.

    Raises ValueError where there is no case, or not 2 to 5 systems.
    """
    if cases < 1 or not 2 <= systems <= len(LETTERS):
        raise ValueError(f"{cases} cases and {systems} systems are no study.")
    slots: list[Slot] = []
    shuffled = random.Random(f"{seed}/order/1/{reader}").sample(range(cases), cases)
    rows = _Rows(cases, systems, seed, stage=1)
    again = _repeated(shuffled, repeats, random.Random(f"{seed}/repeats/{reader}"))
    first: dict[int, int] = {}
    for place, case in enumerate(again):
        seen = first.get(case)
        slots.append(Slot(place, 1, case, rows.order(case, reader, again=seen is not None), seen))
        first.setdefault(case, place)
    if second_stage:
        rows = _Rows(cases, systems, seed, stage=2)
        shuffled = random.Random(f"{seed}/order/2/{reader}").sample(range(cases), cases)
        slots += [Slot(len(again) + i, 2, case, rows.order(case, reader)) for i, case in enumerate(shuffled)]
    return slots


class _Rows:
    """The rows of the Latin squares dealt to the cases: a rotation of a drawn order of the systems, or of its mirror image."""

    def __init__(self, cases: int, systems: int, seed: int, *, stage: int) -> None:
        deal = random.Random(f"{seed}/letters/{stage}")
        self._base = deal.sample(range(systems), systems)
        dealt = [(case % systems, case // systems % 2) for case in range(cases)]
        self._dealt = deal.sample(dealt, cases)

    def order(self, case: int, reader: int, *, again: bool = False) -> tuple[int, ...]:
        """The systems under the letters of ``case``; the next reader, or a second showing, has the square's next row."""
        count = len(self._base)
        rotation, mirror = self._dealt[case]
        rotation += reader + again
        base = self._base[::-1] if (mirror + reader // count) % 2 else self._base
        return tuple(base[(i + rotation) % count] for i in range(count))


def _repeated(order: Sequence[int], share: float, draw: random.Random) -> list[int]:
    """``order`` with ``share`` of its cases once more: taken from the first third of it, put into the last."""
    cases = len(order)
    third = cases // 3
    if share <= 0 or cases < FEWEST_FOR_REPEATS:
        return list(order)
    count = min(third, max(1, round(cases * share)))
    out = list(order)
    for case in draw.sample(order[:third], count):
        out.insert(draw.randint(cases - third, len(out)), case)
    return out
