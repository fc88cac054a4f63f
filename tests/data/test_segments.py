"""Sets of masks: every layout becomes the same rows, with classes by name and what a missing mask means."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msmedcap.config import UserError
from msmedcap.data.classes import load_classes
from msmedcap.data.phantoms import phantoms
from msmedcap.data.segments import PackedMask, absent, read
from msmedcap.data.segments import places as parts_of_the_body
from msmedcap.data.segments.made import SEED
from tests import segments

BOOK = load_classes()


def test_the_published_set_names_masks_by_number(tmp_path: Path) -> None:
    first, second, brain = read("sa_med2d", str(segments.sa_med2d(tmp_path)), BOOK)
    assert [s.name for s in first.segments] == ["liver", None]
    assert [s.name for s in second.segments] == ["kidney left", "kidney left"]
    assert [s.name for s in brain.segments] == ["brain tumor"]
    assert first.group == second.group != brain.group and first.split == second.split
    assert first.masks().shape == (2, 16, 24) and first.masks()[0].sum() == 24 and first.pixels().shape == (16, 24, 3)
    # What any slice of the source has is labelled in all of them, and what lies elsewhere in the body cannot be there.
    assert {"liver", "kidney left"} <= first.labelled and "brain" in first.labelled
    assert "spleen" not in first.labelled and "liver" in brain.labelled and "brain" not in brain.labelled


def test_the_sample_names_masks_by_word(tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    Image.fromarray(segments.chest(0)[0][:8, :8]).save(tmp_path / "images" / "amos_1_75.png")
    Image.new("L", (8, 8), 255).save(tmp_path / "masks" / "amos_1_75_inferior_vena_cava_000.png")
    index = {"x/images/amos_1_75.png": ["x/masks/amos_1_75_inferior_vena_cava_000.png"]}
    (tmp_path / "image2label_train.json").write_text(json.dumps(index))
    (row,) = read("sa_med2d", str(tmp_path), BOOK, split="train")
    assert [s.name for s in row.segments] == ["inferior vena cava"] and row.masks().all()


def test_a_folder_of_index_maps(tmp_path: Path) -> None:
    rows = read("folder", str(segments.folder(tmp_path / "set", count=3)), BOOK)
    assert [[s.name for s in row.segments] for row in rows] == [["Left Lung", "Right Lung", "heart"]] * 3
    _, index = segments.chest(0)
    assert np.array_equal(rows[0].masks(), np.stack([index == value for value in (1, 2, 3)]))
    assert "heart" in rows[0].labelled and "brain" in rows[0].labelled and "aorta" not in rows[0].labelled


def test_a_value_without_a_name_and_a_picture_without_a_map_are_refused(tmp_path: Path) -> None:
    path = segments.folder(tmp_path / "set", count=2)
    (path / "names.json").write_text(json.dumps({"1": "Left Lung", "2": "Right Lung"}))
    with pytest.raises(UserError, match="value 3, which names.json does not name"):
        read("folder", str(path), BOOK)
    (path / "masks" / "0.png").unlink()
    with pytest.raises(UserError, match="is missing; every picture needs"):
        read("folder", str(path), BOOK)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no set of masks 'coco'"):
        read("coco", str(tmp_path), BOOK)
    with pytest.raises(UserError, match="neither SAMed2D_v1.json nor"):
        read("sa_med2d", str(tmp_path), BOOK)
    with pytest.raises(UserError, match="its splits are"):
        read("sa_med2d", str(segments.sa_med2d(tmp_path / "set")), BOOK, split="dev")


def test_phantoms_have_exact_masks_without_doubles() -> None:
    rows = read("phantoms", "60", BOOK)
    assert {row.split for row in rows} == {"train", "val"} and len({row.group for row in rows}) == len(rows)
    made = list(phantoms(60, seed=SEED, size=320))
    doubled = 0
    for row in rows:
        truth = made[int(row.id.partition("-")[2])]
        assert np.array_equal(row.pixels()[..., 0], truth.picture)
        for segment, mask in zip(row.segments, row.masks(), strict=True):
            assert segment.name is not None and np.array_equal(mask, truth.masks[segment.name])
        assert row.names <= row.labelled
        doubled += "lesion" in truth.masks and "lesion" not in row.names
    assert doubled > 10
    with pytest.raises(UserError, match="how many are made"):
        read("phantoms", "some", BOOK)


def test_a_packed_mask_is_the_mask() -> None:
    mask = np.random.default_rng(0).random((7, 13)) > 0.5
    assert np.array_equal(PackedMask.of(mask).read(), mask)


def test_what_lies_elsewhere_is_absent() -> None:
    chest = absent({"Left Lung", "Cardiomediastinum"}, BOOK.names)
    assert {"brain", "bladder", "tibia", "gland", "optic disc"} <= chest
    assert not chest & {"liver", "trachea", "spine", "rib", "mass", "Left Lung", "Pneumothorax"}
    assert {"liver", "brain", "optic cup"} <= absent({"gland"}, BOOK.names)
    assert absent({"cyst"}, BOOK.names) == set()
    body = absent({"brain", "tibia"}, BOOK.names)  # of a set that shows both, nothing is known by place but what stands alone
    assert "gland" in body and "liver" in body and not body & {"thyroid gland", "femur"}


def test_every_class_that_has_a_place_is_a_class() -> None:
    placed = {*parts_of_the_body._IN_CHAIN, *parts_of_the_body._IN_ALONE}
    assert placed <= set(BOOK.names)


def test_real_chest_masks_keep_the_captions_splits(shared_data: Path) -> None:
    rows = read("cxr_seg", str(shared_data / "cxr_seg"), BOOK)
    by_split = {split: {row.group for row in rows if row.split == split} for split in ("train", "val", "test")}
    assert len(rows) == 80 and all(by_split.values())
    assert not by_split["train"] & by_split["val"] and not by_split["train"] & by_split["test"]
    assert {s.name for row in rows for s in row.segments} == set(BOOK.names[:13])
    row = rows[0]
    left, right = (row.masks()[[s.name for s in row.segments].index(f"{side} Lung")] for side in ("Left", "Right"))
    assert np.nonzero(left)[1].mean() > np.nonzero(right)[1].mean()  # the patient's left is on the picture's right
