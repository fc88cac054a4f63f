"""A training from a config to its outcome: data, frozen parts, first weights, the loop, the loss on other pictures, the result.

Comes in: a task, a preset's name or a JSON file, and values laid over it. Goes out: in the run's folder what
:mod:`.run_folder` notes, and ``branch/`` (stage 1's outcome, a start of stage 2) or ``system/`` (stage 2's), with ``outcome.json``;
where asked for, a model folder that captions. Run again it goes on, or, once it is done, writes the outcome again. Under a
launcher (``torchrun``, ``accelerate launch``) every process calls :func:`run` alike.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from msmedcap import config as configs
from msmedcap.checkpoints import folder_of
from msmedcap.config import ModelsConfig, UserError
from msmedcap.training.config import TrainConfig
from msmedcap.training.devices import AUTOCAST, placed, sharded
from msmedcap.training.diagnostics import ITC_SPREAD, QUERY_SPREAD
from msmedcap.training.kits import Kit, alignment_kit, captioning_kit
from msmedcap.training.loop import fit
from msmedcap.training.mixture import Mixture, Picture
from msmedcap.training.presets import read_config
from msmedcap.training.processes import place, share
from msmedcap.training.run_folder import Sample, run_folder
from msmedcap.training.segmenting import Trained, train_segments
from msmedcap.training.task_data import Batches, remember

log = logging.getLogger(__name__)

SAMPLES = 4
MakeKit = Callable[[TrainConfig, ModelsConfig, Path, torch.device], Kit]


@dataclass(frozen=True)
class Outcome:
    """What a run has made: its folder of weights, the model folder (or ""), and how it went.

    ``val`` holds the mean losses on the pictures of ``val`` (a contrast among ``val_batch`` of them), ``skipped`` how many pictures
    this process could not read.
    """

    weights: str
    models: str
    steps: int
    val: dict[str, float]
    val_batch: int
    skipped: int


def run(
    task: str,
    source: str,
    sets: Sequence[str] = (),
    *,
    out: str | Path = "",
    out_models: str | Path = "",
    device: str | None = None,
    estimate: bool = False,
) -> Outcome | Trained | None:
    """Train ``task`` as ``source`` (a preset or a JSON file) says, with ``sets`` (each ``key=value``) laid over it.

    ``out`` and ``out_models`` take the place of the config's. ``device`` is "cpu" or "cuda" (default: the config's ``loop.cpu``).
    ``estimate`` logs how much there is to do, and does nothing of it.
    Raises :class:`UserError` for what is missing or does not fit, ``TrainingFailed`` where nothing is learnt and
    KeyboardInterrupt after Ctrl-C, once the state is saved.
    """
    if task not in TASKS:
        raise UserError(f"There is no task {task!r}; there are {', '.join(TASKS)}.")
    config = read_config(source, sets)
    config = dataclasses.replace(config, out=str(out or config.out), out_models=str(out_models or config.out_models))
    if config.task != task:
        raise UserError(f"{source} is a training of the task {config.task}, not {task}; call train {config.task}.")
    if not config.out:
        raise UserError("Name the run's folder with --out DIR.")
    if place()[0]:  # what they all have to say, the first says
        logging.getLogger("msmedcap").setLevel(logging.ERROR)
    return TASKS[task](config, device, estimate)


def train_by_captions(make_kit: MakeKit, config: TrainConfig, device: str | None, estimate: bool) -> Outcome | None:
    """A training on pictures and captions; ``make_kit`` builds its task. The rest is as in :func:`run`."""
    folder = folder_of(config.models)
    models = configs.read(ModelsConfig, folder / "config.json")
    data, val = Mixture(config.data, seed=config.seed), Mixture(config.val, seed=config.seed) if config.val else None
    config = resolved(config, len(data))
    size = config.batch // config.loop.accumulate
    share(size)  # refuses an unequal one before anything is loaded
    log.info("%s", plan(config, data, models))
    if estimate:
        return None
    config, where = placed(config, device)
    kit = make_kit(config, models, folder, where)
    if config.out_models:
        _check_models(Path(config.out_models), models)
    run = Path(config.out)
    record = dataclasses.replace(config, out="", out_models="")  # a folder may be moved
    fingerprint = data.fingerprint + (f" {val.fingerprint}" if val else "")
    with run_folder(run, record, data=fingerprint):
        cache = remember(data, kit.encoders, kit.specs, Path(config.cache)) if config.cache else None
        count = config.loop.steps * config.loop.accumulate
        options = {"seed": config.seed, "augment": config.augment, "features": cache}
        with Batches(data, kit.specs, size=size, count=count, **options) as batches:  # type: ignore[arg-type]
            weights = fit(
                kit.task,
                lambda k: kit.task_batch(batches(k), k, encoded=cache is not None),
                config.loop,
                run,
                name=kit.name,
                samples=_Samples(kit, val or data),
            )
            skipped = batches.bad
        if skipped:
            log.warning("%s", data.skipped if data.skipped.count else f"{skipped} pictures could not be read")
        losses, val_batch = _validate(kit, val, config) if val else ({}, 0)
        return _write(kit, weights, config, models, Outcome("", "", config.loop.steps, losses, val_batch, skipped))


TASKS: dict[str, Callable[[TrainConfig, str | None, bool], Outcome | Trained | None]] = {
    "alignment": partial(train_by_captions, alignment_kit),
    "captioning": partial(train_by_captions, captioning_kit),
    "segmentation": train_segments,
}


def resolved(config: TrainConfig, pictures: int) -> TrainConfig:
    """``config`` with the steps that its epochs come to for ``pictures``, and one seed for all."""
    steps = math.ceil(config.epochs * pictures / config.batch) if config.epochs else config.loop.steps
    return dataclasses.replace(config, loop=dataclasses.replace(config.loop, steps=steps, seed=config.seed))


def plan(config: TrainConfig, data: Mixture, models: ModelsConfig) -> str:
    """What a run comes to, in a sentence: steps, pictures, their kinds, processes and the cache's size."""
    drawn, general = config.loop.steps * config.batch, data.share_of("G")
    said = (
        f"{config.task}: {config.loop.steps:,} steps of {config.batch} pictures by {place()[1]} process(es), "
        f"{drawn:,} pictures in all, {drawn / len(data):.2f} times the {len(data):,} there are "
        f"({general:.0%} general, {1 - general:.0%} medical)"
    )
    views = (config.branch,) if config.task == "alignment" else models.systems.get(config.system, ())
    if config.cache:
        each = sum(_feature_bytes(models, models.branches[view].encoder) for view in views if view in models.branches)
        said += f"; their features take {each * len(data) / 1e9:.2f} GB in {config.cache} once all are there"
    return f"{said}."


