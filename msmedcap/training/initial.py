"""What a stage begins with, and what stage 1 hands to stage 2.

Section 2.2: the CLIP branch begins with BLIP-2's Q-Former, the SAM branch with what BLIP-2's own began with: BERT's words,
self-attention and feed-forward (the queries' is a copy of the text's), all else drawn from N(0, 0.02). Section 2.3: a system
begins with its branches' outcomes of stage 1, which several systems may share.

Comes in: a task and names of folders. A *start* is a branch's outcome of stage 1 (``alignment/VIEW``), a system
(``systems/NAME``), a model folder that holds one of these, or a BERT's folder or hub id. Goes out: the same task with these
weights. Strict: sizes are compared and a start gives all the weights of its kind, or :class:`UserError` says what does not fit.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msmedcap import config as configs
from msmedcap.checkpoints import SystemConfig, save_weights
from msmedcap.config import BranchConfig, ModelsConfig, QFormerConfig, UserError
from msmedcap.convert.fetch import fetch, read_json
from msmedcap.convert.source import Source, open_source
from msmedcap.models.branch import Branch
from msmedcap.models.captioner import Captioner
from msmedcap.models.weights import read_weights
from msmedcap.training.alignment import AlignmentTask

log = logging.getLogger(__name__)

STD = 0.02  # BERT's initializer_range
SIZES = {
    "hidden": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads", "mlp": "intermediate_size",
}  # fmt: skip
QUERY_SIZES = ("hidden", "layers", "heads", "mlp", "queries", "cross_every")
TEXT_SIZES = ("vocab", "projection")
# A BERT's layer, and LAVIS' copies of its feed-forward for the queries.
LAYER = (
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense", "attention.output.LayerNorm",
    "intermediate.dense", "output.dense", "output.LayerNorm",
)  # fmt: skip
# The text half of a branch, which stage 2 has no use for.
TEXT = re.compile(r"qformer\.(words|positions)\.|qformer\.model\.encoder\.layer\.\d+\.(intermediate|output)\.")
PROJECTION = "projection."


def begin_alignment(task: AlignmentTask, starts: Sequence[str | Path] = (), *, seed: int = 0) -> None:
    """Draw every weight of ``task`` anew, then lay ``starts`` over them one after the other; before it moves to a device.

    A system has no text half: let BERT's lie below it. Raises :class:`UserError` for a start that does not fit.
    """
    draw(task, seed)
    for start in starts:
        found = _for_alignment(task, start)
        _take(task, found, str(start))
        log.info("stage 1 begins with %d of %d weights from %s", len(found), len(task.state_dict()), start)


def begin_captioning(captioner: Captioner, starts: Mapping[str, str | Path], *, seed: int = 0) -> None:
    """Give every branch of ``captioner`` the weights of its start, ``{view: start}``.

    A start that has no projection into the language model, as stage 1 has none, leaves it drawn: the same for a branch in
    whatever system. Raises :class:`UserError` for a branch without a start and for a start that does not fit.
    """
    branches = captioner.named_branches()
    if missing := [view for view, _ in branches if view not in starts]:
        raise UserError(f"Stage 2 begins with the branches of stage 1; name the folder of {', '.join(missing)}.")
    found = {view: _for_captioning(view, branch, starts[view]) for view, branch in branches}
    for view, branch in branches:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            branch.projection.reset_parameters()
        _take(branch, found[view], str(starts[view]))
        log.info("the %s branch begins with the weights of %s", view, starts[view])


def save_alignment(task: AlignmentTask, folder: Path) -> None:
    """Stage 1's outcome as a start and as conversions write it: the task's weights without the branch's projection, its config."""
    state = {key: value for key, value in task.state_dict().items() if not key.startswith(f"branch.{PROJECTION}")}
    save_weights(state, folder)
    (folder / "config.json").write_text(configs.to_json(task.branch.config), encoding="utf-8")


