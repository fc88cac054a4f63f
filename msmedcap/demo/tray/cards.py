"""The tray in words and small pictures: the list of scans, how far captioning is, the table of results. Escaped HTML.

Comes in: a visitor's tray. Goes out: HTML. States are told by a sign and by words, never by colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from msmedcap.demo.reading import window_words
from msmedcap.demo.tray.tray import CAPTIONED, FAILED, WAITING, Entry, Tray, Written, title

_SIGNS = {WAITING: "○", CAPTIONED: "✓", FAILED: "✗"}
_EMPTY = (
    '<p class="mm-none">No scans yet. Open several files at once, all slices of a series, or a ZIP archive: each scan is listed '
    "here, keeps its captions, and can be captioned and exported together with the others.</p>"
)


def scan_list(tray: Tray, *, reading: str = "") -> str:
    """The scans as a list to choose from; ``reading`` is the id of the one being captioned."""
    entries = tray.entries
    if not entries:
        return _EMPTY
    options = "".join(_option(entry, shown=entry.id == tray.current, reading=entry.id == reading) for entry in entries)
    return (
        '<ul class="mm-tray" role="listbox" tabindex="0" aria-label="Scans of this session" aria-describedby="mm-tray-keys">'
        f'{options}</ul><p class="mm-small" id="mm-tray-keys">Arrow keys choose, Enter opens, Delete removes.</p>'
    )


def progress(tray: Tray, *, note: str = "") -> str:
    """How many scans are captioned of those that were asked for; ``note`` follows. Empty text where nothing is under way."""
    walk = tray.walk
    if walk is None:
        return ""
    words = f"Captioning {walk.done + 1} of {walk.total}" + (f": {walk.entry}. {note}" if note else f": {walk.entry}.")
    return (
        f'<div class="mm-progress"><progress max="{walk.total}" value="{walk.done}" aria-label="Scans captioned"></progress>'
        f'<span role="status">{escape(words)}</span></div>'
    )


def results(tray: Tray, systems: Sequence[str]) -> str:
    """Every caption written so far, a row for each scan and view; empty text where there is none."""
    rows = "".join(_row(entry, item, systems) for entry in tray.entries for item in entry.written)
    if not rows:
        return ""
    heads = "".join(f'<th scope="col" data-system="{escape(name)}">{escape(name)}</th>' for name in systems)
    return (
        '<div class="mm-results" tabindex="0" role="region" aria-label="Captions of all scans"><table><thead><tr>'
        f'<th scope="col">Scan</th><th scope="col">View</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def view_words(item: Written, frames: int) -> str:
    """What captions were written for, in words: window, frame, decoding."""
    words = [window_words(item.window)] if item.window else []
    if frames > 1:
        words.append(f"frame {item.frame + 1}")
    words.append(f"{item.preset} decoding")
    return ", ".join(words)


def _option(entry: Entry, *, shown: bool, reading: bool) -> str:
    state = "captioning" if reading else entry.state
    sign = "…" if reading else _SIGNS[entry.state]
    picture = f'<img alt="" src="{entry.thumbnail}">' if entry.thumbnail else '<i aria-hidden="true"></i>'
    said = f'<span class="mm-why">{escape(entry.said)}</span>' if entry.said else ""
    return (
        f'<li role="option" id="mm-{entry.id}" data-id="{entry.id}" data-state="{state}" aria-selected="{str(shown).lower()}">'
        f'{picture}<span class="mm-tray-words"><b>{entry.id}</b> <span>{escape(title(entry))}</span>'
        f'<span class="mm-state"><span aria-hidden="true">{sign}</span> {state}</span>{said}</span>'
        '<span class="mm-remove" data-remove="1" aria-hidden="true" title="Remove">×</span></li>'
    )


def _row(entry: Entry, item: Written, systems: Sequence[str]) -> str:
    assert entry.scan is not None
    cells = ""
    for name in systems:
        text, failed = item.reading.texts.get(name), item.reading.failed.get(name)
        inside = escape(text) if text else f'<span class="mm-why">{escape(failed or "no caption")}</span>'
        cells += f"<td>{inside}</td>"
    view = escape(view_words(item, entry.scan.frames))
    return f'<tr><th scope="row">{entry.id}</th><td>{view}</td>{cells}</tr>'
