"""Claims against a reference or the known facts: supported, contradicted, unsupported, omitted, or not judged."""

from __future__ import annotations

import pytest

from msmedcap.evaluation import facts
from msmedcap.evaluation.facts import claims, compare, judge, known, told


def verdicts(reference: str, candidate: str) -> dict[str, facts.Judged]:
    return compare(told(reference), claims(candidate))


def test_a_caption_supports_itself() -> None:
    text = "Axial CT of the chest. Left pleural effusion, no pneumothorax. Pacemaker."
    for kind, judged in verdicts(text, text).items():
        assert judged.counts == (len(claims(text).keys[kind]), 0, 0, 0)


def test_the_wrong_side_is_contradicted_and_the_finding_is_not() -> None:
    found = verdicts("Left pleural effusion.", "Right pleural effusion.")
    assert found["side"].contradicted == {("pleural effusion", "right")}
    assert found["side"].omitted == {("pleural effusion", "left")}
    assert found["finding"].counts[1:] == (0, 0, 0)


def test_a_side_is_judged_only_where_both_name_its_finding() -> None:
    found = verdicts("Left pleural effusion.", "Right fracture.")
    assert found["side"].counts == (0, 0, 0, 0)
    assert verdicts("Left fracture.", "Fracture.")["side"].omitted == {("fracture", "left")}
    assert verdicts("Left fracture.", "Bilateral fractures.")["side"].unsupported == {("fracture", "right")}


def test_present_against_absent() -> None:
    found = verdicts("No pneumothorax.", "Pneumothorax.")
    assert found["finding"].contradicted == {"pneumothorax"}
    assert found["absent"].omitted == {"pneumothorax"}
    found = verdicts("Pneumothorax.", "No pneumothorax.")
    assert found["absent"].contradicted == {"pneumothorax"}
    assert found["finding"].omitted == {"pneumothorax"}


def test_doubt_contradicts_nothing_and_matches_the_finding() -> None:
    assert verdicts("No pneumothorax.", "Possible pneumothorax.")["finding"].unsupported == {"pneumothorax"}
    assert verdicts("Possible pneumothorax.", "Pneumothorax.")["finding"].supported == {"pneumothorax"}
    assert not verdicts("Possible pneumothorax.", "No pneumothorax.")["absent"].contradicted


@pytest.mark.parametrize(
    ("reference", "candidate", "contradicted"),
    [
        ("No findings.", "Pneumonia.", {"pneumonia"}),
        ("The lungs are clear.", "Consolidation.", {"consolidation"}),
        ("The lungs are clear.", "Rib fracture.", set()),
        ("No effusion.", "Pleural effusion.", {"effusion", "pleural effusion"}),
        ("No pleural effusion.", "Joint effusion.", set()),
        ("Benign mass.", "Malignant mass.", {"malignant"}),
        ("Pneumonia.", "COVID-19.", set()),
    ],
)
def test_what_a_denial_covers(reference: str, candidate: str, contradicted: set[str]) -> None:
    assert verdicts(reference, candidate)["finding"].contradicted == contradicted


def test_a_normal_study_is_contradicted_by_any_finding_and_entails_each_absence() -> None:
    assert verdicts("Pneumonia.", "No findings.")["absent"].contradicted == {"abnormality"}
    assert verdicts("No findings.", "No pneumothorax.")["absent"].counts[1] == 0
    assert verdicts("No pneumothorax.", "No findings.")["absent"].omitted == frozenset()


def test_wrong_modality_plane_and_region_are_contradicted() -> None:
    found = verdicts("Axial CT of the head.", "Coronal MRI of the abdomen.")
    assert found["modality"].contradicted == {"MRI"}
    assert found["plane"].contradicted == {"coronal"}
    assert found["part"].contradicted == {"abdomen"}
    assert verdicts("Mass.", "CT with mass.")["modality"].unsupported == {"CT"}
    assert verdicts("CT of the liver.", "CT of the spleen.")["part"].contradicted == frozenset()


def test_a_specific_finding_says_its_general_one() -> None:
    found = verdicts("Subdural hematoma.", "Hemorrhage.")
    assert found["finding"].supported == {"hemorrhage"}
    assert found["finding"].omitted == {"subdural hematoma", "hematoma"}


def test_the_part_that_a_finding_implies_is_neither_made_up_nor_left_out() -> None:
    assert verdicts("Pneumonia.", "Chest X-ray.")["part"].counts == (0, 0, 0, 0)
    assert verdicts("X-ray of the chest.", "Pneumonia.")["part"].counts == (0, 0, 0, 0)


def test_several_references_are_one_truth() -> None:
    truth = told(["CT of the head.", "Left hemorrhage."])
    found = compare(truth, claims("CT. Left hemorrhage."))
    assert found["modality"].supported == {"CT"}
    assert found["side"].supported == {("hemorrhage", "left")}


CHEST = {"modality": "X-ray", "view": "frontal", "part": "chest"}


@pytest.mark.parametrize("label", ["pneumonia", "COVID-19", "no findings"])
def test_known_facts_judge_a_label_in_its_family(label: str) -> None:
    truth = known({**CHEST, "label": label})
    found = compare(truth, claims("AP X-ray of the chest. Endotracheal tube in the trachea."))
    assert found["modality"].supported == {"X-ray"}
    assert found["view"].counts == (1, 0, 0, 0)  # AP is a frontal view; which of them it is the facts do not know
    assert found["device"].counts == (0, 0, 0, 0)
    assert found["part"].unsupported == found["part"].contradicted == frozenset()


@pytest.mark.parametrize(
    ("label", "caption", "wrong"),
    [
        ("pneumonia", "COVID-19.", {"COVID-19"}),
        ("pneumonia", "Pneumonia with effusion.", set()),
        ("no findings", "Pneumonia.", {"pneumonia"}),
        ("no findings", "Effusion.", {"effusion"}),
        ("benign", "Malignant mass.", {"malignant"}),
    ],
)
def test_known_facts_and_findings(label: str, caption: str, wrong: set[str]) -> None:
    judged = compare(known({"label": label}), claims(caption))["finding"]
    assert judged.contradicted | judged.unsupported == wrong


def test_known_facts_and_what_they_do_not_name() -> None:
    truth = known({"modality": "CT", "plane": "axial", "part": "pelvis", "finding": "mass", "side": "left"})
    found = compare(truth, claims("Axial CT of the pelvis and urinary tract. Mass on the right, stone in the kidney."))
    assert found["side"].contradicted == {("mass", "right")}
    assert found["finding"].counts == (1, 0, 0, 0)
    assert found["part"].supported == {"pelvis"}
    assert found["part"].unsupported | found["part"].contradicted <= {"abdomen"}
    nothing = compare(known({}), claims("Axial CT of the chest. Left effusion, no mass. Stent."))
    assert all(judged.counts == (0, 0, 0, 0) for judged in nothing.values())


def test_every_claim_has_a_verdict_at_its_place() -> None:
    text = "Axial CT. Right effusion and no mass, pneumothorax is seen."
    found = {claim.value: verdict for claim, verdict in judge(told("CT. Left effusion and a mass."), claims(text))}
    assert found == {
        "axial": "unsupported",
        "CT": "supported",
        "effusion": "contradicted",
        "mass": "contradicted",
        "pneumothorax": "unsupported",
    }
    assert judge(known({}), claims("CT"))[0][1] == "unjudged"
