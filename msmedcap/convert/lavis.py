"""LAVIS' ``.pth`` files into a model folder: stage 1, stage 2, the dual-branch files of MSMedCap's authors, EVA's encoder.

Comes in: a file ``{"model": {...}}`` (what lies beside the weights is not read). Goes out: ``systems/NAME`` from a file with a
projection to the language model, ``alignment/VIEW`` from one with stage 1's heads, ``clip/`` and ``sam/`` where it holds encoders.
Sizes are read from shapes. Shapes do not tell heads: they are those of the folder's ``config.json`` at the same width, else 64
wide in the Q-Former and 88 in EVA, as published. SAM's size no shape tells, so it must be said.

The authors have a second pair of names for the two branches (``clip_qformer``, ``sam_qformer``), trained on features they kept:
such a file has no ``ln_vision``, which is then taken from the folder's BLIP2. Stage 1's word head has a bias for each word, which
goes to ``itg_bias`` in ``alignment/VIEW``.
"""

from __future__ import annotations

import dataclasses
import json
import re
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from msmedcap import config as configs
from msmedcap import systems
from msmedcap.checkpoints import SystemConfig
from msmedcap.config import BranchConfig, ModelsConfig, QFormerConfig, SamConfig, UserError, ViewSpec, to_json
from msmedcap.convert.eva import heads, plan_encoder
from msmedcap.convert.ledger import Ledger
from msmedcap.convert.parts import Part, refuse_exchange, shapes, write_parts
from msmedcap.convert.sam import POINTS, hub_names
from msmedcap.convert.source import Source, open_source
from msmedcap.convert.writer import update_config
from msmedcap.models.qformer import QFormer
from msmedcap.models.sam import SamEncoder, SamPrompts

HEAD = 64  # the width of one of BERT's heads, 768 / 12
OPT_WIDTHS = {"facebook/opt-1.3b": 2048, "facebook/opt-2.7b": 2560, "facebook/opt-6.7b": 4096, "facebook/opt-13b": 5120}
HEADS = ("vision_proj.", "text_proj.", "itm_head.", "temp")
BERT_NAMES = {
    r"^embeddings\.LayerNorm\.": "model.layernorm.",
    r"^embeddings\.word_embeddings\.": "words.",
    r"^embeddings\.position_embeddings\.": "positions.",
    r"^encoder\.layer\.(\d+)\.(attention|crossattention)\.self\.": r"model.encoder.layer.\1.\2.attention.",
    r"^encoder\.": "model.encoder.",
}


@dataclass(frozen=True)
class _Side:
    """How a file names one branch: its Q-Former, its queries (the first of these that is there), projection and norm."""

    view: str
    qformer: str
    queries: tuple[str, ...]
    projection: str
    norm: str


# The authors' second stage has both sides; a first stage of theirs kept LAVIS' name for SAM's queries.
SIDES = (
    _Side("clip", "Qformer.", ("query_tokens",), "opt_proj.", "ln_vision."),
    _Side("sam", "sam_Qformer.", ("sam_query_tokens", "query_tokens"), "sam_opt_proj.", ""),
    _Side("clip", "clip_qformer.Qformer.", ("clip_qformer.query_tokens",), "clip_proj.", ""),
    _Side("sam", "sam_qformer.Qformer.", ("sam_qformer.query_tokens",), "sam_proj.", ""),
)


@dataclass
class _Job:
    """One conversion: the file, its account, the folder's config as it will be, and the parts to write."""

    file: Source
    ledger: Ledger
    out: Path
    config: ModelsConfig
    parts: list[Part] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keys = self.file.keys()

    def below(self, prefix: str) -> list[str]:
        return [key for key in self.keys if key.startswith(prefix)]


def convert_lavis(source: Path, out: Path, *, sam_size: str | None = None, base: Path | None = None) -> Ledger:
    """Convert the LAVIS file ``source`` into the model folder ``out``, beside what other conversions put there.

    ``sam_size`` (``b``, ``l``, ``h``) is needed for a file with a SAM branch unless ``out/sam`` is there; ``base`` is a model
    folder whose ``config.json`` stands in where ``out`` has none. Raises :class:`UserError`, before it writes, for a key it does
    not know, a weight that is missing or of another shape, and a size it cannot tell.
    """
    known = _known(out, base)
    with open_source(source) as file:
        job = _Job(file, Ledger(), out, known or systems.full())
        if found := plan_encoder(file, job.ledger, job.config.clip):
            part, clip = found
            job.parts.append(part)
            job.config = dataclasses.replace(job.config, clip=clip, views=_views(job.config, "clip", clip.image_size))
        sides = [side for side in SIDES if job.below(side.qformer)]
        if any(side.view == "sam" for side in sides):
            sam = _sam_config(job, sam_size, known, base)
            job.config = dataclasses.replace(job.config, sam=sam, views=_views(job.config, "sam", sam.image_size))
            _sam(job)
        if job.below("vision_proj."):
            _stage_one(job, sides)
        elif sides:
            _stage_two(job, sides)
        elif not job.parts:
            raise UserError(f"{source} is no checkpoint of LAVIS' BLIP-2: it holds neither a Q-Former nor EVA's encoder.")
        _leave(job)
        _keep_encoders(job)
        write_parts(file, job.parts, out, job.ledger)
    update_config(out, lambda _: job.config, job.config)
    return job.ledger


