"""Fig. 4: scans with the ground truth and what each system said of them, right and wrong facts marked.

Comes in: a captions file and the data set it is of, or the data set that holds the paper's own cases and a model. Cases are taken
by their ids or by a rule (:data:`RULES`); which rule, and from how many cases, is printed in the figure. Goes out: a matplotlib
figure (:func:`figure`), as PNG and PDF with its words as Markdown beside it (:func:`draw`). Pictures are opened de-identified.

    python -m msmedcap figure4 --captions runs/scores/medpix-dev.jsonl --data medpix=PATH --out docs
    python -m msmedcap figure4 --data roco=PATH --models full --out docs
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from msmedcap.config import UserError
from msmedcap.data.sets import Case, open_case, read_dataset
from msmedcap.evaluation.captions_file import CaptionsFile
from msmedcap.evaluation.figure4.cases import PAPER, PaperCase, normalised, search
from msmedcap.evaluation.figure4.choice import COUNT, RULE_NAMES, RULES, Choice, choose, default_systems, letters, shown
from msmedcap.evaluation.figure4.marks import Said, marked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "COLUMNS",
    "COUNT",
    "RULES",
    "RULE_NAMES",
    "Choice",
    "FigureCase",
    "captioned_cases",
    "choose",
    "default_systems",
    "draw",
    "figure",
    "in_words",
    "open_cases",
    "open_figure_case",
    "paper_cases",
    "shown",
]

COLUMNS = 3
TRUTH = "Ground truth"
DISCLAIMER = "Research demonstration, not for clinical use."
BURNED_IN = (
    "The pictures hold no file data, but text may be burned into their pixels: look at each before you publish it."
)


@dataclass(frozen=True)
class FigureCase:
    """A case of the figure.

    ``picture [H,W,3] uint8`` as displayed, ``ratio`` its width over its height in the body; ``truths``: the references;
    ``captions`` by system, in the order they are shown; ``section`` heads it.
    """

    id: str
    source: str
    picture: np.ndarray
    ratio: float
    truths: tuple[str, ...]
    captions: Mapping[str, str]
    section: str = ""


def captioned_cases(
    file: CaptionsFile,
    path: Path,
    *,
    rule: str = "both",
    count: int = COUNT,
    ids: Sequence[str] = (),
    systems: Sequence[str] = (),
) -> tuple[list[FigureCase], str]:
    """The cases of a captions file to show and the note that says how they were chosen (:func:`choose`).

    ``path`` is the folder of the data set that the captions are of. Raises as :func:`choose` and :func:`open_cases`.
    """
    systems = tuple(systems) or default_systems(file.systems())
    choice = choose(file.rows, rule, count=count, ids=ids, systems=systems, source=f"{file.name} {file.split}".strip())
    wanted = {row["id"] for _, row in choice.rows}
    cases = {case.id: case for case in read_dataset(file.name, path, file.split) if case.id in wanted}
    return open_cases(choice, cases, systems), choice.note


def open_cases(choice: Choice, cases: Mapping[str, Case], systems: Sequence[str]) -> list[FigureCase]:
    """The chosen rows with their pictures; raises :class:`UserError` for a case that the data set does not hold.

    ``cases`` by id. Raises :class:`~msmedcap.data.scans.ScanError` for a picture that cannot be opened.
    """
    opened = []
    for section, row in choice.rows:
        if row["id"] not in cases:
            raise UserError(f"The data set holds no case {row['id']!r}; name the one that the captions are of.")
        captions = {system: row["captions"].get(system, "") for system in systems}
        case = cases[row["id"]]
        opened.append(
            open_figure_case(case, captions, truths=tuple(row["references"]) or case.references, section=section)
        )
    return opened


def open_figure_case(
    case: Case, captions: Mapping[str, str], *, truths: Sequence[str] = (), section: str = ""
) -> FigureCase:
    """``case`` with its picture in its default window; raises :class:`~msmedcap.data.scans.ScanError`."""
    scan = open_case(case)
    picture = scan.picture()
    row, column = scan.spacing or (1.0, 1.0)  # pixels are not always square
    ratio = picture.shape[1] * column / (picture.shape[0] * row)
    return FigureCase(case.id, case.source, picture, ratio, tuple(truths) or case.references, dict(captions), section)


def paper_cases(
    data: Mapping[str, Path],
    caption: Callable[[list[Case]], Sequence[Mapping[str, str]]],
    *,
    paper: tuple[PaperCase, ...] = PAPER,
) -> tuple[list[FigureCase], str]:
    """The paper's own cases, found in the data sets ``data`` (name to folder) and captioned by ``caption``, and their note.

    ``caption`` is given all of them at once and returns each one's captions by system. Raises :class:`UserError` where there are
    none.
    """
    found = search(data, paper=paper)
    captions = caption(list(found.values()))
    opened = [open_figure_case(case, said) for case, said in zip(found.values(), captions, strict=True)]
    note = "The cases of the paper's Fig. 4, found by the SHA-256 of their normalised ground truth."
    if missing := len(paper) - len(found):
        note += (
            f" {missing} of its {len(paper)} cases {'was' if missing == 1 else 'were'} not found in {', '.join(data)}."
        )
    return opened, note


def figure(cases: Sequence[FigureCase], *, note: str = "", columns: int = COLUMNS) -> Figure:
    """The figure of ``cases``, ``note`` printed under them; raises ValueError for no case."""
    from msmedcap.evaluation.figure4.layout import Panel, lay_out

    panels = [
        Panel(
            case.picture,
            case.ratio,
            case.source,
            {
                TRUTH: Said(_shown_truth(case)),
                **{shown(name): marked(case.truths, text) for name, text in case.captions.items()},
            },
            case.section,
        )
        for case in cases
    ]
    return lay_out(panels, f"{note} {DISCLAIMER}".strip(), columns=columns)


def draw(
    cases: Sequence[FigureCase],
    out: Path,
    *,
    note: str = "",
    columns: int = COLUMNS,
    stem: str = "figure4",
    command: str = "",
) -> list[Path]:
    """Write ``OUT/STEM.png`` (300 dots an inch), ``.pdf`` (text as text) and ``.md`` (ids and words) and return them."""
    from msmedcap.evaluation.figure4.layout import save

    out.mkdir(parents=True, exist_ok=True)
    files = save(figure(cases, note=note, columns=columns), out / stem)
    text = out / f"{stem}.md"
    text.write_text(in_words(cases, note=note, picture=files[0].name, command=command), encoding="utf-8")
    return [*files, text]


def in_words(cases: Sequence[FigureCase], *, note: str = "", picture: str = "", command: str = "") -> str:
    """The figure as Markdown: for those who cannot see it, with the cases' ids."""
    lines = ["# Figure 4: what the systems say", ""]
    if picture:
        lines += [f"![Scans with the ground truth and the captions of each system]({picture})", ""]
    lines += [f"{note} {DISCLAIMER}".strip(), "", "In the words below a right fact is followed by ✓, a wrong one by ✗."]
    lines += [BURNED_IN]
    for section, group in itertools.groupby(enumerate(cases), key=lambda item: item[1].section):
        lines += ["", f"## {section}"] if section else []
        for number, case in group:
            lines += [
                "",
                f"**{letters(number, number + 1)}** {case.source} `{case.id}`",
                "",
                f"- {TRUTH}: {_shown_truth(case)}",
            ]
            for system, caption in case.captions.items():
                said = marked(case.truths, caption)
                rest = "; ".join([said.score, *([f"missed: {', '.join(said.missed)}"] if said.missed else [])])
                lines.append(f"- {shown(system)}: {said.with_signs()} ({rest})")
    if command:
        lines += ["", "Made with:", "", "```sh", command, "```"]
    return "\n".join(lines) + "\n"


def _shown_truth(case: FigureCase) -> str:
    """The first reference, and the others that say something else."""
    different = {normalised(text): text for text in reversed(case.truths)}
    return " / ".join(text for text in case.truths if different.get(normalised(text)) is text)
