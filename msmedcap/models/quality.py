"""Whether a caption is none: empty, one token over and over, a short loop, or what numbers that overflowed decode to.

An OPT in 8 bit now and then says such things where the same weights in 16 bit do not. Comes in: a caption's text and, where they
are at hand, its tokens. Goes out: the reason in words, or None for a caption worth showing. Rules, no model: they must not flag
a dull caption, only a broken one.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

RUN = 5  # times the same word in a row
LETTERS = 12  # times the same character in a row (a dashed line in a report is shorter)
LOOPS = 3  # times a phrase in a row, if that fills
MOST = 0.6  # of a caption's words at least, or
WHOLE = 0.9  # of its tokens (a rare word is many tokens, and may stand twice), and is at least
LEAST = 6  # of them long ("left, right; left, right" is a finding)
PERIOD = 24  # of the longest phrase looked for
STRANGE = 0.2  # of the characters, undecodable or unprintable


def degenerate(text: str, ids: Sequence[int] = ()) -> str | None:
    """Why ``text`` is no caption, such as ``"an empty caption"``; None if it is one.

    ``ids`` are the caption's tokens without padding and without the newline that ends it.
    """
    words = text.split()
    if not words:
        return "an empty caption"
    if not any(c.isalnum() for c in text):
        return "no words"
    strange = sum(c == "\ufffd" or not (c.isprintable() or c.isspace()) for c in text)
    if strange > STRANGE * len(text):
        return "characters that are no text"
    if run := re.search(rf"([^\W\d_])\1{{{LETTERS - 1},}}", text):
        return f"the letter {run[1]!r} over and over"
    # Punctuation set apart: "the mass, the mass, the mass" is one phrase three times.
    spoken = re.findall(r"\w+", text.lower())
    for word in (word for word in spoken if len(word) > PERIOD):
        if reason := _loop(word, "letters", run=LETTERS, share=WHOLE):
            return reason
    return _loop(spoken, "words", run=RUN, share=MOST) or _loop(ids, "tokens", run=len(ids), share=WHOLE)


def _loop(units: Sequence[Hashable], kind: str, *, run: int, share: float) -> str | None:
    """Whether ``units`` go round: one of them ``run`` times, or several of them until ``share`` of the caption is full."""
    for period in range(1, min(PERIOD, len(units) // LOOPS) + 1):
        # The longest stretch in which every unit equals the one a period earlier.
        longest = best = 0
        for here, before in zip(units[period:], units, strict=False):
            longest = longest + 1 if here == before else 0
            best = max(best, longest)
        covered = best + period if best else 0
        if period == 1 and (covered >= run or covered == len(units)):
            return f"one {'letter' if kind == 'letters' else 'word or token'} {covered} times in a row"
        if covered >= max(LOOPS * period, LEAST) and covered >= share * len(units):
            return f"the same {period} {kind} {covered // period} times in a row"
    return None
