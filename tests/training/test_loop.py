"""The loop: a run that was stopped ends where one that was never stopped does, and a run that cannot learn says why."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from msmedcap.config import LoopConfig, UserError
from msmedcap.training.course import pace
from msmedcap.training.diagnostics import TrainingFailed
from msmedcap.training.loop import fit
from msmedcap.training.run_folder import Sample
from tests.training.toy import Plain, Toy, batch_of, part_of, rows_of

CONFIG = LoopConfig(steps=12, lr=1e-2, warmup=3, precision="no", save_every=4, ema=0.9, seed=3)


class Stopped(Exception):
    """The power goes out."""


def doing(what: Callable[[], Any], step: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    """:func:`batch_of`, but ``what`` happens in place of, or before, the batch of ``step``."""

    def batch(k: int) -> tuple[Tensor, Tensor]:
        if k == step:
            what()
        return batch_of(k)

    return batch


def stop() -> None:
    raise Stopped


def trained(folder: Path, config: LoopConfig = CONFIG, *, stops: tuple[int, ...] = (), **options: Any) -> Toy:
    for step in stops:
        with pytest.raises(Stopped):
            fit(Toy(), doing(stop, step), config, folder, name="toy", **options)
        torch.rand(7)  # another process would begin with other random numbers
    task = Toy()
    fit(task, batch_of, config, folder, name="toy", **options)
    return task


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for (key, x), (_, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert torch.equal(x, y), key


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("stops", [(2,), (4,), (7,), (5, 6, 11)])
def test_resumed_training_equals_training_never_stopped(tmp_path: Path, ema: float, stops: tuple[int, ...]) -> None:
    config = dataclasses.replace(CONFIG, ema=ema)
    assert_same(trained(tmp_path / "stopped", config, stops=stops), trained(tmp_path / "whole", config))
    assert rows_of(tmp_path / "stopped") == rows_of(tmp_path / "whole")


def test_the_toy_would_notice_random_numbers_that_do_not_go_on(tmp_path: Path) -> None:
    a, b = trained(tmp_path / "a"), trained(tmp_path / "b", dataclasses.replace(CONFIG, seed=4))
    assert not torch.equal(a.body[0].weight, b.body[0].weight)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = trained(tmp_path)
    again = Toy()
    fit(again, doing(stop, 0), CONFIG, tmp_path, name="toy")
    assert_same(first, again)


def test_the_last_states_are_kept_and_what_a_killed_save_left_is_swept(tmp_path: Path) -> None:
    left = tmp_path / "states" / "step-00000099.new"
    left.mkdir(parents=True)
    trained(tmp_path, dataclasses.replace(CONFIG, save_every=2, keep=3))
    assert sorted(p.name for p in (tmp_path / "states").iterdir()) == ["step-00000008", "step-00000010", "step-00000012"]


def test_a_broken_state_is_named_and_without_it_the_one_before_serves(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        fit(Toy(), doing(stop, 9), CONFIG, tmp_path / "cut", name="toy")
    broken = tmp_path / "cut" / "states" / "step-00000008"
    (broken / "state.pt").write_bytes(b"half")
    with pytest.raises(UserError, match=r"step-00000008.state\.pt cannot be read; delete its folder"):
        fit(Toy(), batch_of, CONFIG, tmp_path / "cut", name="toy")
    for file in broken.iterdir():
        file.unlink()
    broken.rmdir()
    assert_same(trained(tmp_path / "cut"), trained(tmp_path / "whole"))
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")


def test_a_state_that_holds_an_object_is_not_read(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    trained(tmp_path)
    for file in ("state.pt", "random-0.pt"):
        path = tmp_path / "states" / "step-00000012" / file
        good = path.read_bytes()
        torch.save({"model": Trap()}, path)
        with pytest.raises(UserError, match="cannot be read"):
            fit(Toy(), batch_of, CONFIG, tmp_path, name="toy")
        path.write_bytes(good)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["state", "state.old"])
def test_what_an_older_version_saved_is_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=rf"{name} was saved by an older version; .* delete it to train from the start\."):
        fit(Toy(), batch_of, CONFIG, tmp_path, name="toy")


def test_other_settings_are_refused_but_not_those_that_change_nothing(tmp_path: Path) -> None:
    trained(tmp_path)
    with pytest.raises(UserError, match=r"holds a run with steps=12, lr=0\.01; give"):
        trained(tmp_path, dataclasses.replace(CONFIG, lr=1e-3, steps=20))
    trained(tmp_path, dataclasses.replace(CONFIG, save_every=5, keep=1))


def test_the_average_is_what_remains(tmp_path: Path) -> None:
    averaged = trained(tmp_path / "a")
    plain = trained(tmp_path / "b", dataclasses.replace(CONFIG, ema=0.0))
    assert not torch.equal(averaged.body[0].weight, plain.body[0].weight)
    assert averaged.body[1].num_batches_tracked == plain.body[1].num_batches_tracked == CONFIG.steps


def test_training_learns_and_logs_every_step(tmp_path: Path) -> None:
    config = LoopConfig(steps=60, lr=2e-2, warmup=3, precision="no", weight_decay=0.0)
    weights = fit(task := Toy(), batch_of, config, tmp_path, name="toy")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(60))
    assert all({"loss", "size", "seconds", "lr", "grad"} <= row.keys() and row["samples"] == 16 for row in rows)
    assert sum(r["loss"] for r in rows[-10:]) < 0.5 * sum(r["loss"] for r in rows[:10])
    assert weights.keys() == task.state_dict().keys() and all(torch.equal(weights[k], v) for k, v in task.state_dict().items())


def test_the_task_is_left_as_it_came(tmp_path: Path) -> None:
    # In bf16 accelerate wraps forward; what is left must compute in full precision again.
    task = Plain()
    fit(task, part_of(1), LoopConfig(steps=2, lr=1e-2, precision="bf16"), tmp_path, name="plain")
    x, y, _ = part_of(1)(0)
    said = task((x, y, 0))["loss"]
    assert torch.equal(said, (task.body(x)[:, 0] - y).square().mean())


def test_micro_batches_make_the_step_of_their_whole(tmp_path: Path) -> None:
    tasks = []
    for accumulate in (1, 4):
        config = LoopConfig(steps=6, lr=1e-2, warmup=2, precision="no", accumulate=accumulate)
        fit(task := Plain(), part_of(accumulate), config, tmp_path / str(accumulate), name="plain")
        tasks.append(task)
    for (key, x), (_, y) in zip(*(t.state_dict().items() for t in tasks), strict=True):
        torch.testing.assert_close(x, y, atol=2e-6, rtol=1e-5, msg=key)
    for a, b in zip(rows_of(tmp_path / "1"), rows_of(tmp_path / "4"), strict=True):
        assert b == pytest.approx(a, rel=1e-4)


def test_the_learning_rate_warms_up_and_falls_once_in_every_cycle() -> None:
    config = LoopConfig(steps=23, lr=1.0, min_lr=0.1, warmup=2, cycles=3)
    rates = [pace(step, config) for step in range(23)]
    alone = [pace(step, LoopConfig(steps=7, lr=1.0, min_lr=0.1, warmup=2)) for step in range(7)]
    last = [pace(step, LoopConfig(steps=9, lr=1.0, min_lr=0.1, warmup=2)) for step in range(9)]
    assert rates == [*alone, *alone, *last]
    assert alone[:3] == [0.5, 1.0, 1.0] and sorted(alone[2:], reverse=True) == alone[2:] and alone[-1] < 0.3


def test_the_logged_learning_rate_is_the_one_used(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, cycles=2, ema=0.0)
    trained(tmp_path, config, stops=(5,))
    assert [row["lr"] for row in rows_of(tmp_path)] == [config.lr * pace(step, config) for step in range(12)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run_and_is_not_saved(tmp_path: Path, value: float) -> None:
    def batch(step: int) -> tuple[Tensor, Tensor]:
        x, y = batch_of(step)
        return x, torch.full_like(y, value) if step == 6 else y

    with pytest.raises(TrainingFailed, match=r"toy, step 6: the loss is (nan|inf); lower the learning rate\."):
        fit(Toy(), batch, CONFIG, tmp_path, name="toy")
    assert [p.name for p in (tmp_path / "states").iterdir()] == ["step-00000004"]
    assert trained(tmp_path)  # mended, the run goes on from there


def test_a_gradient_that_is_no_number_is_named(tmp_path: Path) -> None:
    class Cusp(Plain):
        def forward(self, batch: Any) -> dict[str, Tensor]:
            # The root's slope at zero is infinite, its value is not.
            return {"loss": super().forward(batch)["loss"] + (0 * self.sometimes.bias).sqrt().sum()}

    with pytest.raises(TrainingFailed, match=r"plain, step 0: the gradient of sometimes\.bias is not finite"):
        fit(Cusp(), part_of(1), CONFIG, tmp_path, name="plain")


@pytest.mark.parametrize(
    ("measure", "sentence"),
    [("query_spread", "the queries are dead"), ("itc_spread", "the contrast has collapsed")],
)
def test_a_measure_at_zero_stops_the_run_once_it_is_warm(tmp_path: Path, measure: str, sentence: str) -> None:
    class Dead(Plain):
        def forward(self, batch: Any) -> dict[str, Tensor]:
            return {**super().forward(batch), measure: torch.tensor(0.0)}

    with pytest.raises(TrainingFailed, match=f"plain, step 3: {sentence}"):
        fit(Dead(), part_of(1), CONFIG, tmp_path, name="plain")


def test_a_loss_that_does_not_fall_stops_the_run_also_after_it_was_resumed(tmp_path: Path) -> None:
    config = LoopConfig(steps=40, lr=1e-9, min_lr=0.0, precision="no", save_every=4, patience=20)
    with pytest.raises(Stopped):
        fit(Toy(), doing(stop, 10), config, tmp_path / "cut", name="toy")
    with pytest.raises(TrainingFailed, match="toy, step 19: the loss has not fallen over 20 steps") as resumed:
        fit(Toy(), batch_of, config, tmp_path / "cut", name="toy")
    with pytest.raises(TrainingFailed) as whole:
        fit(Toy(), batch_of, config, tmp_path / "whole", name="toy")
    assert str(resumed.value) == str(whole.value)


def test_what_is_frozen_gets_no_step(tmp_path: Path) -> None:
    task = Toy()
    task.body[0].requires_grad_(False)
    before = task.body[0].weight.clone()
    fit(task, batch_of, LoopConfig(steps=3, lr=1e-2, precision="no", weight_decay=0.5), tmp_path, name="toy")
    assert torch.equal(task.body[0].weight, before)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_stop_that_is_asked_for_saves_and_says_how_to_go_on(
    tmp_path: Path, number: int, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    before = signal.getsignal(number)
    with caplog.at_level(logging.WARNING), pytest.raises(error):
        fit(Toy(), doing(lambda: signal.raise_signal(number), 5), CONFIG, tmp_path / "cut", name="toy")
    assert "toy: stopped and saved after 6 of 12 steps; run it again to go on." in caplog.messages
    assert signal.getsignal(number) is before
    assert (tmp_path / "cut" / "states" / "step-00000006").is_dir()
    assert_same(trained(tmp_path / "cut"), trained(tmp_path / "whole"))
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")


def test_a_second_ctrl_c_does_not_wait_for_the_step(tmp_path: Path) -> None:
    def twice() -> None:
        # Raised in this thread: two that another thread is handed may melt into one.
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the step went on")

    with pytest.raises(KeyboardInterrupt):
        fit(Toy(), doing(twice, 5), CONFIG, tmp_path, name="toy")
    assert not (tmp_path / "states" / "step-00000006").exists()


def test_samples_are_drawn_at_every_save_and_change_nothing(tmp_path: Path) -> None:
    seen = []
    task = Toy()

    def samples() -> list[Sample]:
        seen.append(task.training)
        torch.rand(3), np.random.rand(3)
        return [Sample(np.zeros((4, 6, 3), np.uint8), "a scan", "a CT")]

    pytest.importorskip("tensorboard", reason="the optional package tensorboard is not installed")
    fit(task, batch_of, CONFIG, tmp_path / "shown", name="toy", samples=samples)
    assert seen == [False, False, False]
    assert_same(task, trained(tmp_path / "plain"))


def test_two_stages_of_one_process_may_differ_in_precision_and_accumulation(tmp_path: Path) -> None:
    for precision, accumulate in (("bf16", 2), ("no", 1)):
        config = LoopConfig(steps=2, lr=1e-2, precision=precision, accumulate=accumulate)
        fit(Plain(), part_of(accumulate), config, tmp_path / precision, name="plain")
    alone = Plain()
    fit(alone, part_of(1), LoopConfig(steps=2, lr=1e-2, precision="no"), tmp_path / "alone", name="plain")
    assert rows_of(tmp_path / "no") == rows_of(tmp_path / "alone")
