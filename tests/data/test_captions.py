"""Captions: the plain sentence, sides that follow a mirror, findings a text affirms."""

from __future__ import annotations

import pytest

from msmedcap.data.captions import (
    LABELS,
    find_finding,
    find_side,
    finding_sentence,
    plain_caption,
    swap_sides,
)


@pytest.mark.parametrize(
    ("facts", "caption"),
    [
        ({"modality": "CT", "plane": "axial", "part": "head"}, "Axial CT of the head."),
        (
            {"modality": "MRI", "plane": "sagittal", "sequence": "T2-weighted", "part": "spine", "finding": "disc herniation"},
            "Sagittal T2-weighted MRI of the spine. Disc herniation.",
        ),
        (
            {"modality": "CT", "part": "pelvis", "finding": "stone", "side": "left"},
            "CT of the pelvis and urinary tract. Stone on the left.",
        ),
        (
            {"modality": "X-ray", "view": "frontal", "part": "chest", "label": "no findings"},
            "Frontal X-ray of the chest. No findings.",
        ),
        (
            {"modality": "X-ray", "view": "lateral", "part": "chest", "label": "pneumonia", "side": "right"},
            "Lateral X-ray of the chest. Findings of pneumonia on the right.",
        ),
        ({"modality": "X-ray", "label": "COVID-19"}, "X-ray. Findings of COVID-19."),
        ({"modality": "ultrasound", "part": "breast", "label": "malignant"}, "Ultrasound of the breast. Malignant mass."),
        ({"modality": "ultrasound", "part": "breast", "label": "benign"}, "Ultrasound of the breast. Benign mass."),
        ({"modality": "ultrasound", "part": "breast", "label": "normal"}, "Ultrasound of the breast. Normal breast tissue."),
        ({"part": "musculoskeletal system"}, "Scan of the musculoskeletal system."),
        ({}, "Scan."),
    ],
)
def test_plain_captions(facts: dict[str, str], caption: str) -> None:
    assert plain_caption(facts) == caption


def test_a_label_goes_before_a_finding_and_an_odd_side_is_left_out() -> None:
    assert finding_sentence({"label": "benign", "finding": "cyst"}) == "Benign mass."
    assert finding_sentence({"finding": "cyst", "side": "both"}) == "Cyst."
    assert finding_sentence({"side": "left"}) == ""
    assert all(finding_sentence({"label": label}) for label in LABELS)


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("Mass on the left.", "Mass on the right."),
        ("Right lung, left kidney", "Left lung, right kidney"),
        ("RIGHT UPPER LOBE", "LEFT UPPER LOBE"),
        ("LUL nodule, RML collapse, rll", "RUL nodule, LML collapse, lll"),
        ("left-sided, rightward", "right-sided, leftward"),
        ("bright upright cleft CLLS", "bright upright cleft CLLS"),
        ("No findings.", "No findings."),
    ],
)
def test_a_mirror_swaps_sides(text: str, mirrored: str) -> None:
    assert swap_sides(text) == mirrored
    assert swap_sides(mirrored) == text


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_mirrored_caption_is_the_caption_of_mirrored_facts(side: str) -> None:
    facts = {"modality": "CT", "plane": "axial", "part": "chest", "finding": "nodule", "side": side}
    other = facts | {"side": {"left": "right", "right": "left"}[side]}
    assert swap_sides(plain_caption(facts)) == plain_caption(other)


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("There is a fracture of the left femur.", "fracture"),
        ("No fracture. There is a large mass.", "mass"),
        ("No evidence of hemorrhage or infarct.", ""),
        ("Without effusion; a nodule in the right lung", "nodule"),
        ("Negative for dissection, aneurysm of the aorta.", "aneurysm"),
        ("rule out stroke", ""),
        ("Haematoma", "hemorrhage"),
        ("glioblastoma", "mass"),
        ("acute appendicitis", "inflammation"),
        ("renal calculi with hydronephrosis", "stone"),
        ("unremarkable", ""),
        ("", ""),
    ],
)
def test_findings_a_text_affirms(text: str, finding: str) -> None:
    assert find_finding(text) == finding


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("left kidney", "left"),
        ("RLL consolidation", "right"),
        ("left and right", ""),
        ("left LUL", "left"),
        ("the brightest cleft", ""),
    ],
)
def test_the_one_side_a_text_names(text: str, side: str) -> None:
    assert find_side(text) == side
