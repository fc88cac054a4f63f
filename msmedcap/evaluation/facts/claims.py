"""What a caption claims: modality, plane, view, body part, findings (present, absent, uncertain), devices, and their sides.

Comes in: the text of a caption. Goes out: its :class:`Claims`, each with its place in the text, so that a page can mark it.
The words are those of :mod:`~msmedcap.evaluation.facts.lexicon`, negation is :mod:`~msmedcap.evaluation.facts.scope`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from msmedcap.evaluation.facts.lexicon import Lexicon, Meaning, Token, lexicon
from msmedcap.evaluation.facts.scope import STATEABLE, Span, set_states, words
from msmedcap.evaluation.facts.sides import set_sides

KINDS = ("modality", "plane", "view", "part", "side", "finding", "absent", "device")
STATES = ("present", "uncertain", "absent")  # of two statements about one finding the first of these counts
_NORMAL = words("normal unremarkable negative")
_STUDIES = words("study examination exam scan scans image images imaging film radiograph appearance")
_IS = words("is was are were appears appeared")
_VERBS = words("is was are were show shows showed showing demonstrates demonstrated demonstrating reveals has")
_OPENS = words("otherwise other additional further new associated else rest remaining remainder")
_FLIPPED = {"absent": "present", "uncertain": "uncertain"}

Key = str | tuple[str, str]


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim: ``kind`` is modality, plane, view, part, finding or device; ``state`` present, absent or uncertain.

    ``side`` is left, right, bilateral or empty. ``start`` and ``end`` are the places of its words in the text.
    """

    kind: str
    value: str
    state: str = "present"
    side: str = ""
    start: int = 0
    end: int = 0


@dataclass(frozen=True)
class Claims:
    """The claims of one text in its order; ``keys`` is what is counted."""

    items: tuple[Claim, ...] = ()
    _lexicon: Lexicon = field(default_factory=lexicon, repr=False, compare=False)

    def __iter__(self) -> Iterator[Claim]:
        """The claims in the text's order."""
        return iter(self.items)

    def __len__(self) -> int:
        """How many claims there are."""
        return len(self.items)

    @cached_property
    def states(self) -> dict[tuple[str, str], str]:
        """(kind, value) of findings and devices → the state that counts: present before uncertain before absent."""
        found: dict[tuple[str, str], str] = {}
        for claim in self.items:
            if claim.kind in STATEABLE:
                key = claim.kind, claim.value
                if STATES.index(claim.state) < STATES.index(found.get(key, "absent")) or key not in found:
                    found[key] = claim.state
        denied = [v for v in self._lexicon.umbrellas if found.get(("finding", v)) == "absent"]
        for value in [v for v in denied if self._is_broken(v, found)]:
            del found["finding", value]
        return found

    @cached_property
    def keys(self) -> dict[str, frozenset[Key]]:
        """Kind of :data:`KINDS` → what is claimed. ``finding`` and ``device`` hold what is present or uncertain and what it
        implies, ``absent`` the findings and devices denied, ``side`` pairs (finding, device or part; left or right).
        """
        keys: dict[str, set[Key]] = {kind: set() for kind in KINDS}
        for claim in self.items:
            if claim.kind not in STATEABLE:
                keys[claim.kind] |= {claim.value, *self._lexicon.ancestors(claim.kind, claim.value)}
            for side in ("left", "right") if claim.side == "bilateral" else (claim.side,) if claim.side else ():
                if claim.state != "absent":
                    keys["side"].add((claim.value, side))
        for (kind, value), state in self.states.items():
            if state == "absent":
                keys["absent"].add(value)
            elif value not in self._lexicon.umbrellas:
                keys[kind] |= {value, *self._lexicon.ancestors(kind, value)} - self._lexicon.umbrellas
        return {kind: frozenset(found) for kind, found in keys.items()}

    @cached_property
    def implied_parts(self) -> frozenset[Key]:
        """The body parts that the findings imply without a word for it: pneumonia is in the lung, and so in the chest."""
        found = (p for c in self.items if c.kind == "finding" for p in self._lexicon.parts["finding", c.value])
        return frozenset(a for part in found for a in (part, *self._lexicon.ancestors("part", part)))

    @cached_property
    def umbrellas(self) -> frozenset[str]:
        """The kinds of abnormality that the present findings belong to; a normal study contradicts them."""
        present = (v for (kind, v), state in self.states.items() if kind == "finding" and state == "present")
        return frozenset(u for v in present for u in (*self._lexicon.ancestors("finding", v), "abnormality"))

    def _is_broken(self, umbrella: str, states: dict[tuple[str, str], str]) -> bool:
        """Whether the text itself names a finding of the kind it calls absent: "no abnormality except a nodule"."""
        present = (v for (kind, v), state in states.items() if kind == "finding" and state != "absent")
        return any(
            umbrella == "abnormality" or umbrella in self._lexicon.ancestors("finding", value)
            for value in present
            if value not in self._lexicon.umbrellas
        )


