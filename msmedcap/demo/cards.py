"""The words on the page: three caption cards, warnings, the status line. Comes in: a reading. Goes out: escaped HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from msmedcap.demo.session import Reading
from msmedcap.systems import SYSTEMS

EXPLAINED = {
    "MSMedCap": "CLIP and SAM together: what it is and where it is",
    "BLIP2": "CLIP alone: the whole picture at a glance",
    "SAM-BLIP2": "SAM alone: shapes and fine detail",
}


def caption_cards(reading: Reading | None, *, systems: Sequence[str], view: str, busy: bool = False) -> str:
    """The three systems side by side; a system outside ``systems`` has no weights. ``view`` is the view on show now."""
    cards = "".join(_card(name, reading, loaded=name in systems, busy=busy) for name in SYSTEMS)
    note = ""
    if reading is not None and reading.done:
        seconds = sum(reading.seconds.values())
        took = f", in {seconds:.1f} s" if seconds else ""
        note = f"Written for: {reading.view}{took}."
        if reading.view != view:
            note += f" The scan above now shows: {view}. Press “Caption this view” to write them again."
    stale = " mm-stale" if reading is not None and reading.view != view else ""
    return f'<div class="mm-cards{stale}">{cards}</div><p class="mm-written">{escape(note)}</p>'


def _card(name: str, reading: Reading | None, *, loaded: bool, busy: bool) -> str:
    text, kind = "", "mm-waiting"
    if not loaded:
        text, kind = "The loaded models hold no weights of this system.", "mm-failed"
    elif reading is not None and name in reading.failed:
        text, kind = reading.failed[name], "mm-failed"
    elif reading is not None and reading.texts.get(name):
        text, kind = reading.texts[name], "" if reading.done else "mm-writing"
    elif not busy:
        text, kind = "The caption will appear here.", "mm-idle"
    words = escape(text) or '<span class="mm-dots" aria-label="waiting"></span>'
    return (
        f'<article class="mm-card" data-system="{escape(name)}" aria-busy="{str(kind in ("mm-writing", "mm-waiting")).lower()}">'
        f'<h3>{escape(name)}</h3><p class="mm-explained">{escape(EXPLAINED[name])}</p>'
        f'<p class="mm-caption {kind}">{words}</p></article>'
    )


def status_line(text: str, *, error: bool = False) -> str:
    """One sentence on what is going on, read out by screen readers when it changes."""
    return f'<p class="mm-status{" mm-error" if error else ""}" role="status" aria-live="polite">{escape(text)}</p>'


def warning_list(warnings: Sequence[str]) -> str:
    """Sentences the reader must see; empty text for none."""
    items = "".join(f"<li>{escape(text)}</li>" for text in warnings)
    return f'<ul class="mm-warnings" aria-label="Warnings">{items}</ul>' if items else ""
