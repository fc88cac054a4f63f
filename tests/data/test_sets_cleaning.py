"""Caption cleaning: the figure's apparatus goes, what is said of the scan stays."""

from __future__ import annotations

import pytest

from msmedcap.data.sets.cleaning import clean, protected, report
from msmedcap.data.sets.medicat import read_medicat
from msmedcap.data.sets.roco import read_roco


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Figure 2. Axial CT of the liver.", "Axial CT of the liver."),
        ("Fig. 1. Brain CT (A) and MR (B, C) showing no lesion.", "Brain CT and MR showing no lesion."),
        ("Figure 1: (a) Axial CT. (b) Coronal CT.", "Axial CT. Coronal CT."),
        ("A) Chest X-ray", "Chest X-ray"),
        ("1. Chest X-ray", "Chest X-ray"),
        ("Case 3 - 45-year-old man", "45-year-old man"),
        ("Mass (arrow) and cyst (white arrowheads).", "Mass and cyst."),
        ("Nodule (thick black arrow in b), cyst (asterisk) and clip (*).", "Nodule, cyst and clip."),
        ("Effusion (see Fig. 2a).", "Effusion."),
        ("Effusion, as shown in Figure 3.", "Effusion."),
        ("Nodule (arrow; 2.5 cm).", "Nodule (2.5 cm)."),
        ("Aneurysm (arrow, Fig. 3b) of 3 x 4 cm [12, 13].", "Aneurysm of 3 x 4 cm."),
        ("Sagittal MRI. White arrows indicate the tumor.", "Sagittal MRI. The tumor."),
        ("MRI; arrow: syrinx, asterisk - cyst.", "MRI; syrinx, cyst."),
        ("The duct is dilated, as indicated by the red arrow.", "The duct is dilated."),
        ("Lung mass. Courtesy of Dr. Smith, Paris.", "Lung mass"),
        ("Lung mass. Reproduced with permission from [4].", "Lung mass"),
    ],
)
def test_the_figures_apparatus_goes(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "A CT scan of the chest.",
        "a well-defined mass",
        "Contrast CT (IV) of the abdomen",
        "CT (left arrow) and MRI (R)",
        "Enlarged left atrium (LA) and aorta (Ao).",
        "T2-weighted MRI at L4-L5 (T2) without stenosis (C7)",
        "Cyst of 2.5 cm (12 mm) and Hounsfield 40 HU",
        "[18F]FDG PET of bone marrow, narrow canal",
        "C. difficile colitis",
        "No. 3. mass",
        "T: tumor; A, aorta",
        "Arrow",
        "Figure 1",
        "(a)",
        "",
    ],
)
def test_what_is_said_of_the_scan_stays(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "Figure 4. No mass (arrow).",
        "Right lung (arrow) without effusion (arrowhead), 3 cm (a).",
        "Fig. S2. L4 (arrow) and T2 (b): no fracture, not shown (arrow).",
        "Arrow: no fracture of the left hip, courtesy of the right department.",
    ],
)
def test_negations_sides_and_measures_are_never_touched(text: str) -> None:
    assert protected(clean(text)) == protected(text) != []


def test_the_report_counts_what_changed() -> None:
    told = report(["Figure 1. CT (arrow).", "CT of the chest.", "Mass (a)", "Chest  CT"])
    assert told == {
        "captions": 4,
        "changed": 0.5,
        "label_before": 0.5,
        "label_after": 0.0,
        "pointer_before": 0.25,
        "pointer_after": 0.0,
        "words_before": 3.0,
        "words_after": 2.0,
        "vocabulary_before": 9,
        "vocabulary_after": 5,
    }
    assert report([])["captions"] == 0


@pytest.mark.slow
def test_real_captions_lose_their_pointers_and_nothing_that_matters(shared_data) -> None:  # type: ignore[no-untyped-def]
    if not (shared_data / "roco_text").is_dir() or not (shared_data / "medicat_sample").is_dir():
        pytest.skip("ROCO's text or MedICaT's sample is not here")
    roco = [case.caption for case in read_roco(shared_data / "roco_text")["val"]]
    medicat = [case.caption for cases in read_medicat(shared_data / "medicat_sample").values() for case in cases]
    for texts, kept in ((roco, 0.95), (medicat, 0.8)):  # each caption of the sample begins with its figure's number
        told = report(texts)
        assert (
            told["pointer_after"] < 0.1 * told["pointer_before"] and told["label_after"] < 0.25 * told["label_before"]
        )
        assert told["words_after"] > kept * told["words_before"]
    for text in roco:
        new = clean(text)
        assert protected(new) == protected(" ".join(text.split())) and clean(new) == new
