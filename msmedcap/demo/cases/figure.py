"""The tab "Figure 4": a panel of cases of the run on show, drawn as the command ``figure4`` draws it, to look at and to keep.

Comes in: the run chosen in the tab "Cases", cases by their ids or a rule, systems. Goes out: the panel as a picture inside
the page, and as PNG, PDF and words to download. Files live only while they are drawn: what is kept, the visitor's browser
makes from what is on the page.
"""

from __future__ import annotations

import base64
import re
import tempfile
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from msmedcap.config import UserError
from msmedcap.data.scans import open_scan
from msmedcap.demo import cards
from msmedcap.demo.cases.explorer import Explorer
from msmedcap.demo.cases.library import Library
from msmedcap.demo.cases.runs import Run
from msmedcap.demo.panels import OWN
from msmedcap.demo.session import sentence
from msmedcap.evaluation import figure4

MOST = 12  # cases in one panel: what a page of paper holds
BY_HAND = "ids"
_RULES = [
    ("Where the first system is furthest ahead, and where it fails", "both"),
    ("Where the first system is furthest ahead of the second", "best"),
    ("Where the first system fails", "failures"),
    ("Drawn by lot", "random"),
    ("The cases named below", BY_HAND),
]
# Two panels at once would only make both late.
_LOCK: dict[str, Any] = {"concurrency_id": "figure", "concurrency_limit": 1}
_NAMES = {".png": "PNG", ".pdf": "PDF", ".md": "words"}
_TYPES = {".png": "image/png", ".pdf": "application/pdf", ".md": "text/markdown"}
# A download is made in the browser from what is on the page already; no file of it is on the server.
_SAVE = """
element.addEventListener('click', async (event) => {
  const button = event.target.closest('button[data-name]');
  if (!button) return;
  const address = button.dataset.address ?? element.querySelector('img').src;
  const link = document.createElement('a');
  link.href = URL.createObjectURL(await (await fetch(address)).blob());
  link.download = button.dataset.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
});
"""
Updates = dict[Any, Any]


