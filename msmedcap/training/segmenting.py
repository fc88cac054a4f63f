"""SEG-SAM trained from a config: data, frozen encoder, first weights, the loop, the losses on other pictures, the outcome.

Comes in: a :class:`~msmedcap.training.config.TrainConfig` of the task ``segmentation``. Goes out: in the run's folder what
:mod:`.run_folder` notes and ``segmenter/``; where asked for, the same in a model folder beside the encoder it was trained on.
Features of the frozen encoder come from a cache (``config.cache``) or are made as they are needed. The encoder may learn as
well; it then lies in the run's folder as ``sam/`` and belongs to this segmenter alone: captions were trained on the other one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from msmedcap import config as configs
from msmedcap.checkpoints import folder_of, save_weights
from msmedcap.config import ModelsConfig, UserError
from msmedcap.data.classes import ClassBook, load_classes
from msmedcap.data.segments import SegmentedPicture, read
from msmedcap.models.frozen import freeze
from msmedcap.models.opt_loading import load_opt
from msmedcap.models.sam import SamEncoder, SamPrompts
from msmedcap.models.segmenter import Segmenter
from msmedcap.models.weights import empty, load_into
from msmedcap.segmenters import FOLDER, load_segmenter, make_segmenter, save_segmenter
from msmedcap.training.config import DataPart, TrainConfig
from msmedcap.training.devices import AUTOCAST, placed, sharded
from msmedcap.training.features import FeatureCache
from msmedcap.training.loop import fit
from msmedcap.training.presets import PRESETS
from msmedcap.training.processes import place, share
from msmedcap.training.run_folder import run_folder
from msmedcap.training.segment_config import SegmentTraining
from msmedcap.training.segment_data import Ahead, SegmentData, classes_of, fill
from msmedcap.training.segmentation import SegmentationTask, SegmentBatch

log = logging.getLogger(__name__)
Parts = list[tuple[float, list[SegmentedPicture]]]


@dataclass(frozen=True)
class Trained:
    """What a run has made: the folder of the segmenter, the model folder it was put into (or ""), and how it went.

    ``val`` holds the mean losses and measures on ``val_batch`` prompted objects at a time of the pictures of ``val``, ``skipped``
    how many pictures this process could not read, ``classes`` what the segmenter can name.
    """

    weights: str
    models: str
    steps: int
    val: dict[str, float]
    val_batch: int
    skipped: int
    classes: tuple[str, ...]


class EncodingTask(nn.Module):
    """A segmentation task whose encoder learns as well: ``batch.features`` are views ``[B,3,S,S]``."""

    def __init__(self, task: SegmentationTask, encoder: SamEncoder) -> None:
        super().__init__()
        self.task, self.encoder = task, encoder.requires_grad_(True)

    def forward(self, batch: SegmentBatch) -> dict[str, Tensor]:
        return self.task(batch._replace(features=self.encoder(batch.features)))


def train_segments(config: TrainConfig, device: str | None = None, estimate: bool = False) -> Trained | None:
    """Train SEG-SAM as ``config`` says; ``device`` and ``estimate`` as in :func:`msmedcap.training.train.run`.

    Raises :class:`UserError` for what is missing or does not fit, and what :func:`~msmedcap.training.loop.fit` raises.
    """
    own = config.segments or SegmentTraining()
    if own.encoder and (config.cache or config.out_models):
        raise UserError("Leave out cache and out_models: a learning encoder's features change, and captions need the old one.")
    folder = folder_of(config.models)
    models = configs.read(ModelsConfig, folder / "config.json")
    if config.out_models:
        _check_target(Path(config.out_models), models)
    book = load_classes(Path(own.classes) if own.classes else None)
    parts = _read(config.data, book)
    config = _resolved(config, sum(len(rows) for _, rows in parts))
    share(config.batch // config.loop.accumulate)  # refuses an unequal one before anything is loaded
    log.info("%s", _plan(config, own, parts, models))
    if estimate:
        return None
    config, where = placed(config, device)
    encoder, start = _frozen(folder, models, where)
    names = classes_of([row for _, rows in parts for row in rows], book.names)
    segmenter = _first(own, config.seed, book, names, folder, models, start)
    task: nn.Module = SegmentationTask(segmenter, own.options)
    if own.encoder:
        task = EncodingTask(task, _learning(encoder))  # type: ignore[arg-type]
    data = _data(parts, segmenter.names, own, models, config.seed)
    return _train(config, own, data, book, encoder, task, segmenter, models, where)


def demo_segmenter(data: Path | None, models: Path, work: Path, *, steps: int = 0) -> None:
    """The demo recipe's last stage: ``models/segmenter``, on what of its sets ``data`` holds, else on made scans alone.

    ``work`` keeps the run and the features, so that a second call goes on; ``steps`` takes the place of the preset's.
    """
    config = PRESETS["demo-segmentation"]
    there, val = (tuple(p for part in parts if (p := _beside(part, data))) for parts in (config.data, config.val))
    if len(there) < len(config.data):
        log.warning("the segmenter is trained without %d of its %d sets", len(config.data) - len(there), len(config.data))
    loop = dataclasses.replace(config.loop, steps=steps, warmup=min(config.loop.warmup, steps)) if steps else config.loop
    folders = {"models": str(models), "out_models": str(models), "out": str(work / FOLDER), "cache": str(work / "features")}
    train_segments(dataclasses.replace(config, data=there, val=val, loop=loop, **folders))  # type: ignore[arg-type]


def _beside(part: DataPart, data: Path | None) -> DataPart | None:
    """``part`` as ``data`` has it; None where it does not."""
    if part.name == "phantoms":
        return part
    folder = data / Path(part.path).name if data is not None else None
    return dataclasses.replace(part, path=str(folder)) if folder is not None and folder.is_dir() else None


def _train(
    config: TrainConfig,
    own: SegmentTraining,
    data: SegmentData,
    book: ClassBook,
    encoder: SamEncoder,
    task: nn.Module,
    segmenter: Segmenter,
    models: ModelsConfig,
    where: torch.device,
) -> Trained:
    run = Path(config.out)
    record = dataclasses.replace(config, out="", out_models="")  # a folder may be moved
    size = config.batch // config.loop.accumulate
    batch = _batches(data, size, own, None if own.encoder else encoder, where)
    with run_folder(run, record, data=_fingerprint(data)):
        if config.cache:
            fill(data, FeatureCache(Path(config.cache), data.ids, encoders={"sam": encoder}, specs={"sam": data.spec}))
        with Ahead(batch, config.loop.steps * config.loop.accumulate) as batches:
            weights = fit(task.to(where), batches, config.loop, run, name="SEG-SAM")
        losses: dict[str, float] = {}
        if config.val:
            val = _data(_read(config.val, book), segmenter.names, dataclasses.replace(own, draws=1), models, config.seed)
            losses = _validate(task, _batches(val, size, own, None if own.encoder else encoder, where), config, size, where)
        made = Trained("", config.out_models, config.loop.steps, losses, size * own.each, len(data.skipped), segmenter.names)
        return _write(task, weights, segmenter, made, run, config)


def _read(parts: tuple[DataPart, ...], book: ClassBook) -> Parts:
    return [(part.weight, read(part.name, part.path, book, split=part.split)) for part in parts]


def _resolved(config: TrainConfig, pictures: int) -> TrainConfig:
    """``config`` with the steps that its epochs come to, and one seed for all."""
    steps = math.ceil(config.epochs * pictures / config.batch) if config.epochs else config.loop.steps
    return dataclasses.replace(config, loop=dataclasses.replace(config.loop, steps=steps, seed=config.seed))


def _plan(config: TrainConfig, own: SegmentTraining, parts: Parts, models: ModelsConfig) -> str:
    pictures = [row for _, rows in parts for row in rows]
    objects = sum(len(row.segments) for row in pictures)
    views = sum(1 if row.source == "phantoms" else own.draws for row in pictures)
    said = (
        f"segmentation: {config.loop.steps:,} steps of {config.batch} pictures with {own.each} prompted objects each, by "
        f"{place()[1]} process(es); {len(pictures):,} pictures with {objects:,} masks, in {views:,} views"
    )
    if config.cache:
        spec = models.view("sam")
        each = 2 * models.sam.out * (spec.size // models.sam.patch) ** 2
        said += f"; their features take {each * views / 1e9:.2f} GB in {config.cache} once all are there"
    return f"{said}."


def _data(
    parts: Parts, names: tuple[str, ...], own: SegmentTraining, models: ModelsConfig, seed: int
) -> SegmentData:
    return SegmentData(
        parts, names, models.view("sam"), draws=own.draws, strength=own.strength, balance=own.balance, seed=seed
    )


def _frozen(folder: Path, models: ModelsConfig, device: torch.device) -> tuple[SamEncoder, SamPrompts]:
    """SAM's encoder and the prompt half to begin with."""
    for part in ("sam", "sam_prompts"):
        if not (folder / part).is_dir():
            raise UserError(f"{folder} lacks the folder {part}, which SEG-SAM begins with; convert a SAM into there first.")
    encoder = load_into(empty(lambda: SamEncoder(models.sam)), folder / "sam", device=device)
    return freeze(encoder), freeze(load_into(empty(lambda: SamPrompts(models.sam)), folder / "sam_prompts"))


