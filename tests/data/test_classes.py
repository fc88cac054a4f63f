"""The class file: complete, unambiguous, refused with one sentence where it is not."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from msmedcap.config import UserError
from msmedcap.data.classes import FILE, PARTS, ClassBook, load_classes, plain
from msmedcap.data.masks import read_sa_med2d
from msmedcap.data.phantoms import combinations, make_phantom

CHEST = (
    "Airways", "Cardiomediastinum", "Central Venous Line", "Consolidation", "Endotracheal Tube", "Ground Glass Opacities",
    "Left Lung", "Monitoring Probes", "Nasogastric Tube", "Pleural Effusion", "Pneumothorax", "Right Lung", "Tubings",
)


@pytest.fixture(scope="module")
def book() -> ClassBook:
    return load_classes()


def test_there_are_enough_classes_and_each_says_enough(book: ClassBook) -> None:
    assert len(book.names) >= 60 and len(set(book.names)) == len(book.names)
    for one in book.classes:
        sentences = one.sentences()
        assert len(sentences) == len(PARTS) and all(one.name in sentence for sentence in sentences)
        assert len(" ".join(sentences).split()) >= 40, one.name


def test_the_chest_sets_names_are_kept_to_the_letter(book: ClassBook) -> None:
    assert set(CHEST) <= set(book.names)


def test_the_chest_set_on_disk_has_these_names(book: ClassBook, shared_data: Path) -> None:
    with open(shared_data / "cxr_seg" / "masks.csv", newline="", encoding="utf-8") as file:
        found = {row["class"] for row in csv.DictReader(file)}
    assert found == set(CHEST) and all(book.resolve(name) == name for name in found)


def test_the_organ_sets_names_are_classes(book: ClassBook, shared_data: Path) -> None:
    folder = shared_data / "sa_med2d_sample"
    index = json.loads((folder / "label2image_test.json").read_text(encoding="utf-8"))
    stems = {Path(mask).stem.removeprefix(f"{Path(image).stem}_").rpartition("_")[0] for mask, image in index.items()}
    found = {name for row in read_sa_med2d(folder) for name, _ in row.masks} | stems
    assert len(found) >= 20
    assert {name for name in found if book.resolve(name) != name.replace("_", " ")} == set()


def test_every_phantoms_mask_is_a_class_or_ignored_for_a_reason(book: ClassBook) -> None:
    names: set[str] = set()
    for seed, what in enumerate(combinations()):
        phantom = make_phantom(seed, modality=what.modality, part=what.part, plane=what.plane, finding=what.finding, size=64)
        names |= set(phantom.masks)
    assert len(names) > 30
    assert {name for name in names if book.resolve(name) != name} == set(book.ignored) & names


def test_a_spelling_leads_to_its_class_whatever_its_case(book: ClassBook) -> None:
    assert book.resolve("LEFT_lung") == book.resolve("lung left") == "Left Lung"
    assert book.resolve("urinary_bladder") == "bladder" and book.resolve("spinal  cord") == "cord"
    assert book.resolve("home") is None and book.resolve("left thumb") is None
    assert book.get("right ventricle").name == "heart ventricle right"
    with pytest.raises(UserError, match="no class 'left thumb'"):
        book.get("left thumb")


def test_no_spelling_means_two_classes(book: ClassBook) -> None:
    meant = [plain(s) for one in book.classes for s in (one.name, *one.synonyms)]
    assert len(set(meant)) == len(meant)


def test_left_and_right_are_told_alike_and_apart(book: ClassBook) -> None:
    pairs = [(n, n.replace("left", "right")) for n in book.names if "left" in n.split()]
    assert len(pairs) >= 15
    for left, right in pairs:
        one, other = book.get(left), book.get(right)
        assert one.kind == other.kind and set(one.appearance) == set(other.appearance)
        assert all(a != b for a, b in zip(one.sentences(), other.sentences(), strict=True))


def _spoilt(change: str) -> Any:
    found = json.loads(FILE.read_text(encoding="utf-8"))
    first = found["classes"][0]
    if change == "key":
        first["colour"] = "white"
    elif change == "missing":
        del first["place"]
    elif change == "empty":
        first["shape"] = "  "
    elif change == "kind":
        first["kind"] = "thing"
    elif change == "modality":
        first["appearance"] = {"PET": "bright"}
    elif change == "twice":
        found["classes"][1]["synonyms"].append(first["name"].upper())
    elif change == "own":
        first["synonyms"].append(first["name"].lower())
    elif change == "top":
        del found["version"]
    elif change == "none":
        found["classes"] = []
    return found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("key", "class 1 .*must have the keys"),
        ("missing", "class 1 .*must have the keys"),
        ("empty", "shape must be a text"),
        ("kind", "kind must be one of organ"),
        ("modality", "appearance must be texts by modality"),
        ("twice", "already means"),
        ("own", "already means"),
        ("top", "it must be an object with version"),
        ("none", "at least one class"),
    ],
)
def test_a_file_that_is_not_of_the_form_is_refused(tmp_path: Path, change: str, says: str) -> None:
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(_spoilt(change)), encoding="utf-8")
    with pytest.raises(UserError, match=says):
        load_classes(path)


def test_a_file_that_is_no_json_or_not_there_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="not valid JSON"):
        load_classes(tmp_path / "a.json")
    with pytest.raises(UserError, match="does not exist"):
        load_classes(tmp_path / "b.json")


def test_a_class_added_to_the_file_is_read(tmp_path: Path, book: ClassBook) -> None:
    found = json.loads(FILE.read_text(encoding="utf-8"))
    found["classes"].append({**found["classes"][0], "name": "left thumb", "synonyms": ["thumb left"]})
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    longer = load_classes(path)
    assert longer.names == (*book.names, "left thumb") and longer.resolve("Thumb Left") == "left thumb"
