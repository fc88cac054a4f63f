"""Mask sets in their published layouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msmedcap.data.masks import read_cxr_seg, read_mask, read_sa_med2d


def test_chest_masks_are_gathered_by_picture(tmp_path: Path) -> None:
    (tmp_path / "masks.csv").write_text(
        "image,class,mask,view,finding\n"
        "b.png,Left Lung,b_0.png,PA,\na.png,Airways,a_0.png,L,No finding\nb.png,Right Lung,b_1.png,PA,\n"
    )
    a, b = read_cxr_seg(tmp_path)
    assert (a.id, a.image, a.source) == ("a.png", tmp_path / "images" / "a.png", "cxr_seg")
    assert a.masks == (("Airways", tmp_path / "masks" / "a_0.png"),)
    assert b.masks == (("Left Lung", tmp_path / "masks" / "b_0.png"), ("Right Lung", tmp_path / "masks" / "b_1.png"))


def test_sa_med2d_names_come_from_the_file_names(tmp_path: Path) -> None:
    index = {"images/ct_1.png": ["masks/ct_1_left_kidney_000.png", "masks/ct_1_liver_001.png"]}
    (tmp_path / "image2label_train.json").write_text(json.dumps(index))
    (row,) = read_sa_med2d(tmp_path)
    assert row.image == tmp_path / "images" / "ct_1.png"
    assert row.masks == (
        ("left kidney", tmp_path / "masks" / "ct_1_left_kidney_000.png"),
        ("liver", tmp_path / "masks" / "ct_1_liver_001.png"),
    )


@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_a_mask_is_where_it_is_white(tmp_path: Path, mode: str) -> None:
    wanted = np.zeros((5, 9), bool)
    wanted[1:3, 4:8] = True
    Image.fromarray(wanted.astype(np.uint8) * 255).convert(mode).save(tmp_path / "m.png")
    found = read_mask(tmp_path / "m.png")
    assert found.dtype == bool and np.array_equal(found, wanted)


@pytest.mark.parametrize(("name", "reader", "count"), [("cxr_seg", read_cxr_seg, 469), ("sa_med2d_sample", read_sa_med2d, 19)])
def test_real_masks_have_their_pictures_size(shared_data: Path, name: str, reader, count: int) -> None:  # type: ignore[no-untyped-def]
    if not (shared_data / name).is_dir():
        pytest.skip(f"{name} is not among the real scans here")
    rows = reader(shared_data / name)
    assert sum(len(r.masks) for r in rows) == count
    for row in rows[:: max(1, len(rows) // 5)]:
        with Image.open(row.image) as image:
            size = image.size[::-1]
        for label, file in row.masks:
            assert label and read_mask(file).shape == size
