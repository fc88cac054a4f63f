"""The lexicon reads captions as a radiologist would, and the rates are the textbook's."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest

from msmedcap.data.captions import plain_caption
from msmedcap.data.sets import read_dataset
from msmedcap.evaluation import facts


@pytest.mark.parametrize(
    ("fact", "text", "value"),
    [
        ("modality", "Axial CT of the chest.", "CT"),
        ("modality", "axial mr of the head", "MRI"),
        ("modality", "Sagittal T2-weighted MRI of the spine.", "MRI"),
        ("modality", "Magnetic resonance image", "MRI"),
        ("modality", "Frontal X-ray of the chest.", "X-ray"),
        ("modality", "A chest radiograph.", "X-ray"),
        ("modality", "Ultrasound of the breast.", "ultrasound"),
        ("modality", "Contrast in the duct, an act of faith.", None),
        ("plane", "A parasagittal image", "sagittal"),
        ("plane", "Transverse image of the liver", "axial"),
        ("plane", "A biaxial load", None),
        ("part", "Axial CT of the abdomen and pelvis.", "abdomen"),
        ("part", "MRI of the pelvis and urinary tract.", "pelvis"),
        ("part", "MRI of the thoracic spine.", "musculoskeletal"),
        ("part", "CT of the thoracic aorta.", "chest"),
        ("part", "MRI of the musculoskeletal system.", "musculoskeletal"),
        ("part", "Mass in the pancreatic head, abdomen.", "abdomen"),
        ("part", "Coronal MRI of the head.", "head"),
        ("label", "No findings.", "no findings"),
        ("label", "Findings of pneumonia.", "pneumonia"),
        ("label", "Pneumonia due to COVID-19.", "COVID-19"),
        ("label", "No findings of pneumonia.", "no findings"),
        ("label", "There is no evidence of pneumonia or COVID-19.", None),
        ("label", "Without malignant features but benign.", "benign"),
        ("label", "Not malignant; a benign mass.", "benign"),
        ("label", "Abnormal tissue", None),
        ("label", "Normal breast tissue.", "normal"),
        ("label", "", None),
    ],
)
def test_stated(fact: str, text: str, value: str | None) -> None:
    assert facts.stated(fact, text) == value


def test_the_value_named_first_counts() -> None:
    assert facts.stated("modality", "CT, later MRI") == "CT"
    assert facts.stated("modality", "MRI, earlier CT") == "MRI"


def test_a_label_is_read_within_its_family() -> None:
    text = "Normal heart size. Pneumonia on the left."
    assert facts.stated("label", text, among=facts.family("pneumonia")) == "no findings"
    assert facts.stated("label", "Benign mass, normal chest", among=facts.family("benign")) == "benign"
    with pytest.raises(KeyError):
        facts.family("fracture")


def test_an_unknown_fact_is_an_error() -> None:
    with pytest.raises(KeyError):
        facts.stated("colour", "CT")


@pytest.mark.parametrize(
    ("fact", "value", "word"),
    [
        ("modality", "MR", "MRI"),
        ("part", "musculoskeletal system", "musculoskeletal"),
        ("part", "spine", "musculoskeletal"),
        ("part", "Reproductive and Urinary System", "pelvis"),
        ("label", "covid-19", "COVID-19"),
        ("label", "no findings", "no findings"),
        ("plane", "oblique", None),
        ("part", "", None),
        ("side", "left", None),
    ],
)
def test_canonical(fact: str, value: str, word: str | None) -> None:
    assert facts.canonical(fact, value) == word


def test_accuracy_and_balanced_accuracy() -> None:
    truth = ["axial"] * 8 + ["coronal"] * 2
    said: list[str | None] = ["axial"] * 8 + [None, "coronal"]
    assert facts.accuracy(truth, said).value == pytest.approx(0.9)
    assert facts.balanced_accuracy(truth, said) == pytest.approx(0.75)
    assert facts.recalls(truth, said)["coronal"].n == 2
    assert math.isnan(facts.balanced_accuracy([], []))
    with pytest.raises(ValueError):
        facts.accuracy(truth, said[:-1])


def test_wilson_is_the_textbook_interval() -> None:
    rate = facts.wilson(8, 10)
    assert (rate.low, rate.high) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert facts.wilson(0, 10).low == 0.0
    assert facts.wilson(10, 10).high == pytest.approx(1.0)
    assert math.isnan(facts.wilson(0, 0).value)
    with pytest.raises(ValueError):
        facts.wilson(3, 2)


@pytest.mark.parametrize(
    ("caption", "faulty"),
    [
        ("Axial CT of the head. Mass.", False),
        ("Mass. mass .", True),
        ("", True),
        (" .. ", True),
        ("Axial CT of the head.\nAxial  CT of the head", True),
    ],
)
def test_empty_or_repeated(caption: str, faulty: bool) -> None:
    assert facts.is_empty_or_repeats(caption) is faulty


def test_distinct_share() -> None:
    assert facts.distinct_share(["A scan.", "a  scan.", "Another."]) == pytest.approx(2 / 3)
    assert math.isnan(facts.distinct_share([]))


PARTS = ("head", "chest", "abdomen", "spine", "musculoskeletal system", "pelvis", "breast")


@pytest.mark.parametrize("label", [label for family in facts.FAMILIES for label in family])
def test_the_target_captions_state_their_facts(label: str) -> None:
    for modality, plane, part in itertools.product(facts.LEXICON["modality"], facts.PLANES, PARTS):
        truth = {"modality": modality, "plane": plane, "part": part, "label": label}
        text = plain_caption(truth)
        for fact, value in truth.items():
            among = facts.family(value) if fact == "label" else None
            assert facts.stated(fact, text, among=among) == facts.canonical(fact, value), text


@pytest.mark.parametrize(("name", "split"), [("medpix", "dev"), ("cxr_seg", "test")])
def test_the_real_data_sets_say_what_the_lexicon_knows(shared_data: Path, name: str, split: str) -> None:
    for case in read_dataset(name, shared_data / name, split):
        for fact in facts.LEXICON.keys() & case.facts.keys():
            assert facts.stated(fact, case.caption) == facts.canonical(fact, case.facts[fact]) is not None, case.caption
