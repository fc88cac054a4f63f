"""Table 1 as text: Markdown with what must be said beside it, CSV with a number per line, LaTeX with booktabs.

Comes in: a :class:`~msmedcap.evaluation.table1.Table`. Every sentence about agreement is put together from
:mod:`~msmedcap.evaluation.table1.order`; none is written in advance.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence

from msmedcap.evaluation import paper
from msmedcap.evaluation.paper import Column
from msmedcap.evaluation.table1 import Cell, Line, Table
from msmedcap.evaluation.table1.order import AGREES, DISAGREES, OPEN, TIED, Agreement, Pair, agreements

NOT_TRAINED, NOT_MEASURED, NONE = "not trained", "not measured", "–"
SIGNS = {AGREES: "✓", DISAGREES: "✗", OPEN: "·", TIED: "="}
_TAU_SIGNS = {
    "positive": lambda tau: tau > 0,
    "negative": lambda tau: tau < 0,
    "zero": lambda tau: tau == 0,
    "undefined": math.isnan,
}
_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': "''", "`": r"\textasciigrave{}", "–": "--", "—": "---", "’": "'", "±": r"$\pm$", "×": r"$\times$",
    "−": "$-$", "τ": r"$\tau$", "✓": r"$\checkmark$", "✗": r"$\times$", "·": r"$\cdot$", "…": r"\ldots{}",
}  # fmt: skip
_CSV_HEAD = (
    "model", "source", "column", "power_of_ten", "value", "low", "high", "seed_sd", "seeds", "systems",
    "data", "split", "cases", "groups", "note",
)  # fmt: skip


def markdown(table: Table, *, command: str = "") -> str:
    """The table, the agreement of the orderings, every pair's verdict, and the notes."""
    heads = [f"{column.printed} (×10{_superscript(column.power)})" for column in table.columns]
    lines = ["# Table 1: the paper's models beside ours", "", f"| Model | | {' | '.join(heads)} |"]
    lines.append("|---" * 2 + "|---:" * len(heads) + "|")
    best = _best(table)
    for line in table.lines:
        name = f"**{line.name}**"
        if line.paper is not None:
            lines.append(f"| {name} | paper | {' | '.join(_printed(line.paper, column) for column in table.columns)} |")
            name = ""
        cells = [_ours(line, column) for column in table.columns]
        cells = [
            f"**{cell}**" if (line.name, c.name) in best else cell for cell, c in zip(cells, table.columns, strict=True)
        ]
        lines.append(f"| {name} | {_source(line)} | {' | '.join(cells)} |")
    lines += ["", *(f"- {note}" for note in notes(table))]
    lines += ["", "## Is our ordering the paper's?", "", *_agreement_markdown(agreements(table))]
    if command:
        lines += ["", "Made with:", "", "```sh", command, "```"]
    return "\n".join(lines) + "\n"


def notes(table: Table) -> list[str]:
    """What a reader must know of the numbers."""
    told = [
        f"Paper: the printed numbers of {paper.CITATION} Its captions are those of ROCO and MedICaT, its models built on BLIP-2 "
        "and SAM.",
        f"Ours: {table.data} {table.split}, {_count(table.n, 'case')} of {_count(table.groups, 'patient')} (or groups of "
        "near-duplicates). "
        "Other data, other references and another scale than the paper's: compare the orderings, not the values.",
        f"G = {table.general}; M = medical pictures. In brackets of the model: what its Q-Former was pre-trained on, of MSMedCap "
        "CLIP's, then SAM's.",
        "Ours is scaled by the paper's powers of ten. ±: the standard deviation over seeds. In brackets of the cell: the 95 % "
        "bootstrap interval by patient, of several seeds the mean of theirs, as a rule no narrower than that of the mean. "
        "Bold: the best of ours.",
    ]
    if any(len(line.ours.systems) == 1 for line in table.lines if line.ours):
        told.append("A single seed: how much training again would change is in none of its intervals.")
    if table.missing:
        told.append(f"Not measured in these scores: {', '.join(table.missing)}.")
    beware: dict[str, list[str]] = {}
    for column in table.columns:
        if column.name in table.misleads and column.name not in table.missing:
            beware.setdefault(table.misleads[column.name], []).append(column.name)
    told += [f"{', '.join(columns)}: {text}" for text, columns in beware.items()]
    for name, made in table.made_with.items():
        held = [f"{key} {value}" for key, value in made.items() if value and isinstance(value, (str, int, float))]
        told.append(f"Captions {name}: {', '.join(held) or 'what made them is not said'}.")
    return told + list(table.warnings)