def _learning(encoder: SamEncoder) -> SamEncoder:
    """A copy of a frozen encoder that can be trained."""
    copy = SamEncoder(encoder.config)
    copy.load_state_dict(encoder.state_dict())
    return copy


def _first(
    own: SegmentTraining,
    seed: int,
    book: ClassBook,
    names: tuple[str, ...],
    folder: Path,
    models: ModelsConfig,
    start: SamPrompts,
) -> Segmenter:
    """The segmenter as training begins."""
    if own.start:
        segmenter = load_segmenter(Path(own.start), models.sam)
        if missing := sorted(set(names) - set(segmenter.names)):
            raise UserError(f"{own.start} cannot name {', '.join(missing)}, which the data show; add the classes to it first.")
        return segmenter
    opt = None
    if own.text and own.text_encoder == "opt":
        source = folder / models.opt if (folder / models.opt).is_dir() else models.opt
        opt = load_opt(source, dtype=torch.float32, device=torch.device("cpu"))
    return make_segmenter(
        book, names, models.sam, start, opt=opt, text_encoder=own.text_encoder, semantics=own.semantics, text=own.text,
        tokens=own.tokens, dense_prompts=own.dense_prompts, seed=seed,
    )  # fmt: skip


def _batches(
    data: SegmentData, size: int, own: SegmentTraining, encoder: SamEncoder | None, device: torch.device
) -> Callable[[int], SegmentBatch]:
    """Batches by number; with an ``encoder``, views are encoded where there are no features."""

    @torch.no_grad()
    def batch(number: int) -> SegmentBatch:
        made = data.batch(number, size, each=own.each)
        if data.features is not None or encoder is None:
            return made
        return made._replace(features=encoder(made.features.to(device)).float())

    return batch


