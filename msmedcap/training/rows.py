"""Table 1 at the demo's scale: its seven rows, their seeds, and one ablation, from branches of stage 1 that rows share.

In a row's name ``G`` and ``GM`` say what stage 1 trained its Q-Formers on, CLIP's first (the paper's "(G, G+M)"): ``G`` general
pictures (scenes made by code; no COCO here), ``GM`` these and scans. Stage 2 sees scans alone (Section 2.3) but for BLIP2-G,
the pre-trained model, which sees scenes alone. The systems that are shipped are three of the rows. Comes in: a pool, its
cached features, the frozen parts. Goes out: the trained captioner of any row.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from msmedcap import checkpoints
from msmedcap.checkpoints import Frozen
from msmedcap.config import BranchConfig, LoopConfig, ModelsConfig
from msmedcap.models.branch import Branch
from msmedcap.models.captioner import Captioner
from msmedcap.training.alignment import AlignmentTask
from msmedcap.training.captioning import CaptioningTask
from msmedcap.training.defaults import AlignmentOptions
from msmedcap.training.features import PoolCache
from msmedcap.training.initial import begin_alignment, begin_captioning, save_alignment
from msmedcap.training.loop import fit
from msmedcap.training.pool import Pool


@dataclass(frozen=True)
class Row:
    """A system as Table 1 has it: for each branch what stage 1 trained it on, and what stage 2 did.

    ``tokens`` is how SAM's feature map is cut (:class:`~msmedcap.config.BranchConfig`).
    """

    name: str
    stage1: dict[str, str]
    stage2: str = "M"
    tokens: str = "positions"
    seed: int = 0

    def seeded(self, seed: int) -> Row:
        """The row with stage 2 from another seed, over the same branches of stage 1; seed 0 keeps the row's name."""
        return dataclasses.replace(self, name=f"{self.name}.s{seed}", seed=seed) if seed else self

    def by_channels(self) -> Row:
        """The row with every channel of SAM's feature map as a token, as in the authors' code."""
        return dataclasses.replace(self, name=f"{self.name}.channels", tokens="channels")


TABLE_1 = (
    Row("BLIP2-G", {"clip": "G"}, stage2="G"),
    Row("BLIP2-GM", {"clip": "GM"}),
    Row("SAM-BLIP2-GM", {"sam": "GM"}),
    Row("MSMedCap-G-G", {"clip": "G", "sam": "G"}),
    Row("MSMedCap-GM-G", {"clip": "GM", "sam": "G"}),
    Row("MSMedCap-GM-GM", {"clip": "GM", "sam": "GM"}),
    Row("MSMedCap-G-GM", {"clip": "G", "sam": "GM"}),
)
SHIPPED: dict[str, Row] = {
    system: next(row for row in TABLE_1 if row.name == name)
    for system, name in {"MSMedCap": "MSMedCap-G-GM", "BLIP2": "BLIP2-GM", "SAM-BLIP2": "SAM-BLIP2-GM"}.items()
}
SEEDS = (0, 1, 2)


def every_row() -> dict[str, Row]:
    """All rows by name, the shipped ones first: Table 1's, the shipped ones from every seed, and those of the ablation."""
    shipped = [row.seeded(seed) for seed in SEEDS for row in SHIPPED.values()]
    channels = [SHIPPED[system].by_channels() for system in ("SAM-BLIP2", "MSMedCap")]
    return {row.name: row for row in (*shipped, *TABLE_1, *channels)}


@dataclass(frozen=True)
class Stages:
    """Length and pace of the two stages, the same for all rows."""

    alignment: LoopConfig = LoopConfig(steps=300, lr=5e-4, warmup=50, ema=0.995, save_every=100)
    options: AlignmentOptions = AlignmentOptions()
    captioning: LoopConfig = LoopConfig(steps=450, lr=5e-4, warmup=50, ema=0.995, save_every=150)
    batch: int = 48


