"""Which cases Fig. 4 shows: by their ids, or by a rule that is printed with how many cases it chose from.

Comes in: the rows of a captions file (:mod:`~msmedcap.evaluation.captions_file`). Goes out: a :class:`Choice`. By default the
failures stand beside the best, so that the figure does not flatter by what it leaves out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from msmedcap.config import UserError
from msmedcap.evaluation.figure4.marks import f1
from msmedcap.evaluation.paper import ROWS, place
from msmedcap.systems import SYSTEMS

Row = Mapping[str, Any]
COUNT = 3


@dataclass(frozen=True)
class Entry:
    """What a rule goes by: a case's id, its group, and the facts F1 of the first system and of the second."""

    id: str
    group: str
    first: float
    second: float


@dataclass(frozen=True)
class Rule:
    """A way to choose cases: ``title`` heads them, ``sentence`` says it, ``key`` orders the entries, the first are taken.

    ``{a}`` and ``{b}`` in the words are the two systems.
    """

    title: str
    sentence: str
    key: Callable[[Entry], tuple[Any, ...]]


RULES: dict[str, Rule] = {
    "best": Rule(
        "Where {a} is furthest ahead of {b}",
        "in which the clinical-facts F1 of {a} exceeds that of {b} most (ties by id)",
        lambda entry: (entry.second - entry.first, entry.id),
    ),
    "failures": Rule(
        "Where {a} fails",
        "with the lowest clinical-facts F1 of {a} (ties: the higher F1 of {b} first, then by id)",
        lambda entry: (entry.first, -entry.second, entry.id),
    ),
    "random": Rule(
        "Drawn by lot",
        "drawn by lot (the order of the SHA-256 of their ids)",
        lambda entry: (hashlib.sha256(entry.id.encode()).hexdigest(), entry.id),
    ),
}
BOTH = ("best", "failures")
RULE_NAMES = ("both", *RULES)


@dataclass(frozen=True)
class Choice:
    """The chosen rows with the heading each stands under, and the sentences that say how they were chosen."""

    rows: tuple[tuple[str, Row], ...]
    note: str


def default_systems(known: Sequence[str]) -> tuple[str, ...]:
    """The systems to show of those ``known``: the three, each by its own name or by that of the paper's row with M; else all."""
    chosen = []
    for system in SYSTEMS:
        rows = [row.stem for row in reversed(ROWS) if row.system == system]
        chosen += [name for name in (system, *rows) if name in known][:1]
    return tuple(chosen) or tuple(known)


def choose(
    rows: Iterable[Row],
    rule: str = "both",
    *,
    count: int = COUNT,
    ids: Sequence[str] = (),
    systems: Sequence[str] = ("MSMedCap", "BLIP2"),
    source: str = "",
) -> Choice:
    """The rows of a captions file to show: ``ids``, else ``count`` by ``rule`` ("both": the best and the failures).

    The first two of ``systems`` are compared. Rules take readable pictures whose references state a fact and which all of
    ``systems`` captioned, at most one of a group. ``rows`` are gone through twice. Raises :class:`UserError` for an unknown
    rule or id and where there is nothing to choose from.
    """
    if ids:
        found = {row["id"]: row for row in rows if row["id"] in set(ids)}
        if missing := [name for name in ids if name not in found]:
            raise UserError(f"There is no case {missing[0]!r} among the captions{f' of {source}' if source else ''}.")
        return Choice(tuple(("", found[name]) for name in ids), f"{_cases(len(ids))}{_of(source)}, chosen by hand.")
    if rule not in RULES and rule != "both":
        raise UserError(
            f"There is no rule {rule!r} to choose cases from captions by; there are both, {', '.join(RULES)}."
        )
    if len(systems) < 2:
        raise UserError("A rule compares two systems; name them with --systems A,B, or choose the cases with --ids.")
    entries, read = _entries(rows, systems)
    if not entries:
        raise UserError(
            f"None of the {read:,} cases has a readable picture, a reference that states a fact and captions of all systems."
        )
    return _by_rules(rows, BOTH if rule == "both" else (rule,), entries, read, count, systems, source)


def _entries(rows: Iterable[Row], systems: Sequence[str]) -> tuple[list[Entry], int]:
    entries, read = [], 0
    for row in rows:
        read += 1
        captions = row["captions"]
        if row["error"] is None and row["references"] and all(captions.get(system) for system in systems):
            first, second = (f1(row["references"], captions[system]) for system in systems[:2])
            if not math.isnan(first + second):
                entries.append(Entry(row["id"], row["group"], first, second))
    return entries, read


def _by_rules(
    rows: Iterable[Row],
    names: Sequence[str],
    entries: Sequence[Entry],
    read: int,
    count: int,
    systems: Sequence[str],
    source: str,
) -> Choice:
    words = dict(zip("ab", (shown(system) for system in systems[:2]), strict=True))
    taken: list[tuple[str, str]] = []
    groups: set[str] = set()
    parts = []
    for name in names:
        rule = RULES[name]
        section = rule.title.format(**words)
        before = len(taken)
        for entry in sorted(entries, key=rule.key):
            if len(taken) - before == count:
                break
            if entry.group not in groups:
                groups.add(entry.group)
                taken.append((section, entry.id))
        number = len(taken) - before
        if number:
            which = f"the {number} cases" if number > 1 else "the case"
            parts.append(f"{letters(before, len(taken))}: {which} {rule.sentence.format(**words)}")
    wanted = {name for _, name in taken}
    found = {row["id"]: row for row in rows if row["id"] in wanted}
    patients = len({entry.group for entry in entries})
    note = f"Chosen from {_cases(len(entries))}{_of(source)} ({patients:,} patients or groups of near-duplicates)"
    if read > len(entries):
        note += f"; {read - len(entries):,} more have no readable picture, no caption or no fact to compare"
    note += f"; at most one of each group. {'; '.join(parts)}. {_standing(entries, words)}"
    return Choice(tuple((section, found[name]) for section, name in taken), note)


def _standing(entries: Sequence[Entry], words: Mapping[str, str]) -> str:
    """How the two systems stand over all the cases, whatever the figure shows."""
    ahead = sum(entry.first > entry.second for entry in entries)
    behind = sum(entry.first < entry.second for entry in entries)
    means = [fmean(values) for values in zip(*((entry.first, entry.second) for entry in entries), strict=True)]
    return (
        f"Over all of them the F1 of {words['a']} is higher in {ahead:,}, equal in {len(entries) - ahead - behind:,} and lower in "
        f"{behind:,}; the mean is {means[0]:.2f} against {means[1]:.2f}."
    )


def shown(system: str) -> str:
    """A system's name in the figure: that of its row of Table 1 where it is one."""
    found = place(system).row
    return found.name if found else system


def letters(start: int, stop: int) -> str:
    """The letters of panels ``start`` to ``stop``: "a", "a–c"."""
    return letter(start) if stop - start == 1 else f"{letter(start)}–{letter(stop - 1)}"


def letter(number: int) -> str:
    """a, b, … z, aa, ab, …"""
    head, last = divmod(number, 26)
    return (letter(head - 1) if head else "") + chr(ord("a") + last)


def _cases(number: int) -> str:
    return f"{number:,} case{'' if number == 1 else 's'}"


def _of(source: str) -> str:
    return f" of {source}" if source else ""
