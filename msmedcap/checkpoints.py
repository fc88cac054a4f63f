"""Model folders: what is written, what is read, and the strictness in between.

A folder holds ``config.json`` (:class:`~msmedcap.config.ModelsConfig`), the frozen parts ``clip/``, ``sam/``, ``opt/`` and under
``systems/NAME/`` only what was trained. Weights are 16-bit safetensors in shards below 9 MB. Loading is strict: every key is used
and every weight is found, or the load fails and says which. No pickle is read.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from msmedcap import config as configs
from msmedcap.config import BranchConfig, ModelsConfig, UserError
from msmedcap.models.branch import Branch
from msmedcap.models.captioner import Captioner
from msmedcap.models.clip import ClipEncoder
from msmedcap.models.frozen import freeze
from msmedcap.models.opt import Opt
from msmedcap.models.opt_loading import load_opt
from msmedcap.models.sam import SamEncoder, SamPrompts

log = logging.getLogger(__name__)
M = TypeVar("M", bound=nn.Module)

ROOT = Path(__file__).resolve().parent.parent / "checkpoints"
SHARD = "8MB"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class SystemConfig:
    """What stands beside a system's trained weights: its branches in prefix order."""

    name: str
    branches: dict[str, BranchConfig]


@dataclass(frozen=True)
class Frozen:
    """The parts all systems share: one encoder per view, SAM's prompt half, OPT."""

    clip: ClipEncoder
    sam: SamEncoder
    prompts: SamPrompts
    opt: Opt

    def encoder(self, name: str) -> ClipEncoder | SamEncoder:
        """The encoder of the branch or view ``name``."""
        return self.clip if name == "clip" else self.sam


@dataclass(frozen=True)
class Models:
    """A loaded model folder; ``captioners`` holds the systems it has weights for, ``missing`` says why others are not there."""

    config: ModelsConfig
    frozen: Frozen
    captioners: dict[str, Captioner]
    missing: dict[str, str]
    device: torch.device


def folder_of(models: str) -> Path:
    """``demo`` and ``full`` as folders beside the package, else a path; :class:`UserError` if nothing is there."""
    folder = ROOT / models if models in ("demo", "full") else Path(models)
    if not (folder / "config.json").is_file():
        mend = "Use --models demo, or name a model folder."
        if models == "demo":
            mend = "Make them with: python -m msmedcap demo-weights."
        raise UserError(f"There are no models in {models!r}: no config.json. {mend}")
    return folder


def load(models: str, *, device: torch.device, load_8bit: bool = False) -> Models:
    """Everything in a model folder, frozen parts once, in evaluation mode on ``device``."""
    folder = folder_of(models)
    config = configs.read(ModelsConfig, folder / "config.json")
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    local = folder / config.opt
    opt = load_opt(local if local.is_dir() else config.opt, dtype=dtype, device=device, load_8bit=load_8bit)
    frozen = Frozen(
        clip=_frozen(ClipEncoder(config.clip), folder / "clip", device),
        sam=_frozen(SamEncoder(config.sam), folder / "sam", device),
        prompts=_frozen(SamPrompts(config.sam), folder / "sam_prompts", device),
        opt=opt,
    )
    captioners, missing = {}, {}
    for name in config.systems:
        if not (folder / "systems" / name / "config.json").is_file():
            missing[name] = f"{name} has no weights in {models!r}; train them with: python -m msmedcap demo-weights."
            continue
        captioners[name] = load_system(folder / "systems" / name, config, frozen).to(device).eval()
    return Models(config, frozen, captioners, missing, device)


def build_captioner(branches: Mapping[str, BranchConfig], frozen: Frozen) -> Captioner:
    """An untrained captioner over the shared frozen parts."""
    parts = {n: Branch(b, frozen.encoder(b.encoder), llm_width=frozen.opt.width) for n, b in branches.items()}
    return Captioner(parts, frozen.opt)


def load_system(folder: Path, config: ModelsConfig, frozen: Frozen) -> Captioner:
    """A system from its folder; its branches must be those ``config`` names for it, in that order."""
    own = configs.read(SystemConfig, folder / "config.json")
    if tuple(own.branches) != config.systems.get(own.name):
        raise UserError(f"{folder} holds {own.name} with branches {list(own.branches)}; config.json says {config.systems}.")
    captioner = build_captioner(own.branches, frozen)
    load_into(captioner, folder)
    return captioner


def save_system(captioner: Captioner, name: str, folder: Path) -> None:
    """What was trained of a system, and its config, into ``folder``."""
    branches = {n: b.config for n, b in captioner.named_branches()}
    save_weights(captioner.state_dict(), folder)
    (folder / "config.json").write_text(configs.to_json(SystemConfig(name, branches)), encoding="utf-8")


def save_weights(state: Mapping[str, Tensor], folder: Path) -> None:
    """Weights as 16-bit safetensors in shards below 9 MB; what lay in ``folder`` before is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {k: v.detach().cpu().half() if v.is_floating_point() else v.detach().cpu() for k, v in state.items()}
    save_torch_state_dict(half, folder, max_shard_size=SHARD)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a weight folder, floats as float32; raises :class:`UserError` when a file is missing or damaged."""
    index = folder / INDEX
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.is_file() else [WEIGHTS]
        parts = [load_file(folder / name) for name in names]
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"The weights in {folder} cannot be read ({error}); copy the folder again.") from None
    return {k: v.float() if v.is_floating_point() else v for part in parts for k, v in part.items()}


def load_into(module: nn.Module, folder: Path) -> None:
    """Strictly load a weight folder into ``module``; raises :class:`UserError` naming every key that is missing or left over."""
    state = read_weights(folder)
    own = module.state_dict()
    wrong = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    problems = {"lacks": own.keys() - state.keys(), "has unknown": state.keys() - own.keys(), "has wrong shapes for": wrong}
    told = "; ".join(f"{what} {sorted(keys)}" for what, keys in problems.items() if keys)
    if told:
        raise UserError(f"The weights in {folder} do not fit this version: the file {told}.")
    module.load_state_dict(state)


def _frozen(module: M, folder: Path, device: torch.device) -> M:
    load_into(module, folder)
    return freeze(module).to(device)
