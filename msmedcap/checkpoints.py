"""Model folders: what is written, what is read, and the strictness in between.

A folder holds ``config.json`` (:class:`~msmedcap.config.ModelsConfig`), the frozen parts ``clip/``, ``sam/``, ``opt/`` and under
``systems/NAME/`` only what was trained. What we save is 16-bit safetensors in shards below 9 MB; what we read may be of any type
and size. Loading is planned first (:mod:`msmedcap.memory`), goes tensor by tensor into modules that had no memory before, and is
strict: every key is used and every weight is found, or the load fails and says which. No pickle is read. A folder may lack
an encoder: the systems that need it are then missing, with the command that makes it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor, nn

from msmedcap import config as configs
from msmedcap import memory
from msmedcap.config import BranchConfig, ModelsConfig, SamConfig, UserError
from msmedcap.models.branch import Branch
from msmedcap.models.captioner import Captioner
from msmedcap.models.clip import ClipEncoder
from msmedcap.models.frozen import freeze
from msmedcap.models.opt import Opt
from msmedcap.models.opt_loading import load_opt
from msmedcap.models.packed import pack
from msmedcap.models.sam import SamEncoder, SamPrompts
from msmedcap.models.weights import INDEX, WEIGHTS, empty, load_into, read_weights
from msmedcap.systems import SAM_SIZES

__all__ = [
    "INDEX", "ROOT", "SHARD", "WEIGHTS", "Frozen", "Models", "Spare", "SystemConfig", "absent_part", "build_captioner",
    "folder_of", "load", "load_into", "load_system", "read_weights", "save_system", "save_weights",
]

log = logging.getLogger(__name__)
M = TypeVar("M", bound=nn.Module)

ROOT = Path(__file__).resolve().parent.parent / "checkpoints"
SHARD = "8MB"
HUB_BLIP2 = "Salesforce/blip2-opt-2.7b"


@dataclass(frozen=True)
class SystemConfig:
    """What stands beside a system's trained weights: its branches in prefix order."""

    name: str
    branches: dict[str, BranchConfig]


class Frozen:
    """The parts all systems share: one encoder per view, SAM's prompt half, OPT.

    A part that the folder lacks is None here; asking for it raises :class:`UserError` with the sentence in ``absent``.
    """

    def __init__(
        self,
        clip: ClipEncoder | None,
        sam: SamEncoder | None,
        prompts: SamPrompts | None,
        opt: Opt,
        absent: Mapping[str, str] | None = None,
    ) -> None:
        self._clip, self._sam, self._prompts = clip, sam, prompts
        self.opt = opt
        self.absent = dict(absent or {})

    @property
    def clip(self) -> ClipEncoder:
        """The CLIP-style encoder."""
        return self._there(self._clip, "clip")

    @property
    def sam(self) -> SamEncoder:
        """SAM's image encoder."""
        return self._there(self._sam, "sam")

    @property
    def prompts(self) -> SamPrompts:
        """SAM's prompt encoder and mask decoder."""
        return self._there(self._prompts, "sam_prompts")

    def has(self, part: str) -> bool:
        """Whether ``clip``, ``sam`` or ``sam_prompts`` is loaded."""
        return {"clip": self._clip, "sam": self._sam, "sam_prompts": self._prompts}[part] is not None

    def encoder(self, name: str) -> ClipEncoder | SamEncoder:
        """The encoder of the branch or view ``name``."""
        return self.clip if name == "clip" else self.sam

    def _there(self, part: M | None, name: str) -> M:
        if part is None:
            raise UserError(self.absent.get(name, f"These models have no {name}."))
        return part


class Spare:
    """The unquantised OPT behind one in 8 bit, loaded when it is first asked for; safe to ask from several threads."""

    def __init__(self, make: Callable[[], Opt | None]) -> None:
        self._make: Callable[[], Opt | None] | None = make
        self._opt: Opt | None = None
        self._lock = threading.Lock()

    def get(self) -> Opt | None:
        """The OPT; None where there is no room for it (tried once)."""
        with self._lock:
            if self._make:
                self._opt, self._make = self._make(), None
            return self._opt


