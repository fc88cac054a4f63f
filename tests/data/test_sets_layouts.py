"""The official layouts of COCO, ROCO, ROCOv2 and MedICaT and one's own tables, as made trees and, where here, the real samples."""

from __future__ import annotations

import csv
import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msmedcap.config import UserError
from msmedcap.data.scans import ScanError
from msmedcap.data.sets import READERS, Blob, Case, open_case, read_dataset
from msmedcap.data.sets.coco import read_coco2014, read_coco2017
from msmedcap.data.sets.medicat import read_medicat
from msmedcap.data.sets.roco import read_roco
from msmedcap.data.sets.rocov2 import read_rocov2
from msmedcap.data.sets.tables import read_table


def picture(path: Path, seed: int = 0, *, size: tuple[int, int] = (12, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def ids(splits: Any) -> dict[str, list[str]]:
    return {split: [case.id for case in cases] for split, cases in splits.items()}


def by_id(splits: Any) -> dict[str, Case]:
    return {case.id: case for cases in splits.values() for case in cases}


def coco_tree(root: Path, year: str) -> Path:
    for split, first in (("train", 1), ("val", 100)):
        numbers = range(first, first + 3)
        names = {n: f"COCO_{split}2014_{n:012}.jpg" if year == "2014" else f"{n:012}.jpg" for n in numbers}
        said = [
            {"id": k, "image_id": n, "caption": f" Caption {k}\nof {n}. "} for k in range(5) for n in list(numbers)[:2]
        ]
        words = {"images": [{"id": n, "file_name": name} for n, name in names.items()], "annotations": said}
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        (root / "annotations" / f"captions_{split}{year}.json").write_text(json.dumps(words))
        picture(root / f"{split}{year}" / names[first])
    return root


@pytest.mark.parametrize("year", ["2014", "2017"])
def test_coco_has_five_captions_a_picture_and_the_official_splits(tmp_path: Path, year: str) -> None:
    splits = (read_coco2014 if year == "2014" else read_coco2017)(coco_tree(tmp_path, year))
    # The third picture of each split has no caption.
    assert {split: len(cases) for split, cases in splits.items()} == {"train": 2, "val": 2}
    first = splits["train"][0]
    assert first.captions == tuple(f"Caption {k} of 1." for k in range(5)) and first.caption == first.captions[0]
    assert open_case(first).width == 12
    assert first.group == "coco/1" and splits["val"][1].image == tmp_path / f"val{year}" / f"{splits['val'][1].id}.jpg"


def test_coco_without_its_annotations_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no captions_train2017\.json; unpack annotations_trainval2017\.zip"):
        read_coco2017(coco_tree(tmp_path, "2014"))
    (tmp_path / "annotations" / "captions_train2014.json").write_text('{"images": []')
    with pytest.raises(UserError, match=r"captions_train2014\.json is not a whole COCO caption file"):
        read_coco2014(tmp_path)


def roco_tree(root: Path) -> Path:
    for split, first in (("train", 1), ("validation", 10), ("test", 20)):
        folder = root / "data" / split / "radiology"
        folder.mkdir(parents=True)
        names = [f"ROCO_{n:05}" for n in range(first, first + 4)]
        said = [f" Chest CT {name}\u2028shows a mass.\twith a tab " for name in names[:3]] + ["  "]
        (folder / "captions.txt").write_text(
            "".join(f"{n}\t{s}\n" for n, s in zip(names, said, strict=True)), encoding="utf-8"
        )
        (folder / "cuis.txt").write_text(f"{names[0]}\t\tC0040405\tC0817096\n{names[1]}\t\tC0040405\tC0024485\n")
        links = "wget -r ftp://ftp/pub/pmc/oa_package/1e/ed/{}.tar.gz -P /path/to/Dir\t{}.jpg"
        rows = [f"{n}\t{links.format(f'PMC{first}{i // 2}', f'fig-{i}')}\n" for i, n in enumerate(names)]
        (folder / "dlinks.txt").write_text("".join(rows))
    other = root / "data" / "train" / "non-radiology"
    other.mkdir()
    (other / "captions.txt").write_text("ROCO_00090\t A smile\n")
    (other / "licences.txt").write_text("ROCO_ID,PMC_ID,CC\nROCO_00090,PMC77_x.jpg,CC BY\n")
    return root


def test_roco_keeps_its_splits_and_knows_the_article(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    splits = read_roco(roco_tree(tmp_path))
    assert {split: len(cases) for split, cases in splits.items()} == {
        "train": 3,
        "train-non-radiology": 1,
        "val": 3,
        "test": 3,
    }
    assert "1 pictures of" in caplog.text and "no caption" in caplog.text
    cases = splits["train"]
    assert cases[0].caption == "Chest CT ROCO_00001 shows a mass. with a tab"
    assert [case.facts for case in cases] == [{"modality": "CT"}, {}, {}]
    assert [case.group for case in cases] == ["PMC10", "PMC10", "PMC11"]
    assert cases[0].image == tmp_path / "data" / "train" / "radiology" / "images" / "ROCO_00001.jpg"
    assert splits["train-non-radiology"][0].group == "PMC77"
    assert ids(read_roco(tmp_path / "data")) == ids(splits)


def test_roco_finds_pictures_named_by_id_or_by_article(tmp_path: Path) -> None:
    images = roco_tree(tmp_path) / "data" / "train" / "radiology" / "images"
    picture(images / "ROCO_00001.png")
    picture(images / "PMC10_fig-1.jpg")
    first, second, third = read_roco(tmp_path)["train"]
    assert (first.image, second.image) == (images / "ROCO_00001.png", images / "PMC10_fig-1.jpg")
    assert third.image == images / "PMC11_fig-2.jpg" and open_case(second).height == 10


def test_the_real_roco_text(shared_data: Path) -> None:
    if not (shared_data / "roco_text").is_dir():
        pytest.skip("ROCO's text is not here")
    splits = read_dataset("roco", shared_data / "roco_text", "validation"), read_roco(shared_data / "roco_text")
    assert len(splits[0]) == 8180 and {k: len(v) for k, v in splits[1].items()} == {
        "train-non-radiology": 4895,
        "val": 8180,
    }
    assert splits[0][0].id == "ROCO_00020" and splits[0][0].group == "PMC3970251"
    assert splits[0][0].facts == {"modality": "CT"} and splits[0][0].caption.startswith(
        "Axial computed tomography scan"
    )
    assert len({case.group for case in splits[0]}) == 7417


def rocov2_tree(root: Path, place: str = "{}_images/{}") -> Path:
    for split in ("train", "valid", "test"):
        id = f"ROCOv2_2023_{split}_000001"
        rows = [["ID", "Caption"], [id, 'CT, "axial"\nslice.'], [id[:-1] + "2", "MRI."], [id[:-1] + "3", " "]]
        for name, content in (
            ("captions", rows),
            ("concepts", [["ID", "CUIs"], [id, "C0040405;C0001"], [id[:-1] + "2", "C0040405;C0024485"]]),
            ("concepts_manual", [[" ID", " CUIs"], [id[:-1] + "2", "C0024485"]]),
        ):
            root.mkdir(parents=True, exist_ok=True)
            with (root / f"{split}_{name}.csv").open("w", newline="") as file:
                csv.writer(file).writerows(content)
        picture(root / place.format(split, split) / f"{id}.jpg")
    (root / "license_information.csv").write_text(
        "ID,PMCID,Attribution\nROCOv2_2023_train_000001,PMC12,CC BY\nROCOv2_2023_train_000002,,see 10.1000/abc.1\n"
    )
    return root


@pytest.mark.parametrize("place", ["{}_images/{}", "{}_images", "{}"])
def test_rocov2_as_zenodo_has_it(tmp_path: Path, place: str) -> None:
    splits = read_rocov2(rocov2_tree(tmp_path, place))
    assert {split: len(cases) for split, cases in splits.items()} == {"train": 2, "val": 2, "test": 2}
    first, second = splits["train"]
    assert first.caption == 'CT, "axial" slice.' and (first.group, second.group) == ("PMC12", "10.1000/abc.1")
    # The concepts set by hand go before those found by machine.
    assert (first.facts, second.facts) == ({"modality": "CT"}, {"modality": "MRI"})
    assert splits["val"][0].group == splits["val"][0].id
    assert all(open_case(cases[0]).width == 12 for cases in splits.values())


def parquet(file: Path, rows: list[dict[str, Any]], *, group: int = 2) -> Path:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    file.parent.mkdir(parents=True, exist_ok=True)
    import pyarrow.parquet

    pyarrow.parquet.write_table(arrow.Table.from_pylist(rows), file, row_group_size=group)
    return file


def hub_rows(folder: Path, split: str) -> list[dict[str, Any]]:
    rows = []
    for n in range(5):
        data = picture(folder / f"{n}.png", n, size=(8 + n, 10)).read_bytes()
        image = {"bytes": data if n != 3 else b"no picture", "path": None}
        caption = f"CT number {n}." if n != 4 else ""
        rows.append({"image": image, "image_id": f"{split}_{n}", "caption": caption, "cui": ["C0040405"] if n else []})
    return rows


def test_rocov2_as_the_hub_has_it(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        parquet(tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet", hub_rows(tmp_path / split, split))
    splits = read_rocov2(tmp_path / "hub")
    assert ids(splits)["val"] == [f"validation_{n}" for n in range(4)] and set(splits) == {"train", "val", "test"}
    assert [case.facts for case in splits["train"]] == [{}] + [{"modality": "CT"}] * 3
    assert [open_case(case).width for case in splits["train"][:3]] == [8, 9, 10]
    with pytest.raises(ScanError):
        open_case(splits["train"][3])
    file = tmp_path / "hub" / "data" / "train-00000-of-00001.parquet"
    for blob in (
        Blob(file, 5, "image"),
        Blob(file, -1, "image"),
        Blob(file, 0, "caption"),
        Blob(file, 0, "no"),
        Blob(tmp_path / "no", 0, "image"),
    ):
        with pytest.raises(ScanError):
            blob.read()
    assert ids(read_rocov2(file)) == {"train": [f"train_{n}" for n in range(4)]}


def test_rocov2_in_neither_layout_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither train_captions\.csv nor train-\*\.parquet"):
        read_rocov2(tmp_path)
    parquet(tmp_path / "odd.parquet", [{"image": b"", "caption": ""}])
    with pytest.raises(UserError, match="is none of train"):
        read_rocov2(tmp_path)
    (tmp_path / "odd.parquet").rename(tmp_path / "train-0.parquet")
    parquet(tmp_path / "train-0.parquet", [{"image": b"", "text": ""}])
    with pytest.raises(UserError, match="no column caption"):
        read_rocov2(tmp_path)
    (tmp_path / "train-0.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match="not a whole parquet file"):
        read_rocov2(tmp_path)


def medicat_tree(root: Path, papers: int = 60, name: str = "sample.jsonl") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for p in range(papers):
        for f in range(2):
            row = {"pdf_hash": f"{p:040x}", "fig_uri": f"{f}-Figure{f}-1.png", "radiology": p % 2 == 0}
            rows.append({**row, "s2_caption": f"Figure {f}. CT {p}." if f else None, "s2orc_caption": f"Other CT {p}."})
    rows.append({"pdf_hash": "f" * 40, "fig_uri": "1.png", "s2_caption": "", "s2orc_caption": None})
    (root / name).write_text("\n".join(map(json.dumps, rows)) + "\n")
    return root


def test_medicat_is_split_by_paper(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    splits = read_medicat(medicat_tree(tmp_path))
    groups = {split: {case.group for case in cases} for split, cases in splits.items()}
    assert sum(map(len, groups.values())) == 60 == len(set().union(*groups.values())) and all(groups.values())
    assert len(groups["train"]) > 30 and "1 lines of" in caplog.text
    case = by_id(splits)[f"{3:040x}_1-Figure1-1.png"]
    assert case.caption == "Figure 1. CT 3." and case.facts == {"radiology": "no"}
    assert case.image == tmp_path / "figures" / case.id
    assert by_id(splits)[f"{4:040x}_0-Figure0-1.png"].caption == "Other CT 4."


def test_medicats_splits_do_not_move_when_papers_are_added(tmp_path: Path) -> None:
    before = ids(read_medicat(medicat_tree(tmp_path / "a", 40)))
    after = ids(read_medicat(medicat_tree(tmp_path / "b", 80)))
    assert all(set(names) <= set(after[split]) for split, names in before.items())


def test_medicats_release_and_its_subfigures(tmp_path: Path) -> None:
    release = tmp_path / "release"
    medicat_tree(release, 5, "s2_full_figures_oa_nonroco_combined_medical_top4_public.jsonl")
    text = "(A) CT. (B) MRI, a mass."
    tokens = ["(", "A", ")", "CT", ".", "(", "B", ")", "MRI", ",", "a", "mass", "."]
    placed, at = [], 0
    for token in tokens:
        at = text.index(token, at)
        placed.append({"text": token, "start": at, "end": at + len(token)})
        at += len(token)
    row = {
        "pdf_hash": f"{1:040x}",
        "fig_uri": "1-Figure1-1.png",
        "answer": "accept",
        "text": text,
        "tokens": placed,
        "width": 200,
        "height": 100,
        "spans": [
            {"label": "A", "points": [[0, 0], [100, 0], [100, 100], [0, 100]]},
            {"label": "B", "points": [[100, 50], [200, 50], [200, 100], [100, 100]]},
            {"label": "C", "points": [[0, 0], [1, 1]]},
        ],
        "subcaptions": {"A": [3, 4], "B": [8, 9, 10, 11, 12]},
    }
    rejected = {**row, "answer": "reject"}
    (release / "subcaptions_public.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(rejected)}\n")
    splits = read_medicat(tmp_path)
    assert sum(len(cases) for split, cases in splits.items() if "-" not in split) == 10
    (parts,) = [cases for split, cases in splits.items() if split.endswith("-subfigures")]
    assert [part.caption for part in parts] == ["CT.", "MRI, a mass."]
    assert parts[1].box == (0.5, 0.5, 1.0, 1.0)
    whole = by_id({k: v for k, v in splits.items() if "-" not in k})[parts[0].id.split("#")[0]]
    assert {parts[0].group} == {whole.group} and parts[0].image == whole.image
    picture(release / "figures" / whole.id, 7, size=(40, 20))
    left, right = (open_case(part) for part in parts)
    assert (left.width, left.height, right.width, right.height) == (20, 20, 20, 10)
    assert np.array_equal(right.picture(), open_case(whole).picture()[10:, 20:])


def test_medicat_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no \.jsonl of figures"):
        read_medicat(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"pdf_hash": 1}\n[1]\n')
    with pytest.raises(UserError, match=r"Line 2 of .*a\.jsonl"):
        read_medicat(tmp_path)
    (tmp_path / "b.jsonl").write_text("")
    with pytest.raises(UserError, match=r"several lists of figures; name one of a\.jsonl, b\.jsonl"):
        read_medicat(tmp_path)
    assert not any(read_medicat(tmp_path / "b.jsonl").values())


def test_medicats_real_sample(shared_data: Path) -> None:
    folder = shared_data / "medicat_sample"
    if not folder.is_dir():
        pytest.skip("MedICaT's sample is not here")
    cases = by_id(READERS["medicat"](folder))
    assert len(cases) == 10 and len({case.group for case in cases.values()}) == 5
    assert all(open_case(case).width > 50 for case in cases.values())
    assert sum(case.facts["radiology"] == "yes" for case in cases.values()) == 6


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    rows = [
        ["image", "Caption", "split", "group", "modality", "facts", "id"],
        ["a.png", "A CT.", "train", "p1", "CT", "", ""],
        ["a.png", "Axial slice.", "train", "p1", "CT", "", ""],
        ["sub/b.png", "", "validation", "p2", "", '{"modality": "MRI", "part": "head"}', "second"],
        ["c.png", "", "train", "p3", "", "", ""],
    ]
    with (tmp_path / "mine.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows(rows)
    splits = read_table(tmp_path)
    assert ids(splits) == {"train": ["a.png"], "val": ["second"]}
    first, second = splits["train"][0], splits["val"][0]
    assert (
        first.references == ("A CT.", "Axial slice.") and first.facts == {"modality": "CT"} and first.source == "mine"
    )
    assert (second.caption, second.group, second.image) == ("MRI of the head.", "p2", tmp_path / "sub" / "b.png")
    assert ids({"val": read_dataset("table", tmp_path / "mine.csv", "valid")}) == {"val": ["second"]}


def test_a_table_without_splits_is_split_by_group(tmp_path: Path) -> None:
    rows = [{"image": f"{n}.png", "captions": ["One.", "Two."], "group": f"p{n // 3}"} for n in range(300)]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    splits = read_table(file)
    groups = [{case.group for case in cases} for cases in splits.values()]
    assert sum(map(len, groups)) == 100 == len(set().union(*groups)) and len(splits["train"]) > 200
    random.Random(0).shuffle(rows)
    file.write_text("\n".join(map(json.dumps, rows)))
    assert {k: sorted(v) for k, v in ids(read_table(file)).items()} == {k: sorted(v) for k, v in ids(splits).items()}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", "image,text\na.png,CT\n", "has no column caption"),
        ("a.csv", "file,caption\na.png,CT\n", "Row 1 of .* names no image"),
        ("a.csv", "image,caption,split\na.png,CT,\n", "Row 1 of .* has no split"),
        ("a.csv", "image,caption,facts\na.png,CT,axial\n", "facts in row 1"),
        ("a.jsonl", '{"image": "a.png", "caption": "CT"}\n{"image"', "not a whole table"),
        ("a.jsonl", "[1]\n", "not a whole table"),
        ("a.txt", "image", r"no \.csv, \.tsv or \.jsonl file"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_sentence(tmp_path: Path, name: str, content: str, sentence: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=sentence):
        read_table(tmp_path)


def test_a_patient_in_two_splits_of_a_table_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.tsv").write_text("image\tcaption\tsplit\tgroup\na\tCT\ttrain\tp1\nb\tCT\ttest\tp1\n")
    with caplog.at_level(logging.WARNING):
        read_table(tmp_path)
    assert "1 groups of" in caplog.text


def test_readers_touch_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "table.csv").write_text("image,caption\na.png,CT\n")
    trees = {
        "coco2014": coco_tree(tmp_path / "coco2014", "2014"),
        "coco2017": coco_tree(tmp_path / "coco2017", "2017"),
        "roco": roco_tree(tmp_path / "roco"),
        "rocov2": rocov2_tree(tmp_path / "rocov2"),
        "medicat": medicat_tree(tmp_path / "medicat"),
        "table": tmp_path / "table.csv",
    }

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a reader opened a picture")

    for name in ("msmedcap.data.sets.case.open_scan", "PIL.Image.open", "pathlib.Path.read_bytes"):
        monkeypatch.setattr(name, forbidden)
    for name, tree in trees.items():
        assert by_id(READERS[name](tree)), name