class FigureTab:
    """The tab's components; build it inside a ``gr.Tab``. The run is the one that ``explorer`` shows."""

    def __init__(self, library: Library, explorer: Explorer, *, allow_burned_in: bool = False) -> None:
        self._library, self._explorer, self._allow_burned_in = library, explorer, allow_burned_in
        self.about = gr.HTML(apply_default_css=False)
        with gr.Row(elem_classes="mm-controls mm-figure-controls"):
            self.rule = gr.Dropdown(_RULES, value="both", label="Cases", scale=3, min_width=260, elem_id="mm-rule")
            self.count = gr.Dropdown(
                [1, 2, 3, 4, 5, 6], value=3, label="Cases for each rule", scale=2, min_width=150, elem_id="mm-count"
            )
            self.systems = gr.CheckboxGroup([], label="Systems, the first two compared", scale=3, min_width=260)
        with gr.Row(elem_classes="mm-controls mm-figure-controls"):
            self.ids = gr.Textbox(
                label="Ids of cases, where they are named",
                placeholder="phantom-3, phantom-7",
                max_length=1000,
                max_lines=1,
                scale=4,
                min_width=260,
            )
            self.draw = gr.Button(
                "Draw the figure", variant="primary", size="md", scale=0, min_width=190, elem_id="mm-draw"
            )
        self.said = gr.HTML(cards.status_line(""), apply_default_css=False)
        self.figure = gr.HTML(apply_default_css=False, js_on_load=_SAVE, elem_id="mm-figure")

    def wire(self, tab: gr.Tab) -> None:
        """The tab's events."""
        run = [self._explorer.run, self._explorer.own]
        tab.select(self._enter, [*run, self.systems], [self.about, self.systems, self.said], **OWN)
        asked = [*run, self.rule, self.ids, self.count, self.systems]
        for start in (self.draw.click, self.ids.submit):
            start(self._draw, asked, [self.said, self.figure], trigger_mode="once", **OWN, **_LOCK)

    def _enter(self, run: str, own: Run | None, systems: Sequence[str]) -> Updates:
        try:
            chosen = self._library.run(run, own)
        except Exception as error:
            return {self.said: cards.status_line(sentence(error, "reading the run"), error=True)}
        kept = [system for system in systems if system in chosen.systems]
        about = f"Cases of “{chosen.name}”, the run chosen in the tab Cases."
        shown = kept or list(figure4.default_systems(chosen.systems))
        return {
            self.about: f'<p class="mm-small">{escape(about)}</p>',
            self.systems: gr.CheckboxGroup(list(chosen.systems), value=shown),
        }

    def _draw(
        self, run: str, own: Run | None, rule: str, ids: str, count: int, systems: Sequence[str]
    ) -> Iterator[Updates]:
        yield {self.said: cards.status_line("Drawing the figure…")}
        try:
            chosen = self._library.run(run, own)
            named = _ids(ids) if rule == BY_HAND else ()
            order = [system for system in chosen.systems if system in systems]
            if not order:
                raise UserError("Choose at least one system to show.")
            rows = [entry.row for entry in chosen.entries]
            # Named cases need no rule, and the rules' own count bounds the rest.
            choice = figure4.choose(
                rows, "both" if named else rule, count=count, ids=named, systems=order, source=chosen.name
            )
            cases = [self._case(run, chosen, section, row["id"], order) for section, row in choice.rows]
            with tempfile.TemporaryDirectory() as folder:
                html = _panel(figure4.draw(cases, Path(folder), note=choice.note))
        except Exception as error:
            yield {self.said: cards.status_line(sentence(error, "drawing the figure"), error=True)}
            return
        number = f"{len(cases)} cases" if len(cases) > 1 else "one case"
        yield {self.said: cards.status_line(f"The figure shows {number}."), self.figure: html}

    def _case(self, run: str, chosen: Run, section: str, name: str, systems: Sequence[str]) -> figure4.FigureCase:
        entry = next(entry for entry in chosen.entries if entry.id == name)
        scan = open_scan(self._library.picture(run, entry), allow_burned_in=self._allow_burned_in)
        picture = scan.picture()
        row, column = scan.spacing or (1.0, 1.0)  # pixels are not always square
        ratio = picture.shape[1] * column / (picture.shape[0] * row)
        captions = {system: entry.captions[system] for system in systems}
        return figure4.FigureCase(entry.id, entry.source, picture, ratio, entry.references, captions, section)


def _ids(text: str) -> tuple[str, ...]:
    """The ids in ``text``, apart by commas or spaces; raises :class:`UserError` for none and for more than a panel holds."""
    found = tuple(dict.fromkeys(re.split(r"[\s,;]+", text.strip()))) if text.strip(" \t\n,;") else ()
    found = tuple(name for name in found if name)
    if not found:
        raise UserError("Name the cases to show by their ids, as they stand in the tab Cases.")
    if len(found) > MOST:
        raise UserError(f"A figure holds {MOST} cases at most; name fewer.")
    return found


def _panel(files: Sequence[Path]) -> str:
    addresses = {
        file.suffix: f"data:{_TYPES[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode()}"
        for file in files
    }
    words = next(file.read_text(encoding="utf-8") for file in files if file.suffix == ".md")
    buttons = "".join(
        f'<button type="button" data-name="figure4{suffix}"{"" if suffix == ".png" else f" data-address={address!r}"}>'
        f"Download {_NAMES[suffix]}</button>"
        for suffix, address in addresses.items()
    )
    return (
        '<figure class="mm-panel" tabindex="0" role="group" aria-label="The figure">'
        f'<img src="{addresses[".png"]}" alt="Scans, what is true of them and what was said; in words below."></figure>'
        f'<div class="mm-downloads">{buttons}</div>'
        f"<details><summary>The figure in words</summary><pre>{escape(words)}</pre></details>"
    )