def _known(out: Path, base: Path | None) -> ModelsConfig | None:
    for folder in (out, base):
        if folder is not None and (folder / "config.json").is_file():
            return configs.read(ModelsConfig, folder / "config.json")
    return None


def _views(config: ModelsConfig, name: str, size: int) -> tuple[ViewSpec, ...]:
    return tuple(dataclasses.replace(view, size=size) if view.name == name else view for view in config.views)


def _sam_config(job: _Job, size: str | None, known: ModelsConfig | None, base: Path | None) -> SamConfig:
    """SAM's sizes: those said, those of the SAM in the folder, or those of ``base``."""
    there = known is not None and ((job.out / "sam").is_dir() or (base is not None and not (job.out / "config.json").is_file()))
    if size is None:
        if known is None or not there:
            raise UserError("The file holds a SAM branch and does not tell SAM's size; say it with --sam-size b, l or h.")
        return known.sam
    if size not in systems.SAM_SIZES:
        raise UserError(f"There is no SAM of size {size!r}; it is one of {', '.join(systems.SAM_SIZES)}.")
    if known is not None and there and known.sam != systems.SAM_SIZES[size]:
        raise UserError(f"{job.out} holds a SAM of another size than {size}; leave --sam-size out or use another folder.")
    return systems.SAM_SIZES[size]


def _sam(job: _Job) -> None:
    """Plan ``sam/`` and ``sam_prompts/`` where the file holds SAM itself, which stands there under the hub's names."""
    if "sam_model.vision_encoder.pos_embed" not in job.keys:
        return
    # Names alone are asked of this source, so the file may stand behind the shortened ones.
    below = {key.removeprefix("sam_model."): job.file for key in job.below("sam_model.")}
    named = {new: f"sam_model.{key}" for key, new in hub_names(Source(below, ExitStack())).items() if new}
    image = {new: key for new, key in named.items() if new.startswith("image.")}
    prompts = {new: key for new, key in named.items() if new not in image}
    sam = job.config.sam
    job.parts.append(Part("sam", "sam", image, wanted=shapes(lambda: SamEncoder(sam))))
    job.parts.append(Part("sam_prompts", "sam_prompts", prompts, wanted=shapes(lambda: SamPrompts(sam))))


def _stage_two(job: _Job, sides: list[_Side]) -> None:
    """Plan ``systems/NAME`` from the sides that are there, in prefix order (the language model reads CLIP's queries first)."""
    widths = {}
    for side in sides:
        if f"{side.projection}weight" not in job.keys:
            raise UserError(f"The file lacks {side.projection}weight, the projection of {side.qformer[:-1]} to the language model.")
        widths[side.view] = job.file.shape(f"{side.projection}weight")[0]
    if len(set(widths.values())) > 1:
        raise UserError(f"The file's branches are made for language models of different widths: {widths}.")
    width = next(iter(widths.values()))
    name = next((n for n, views in systems.SYSTEMS.items() if views == tuple(side.view for side in sides)), None)
    if name is None:
        raise UserError(f"The file names its branches in more than one way: {[side.qformer for side in sides]}.")
    branches: dict[str, BranchConfig] = {}
    tensors: dict[str, str] = {}
    fresh: dict[str, tuple[Tensor, str]] = {}
    wanted: dict[str, tuple[int, ...]] = {}
    for side in sides:
        branch, reads = _branch(job, side, text=False)
        branches[side.view], before = branch, f"branches.{side.view}."
        wanted |= {before + k: s for k, s in _shapes(branch, reads, text=False).items()}
        wanted |= {f"{before}projection.weight": (width, branch.qformer.hidden), f"{before}projection.bias": (width,)}
        tensors |= {before + new: key for new, key in _names(job, side).items()}
        if side.view == "clip" and not side.norm:
            fresh |= _kept_norm(job)
        tensors |= {f"{before}projection.{key.removeprefix(side.projection)}": key for key in job.below(side.projection)}
    texts = {"config.json": to_json(SystemConfig(name, branches))}
    job.parts.append(Part(f"systems/{name}", name, tensors, fresh, wanted, texts))
    job.config = dataclasses.replace(
        job.config,
        opt=_opt(job, width),
        branches=job.config.branches | branches,
        systems=job.config.systems | {name: systems.SYSTEMS[name]},
    )