def _feature_bytes(models: ModelsConfig, encoder: str) -> int:
    """The size of one picture's features in a cache, of two bytes each."""
    if encoder == "clip":
        return 2 * models.clip.hidden * ((models.view("clip").size // models.clip.patch) ** 2 + 1)
    return 2 * models.sam.out * (models.view("sam").size // models.sam.patch) ** 2


class _Samples:
    """The first pictures of a mixture, opened when first asked for, and what the model says of them now."""

    def __init__(self, kit: Kit, mixture: Mixture) -> None:
        self.kit, self.mixture = kit, mixture
        self.pictures: list[Picture] = []

    def __call__(self) -> list[Sample]:
        if not self.pictures:
            rows = self.mixture.rows(0, SAMPLES).unique().tolist()
            self.pictures = [self.mixture.open(row) for row in rows]
        return self.kit.samples(self.pictures)


@torch.no_grad()
def _validate(kit: Kit, val: Mixture, config: TrainConfig) -> tuple[dict[str, float], int]:
    """The mean losses on up to ``config.val_count`` pictures of ``val``, and the size of their batches; all processes call it."""
    processes = place()[1]
    size = min(config.batch // config.loop.accumulate, len(val) // processes * processes)
    if not size or sharded():
        log.warning("no loss on other pictures: %s", "FSDP shards the weights" if sharded() else "fewer than processes")
        return {}, 0
    count, precision = max(1, min(config.val_count, len(val)) // size), config.loop.precision
    sums: dict[str, float] = {}
    kit.task.eval()
    with Batches(val, kit.specs, size=size, count=count, seed=config.seed) as batches:
        for k in range(count):
            with torch.autocast(kit.device.type, AUTOCAST[precision], enabled=precision != "no"):
                losses: Mapping[str, torch.Tensor] = kit.task(kit.task_batch(batches(k), k, encoded=False))
            for name, value in losses.items():
                if name not in (QUERY_SPREAD, ITC_SPREAD):
                    sums[name] = sums.get(name, 0.0) + float(value) / count
    log.info("%s: on %d other pictures %s", kit.name, count * size, ", ".join(f"{k} {v:.4g}" for k, v in sums.items()))
    return sums, size


def _write(
    kit: Kit, weights: Mapping[str, torch.Tensor], config: TrainConfig, models: ModelsConfig, outcome: Outcome
) -> Outcome:
    """Write the outcome as process 0; every process gets the same back."""
    run = Path(config.out)
    done = run / kit.outcome
    outcome = dataclasses.replace(outcome, weights=str(done), models=config.out_models)
    if place()[0]:
        return outcome
    task: nn.Module = kit.task
    if sharded():  # only the returned weights are whole
        task = kit.make()
        task.load_state_dict(weights)
    new = run / f"{kit.outcome}.new"
    shutil.rmtree(new, ignore_errors=True)
    kit.save(task, new)
    shutil.rmtree(done, ignore_errors=True)
    new.rename(done)
    if config.out_models:
        _write_models(config, models, done)
    (run / "outcome.json").write_text(json.dumps(dataclasses.asdict(outcome), indent=2) + "\n", encoding="utf-8")
    log.info("%s: the outcome is in %s", kit.name, done)
    return outcome


def _write_models(config: TrainConfig, models: ModelsConfig, system: Path) -> None:
    """The folder ``config.out_models`` with the frozen parts trained on and ``system``, beside those that are there."""
    source, out, name = folder_of(config.models), Path(config.out_models), config.called or config.system
    _check_models(out, models)
    out.mkdir(parents=True, exist_ok=True)
    for part in ("clip", "sam", "sam_prompts", models.opt):
        if (source / part).is_dir() and not (out / part).exists():
            new = out / f"{part}.new"
            shutil.rmtree(new, ignore_errors=True)
            shutil.copytree(source / part, new)
            new.rename(out / part)
    shutil.rmtree(out / "systems" / name, ignore_errors=True)
    shutil.copytree(system, out / "systems" / name)
    known = configs.read(ModelsConfig, out / "config.json").systems if (out / "config.json").is_file() else {}
    systems = {**known, name: models.systems[config.system]}
    (out / "config.json").write_text(configs.to_json(dataclasses.replace(models, systems=systems)), encoding="utf-8")


def _check_models(out: Path, models: ModelsConfig) -> None:
    """Refuse a folder of models that differ in more than the systems they list."""
    file = out / "config.json"
    if file.is_file() and dataclasses.replace(configs.read(ModelsConfig, file), systems=models.systems) != models:
        raise UserError(f"{out} holds models of another construction; name an empty folder.")
