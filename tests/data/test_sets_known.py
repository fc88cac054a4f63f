"""The sets whose captions are made of facts: MedPix by patient, label folders and the mask set by near-duplicate group."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msmedcap.config import UserError
from msmedcap.data.captions import plain_caption
from msmedcap.data.sets import FACT_SETS, READERS, Case, read_dataset, split_of
from msmedcap.data.sets.labels import read_cxr_seg, read_known_labels, read_labels
from msmedcap.data.sets.medpix import read_medpix


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
    assert cases["MPX3_0"].facts == {
        "modality": "CT",
        "plane": "axial",
        "part": "spine",
        "finding": "fracture",
        "side": "right",
    }
    # The caption denies a mass; that the case's diagnosis names one says nothing of this picture.
    assert cases["MPX1_1"].facts["sequence"] == "FLAIR"
    assert all("finding" not in cases[name].facts and "side" not in cases[name].facts for name in ("MPX1_1", "MPX2_1"))
    assert cases["MPX1_0"].facts["part"] == "musculoskeletal system"
    assert cases["MPX3_0"].image == tmp_path / "train" / "images" / "MPX3_0.jpg"
    assert cases["MPX3_0"].caption == plain_caption(cases["MPX3_0"].facts)


def write_picture(path: Path, seed: int, *, quality: int = 90, size: tuple[int, int] = (192, 160)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(
        0, 256, (20, 24), dtype=np.uint8
    )  # fine enough for every bit of the hash
    Image.fromarray(coarse).resize((192, 160), Image.Resampling.BICUBIC).resize(size).save(path, quality=quality)


def test_copies_under_two_labels_stay_in_one_split(tmp_path: Path) -> None:
    for seed in range(40):
        write_picture(tmp_path / "benign" / f"{seed:03}.jpg", seed)
        write_picture(tmp_path / "malignant" / f"{seed:03}.jpg", seed, quality=60, size=(144, 120))
        write_picture(tmp_path / "normal" / f"{seed:03}.jpg", 1000 + seed)
    splits = read_known_labels(tmp_path)
    no_group_in_two_splits(splits)
    assert sum(map(len, splits.values())) == 120 and all(splits.values())
    group = {case.id: case.group for cases in splits.values() for case in cases}
    for seed in range(40):
        assert group[f"benign/{seed:03}.jpg"] == group[f"malignant/{seed:03}.jpg"] == f"benign/{seed:03}.jpg"
        assert group[f"normal/{seed:03}.jpg"] == f"normal/{seed:03}.jpg"


def test_a_picture_added_elsewhere_moves_nobody(tmp_path: Path) -> None:
    for seed in range(12):
        write_picture(tmp_path / "normal" / f"{seed:03}.jpg", seed)
    before = {c.id: split for split, cases in read_known_labels(tmp_path).items() for c in cases}
    write_picture(tmp_path / "benign" / "new.jpg", 500)
    after = {c.id: split for split, cases in read_known_labels(tmp_path).items() for c in cases}
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
@pytest.mark.parametrize("name", FACT_SETS)
def test_real_sets_keep_every_group_in_one_split(shared_data: Path, name: str) -> None:
    if not (shared_data / name).is_dir():
        pytest.skip(f"{name} is not among the real scans here")
    splits = READERS[name](shared_data / name)
    no_group_in_two_splits(splits)
    cases = [case for found in splits.values() for case in found]
    assert all(splits.values()) and all(
        isinstance(case.image, Path) and case.image.is_file() and case.caption for case in cases
    )
    assert len(splits["train"]) > 0.6 * len(cases) * (0.9 if name == "medpix" else 1)


def test_medpix_as_it_is_published(tmp_path: Path) -> None:
    made = medpix_tree(tmp_path / "made")
    published = tmp_path / "published" / "MedPix-2-0" / "splitted_dataset"
    published.mkdir(parents=True)
    train = (made / "train" / "descriptions.jsonl").read_text().splitlines()
    (published / "descriptions_train_1.jsonl").write_text("\n".join(train[:60]))
    (published / "descriptions_train_2.jsonl").write_text("\n".join(train[60:]))
    for split in ("dev", "test"):
        (published / f"descriptions_{split}.jsonl").write_text((made / "dev" / "descriptions.jsonl").read_text())
    splits = read_medpix(tmp_path / "published")
    ours = read_medpix(made)
    for split in ("train", "val", "dev"):
        assert [case.id for case in splits[split]] == [case.id for case in ours[split]]
    assert len(splits["test"]) == 120
    assert splits["dev"][0].image == published.parent / "images" / f"{splits['dev'][0].id}.png"
    (published / "descriptions_dev.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"descriptions_dev\.jsonl is damaged"):
        read_medpix(tmp_path / "published")


def test_any_labels(tmp_path: Path) -> None:
    for folder in ("Pleural_Effusion", "no_findings", "normal", ".hidden"):
        for seed in range(4):
            write_picture(tmp_path / folder / "deep" / f"{seed}.jpg", len(folder) * 10 + seed)
    (tmp_path / "normal" / "deep" / "1_mask.png").write_bytes(b"")
    (tmp_path / "normal" / "broken.jpg").write_bytes(b"no picture")
    splits = read_labels(tmp_path)
    no_group_in_two_splits(splits)
    cases = {case.id: case for found in splits.values() for case in found}
    assert len(cases) == 13 and "normal/broken.jpg" in cases
    # A folder called "normal" is not taken for breast tissue here, as the BUSI reader takes it.
    assert cases["normal/deep/0.jpg"].facts == {"label": "normal"}
    assert cases["normal/deep/0.jpg"].caption == "Scan. Normal."
    assert cases["no_findings/deep/0.jpg"].facts == {"label": "no findings"}
    assert cases["Pleural_Effusion/deep/2.jpg"].caption == "Scan. Pleural Effusion."


def test_facts_told_beside_the_labels(tmp_path: Path) -> None:
    write_picture(tmp_path / "ptx" / "0.jpg", 0)
    (tmp_path / "facts.json").write_text(
        json.dumps({"*": {"modality": "X-ray", "part": "chest"}, "ptx": {"label": "pneumothorax"}})
    )
    (case,) = [case for found in read_labels(tmp_path).values() for case in found]
    assert case.caption == "X-ray of the chest. Pneumothorax."
    for wrong in ("[1]", "{", '{"ptx": {"label": 1}}'):
        (tmp_path / "facts.json").write_text(wrong)
        with pytest.raises(UserError, match=r"facts\.json is not a record"):
            read_labels(tmp_path)


def test_label_folders_with_splits_of_their_own_keep_them(tmp_path: Path) -> None:
    for split in ("train", "Valid", "test"):
        for label in ("NORMAL", "PNEUMONIA"):
            write_picture(tmp_path / split / label / "0.jpg", 3)
    splits = read_labels(tmp_path)
    assert {split: len(cases) for split, cases in splits.items()} == {"train": 2, "val": 2, "test": 2}
    assert splits["val"][0].caption == "Scan. NORMAL."
    with pytest.raises(UserError, match="holds no folders"):
        read_labels(tmp_path / "train" / "NORMAL")


def test_a_damaged_picture_among_labels_is_read_like_the_others(tmp_path: Path) -> None:
    for seed in range(5):
        write_picture(tmp_path / "benign" / f"{seed}.jpg", seed)
    (tmp_path / "benign" / "5.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "benign" / "6.jpg").write_bytes(b"\xff\xd8\xff")
    groups = {case.id: case.group for cases in read_known_labels(tmp_path).values() for case in cases}
    assert groups["benign/5.jpg"] == "benign/5.jpg" and groups["benign/6.jpg"] == "benign/6.jpg"


def test_the_mask_sets_columns_become_facts(tmp_path: Path) -> None:
    rows = [
        "image,class,mask,view,finding",
        "a.jpg,Lung,m,L,COVID-19",
        "a.jpg,Lung,n,L,COVID-19",
        "b.jpg,Lung,o,PA,No Finding",
    ]
    (tmp_path / "masks.csv").write_text("\n".join(rows))
    for seed, name in enumerate(("a.jpg", "b.jpg")):
        write_picture(tmp_path / "images" / name, seed)
    cases = {case.id: case for found in read_cxr_seg(tmp_path).values() for case in found}
    assert cases["images/a.jpg"].caption == "Lateral X-ray of the chest. Findings of COVID-19."
    assert cases["images/b.jpg"].caption == "Frontal X-ray of the chest. No findings."
    with pytest.raises(UserError, match=r"masks\.csv is missing"):
        read_cxr_seg(tmp_path / "images")
