"""Made scans: the truth they claim is the truth they show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from msmedcap.data.captions import plain_caption
from msmedcap.data.phantoms import Combination, Phantom, combinations, make_phantom, phantoms, write_examples
from msmedcap.data.phantoms.examples import save_dicom
from msmedcap.data.scans import open_scan

SIZE = 128
WHOLE = ("no findings", "normal")
ASSETS = Path(__file__).parents[2] / "assets" / "examples"


def made(seed: int, what: Combination, *, size: int = SIZE) -> Phantom:
    return make_phantom(seed, modality=what.modality, part=what.part, plane=what.plane, finding=what.finding, size=size)


@pytest.fixture(scope="module")
def one_of_each() -> list[tuple[Combination, Phantom]]:
    return [(what, made(seed, what)) for what in combinations() for seed in range(3)]


def with_finding(part: str, finding: str, *, count: int = 8, **more: str) -> Iterator[Phantom]:
    for seed in range(count):
        yield make_phantom(seed, part=part, finding=finding, size=SIZE, **more)


def centre(mask: np.ndarray) -> float:
    """The mean column of a mask."""
    return float(np.nonzero(mask)[1].mean())


def contrast(phantom: Phantom) -> float:
    """How much brighter the lesion's values are than a rim of its surroundings, within its organ where that is known."""
    lesion = phantom.masks["lesion"]
    names = {"head": ("brain",), "chest": ("Left Lung", "Right Lung")}
    names["abdomen"] = ("liver", "kidney left", "kidney right", "spleen")
    organs = [phantom.masks[n] for n in names.get(phantom.facts["part"], ()) if n in phantom.masks]
    home = np.logical_or.reduce(organs) if organs else np.ones_like(lesion)
    rim = ndimage.binary_dilation(lesion, iterations=10) & ~ndimage.binary_dilation(lesion, iterations=3) & home
    core = ndimage.binary_erosion(lesion) if ndimage.binary_erosion(lesion).any() else lesion
    return float(np.median(phantom.values[core]) - np.median(phantom.values[rim]))


def test_the_same_seed_gives_the_same_phantom_and_another_seed_another():
    for what in combinations()[::5]:
        one, again, other = made(7, what), made(7, what), made(8, what)
        assert np.array_equal(one.values, again.values) and one.caption == again.caption and one.window == again.window
        assert all(np.array_equal(mask, again.masks[name]) for name, mask in one.masks.items())
        assert not np.array_equal(one.values, other.values)


def test_every_combination_is_what_was_asked_for(one_of_each):
    for what, phantom in one_of_each:
        facts = phantom.facts
        assert (facts["modality"], facts["part"], facts["plane"], facts["finding"]) == tuple(what)
        assert facts["view"] == ("frontal" if what.modality == "X-ray" else "")
        assert phantom.caption == plain_caption(facts)
        assert ("lesion" in phantom.masks) == (what.finding not in WHOLE), what
        assert bool(facts["size"]) == (what.finding not in (*WHOLE, "fracture", "tear")), what


def test_captions_follow_the_fixed_words():
    whole = make_phantom(1, modality="CT", part="head", finding="no findings", size=SIZE)
    assert whole.caption == "Axial CT of the head. No findings."
    malignant = make_phantom(1, part="breast", finding="malignant", size=SIZE)
    assert malignant.caption == "Ultrasound of the breast. Malignant mass."
    film = make_phantom(1, modality="X-ray", finding="no findings", size=SIZE)
    assert film.caption == "Frontal X-ray of the chest. No findings."
    hemorrhage = make_phantom(1, modality="CT", part="head", finding="hemorrhage", size=SIZE)
    assert hemorrhage.caption == f"Axial CT of the head. Hemorrhage on the {hemorrhage.facts['side']}."


def test_arrays_have_their_kinds_and_units(one_of_each):
    for what, phantom in one_of_each:
        assert phantom.values.shape == phantom.picture.shape == (SIZE, SIZE)
        assert phantom.values.dtype == np.float32 and phantom.picture.dtype == np.uint8
        assert np.array_equal(phantom.values, np.rint(phantom.values))
        low, high = {"CT": (-1024, 3071), "MRI": (0, 4095), "X-ray": (0, 4095), "ultrasound": (0, 255)}[what.modality]
        assert phantom.values.min() >= low and phantom.values.max() <= high
        assert all(mask.shape == (SIZE, SIZE) and mask.dtype == bool and mask.any() for mask in phantom.masks.values())
        assert phantom.picture.std() > 8, what  # not one flat grey


