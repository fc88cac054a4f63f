"""The explorer's words: kinds of error with their counts, the table of cases, one case beside its scan. Escaped HTML.

Comes in: entries of a run with their errors. Goes out: HTML. Right and wrong are told by a sign and by words for screen
readers, never by colour alone; every place a picture goes has its size before the picture is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from msmedcap.demo.cases.browsing import ANY
from msmedcap.demo.cases.runs import Chosen, Entry, Run
from msmedcap.demo.cases.verdicts import KINDS, errors
from msmedcap.demo.session import Reading
from msmedcap.evaluation.facts import told
from msmedcap.evaluation.figure4.marks import marked

# One of a list of buttons; the event carries its number or its name. A redrawn list gives the focus back to the same button.
# (One object for every event of a list: gradio's always_last runs a deferred event with the data of the one before.)
PICK_KIND = """
const told = {};
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-kind]');
  if (button) trigger('pick', Object.assign(told, {kind: button.dataset.kind}));
});
"""
PICK_CASE = """
const turned = {};
element.addEventListener('click', (event) => {
  const page = event.target.closest('button[data-page]');
  if (page) return trigger('turn_page', Object.assign(turned, {page: Number(page.dataset.page)}));
  const row = event.target.closest('tr[data-index]');
  if (!row || window.getSelection().toString()) return;
  element.dataset.left = row.dataset.index;
  trigger('show_case', {index: Number(row.dataset.index)});
});
"""
LEAVE_CASE = """
element.addEventListener('click', (event) => { if (event.target.closest('button[data-leave]')) trigger('leave', {}); });
"""
# The reader who opens a case stands before its picture, and back in the list before the case.
SHOW_SCAN = """() => {
  window.scrollTo(0, 0);
  setTimeout(() => document.querySelector('.mm-v-stage')?.focus({preventScroll: true}), 100);
}"""
SHOW_CASES = """() => {
  const back = (tries) => {
    const table = document.querySelector('[data-left]');
    const row = table?.querySelector(`button[data-key="${table.dataset.left}"]`);
    row?.focus();
    if (tries && document.activeElement !== row) setTimeout(back, 50, tries - 1);
  };
  back(40);
}"""
KEEP_FOCUS = """
let last = null;
element.addEventListener('focusin', (event) => { last = event.target.closest('button')?.dataset.key ?? null; });
element.addEventListener('focusout', (event) => { if (event.relatedTarget) last = null; });
watch('value', () => {
  if (last === null || document.activeElement !== document.body) return;
  element.querySelector(`button[data-key="${CSS.escape(last)}"]`)?.focus({preventScroll: true});
});
"""


def kind_bar(counts: Counter[str], chosen: str) -> str:
    """The kinds of error as buttons with the number of cases each leaves; ``chosen`` is pressed."""
    buttons = "".join(
        f'<button type="button" data-kind="{escape(kind)}" data-key="{escape(kind)}" class="mm-kind mm-kind-{_css(kind)}"'
        f' aria-pressed="{str(kind == chosen).lower()}"><span>{escape(name)}</span> <b>{counts[kind]:,}</b></button>'
        for kind, name in {ANY: "All cases", **KINDS}.items()
    )
    return f'<div class="mm-kinds" role="group" aria-label="Kind of error">{buttons}</div>'


def case_table(run: Run, shown: Sequence[int], *, page: int, pages: int, pictures: Mapping[int, str] | None) -> str:
    """The cases at the positions ``shown``; ``pictures`` gives ``data:`` addresses by position (None: no column for them).

    A position without an address keeps its place empty; an address that is empty says that there is no picture.
    """
    if not shown:
        return '<p class="mm-none">No case is left; take a filter away or search for something else.</p>'
    head = "<th scope='col'>Picture</th>" if pictures is not None else ""
    rows = "".join(_row(run, position, pictures) for position in shown)
    return (
        f'<table class="mm-cases"><caption class="mm-hidden">Cases of {escape(run.name)}, page {page + 1} of {pages}</caption>'
        f'<thead><tr>{head}<th scope="col">Case and reference</th><th scope="col">Captions</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>{_pager(page, pages)}"
    )


def case_panel(chosen: Chosen | None, reading: Reading | None) -> str:
    """An opened case under its captions: what is true, and the captions with their facts marked.

    Those of the run, and, once it is done, the ``reading`` just made of the same picture. Empty text for no case.
    """
    if chosen is None:
        return ""
    entry, now = chosen.entry, ""
    if reading is not None and reading.done:
        new = {system: text for system, text in reading.texts.items() if text}
        truth = told(entry.references)
        words = (_caption(entry, system, text, errors(truth, text)) for system, text in new.items())
        now = f'<h4>Written now, for {escape(reading.view)}</h4><dl class="mm-said">{"".join(words)}</dl>'
    return (
        f'<section class="mm-case" aria-label="Reference of the case"><header><h3>Case {escape(entry.id)}</h3>'
        f'<button type="button" data-leave="1" class="mm-open-case">Back to the cases</button></header>{_references(entry)}'
        f'<h4>Captions in the run “{escape(chosen.run)}”</h4><dl class="mm-said">{_captions(entry)}</dl>{now}</section>'
    )


def marked_caption(references: Sequence[str], text: str) -> str:
    """A caption with its facts marked where they stand; what it should have named follows."""
    said = marked(references, text)
    parts, end = [], 0
    for span in sorted(said.spans, key=lambda span: span.start):
        if span.start < end:
            continue
        sign, word = ("yes", "right") if span.right else ("no", "wrong")
        parts.append(escape(text[end : span.start]))
        parts.append(
            f'<mark class="mm-{sign}">{escape(text[span.start : span.end])}<span class="mm-hidden"> ({word})</span></mark>'
        )
        end = span.end
    missed = "".join(f' <span class="mm-left-out">not said: {escape(value)}</span>' for value in said.missed)
    return "".join(parts) + escape(text[end:]) + missed


def _row(run: Run, position: int, pictures: Mapping[int, str] | None) -> str:
    entry = run.entries[position]
    picture = ""
    if pictures is not None:
        address = pictures.get(position)
        inside = f'<img alt="" src="{address}">' if address else "" if address is None else "<span>no picture</span>"
        picture = f'<td class="mm-thumb"><div>{inside}</div></td>'
    facts = " · ".join(escape(word) for word in (entry.source, entry.modality, entry.part) if word)
    return (
        f'<tr data-index="{position}">{picture}<th scope="row"><button type="button" class="mm-open-case" data-key="{position}">'
        f'<span class="mm-hidden">Open case </span>{escape(entry.id)}</button><p class="mm-small">{facts}</p>'
        f'{_references(entry)}</th><td><dl class="mm-said">{_captions(entry)}</dl></td></tr>'
    )


def _references(entry: Entry) -> str:
    return "".join(f'<p class="mm-reference"><span>Reference</span> {escape(text)}</p>' for text in entry.references)


def _captions(entry: Entry) -> str:
    return "".join(_caption(entry, system, entry.captions[system], found) for system, found in entry.errors.items())


def _caption(entry: Entry, system: str, text: str, found: frozenset[str]) -> str:
    kinds = "".join(
        f'<span class="mm-error-kind mm-kind-{_css(kind)}">{escape(name)}</span>'
        for kind, name in KINDS.items()
        if kind in found
    )
    words = marked_caption(entry.references, text) if text else '<span class="mm-left-out">no caption</span>'
    return (
        f'<div data-system="{escape(system)}"><dt>{escape(system)}</dt>'
        f'<dd>{words} <span class="mm-errors">{kinds}</span></dd></div>'
    )


def _pager(page: int, pages: int) -> str:
    if pages < 2:
        return ""

    def button(to: int, name: str) -> str:
        off = " disabled" if not 0 <= to < pages else ""
        return f'<button type="button" data-page="{to}" data-key="page-{escape(name)}"{off}>{escape(name)}</button>'

    return (
        f'<nav class="mm-pager" aria-label="Pages of cases">{button(page - 1, "Previous")}'
        f"<span>Page {page + 1} of {pages}</span>{button(page + 1, 'Next')}</nav>"
    )


def _css(kind: str) -> str:
    return (kind or "all").replace(" ", "-")
