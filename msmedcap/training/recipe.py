"""The demo weights from nothing: every stage in order, each resumable, each skipped once it is done.

Language model → CLIP encoder → SAM encoder → feature cache → stage 1 for each branch → stage 2 for each system. The shipped systems
are rows of Table 1 (:mod:`msmedcap.training.rows`); the others are trained where asked for, into a folder of their own. Comes in:
the data folder (or None: made scans alone). Goes out: a model folder as :mod:`msmedcap.checkpoints` reads it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from msmedcap import checkpoints, systems
from msmedcap.checkpoints import Frozen
from msmedcap.config import LoopConfig, ModelsConfig, to_json
from msmedcap.data.captions import swap_sides
from msmedcap.data.corpus import led_captions, paragraphs
from msmedcap.data.store import Augmentation, draw, random_masks, random_views
from msmedcap.models.clip import ClipEncoder
from msmedcap.models.frozen import freeze
from msmedcap.models.opt import Opt
from msmedcap.models.opt_loading import build_opt, load_opt
from msmedcap.models.sam import SamEncoder, SamPrompts
from msmedcap.models.tokens import Tokenizer, load_tokenizer, train_tokenizer
from msmedcap.training.contrast import ContrastiveTask, texts_of
from msmedcap.training.features import cache_features
from msmedcap.training.language import LanguageTask, pack
from msmedcap.training.loop import fit
from msmedcap.training.masking import MaskedTask, PromptableTask, PromptBatch
from msmedcap.training.pool import Pool, load_pool
from msmedcap.training.rows import SHIPPED, Row, RowTrainer, Stages, every_row

log = logging.getLogger(__name__)
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Recipe:
    """Sizes and lengths of every stage of the demo weights."""

    phantoms: int = 1500
    scenes: int = 1200
    language: LoopConfig = LoopConfig(steps=750, lr=2e-3, warmup=100, save_every=150)
    language_batch: int = 32
    row_length: int = 128
    contrast: LoopConfig = LoopConfig(steps=2800, lr=1e-3, warmup=150, ema=0.998, save_every=200, cycles=2)
    contrast_batch: int = 64
    masked: LoopConfig = LoopConfig(steps=700, lr=1e-3, warmup=50, save_every=100)
    masked_batch: int = 32
    promptable: LoopConfig = LoopConfig(steps=1100, lr=5e-4, warmup=50, ema=0.99, save_every=100)
    promptable_batch: int = 12
    prompts_each: int = 4
    draws: int = 3
    # A little weaker than while the encoders trained: the frozen features of far-off views teach the Q-Formers little.
    cache_strength: float = 0.8
    stages: Stages = Stages()


def build(
    data: Path | None,
    out: Path,
    work: Path,
    *,
    rows: Path | None = None,
    recipe: Recipe | None = None,
    config: ModelsConfig | None = None,
) -> None:
    """Train everything and write the model folder ``out``; ``work`` keeps every stage's state, so a second call goes on.

    With ``rows`` all of Table 1's rows are trained too, and written there as one model folder of many systems. Without ``data`` (or
    where it is missing) training runs on made scans alone, and says so.
    """
    recipe, config = recipe or Recipe(), config or systems.demo()
    if data is None or not data.is_dir():
        log.warning("no data folder: training on made scans alone; such weights describe phantoms, not patients")
        data = None
    pool = load_pool(data, work / "pool", phantom_count=recipe.phantoms, scene_count=recipe.scenes)
    texts = corpus(data, pool, config)
    tokenizer = tokenizer_stage(texts, config, work / "tokenizer")
    clip = contrast_stage(pool, tokenizer, config, recipe, work / "clip")
    sam, prompts = sam_stage(pool, config, recipe, work / "sam")
    opt = language_stage(texts, tokenizer, recipe, work / "language")
    frozen = Frozen(clip, sam, prompts, opt)
    cache = cache_features(
        pool, {"clip": clip, "sam": sam}, config, work / "features", draws=recipe.draws, strength=recipe.cache_strength
    )
    trainer = RowTrainer(pool, cache, frozen, config, recipe.stages, work)
    sources = dict(sorted(Counter(pool.sources).items()))
    record = {"pictures": sources, "masks": len(pool.masks), "recipe": dataclasses.asdict(recipe)}
    for folder, chosen in ((out, {name: SHIPPED[name] for name in config.systems}), (rows, every_row())):
        if folder:
            write(trainer, chosen, folder)
            told = {"systems": {name: trainer.summary(row) for name, row in chosen.items()}}
            (folder / "training.json").write_text(json.dumps(record | told, indent=2) + "\n", encoding="utf-8")


def corpus(data: Path | None, pool: Pool, config: ModelsConfig) -> list[str]:
    """What the language model reads: radiology text, the scenes' captions, and captions led by their facts."""
    sheets = [f for f in pool.facts if f and "scene" not in f]
    texts = [t for t in (paragraphs(data) if data else ()) if t] + [f["scene"] for f in pool.facts if "scene" in f]
    return texts + [t for seed in range(4) for t in led_captions(sheets, config.train_prompt, seed=seed)]


def tokenizer_stage(texts: list[str], config: ModelsConfig, folder: Path) -> Tokenizer:
    """The tokenizer of the language model, also used by the contrast and by stage 1."""
    if not (folder / "tokenizer.json").is_file():
        train_tokenizer(texts, config.branches["clip"].qformer.vocab).save_pretrained(folder)
    return load_tokenizer(folder)


