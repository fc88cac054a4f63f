"""Left, right, bilateral: which findings, devices and body parts of a sentence a side modifies.

Comes in: the spans of a sentence, with their states. Goes out: their ``sides``. A side belongs to what follows it at once ("left
pleural effusion"), else to the finding before it ("a mass in the left lung"), else to the next one ("the left lung shows a mass").
"""

from __future__ import annotations

from collections.abc import Sequence

from msmedcap.evaluation.facts.lexicon import Token
from msmedcap.evaluation.facts.scope import JOINS, STATEABLE, VERBS, Span, is_list, words

_PLACES = words("in on at of within along involving over near")
_TOWARDS = words("to toward towards")


def set_sides(tokens: Sequence[Token], spans: Sequence[Span]) -> None:
    """Give every finding, device and part the ``sides`` that modify it."""
    for i, span in enumerate(spans):
        if span.side:
            for target in _sided(tokens, spans, i):
                if span.side not in target.sides:
                    target.sides = (*target.sides, span.side)


def _sided(tokens: Sequence[Token], spans: Sequence[Span], i: int) -> list[Span]:
    """What the side ``spans[i]`` modifies: what follows at once, else the finding before it, else the next in the sentence."""
    span = spans[i]
    if span.start and tokens[span.start - 1 - (tokens[span.start - 1].word == "the")].word in _TOWARDS:
        return []  # "midline shift to the left" is on neither side
    targets = [span] if span.terms else []  # RUL names a lobe and its side
    ahead, found = span, False
    for later in spans[i + 1 :]:
        gap = [token.word for token in tokens[ahead.end : later.start]]
        if later.cue or later.side and not is_list(gap):
            break
        if later.side and found:
            break
        if any(word in VERBS or word in ("of", "in", "with", "from", "to", "on", "(", ":") for word in gap):
            break
        joined = any(word in JOINS for word in gap)
        if (joined and not (found and "," not in gap and is_list(gap) and not _has_own(spans, later))) or (
            not joined and len(gap) > 3
        ):
            break
        if any(term.role in ("part", *STATEABLE) for term in later.terms):
            targets.append(later)
            found = found or later.stateable
        ahead = later
    if found:
        return targets
    return targets + (_before(tokens, spans, i) or _after(tokens, spans, i))


def _has_own(spans: Sequence[Span], finding: Span) -> bool:
    """Whether the next thing said behind ``finding`` is a side: "left effusion and fracture of the right rib"."""
    behind = (span for span in spans if span.start >= finding.end and (span.side or span.cue or span.stateable))
    return bool(getattr(next(behind, None), "side", ""))


def _before(tokens: Sequence[Token], spans: Sequence[Span], i: int) -> list[Span]:
    """The findings that a side behind them modifies: "consolidation and effusion in the left lower lobe"."""
    later, governed = spans[i], list[Span]()
    for span in reversed(spans[:i]):
        gap = [token.word for token in tokens[span.end : later.start]]
        if span.cue == "stops" or span.side and governed:
            break
        if not governed and ("," in gap or _is_apart(gap) or ("and" in gap and not _joins_sides(span, gap))):
            break
        if governed and not is_list(gap):
            break
        if span.stateable:
            if span.sides and not _joins_sides(span, gap) and governed:
                break
            if span.sides and not governed and not _between_sides(spans, span, i):
                return []
            governed.append(span)
        later = span
    return governed


def _is_apart(gap: Sequence[str]) -> bool:
    """Whether a verb parts the side from the finding, unless a place follows: "the mass is seen in the left lung"."""
    verbs = [k for k, word in enumerate(gap) if word in ("is", "are", "was", "were")]
    return bool(verbs) and not any(word in _PLACES for word in gap[verbs[-1] :])


def _joins_sides(span: Span, gap: Sequence[str]) -> bool:
    """Whether the gap joins two places: "in the left and right lung", "left lower lobe and right middle lobe"."""
    place = bool(span.side) or (bool(span.sides) and not span.stateable)
    return place and set(gap) <= {"and", "the", "in", "of"}


def _between_sides(spans: Sequence[Span], target: Span, i: int) -> bool:
    """Whether another side stands between ``target`` and side ``i``: "nodules in the left and right lung"."""
    return any(other.side and other.start >= target.end for other in spans[:i])


def _after(tokens: Sequence[Token], spans: Sequence[Span], i: int) -> list[Span]:
    """The findings that a side in front modifies over a verb: "the left lung shows consolidation and effusion"."""
    ahead, governed = spans[i], list[Span]()
    for span in spans[i + 1 :]:
        gap = [token.word for token in tokens[ahead.end : span.start]]
        if span.cue == "stops" or span.side or ":" in gap:
            break
        if governed and not is_list(gap):
            break
        if span.stateable:
            governed.append(span)
        ahead = span
    return governed
