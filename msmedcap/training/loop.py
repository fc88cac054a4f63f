"""One loop for every task, from a laptop to a cluster, on ``accelerate``.

A task is a module that turns a batch into named losses; batches come from a function of their number, so that a run that was
stopped sees the same pictures when it goes on. Comes in: task, batches, :class:`~msmedcap.config.LoopConfig`, a folder. Goes out:
the trained task (its averaged weights where asked for); in the folder ``log.jsonl``, TensorBoard's log and the last states.

Killed at any moment and run again, a run on one CPU process ends bit for bit where it would have ended: the learning rate is a
function of the step, and a state holds all else. Several processes (``accelerate launch``; on CPUs ``torchrun``, since without MPI
the former starts one) each take their share of every batch (:func:`~msmedcap.training.processes.share`). The gradient is the
mean over processes and micro batches of the gradients of their losses; the logged losses are the means too.

Supported: one process; several with a copy of the weights each (tested with two on a CPU); FSDP by accelerate's configuration
(without averaged weights and samples; of it the states alone are tested, on a CPU). Refused: DeepSpeed, whose states are pickled
objects; FSDP shards weights, gradients and optimiser states as its ZeRO-3 does.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType
from accelerate.state import AcceleratorState
from accelerate.utils import find_batch_size, gather_object, send_to_device, set_seed
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from tqdm import tqdm

from msmedcap.config import LoopConfig, UserError
from msmedcap.training import diagnostics, states
from msmedcap.training.course import Average, groups, pace
from msmedcap.training.diagnostics import TrainingFailed
from msmedcap.training.run_folder import HARMLESS, Record, Sample

log = logging.getLogger(__name__)

STOP = "stop"
# fp16's loss scale is halved at every skipped step: after so many in a row it is nothing.
SKIPS = 50
DEFAULTS = {f.name: f.default for f in dataclasses.fields(LoopConfig) if f.default is not dataclasses.MISSING}


class Task(Protocol):
    """What the loop asks of a task: losses by name; ``"loss"`` is the one that is minimised, the others are logged.

    Names that :mod:`~msmedcap.training.diagnostics` knows stop the run when they show that it learns nothing.
    """

    def __call__(self, batch: Any) -> Mapping[str, Tensor]: ...


def fit(
    task: nn.Module,
    batch_of: Callable[[int], Any],
    config: LoopConfig,
    folder: Path,
    *,
    name: str,
    samples: Callable[[], Iterable[Sample]] | None = None,
) -> dict[str, Tensor]:
    """Train ``task`` for ``config.steps`` steps, going on from ``folder`` if it holds a state; return the trained weights.

    ``batch_of(k)`` is this process's part of micro batch k and must be the same for the same k; step s takes the micro batches from
    ``s * accumulate`` to ``(s + 1) * accumulate - 1``. ``samples`` is called at every save, in evaluation mode, for TensorBoard.
    ``task`` is trained in place; under FSDP its weights stay sharded, and the returned ones are whole, in process 0. Raises
    :class:`TrainingFailed` where nothing can be learnt, UserError for a folder of another run, KeyboardInterrupt after Ctrl-C,
    once the state is saved.
    """
    run = _Run.begin(task, config, folder, name)
    first = run.resume()
    main = run.accelerator.is_main_process
    record = Record(folder, first) if main else None
    run.model.train()
    bar = tqdm(
        range(first, config.steps), initial=first, total=config.steps, desc=name, mininterval=2, dynamic_ncols=True,
        disable=not main,
    )
    try:
        with _Signals() as signals:
            for step in bar:
                row, stopped = run.step(step, batch_of, stop=signals.asked)
                bar.set_postfix({k: f"{v:.3g}" for k, v in row.items() if k not in ("step", "seconds", "samples")}, refresh=False)
                if record:
                    record.write(row)
                if (step + 1) % config.save_every == 0 or step + 1 == config.steps or stopped:
                    run.save(step + 1)
                    if record and samples and not stopped:
                        run.show(record, samples, step)
                if stopped and step + 1 < config.steps:
                    signals.end(f"{name}: stopped and saved after {step + 1} of {config.steps} steps; run it again to go on.")
    finally:
        bar.close()
        if record:
            record.close()
    return run.end()


@dataclass
class _Run:
    """A run under way: what :func:`fit` moves from step to step."""

    accelerator: Accelerator
    task: nn.Module
    model: nn.Module
    optimizer: Any
    config: LoopConfig
    folder: Path
    name: str
    average: Average | None
    early: list[float] = field(default_factory=list)
    skipped: int = 0

    @classmethod
    def begin(cls, task: nn.Module, config: LoopConfig, folder: Path, name: str) -> _Run:
        accelerator = _accelerator(config)
        if accelerator.distributed_type == DistributedType.DEEPSPEED:
            raise UserError("DeepSpeed's states cannot be read safely; choose FSDP in accelerate's configuration instead.")
        if accelerator.distributed_type == DistributedType.FSDP and config.ema:
            raise UserError("Averaged weights (ema) are not kept of weights sharded by FSDP; set ema to 0, or train without FSDP.")
        set_seed(config.seed, device_specific=True)  # no two processes drop the same places
        optimizer = torch.optim.AdamW(groups(task, config.weight_decay), lr=config.lr, betas=config.betas)
        model, optimizer = accelerator.prepare(task, optimizer)
        # Only now does every process have process 0's weights.
        average = Average(task, config.ema) if config.ema else None
        return cls(accelerator, task, model, optimizer, config, folder, name, average)

    @property
    def sharded(self) -> bool:
        return self.accelerator.distributed_type == DistributedType.FSDP

    def step(self, step: int, batch_of: Callable[[int], Any], *, stop: Callable[[], bool]) -> tuple[dict[str, Any], bool]:
        """One optimiser step; the row for the log, and whether any process was asked to stop."""
        began, config, accelerator = time.perf_counter(), self.config, self.accelerator
        lr = config.lr * pace(step, config)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        parts, samples = [], 0
        for k in range(step * config.accumulate, (step + 1) * config.accumulate):
            batch = batch_of(k)
            if accelerator.device.type != "cpu":
                batch = send_to_device(batch, accelerator.device)
            with suppress(TypeError, ValueError):  # a batch may hold no tensor
                samples += find_batch_size(batch)
            with accelerator.accumulate(self.model):
                losses = self.model(batch)
                accelerator.backward(losses["loss"])
            parts.append({name: float(value.detach()) for name, value in losses.items()})
        values = self._together({**_mean(parts), STOP: float(stop())})
        stopped = values.pop(STOP) > 0
        self._check(step, diagnostics.not_a_number(values))
        norm = self._update(step)
        if step >= config.warmup:
            self._check(step, diagnostics.symptom(values))
        if step < config.patience:
            self.early.append(values["loss"])
            if step + 1 == config.patience:
                self._check(step, diagnostics.not_falling(self.early))
        row = {"step": step, "seconds": round(time.perf_counter() - began, 3), "samples": samples * accelerator.num_processes}
        return {**row, "lr": lr, "grad": norm, **values}, stopped

    def _together(self, values: dict[str, float]) -> dict[str, float]:
        """The mean of every process's values; a name that a process lacks is the mean of the others'."""
        return _mean(gather_object([values])) if self.accelerator.num_processes > 1 else values

    def _update(self, step: int) -> float:
        """Clip the gradients, step and forget them; the gradients' norm before clipping."""
        parameters = list(self.model.parameters())
        if self.sharded:
            norm = self.accelerator.clip_grad_norm_(parameters, self.config.clip)
        else:
            self.accelerator.unscale_gradients()
            norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        # Before they are clipped, which spreads a NaN to all. fp16's scaler expects some and skips the step.
        if self.accelerator.scaler is None:
            self._check(step, diagnostics.bad_gradient(float(norm), self.task.named_parameters()))
        if not self.sharded:
            clip_grads_with_norm_(parameters, self.config.clip, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.accelerator.optimizer_step_was_skipped:
            self.skipped += 1
            self._check(step, f"fp16 has skipped {SKIPS} steps in a row; train with bf16" if self.skipped == SKIPS else None)
        else:
            self.skipped = 0
            if self.average:
                self.average.update(self.task)
        return float(norm)

    def _check(self, step: int, sentence: str | None) -> None:
        if sentence:
            raise TrainingFailed(f"{self.name}, step {step}: {sentence}.")

    def resume(self) -> int:
        """Go on from the newest state in the folder; the step to run next."""
        found = states.newest(self.folder)
        if self.accelerator.is_main_process:
            states.tidy(self.folder, keep=self.config.keep)
        if found is None:
            return 0
        step, path = found
        parts, process = states.load(path), self.accelerator.process_index
        # A state from before a setting was known was made with what is now its default.
        was, now = {**DEFAULTS, **parts["config"]}, dataclasses.asdict(self.config)
        changed = [k for k in now if k not in HARMLESS and was.get(k) != now[k]]
        if changed:
            raise UserError(
                f"{self.folder} holds a run with {', '.join(f'{k}={was.get(k)}' for k in changed)}; "
                "give the values it began with, or a new folder."
            )
        states.restore(self.model, self.optimizer.optimizer, parts, sharded=self.sharded)
        if self.average:
            self.average.load_state_dict(parts["average"])
        if self.accelerator.scaler is not None and parts["scaler"]:
            self.accelerator.scaler.load_state_dict(parts["scaler"])
        self.early, self.skipped = parts["early"], parts["skipped"]
        if parts["processes"] != self.accelerator.num_processes or not states.load_random_numbers(path, process=process):
            log.warning("%s: saved by %d processes; what is drawn at random goes on otherwise", self.name, parts["processes"])
            set_seed(self.config.seed + step, device_specific=True)
        log.info("%s: resuming at step %d", self.name, step)
        return step

    def save(self, step: int) -> None:
        """Save the state after ``step`` steps; every process calls it."""
        scaler = self.accelerator.scaler
        parts = {
            **states.learned(self.model, self.optimizer.optimizer, sharded=self.sharded),
            "average": self.average.state_dict() if self.average else None,
            "scaler": scaler.state_dict() if scaler is not None else None,
            "config": dataclasses.asdict(self.config),
            "processes": self.accelerator.num_processes,
            "early": self.early,
            "skipped": self.skipped,
        }
        process, wait = self.accelerator.process_index, self.accelerator.wait_for_everyone
        states.save(self.folder, step, parts, keep=self.config.keep, process=process, wait=wait)

    def show(self, record: Record, samples: Callable[[], Iterable[Sample]], step: int) -> None:
        """Write the samples of ``step``, leaving the random numbers as they stand; process 0 alone calls it."""
        if self.sharded:
            log.warning("%s: no samples while FSDP shards the weights", self.name)
            return
        numbers = states.random_numbers()
        self.task.eval()
        with torch.no_grad():
            record.write_samples(samples(), step)
        self.task.train()
        states.set_random_numbers(numbers)

    def end(self) -> dict[str, Tensor]:
        """Leave the task as it is used, with the averaged weights where asked for; its weights by name."""
        if self.average:
            self.average.copy_to(self.task)
        weights = states.weights(self.model if self.sharded else self.task, sharded=self.sharded)
        # accelerate has wrapped the task's own forward for mixed precision.
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        return weights


class _Signals:
    """Ctrl-C, or a cluster's SIGTERM, ends the run after the step under way; a second Ctrl-C ends it at once."""

    def __init__(self) -> None:
        self.seen: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        return self.seen is not None

    def end(self, sentence: str) -> None:
        """Raise what the signal would have raised (another process may have had it: as for Ctrl-C)."""
        log.warning(sentence)
        if self.seen == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt(sentence)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.seen = self.seen or number
        if number == signal.SIGINT:
            log.warning("stopping after this step; Ctrl-C once more stops at once, without saving")
            signal.signal(number, signal.default_int_handler)


def _accelerator(config: LoopConfig) -> Accelerator:
    # accelerate keeps the first settings of a process for good; a second stage may have others.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    accelerator = Accelerator(
        mixed_precision=config.precision,
        cpu=config.cpu,
        gradient_accumulation_steps=config.accumulate,
        # An objective may leave a parameter out for a step (matching, where no caption is another's negative).
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    if config.cpu and accelerator.device.type != "cpu":
        raise UserError("The processes have met on GPUs, but this stage trains on the CPU (cpu); run the stages apart.")
    return accelerator


def _mean(parts: list[dict[str, float]]) -> dict[str, float]:
    """Each name's mean over those of ``parts`` that have it, in the order in which names first come."""
    found: dict[str, list[float]] = {}
    for part in parts:
        for name, value in part.items():
            found.setdefault(name, []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in found.items()}
