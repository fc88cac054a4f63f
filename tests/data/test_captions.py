"""Captions: the plain sentence, sides that follow a mirror, findings a text affirms, and splits that keep a patient together."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msmedcap.config import UserError
from msmedcap.data.captions import (
    LABELS,
    READERS,
    Case,
    find_finding,
    find_side,
    finding_sentence,
    plain_caption,
    read_dataset,
    read_label_folders,
    read_medpix,
    split_of,
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


def test_splits_are_a_function_of_the_name_in_the_shares_asked() -> None:
    shares = {"test": 0.15, "val": 0.1, "train": 0.75}
    names = [f"patient {i}" for i in range(4000)]
    found = [split_of(n, shares) for n in names]
    assert found == [split_of(n, shares) for n in names]
    for split, share in shares.items():
        assert found.count(split) / len(found) == pytest.approx(share, abs=0.02)


def no_group_in_two_splits(splits: dict[str, list[Case]]) -> None:
    where = defaultdict(set)
    for split, cases in splits.items():
        for case in cases:
            where[case.group].add(split)
    assert where and all(len(found) == 1 for found in where.values())
    ids = [case.id for cases in splits.values() for case in cases]
    assert len(ids) == len(set(ids))


def medpix_tree(root: Path, patients: int = 60) -> Path:
    for folder, first in (("train", 0), ("dev", 1000)):
        (root / folder / "images").mkdir(parents=True)
        cases, rows = [], []
        for p in range(first, first + patients):
            case = {"Title": f"Case {p}", "Case Diagnosis": "Meningioma" if p % 2 else None}
            cases.append({"U_id": f"MPX{p}", "Case": case, "Topic": {}})
            for i in range(2):
                caption = "No mass, left side." if i else "Fracture on the right."
                description = {"Caption": caption, "Plane": "Transverse", "Modality": "MR - FLAIR"}
                rows.append(
                    {
                        "U_id": f"MPX{p}",
                        "image": f"MPX{p}_{i}",
                        "Type": "MR" if i else "CT",
                        "Location": "Spine" if p % 3 == 0 else "Hip",
                        "Location Category": "Spine and Muscles",
                        "Description": description,
                    }
                )
        (root / folder / "cases.jsonl").write_text("\n".join(map(json.dumps, cases)) + "\n\n")
        (root / folder / "descriptions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def test_medpix_is_split_by_patient(tmp_path: Path) -> None:
    splits = read_medpix(medpix_tree(tmp_path))
    no_group_in_two_splits(splits)
    assert {k: len(v) for k, v in splits.items()}["dev"] == 120 and len(splits["train"]) + len(splits["val"]) == 120
    assert 0 < len(splits["val"]) < 40


def test_medpix_facts(tmp_path: Path) -> None:
    cases = {c.id: c for cases in read_medpix(medpix_tree(tmp_path)).values() for c in cases}
    assert cases["MPX3_0"].facts == {"modality": "CT", "plane": "axial", "part": "spine", "finding": "fracture", "side": "right"}
    # The caption denies a mass; that the case's diagnosis names one says nothing of this picture.
    assert cases["MPX1_1"].facts["sequence"] == "FLAIR"
    assert all("finding" not in cases[name].facts and "side" not in cases[name].facts for name in ("MPX1_1", "MPX2_1"))
    assert cases["MPX1_0"].facts["part"] == "musculoskeletal system"
    assert cases["MPX3_0"].image == tmp_path / "train" / "images" / "MPX3_0.jpg"
    assert cases["MPX3_0"].caption == plain_caption(cases["MPX3_0"].facts)


def write_picture(path: Path, seed: int, *, quality: int = 90, size: tuple[int, int] = (192, 160)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (20, 24), dtype=np.uint8)  # fine enough for every bit of the hash
    Image.fromarray(coarse).resize((192, 160), Image.Resampling.BICUBIC).resize(size).save(path, quality=quality)


def test_copies_under_two_labels_stay_in_one_split(tmp_path: Path) -> None:
    for seed in range(40):
        write_picture(tmp_path / "benign" / f"{seed:03}.jpg", seed)
        write_picture(tmp_path / "malignant" / f"{seed:03}.jpg", seed, quality=60, size=(144, 120))
        write_picture(tmp_path / "normal" / f"{seed:03}.jpg", 1000 + seed)
    splits = read_label_folders(tmp_path)
    no_group_in_two_splits(splits)
    assert sum(map(len, splits.values())) == 120 and all(splits.values())
    group = {case.id: case.group for cases in splits.values() for case in cases}
    for seed in range(40):
        assert group[f"benign/{seed:03}.jpg"] == group[f"malignant/{seed:03}.jpg"] == f"benign/{seed:03}.jpg"
        assert group[f"normal/{seed:03}.jpg"] == f"normal/{seed:03}.jpg"


def test_a_picture_added_elsewhere_moves_nobody(tmp_path: Path) -> None:
    for seed in range(12):
        write_picture(tmp_path / "normal" / f"{seed:03}.jpg", seed)
    before = {c.id: split for split, cases in read_label_folders(tmp_path).items() for c in cases}
    write_picture(tmp_path / "benign" / "new.jpg", 500)
    after = {c.id: split for split, cases in read_label_folders(tmp_path).items() for c in cases}
    assert before.items() <= after.items() and len(after) == 13


def test_unknown_names_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no reader for a dataset named 'mimic'; there are medpix"):
        read_dataset("mimic", tmp_path, "train")
    with pytest.raises(UserError, match="does not exist"):
        read_dataset("medpix", tmp_path / "nowhere", "train")
    with pytest.raises(UserError, match=r"descriptions|cases\.jsonl"):
        read_dataset("medpix", tmp_path, "train")
    with pytest.raises(UserError, match="no split 'test'; it has train, val, dev"):
        read_dataset("medpix", medpix_tree(tmp_path), "test")
    (tmp_path / "busi" / "odd").mkdir(parents=True)
    with pytest.raises(UserError, match="odd is not a label"):
        read_dataset("busi", tmp_path / "busi", "train")


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_real_sets_keep_every_group_in_one_split(shared_data: Path, name: str) -> None:
    if not (shared_data / name).is_dir():
        pytest.skip(f"{name} is not among the real scans here")
    splits = READERS[name](shared_data / name)
    no_group_in_two_splits(splits)
    cases = [case for found in splits.values() for case in found]
    assert all(splits.values()) and all(case.image.is_file() and case.caption for case in cases)
    assert len(splits["train"]) > 0.6 * len(cases) * (0.9 if name == "medpix" else 1)