@torch.no_grad()
def _validate(
    task: nn.Module, batch: Callable[[int], SegmentBatch], config: TrainConfig, size: int, device: torch.device
) -> dict[str, float]:
    """The mean losses on about ``config.val_count`` pictures drawn from those of ``val``; every process calls it."""
    if sharded():
        log.warning("no loss on other pictures: FSDP shards the weights")
        return {}
    count, precision = max(1, config.val_count // size), config.loop.precision
    sums: dict[str, float] = {}
    task.eval()
    for k in range(count):
        made = _moved(batch(k), device)
        with torch.autocast(device.type, AUTOCAST[precision], enabled=precision != "no"):
            losses: Mapping[str, Tensor] = task(made)
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value) / count
    log.info("SEG-SAM: on other pictures %s", ", ".join(f"{k} {v:.4g}" for k, v in sums.items()))
    return sums


def _moved(batch: SegmentBatch, device: torch.device) -> SegmentBatch:
    features, masks, picture, classes, objects, labelled = (value.to(device) for value in batch[:-1])
    return SegmentBatch(features, masks, picture, classes, objects, labelled, batch.seed)


def _write(
    task: nn.Module, weights: Mapping[str, Tensor], segmenter: Segmenter, made: Trained, run: Path, config: TrainConfig
) -> Trained:
    """Write the outcome as process 0; every process gets the same back."""
    done = run / FOLDER
    made = dataclasses.replace(made, weights=str(done))
    if place()[0]:
        return made
    task.load_state_dict(weights)
    _replace(done, lambda new: save_segmenter(segmenter, new))
    if isinstance(task, EncodingTask):
        _replace(run / "sam", lambda new: save_weights(task.encoder.state_dict(), new))
    if config.out_models:
        target = Path(config.out_models) / FOLDER
        _replace(target, lambda new: shutil.copytree(done, new, dirs_exist_ok=True))
    (run / "outcome.json").write_text(json.dumps(dataclasses.asdict(made), indent=2) + "\n", encoding="utf-8")
    log.info("SEG-SAM: the outcome is in %s", done)
    return made


def _replace(folder: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a folder that takes the place of ``folder`` once it is whole."""
    new = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    write(new)
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


def _check_target(out: Path, models: ModelsConfig) -> None:
    if configs.read(ModelsConfig, out / "config.json").sam != models.sam:
        raise UserError(f"{out} holds another SAM than the one that is trained on; name the models it was trained with.")


def _fingerprint(data: SegmentData) -> str:
    """Which pictures, in which order, with how many masks."""
    digest = hashlib.sha256()
    for row in data.rows:
        digest.update(f"{row.source} {row.id} {len(row.segments)}\n".encode())
    return digest.hexdigest()[:16]