def _kept_norm(job: _Job) -> dict[str, tuple[Tensor, str]]:
    """CLIP's trained norm from the folder's BLIP2, for a file made from features that had passed it."""
    folder, names = job.out / "systems" / "BLIP2", ("branches.clip.norm.weight", "branches.clip.norm.bias")
    if not folder.is_dir():
        raise UserError(
            "The file has no ln_vision: it was trained on features that had passed LAVIS' caption_coco_opt2.7b; "
            f"first convert hub Salesforce/blip2-opt-2.7b-coco into {job.out}."
        )
    with open_source(folder) as blip2:
        return {name: (blip2.tensor(name).clone(), "not in the file; ln_vision of the folder's BLIP2") for name in names}


def _opt(job: _Job, width: int) -> str:
    """The language model the projections are made for: the folder's own where it fits, else the published one so wide."""
    named = job.config.opt
    file = job.out / named / "config.json"
    if file.is_file():
        own = json.loads(file.read_text(encoding="utf-8"))
        if width not in (own.get("word_embed_proj_dim"), own.get("hidden_size")):
            raise UserError(f"The file is made for a language model {width} wide; {file.parent} is {own.get('hidden_size')} wide.")
        return named
    fitting = [hub for hub, wide in OPT_WIDTHS.items() if wide == width]
    if not fitting:
        raise UserError(f"The file is made for a language model {width} wide, as no published OPT is; put it into {job.out}/opt.")
    if named != fitting[0]:
        refuse_exchange(job.out, "opt")
    return fitting[0]


def _stage_one(job: _Job, sides: list[_Side]) -> None:
    """Plan ``alignment/VIEW``: the branch with its text half, and the heads of the three objectives."""
    if len(sides) != 1:
        raise UserError(f"The file holds stage 1's heads and {len(sides)} Q-Formers; stage 1 trains exactly one.")
    side = sides[0]
    branch, reads = _branch(job, side, text=True)
    hidden, joint, vocab = branch.qformer.hidden, branch.qformer.projection, branch.qformer.vocab
    wanted = {f"branch.{k}": s for k, s in _shapes(branch, reads, text=True).items()}
    for head, rows in (("vision_proj", joint), ("text_proj", joint), ("itm_head", 2), ("itg_head.0", hidden)):
        wanted |= {f"{head}.weight": (rows, hidden), f"{head}.bias": (rows,)}
    wanted |= {"itg_head.2.weight": (hidden,), "itg_head.2.bias": (hidden,), "itg_bias": (vocab,), "temp": ()}
    tensors = {f"branch.{new}": key for new, key in _names(job, side).items()}
    tensors |= {key: key for head in HEADS for key in job.below(head)}
    words = f"{side.qformer}cls.predictions."
    for theirs, ours in (("transform.dense.", "itg_head.0."), ("transform.LayerNorm.", "itg_head.2."), ("bias", "itg_bias")):
        tensors |= {ours + key.removeprefix(words + theirs): key for key in job.below(words + theirs)}
    _tied(job, f"{words}decoder.weight", f"{side.qformer}bert.embeddings.word_embeddings.weight")
    _tied(job, f"{words}decoder.bias", f"{words}bias")
    texts = {"config.json": to_json(branch)}
    job.parts.append(Part(f"alignment/{side.view}", f"stage 1/{side.view}", tensors, wanted=wanted, texts=texts))
    job.config = dataclasses.replace(job.config, branches=job.config.branches | {side.view: branch})


def _tied(job: _Job, second: str, first: str) -> None:
    """Leave ``second``, another name of ``first``; refuse if their numbers differ."""
    if second in job.keys and first in job.keys:
        if not torch.equal(job.file.tensor(second), job.file.tensor(first)):
            raise UserError(f"{second} is not {first}, to which LAVIS ties it; such a head cannot be converted.")
        job.ledger.left(second, f"the same numbers as {first}")