@dataclass(frozen=True)
class RowTrainer:
    """Trains rows over the same pictures and frozen parts; ``work`` keeps every branch and every row, done or under way."""

    pool: Pool
    cache: PoolCache
    frozen: Frozen
    config: ModelsConfig
    stages: Stages
    work: Path

    def branch_config(self, view: str, tokens: str) -> BranchConfig:
        """The branch of ``view``; ``tokens`` matters to SAM's alone."""
        own = self.config.branches[view]
        return dataclasses.replace(own, tokens=tokens) if own.encoder == "sam" else own

    def align(self, view: str, data: str, *, tokens: str = "positions") -> Path:
        """Stage 1 of a branch on ``data`` (``G`` or ``GM``), unless it is done; the folder of its outcome."""
        config = self.branch_config(view, tokens)
        name = _branch_name(view, data, config.tokens)
        folder = self.work / "alignment" / name
        if (folder / "branch").is_dir():
            return folder / "branch"
        branch = Branch(config, self.frozen.encoder(view), llm_width=self.frozen.opt.width, text=True)
        task = AlignmentTask(branch, self.frozen.opt.tokenizer, options=self.stages.options)
        begin_alignment(task)

        def batch(step: int) -> tuple[Tensor, list[str], int]:
            rows = self.pool.rows(step, self.stages.batch, seed=1_000, kinds=data)
            features, texts = self.cache.batch(rows, seed=step, only=(view,))
            return branch.tokens(features[view]), texts, step

        self._fit(task, batch, self.stages.alignment, folder, f"stage 1, {name}")
        new = folder / "branch.new"
        shutil.rmtree(new, ignore_errors=True)
        save_alignment(task, new)
        return new.rename(folder / "branch")

    def train(self, row: Row) -> Path:
        """Both stages of ``row``, unless done; the folder of its system."""
        starts = {view: self.align(view, data, tokens=row.tokens) for view, data in row.stage1.items()}
        folder = self.work / "captioning" / row.name
        if (folder / "system").is_dir():
            return folder / "system"
        captioner = self.captioner(row)
        begin_captioning(captioner, starts, seed=row.seed)

        def batch(step: int) -> tuple[Mapping[str, Tensor], list[str]]:
            rows = self.pool.rows(step, self.stages.batch, seed=2_000 + row.seed, kinds=row.stage2)
            features, texts = self.cache.batch(rows, seed=step, only=tuple(row.stage1))
            return {view: branch.tokens(features[view]) for view, branch in captioner.named_branches()}, texts

        loop = dataclasses.replace(self.stages.captioning, seed=row.seed)
        self._fit(CaptioningTask(captioner, self.config.train_prompt), batch, loop, folder, f"stage 2, {row.name}")
        new = folder / "system.new"
        shutil.rmtree(new, ignore_errors=True)
        checkpoints.save_system(captioner, row.name, new)
        return new.rename(folder / "system")

    def captioner(self, row: Row) -> Captioner:
        """The captioner of ``row``, untrained."""
        return checkpoints.build_captioner({view: self.branch_config(view, row.tokens) for view in row.stage1}, self.frozen)

    def trained(self, row: Row) -> Captioner:
        """The captioner of ``row``, trained unless that is done."""
        return checkpoints.load_into(self.captioner(row), self.train(row))

    def summary(self, row: Row) -> dict[str, Any]:
        """How the trainings of ``row`` went, a :func:`log_summary` for each branch of stage 1 and for stage 2."""
        names = {
            view: _branch_name(view, data, self.branch_config(view, row.tokens).tokens) for view, data in row.stage1.items()
        }
        stage1 = {name: log_summary(self.work / "alignment" / name) for name in names.values()}
        return {"row": dataclasses.asdict(row), "stage1": stage1, "stage2": log_summary(self.work / "captioning" / row.name)}

    def _fit(self, task: nn.Module, batch: Callable[[int], Any], loop: LoopConfig, folder: Path, name: str) -> None:
        # With rows of a few dozen tokens a step takes a quarter longer on a CPU with the fused attention.
        with sdpa_kernel(SDPBackend.MATH):
            fit(task, batch, loop, folder, name=name)


def log_summary(folder: Path) -> dict[str, float]:
    """Steps, seconds, and every loss of a run: its mean over the first and over the last tenth of the steps."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    few = max(1, len(rows) // 10)
    told: dict[str, float] = {"steps": len(rows), "seconds": round(sum(row["seconds"] for row in rows))}
    for name in sorted(rows[-1].keys() - {"step", "seconds", "samples", "lr", "grad"}):
        first, last = (statistics.fmean(row[name] for row in some if name in row) for some in (rows[:few], rows[-few:]))
        told |= {f"{name}, first": round(first, 4), f"{name}, last": round(last, 4)}
    return told


def _branch_name(view: str, data: str, tokens: str) -> str:
    return f"{view}-{data}" + (f".{tokens}" if tokens != "positions" else "")
