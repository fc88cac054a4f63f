"""The words on the page: three caption cards, warnings, the status line. Comes in: a reading. Goes out: escaped HTML.

A caption that is done, of the view on show, is a sentence whose words can be chosen; ``static/words.js`` is their behaviour.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from msmedcap.demo.frontend import static_text
from msmedcap.demo.session import Reading
from msmedcap.demo.words.chosen import Words, percent, rivals
from msmedcap.systems import SYSTEMS

EXPLAINED = {
    "MSMedCap": "CLIP and SAM together: what it is and where it is",
    "BLIP2": "CLIP alone: the whole picture at a glance",
    "SAM-BLIP2": "SAM alone: shapes and fine detail",
}

_DOTS = '<span class="mm-dots" aria-label="waiting"></span>'


def words_script() -> str:
    """What the cards' component does when a word is chosen: its event ``word`` carries {system, word}."""
    return static_text("words.js")


def caption_cards(
    reading: Reading | None, *, systems: Sequence[str], view: str, busy: bool = False, words: Words | None = None
) -> str:
    """The three systems side by side; a system outside ``systems`` has no weights. ``view`` is the view on show now.

    ``words`` is what is known of the words; without it none can be chosen.
    """
    cards = "".join(_card(name, reading, loaded=name in systems, busy=busy, view=view, words=words) for name in SYSTEMS)
    note = ""
    if reading is not None and reading.done:
        seconds = sum(reading.seconds.values())
        took = f", in {seconds:.1f} s" if seconds else ""
        note = f"Written for: {reading.view}{took}." if reading.written else f"No caption could be written for: {reading.view}."
        if reading.view != view:
            note += f" The scan above now shows: {view}. Press “Caption this view” to write them again."
    stale = " mm-stale" if reading is not None and reading.view != view else ""
    return f'<div class="mm-cards{stale}">{cards}</div><p class="mm-written">{escape(note)}</p>'


def _card(
    name: str, reading: Reading | None, *, loaded: bool, busy: bool, view: str, words: Words | None
) -> str:
    text, kind = "", "mm-waiting"
    choosable = False
    if not loaded:
        text, kind = "The loaded models hold no weights of this system.", "mm-failed"
    elif reading is not None and name in reading.failed:
        text, kind = reading.failed[name], "mm-failed"
    elif reading is not None and reading.texts.get(name):
        text, kind = reading.texts[name], "" if reading.done else "mm-writing"
        choosable = reading.done and reading.view == view
    elif not busy:
        text, kind = "The caption will appear here.", "mm-idle"
    if choosable and words is not None:
        said = _sentence(name, text, words)
    else:
        said = f'<p class="mm-caption {kind}">{escape(text) or _DOTS}</p>'
    return (
        f'<article class="mm-card" data-system="{escape(name)}" aria-busy="{str(kind in ("mm-writing", "mm-waiting")).lower()}">'
        f'<h3>{escape(name)}</h3><p class="mm-explained">{escape(EXPLAINED[name])}</p>{said}</article>'
    )


def _sentence(system: str, text: str, words: Words) -> str:
    """The caption whole, for screen readers, then its words as buttons; its letters can still be selected."""
    told = words.told.get(system, ())
    reached = words.chosen[1] if words.chosen is not None and words.chosen[0] == system else 0
    parts, end = [], 0
    for place, found in enumerate(re.finditer(r"\S+", text)):
        pressed = str(words.chosen == (system, place)).lower()
        known = ""
        if place < len(told):
            word = told[place]
            others = ", ".join(f"{other} {percent(share)}" for other, share in rivals(word)[:3])
            else_ = f"; else: {escape(others)}" if others else ""
            unsure = ' class="mm-unsure"' if word.probability < 0.5 else ""
            known = f'{unsure} style="--p:{word.probability:.3f}" title="{percent(word.probability)} sure{else_}"'
        tab = 0 if place == reached else -1
        parts.append(
            f'{escape(text[end : found.start()])}<span role="button" tabindex="{tab}" aria-pressed="{pressed}" '
            f'data-word="{place}"{known}>{escape(found[0])}</span>'
        )
        end = found.end()
    return (
        f'<p class="mm-heard">{escape(text)}</p>'
        f'<div class="mm-caption" role="toolbar" aria-label="Words of the caption of {escape(system)}">{"".join(parts)}</div>'
    )


def status_line(text: str, *, error: bool = False) -> str:
    """One sentence on what is going on, read out by screen readers when it changes."""
    return f'<p class="mm-status{" mm-error" if error else ""}" role="status" aria-live="polite">{escape(text)}</p>'


def warning_list(warnings: Sequence[str]) -> str:
    """Sentences the reader must see; empty text for none."""
    items = "".join(f"<li>{escape(text)}</li>" for text in warnings)
    return f'<ul class="mm-warnings" aria-label="Warnings">{items}</ul>' if items else ""
