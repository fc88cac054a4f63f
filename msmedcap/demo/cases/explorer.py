"""The tab "Cases": the cases of an evaluation run, filtered by what went wrong, each of which opens in the main tab.

Comes in: runs of the server's owner, the shipped one, or a captions file a visitor sends; clicks. Goes out: the components
(attributes of :class:`Explorer`) and updates for them. A visitor's own run lives in the visitor's state, no longer than
half an hour without use; nothing of it is written to the disk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr

from msmedcap.config import UserError
from msmedcap.data.scans import ScanError, open_scan
from msmedcap.demo import cards, panels
from msmedcap.demo.cases import cards as case_cards
from msmedcap.demo.cases.browsing import ANY, ORDERS, Found, Wanted, browse
from msmedcap.demo.cases.library import OWN, Library
from msmedcap.demo.cases.runs import Chosen, Entry, Run, parse_run, values
from msmedcap.demo.cases.verdicts import KINDS
from msmedcap.demo.serving.uploads import UPLOADS
from msmedcap.demo.session import IDLE_SECONDS, sentence
from msmedcap.demo.viewer.encoding import THUMB_SIDE, picture_uri

PAGE = 20
Updates = dict[Any, Any]
# The explorer's events are the page's own, the last click wins, and one waits for the other: each begins with the filters
# as the one before it has left them.
_OWN: dict[str, Any] = {**panels.OWN, "concurrency_id": "cases", "concurrency_limit": 1}
_LAST: dict[str, Any] = {**_OWN, "trigger_mode": "always_last"}
_ABOUT = (
    '<p class="mm-small">What a caption states is compared with the reference, fact by fact: '
    '<mark class="mm-yes">right</mark> <mark class="mm-no">wrong</mark> <span class="mm-left-out">not said</span>. '
    "A finding that the reference is silent on counts as made up. Open a case to judge for yourself.</p>"
)


class Explorer:
    """The tab's components; build it inside a ``gr.Tab``. ``allow_burned_in`` as in ``Predictor.set_scan``."""

    def __init__(self, library: Library, *, allow_burned_in: bool = False) -> None:
        self._library, self._allow_burned_in = library, allow_burned_in
        self.own = gr.State(None, time_to_live=int(IDLE_SECONDS))
        self.kind, self.page = gr.State(ANY), gr.State(0)
        names = library.names
        with gr.Row(elem_classes="mm-controls mm-run"):
            self.run = gr.Dropdown(names, value=names[0] if names else None, label="Run", scale=2, elem_id="mm-run")
            self.upload = gr.UploadButton(
                "Open a captions file…", size="md", scale=0, min_width=230, elem_id="mm-run-file"
            )
        self.about = gr.HTML(apply_default_css=False)
        pick = case_cards.PICK_KIND + case_cards.KEEP_FOCUS
        self.kinds = gr.HTML(apply_default_css=False, js_on_load=pick, elem_id="mm-kinds")
        with gr.Row(elem_classes="mm-controls mm-filters"):
            self.system = gr.Dropdown(label="Errors of", min_width=130, elem_id="mm-error-system")
            self.modality = gr.Dropdown(label="Modality", min_width=130, elem_id="mm-modality")
            self.part = gr.Dropdown(label="Body part", min_width=130, elem_id="mm-part")
            orders = [(name, key) for key, name in ORDERS.items()]
            self.order = gr.Dropdown(orders, value="errors", label="Order", min_width=190, elem_id="mm-order")
            self.text = gr.Textbox(
                label="Search",
                placeholder="id or words",
                max_length=200,
                max_lines=1,
                min_width=150,
                elem_id="mm-search",
            )
            self.pictures = gr.Checkbox(False, label="Show pictures", min_width=130, elem_id="mm-pictures")
        self.said = gr.HTML(cards.status_line(""), apply_default_css=False)
        pick = case_cards.PICK_CASE + case_cards.KEEP_FOCUS
        self.table = gr.HTML(apply_default_css=False, js_on_load=pick, elem_id="mm-cases")
        gr.HTML(_ABOUT, apply_default_css=False)
        self.filters = [self.system, self.modality, self.part, self.order, self.text, self.pictures]
        self.asked = [self.run, self.own, self.kind, self.page, *self.filters]
        self.shown = [self.said, self.kinds, self.table, self.system, self.modality, self.part, self.kind, self.page]

    def wire(self, tab: gr.Tab) -> None:
        """The tab's own events; what opens a case is the page's to wire, with :meth:`chosen`."""
        everything = [*self.shown, self.about]
        tab.select(self._change_run, self.asked, everything, **_LAST)
        self.run.input(self._change_run, self.asked, everything, **_LAST)
        self.upload.upload(self._take, [self.upload, *self.asked[2:]], [self.run, self.own, *everything], **_OWN)
        for control in self.filters:
            # A textbox's input is of keys alone; text that is pasted or dictated only changes it.
            changed = control.change if control is self.text else control.input
            changed(self._filter, self.asked, self.shown, **_LAST)
        self.kinds.pick(self._pick, self.asked, self.shown, **_LAST)
        self.table.turn_page(self._turn, self.asked, self.shown, **_LAST)

    def chosen(self, event: gr.EventData, run: str, own: Run | None) -> tuple[Chosen, bytes]:
        """The case that was clicked and its picture's bytes.

        Raises ``ScanError`` where it has no picture, :class:`UserError` where the run is gone.
        """
        cases = self._library.run(run, own)
        index = int(event.index)
        if not 0 <= index < len(cases.entries):
            raise UserError("This case is not in the run; choose another.")
        entry = cases.entries[index]
        return Chosen(cases.name, entry), self._library.picture(run, entry)

    def say(self, text: str, *, error: bool = False) -> Updates:
        """The tab's status line."""
        return {self.said: cards.status_line(text, error=error)}

    def _take(self, file: str, *asked: Any) -> Iterator[Updates]:
        """A visitor's captions file: read, then gone from the disk."""
        try:
            own = parse_run(UPLOADS.take(file), OWN)
        except Exception as error:
            yield self.say(sentence(error, "reading the captions file"), error=True)
            return
        yield {self.run: gr.Dropdown([*self._library.names, OWN], value=OWN), self.own: own}
        yield from self._change_run(OWN, own, *asked)

    def _change_run(self, run: str, own: Run | None, kind: str, page: int, *filters: Any) -> Iterator[Updates]:
        """Another run, or the tab is opened: filters that the run has no value for are taken away."""
        try:
            chosen = self._library.run(run, own)
        except Exception as error:
            yield self.say(sentence(error, "reading the run"), error=True)
            return
        known = (chosen.systems, values(chosen.entries, "modality"), values(chosen.entries, "part"))
        kept = [value if value in among else ANY for value, among in zip(filters, known, strict=False)]
        made = f"{len(chosen.entries):,} cases" + (f", captions by {chosen.made}" if chosen.made else "")
        yield {self.about: f'<p class="mm-small">{escape(made)}.</p>'}
        yield from self._show(run, own, kind, page, *kept, *filters[3:])

    def _filter(self, run: str, own: Run | None, kind: str, page: int, *filters: Any) -> Iterator[Updates]:
        yield from self._show(run, own, kind, 0, *filters)

    def _pick(
        self, event: gr.EventData, run: str, own: Run | None, kind: str, page: int, *filters: Any
    ) -> Iterator[Updates]:
        yield from self._show(run, own, str(event.kind) if event.kind in KINDS else ANY, 0, *filters)

    def _turn(
        self, event: gr.EventData, run: str, own: Run | None, kind: str, page: int, *filters: Any
    ) -> Iterator[Updates]:
        yield from self._show(run, own, kind, int(event.page), *filters)

    def _show(self, run: str, own: Run | None, kind: str, page: int, *filters: Any) -> Iterator[Updates]:
        """The cases asked for: first the words, then, where wanted, the pictures in the places kept for them."""
        system, modality, part, order, text, pictures = filters
        try:
            chosen = self._library.run(run, own)
        except Exception as error:
            yield self.say(sentence(error, "reading the run"), error=True)
            return
        found = browse(chosen, Wanted(kind, system, modality, part, text or "", order))
        pages = max(1, math.ceil(len(found.order) / PAGE))
        page = min(max(page, 0), pages - 1)
        shown = found.order[page * PAGE : (page + 1) * PAGE]
        yield {
            self.said: cards.status_line(_said(chosen, found, page)),
            self.kinds: case_cards.kind_bar(found.counts["kind"], kind),
            self.table: case_cards.case_table(chosen, shown, page=page, pages=pages, pictures={} if pictures else None),
            self.system: gr.Dropdown([("any system", ANY), *((name, name) for name in chosen.systems)], value=system),
            self.modality: _dropdown(chosen, found, "modality", modality),
            self.part: _dropdown(chosen, found, "part", part),
            self.kind: kind,
            self.page: page,
        }
        if pictures and shown:
            drawn = {position: self._thumbnail(run, chosen.entries[position]) for position in shown}
            yield {self.table: case_cards.case_table(chosen, shown, page=page, pages=pages, pictures=drawn)}

    def _thumbnail(self, run: str, entry: Entry) -> str:
        try:
            scan = open_scan(self._library.picture(run, entry), allow_burned_in=self._allow_burned_in)
            return picture_uri(scan.picture(), THUMB_SIDE)
        except ScanError:
            return ""


def _dropdown(run: Run, found: Found, of: str, value: str) -> gr.Dropdown:
    counts = found.counts[of]
    choices = [
        (f"all ({counts[ANY]:,})", ANY),
        *((f"{name} ({counts[name]:,})", name) for name in values(run.entries, of)),
    ]
    return gr.Dropdown(choices, value=value)


def _said(run: Run, found: Found, page: int) -> str:
    count = len(found.order)
    if not count:
        return f"None of {len(run.entries):,} cases."
    first = page * PAGE + 1
    return f"{count:,} of {len(run.entries):,} cases; {first:,} to {min(first + PAGE - 1, count):,} shown."