@dataclass(frozen=True)
class Models:
    """A loaded model folder; ``captioners`` holds the systems it has weights for, ``missing`` says why others are not there.

    ``plan`` tells what lies where; ``spare`` is set where OPT is in 8 bit; ``folder`` is where all of it was read from.
    """

    config: ModelsConfig
    frozen: Frozen
    captioners: dict[str, Captioner]
    missing: dict[str, str]
    device: torch.device
    plan: memory.Plan | None = None
    spare: Spare | None = field(default=None, repr=False)
    folder: Path | None = None

    def fallback(self) -> Opt | None:
        """The unquantised OPT to decode with when the one in 8 bit says nothing of use; loaded on the first call.

        It may lie on another device than the rest: move prefixes to ``opt.model.device``. None where OPT is not in 8 bit, or where
        neither the device nor the host has room.
        """
        return self.spare.get() if self.spare else None


def folder_of(models: str) -> Path:
    """``demo`` and ``full`` as folders beside the package, else a path; :class:`UserError` if nothing is there."""
    folder = ROOT / models if models in ("demo", "full") else Path(models)
    if not (folder / "config.json").is_file():
        mend = "Use --models demo, or name a model folder."
        if models == "demo":
            mend = "Make them with: python -m msmedcap demo-weights."
        elif models == "full":
            mend = f"Make them with: python -m msmedcap convert hub {HUB_BLIP2} --out checkpoints/full."
        raise UserError(f"There are no models in {models!r}: no config.json. {mend}")
    return folder


def load(models: str, *, device: torch.device, load_8bit: bool = False, offload: bool = False) -> Models:
    """Everything in a model folder, frozen parts once, in evaluation mode on ``device``.

    ``load_8bit`` quantises OPT's layers; ``offload`` keeps those that do not fit on ``device`` in the host's memory or on the disk.
    What goes where is planned, logged and, if it cannot fit, refused (:class:`UserError`) before a weight is read.
    """
    if load_8bit and offload:
        raise UserError("An OPT in 8 bit cannot be offloaded; use one of --load-8bit and --offload.")
    folder = folder_of(models)
    config = configs.read(ModelsConfig, folder / "config.json")
    source = _opt_source(models, folder, config)
    absent = {part: absent_part(models, part, config) for part in ("clip", "sam", "sam_prompts") if not (folder / part).is_dir()}
    missing = _missing(models, folder, config, absent)
    able = tuple(name for name in config.systems if name not in missing)
    facts = memory.read_facts(folder, config, systems=able, opt=source)
    plan = memory.plan(facts, memory.Choice(device, load_8bit=load_8bit, offload=offload))
    # Nobody waits for a demo to fit; of the published size everybody wants to know.
    log.log(logging.INFO if sum(plan.needs.values()) > memory.SMALL else logging.DEBUG, "%s\n%s", models, plan.table())
    plan.check()

    def part(name: str, build: Callable[[], M], dtype: torch.dtype) -> M | None:
        return None if name in absent else freeze(load_into(empty(build), folder / name, device=device, dtype=dtype))

    frozen = Frozen(
        clip=part("clip", lambda: ClipEncoder(config.clip), plan.dtype),
        sam=part("sam", lambda: SamEncoder(config.sam), plan.dtype),
        # Its point embeddings are computed in fp32 whatever its weights are.
        prompts=part("sam_prompts", lambda: SamPrompts(config.sam), torch.float32),
        opt=load_opt(source, dtype=plan.dtype, device=device, load_8bit=load_8bit, device_map=plan.layout),
        absent=absent,
    )
    if device.type == "cpu" and plan.dtype == torch.bfloat16:  # at the demo's size and in fp32 there is nothing to gain
        pack(frozen.opt.model)
    captioners = {name: load_system(folder / "systems" / name, config, frozen, device=device).eval() for name in able}
    spare = Spare(lambda: _unquantised(source, facts, device)) if load_8bit else None
    return Models(config, frozen, captioners, missing, device, plan, spare, folder)


