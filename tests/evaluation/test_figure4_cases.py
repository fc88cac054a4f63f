"""The paper's own cases are known by hashes alone, whatever a data set did to spaces, stops and labels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msmedcap.config import UserError
from msmedcap.data.sets import open_case
from msmedcap.evaluation.figure4 import cases as paper_panels
from msmedcap.evaluation.figure4.cases import PAPER, PaperCase, digest, find, hashes, normalised

CAPTIONS = (
    "Figure 7 MRI of an invented knee, with two tears",
    "A made-up radiograph (arrow) of nobody's chest.",
    "Coronal T2-weighted image that no paper shows",
)
FORMS = (
    "mri of an invented knee with two tears",
    "a made up radiograph arrow of nobody s chest",
    "coronal t2 weighted image that no paper shows",
)
INVENTED = tuple(
    PaperCase(panel, digest(form), digest(form.replace(" ", ""))) for panel, form in zip("abc", FORMS, strict=True)
)


@dataclass(frozen=True)
class Named:
    references: tuple[str, ...]


def test_normal_form() -> None:
    assert normalised("  Fig. 2:  Un  Ménisque, T1-weighted; 3.5 cm_x\n") == "fig 2 un menisque t1 weighted 3 5 cm x"
    assert normalised("…") == ""


@pytest.mark.parametrize(
    "text",
    [
        CAPTIONS[0],
        "mri of an invented knee, with two tears.",
        "Fig. 7. MRI of an invented knee , with two tears .",
        "FIGURE 12: MRI of an in- vented knee, with  two tears",
        "Figure 7 (b) MRI of an invented knee with two tears",
    ],
)
def test_a_caption_is_known_however_it_is_printed(text: str) -> None:
    case = INVENTED[0]
    assert {case.spaced, case.joined} & hashes(text)
    assert find([Named((text,))], paper=INVENTED) == {"a": Named((text,))}


@pytest.mark.parametrize("text", ["", "Figure 7", "MRI of an invented knee, with three tears", "An " + CAPTIONS[0][9:]])
def test_another_caption_is_not(text: str) -> None:
    assert find([Named((text,))], paper=INVENTED) == {}


def test_the_first_case_of_each_panel_is_taken_in_the_papers_order() -> None:
    cases = [Named(("x", CAPTIONS[2])), Named((CAPTIONS[2] + ".",)), Named((CAPTIONS[0],))]
    assert find(cases, paper=INVENTED) == {"a": cases[2], "c": cases[0]}
    assert list(find(cases, paper=INVENTED)) == ["a", "c"]


def test_the_hashes_are_those_of_the_papers_captions(root: Path) -> None:
    file = root.parent / "shared" / "papers" / "msmedcap.md"
    if not file.is_file():
        pytest.skip(f"the paper's text is not at {file}")
    text = file.read_text(encoding="utf-8")
    truths = re.findall(r"\(GT\): (.*?)\s*\(MSMedCap\)", text[text.index("## 4. CONCLUSION") :], re.S)
    assert len(truths) == len(PAPER) == 3
    found = find([Named((truth,)) for truth in truths])
    assert found == {case.panel: Named((truth,)) for case, truth in zip(PAPER, truths, strict=True)}
    for case, truth in zip(PAPER, truths, strict=True):
        assert {case.spaced, case.joined} <= hashes(truth)


def write_roco(folder: Path, captions: dict[str, tuple[str, str]]) -> Path:
    """A folder as ROCO's: ``{id: (split, caption)}``, each with a picture."""
    for number, (name, (split, caption)) in enumerate(captions.items()):
        place = folder / "data" / split / "radiology"
        (place / "images").mkdir(parents=True, exist_ok=True)
        with (place / "captions.txt").open("a", encoding="utf-8") as lines:
            lines.write(f"{name}\t {caption}\n")
        ramp = np.tile(np.arange(60, dtype=np.uint8) * 4, (40 + number, 1))
        Image.fromarray(ramp).save(place / "images" / f"{name}.jpg")
    return folder


def test_the_cases_are_found_in_any_split_of_a_roco(tmp_path: Path) -> None:
    folder = write_roco(
        tmp_path / "roco",
        {
            "ROCO_1": ("train", "Something else."),
            "ROCO_2": ("train", CAPTIONS[1]),
            "ROCO_3": ("test", CAPTIONS[0] + " ."),
        },
    )
    found = paper_panels.search({"roco": folder}, paper=INVENTED)
    assert {panel: case.id for panel, case in found.items()} == {"a": "ROCO_3", "b": "ROCO_2"}
    assert open_case(found["a"]).picture().shape == (42, 60, 3)


def test_data_without_them_is_one_clear_sentence(tmp_path: Path) -> None:
    folder = write_roco(tmp_path / "roco", {"ROCO_1": ("train", CAPTIONS[0])})
    with pytest.raises(UserError, match="None of the paper's"):
        paper_panels.search({"roco": folder})
    with pytest.raises(UserError, match="no reader"):
        paper_panels.search({"rocco": folder})
    with pytest.raises(UserError, match="does not exist"):
        paper_panels.search({"roco": tmp_path / "nowhere"})
