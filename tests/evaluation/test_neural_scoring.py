"""Many pairs through a scorer: each once, resumable, order and batch change nothing, an estimate from measured batches."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from msmedcap.config import UserError
from msmedcap.evaluation.foresight import duration
from msmedcap.evaluation.neural import scoring
from msmedcap.evaluation.neural.scoring import run
from msmedcap.evaluation.neural.store import Pair, Store, Value


class Lengths:
    """Scores a pair by its lengths and remembers what it was asked."""

    name, key = "Lengths", "lengths 1"

    def __init__(self, *, fails_after: int = 10**9, fits: int = 10**9) -> None:
        self.batches: list[list[Pair]] = []
        self.fails_after, self.fits = fails_after, fits

    def __call__(self, pairs: Sequence[Pair]) -> list[Value]:
        if len(self.batches) >= self.fails_after:
            raise KeyboardInterrupt
        if len(pairs) > self.fits:
            raise torch.cuda.OutOfMemoryError
        self.batches.append(list(pairs))
        return [Value((len(r) / 7, len(c) / 3), cut=len(r) > 9) for r, c in pairs]


PAIRS = [("a" * (i % 11 + 1), "b" * (i * 5 % 13)) for i in range(60)]
EXPECTED = np.array([(len(r) / 7, len(c) / 3) for r, c in PAIRS])


def test_each_distinct_pair_once_longest_first() -> None:
    scorer = Lengths()
    done = run(scorer, PAIRS * 3, store=Store(None), batch=8, progress=False)
    asked = [pair for batch in scorer.batches for pair in batch]
    assert sorted(asked) == sorted(set(PAIRS)) and done.computed == len(set(PAIRS))
    assert np.array_equal(done.numbers, np.tile(EXPECTED, (3, 1)))
    assert scorer.batches[0] == sorted(set(PAIRS), key=lambda p: (len(p[0] + p[1]), p), reverse=True)[:8]


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_order_and_batch_change_nothing(batch: int) -> None:
    order = np.random.default_rng(0).permutation(len(PAIRS))
    done = run(Lengths(), [PAIRS[i] for i in order], store=Store(None), batch=batch, progress=False)
    assert np.array_equal(done.numbers, EXPECTED[order])


def test_a_cut_off_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "scores.sqlite"
    with pytest.raises(KeyboardInterrupt):
        run(Lengths(fails_after=4), PAIRS, store=Store(file), batch=8, progress=False)
    second = Lengths()
    done = run(second, PAIRS, store=Store(file), batch=8, progress=False)
    assert sum(map(len, second.batches)) == done.computed == len(set(PAIRS)) - 4 * 8
    assert np.array_equal(done.numbers, EXPECTED)
    third = Lengths()
    assert run(third, PAIRS, store=Store(file), batch=8, progress=False).cut == done.cut
    assert not third.batches


def test_another_key_shares_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "scores.sqlite")
    run(Lengths(), PAIRS, store=store, batch=8, progress=False)
    other = Lengths()
    other.key = "lengths 2"
    assert run(other, PAIRS, store=store, batch=8, progress=False).computed == len(set(PAIRS))


def test_reference_and_candidate_are_not_confused(tmp_path: Path) -> None:
    store = Store(tmp_path / "scores.sqlite")
    run(Lengths(), [("aa", "b")], store=store, batch=8, progress=False)
    assert run(Lengths(), [("b", "aa")], store=store, batch=8, progress=False).numbers.tolist() == [[1 / 7, 2 / 3]]
    assert run(Lengths(), [("a", "ab")], store=store, batch=8, progress=False).computed == 1


def test_many_kept_values_are_found(tmp_path: Path) -> None:
    store = Store(tmp_path / "scores.sqlite")
    pairs = [(str(i), "x") for i in range(1203)]
    store.put("k", {pair: Value((float(i),), cut=i % 2 == 0) for i, pair in enumerate(pairs)})
    assert store.get("k", pairs) == {pair: Value((float(i),), cut=i % 2 == 0) for i, pair in enumerate(pairs)}


def test_half_a_batch_is_never_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "scores.sqlite")

    batch = {("a", "b"): Value((1.0,), cut=False), ("a", "c"): Value((2.0,), cut=object())}  # type: ignore[arg-type]
    with pytest.raises(UserError):
        store.put("k", batch)
    assert Store(tmp_path / "scores.sqlite").get("k", list(batch)) == {}


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scores").write_text("x" * 5000)
    with pytest.raises(UserError, match="delete the file or name another"):
        Store(tmp_path / "scores")


def test_two_processes_may_write(tmp_path: Path) -> None:
    one, two = Store(tmp_path / "s"), Store(tmp_path / "s")
    one.put("k", {("a", "b"): Value((1.0,), cut=False)})
    two.put("k", {("a", "c"): Value((2.0,), cut=True)})
    assert set(one.get("k", [("a", "b"), ("a", "c")])) == {("a", "b"), ("a", "c")}
    with sqlite3.connect(tmp_path / "s") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_memory_that_does_not_suffice_halves_the_batch() -> None:
    scorer = Lengths(fits=3)
    done = run(scorer, PAIRS, store=Store(None), batch=32, progress=False)
    assert np.array_equal(done.numbers, EXPECTED) and max(map(len, scorer.batches)) <= 3
    with pytest.raises(UserError, match="choose the device cpu"):
        run(Lengths(fits=0), PAIRS, store=Store(None), batch=32, progress=False)


def test_a_number_that_is_not_finite_is_an_error_and_not_kept(tmp_path: Path) -> None:
    class Broken(Lengths):
        def __call__(self, pairs: Sequence[Pair]) -> list[Value]:
            return [Value((float("nan"),), cut=False) for _ in pairs]

    store = Store(tmp_path / "s")
    with pytest.raises(UserError, match="choose the number type float32 or bfloat16"):
        run(Broken(), PAIRS, store=store, batch=8, progress=False)
    assert store.get(Broken.key, PAIRS) == {}


def test_cut_and_empty_texts_are_counted() -> None:
    pairs = [("a" * 12, "b"), ("a", " "), ("", "b"), ("a", "b"), ("a" * 12, "b")]
    done = run(Lengths(), pairs, store=Store(None), batch=2, progress=False)
    assert (done.cut, done.empty) == (2, 2)


def test_the_estimate_comes_from_measured_batches(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(scoring.time, "perf_counter", lambda: now[0])
    ran: list[float] = []

    class Slow(Lengths):
        """Takes a second per 10 padded characters, and 100 seconds more the first time."""

        def __call__(self, pairs: Sequence[Pair]) -> list[Value]:
            took = len(pairs) * max(len(r) + len(c) + 2 for r, c in pairs) / 10 + (0 if ran else 100)
            now[0] += took
            ran.append(took)
            return super().__call__(pairs)

    saved: list[int] = []

    class Watched(Store):
        def put(self, key: str, values: Mapping[Pair, Value]) -> None:
            saved.append(len(values))
            super().put(key, values)

    pairs = [("a" * (1 + i // 4), "b" * (i % 7)) for i in range(400)]
    with caplog.at_level(logging.INFO):
        run(Slow(), pairs, store=Watched(None), batch=10, progress=False)
    assert sum(saved) == 400 and max(saved) == 10  # each of these batches takes longer than may be lost
    (told,) = [record.getMessage() for record in caplog.records if "to go" in record.getMessage()]
    left = sum(ran[1 + scoring.PROBES :])
    assert told == (
        f"Lengths: 400 pairs to compute (0 were kept); measured 5 of 40 batches: about {duration(left)} to go."
    )


def test_a_short_run_says_nothing_of_its_length(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run(Lengths(), PAIRS, store=Store(None), batch=2, progress=False)
    assert not [record for record in caplog.records if "to go" in record.getMessage()]


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(UserError, match="at least 1"):
        run(Lengths(), PAIRS, store=Store(None), batch=0, progress=False)
