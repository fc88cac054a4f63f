"""Small sets of pictures with masks, in published layouts: what the tests of SEG-SAM's data and training share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

LABELS = {"1": "Left Lung", "2": "Right Lung", "3": "heart"}


def chest(seed: int, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 ``[H,W]`` of two dark fields and a bright one between them, and its index map: 1 on the picture's right."""
    generator = np.random.default_rng(seed)
    picture = generator.integers(100, 130, (size, size)).astype(np.uint8)
    index = np.zeros((size, size), np.uint8)
    top, third = int(generator.integers(4, 12)), size // 3
    index[top : size - 8, third * 2 : size - 4] = 1
    index[top : size - 8, 4:third] = 2
    index[size // 2 : size - 4, third + 2 : third * 2 - 2] = 3
    picture[(index == 1) | (index == 2)] = 20
    picture[index == 3] = 240
    return picture, index


def folder(path: Path, count: int = 8) -> Path:
    """A plain folder of ``count`` pictures with index maps."""
    for part in ("images", "masks"):
        (path / part).mkdir(parents=True)
    for i in range(count):
        picture, index = chest(i)
        Image.fromarray(picture).save(path / "images" / f"{i}.png")
        Image.fromarray(index).save(path / "masks" / f"{i}.png")
    (path / "names.json").write_text(json.dumps(LABELS))
    return path


def sa_med2d(path: Path) -> Path:
    """SA-Med2D's published layout: three slices of two patients, two sources."""
    for part in ("images", "masks"):
        (path / part).mkdir(parents=True)
    index = {
        "images/ct_00--AMOS--a--x_0001.png": ["ct_00--AMOS--a--x_0001--0000_000", "ct_00--AMOS--a--x_0001--0002_000"],
        "images/ct_00--AMOS--a--x_0002.png": ["ct_00--AMOS--a--x_0002--0001_000", "ct_00--AMOS--a--x_0002--0001_001"],
        "images/mr_t1--BraTS--b--y_0007.png": ["mr_t1--BraTS--b--y_0007--0000_000"],
    }
    for image, masks in index.items():
        Image.fromarray(chest(0)[0][:16, :24]).save(path / image)
        for i, name in enumerate(masks):
            mask = np.zeros((16, 24), np.uint8)
            mask[2 + i : 6, 3:9] = 255
            Image.fromarray(mask).save(path / "masks" / f"{name}.png")
    listed = {image: [f"masks/{name}.png" for name in masks] for image, masks in index.items()}
    (path / "SAMed2D_v1.json").write_text(json.dumps(listed))
    mapping = {"AMOS": {"liver": "0", "kidney_left": "1", "union_liver_spleen": "2"}, "BraTS": {"brain_tumor": 0}}
    (path / "SAMed2D_v1_class_mapping_id.json").write_text(json.dumps(mapping))
    return path
