"""The paper's own three Fig. 4 cases, found in a user's ROCO or MedICaT without a word of the paper in here.

Comes in: a data set's cases. Goes out: those whose caption is the ground truth of a panel of the paper's Fig. 4.
:data:`PAPER` holds SHA-256 hashes of the normalised captions (:func:`normalised`), once with single spaces between the words
and once with none, so that a space lost or won in print does not matter.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from msmedcap.config import UserError
from msmedcap.data.sets import READERS, Case

_LABEL = re.compile(r"^(?:supplementary )?fig(?:ure|s)? ?s?\d+ ?(?:[a-h] )?")


@dataclass(frozen=True)
class PaperCase:
    """A panel of the paper's Fig. 4 (a, b, c from the left): the hashes of its ground truth with single spaces and with none."""

    panel: str
    spaced: str
    joined: str


PAPER: tuple[PaperCase, ...] = (
    PaperCase(
        "a",
        spaced="4cd9a37ea662ce5e9264ec6219027e264c84482ad5b6cd7155d105551974672a",
        joined="90c4f397674506a38fec4acf464f962db11f23771af5fbff86568a6a2616e9d5",
    ),
    PaperCase(
        "b",
        spaced="b049b65661aa5ce6879c4803deadcb11019aa9a97606ecabeba533d6c8e126d1",
        joined="d823a03c05a2a950a526845dda0aef2ed53a4668c757b7a56a07db280ea0919f",
    ),
    PaperCase(
        "c",
        spaced="b9085ae83be141b9327ac448778f31d70cf0f79970b7f2051d20895add467c7a",
        joined="a0b5db3a90a891aace6275e580901c5bad1d4076775f1ae2d8f621ba1007d6fa",
    ),
)


class HasReferences(Protocol):
    """What is read of a case."""

    @property
    def references(self) -> tuple[str, ...]:
        """Everything that was said of the picture."""


C = TypeVar("C", bound=HasReferences)


def normalised(text: str) -> str:
    """``text`` in lower case, letters and digits only (accents dropped), words parted by single spaces."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return " ".join(re.sub(r"[\W_]+", " ", plain).split())


def hashes(text: str) -> set[str]:
    """What ``text`` may be known by: its normal form and that without a leading "Figure N", each with spaces and without."""
    whole = normalised(text)
    forms = {whole, _LABEL.sub("", whole)} - {""}
    return {digest(form) for form in forms} | {digest(form.replace(" ", "")) for form in forms}


def digest(form: str) -> str:
    """SHA-256 of a normal form, as hexadecimal text."""
    return hashlib.sha256(form.encode()).hexdigest()


def find(cases: Iterable[C], *, paper: tuple[PaperCase, ...] = PAPER) -> dict[str, C]:
    """The first case of each panel of ``paper``, by panel in its order; a panel without a case is left out."""
    panel = {known: case.panel for case in paper for known in (case.spaced, case.joined)}
    found: dict[str, C] = {}
    for case in cases:
        for text in case.references:
            for known in hashes(text) & panel.keys():
                found.setdefault(panel[known], case)
        if len(found) == len(paper):
            break
    return {case.panel: found[case.panel] for case in paper if case.panel in found}


def search(data: Mapping[str, Path], *, paper: tuple[PaperCase, ...] = PAPER) -> dict[str, Case]:
    """:func:`find` in every split of the data sets ``data`` (name to folder), in their order.

    Raises :class:`UserError` for an unknown data set and where none of them holds a case of the paper.
    """
    found = find(_all_cases(data), paper=paper)
    if not found:
        raise UserError(
            f"None of the paper's Fig. 4 cases is in {', '.join(data)}; they are in ROCO or MedICaT: name the whole set "
            "(--data roco=PATH), or choose cases by a rule (--rule best) or by their ids (--ids A,B)."
        )
    return found


def _all_cases(data: Mapping[str, Path]) -> Iterator[Case]:
    for name, path in data.items():
        if name not in READERS:
            raise UserError(f"There is no reader for a dataset named {name!r}; there are {', '.join(READERS)}.")
        if not path.exists():
            raise UserError(f"The dataset folder {path} does not exist.")
        for cases in READERS[name](path).values():
            yield from cases
