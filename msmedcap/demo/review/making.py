"""A study from scans or from a run: cases with blind captions, readers with their order, secrets to hand out.

Comes in: a folder of scans and a predictor that captions them, or the cases of a captions file and where their pictures lie. Goes
out: a :class:`~msmedcap.demo.store.NewStudy` to keep, and who may enter it with which secret: shown once, kept only as a hash.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msmedcap.config import UserError
from msmedcap.data.scans import Scan, ScanError, open_scan
from msmedcap.demo.cases.library import Library
from msmedcap.demo.review import forms
from msmedcap.demo.review.blind import blind_captions, combined_maps, picture_png
from msmedcap.demo.review.design import LETTERS, OWNER, plan
from msmedcap.demo.serving.accounts import hash_password
from msmedcap.demo.store import NewCase, NewReader, NewStudy

if TYPE_CHECKING:
    from msmedcap.predictor import Predictor


INSTRUCTIONS = (
    "You see one scan at a time and what several systems wrote about it, in an order that changes from case to case. Judge each "
    "caption by the scan. Some cases come twice. Every change is saved at once; you can stop at any time and go on later."
)
Skipped = Callable[[str, Exception], None]
_FACTS = ("Modality", "BodyPartExamined", "Laterality", "ViewPosition")


@dataclass(frozen=True)
class Plan:
    """What a study is to be, apart from its cases. ``readers``: names, or names with a hash of their secret.

    ``repeats`` is the share of cases shown twice; ``seed`` draws orders and letters, and stays on the server.
    """

    title: str
    readers: Mapping[str, str | None]
    repeats: float = 0.1
    second_stage: bool = False
    seed: int = field(default_factory=lambda: secrets.randbits(63))
    instructions: str = INSTRUCTIONS

    def __post_init__(self) -> None:
        if not self.readers:
            raise UserError("A study needs readers; name them with --readers A,B.")
        if not 0 <= self.repeats <= 1 / 3:
            raise UserError("The share of repeated cases is from 0 to 0.33.")
        for name in self.readers:
            if name == OWNER or not name.strip() or len(name) > 60:
                raise UserError(f"{name!r} cannot be a reader's name; choose another.")


@dataclass(frozen=True)
class Made:
    """A study to keep, and the secrets that were drawn, by name; :data:`OWNER` opens the results."""

    study: NewStudy
    secrets: Mapping[str, str]


def make_study(
    plan_: Plan, cases: Sequence[NewCase], systems: Sequence[str], *, made_with: Mapping[str, Any] | None = None
) -> Made:
    """The study of ``cases`` and ``systems``; raises :class:`UserError` where there are none, or not 2 to 5 systems."""
    if not cases:
        raise UserError("No case is left for the study; see what was said about each.")
    if not 2 <= len(systems) <= len(LETTERS):
        raise UserError(f"A study compares 2 to {len(LETTERS)} systems; name them with --systems A,B.")
    drawn = {name: new_secret() for name, kept in {**plan_.readers, OWNER: None}.items() if kept is None}
    readers = [
        new_reader(name, kept or hash_password(drawn[name]), number, plan_, cases=len(cases), systems=len(systems))
        for number, (name, kept) in enumerate(plan_.readers.items())
    ]
    study = NewStudy(
        title=plan_.title,
        systems=tuple(systems),
        cases=cases,
        readers=readers,
        owner_hash=hash_password(drawn[OWNER]),
        seed=plan_.seed,
        repeats=plan_.repeats,
        second_stage=plan_.second_stage,
        form_version=forms.VERSION,
        instructions=plan_.instructions,
        made_with=made_with or {},
    )
    return Made(study, drawn)


def new_reader(name: str, secret_hash: str, number: int, plan_: Plan, *, cases: int, systems: int) -> NewReader:
    """The reader ``number`` of a study, with what to see in which order."""
    again, seed = plan_.repeats, plan_.seed
    slots = plan(cases, systems, reader=number, seed=seed, repeats=again, second_stage=plan_.second_stage)
    return NewReader(name, secret_hash, slots)


def new_secret() -> str:
    """A secret to hand out: 80 bits, in groups that can be read aloud."""
    letters = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(4)) for _ in range(4))


def cases_of_scans(
    files: Iterable[tuple[str, Path]],
    predictor: Predictor,
    systems: Sequence[str],
    *,
    skipped: Skipped,
    maps: bool = False,
    limit: int | None = None,
    seed: int = 0,
    preset: str = "fast",
    window: str | None = None,
    allow_burned_in: bool = False,
) -> Iterator[NewCase]:
    """A case for each of ``files`` (name, path), or for ``limit`` of them drawn by ``seed``, captioned now.

    One that cannot be read is left out, and ``skipped`` told.
    """
    files = list(files)
    if limit is not None:
        random.Random(f"{seed}/cases").shuffle(files)
    taken = 0
    for name, path in files:
        if taken == limit:
            return
        try:
            scan = open_scan(path, allow_burned_in=allow_burned_in)
            mine = predictor.fresh().set_scan(scan, window=window)
            captions = mine.captions(systems=systems, preset=preset)
            if lacking := [system for system in systems if not captions.get(system)]:
                raise UserError(f"{lacking[0]} wrote no caption.")
            assert mine.picture is not None
            drawn = combined_maps({system: mine.maps(system=system) for system in systems}) if maps else {}
            picture, width, height = picture_png(mine.picture)
            blind = blind_captions(captions, systems, case=name)
        except Exception as error:  # whatever is wrong with one scan, the others go on
            skipped(name, error)
            continue
        taken += 1
        yield NewCase(name, picture, width, height, blind, drawn, facts=_facts(scan))


def cases_of_run(
    library: Library,
    run: str,
    systems: Sequence[str],
    *,
    skipped: Skipped,
    limit: int | None = None,
    seed: int = 0,
    predictor: Predictor | None = None,
    allow_burned_in: bool = False,
) -> Iterator[NewCase]:
    """A case for each of a run, or for ``limit`` of them drawn by ``seed``, with the captions it holds.

    ``predictor`` draws maps for a second stage. What has no picture or not every caption is left out, and ``skipped`` told.
    """
    entries = list(library.run(run, None).entries)
    random.Random(f"{seed}/cases").shuffle(entries)
    taken = 0
    for entry in entries:
        if taken == limit:
            return
        try:
            if lacking := [system for system in systems if not entry.captions.get(system)]:
                raise UserError(f"The run holds no caption of {lacking[0]} for it.")
            scan = open_scan(library.picture(run, entry), allow_burned_in=allow_burned_in)
            drawn = {}
            if predictor is not None:
                mine = predictor.fresh().set_scan(scan)
                drawn = combined_maps({system: mine.maps(system=system) for system in systems})
            picture, width, height = picture_png(scan.picture())
            blind = blind_captions(entry.captions, systems, case=entry.id)
        except (UserError, ScanError) as error:
            skipped(entry.id, error)
            continue
        taken += 1
        group = f"{entry.source}/{entry.row['group']}"
        yield NewCase(entry.id, picture, width, height, blind, drawn, group=group, facts=_facts(scan))


def _facts(scan: Scan) -> str:
    return " · ".join(scan.facts[name] for name in _FACTS if scan.facts.get(name))
