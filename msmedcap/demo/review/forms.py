"""The form a reader fills in, as data: what is asked of a case and of each caption, and which answers there are.

Comes in: answers as the browser sends them, by key: ``preference``, ``A.accuracy``, ``A.error.wrong_side.significant``. Goes out:
the same, checked, and what is still open. The error categories are ReXVal's six (Yu et al., Patterns 2023), each counted as
clinically significant or not, and two more that captions of unnamed scans need: the wrong modality or plane, the wrong side.
To every question but the counts and the free text "cannot judge" is an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

from msmedcap.config import UserError

Answers: TypeAlias = dict[str, int | str]
VERSION: Final = 1
CANNOT, TIE, ALL_BAD = "cannot_judge", "tie", "all_bad"
MOST_ERRORS, MOST_TEXT = 20, 4000


@dataclass(frozen=True)
class Item:
    """One question: ``kind`` is choice, scale (1 to 5), count or text; ``options`` are (value, label) of a choice or the ends."""

    key: str
    kind: str
    label: str
    help: str
    options: tuple[tuple[str, str], ...] = ()


OF_CASE = (
    Item(
        "preference",
        "choice",
        "Which caption would you rather have?",
        "One caption, none better than another (tie), or none of use (all bad).",
        ((TIE, "Tie"), (ALL_BAD, "All bad"), (CANNOT, "Cannot judge")),
    ),
    Item("confidence", "scale", "How sure are you of these answers?", "", (("1", "guessing"), ("5", "certain"))),
    Item("comment", "text", "Remarks", "Free text; name no patient."),
)
OF_CAPTION = (
    Item("accuracy", "scale", "Accuracy", "What it says is true", (("1", "all wrong"), ("5", "all right"))),
    Item("completeness", "scale", "Completeness", "It says what matters", (("1", "nothing"), ("5", "everything"))),
    Item("clarity", "scale", "Clarity", "It can be understood at once", (("1", "unclear"), ("5", "clear"))),
    Item(
        "harm",
        "choice",
        "Potential harm",
        "If someone acted on this caption alone",
        (("none", "None"), ("mild", "Mild"), ("moderate", "Moderate"), ("severe", "Severe"), (CANNOT, "Cannot judge")),
    ),
)
ERRORS = (
    Item("false_finding", "count", "False finding", "Says something that is not there"),
    Item("missing_finding", "count", "Missing finding", "Leaves out something that is there"),
    Item("wrong_location", "count", "Wrong location", "The right finding in the wrong place"),
    Item("wrong_severity", "count", "Wrong severity", "The right finding, too grave or too mild"),
    Item("invented_comparison", "count", "Invented comparison", "Compares with an earlier scan that is not given"),
    Item("missed_comparison", "count", "Missed comparison", "Leaves out a change that the scan itself shows"),
    Item("wrong_modality", "count", "Wrong modality or plane", "CT for MR, axial for coronal"),
    Item("wrong_side", "count", "Wrong side", "Left for right"),
)
WEIGHTS = {"significant": "Clinically significant", "insignificant": "Not significant"}
SCALES = tuple(item.key for item in OF_CAPTION if item.kind == "scale")
KEYS = (
    ("A B C", "prefer that caption"),
    ("T", "a tie"),
    ("X", "all bad"),
    ("N", "cannot judge the case"),
    ("1 to 5", "answer the question the cursor is in, and go on to the next"),
    ("0", "cannot judge the question the cursor is in"),
    ("Delete, Backspace", "take back the answer to the question the cursor is in"),
    ("Enter, Shift+Enter", "next question, question before"),
    ("Ctrl+Enter", "finish the case and open the next"),
    ("[ and ]", "case before, case after"),
    ("+ and −, H", "picture larger, smaller, whole"),
    ("?", "show or hide these keys"),
)


def form(letters: Sequence[str]) -> dict[str, Any]:
    """The form for a browser, JSON-able; the same for every reader and case of a study."""
    return {
        "version": VERSION,
        "letters": list(letters),
        "case": [asdict(item) for item in OF_CASE],
        "caption": [asdict(item) for item in OF_CAPTION],
        "errors": [asdict(item) for item in ERRORS],
        "weights": WEIGHTS,
        "cannot": CANNOT,
        "most": {"errors": MOST_ERRORS, "text": MOST_TEXT},
        "keys": [list(pair) for pair in KEYS],
    }


def check(answers: Mapping[str, Any], letters: Sequence[str]) -> Answers:
    """``answers`` without those that were taken back (None); raises :class:`UserError` on a key or value the form does not have."""
    if not isinstance(answers, Mapping):
        raise UserError("The answers are not in the form's format; load the page again.")
    allowed = _allowed(letters)
    checked: Answers = {}
    for key, value in answers.items():
        if key not in allowed:
            raise UserError(f"The form has no question {str(key)[:60]!r}; load the page again.")
        if value is None or value == "":
            continue
        if not _fits(value, allowed[key], letters):
            raise UserError(f"{str(value)[:60]!r} is no answer to {key}; load the page again.")
        checked[key] = value
    return checked


def missing(answers: Answers, letters: Sequence[str]) -> list[str]:
    """The keys of the questions that are still open; none where the reader says that the case cannot be judged."""
    if answers.get("preference") == CANNOT:
        return []
    asked = ["preference", *(f"{letter}.{item.key}" for letter in letters for item in OF_CAPTION), "confidence"]
    return [key for key in asked if key not in answers]


def completed(answers: Answers, letters: Sequence[str]) -> Answers:
    """``answers`` of a finished case: errors that were not counted are none, unless the case cannot be judged."""
    if answers.get("preference") == CANNOT:
        return answers
    return {**{f"{letter}.{key}": 0 for letter in letters for key in error_keys()}, **answers}


def error_keys() -> list[str]:
    """The keys of a caption's counts, without its letter."""
    return [f"error.{item.key}.{weight}" for item in ERRORS for weight in WEIGHTS]


def _allowed(letters: Sequence[str]) -> dict[str, Item]:
    allowed = {item.key: item for item in OF_CASE}
    for letter in letters:
        allowed |= {f"{letter}.{item.key}": item for item in OF_CAPTION}
        allowed |= {f"{letter}.error.{item.key}.{weight}": item for item in ERRORS for weight in WEIGHTS}
    return allowed


def _fits(value: Any, item: Item, letters: Sequence[str]) -> bool:
    if item.kind == "text":
        return isinstance(value, str) and len(value) <= MOST_TEXT
    if item.kind == "count":
        return type(value) is int and 0 <= value <= MOST_ERRORS
    if item.kind == "scale":
        return (type(value) is int and 1 <= value <= 5) or value == CANNOT
    return value in dict(item.options) or (item.key == "preference" and value in letters)
