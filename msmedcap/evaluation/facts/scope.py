"""Negation and doubt: which findings of a sentence its cues govern.

Comes in: the spans of a sentence (terms, cues, sides between plain words). Goes out: for each term its state (absent,
uncertain, or empty for present). A cue in front governs forward until its scope ends; one behind governs the nearest finding
before it and those listed with it. Modality, plane, view and part are never negated by a cue in front: "no mass on CT" is
a CT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msmedcap.evaluation.facts.lexicon import Meaning, Token

STATEABLE = ("finding", "device")


def words(text: str) -> frozenset[str]:
    """The words of ``text`` as a set."""
    return frozenset(text.split())


_BEFORE = {"negates": "absent", "doubts": "uncertain"}
_AFTER = {"negates_after": "absent", "doubts_after": "uncertain"}
JOINS = words("and or nor & / ,")
# After "and" these begin a new statement: "no effusion and the heart is enlarged".
_STARTS = words(
    "a an the there this these those it is are was were has have also shows showed demonstrates demonstrated "
    "reveals revealed with multiple several single large small mild moderate severe extensive massive diffuse "
    "new some"
)
# Behind a finding these close a negated statement: "no fracture is seen with a small effusion".
_CLOSES = words(
    "seen noted identified evident visualized visible detected observed demonstrated appreciated present found with ("
)
_SHOWS = words("shows showed showing demonstrates demonstrating reveals revealed revealing")
_OF = words("of in from within around inside to on")
_THE = words("the this these his her its both")
VERBS = words(
    "is are was were has have had shows showed showing demonstrates demonstrated demonstrating reveals "
    "revealed revealing seen noted there a an the with contains consists represents"
)
_FILLERS = words(
    "of in the a an any small large mild moderate severe acute chronic focal diffuse significant multiple "
    "bilateral adjacent associated new minimal trace tiny subtle obvious definite other mediastinal hilar "
    "within at on upper lower middle lobe lung lungs"
)


@dataclass(slots=True)
class Span:
    """Tokens ``start`` to ``end`` of a sentence that say something: terms, one cue or one side."""

    start: int
    end: int
    terms: tuple[Meaning, ...]
    cue: str = ""
    side: str = ""
    state: str = ""
    sides: tuple[str, ...] = ()

    @property
    def stateable(self) -> bool:
        """Whether it holds a finding or a device, which can be absent."""
        return any(term.role in STATEABLE for term in self.terms)


def set_states(tokens: Sequence[Token], spans: Sequence[Span]) -> None:
    """Give every span with a finding or a device its ``state``: "absent", "uncertain" or "" where no cue governs it."""
    for i, span in enumerate(spans):
        if span.cue in _BEFORE:
            if not _is_flipped(spans, i):
                for governed in _forward(tokens, spans, i):
                    _govern(governed, _BEFORE[span.cue], before=True)
        elif span.cue in _AFTER:
            if span.start and tokens[span.start - 1].word in ("which", "that"):
                continue  # "a mass which is not seen on CT" is a mass
            behind = _backward(tokens, spans, i)
            for governed in behind:
                _govern(governed, _AFTER[span.cue], before=False)
            if not behind or tokens[span.start].word in ("versus", "vs"):
                for governed in _forward(tokens, spans, i)[: None if behind else 1]:
                    _govern(governed, _AFTER[span.cue], before=True)


def _govern(span: Span, state: str, *, before: bool) -> None:
    """``state`` for ``span``: of cues in front the outer one counts, doubt behind counts over all of them."""
    if not span.state or (not before and state == "uncertain"):
        span.state = state


def _is_flipped(spans: Sequence[Span], i: int) -> bool:
    """Whether the cue negates a negation that follows at once ("not free of"), or is itself so negated."""
    span = spans[i]
    after = spans[i + 1] if i + 1 < len(spans) else None
    before = spans[i - 1] if i else None
    ahead = after is not None and after.cue == span.cue == "negates" and after.start <= span.end
    return ahead or (before is not None and before.cue == span.cue == "negates" and span.start <= before.end)


def _forward(tokens: Sequence[Token], spans: Sequence[Span], i: int) -> list[Span]:
    """The findings that the cue ``spans[i]`` governs to its right; not what "no leak from the aneurysm" takes for granted."""
    starts = {span.start: span for span in spans[i + 1 :]}
    governed: list[Span] = []
    at, aside = spans[i].end, False
    while at < len(tokens):
        span = starts.get(at)
        word = tokens[at].word
        if span is not None:
            if span.cue == "stops" or span.cue in _AFTER or span.cue == "negates":
                break
            if span.cue == "doubts" and spans[i].cue != "negates":
                break
            aside = aside and not span.cue
            if span.stateable and not aside:
                governed.append(span)
            at = span.end
        elif _ends(tokens, spans, at, bool(governed)):
            break
        else:
            after = tokens[at + 1].word if at + 1 < len(tokens) else ""
            aside = (aside and word not in JOINS) or (at > spans[i].end and word in _OF and after in _THE)
            at += 1
    return governed


def _ends(tokens: Sequence[Token], spans: Sequence[Span], at: int, governs: bool) -> bool:
    """Whether the word at ``at`` ends the scope of a cue that ``governs`` a finding already or does not yet."""
    word = tokens[at].word
    if word == "and":
        return at + 1 < len(tokens) and tokens[at + 1].word in _STARTS
    return (
        word == ":"
        or word in _SHOWS
        or (governs and word in _CLOSES)
        or (word == "," and not _goes_on(tokens, spans, at))
    )


def _goes_on(tokens: Sequence[Token], spans: Sequence[Span], comma: int) -> bool:
    """Whether a list goes on behind the comma: an "or" or "and" follows with no verb before it, or a bare term alone."""
    starts = {span.start: span for span in spans}
    bare = True
    at = comma + 1
    while at < len(tokens):
        span = starts.get(at)
        word = tokens[at].word
        if span is not None and (span.cue or span.terms):
            if span.cue:
                return False
            at = span.end
            continue
        if word in ("or", "nor"):
            return True
        if word in ("and", "&"):
            return at + 1 >= len(tokens) or tokens[at + 1].word not in _STARTS
        if word in VERBS or word in ":(":
            return False
        if word == ",":
            if bare and at > comma + 1:
                return True
        else:
            bare = False
        at += 1
    return bare and comma + 1 < len(tokens)


def _backward(tokens: Sequence[Token], spans: Sequence[Span], i: int) -> list[Span]:
    """The nearest finding before the cue ``spans[i]`` and those listed with it, within its clause."""
    governed: list[Span] = []
    later, listing = spans[i], False
    for span in reversed(spans[:i]):
        gap = [token.word for token in tokens[span.end : later.start]]
        listing = listing or bool(governed) and ("and" in gap or "or" in gap)
        if span.cue in ("stops", "negates_after", "doubts_after"):
            break
        if not governed and ("and" in gap or "," in gap or "with" in gap):
            break
        if governed and (not is_list(gap) or ("," in gap and not listing)):
            break  # "left effusion, pneumothorax ruled out" is no list, "effusion, mass and nodule are not seen" is one
        if span.stateable:
            governed.append(span)
        later = span
    return governed


def is_list(gap: Sequence[str]) -> bool:
    """Whether what stands between two findings joins them: "mass and small nodule"."""
    return all(word in JOINS or word in _FILLERS for word in gap)
