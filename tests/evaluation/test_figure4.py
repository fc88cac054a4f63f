"""Cases are chosen by the rule that is printed, facts are marked where they stand, and the paper's own cases become a figure."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msmedcap.config import UserError
from msmedcap.data.sets import Case, read_dataset
from msmedcap.evaluation import facts, figure4
from msmedcap.evaluation.captions_file import read
from msmedcap.evaluation.figure4 import FigureCase, choose
from msmedcap.evaluation.figure4 import cases as paper_panels
from msmedcap.evaluation.figure4.choice import letter
from msmedcap.evaluation.figure4.marks import Said, Span, f1, marked

TRUTH = "Axial CT of the chest. Pneumonia on the left."
RIGHT, HALF, WRONG = TRUTH, "Axial CT of the chest. Fracture.", "Sagittal MRI of the knee."


def row(
    name: str, first: str, second: str, *, group: str = "", truth: str = TRUTH, error: str | None = None
) -> dict[str, Any]:
    captions = {"MSMedCap": first, "BLIP2": second}
    return {"id": name, "group": group or name, "references": [truth], "captions": captions, "error": error}


ROWS = [
    row("d", RIGHT, WRONG),
    row("c", RIGHT, WRONG, group="d"),
    row("b", RIGHT, HALF),
    row("a", HALF, HALF),
    row("e", WRONG, RIGHT),
    row("f", WRONG, HALF),
    row("unread", "", "", error="damaged"),
    row("no fact", "Hello.", "Hello.", truth="A thing."),
]


def chosen(choice: figure4.Choice) -> list[str]:
    return [found["id"] for _, found in choice.rows]


def test_the_best_are_those_furthest_ahead_one_of_a_patient() -> None:
    choice = choose(ROWS, "best")
    assert chosen(choice) == ["c", "b", "a"]
    assert "Chosen from 6 cases (5 patients or groups of near-duplicates); 2 more" in choice.note
    assert (
        "a–c: the 3 cases in which the clinical-facts F1 of MSMedCap exceeds that of BLIP2 most (ties by id)"
        in choice.note
    )
    assert "higher in 3, equal in 1 and lower in 2" in choice.note


def test_the_failures_are_shown_beside_them_unless_asked_otherwise() -> None:
    choice = choose(ROWS, count=2, source="medpix dev")
    assert chosen(choice) == ["c", "b", "e", "f"]
    assert [section for section, _ in choice.rows] == [
        *["Where MSMedCap is furthest ahead of BLIP2"] * 2,
        *["Where MSMedCap fails"] * 2,
    ]
    assert "of medpix dev" in choice.note and "c–d: the 2 cases with the lowest" in choice.note


def test_a_case_that_both_rules_want_is_shown_once() -> None:
    choice = choose(ROWS[:1], count=2)
    assert chosen(choice) == ["d"]
    assert "a: the case in which" in choice.note and "lowest" not in choice.note


def test_the_lot_depends_on_the_ids_alone() -> None:
    first = choose(ROWS, "random", count=5)
    assert chosen(first) == chosen(choose(list(reversed(ROWS)), "random", count=5))
    assert len(set(chosen(first))) == 5 and {"unread", "no fact"}.isdisjoint(chosen(first))
    assert chosen(first) != sorted(chosen(first))


def test_other_systems_are_compared_by_the_names_of_their_rows() -> None:
    rows = [
        {**r, "captions": {"MSMedCap-G-GM": r["captions"]["MSMedCap"], "BLIP2-GM.s1": r["captions"]["BLIP2"]}}
        for r in ROWS
    ]
    choice = choose(rows, "best", systems=("MSMedCap-G-GM", "BLIP2-GM.s1"))
    assert chosen(choice) == ["c", "b", "a"]
    assert "of MSMedCap (G, G+M) exceeds that of BLIP2 (G+M)" in choice.note


def test_ids_are_taken_as_they_are() -> None:
    choice = choose(ROWS, ids=["f", "a"])
    assert chosen(choice) == ["f", "a"] and choice.note == "2 cases, chosen by hand."
    with pytest.raises(UserError, match="no case 'z'"):
        choose(ROWS, ids=["a", "z"])


def test_what_cannot_be_chosen_is_one_clear_sentence() -> None:
    with pytest.raises(UserError, match="no rule 'nicest'"):
        choose(ROWS, "nicest")
    with pytest.raises(UserError, match="compares two systems"):
        choose(ROWS, systems=("MSMedCap",))
    with pytest.raises(UserError, match="None of the 2 cases"):
        choose(ROWS[-2:])


@pytest.mark.parametrize(
    ("known", "systems"),
    [
        (["BLIP2", "SAM-BLIP2", "MSMedCap"], ("MSMedCap", "BLIP2", "SAM-BLIP2")),
        (["BLIP2-G", "BLIP2-GM", "MSMedCap-G-G", "MSMedCap-G-GM"], ("MSMedCap-G-GM", "BLIP2-GM")),
        (["candidate"], ("candidate",)),
    ],
)
def test_default_systems(known: list[str], systems: tuple[str, ...]) -> None:
    assert figure4.default_systems(known) == systems


@pytest.mark.parametrize(
    ("truth", "caption", "signs"),
    [
        (TRUTH, TRUTH, "Axial ✓ CT ✓ of the chest ✓. Pneumonia ✓ on the left ✓."),
        (
            TRUTH,
            "Axial MRI of the chest. Pneumonia on the right.",
            "Axial ✓ MRI ✗ of the chest ✓. Pneumonia ✓ on the right ✗.",
        ),
        ("No pneumothorax.", "No pneumothorax. Fracture.", "No pneumothorax ✓. Fracture ✗."),
        ("Pneumothorax.", "No pneumothorax.", "No pneumothorax ✗."),
        ("Sagittal T1-weighted MRI.", "Sagittal T2-weighted MRI.", "Sagittal ✓ T2-weighted MRI ✓."),
        ("Sagittal T1-weighted MRI.", "Sagittal T1 weighted MRI.", "Sagittal ✓ T1 weighted ✓ MRI ✓."),
        ("Sagittal CT.", "Sagittal T2-weighted MRI.", "Sagittal ✓ T2-weighted ✗ MRI ✗."),
        (TRUTH, "Nothing it knows.", "Nothing it knows."),
    ],
)
def test_facts_are_marked_where_they_stand(truth: str, caption: str, signs: str) -> None:
    assert marked([truth], caption).with_signs() == signs


def test_what_a_caption_left_out_is_named() -> None:
    said = marked([TRUTH], "CT of the chest. Pneumonia.")
    assert said.missed == ("axial", "left side")
    assert marked(["No pneumothorax."], "CT.").missed == ("no pneumothorax",)
    assert marked(["CT of the kidney."], "CT.").missed == ("kidney",)  # not the abdomen that a kidney is in


def test_a_fact_of_any_reference_is_right() -> None:
    assert [s.right for s in marked(["CT.", "Axial image."], "Axial CT.").spans] == [True, True]


def test_the_f1_is_the_tables() -> None:
    for truth, caption in itertools.product((TRUTH, "Pneumothorax.", "A thing."), (RIGHT, HALF, WRONG, "Hello.")):
        whole = facts.clinical([[truth]], [caption]).all.f1
        assert f1([truth], caption) == pytest.approx(whole, nan_ok=True)
    assert marked(["A thing."], "Hello.").score == "no fact to compare" and math.isnan(f1(["A thing."], "Hello."))
    assert marked([TRUTH], TRUTH).score == "facts F1 1.00"


def test_signs_are_put_in_from_the_left() -> None:
    assert Said("ab cd", (Span(0, 2, True), Span(3, 5, False))).with_signs() == "ab ✓ cd ✗"


def case_of(folder: Path, name: str, caption: str = TRUTH) -> Case:
    file = folder / f"{name}.png"
    Image.fromarray(np.tile(np.arange(50, dtype=np.uint8) * 5, (40, 1))).save(file)
    return Case(name, file, {}, caption, name, "few")


def test_the_figure_and_its_words(tmp_path: Path) -> None:
    cases = {name: case_of(tmp_path, name) for name in "abcdef"}
    choice = choose(ROWS, count=1)
    opened = figure4.open_cases(choice, cases, ("MSMedCap", "BLIP2"))
    assert [case.picture.shape for case in opened] == [(40, 50, 3)] * 2 and opened[0].ratio == pytest.approx(1.25)
    files = figure4.draw(opened, tmp_path / "docs", note=choice.note, command="python -m msmedcap figure4")
    assert [file.name for file in files] == ["figure4.png", "figure4.pdf", "figure4.md"]
    words = files[2].read_text(encoding="utf-8")
    assert "**a** few `c`" in words and "**b** few `e`" in words
    assert (
        f"- Ground truth: {TRUTH}" in words
        and "- BLIP2: Sagittal ✗ MRI ✗ of the knee ✗. (facts F1 0.00; missed: " in words
    )
    assert choice.note in words and "not for clinical use" in words and "python -m msmedcap figure4" in words
    assert str(tmp_path) not in words
    printed = " ".join(text.get_text() for text in figure4.figure(opened, note=choice.note).axes[0].texts)
    for word in choice.note.split():
        assert word in printed
    assert "c.png" not in printed


def test_a_case_of_another_data_set_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no case 'd'"):
        figure4.open_cases(choose(ROWS[:1], "best"), {}, ("MSMedCap", "BLIP2"))


def test_several_references_are_shown_once_each() -> None:
    case = FigureCase(
        "a", "few", np.zeros((4, 4, 3), np.uint8), 1.0, ("A CT.", "a ct", "An X-ray."), {"MSMedCap": "CT"}
    )
    assert "- Ground truth: A CT. / An X-ray.\n" in figure4.in_words([case])


def test_the_papers_cases_become_a_figure(tmp_path: Path) -> None:
    captions = ("Figure 3 MRI of an invented knee", "Coronal CT of no one's chest.")
    folder = tmp_path / "roco" / "test" / "radiology"
    (folder / "images").mkdir(parents=True)
    lines = [f"ROCO_{i}\t{text}" for i, text in enumerate(("Else.", captions[1], captions[0]))]
    (folder / "captions.txt").write_text("\n".join(lines), encoding="utf-8")
    for i in range(3):
        Image.fromarray(np.tile(np.arange(40, dtype=np.uint8), (30, 1))).save(folder / "images" / f"ROCO_{i}.jpg")
    forms = [paper_panels.normalised(text).removeprefix("figure 3 ") for text in captions]
    paper = tuple(
        paper_panels.PaperCase(panel, paper_panels.digest(form), paper_panels.digest(form.replace(" ", "")))
        for panel, form in zip("ab", forms, strict=True)
    )
    asked: list[list[str]] = []

    def caption(cases: list[Case]) -> list[dict[str, str]]:
        asked.append([case.id for case in cases])
        return [{"MSMedCap": f"MRI {case.id}", "BLIP2": "A thing"} for case in cases]

    opened, note = figure4.paper_cases({"roco": tmp_path / "roco"}, caption, paper=paper)
    assert asked == [["ROCO_2", "ROCO_1"]]
    assert [case.id for case in opened] == ["ROCO_2", "ROCO_1"]
    assert opened[0].captions == {"MSMedCap": "MRI ROCO_2", "BLIP2": "A thing"}
    assert note.startswith("The cases of the paper's Fig. 4") and "not found" not in note
    words = [text.get_text() for text in figure4.figure(opened, note=note).axes[0].texts]
    assert any("invented knee" in word for word in words)
    _, note = figure4.paper_cases({"roco": tmp_path / "roco"}, caption, paper=(*paper, paper_panels.PAPER[2]))
    assert "1 of its 3 cases was not found" in note


def test_panels_beyond_z_have_two_letters() -> None:
    assert [letter(n) for n in (0, 25, 26, 27, 52)] == ["a", "z", "aa", "ab", "ba"]


def test_a_captions_file_becomes_a_figure(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for name in "ab":
        case_of(tmp_path / "own", name)
    table = [{"image": f"{name}.png", "id": name, "caption": TRUTH, "split": "test"} for name in "ab"]
    (tmp_path / "own" / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in table))
    lines = [{"made_with": {"data": "table", "split": "test"}}, row("a", RIGHT, HALF), row("b", WRONG, HALF)]
    (tmp_path / "table-test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    cases, note = figure4.captioned_cases(read(tmp_path / "table-test.jsonl"), tmp_path / "own", count=1)
    assert [(case.id, list(case.captions)) for case in cases] == [
        ("a", ["MSMedCap", "BLIP2"]),
        ("b", ["MSMedCap", "BLIP2"]),
    ]
    assert "Chosen from 2 cases of table test" in note
    (one,), note = figure4.captioned_cases(
        read(tmp_path / "table-test.jsonl"), tmp_path / "own", ids=["b"], systems=["BLIP2"]
    )
    assert one.captions == {"BLIP2": HALF} and note == "1 case of table test, chosen by hand."


@pytest.mark.slow
def test_real_scans_are_drawn(shared_data: Path) -> None:
    cases = {case.id: case for case in read_dataset("medpix", shared_data / "medpix", "dev")[:6]}
    rows = [
        {**row(case.id, case.caption, "CT.", group=case.group), "references": list(case.references)}
        for case in cases.values()
    ]
    choice = choose(rows, count=1)
    opened = figure4.open_cases(choice, cases, ("MSMedCap", "BLIP2"))
    figure = figure4.figure(opened, note=choice.note)
    assert len(figure.axes[0].images) == len(choice.rows) >= 1
