"""Words that point: which word of which caption a visitor chose, how sure the model was of it, and its map on the picture.

Comes in: a visitor's session whose captions are written. Goes out: the word's map among the session's maps, and what is known of
the word as escaped HTML. Maps say where the model looked, not why. No gradio here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from msmedcap.config import UserError
from msmedcap.explain.spelling import bare
from msmedcap.explain.words import HIDDEN, LOOKING, METHOD

if TYPE_CHECKING:
    from msmedcap.demo.session import Session
    from msmedcap.explain.maps import Map
    from msmedcap.explain.words import Word
    from msmedcap.predictor import Predictor

log = logging.getLogger(__name__)

ABOUT = "Raw Q-Former maps do not depend on the words; a word's map does."
_GONE = "These captions were written for another view. Press “Caption this view” to write them again."
_FAINT = 0.05  # the share of the scale below which a map points at nothing


class Words:
    """What is known of the words of one view's captions: ``told[system]``, and the one ``chosen`` (system, place from 0)."""

    def __init__(self) -> None:
        self.told: dict[str, tuple[Word, ...]] = {}
        self.chosen: tuple[str, int] | None = None
        self.method = METHOD

    @property
    def word(self) -> Word | None:
        """The chosen word; None while there is none."""
        if self.chosen is None:
            return None
        system, place = self.chosen
        words = self.told.get(system, ())
        return words[place] if place < len(words) else None


def spell(session: Session) -> None:
    """Find out how sure the systems were of each word, where that is not known; runs the language model once for each caption.

    Captions are read without it: what goes wrong is logged, and nothing is known of the words then.
    """
    try:
        predictor = _captioned(session)
        if predictor is None or session.reading is None:
            return
        for system, text in session.reading.texts.items():
            if text and system not in session.words.told:
                session.words.told[system] = tuple(predictor.words(system=system))
    except (RuntimeError, UserError) as error:
        log.warning("nothing is known of the words: %s", error)


def look_for(session: Session, system: str, place: int, *, method: str = METHOD) -> str:
    """Choose a word before its maps are made, so that what is known of it can be told; returns what is being looked for.

    Empty where there is no such word: :func:`show_word` says what is wrong.
    """
    predictor = _captioned(session)
    if predictor is None:
        return ""
    words = session.words
    if system not in words.told:
        words.told[system] = tuple(predictor.words(system=system))
    if not 0 <= place < len(words.told[system]):
        return ""
    words.chosen, words.method = (system, place), method
    text = bare(words.told[system][place].text)
    wait = "; this takes some seconds" if method in LOOKING else ""
    return f"Looking for where {system} looked for “{text}”{wait}…"


def show_word(session: Session, system: str, place: int, *, method: str = METHOD, branch: str | None = None) -> str:
    """Put the maps of a word among the session's and show that of ``branch`` (else the first); returns a sentence for the status.

    Raises ``UserError`` where there is no such word or method.
    """
    predictor = _captioned(session)
    if predictor is None:
        return _GONE
    maps = predictor.word_maps(place, system=system, method=method)
    if predictor is not session.predictor:
        return ""
    words = session.words
    if system not in words.told:
        words.told[system] = tuple(predictor.words(system=system))
    words.chosen, words.method = (system, place), method
    others = [found for found in session.maps if found.kind != "word"]
    session.maps = [*others, *maps]
    if not maps:
        return "The tokens of this system are channels, which have no place on the picture."
    index = next((i for i, found in enumerate(maps) if found.branch == branch), 0)
    session.choose(len(others) + index)
    shown = maps[index]
    who = f"{system}'s {shown.branch.upper()} branch" if shown.branch else f"{system}, with all its branches,"
    told = f"Where {who} looked for “{bare(shown.word or '')}”."
    return " ".join(filter(None, (told, _instead(predictor) if shown.method != method else "", faint(shown))))


def branches(session: Session) -> list[str]:
    """The branches that the chosen word has maps of."""
    return [found.branch for found in session.maps if found.kind == "word" and found.branch]


def faint(found: Map) -> str:
    """A sentence on a word's map that stays below 5 % of its scale on the whole picture: what that means; else empty."""
    low, high = found.range
    limit = low + _FAINT * (high - low)
    if found.peak >= limit:
        return ""
    branch = f"the {found.branch.upper()} branch" if found.branch else "the model"
    if found.method in HIDDEN:
        return (
            f"Hiding any one place of the picture from {branch} lowered the mean log-probability of the word's tokens by at most "
            f"about {found.peak:.2g} ({percent(1 - math.exp(-found.peak))} less likely): this map points at no place."
        )
    return (
        f"No place of the picture got even {limit:g} times what {branch} would give it if all places got the same: this map points "
        "at no place."
    )


def rivals(word: Word) -> list[tuple[str, float]]:
    """The other beginnings as a reader tells them apart, best first: tokens that read the same are one, the word's own is none."""
    merged: dict[str, float] = {}
    for text, share in word.alternatives:
        if text not in (word.text, bare(word.text)):
            merged[text] = merged.get(text, 0.0) + share
    return sorted(merged.items(), key=lambda item: -item[1])


def word_card(words: Words | None, *, measured: Mapping[str, str], shown: Map | None = None) -> str:
    """What is known of the chosen word; ``measured`` says of each method how its maps fare, in a sentence.

    ``shown`` is the word's map, where there is one yet.
    """
    word = words.word if words is not None else None
    if words is None or word is None or words.chosen is None:
        said = f"Choose a word of a caption to see where the model looked for it. {ABOUT}"
        return f'<div class="mm-word"><p class="mm-small">{said}</p></div>'
    others = "".join(
        f'<li><span>{escape(text)}</span><i style="--p:{share:.3f}" aria-hidden="true"></i><span>{percent(share)}</span></li>'
        for text, share in rivals(word)
    )
    line = measured.get(words.method, "How well these maps tell where a model looked has not been measured for this system.")
    note = faint(shown) if shown is not None else ""
    empty = f'<p class="mm-faint">{escape(note)}</p>' if note else ""
    return (
        f'<div class="mm-word"><p class="mm-word-said"><strong>“{escape(bare(word.text))}”</strong>, {escape(words.chosen[0])}: '
        f"{percent(word.probability)} sure</p>{empty}"
        f'<p class="mm-small">What it could have begun instead:</p><ol class="mm-rivals">{others}</ol>'
        f'<p class="mm-small mm-measured">{escape(line)}</p><p class="mm-small">{ABOUT}</p></div>'
    )


def percent(share: float) -> str:
    """A probability in percent, without a false 0 or 100."""
    if share < 0.005:
        return "under 1 %"
    return "over 99 %" if share > 0.995 else f"{100 * share:.0f} %"


def _captioned(session: Session) -> Predictor | None:
    """The session's predictor, told which captions are on show; None where they are of another view, or not done."""
    reading, predictor = session.reading, session.predictor
    if predictor is None or reading is None or not reading.done or reading.view != session.view:
        return None
    entry = session.tray.open
    how = next((w for w in entry.written if w.reading is reading), None) if entry is not None else None
    texts = {system: text for system, text in reading.texts.items() if text}
    predictor.adopt(texts, preset=how.preset if how else "fast", prompt=how.prompt if how else None)
    return predictor


def _instead(predictor: Predictor) -> str:
    return next((told for told in predictor.warnings if "no gradients" in told), "")
