"""Who sees what: letters are balanced, drawn by the seed alone, and repeats come late and under other letters."""

from __future__ import annotations

from collections import Counter

import pytest

from msmedcap.demo.review.design import plan


def counts(slots, systems):
    """How often each system stands under each letter."""
    return Counter((slot.order[letter], letter) for slot in slots for letter in range(systems))


@pytest.mark.parametrize("systems", [2, 3, 4, 5])
@pytest.mark.parametrize("cases", [1, 5, 12, 31])
def test_every_system_stands_under_every_letter_equally_often(systems, cases):
    for reader in range(4):
        slots = plan(cases, systems, reader=reader, seed=3, repeats=0)
        found = counts(slots, systems)
        times = [found[system, letter] for system in range(systems) for letter in range(systems)]
        assert max(times) - min(times) <= 1 and sum(times) == cases * systems
        assert all(sorted(slot.order) == list(range(systems)) for slot in slots)


@pytest.mark.parametrize("systems", [2, 3, 4])
def test_so_it_is_over_the_readers_of_a_case(systems):
    readers = [plan(10, systems, reader=reader, seed=5, repeats=0) for reader in range(systems)]
    for case in range(10):
        of_case = [slot for slots in readers for slot in slots if slot.case == case]
        assert set(counts(of_case, systems).values()) == {1}


def test_all_six_orders_of_three_occur():
    assert len({slot.order for slot in plan(30, 3, reader=0, seed=1, repeats=0)}) == 6


def test_every_reader_sees_every_case_once_and_some_twice():
    for reader in range(5):
        slots = plan(30, 3, reader=reader, seed=8, repeats=0.1)
        assert [slot.place for slot in slots] == list(range(33))
        first, again = [s for s in slots if s.repeats is None], [s for s in slots if s.repeats is not None]
        assert sorted(slot.case for slot in first) == list(range(30)) and len(again) == 3
        for slot in again:
            before = slots[slot.repeats]
            assert before.case == slot.case and before.order != slot.order
            assert slot.place - before.place >= 10


def test_readers_have_orders_of_their_own():
    a, b = (plan(30, 3, reader=reader, seed=8) for reader in (0, 1))
    assert [slot.case for slot in a] != [slot.case for slot in b]
    assert {s.case for s in a if s.repeats is not None} != {s.case for s in b if s.repeats is not None}


def test_the_seed_says_it_all():
    assert plan(20, 3, reader=1, seed=4, second_stage=True) == plan(20, 3, reader=1, seed=4, second_stage=True)
    a, b = (plan(20, 3, reader=1, seed=seed) for seed in (4, 5))
    orders = [{slot.case: slot.order for slot in slots if slot.repeats is None} for slots in (a, b)]
    assert sum(orders[0][case] == orders[1][case] for case in range(20)) < 12


def test_the_order_of_one_case_does_not_tell_that_of_the_next():
    """Whoever sees through one case is no better off at the next: all orders follow each other about equally often."""
    follow: Counter = Counter()
    for seed in range(60):
        slots = plan(60, 3, reader=0, seed=seed, repeats=0)
        follow.update((a.order.index(0), b.order.index(0)) for a, b in zip(slots, slots[1:], strict=False))
    assert (
        min(follow.values()) > 0.8 * sum(follow.values()) / 9 and max(follow.values()) < 1.2 * sum(follow.values()) / 9
    )


def test_the_second_stage_shows_all_cases_again_under_new_letters():
    slots = plan(12, 3, reader=0, seed=2, second_stage=True)
    first = {slot.case: slot.order for slot in slots if slot.stage == 1 and slot.repeats is None}
    second = [slot for slot in slots if slot.stage == 2]
    assert sorted(slot.case for slot in second) == list(range(12)) and second == slots[-12:]
    assert any(first[slot.case] != slot.order for slot in second)
    times = counts(second, 3).values()
    assert max(times) - min(times) <= 1


def test_few_cases_have_no_repeats():
    assert len(plan(5, 3, reader=0, seed=1, repeats=0.3)) == 5 and len(plan(6, 3, reader=0, seed=1, repeats=0.1)) == 7


@pytest.mark.parametrize(("cases", "systems"), [(0, 3), (4, 1), (4, 6)])
def test_what_is_no_study_is_refused(cases, systems):
    with pytest.raises(ValueError):
        plan(cases, systems, reader=0, seed=1)
