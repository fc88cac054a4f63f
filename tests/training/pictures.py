"""Small data sets made for tests: a table of pictures with captions, and trees in other layouts filled with pictures."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests import sizes


def picture(path: Path, seed: int) -> Path:
    """A picture of its own colour, noise over it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 60, (20 + seed % 5, 24, 3)) + draw.integers(0, 190, 3)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def table(folder: Path, count: int = 12, *, captions: Sequence[str] = sizes.CAPTIONS, bad: Sequence[int] = ()) -> Path:
    """``table.csv`` with ``count`` training pictures (those of ``bad`` are damaged) and four others as ``val``."""
    rows = []
    for i in range(count + 4):
        picture(folder / f"{i}.png", i)
        split = "train" if i < count else "val"
        rows.append({"image": f"{i}.png", "caption": captions[i % len(captions)], "split": split})
    for i in bad:
        (folder / f"{i}.png").write_bytes(b"no picture")
    file = folder / "table.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def coco(folder: Path, count: int = 6) -> Path:
    """COCO 2014 with five captions a picture, each saying which."""
    said = [{"id": k, "image_id": n, "caption": f"Caption {k} of {n}."} for n in range(count) for k in range(5)]
    words = {"images": [{"id": n, "file_name": f"COCO_{n}.jpg"} for n in range(count)], "annotations": said}
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations" / "captions_train2014.json").write_text(json.dumps(words))
    for n in range(count):
        picture(folder / "train2014" / f"COCO_{n}.jpg", n)
    return folder


def roco(folder: Path, count: int = 6) -> Path:
    """ROCO's training split of radiology pictures."""
    place = folder / "data" / "train" / "radiology"
    for n in range(count):
        picture(place / "images" / f"ROCO_{n:05}.jpg", n)
    names = [f"ROCO_{n:05}" for n in range(count)]
    (place / "captions.txt").write_text("".join(f"{name}\t{sizes.CAPTIONS[n]}\n" for n, name in enumerate(names)))
    links = "wget -r ftp://ftp/pub/pmc/oa_package/1e/ed/PMC{}.tar.gz -P /path/to/Dir\tfig-{}.jpg"
    (place / "dlinks.txt").write_text("".join(f"{name}\t{links.format(n, n)}\n" for n, name in enumerate(names)))
    return folder


def rocov2(folder: Path, count: int = 6) -> Path:
    """ROCOv2's training split as Zenodo has it."""
    rows = [["ID", "Caption"]]
    for n in range(count):
        rows.append([f"ROCOv2_2023_train_{n:06}", sizes.CAPTIONS[n]])
        picture(folder / "train_images" / "train" / f"{rows[-1][0]}.jpg", n)
    with (folder / "train_captions.csv").open("w", newline="") as out:
        csv.writer(out).writerows(rows)
    return folder