def _branch(job: _Job, side: _Side, *, text: bool) -> tuple[BranchConfig, int]:
    """The branch of ``side`` as its shapes tell it, and the width of the tokens it reads."""
    queries = next((key for key in side.queries if key in job.keys), None)
    layer = f"{side.qformer}bert.encoder.layer."
    needed = (f"{layer}0.crossattention.self.key.weight", f"{layer}0.intermediate_query.dense.weight")
    if queries is None or not set(needed) <= set(job.keys):
        raise UserError(f"The file holds only a piece of {side.qformer[:-1]}; it needs {', '.join((side.queries[0], *needed))}.")
    shape = job.file.shape
    hidden, reads = shape(queries)[2], shape(needed[0])[1]
    found = [re.match(re.escape(layer) + r"(\d+)\.(crossattention)?", key) for key in job.keys]
    layers = 1 + max(int(match[1]) for match in found if match)
    cross = sorted({int(match[1]) for match in found if match and match[2]})
    every = cross[1] if len(cross) > 1 else max(2, layers)
    if cross != list(range(0, layers, every)):
        raise UserError(f"{side.qformer[:-1]} has cross-attention in layers {cross}, which is no regular step.")
    near = next((b.qformer for b in job.config.branches.values() if b.qformer.hidden == hidden), None)
    qformer = dataclasses.replace(
        near or QFormerConfig(),
        hidden=hidden,
        layers=layers,
        heads=heads("The Q-Former", hidden, HEAD, near=(hidden, near.heads) if near else None),
        mlp=shape(needed[1])[0],
        queries=shape(queries)[1],
        cross_every=every,
    )
    if text:
        words = shape(f"{side.qformer}bert.embeddings.word_embeddings.weight")[0]
        qformer = dataclasses.replace(qformer, vocab=words, projection=shape("vision_proj.weight")[0])
    return _reading(job, side, reads, qformer), reads


def _reading(job: _Job, side: _Side, reads: int, qformer: QFormerConfig) -> BranchConfig:
    """How a branch of these sizes reads its encoder: the width of its tokens tells SAM's positions from SAM's channels."""
    if side.view == "clip":
        if reads != job.config.clip.hidden:
            raise UserError(f"{side.qformer[:-1]} reads tokens {reads} wide; CLIP's are {job.config.clip.hidden} wide.")
        return BranchConfig("clip", norm="layer", qformer=qformer)
    sam = job.config.sam
    widths = {(sam.image_size // sam.patch) ** 2: "channels", sam.out: "positions"}
    if reads not in widths:
        raise UserError(f"{side.qformer[:-1]} reads tokens {reads} wide; this SAM's are {' or '.join(map(str, widths))} wide.")
    return BranchConfig("sam", norm="identity", tokens=widths[reads], qformer=qformer)


def _shapes(branch: BranchConfig, reads: int, *, text: bool) -> dict[str, tuple[int, ...]]:
    qformer = shapes(lambda: QFormer(branch.qformer, encoder_width=reads, text=text))
    norm = {"norm.weight": (reads,), "norm.bias": (reads,)} if branch.norm == "layer" else {}
    return {f"qformer.{name}": shape for name, shape in qformer.items()} | norm


def _names(job: _Job, side: _Side) -> dict[str, str]:
    """The file's keys of ``side`` under the names of our branch."""
    names = {"qformer.query_tokens": next(key for key in side.queries if key in job.keys)}
    if side.norm:
        names |= {f"norm.{key.removeprefix(side.norm)}": key for key in job.below(side.norm)}
    bert = f"{side.qformer}bert."
    for key in job.below(bert):
        rest = key.removeprefix(bert)
        if rest == "embeddings.position_ids":
            job.ledger.left(key, "position numbers, a constant")
            continue
        for theirs, ours in BERT_NAMES.items():
            rest = re.sub(theirs, ours, rest)
        names[f"qformer.{rest}"] = key
    return names


def _keep_encoders(job: _Job) -> None:
    """Refuse to exchange an encoder that is there under systems other than the one that comes with its own."""
    written = next((part.label for part in job.parts if part.folder.startswith("systems/")), "")
    for part in job.parts:
        if part.folder in ("clip", "sam") and (job.out / part.folder).is_dir():
            refuse_exchange(job.out, part.folder, but=written)


def _leave(job: _Job) -> None:
    """Account for what some files carry of the frozen models."""
    taken = {key for part in job.parts for key in part.tensors.values()}
    for key in sorted(set(job.keys) - taken):
        if key.startswith("opt_model."):
            job.ledger.left(key, "OPT stays frozen in LAVIS: the published weights, which the hub has")
        elif key in ("clip_qformer.cls_token", "sam_qformer.cls_token"):
            job.ledger.left(key, "a token for classifying, which captioning does not read")
        elif key.startswith("sam_model.") and key.removeprefix("sam_model.") in POINTS:
            job.ledger.left(key, "SAM's table of points, a constant that comes with SAM itself")