def test_the_picture_is_the_values_in_the_window(one_of_each):
    for _, phantom in one_of_each:
        share = (phantom.values - (phantom.window.level - 0.5)) / (phantom.window.width - 1) + 0.5
        assert np.abs(np.clip(share, 0, 1) * 255 - phantom.picture).max() <= 0.51


def test_a_lesion_lies_inside_its_organ():
    for modality in ("CT", "MRI"):
        for finding in ("hemorrhage", "infarct", "mass"):
            for phantom in with_finding("head", finding, modality=modality):
                assert not (phantom.masks["lesion"] & ~phantom.masks["brain"]).any()
    for modality, findings in (("CT", ("nodule", "consolidation", "effusion")), ("X-ray", ("nodule", "effusion", "pneumothorax"))):
        for finding in findings:
            for phantom in with_finding("chest", finding, modality=modality):
                lung = phantom.masks[f"{phantom.facts['side'].capitalize()} Lung"]
                assert not (phantom.masks["lesion"] & ~lung).any()
    for finding in ("mass", "cyst", "stone"):
        for phantom in with_finding("abdomen", finding):
            names = ("liver", "spleen", "kidney left", "kidney right", "gallbladder")
            assert any(not (phantom.masks["lesion"] & ~phantom.masks[n]).any() for n in names if n in phantom.masks)


def test_pneumonia_lies_in_the_lungs_it_names():
    sides = set()
    for phantom in with_finding("chest", "pneumonia", count=16):
        left, right = (phantom.masks["lesion"] & phantom.masks[f"{side} Lung"] for side in ("Left", "Right"))
        assert (left.any(), right.any()) == {"left": (True, False), "right": (False, True), "": (True, True)}[phantom.facts["side"]]
        assert not (phantom.masks["lesion"] & ~(phantom.masks["Left Lung"] | phantom.masks["Right Lung"])).any()
        assert "Consolidation" in phantom.masks or "Ground Glass Opacities" in phantom.masks
        sides.add(phantom.facts["side"])
    assert sides == {"left", "right", ""}


def test_the_patients_left_is_on_the_pictures_right(one_of_each):
    for _, phantom in one_of_each:
        masks, facts = phantom.masks, phantom.facts
        if "Left Lung" in masks:
            assert centre(masks["Left Lung"]) > centre(masks["Right Lung"])
        if "liver" in masks:
            assert centre(masks["liver"]) < centre(masks["body"])
        if "spleen" in masks:
            assert centre(masks["spleen"]) > centre(masks["body"])
        if "kidney left" in masks:
            assert centre(masks["kidney left"]) > centre(masks["kidney right"])
        if facts["side"]:
            middle = centre(masks.get("brain", masks["body"]))
            assert (centre(masks["lesion"]) > middle) == (facts["side"] == "left"), phantom.caption


def test_both_sides_and_sizes_occur():
    found = {(p.facts["side"], p.facts["size"]) for p in with_finding("head", "hemorrhage", count=24)}
    assert {("left", "small"), ("left", "large"), ("right", "small"), ("right", "large")} <= found


@pytest.mark.parametrize(
    ("modality", "part", "finding", "sign"),
    [
        ("CT", "head", "hemorrhage", 1),
        ("CT", "head", "infarct", -1),
        ("CT", "chest", "nodule", 1),
        ("CT", "chest", "consolidation", 1),
        ("CT", "chest", "effusion", 1),
        ("CT", "abdomen", "stone", 1),
        ("CT", "abdomen", "cyst", -1),
        ("X-ray", "chest", "nodule", 1),
        ("X-ray", "chest", "pneumonia", 1),
        ("ultrasound", "breast", "benign", -1),
        ("ultrasound", "breast", "malignant", -1),
    ],
)
def test_a_lesion_looks_like_its_name(modality, part, finding, sign):
    values = [sign * contrast(p) for p in with_finding(part, finding, modality=modality, count=10)]
    assert np.median(values) > 0 and sum(v > 0 for v in values) >= 9, values