def draw(task: AlignmentTask, seed: int) -> None:
    """Every weight anew from ``seed``: the Q-Former and ITG's head as BERT's, the other layers as torch begins them (so LAVIS)."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in task.modules():
            if isinstance(module, (nn.Linear, nn.LayerNorm, nn.Embedding)):
                module.reset_parameters()
        for module in [*task.branch.qformer.modules(), *task.itg_head.modules()]:
            if isinstance(module, (nn.Linear, nn.Embedding)):
                module.weight.normal_(std=STD)
            if isinstance(module, nn.Linear):
                module.bias.zero_()
        task.branch.qformer.query_tokens.normal_(std=STD)
        task.itg_bias.zero_()
        task.temp.fill_(task.options.temperature)


def _for_alignment(task: AlignmentTask, start: str | Path) -> dict[str, Tensor]:
    folder, config, view = fetch(str(start)), task.branch.config, task.branch.config.encoder
    kind, folder = _kind(folder, view)
    if kind == "bert":
        with open_source(folder) as source:
            return _from_bert(source, read_json(folder), config.qformer, folder)
    if kind == "stage 1":
        _alike(configs.read(BranchConfig, folder / "config.json"), config, folder, text=True)
        state, wanted = read_weights(folder), set(task.state_dict())
        return _whole(state, {key for key in wanted if not key.startswith(f"branch.{PROJECTION}")}, folder)
    branch = _of_system(folder, view, config)
    wanted = {key for key in task.branch.state_dict() if not TEXT.match(key) and not key.startswith(PROJECTION)}
    kept = {key: value for key, value in branch.items() if not key.startswith(PROJECTION)}
    return {f"branch.{key}": value for key, value in _whole(kept, wanted, folder).items()}


def _for_captioning(view: str, branch: Branch, start: str | Path) -> dict[str, Tensor]:
    kind, folder = _kind(fetch(str(start)), view)
    wanted = {key for key in branch.state_dict() if not key.startswith(PROJECTION)}
    if kind == "stage 1":
        _alike(configs.read(BranchConfig, folder / "config.json"), branch.config, folder, text=False)
        state = {k.removeprefix("branch."): v for k, v in read_weights(folder).items() if k.startswith("branch.")}
        found = _whole({k: v for k, v in state.items() if not TEXT.match(k)}, wanted, folder)
    elif kind == "system":
        found = _whole(_of_system(folder, view, branch.config), set(branch.state_dict()), folder)
    else:
        raise UserError(f"{start} is a BERT, which stage 1 begins with; stage 2 begins with what stage 1 made of a branch.")
    _fit(branch, found, str(start))
    return found


def _kind(folder: Path, view: str) -> tuple[str, Path]:
    """What lies in ``folder`` (``bert``, ``stage 1`` or ``system``), and the folder of it, which may lie inside a model folder."""
    raw = read_json(folder)
    if "views" in raw:
        known = configs.read(ModelsConfig, folder / "config.json").systems
        names = sorted((name for name, views in known.items() if view in views), key=lambda name: name != "BLIP2")
        for inside in (folder / "alignment" / view, *(folder / "systems" / name for name in names)):
            if (inside / "config.json").is_file():
                return _kind(inside, view)
        raise UserError(f"{folder} holds no weights of a {view} branch: neither alignment/{view} nor a system that has one.")
    if "encoder" in raw:
        return "stage 1", folder
    if "branches" in raw:
        return "system", folder
    if raw.get("model_type") == "bert":
        return "bert", folder
    mend = "; convert it first: python -m msmedcap convert hub" if raw.get("model_type") == "blip-2" else ""
    raise UserError(f"{folder} is neither a BERT nor a branch, a system or a model folder of this program{mend}.")


def _of_system(folder: Path, view: str, config: BranchConfig) -> dict[str, Tensor]:
    own = configs.read(SystemConfig, folder / "config.json")
    if view not in own.branches:
        raise UserError(f"{folder} holds {own.name}, which has no {view} branch.")
    _alike(own.branches[view], config, folder, text=False)
    before = f"branches.{view}."
    return {k.removeprefix(before): v for k, v in read_weights(folder).items() if k.startswith(before)}


def _alike(own: BranchConfig, wanted: BranchConfig, folder: Path, *, text: bool) -> None:
    """Refuse a branch of another construction: not every difference shows in a shape."""

    def facts(config: BranchConfig) -> dict[str, Any]:
        sizes = dataclasses.asdict(config.qformer)
        names = QUERY_SIZES + (TEXT_SIZES if text else ())
        # How tokens are cut is SAM's affair alone.
        cut = {"tokens": config.tokens} if config.encoder == "sam" else {}
        return {"encoder": config.encoder, "norm": config.norm} | cut | {name: sizes[name] for name in names}

    there, here = facts(own), facts(wanted)
    if other := [f"{k} {there[k]} for {here[k]}" for k in here if k in there and there[k] != here[k]]:
        raise UserError(f"The branch in {folder} is of another construction ({', '.join(other)}); begin with another.")


def _whole(state: Mapping[str, Tensor], wanted: set[str], folder: Path) -> dict[str, Tensor]:
    if other := sorted(wanted ^ state.keys()):
        what = "lack" if other[0] in wanted else "have besides"
        raise UserError(f"The weights in {folder} {what} {other[0]} ({len(other)} names differ); write them again.")
    return dict(state)


def _fit(module: nn.Module, found: Mapping[str, Tensor], start: str) -> None:
    own = module.state_dict()
    for key, value in found.items():
        if value.shape != own[key].shape:
            sizes = f"{list(value.shape)} for {list(own[key].shape)}"
            raise UserError(f"{start} does not fit: its {key} is {sizes}; begin with weights of this size.")


def _take(module: nn.Module, found: Mapping[str, Tensor], start: str) -> None:
    _fit(module, found, start)
    own = module.state_dict()
    with torch.no_grad():
        for key, value in found.items():
            own[key].copy_(value)


def _from_bert(source: Source, raw: Mapping[str, Any], config: QFormerConfig, folder: Path) -> dict[str, Tensor]:
    """BERT's weights under the names of :class:`AlignmentTask`, as LAVIS' ``init_Qformer`` and ``blip2_qformer`` place them."""
    sizes = {theirs: getattr(config, ours) for ours, theirs in SIZES.items()}
    if other := [f"{name} {raw.get(name)} for {size}" for name, size in sizes.items() if raw.get(name) != size]:
        raise UserError(f"The BERT in {folder} is of another size than the Q-Former ({', '.join(other)}); begin with another.")
    # Files are named from BertModel or from a class around it, and the oldest have TensorFlow's names of a norm's weights.
    oldest = {"gamma": "weight", "beta": "bias"}
    plain = {
        re.sub(r"(?<=LayerNorm\.)(gamma|beta)$", lambda found: oldest[found[1]], key.removeprefix("bert.")): key
        for key in source.keys()  # noqa: SIM118 - not a mapping
    }

    def read(name: str) -> Tensor:
        if name not in plain:
            raise UserError(f"{folder} lacks BERT's {name}; download it again.")
        return source.tensor(plain[name]).float()

    found = _embeddings(read, config, folder)
    for layer, name, part in itertools.product(range(config.layers), LAYER, ("weight", "bias")):
        before, value = f"branch.qformer.model.encoder.layer.{layer}.", read(f"encoder.layer.{layer}.{name}.{part}")
        found[f"{before}{name.replace('attention.self', 'attention.attention')}.{part}"] = value
        if not name.startswith("attention."):
            found[f"{before}{name.replace('.', '_query.', 1)}.{part}"] = value
    if "cls.predictions.bias" in plain:
        for theirs, ours in (("dense", "itg_head.0"), ("LayerNorm", "itg_head.2")):
            for part in ("weight", "bias"):
                found[f"{ours}.{part}"] = read(f"cls.predictions.transform.{theirs}.{part}")
        bias = read("cls.predictions.bias")
        found["itg_bias"] = torch.cat([bias, bias.new_zeros(config.vocab - len(bias))])
    return found


def _embeddings(read: Callable[[str], Tensor], config: QFormerConfig, folder: Path) -> dict[str, Tensor]:
    """BERT's tables and their norm. The Q-Former has no table of sentence kinds (LAVIS' has none); one word more is [DEC]."""
    words = read("embeddings.word_embeddings.weight")
    if config.vocab - len(words) not in (0, 1):
        raise UserError(
            f"The BERT in {folder} knows {len(words)} words, the Q-Former {config.vocab}, where only [DEC] may be one more; "
            "begin with the BERT whose tokenizer is used."
        )
    more = torch.empty(config.vocab - len(words), words.shape[1])
    more.normal_(std=STD, generator=torch.Generator().manual_seed(0))
    return {
        "branch.qformer.model.layernorm.weight": read("embeddings.LayerNorm.weight"),
        "branch.qformer.model.layernorm.bias": read("embeddings.LayerNorm.bias"),
        "branch.qformer.positions.weight": read("embeddings.position_embeddings.weight"),
        "branch.qformer.words.weight": torch.cat([words, more]),
    }
