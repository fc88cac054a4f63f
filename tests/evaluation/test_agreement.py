"""Preference strengths and reader agreement: against worked examples of the literature and against the libraries kept for them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from msmedcap.evaluation.agreement import (
    bradley_terry,
    fleiss_kappa,
    krippendorff_alpha,
    raw_agreement,
    weighted_kappa,
)

_ = math.nan
# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section C to E: four observers, twelve units.
OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
        [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
    ]
).T
# Fleiss (1971), as in statsmodels' documentation: ten subjects, fourteen raters, five categories; kappa 0.210.
SUBJECTS = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip


def made_ratings(seed: int, units: int = 60, readers: int = 3, missing: float = 0.15) -> np.ndarray:
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 5, (units, 1))
    ratings = np.clip(truth + draw.integers(-1, 2, (units, readers)), 0, 4).astype(float)
    ratings[draw.random(ratings.shape) < missing] = math.nan
    return ratings


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_the_paper(level, alpha):
    found = krippendorff_alpha(OBSERVERS - 1, 5, level=level)
    assert found.value == pytest.approx(alpha, abs=5e-4)
    assert found.low < found.value < found.high <= 1


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
@pytest.mark.parametrize("seed", range(3))
def test_alpha_is_that_of_the_library(level, seed):
    library = pytest.importorskip("krippendorff", reason="alpha is compared with the krippendorff package")
    ratings = made_ratings(seed)
    expected = library.alpha(ratings.T, level_of_measurement=level, value_domain=list(range(5)))
    assert krippendorff_alpha(ratings, 5, level=level).value == pytest.approx(expected, abs=1e-12)


def test_fleiss_kappa_is_that_of_the_paper():
    ratings = np.array([[c for c, n in enumerate(row) for i in range(n)] for row in SUBJECTS], float)
    assert fleiss_kappa(ratings, 5).value == pytest.approx(0.210, abs=5e-4)


@pytest.mark.parametrize(("weights", "name"), [("none", None), ("linear", "linear"), ("quadratic", "quadratic")])
def test_cohens_kappa_is_that_of_the_library(weights, name):
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater", reason="kappa is compared with statsmodels")
    a, b = made_ratings(5, readers=2, missing=0).T
    table = np.zeros((5, 5))
    np.add.at(table, (a.astype(int), b.astype(int)), 1)
    expected = inter_rater.cohens_kappa(table, wt=name).kappa
    assert weighted_kappa(a, b, 5, weights=weights).value == pytest.approx(expected, abs=1e-12)


def test_a_case_that_one_reader_did_not_judge_does_not_count_for_kappa():
    a, b = made_ratings(5, readers=2, missing=0).T
    more_a, more_b = np.append(a, [0, _]), np.append(b, [_, 4])
    assert weighted_kappa(more_a, more_b, 5).value == weighted_kappa(a, b, 5).value


def test_bradley_terry_is_that_of_the_library():
    choix = pytest.importorskip("choix", reason="strengths are compared with choix")
    draw = np.random.default_rng(1)
    wins = np.zeros((80, 3, 3))
    for each in wins:
        best = draw.choice(3, p=[0.5, 0.3, 0.2])
        each[best] = 1
        each[best, best] = 0
    prior = 0.1
    total = wins.sum(0) + prior / 2 * (1 - np.eye(3))
    expected = choix.ilsr_pairwise_dense(total)
    found = bradley_terry(wins, prior=prior)
    assert [each.value for each in found.log] == pytest.approx(list(expected - expected.mean()), abs=1e-6)


def test_the_strengths_of_two_systems_are_their_odds():
    wins = np.zeros((40, 2, 2))
    wins[:30, 0, 1] = 1
    wins[30:, 1, 0] = 1
    found = bradley_terry(wins, prior=0)
    assert found.log[0].value == pytest.approx(math.log(3) / 2)
    assert found.beats[0][1].value == pytest.approx(0.75) and found.beats[1][0].value == pytest.approx(0.25)
    assert found.beats[0][1].low < 0.75 < found.beats[0][1].high


def test_a_system_that_never_won_still_has_a_strength():
    wins = np.zeros((10, 3, 3))
    wins[:, 0, 1:] = 1
    found = bradley_terry(wins)
    assert all(math.isfinite(each.value) for each in found.log)
    assert found.log[0].value > found.log[1].value and found.beats[0][1].value > 0.9


def test_only_ties_leave_all_level():
    wins = np.full((10, 3, 3), 0.5) * (1 - np.eye(3))
    assert [each.value for each in bradley_terry(wins).log] == pytest.approx([0, 0, 0], abs=1e-9)


def test_intervals_are_wider_where_answers_of_one_case_are_alike():
    draw = np.random.default_rng(3)
    wins = np.zeros((60, 2, 2))
    cases = [str(i // 6) for i in range(60)]
    for case in range(10):
        winner = draw.integers(0, 2)
        wins[6 * case : 6 * case + 6, winner, 1 - winner] = 1
    by_case, by_answer = (bradley_terry(wins, groups).beats[0][1] for groups in (cases, None))
    assert by_case.high - by_case.low > 1.5 * (by_answer.high - by_answer.low)


def test_raw_agreement_counts_pairs():
    ratings = np.array([[1, 1, 1], [1, 2, _], [4, _, _], [0, 4, 3]])
    found = raw_agreement(ratings)
    assert (found.pairs, found.units) == (7, 3) and found.share.value == pytest.approx(3 / 7)
    assert raw_agreement(ratings, within=1).share.value == pytest.approx(5 / 7)


def test_readers_who_always_say_the_same_agree_but_have_no_kappa():
    ratings = np.ones((12, 2))
    assert raw_agreement(ratings).share.value == 1
    assert math.isnan(krippendorff_alpha(ratings, 5, level="ordinal").value)
    assert math.isnan(weighted_kappa(ratings[:, 0], ratings[:, 1], 5).value)


@pytest.mark.parametrize(
    "call",
    [
        lambda: krippendorff_alpha(OBSERVERS, 5, level="ratio"),
        lambda: weighted_kappa(np.zeros(2), np.zeros(2), 2, weights="cubic"),
        lambda: bradley_terry(np.zeros((3, 2))),
    ],
)
def test_what_makes_no_sense_is_refused(call):
    with pytest.raises(ValueError):
        call()
