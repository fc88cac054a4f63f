"""Right and wrong facts in a caption, as the places to mark in it.

Comes in: the references of a case and a caption. Goes out: :class:`Said`, the caption with a :class:`Span` for each fact that the
lexicon of :mod:`msmedcap.evaluation.facts` knows, what it missed, and its F1. No matplotlib: a page can mark captions with it too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from msmedcap.evaluation.facts import Claim, Claims, Judged, claims, compare, lexicon, told

SIGNS = {"right": "\u2713", "wrong": "\u2717"}
# Words that say more of an MRI than that it is one; the lexicon does not judge that more.
_SEQUENCE = re.compile(r"\b(?:t[12]|pd|flair|stir|dwi|swi|gre|spgr|fse|diffusion|proton|weighted|echo|fat)", re.I)
_SIDES = {
    "left": re.compile(r"\bleft\w*", re.I),
    "right": re.compile(r"\bright\w*", re.I),
    "bilateral": re.compile(r"\b(?:bilateral\w*|both)\b", re.I),
}


@dataclass(frozen=True)
class Span:
    """A fact in a text: characters ``start`` to ``end``, and whether it is ``right``."""

    start: int
    end: int
    right: bool


@dataclass(frozen=True)
class Said:
    """A text with its facts, the ``missed`` facts it should have named, and a ``score`` to print beside it."""

    text: str
    spans: tuple[Span, ...] = ()
    missed: tuple[str, ...] = ()
    score: str = ""

    def with_signs(self) -> str:
        """The text with a sign after each fact."""
        out, last = "", 0
        for span in self.spans:
            out += f"{self.text[last : span.end]} {SIGNS['right' if span.right else 'wrong']}"
            last = span.end
        return out + self.text[last:]


def marked(truths: Sequence[str], caption: str) -> Said:
    """``caption`` with the facts that ``truths`` (one or several references) support, and those that they do not.

    A side is marked on its own word, so that a finding on the wrong side is right but for its side. The name of a sequence
    is marked right only where a reference has it too.
    """
    said = claims(caption)
    verdicts = compare(told(truths), said)
    places: dict[tuple[int, int], bool] = {}
    for start, end, right in _places(caption, said, verdicts):
        if (
            right
            and _SEQUENCE.match(caption, start)
            and not any(_plain(caption[start:end]) in _plain(t) for t in truths)
        ):
            continue
        places[start, end] = right and places.get((start, end), True)
    spans = tuple(Span(*place, right) for place, right in sorted(places.items()))
    value = _f1(verdicts)
    score = "no fact to compare" if math.isnan(value) else f"facts F1 {value:.2f}"
    return Said(caption, _apart(spans), tuple(_missed(verdicts)), score)


def f1(truths: Sequence[str], caption: str) -> float:
    """The facts F1 of one caption, that of the column "Facts F1"; NaN where neither states a fact the lexicon knows."""
    return _f1(compare(told(truths), claims(caption)))


def _f1(verdicts: Mapping[str, Judged]) -> float:
    right, wrong, left_out, _ = map(sum, zip(*(judged.counts for judged in verdicts.values()), strict=True))
    total = 2 * right + wrong + left_out
    return 2 * right / total if total else math.nan


def _places(caption: str, said: Claims, verdicts: Mapping[str, Judged]) -> Iterator[tuple[int, int, bool]]:
    """Every judged claim's place and whether it is right; those of sides on their own words."""
    for claim in said:
        judged = verdicts["absent" if claim.state == "absent" else claim.kind]
        if (right := _is_right(judged, [claim.value])) is not None:
            yield claim.start, claim.end, right
        sides = ["left", "right"] if claim.side == "bilateral" else [claim.side]
        right = _is_right(verdicts["side"], [(claim.value, side) for side in sides]) if claim.side else None
        if right is not None:
            yield *(_side_word(caption, claim) or (claim.start, claim.end)), right


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _is_right(judged: Judged, keys: Sequence[str | tuple[str, str]]) -> bool | None:
    """None where none of ``keys`` was judged."""
    if any(key in judged.contradicted or key in judged.unsupported for key in keys):
        return False
    return True if any(key in judged.supported for key in keys) else None


def _side_word(caption: str, claim: Claim) -> tuple[int, int] | None:
    """The word for the claim's side that stands closest to it; None where the claim's own words say it ("RLL")."""
    found = [match.span() for match in _SIDES[claim.side].finditer(caption)]
    found = [span for span in found if not (claim.start <= span[0] and span[1] <= claim.end)] if found else []
    return min(found, key=lambda span: max(claim.start - span[1], span[0] - claim.end), default=None)


def _apart(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Spans that do not overlap: of two that do, one that holds both, right where both are."""
    held: list[Span] = []
    for span in spans:
        if held and span.start < held[-1].end:
            last = held.pop()
            span = Span(last.start, max(last.end, span.end), last.right and span.right)
        held.append(span)
    return tuple(held)


def _missed(verdicts: Mapping[str, Judged]) -> Iterator[str]:
    """The facts left out, without those that another of them says already (a kidney is in the abdomen)."""
    for kind, judged in verdicts.items():
        if kind == "side":
            yield from (f"{side} side" for side in sorted({key[1] for key in judged.omitted}))
            continue
        implied = {a for key in judged.omitted for a in lexicon().ancestors(kind, str(key))}
        yield from (f"no {key}" if kind == "absent" else key for key in sorted(map(str, judged.omitted - implied)))
