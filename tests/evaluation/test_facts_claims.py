"""A caption's claims: what is read, what negation, doubt and sides do to it, and what must not change them."""

from __future__ import annotations

import itertools
import json
import random
import re
import time
from pathlib import Path

import pytest

from msmedcap.data.captions import LABELS, plain_caption, swap_sides
from msmedcap.evaluation import facts
from msmedcap.evaluation.facts.agreement import measure_states

FINDINGS = (
    "pleural effusion",
    "pneumothorax",
    "fracture",
    "mass",
    "hemorrhage",
    "hydronephrosis",
    "kidney stone",
    "cardiomegaly",
)
SENTENCES = Path(__file__).with_name("clinical_sentences.jsonl")


def states(text: str) -> dict[str, str]:
    return {value: state for (_, value), state in facts.claims(text).states.items()}


def sides(text: str) -> dict[str, str]:
    return {claim.value: claim.side for claim in facts.claims(text) if claim.kind == "finding"}


def test_a_caption_is_read_whole() -> None:
    text = "Axial CT of the chest. Left pleural effusion, no pneumothorax; endotracheal tube."
    keys = facts.claims(text).keys
    assert keys["modality"] == {"CT"}
    assert keys["plane"] == {"axial"}
    assert keys["part"] == {"chest", "pleura"}
    assert keys["finding"] == {"effusion", "pleural effusion"}
    assert keys["absent"] == {"pneumothorax"}
    assert keys["device"] == {"endotracheal tube"}
    assert keys["side"] == {("pleural effusion", "left")}


def test_each_claim_has_its_place() -> None:
    text = "Haemorrhage and X-ray of the left kidney"
    assert [text[c.start : c.end] for c in facts.claims(text)] == ["Haemorrhage", "X-ray", "kidney"]


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("AP chest radiograph", {"AP", "frontal"}),
        ("Posteroanterior view of the chest", {"PA", "frontal"}),
        ("Lateral X-ray of the chest", {"lateral"}),
        ("Lateral ventricle", set()),
        ("Main PA is dilated", set()),
        ("Apical four-chamber view", {"four-chamber"}),
    ],
)
def test_views(text: str, view: set[str]) -> None:
    assert facts.claims(text).keys["view"] == view


@pytest.mark.parametrize("finding", FINDINGS)
@pytest.mark.parametrize(
    "pattern",
    [
        "No {}.",
        "Without {}.",
        "There is no evidence of {}.",
        "Negative for {}.",
        "The picture is free of {}.",
        "{} was ruled out.",
        "The patient denies {}.",
        "Absence of {}.",
        "{} is not seen.",
        "{} has resolved.",
        "No sign of {} or abscess.",
        "Neither abscess nor {}.",
    ],
)
def test_negation_turns_present_into_absent(finding: str, pattern: str) -> None:
    value = {"kidney stone": "stone"}.get(finding, finding)
    assert states(f"{finding}.") == {value: "present"}
    assert states(pattern.format(finding))[value] == "absent"


@pytest.mark.parametrize("finding", FINDINGS)
@pytest.mark.parametrize(
    "pattern",
    [
        "Possible {}.",
        "{} cannot be excluded.",
        "Suspicious for {}.",
        "This may represent {}.",
        "{} is suspected.",
        "Cannot rule out {}.",
    ],
)
def test_doubt_is_a_third_state(finding: str, pattern: str) -> None:
    value = {"kidney stone": "stone"}.get(finding, finding)
    assert states(pattern.format(finding)) == {value: "uncertain"}


@pytest.mark.parametrize("finding", FINDINGS)
@pytest.mark.parametrize(
    "pattern",
    [
        "No change in the {}.",
        "Not only {} is seen.",
        "No doubt about the {}.",
        "Not without {}.",
        "No abscess but a {}.",
        "CT without contrast shows {}.",
    ],
)
def test_what_looks_like_negation_is_none(finding: str, pattern: str) -> None:
    value = {"kidney stone": "stone"}.get(finding, finding)
    assert states(pattern.format(finding))[value] == "present"


@pytest.mark.parametrize("end", ["but", "however", "except for", "although there is", "apart from"])
def test_these_words_end_the_scope(end: str) -> None:
    assert states(f"No fracture {end} a small effusion.") == {"fracture": "absent", "effusion": "present"}


def test_normal_and_its_exceptions() -> None:
    for text in (
        "Normal.",
        "No findings.",
        "Unremarkable CT of the head.",
        "The chest X-ray is normal.",
        "Normal breast tissue.",
    ):
        assert states(text) == {"abnormality": "absent"}, text
    assert states("Otherwise unremarkable.") == states("No other abnormality.") == {}
    assert states("No abnormality except for a cyst.") == {"cyst": "present"}
    assert states("The lungs are clear. Heart size is normal.") == {
        "lung abnormality": "absent",
        "cardiomegaly": "absent",
    }
    assert states("The heart size is not normal.") != {"cardiomegaly": "absent"}
    assert "abnormality" not in states("Findings of pneumonia.")


