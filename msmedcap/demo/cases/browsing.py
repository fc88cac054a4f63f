"""Choosing among a run's cases: filters, how many cases each choice would leave, and the order. Pure functions, no gradio.

Comes in: a :class:`~msmedcap.demo.cases.runs.Run` and what the visitor :class:`Wanted`. Goes out: positions in the run's cases, and
counts for every choice with all *other* filters in force, so that a count says what a click will show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from msmedcap.demo.cases.runs import Entry, Run
from msmedcap.demo.cases.verdicts import KINDS

ANY = ""
_RIGHT = frozenset({"right"})
ORDERS = {
    "errors": "Most errors first",
    "disagree": "Where systems disagree most",
    "few": "Fewest errors first",
    "file": "As in the file",
}


@dataclass(frozen=True)
class Wanted:
    """The filters; :data:`ANY` leaves one out. ``kind`` is a key of ``KINDS``; ``system`` is the one whose errors count."""

    kind: str = ANY
    system: str = ANY
    modality: str = ANY
    part: str = ANY
    text: str = ""
    order: str = "errors"


@dataclass(frozen=True)
class Found:
    """``order``: positions of the cases, sorted; ``counts``: for each filter, how many cases each of its values would leave."""

    order: tuple[int, ...]
    counts: dict[str, Counter[str]]


def browse(run: Run, wanted: Wanted) -> Found:
    """The cases of ``run`` that are ``wanted``; without a system, a kind of error counts where any system makes it."""
    tests: dict[str, Callable[[Entry], bool]] = {
        "kind": lambda e: wanted.kind == ANY or wanted.kind in kinds(e, wanted.system),
        "modality": lambda e: wanted.modality in (ANY, e.modality),
        "part": lambda e: wanted.part in (ANY, e.part),
    }
    words = wanted.text.lower().split()
    counts: dict[str, Counter[str]] = {name: Counter() for name in tests}
    chosen = []
    for position, entry in enumerate(run.entries):
        if words and not all(word in entry.text for word in words):
            continue
        failed = [name for name, test in tests.items() if not test(entry)]
        if not failed:
            chosen.append(position)
        for name in tests:
            if not failed or failed == [name]:
                counts[name].update(kinds(entry, wanted.system) if name == "kind" else [getattr(entry, name)])
                counts[name][ANY] += 1
    return Found(tuple(_sorted(run, chosen, wanted)), counts)


def kinds(entry: Entry, system: str) -> frozenset[str]:
    """The kinds of error in a case: of ``system``, or of any."""
    if system:
        return entry.errors.get(system, frozenset())
    return frozenset().union(*entry.errors.values())


def error_count(entry: Entry, system: str) -> int:
    """How many errors a case holds: of ``system``, or of all together."""
    if system:
        return len(entry.errors.get(system, _RIGHT) - _RIGHT)
    return sum(len(found - _RIGHT) for found in entry.errors.values())


def disagreement(entry: Entry) -> int:
    """How many kinds of error some systems make in a case and others do not."""
    each = [found - _RIGHT for found in entry.errors.values()]
    return len(frozenset().union(*each) - frozenset(KINDS).intersection(*each))


def _sorted(run: Run, chosen: list[int], wanted: Wanted) -> list[int]:
    def errors(position: int) -> int:
        return error_count(run.entries[position], wanted.system)

    if wanted.order == "few":
        return sorted(chosen, key=errors)
    if wanted.order == "disagree":
        return sorted(chosen, key=lambda p: (-disagreement(run.entries[p]), -errors(p)))
    return chosen if wanted.order == "file" else sorted(chosen, key=lambda p: -errors(p))