def test_benign_masses_are_wider_than_tall_and_malignant_ones_are_not():
    shapes: dict[str, list[float]] = {"benign": [], "malignant": []}
    for finding, ratios in shapes.items():
        for phantom in with_finding("breast", finding, count=12):
            rows, cols = np.nonzero(phantom.masks["lesion"])
            ratios.append(float(np.ptp(rows) / np.ptp(cols)))
    assert max(shapes["benign"]) < 1.0
    assert np.median(shapes["malignant"]) > 1.0


def test_chest_radiographs_use_the_class_strings_of_the_mask_set():
    known = {"body", "lesion", "nodule", "Left Lung", "Right Lung", "Cardiomediastinum", "Airways", "Consolidation"}
    known |= {"Ground Glass Opacities", "Pleural Effusion", "Pneumothorax"}
    for finding in ("no findings", "pneumonia", "nodule", "effusion", "pneumothorax"):
        for phantom in with_finding("chest", finding, modality="X-ray", count=3):
            assert {"Left Lung", "Right Lung", "Cardiomediastinum", "Airways"} <= set(phantom.masks) <= known
            assert not (phantom.masks["Left Lung"] & phantom.masks["Right Lung"]).any()


def test_a_dicom_file_gives_back_the_same_scan(tmp_path):
    for what in (c for c in combinations() if c.finding in ("mass", "effusion", "disc herniation", "pneumonia", "benign")):
        phantom = made(3, what)
        save_dicom(phantom, tmp_path / "scan.dcm")
        scan = open_scan(tmp_path / "scan.dcm")
        assert np.array_equal(scan.values(), phantom.values)
        assert np.array_equal(scan.picture()[..., 0], phantom.picture)
        assert scan.spacing == pytest.approx(phantom.spacing)


def test_a_stream_is_balanced_and_starts_the_same_whatever_its_length():
    few, many = list(phantoms(4, seed=5, size=64)), list(phantoms(len(combinations()), seed=5, size=64))
    assert all(np.array_equal(a.values, b.values) for a, b in zip(few, many, strict=False))
    facts = {(p.facts["modality"], p.facts["part"], p.facts["plane"], p.facts["finding"]) for p in many}
    assert facts == {tuple(c) for c in combinations()}


def test_size_is_free_and_the_anatomy_scales_with_it():
    small, large = (make_phantom(2, modality="X-ray", finding="no findings", size=size) for size in (96, 192))
    assert small.picture.shape == (96, 96) and large.picture.shape == (192, 192)
    shares = [p.masks["Left Lung"].mean() for p in (small, large)]
    assert shares[0] == pytest.approx(shares[1], rel=0.1)
    assert small.spacing[0] == pytest.approx(2 * large.spacing[0], rel=1e-3)


def test_what_cannot_be_made_is_refused():
    with pytest.raises(ValueError, match="no phantom"):
        make_phantom(0, modality="ultrasound", part="head")
    with pytest.raises(ValueError, match="64 pixels"):
        make_phantom(0, size=16)


def test_examples_are_small_dicom_files_with_a_true_index(tmp_path):
    write_examples(tmp_path)
    index = json.loads((tmp_path / "index.json").read_text(encoding="utf-8"))
    assert {row["file"] for row in index} == {p.name for p in tmp_path.glob("*.dcm")} and len(index) == 6
    for row in index:
        scan = open_scan(tmp_path / row["file"])
        assert scan.kind == "DICOM" and (tmp_path / row["file"]).stat().st_size <= 256 * 1024
        assert row["title"] and row["caption"].endswith(".")


def test_the_shipped_examples_are_those_of_the_code(tmp_path):
    write_examples(tmp_path)
    shipped, fresh = (json.loads((p / "index.json").read_text(encoding="utf-8")) for p in (ASSETS, tmp_path))
    assert shipped == fresh
    for row in fresh:  # another machine's arithmetic may round a pixel differently
        one, other = (open_scan(folder / row["file"]).picture().astype(int) for folder in (ASSETS, tmp_path))
        assert np.abs(one - other).mean() < 0.5