def statement(found: Sequence[Agreement]) -> str:
    """All columns in a sentence: in how many verdicts ours is the paper's ordering, the reverse, or neither can be told."""
    if not found:
        return "No two of the paper's models were trained and measured here, so no ordering can be compared."
    total = {kind: sum(agreement.count(kind) for agreement in found) for kind in (AGREES, DISAGREES, OPEN, TIED)}
    told = sum(total.values()) - total[TIED]
    signs = {name: [a.column for a in found if want(a.tau)] for name, want in _TAU_SIGNS.items()}
    names = "; ".join(f"{name} in {', '.join(columns)}" for name, columns in signs.items() if columns)
    return (
        f"Of {_count(told, 'pair')} of models in {_count(len(found), 'metric')}, our ordering agrees with the paper's in "
        f"{total[AGREES]}, disagrees in {total[DISAGREES]}, and in {total[OPEN]} ours cannot be separated"
        + (f"; {total[TIED]} more are tied in the paper" if total[TIED] else "")
        + f". Kendall's τ is {names}."
    )


def csv_text(table: Table) -> str:
    """A line per model, source and column; numbers in full, empty where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_HEAD)
    place = [table.data, table.split, table.n, table.groups]
    for line in table.lines:
        for column in table.columns:
            head = [column.name, column.power]
            if line.paper is not None and column.name in line.paper.printed:
                value = line.paper.printed[column.name]
                writer.writerow([line.name, "paper", *head, value, *[""] * 5, *[""] * 4, "as printed"])
            cell = line.ours.cells.get(column.name) if line.ours else None
            systems = line.ours.systems if line.ours else ()
            numbers = [_full(v) for v in (cell.value, cell.low, cell.high, cell.spread)] if cell else [""] * 4
            note = f"G = {table.general}" if cell else NOT_MEASURED if line.ours else NOT_TRAINED
            writer.writerow([line.name, "ours", *head, *numbers, len(systems) or "", " ".join(systems), *place, note])
    return text.getvalue()


def latex(table: Table) -> str:
    """A ``table*`` for a paper; it needs the packages booktabs, amssymb and graphicx, named in its first line."""
    heads = " & ".join(rf"\textbf{{{escape(column.printed)}}}" for column in table.columns)
    powers = " & ".join(rf"($\times 10^{{{column.power}}}$)" for column in table.columns)
    lines = [
        r"% \usepackage{booktabs,amssymb,graphicx}",
        r"\begin{table*}[t]",
        r"\centering",
        r"\resizebox{\textwidth}{!}{%",
        rf"\begin{{tabular}}{{ll{'r' * len(table.columns)}}}",
        r"\toprule",
        rf"\textbf{{Model}} & & {heads} \\",
        rf" & & {powers} \\",
        r"\midrule",
    ]
    best = _best(table)
    for number, line in enumerate(table.lines):
        if number:
            lines.append(r"\addlinespace")
        name, _, variant = escape(line.name).partition("), ")
        name += ")" if variant else ""
        if line.paper is not None:
            cells = " & ".join(_minus(escape(_printed(line.paper, column))) for column in table.columns)
            lines.append(rf"{name} & paper & {cells} \\")
            name = ""
        if line.ours is None:
            lines.append(rf"{name} & ours & \multicolumn{{{len(table.columns)}}}{{c}}{{{NOT_TRAINED}}} \\")
            continue
        pairs = [_two_lines(line, column) for column in table.columns]
        means = [
            rf"\textbf{{{mean}}}" if (line.name, column.name) in best else mean
            for (mean, _), column in zip(pairs, table.columns, strict=True)
        ]
        lines.append(rf"{name} & {escape(_source(line))} & {' & '.join(means)} \\")
        lines.append(rf"{variant} & & {' & '.join(interval for _, interval in pairs)} \\")
    caption = " ".join(["Table 1 of the paper beside ours.", statement(agreements(table)), *notes(table)])
    lines += [
        r"\bottomrule",
        r"\end{tabular}}",
        rf"\caption{{{escape(caption)}}}",
        r"\label{tab:table1}",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _two_lines(line: Line, column: Column) -> tuple[str, str]:
    """A cell of ours in LaTeX: the mean with its spread, and under it the interval."""
    mean, _, interval = _ours(line, column).partition(" [")
    return _minus(escape(mean)), rf"\footnotesize [{_minus(interval)}" if interval else ""


def _minus(text: str) -> str:
    """Hyphens before digits as minus signs."""
    return re.sub(r"-(?=\d)", "$-$", text)


def escape(text: str) -> str:
    """``text`` as LaTeX prints it, no character of it a command."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def cell_text(cell: Cell) -> str:
    """``312.4 ± 4.1 [300.2, 324.9]``."""
    spread = "" if math.isnan(cell.spread) else f" ± {cell.spread:.1f}"
    interval = "" if math.isnan(cell.low) or math.isnan(cell.high) else f" [{cell.low:.1f}, {cell.high:.1f}]"
    return f"{cell.value:.1f}{spread}{interval}"


