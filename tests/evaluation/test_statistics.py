"""Intervals cover the truth as often as they say, groups make them wider, and equal systems do not differ."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from msmedcap.evaluation import statistics
from msmedcap.evaluation.statistics import bootstrap, holm, paired


def patients(cases: int, each: int) -> list[str]:
    return [f"p{i // each}" for i in range(cases)]


def test_the_value_is_the_mean_and_lies_in_its_interval() -> None:
    found = bootstrap(np.array([0.0, 1.0, 1.0, 1.0]), ["a", "a", "b", "c"])
    assert found.value == 0.75
    assert 0.0 <= found.low < found.value < found.high <= 1.0


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    truth, held = 0.3, 0
    for trial in range(200):
        sick = np.repeat(generator.normal(truth, 0.2, 60), 4) + generator.normal(0, 0.1, 240)
        found = bootstrap(sick, patients(240, 4), draws=400, seed=trial)
        held += found.low <= truth <= found.high
    assert 178 <= held <= 199  # 95 % of 200, within three standard deviations and the bootstrap's own shortness


def test_cases_of_one_patient_make_the_interval_wider() -> None:
    generator = np.random.default_rng(2)
    alike = np.repeat(generator.normal(0, 1, 50), 8)
    by_case, by_patient = bootstrap(alike), bootstrap(alike, patients(400, 8))
    ratio = (by_patient.high - by_patient.low) / (by_case.high - by_case.low)
    assert math.sqrt(8) * 0.8 < ratio < math.sqrt(8) * 1.2


def test_undefined_cases_do_not_count() -> None:
    found = bootstrap(np.array([1.0, np.nan, 0.0, np.nan]), draws=200)
    assert found.value == 0.5 and found.low >= 0.0
    nothing = bootstrap(np.array([np.nan, np.nan]))
    assert math.isnan(nothing.value) and math.isnan(nothing.low)


def test_a_score_that_is_no_mean_is_computed_from_the_sums_of_each_resample() -> None:
    counts = np.array([[3.0, 4.0], [0.0, 9.0], [5.0, 5.0], [1.0, 2.0]])

    def share(sums: np.ndarray) -> np.ndarray:
        return sums[..., 0] / sums[..., 1]

    found = bootstrap(counts, statistic=share, draws=300, seed=7)
    drawn = np.random.default_rng(7).integers(0, 4, (300, 4))
    by_hand = [counts[rows, 0].sum() / counts[rows, 1].sum() for rows in drawn]
    assert found.value == 9 / 20
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(by_hand, [2.5, 97.5])))


def test_seeds_are_fixed() -> None:
    scores = np.random.default_rng(0).random(40)
    assert bootstrap(scores) == bootstrap(scores)
    assert bootstrap(scores, seed=1) != bootstrap(scores, seed=2)


def test_a_system_does_not_differ_from_itself() -> None:
    scores = np.random.default_rng(0).random(40)
    found = paired(scores, scores, patients(40, 2))
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_a_clear_difference_has_the_smallest_p_and_no_zero_in_its_interval() -> None:
    generator = np.random.default_rng(0)
    worse = generator.random(60)
    found = paired(worse + 0.2 + generator.normal(0, 0.05, 60), worse, patients(60, 2), swaps=999)
    assert found.p == 1 / 1000
    assert 0.15 < found.low < found.value < found.high < 0.25
    back = paired(worse, worse + 0.2, swaps=999)
    assert back.value == pytest.approx(-0.2) and back.p == 1 / 1000


def test_p_is_the_share_of_exchanges_at_least_as_far_apart() -> None:
    # Three cases, all won: of the 8 exchanges two (none, all) are as far apart, so p is close to 1/4.
    found = paired(np.ones(3), np.zeros(3), swaps=4000)
    assert found.p == pytest.approx(0.25, abs=0.03)


def test_p_is_even_where_nothing_differs() -> None:
    generator = np.random.default_rng(9)
    p = [paired(generator.normal(size=40), generator.normal(size=40), draws=10, swaps=199).p for _ in range(300)]
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.09
    assert 0.42 < np.mean(p) < 0.58


def test_patients_are_exchanged_whole() -> None:
    # Ten pictures of one patient are one exchange: they prove nothing, ten patients do.
    won, lost = np.ones(10), np.zeros(10)
    assert paired(won, lost, ["p"] * 10).p == 1.0
    assert paired(won, lost).p < 0.01


def test_scores_of_other_cases_are_refused() -> None:
    with pytest.raises(ValueError, match="not scores of the same cases"):
        paired(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="2 groups for 3 cases"):
        bootstrap(np.ones(3), ["a", "b"])


def test_holm_corrects_as_worked_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    corrected = holm([0.02, math.nan])
    assert corrected[0] == 0.02 and math.isnan(corrected[1])


def test_draws_are_made_in_parts_with_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.random.default_rng(0).random((33, 2))
    whole = statistics.resample(sums, draws=50)
    monkeypatch.setattr(statistics, "_AT_ONCE", 33 * 7)
    assert np.allclose(statistics.resample(sums, draws=50), whole)
    assert statistics.random_halves(sums, draws=50).shape == (50, 2)


@pytest.mark.slow
def test_fifty_thousand_cases_are_drawn_a_thousand_times_in_seconds() -> None:
    scores = np.random.default_rng(0).random(50_000)
    start = time.perf_counter()
    found = bootstrap(scores, patients(50_000, 2))
    assert time.perf_counter() - start < 60  # about two where nothing else runs
    assert found.high - found.low == pytest.approx(2 * 1.96 * scores.std() / math.sqrt(50_000), rel=0.1)
