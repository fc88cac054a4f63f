"""The answers of a study with the letters opened: what each reader said of each system's caption.

Comes in: a store and a study's key. Goes out: :class:`Rated`, for the results and the exports, on the owner's side only. Of every
showing the last row counts, and only where the reader finished the case.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msmedcap.demo.review import forms
from msmedcap.demo.review.design import LETTERS
from msmedcap.demo.store import ReviewStore, Row


@dataclass(frozen=True)
class Showing:
    """A finished case of a reader: ``order`` are the systems' names under A, B, C; ``seconds`` over all visits.

    ``repeats`` is the place of the first showing where this is a second one. ``answers`` are as saved, by letter.
    """

    reader: str
    place: int
    stage: int
    case: int
    group: str
    repeats: int | None
    order: tuple[str, ...]
    answers: Mapping[str, Any]
    seconds: float
    revisions: int

    def of(self, system: str, key: str) -> Any:
        """The answer to ``key`` about a system's caption; None where the reader could not judge it."""
        value = self.answers.get(f"{LETTERS[self.order.index(system)]}.{key}")
        return None if value == forms.CANNOT else value

    @property
    def preference(self) -> str | None:
        """The preferred system's name, tie or all bad; None where the reader could not judge."""
        value = self.answers.get("preference")
        if value in (None, forms.CANNOT):
            return None
        return self.order[LETTERS.index(value)] if value in LETTERS else str(value)


@dataclass(frozen=True)
class Rated:
    """A study's answers: ``showings`` are the finished ones of ``assigned`` by reader, ``rows`` every row ever saved."""

    study: Row
    systems: tuple[str, ...]
    readers: tuple[str, ...]
    assigned: Mapping[str, int]
    cases: Sequence[Row]
    captions: Mapping[tuple[int, int], str]
    showings: Sequence[Showing]
    rows: Sequence[Row]

    def stage(self, number: int) -> list[Showing]:
        """The finished first showings of a stage."""
        return [showing for showing in self.showings if showing.stage == number and showing.repeats is None]

    def same_words(self, case: int, system: str) -> frozenset[str]:
        """The systems whose caption of a case is the same as that of ``system``, itself among them."""
        said = {name: self.captions[case, number].casefold() for number, name in enumerate(self.systems)}
        return frozenset(name for name, text in said.items() if text == said[system])


def read_rated(store: ReviewStore, key: str) -> Rated:
    """The answers of the study ``key``; raises :class:`~msmedcap.config.UserError` where there is none."""
    study = store.study(key)
    systems = tuple(store.systems(study["id"]))
    cases = store.cases(study["id"])
    groups = {row["number"]: row["patient_group"] for row in cases}
    rows = store.ratings(study["id"])
    visits: dict[int, dict[int, float]] = defaultdict(dict)
    for row in rows:
        of_visit = visits[row["assignment_id"]]
        of_visit[row["visit_id"]] = max(of_visit.get(row["visit_id"], 0.0), row["seconds"])
    showings = [
        Showing(
            reader=row["reader"],
            place=row["place"],
            stage=row["stage"],
            case=row["case_number"],
            group=groups[row["case_number"]],
            repeats=row["repeats"],
            order=tuple(systems[number] for number in row["letters"]),
            answers=row["answers"],
            seconds=sum(visits[row["assignment_id"]].values()),
            revisions=row["revision"],
        )
        for row in rows
        if row["latest"] and row["complete"]
    ]
    showings.sort(key=lambda showing: (showing.reader, showing.place))
    readers = store.readers(study["id"])
    assigned = {row["name"]: len(store.showings(row["id"])) for row in readers}
    captions = store.captions(study["id"])
    return Rated(study, systems, tuple(assigned), assigned, cases, captions, showings, rows)