def _agreement_markdown(found: Sequence[Agreement]) -> list[str]:
    lines = [statement(found)]
    if not found:
        return lines
    lines += ["", "| Metric | agrees | disagrees | not separable | tied in the paper | Kendall's τ | τ's bounds |"]
    lines.append("|---" + "|---:" * 6 + "|")
    for a in found:
        counts = " | ".join(str(a.count(kind)) for kind in (AGREES, DISAGREES, OPEN, TIED))
        lines.append(f"| {a.column} | {counts} | {_tau(a.tau)} | [{_tau(a.low)}, {_tau(a.high)}] |")
    lines += [
        "",
        "A pair counts where the 95 % interval of our difference leaves out 0 and every pair of seeds has its sign; it agrees",
        "where that sign is the paper's. No correction for the number of pairs. τ is tau-b of the two orderings of mean scores;",
        "its bounds are what it would be if every pair that is not separable were ordered against the paper, or with it.",
        "",
        "Pair by pair, the first model minus the second in our scores with its interval; "
        + ", ".join(f"{sign} {kind}" for kind, sign in SIGNS.items())
        + ":",
        "",
        f"| First | Second | {' | '.join(a.column for a in found)} |",
        "|---" * 2 + "|---:" * len(found) + "|",
    ]
    for first, second in dict.fromkeys((pair.a, pair.b) for agreement in found for pair in agreement.pairs):
        cells = []
        for agreement in found:
            pair = next((p for p in agreement.pairs if (p.a, p.b) == (first, second)), None)
            cells.append(_verdict(pair) if pair else NONE)
        lines.append(f"| {first} | {second} | {' | '.join(cells)} |")
    return lines


def _verdict(pair: Pair) -> str:
    ours = pair.ours
    return f"{SIGNS[pair.verdict]} {ours.value:+.1f} [{ours.low:+.1f}, {ours.high:+.1f}]"


def _best(table: Table) -> set[tuple[str, str]]:
    """(line, column) of the highest mean of ours in each column of at least two; all are better when higher."""
    best = set()
    for column in table.columns:
        found = [(line.name, line.ours.cells.get(column.name)) for line in table.lines if line.ours]
        values = {name: cell.value for name, cell in found if cell}
        if len(values) > 1:
            best |= {(name, column.name) for name, value in values.items() if value == max(values.values())}
    return best


def _printed(row: paper.Row, column: Column) -> str:
    return f"{row.printed[column.name]:.1f}" if column.name in row.printed else NONE


def _ours(line: Line, column: Column) -> str:
    if line.ours is None:
        return NOT_TRAINED
    cell = line.ours.cells.get(column.name)
    return cell_text(cell) if cell else NOT_MEASURED


def _source(line: Line) -> str:
    seeds = len(line.ours.systems) if line.ours else 0
    return f"ours, {seeds} seeds" if seeds > 1 else "ours"


def _tau(value: float) -> str:
    return NONE if math.isnan(value) else f"{value:+.2f}"


def _full(value: float) -> str:
    return "" if math.isnan(value) else repr(round(value, 6))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _superscript(power: int) -> str:
    return str(power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