def claims(text: str) -> Claims:
    """What ``text`` claims, in its order; empty for a text without a word of the lexicon."""
    known = lexicon()
    found: list[Claim] = []
    for tokens in known.sentences(text):
        spans = _spans(known, tokens)
        set_states(tokens, spans)
        set_sides(tokens, spans)
        for span in spans:
            found += _claims_of(known, tokens, span)
        found += _normal_study(tokens, spans)
    return Claims(tuple(found), known)


def _spans(known: Lexicon, tokens: Sequence[Token]) -> list[Span]:
    spans: list[Span] = []
    at = 0
    while at < len(tokens):
        match = known.match(tokens, at)
        if match is None:
            at += 1
            continue
        span = _span(at, at + match.length, match.meanings)
        if span is not None:
            spans.append(span)
        at += match.length
    return spans


def _span(start: int, end: int, meanings: Sequence[Meaning]) -> Span | None:
    if any(m.role == "skip" for m in meanings):
        return None
    terms = tuple(m for m in meanings if m.role not in ("cue", "side"))
    cue = next((m.value for m in meanings if m.role == "cue"), "")
    side = next((m.value for m in meanings if m.role == "side"), "")
    return None if cue == "pseudo" else Span(start, end, terms, "" if terms else cue, side)


def _claims_of(known: Lexicon, tokens: Sequence[Token], span: Span) -> Iterator[Claim]:
    start, end = tokens[span.start].start, tokens[span.end - 1].end
    side = "" if not span.sides else span.sides[0] if len(span.sides) == 1 else "bilateral"
    kinds = {term.role for term in span.terms}
    if span.end - span.start > 1 and kinds - {"part", "device"}:
        for kind, value, _ in known.named(tokens[span.start : span.end]):
            if kind not in kinds:
                yield Claim(kind, value, "present", "", start, end)
    for kind, value, said in span.terms:
        if kind not in STATEABLE:
            yield Claim(kind, value, "present", side if kind == "part" else "", start, end)
            continue
        state = _FLIPPED.get(span.state, "absent") if said == "absent" else span.state or "present"
        if value not in known.umbrellas or _is_global(tokens, span, state, value):
            yield Claim(kind, value, state, side, start, end)


def _is_global(tokens: Sequence[Token], span: Span, state: str, value: str) -> bool:
    """Whether a denied abnormality is a statement of the whole study: not "no other finding", "otherwise normal"."""
    if state != "absent":
        return value != "abnormality" and state == "present"
    return not any(token.word in _OPENS for token in tokens[: span.end])


def _normal_study(tokens: Sequence[Token], spans: Sequence[Span]) -> Iterator[Claim]:
    """No abnormality at all: "Normal.", "Normal axial CT of the brain", "The chest X-ray is unremarkable"."""
    said = [token.word for token in tokens]
    if any(span.stateable or span.cue for span in spans) or _OPENS & set(said):
        return
    studies = [span.start for span in spans if any(term.role == "modality" for term in span.terms)]
    studies += [i for i, word in enumerate(said) if word in _STUDIES]
    inside = {i for span in spans for i in range(span.start, span.end)}
    for i, word in enumerate(said):
        if word not in _NORMAL:
            continue
        before = bool(i) and said[i - 1] in _IS and any(s < i for s in studies) and not _VERBS & set(said[: i - 1])
        ahead = next((j for j in range(i + 1, len(said)) if j not in inside or j in studies), len(said))
        if len(said) == 1 or before or ahead in studies:
            yield Claim("finding", "abnormality", "absent", "", tokens[i].start, tokens[i].end)
            return
