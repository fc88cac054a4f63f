"""The results as tables, for the page and the command line alike: what was counted, with its interval, and how to read it.

Comes in: the document of :mod:`~msmedcap.demo.review.results`. Goes out: :class:`Table` rows of texts, these as HTML or Markdown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from msmedcap.demo.review import forms

_LABELS = {item.key: item.label for item in (*forms.OF_CASE, *forms.OF_CAPTION, *forms.ERRORS)} | {
    "preference": "Preference"
}
_STAGES = {"1": "First stage: scan and captions", "2": "Second stage: with maps"}


@dataclass(frozen=True)
class Table:
    """A table under a ``title``; ``part`` is the section it belongs to, ``note`` says how to read it."""

    part: str
    title: str
    head: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    note: str = ""


def tables(document: Mapping[str, Any]) -> list[Table]:
    """All tables of a study, in reading order."""
    made = [_progress(document)]
    for number, stage in document["stages"].items():
        made += list(_of_stage(_STAGES[number], stage, document["systems"]))
    return made


def markdown(document: Mapping[str, Any], *, command: str = "") -> str:
    """The results as Markdown; ``command`` is what they are made with."""
    parts = [f"# {document['study']['title']}\n"]
    if command:
        parts.append(f"Made with `{command}`.\n")
    part = ""
    for table in tables(document):
        if table.part != part:
            part = table.part
            parts.append(f"## {part}\n")
        lines = [f"### {table.title}", "", f"| {' | '.join(table.head)} |", "|---" * len(table.head) + "|"]
        lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in table.rows]
        parts.append("\n".join([*lines, *(["", table.note] if table.note else [])]) + "\n")
    return "\n".join(parts)


def html(table: Table) -> str:
    """One table as HTML."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)
    rows = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in table.rows
    )
    note = f'<p class="mm-small">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<div class="mm-result"><h4>{escape(table.title)}</h4><div class="mm-scroll" tabindex="0" role="region" '
        f'aria-label="{escape(table.title)}"><table class="mm-numbers"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{note}</div>"
    )


def _progress(document: Mapping[str, Any]) -> Table:
    rows = [
        [told["reader"], f"{told['finished']} of {told['of']}", _seconds(told["median_seconds"])]
        for told in document["progress"]
    ]
    study = document["study"]
    note = f"{study['cases']} cases; {study['rows']} rows saved, of which the last of each case counts once it is finished."
    return Table("Readers", "Progress", ("reader", "finished", "time a case (median)"), rows, note)


def _of_stage(part: str, stage: Mapping[str, Any], systems: Sequence[str]) -> Iterator[Table]:
    yield _preference(part, stage["preference"], stage["finished"])
    if stage["bradley_terry"]:
        yield _strengths(part, stage["bradley_terry"])
    rows = [
        [_label(key), *(f"{_three(told)} (n {told['n']})" for told in scale)] for key, scale in stage["scales"].items()
    ]
    yield Table(
        part, "Scales, mean of 1 to 5", ("", *systems), rows, "In brackets the 95 % interval of resampled cases."
    )
    harms = dict(forms.OF_CAPTION[-1].options)
    rows = [[label, *(str(stage["harm"][name].get(value, 0)) for name in systems)] for value, label in harms.items()]
    yield Table(part, "Potential harm, number of answers", ("", *systems), rows)
    yield _errors(part, stage["errors"], systems)
    if stage["agreement"]:
        yield _agreement(part, stage["agreement"])
        yield _pairs(part, stage["agreement"])
    if stage.get("repeated"):
        rows = [
            [_label(told["item"]), str(told["units"]), _three(told["raw"]), _three(told["kappa"])]
            for told in stage["repeated"]
        ]
        head = ("", "pairs of answers", "the same", "kappa")
        yield Table(
            part,
            "Readers with themselves, on repeated cases",
            head,
            rows,
            "Kappa: quadratic weights; preference: none.",
        )


def _preference(part: str, found: Mapping[str, Any], finished: int) -> Table:
    rows = [
        [
            told["system"],
            f"{told['wins']} of {told['n']}",
            _three({"value": told["rate"], "low": told["low"], "high": told["high"]}),
            _bounds(told["case_low"], told["case_high"]),
        ]
        for told in found["systems"]
    ]
    letters = ", ".join(f"{letter} {count}" for letter, count in found["letters"].items())
    note = (
        f"{finished} finished cases: {found[forms.TIE]} ties, {found[forms.ALL_BAD]} all bad, {found[forms.CANNOT]} not to be "
        f"judged. By letter: {letters}. Where systems wrote the same words ({found['same_words']} answers), a preference "
        "counts for each of them. Wilson's interval takes all answers for independent; the other resamples cases."
    )
    return Table(part, "Preferred captions", ("", "preferred", "rate [Wilson 95 %]", "95 % by case"), rows, note)


def _strengths(part: str, found: Mapping[str, Any]) -> Table:
    rows = [[told["system"], _three(told), ""] for told in found["systems"]]
    rows += [[f"{told['a']} over {told['b']}", "", _three(told)] for told in found["beats"]]
    note = "Log-strengths that sum to 0; the chance that the first is preferred to the second. Intervals of resampled cases."
    return Table(part, "Bradley–Terry", ("", "log-strength", "chance"), rows, note)


def _errors(part: str, errors: Sequence[Mapping[str, Any]], systems: Sequence[str]) -> Table:
    rows = []
    for item in forms.ERRORS:
        for weight, label in forms.WEIGHTS.items():
            of = {told["system"]: told for told in errors if (told["category"], told["weight"]) == (item.key, weight)}
            rows.append([f"{item.label}, {label.lower()}", *(f"{_three(of[s])} (Σ {of[s]['total']})" for s in systems)])
    return Table(
        part, "Errors a caption, mean", ("", *systems), rows, "In brackets the 95 % interval of resampled cases."
    )


def _agreement(part: str, found: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            _label(told["item"]),
            str(told["units"]),
            _three(told["raw"]),
            _three(told["within_one"]) if "within_one" in told else "–",
            _three(told["alpha"]),
            _three(told["fleiss"]) if "fleiss" in told else "–",
        ]
        for told in found
    ]
    head = ("", "units", "the same", "at most 1 apart", "Krippendorff's α", "Fleiss' κ")
    note = (
        "Units: cases for the preference, captions for the rest, judged by two readers or more. α: nominal for the preference, "
        "else ordinal. Read α and κ beside the raw agreement: where nearly all answers are alike, chance explains most of it."
    )
    return Table(part, "Agreement between readers", head, rows, note)


def _pairs(part: str, found: Sequence[Mapping[str, Any]]) -> Table:
    pairs = [(told["a"], told["b"]) for told in found[0]["kappa"]]
    rows = []
    for i, (a, b) in enumerate(pairs):
        rows.append([f"{a} – {b}", *(_three(told["kappa"][i]) for told in found)])
    head = ("", *(_label(told["item"]) for told in found))
    return Table(part, "Cohen's kappa of each two readers", head, rows, "Quadratic weights; preference: none.")


def _label(key: str) -> str:
    return _LABELS.get(key, key[:1].upper() + key[1:])


def _three(told: Mapping[str, Any]) -> str:
    if told["value"] is None:
        return "–"
    bounds = _bounds(told["low"], told["high"])
    return f"{told['value']:.2f}" + (f" {bounds}" if bounds != "–" else "")


def _bounds(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} s" if value < 120 else f"{value / 60:.1f} min"