def language_stage(texts: list[str], tokenizer: Tokenizer, recipe: Recipe, folder: Path) -> Opt:
    """The demo OPT, kept in ``folder/opt`` with its tokenizer as transformers writes them."""
    done = folder / "opt"
    if not (done / "config.json").is_file():
        rows = pack(texts, tokenizer, recipe.row_length)
        task = LanguageTask(build_opt(len(tokenizer), hidden=256, layers=4, heads=4))

        def batch(step: int) -> Tensor:
            generator = torch.Generator().manual_seed(step)
            return rows[torch.randint(len(rows), (recipe.language_batch,), generator=generator)]

        fit(task, batch, recipe.language, folder, name="language model")
        new = folder / "opt.new"
        shutil.rmtree(new, ignore_errors=True)
        task.model.half().save_pretrained(new, max_shard_size=checkpoints.SHARD)
        tokenizer.save_pretrained(new)
        new.rename(done)
    return load_opt(done, dtype=torch.float32, device=torch.device("cpu"))


def contrast_stage(
    pool: Pool, tokenizer: Tokenizer, config: ModelsConfig, recipe: Recipe, folder: Path
) -> ClipEncoder:
    """The CLIP encoder, frozen."""
    encoder = ClipEncoder(config.clip)

    def train() -> None:
        task = _channels_last(ContrastiveTask(encoder, tokenizer))
        texts = [{"caption": f["scene"]} if "scene" in f else texts_of(f) for f in pool.facts]
        mirrored = [{kind: swap_sides(text) for kind, text in row.items()} for row in texts]

        def batch(step: int) -> tuple[Tensor, list[Mapping[str, str]]]:
            rows = pool.rows(step, recipe.contrast_batch, seed=1)
            chosen = draw(len(rows), Augmentation(), step)
            views = random_views(pool.store, rows, config.view("clip"), chosen)
            return views, [(mirrored if f else texts)[r] for r, f in zip(rows.tolist(), chosen.flipped.tolist(), strict=True)]

        fit(task, batch, recipe.contrast, folder, name="CLIP encoder")

    return _stage(encoder, folder / "encoder", train)


def sam_stage(pool: Pool, config: ModelsConfig, recipe: Recipe, folder: Path) -> tuple[SamEncoder, SamPrompts]:
    """The SAM encoder and its prompt half, frozen: masked pictures first, promptable masks second."""
    encoder, prompts = SamEncoder(config.sam), SamPrompts(config.sam)
    spec = config.view("sam")
    scans = torch.tensor(pool.scans())

    def masked() -> None:
        def batch(step: int) -> tuple[Tensor, int]:
            generator = torch.Generator().manual_seed(step)
            rows = scans[torch.randint(len(scans), (recipe.masked_batch,), generator=generator)]
            return random_views(pool.store, rows, spec, draw(len(rows), Augmentation(), step)), step

        fit(_channels_last(MaskedTask(encoder)), batch, recipe.masked, folder / "masked", name="SAM encoder, masked")

    def promptable() -> None:
        def batch(step: int) -> PromptBatch:
            index = pool.mask_draw(step, recipe.promptable_batch, each=recipe.prompts_each, seed=2)
            rows = pool.mask_rows[index[:, 0]]
            chosen = draw(len(rows), Augmentation(0.7), step)
            masks = random_masks(pool.masks[index], pool.store.extent[rows], spec, chosen)
            return PromptBatch(random_views(pool.store, rows, spec, chosen), masks, step)

        fit(_channels_last(PromptableTask(encoder, prompts)), batch, recipe.promptable, folder / "promptable", name="SAM, prompted")

    _stage(encoder, folder / "masked" / "encoder", masked, keep_training=True)
    _stage(nn.ModuleDict({"encoder": encoder, "prompts": prompts}), folder / "promptable" / "sam", promptable)
    return freeze(encoder), freeze(prompts)


def write(trainer: RowTrainer, systems: Mapping[str, Row], out: Path) -> None:
    """The model folder ``out`` with ``systems``, trained unless that is done; a README.md that lies in ``out`` stays."""
    captioners = {name: trainer.trained(row) for name, row in systems.items()}
    frozen = trainer.frozen
    out.mkdir(parents=True, exist_ok=True)
    for part in ("clip", "sam", "sam_prompts", "opt", "systems"):
        shutil.rmtree(out / part, ignore_errors=True)
    checkpoints.save_weights(frozen.clip.state_dict(), out / "clip")
    checkpoints.save_weights(frozen.sam.state_dict(), out / "sam")
    checkpoints.save_weights(frozen.prompts.state_dict(), out / "sam_prompts")
    shutil.copytree(trainer.work / "language" / "opt", out / "opt")
    for name, captioner in captioners.items():
        checkpoints.save_system(captioner, name, out / "systems" / name)
    config = dataclasses.replace(trainer.config, systems={name: tuple(row.stage1) for name, row in systems.items()})
    (out / "config.json").write_text(to_json(config), encoding="utf-8")


def _stage(module: M, folder: Path, train: Callable[[], None], *, keep_training: bool = False) -> M:
    """Train ``module`` unless its weights already lie in ``folder``; either way it ends with the weights of the folder."""
    if not folder.is_dir():
        module.train()
        train()
        new = folder.with_name(folder.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        checkpoints.save_weights(module.state_dict(), new)
        new.rename(folder)
    checkpoints.load_into(module, folder)
    return module if keep_training else freeze(module)


def _channels_last(task: M) -> M:
    # Convolutions on two cores run twice as fast in this layout.
    return task.to(memory_format=torch.channels_last)
