"""The loop: a run that was stopped ends where one that was never stopped does, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from msmedcap.training.loop import LoopConfig, fit

CONFIG = LoopConfig(steps=12, lr=1e-2, warmup=3, precision="no", save_every=4, ema=0.9, seed=3)


class Toy(nn.Module):
    """Everything whose state a run must carry on: weights, dropout's random numbers, running statistics."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.GELU(), nn.Linear(8, 1))

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        x, y = batch
        error = (self.body(x)[:, 0] - y).square().mean()
        return {"loss": error, "size": self.body[0].weight.norm()}


def batch_of(step: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
    return x, x.sum(1)


class Stopped(Exception):
    """The power goes out."""


def stopping_at(last: int):  # type: ignore[no-untyped-def]
    def batch(step: int) -> tuple[Tensor, Tensor]:
        if step == last:
            raise Stopped
        return batch_of(step)

    return batch


def trained(folder: Path, config: LoopConfig = CONFIG, *, stops: tuple[int, ...] = ()) -> Toy:
    for stop in stops:
        with pytest.raises(Stopped):
            fit(Toy(), stopping_at(stop), config, folder, name="toy")
        torch.rand(7)  # another process would begin with other random numbers
    task = Toy()
    fit(task, batch_of, config, folder, name="toy")
    return task


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for (key, x), (_, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert torch.equal(x, y), key


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("stops", [(2,), (4,), (7,), (5, 6, 11)])
def test_resumed_training_equals_training_never_stopped(tmp_path: Path, ema: float, stops: tuple[int, ...]) -> None:
    config = LoopConfig(**{**CONFIG.__dict__, "ema": ema})
    assert_same(trained(tmp_path / "stopped", config, stops=stops), trained(tmp_path / "whole", config))


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = trained(tmp_path)
    again = Toy()
    fit(again, stopping_at(0), CONFIG, tmp_path, name="toy")
    assert_same(first, again)


def test_a_state_being_replaced_when_the_power_went_out_is_found(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        fit(Toy(), stopping_at(7), CONFIG, tmp_path / "cut", name="toy")
    state = tmp_path / "cut" / "state"
    state.rename(state.with_name("state.old"))  # between the two renames of a save
    seen: list[int] = []
    fit(task := Toy(), lambda step: seen.append(step) or batch_of(step), CONFIG, tmp_path / "cut", name="toy")
    assert seen[0] == 4
    assert_same(task, trained(tmp_path / "whole"))


def test_the_average_is_what_remains(tmp_path: Path) -> None:
    averaged = trained(tmp_path / "a")
    plain = trained(tmp_path / "b", LoopConfig(**{**CONFIG.__dict__, "ema": 0.0}))
    assert not torch.equal(averaged.body[0].weight, plain.body[0].weight)
    assert averaged.body[1].num_batches_tracked == plain.body[1].num_batches_tracked == CONFIG.steps


def test_training_learns_and_logs_every_step(tmp_path: Path) -> None:
    trained(tmp_path, LoopConfig(steps=60, lr=2e-2, warmup=3, precision="no", weight_decay=0.0))
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(60))
    assert all({"loss", "size", "seconds"} <= row.keys() for row in rows)
    assert sum(r["loss"] for r in rows[-10:]) < 0.5 * sum(r["loss"] for r in rows[:10])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run_and_is_not_saved(tmp_path: Path, value: float) -> None:
    def batch(step: int) -> tuple[Tensor, Tensor]:
        x, y = batch_of(step)
        return x, torch.full_like(y, value) if step == 6 else y

    with pytest.raises(FloatingPointError, match=r"toy: the loss is (nan|inf) at step 6; lower the learning rate"):
        fit(Toy(), batch, CONFIG, tmp_path, name="toy")
    assert json.loads((tmp_path / "state" / "step.json").read_text()) == {"step": 4}


def test_what_is_frozen_gets_no_step(tmp_path: Path) -> None:
    task = Toy()
    task.body[0].requires_grad_(False)
    before = task.body[0].weight.clone()
    fit(task, batch_of, LoopConfig(steps=3, lr=1e-2, precision="no", weight_decay=0.5), tmp_path, name="toy")
    assert torch.equal(task.body[0].weight, before)
