"""Named selections: the paper's sample sizes, drawn by article, the same on every machine.

Section 3.1 of the paper trains on 60,000 pictures of ROCO and 100,000 of MedICaT and tests on 8,000 and 50,000, without saying
which. Comes in: a data set's splits. Goes out: the cases of a selection. Articles are taken in the order of a seeded hash of
their name, so that a selection depends on nothing else: a picture added to the set can take a place, it cannot stir the others.
No article stands in two selections of one set. ROCO's official splits part articles: the test selection comes from the test
split alone, the train selection passes its articles over and makes up the number from the validation split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from msmedcap.config import UserError
from msmedcap.data.sets.case import Case


@dataclass(frozen=True)
class Selection:
    """``count`` cases (0: all) of the data set ``reader``, taken from ``splits`` one after the other.

    ``apart`` names the selections whose articles are passed over; only cases that have all facts of ``where`` count.
    """

    reader: str
    splits: tuple[str, ...]
    count: int
    apart: tuple[str, ...] = ()
    where: tuple[tuple[str, str], ...] = ()
    seed: int = 0


_RADIOLOGY = (("radiology", "yes"),)
SELECTIONS: dict[str, Selection] = {
    "paper-roco-test": Selection("roco", ("test",), 8_000),
    "paper-roco-train": Selection("roco", ("train", "val"), 60_000, apart=("paper-roco-test",)),
    "roco-val": Selection("roco", ("val",), 0, apart=("paper-roco-train", "paper-roco-test")),
    "paper-medicat-test": Selection("medicat", ("test",), 50_000),
    "paper-medicat-train": Selection("medicat", ("train",), 100_000),
    "medicat-radiology-train": Selection("medicat", ("train",), 0, where=_RADIOLOGY),
    "medicat-radiology-val": Selection("medicat", ("val",), 0, where=_RADIOLOGY),
    "medicat-radiology-test": Selection("medicat", ("test",), 0, where=_RADIOLOGY),
}


def select(name: str, splits: Mapping[str, Sequence[Case]], *, take_all: bool = False) -> list[Case]:
    """The cases of the selection ``name`` from a data set's ``splits``, in the order of their draw.

    Where there are fewer than the selection asks for, ``take_all`` takes what there is. Raises :class:`UserError` for an
    unknown name and, without ``take_all``, for too few cases.
    """
    chosen = SELECTIONS[_known(name)]
    passed = {case.group for other in chosen.apart for case in select(other, splits, take_all=True)}
    wanted = dict(chosen.where)
    found: list[Case] = []
    for split in chosen.splits:
        fitting = (
            case
            for case in splits.get(split, ())
            if case.group not in passed and all(case.facts.get(k) == v for k, v in wanted.items())
        )
        left = chosen.count - len(found) if chosen.count else None
        found += _in_order(fitting, chosen.seed)[:left]
    if len(found) < chosen.count and not take_all:
        raise UserError(
            f"{name} asks for {chosen.count:,} pictures and there are {len(found):,}; "
            "fetch the rest of the set, or allow fewer."
        )
    return found


def _known(name: str) -> str:
    if name not in SELECTIONS:
        raise UserError(f"There is no selection named {name!r}; there are {', '.join(SELECTIONS)}.")
    return name


def _in_order(cases: Iterable[Case], seed: int) -> list[Case]:
    """``cases`` with articles in the order of a hash, a whole article after the other."""
    return sorted(
        cases, key=lambda case: (_hash(f"{seed}/{case.group}"), case.group, _hash(f"{seed}/{case.id}"), case.id)
    )


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()[:8]