def build_captioner(branches: Mapping[str, BranchConfig], frozen: Frozen) -> Captioner:
    """An untrained captioner over the shared frozen parts."""
    parts = {n: Branch(b, frozen.encoder(b.encoder), llm_width=frozen.opt.width) for n, b in branches.items()}
    return Captioner(parts, frozen.opt)


def load_system(folder: Path, config: ModelsConfig, frozen: Frozen, *, device: torch.device | None = None) -> Captioner:
    """A system from its folder, in fp32 on ``device``; its branches must be those ``config`` names for it, in that order."""
    own = configs.read(SystemConfig, folder / "config.json")
    if tuple(own.branches) != config.systems.get(own.name):
        raise UserError(f"{folder} holds {own.name} with branches {list(own.branches)}; config.json says {config.systems}.")
    return load_into(empty(lambda: build_captioner(own.branches, frozen)), folder, device=device)


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


def _unquantised(source: str | Path, facts: memory.Facts, device: torch.device) -> Opt | None:
    """OPT as it is without quantising, on ``device`` or else the CPU; None where neither has room."""
    for place in dict.fromkeys((device, torch.device("cpu"))):
        dtype = memory.frozen_dtype(facts, place)
        needs = memory.opt_bytes(facts.parts["opt"], dtype) + memory.working_bytes(facts, dtype, facts.preset)
        if needs <= (free := memory.free_bytes(place)):
            log.info("loading OPT without quantising: %s on %s, %s free", memory.size(needs), place, memory.size(free))
            return load_opt(source, dtype=dtype, device=place)
        log.warning("OPT without quantising needs %s on %s, %s are free", memory.size(needs), place, memory.size(free))
    return None


def _opt_source(models: str, folder: Path, config: ModelsConfig) -> str | Path:
    """The folder of OPT, or its hub id; :class:`UserError` where it is neither."""
    local = folder / config.opt
    if local.is_dir():
        return local
    if "/" not in config.opt:  # a hub id has an owner
        raise UserError(absent_part(models, config.opt, config))
    return config.opt


def _missing(models: str, folder: Path, config: ModelsConfig, absent: Mapping[str, str]) -> dict[str, str]:
    """Why systems cannot be loaded, and what makes them."""
    missing = {}
    for name, views in config.systems.items():
        lacks = [config.branches[view].encoder for view in views if config.branches[view].encoder in absent]
        if not (folder / "systems" / name / "config.json").is_file():
            missing[name] = f"{name} has no weights in {models!r}; make them with: {_command(models, name, config)}."
        elif lacks:
            missing[name] = f"{name} cannot be used: {' '.join(absent[part] for part in lacks)}"
    return missing


def absent_part(models: str, part: str, config: ModelsConfig) -> str:
    """That ``models`` has no folder ``part``, and the command that makes it."""
    return f"{models!r} lacks the folder {part}; make it with: {_command(models, part, config)}."


def _command(models: str, what: str, config: ModelsConfig) -> str:
    """The command that makes a part or a system: our own training at demo scale, a conversion at the published one."""
    if config.clip.stem == "conv":
        return "python -m msmedcap demo-weights"
    out = "checkpoints/full" if models == "full" else models
    if what == "segmenter":
        return f"python -m msmedcap train segmentation --config full-segmentation --set models={out} --out-models {out}"
    if what in ("clip", config.opt, "BLIP2"):
        return f"python -m msmedcap convert hub {HUB_BLIP2} --out {out}"
    if what in ("sam", "sam_prompts"):
        return f"python -m msmedcap convert sam facebook/sam-vit-{_sam_name(config.sam)} --out {out}"
    return f"python -m msmedcap convert lavis CHECKPOINT.pth --sam-size {_sam_name(config.sam)[0]} --out {out}"


def _sam_name(config: SamConfig) -> str:
    """``base``, ``large`` or ``huge``: SAM's name of that size on the hub (``huge`` for a size of nobody's)."""
    letter = next((letter for letter, known in SAM_SIZES.items() if known.hidden == config.hidden), "h")
    return {"b": "base", "l": "large", "h": "huge"}[letter]
