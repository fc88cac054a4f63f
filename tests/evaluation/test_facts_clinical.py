"""The clinical metrics are sums of counts by case: checked by hand, additive over cases, and exact for a resample."""

from __future__ import annotations

import math

import numpy as np
import pytest

from msmedcap.evaluation import facts

REFERENCES = [
    "Axial CT of the head. Hemorrhage on the left.",
    "Frontal X-ray of the chest. No findings.",
    "Ultrasound of the breast. Benign mass.",
]
CAPTIONS = [
    "Axial CT of the head. Hemorrhage on the right.",
    "Frontal X-ray of the chest. Pneumonia.",
    "Ultrasound of the breast.",
]


def test_worked_by_hand() -> None:
    found = facts.clinical(REFERENCES, CAPTIONS)
    assert found["finding"].tp.tolist() == [1, 0, 0]
    assert found["finding"].fp.tolist() == [0, 1, 0]
    assert found["finding"].fn.tolist() == [0, 0, 2]
    assert found["side"].contradicted.tolist() == [1, 0, 0]
    assert (found["finding"].precision, found["finding"].recall) == (1 / 2, 1 / 3)
    assert found["finding"].f1 == pytest.approx(2 / 5)
    assert found["modality"].f1 == found["part"].f1 == 1.0
    # Said: 3 modalities, 1 plane, 1 view, 3 parts, 1 side, 2 findings; wrong: the side and the pneumonia, both contradicted.
    assert found.hallucination_rate == pytest.approx(2 / 11)
    assert found.contradiction_rate == pytest.approx(2 / 11)
    assert found.unsupported_rate == pytest.approx(0)
    # True: the same 8 of modality, plane, view and part, 1 side, 1 denial, 3 findings; left out: side, denial, benign, mass.
    assert found.omission_rate == pytest.approx(4 / 13)


def test_cases_add_up_and_their_order_does_not_matter() -> None:
    whole = facts.clinical(REFERENCES, CAPTIONS).table
    single = [facts.clinical([r], [c]).table for r, c in zip(REFERENCES, CAPTIONS, strict=True)]
    assert np.array_equal(whole, np.concatenate(single))
    turned = facts.clinical(REFERENCES[::-1], CAPTIONS[::-1]).table
    assert np.array_equal(whole[::-1], turned)


def test_a_perfect_and_an_empty_caption() -> None:
    perfect = facts.clinical(REFERENCES, REFERENCES)
    assert (perfect.all.f1, perfect.hallucination_rate, perfect.omission_rate) == (1.0, 0.0, 0.0)
    empty = facts.clinical(REFERENCES, ["", "", ""])
    assert empty.omission_rate == 1.0
    assert math.isnan(empty.hallucination_rate)
    assert math.isnan(facts.clinical([], []).all.f1)


def test_known_facts_instead_of_references() -> None:
    known = [{"modality": "X-ray", "part": "chest", "label": label} for label in ("pneumonia", "no findings")]
    found = facts.clinical(None, ["X-ray of the chest. Pneumonia and effusion."] * 2, facts=known)
    assert found["finding"].tp.tolist() == [1, 0]
    assert found["finding"].contradicted.tolist() == [0, 2]
    with pytest.raises(ValueError, match="one of them"):
        facts.clinical(["a"], ["a"], facts=[{}])
    with pytest.raises(ValueError):
        facts.clinical(["a", "b"], ["a"])


def test_scores_are_those_of_any_resample() -> None:
    scores = facts.score([[r] for r in REFERENCES], CAPTIONS)
    assert list(scores) == [metric.name for metric in facts.METRICS]
    found = facts.clinical(REFERENCES, CAPTIONS)
    assert scores["facts F1"].corpus == pytest.approx(found.all.f1)
    assert scores["finding F1"].corpus == pytest.approx(found["finding"].f1)
    assert scores["hallucination"].corpus == pytest.approx(found.hallucination_rate)
    assert scores["contradiction"].corpus == pytest.approx(found.contradiction_rate)
    assert scores["omission"].corpus == pytest.approx(found.omission_rate)
    draw = [0, 0, 2]
    again = facts.score([[REFERENCES[i]] for i in draw], [CAPTIONS[i] for i in draw])
    for name, value in scores.items():
        assert value.counts is not None and value.formula is not None
        resampled = float(value.formula(value.counts[draw].sum(axis=0)))
        assert resampled == pytest.approx(again[name].corpus, nan_ok=True)
        assert value.per_case.shape == (3,)


def test_names_and_directions() -> None:
    better = {metric.name: metric.higher_is_better for metric in facts.METRICS}
    assert [name for name, up in better.items() if not up] == ["hallucination", "contradiction", "omission"]
    assert all(metric.definition and metric.source and metric.misleads for metric in facts.METRICS)
    with pytest.raises(KeyError):
        facts.score([["a"]], ["a"], metrics=["colour F1"])


def test_negation_is_seen_where_words_overlap() -> None:
    against = facts.clinical(["Pleural effusion."], ["No pleural effusion."])
    assert against["finding"].f1 == 0.0
    assert against.contradiction_rate > 0


def test_the_summary_names_every_kind() -> None:
    summary = facts.clinical(REFERENCES, CAPTIONS).summary()
    assert set(summary) == {*facts.KINDS, "all"}
    assert summary["finding"]["said"] == 2
    assert summary["finding"]["true"] == 3