def test_of_two_statements_the_stronger_counts() -> None:
    texts = ["No effusion.", "Possible effusion.", "Effusion."]
    for order in itertools.permutations(texts):
        assert states(" ".join(order)) == {"effusion": "present"}
    assert states("No effusion. Possible effusion.") == {"effusion": "uncertain"}


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("Left pleural effusion and fracture of the right rib", {"pleural effusion": "left", "fracture": "right"}),
        ("Pneumothorax on the right.", {"pneumothorax": "right"}),
        ("The left kidney shows hydronephrosis and stones.", {"hydronephrosis": "left", "stone": "left"}),
        ("Consolidation in the left lower lobe and right middle lobe", {"consolidation": "bilateral"}),
        ("Nodules in both lungs.", {"nodule": "bilateral"}),
        ("RUL nodule, LLL consolidation", {"nodule": "right", "consolidation": "left"}),
        ("Mass in the left atrium.", {"mass": ""}),
        ("Midline shift to the left.", {"midline shift": ""}),
        ("Stone in the left ureter. Cyst.", {"stone": "left", "cyst": ""}),
    ],
)
def test_sides_belong_to_what_they_modify(text: str, side: dict[str, str]) -> None:
    assert sides(text) == side


@pytest.mark.parametrize(
    "text",
    [
        "Left pleural effusion and fracture of the right rib.",
        "The left kidney shows a stone, the right kidney shows hydronephrosis.",
        "RUL nodule, no left effusion.",
        "Mass on the right.",
    ],
)
def test_mirrored_words_give_mirrored_sides(text: str) -> None:
    other = {"left": "right", "right": "left"}
    before, after = facts.claims(text).keys, facts.claims(swap_sides(text)).keys
    assert after["side"] == {(target, other[side]) for target, side in before["side"]} != set()
    assert {k: v for k, v in before.items() if k != "side"} == {k: v for k, v in after.items() if k != "side"}


def test_the_order_of_sentences_does_not_matter() -> None:
    rows = [json.loads(line)["text"] for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    draw = random.Random(0)
    for _ in range(100):
        chosen = draw.sample(rows, 4)
        keys = facts.claims(" ".join(chosen)).keys
        draw.shuffle(chosen)
        assert facts.claims(" ".join(chosen)).keys == keys


def test_sentences_add_up() -> None:
    rows = [json.loads(line)["text"] for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    for a, b in itertools.pairwise(rows):
        both = [(c.kind, c.value, c.state, c.side) for c in facts.claims(f"{a} {b}")]
        assert both == [(c.kind, c.value, c.state, c.side) for text in (a, b) for c in facts.claims(text)]


def test_the_target_captions_say_their_facts() -> None:
    for label in LABELS:
        for side in ("", "left", "right"):
            text = plain_caption(
                {"modality": "X-ray", "view": "frontal", "part": "chest", "label": label, "side": side}
            )
            found = facts.claims(text)
            expected = {"no findings": "abnormality", "normal": "abnormality"}.get(label, label)
            assert found.states["finding", expected] == ("absent" if expected == "abnormality" else "present"), text
            assert {s for _, s in found.keys["side"]} <= ({side} if side else set()), text


def test_hand_labelled_sentences_are_read_right() -> None:
    rows = [json.loads(line) for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    found = measure_states((row["text"], row) for row in rows)
    assert found["texts"] == 150
    assert found["precision"] >= 0.98
    assert found["recall"] >= 0.98
    assert found["texts without error"] >= 0.96
    assert found["sides right"] >= 0.96


@pytest.mark.parametrize(
    "text", ["", "   ", "...", "\n\n", "123", "—", "no", "no no no", "left", "not seen", "without, without", ", or"]
)
def test_nothing_is_made_of_nothing(text: str) -> None:
    assert len(facts.claims(text)) == 0


def test_no_text_breaks_it() -> None:
    draw = random.Random(1)
    pieces = [
        w
        for line in SENTENCES.read_text(encoding="utf-8").splitlines()
        for w in re.findall(r"\w+|\W", json.loads(line)["text"])
    ]
    for _ in range(500):
        text = "".join(draw.choices(pieces, k=60))
        for claim in facts.claims(text):
            assert 0 <= claim.start < claim.end <= len(text)


def test_thousands_of_captions_take_seconds() -> None:
    texts = [json.loads(line)["text"] for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    facts.claims(texts[0])
    start = time.process_time()
    for n in range(2000):
        facts.claims(f"{texts[n % 150]} {texts[(7 * n) % 150]}")
    assert time.process_time() - start < 2000 * 60 / 50_000
