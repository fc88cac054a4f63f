"""What a stage is trained with: its task over the frozen parts it needs and no others, and what is done with its outcome.

Comes in: a :class:`~msmedcap.training.config.TrainConfig` and a model folder. Goes out: a :class:`Kit` for stage 1 of a branch
(:func:`alignment_kit`, which loads no language model) or stage 2 of a system (:func:`captioning_kit`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from msmedcap import checkpoints, memory
from msmedcap.checkpoints import Frozen
from msmedcap.config import ModelsConfig, UserError, ViewSpec
from msmedcap.data.views import ViewFrame
from msmedcap.explain.attention import attention_maps
from msmedcap.models.branch import Branch
from msmedcap.models.clip import ClipEncoder
from msmedcap.models.frozen import freeze
from msmedcap.models.opt_loading import load_opt, source_shapes
from msmedcap.models.sam import SamEncoder
from msmedcap.models.tokens import Tokenizer, load_text_tokenizer, load_tokenizer, padded
from msmedcap.models.weights import empty, load_into
from msmedcap.training.alignment import AlignmentTask, attention_mask
from msmedcap.training.captioning import CaptioningTask
from msmedcap.training.config import TrainConfig
from msmedcap.training.defaults import AlignmentOptions
from msmedcap.training.initial import begin_alignment, begin_captioning, save_alignment
from msmedcap.training.mixture import Picture
from msmedcap.training.run_folder import Sample
from msmedcap.training.task_data import Batch, views_of

Encoder = ClipEncoder | SamEncoder
# The learnt tokens of a caption where nobody says otherwise; CaptioningTask's own.
CAPTION_TOKENS = 64
SHOWN = 384  # the longest side of a logged picture


@dataclass(frozen=True)
class Kit:
    """One stage of training.

    - ``make``: the task as it is built, before it has its first weights; ``task``: one that has them.
    - ``encoders``, ``specs``, ``branches``: the frozen encoders, what each looks at, and the task's branches, by view.
    - ``batch``: tokens by view, captions and the batch's number as the task takes them.
    - ``say``: pictures' tokens by view and their captions → what the model in training says of each picture: in stage 2 its
      caption, in stage 1 the nearest of these captions.
    - ``save``: a task's outcome into a folder, which ``outcome`` names.
    """

    name: str
    outcome: str
    make: Callable[[], nn.Module]
    task: nn.Module
    encoders: dict[str, Encoder]
    specs: dict[str, ViewSpec]
    branches: dict[str, Branch]
    batch: Callable[[dict[str, Tensor], list[str], int], Any]
    say: Callable[[dict[str, Tensor], list[str]], list[str]]
    device: torch.device
    save: Callable[[nn.Module, Path], None]

    @torch.no_grad()
    def tokens(self, inputs: Mapping[str, Tensor], *, encoded: bool) -> dict[str, Tensor]:
        """Each branch's tokens ``[b,N,D_enc]`` in fp32 of its views ``[b,3,S,S]``, or (``encoded``) of the encoder's output."""
        found = {}
        for view, encoder in self.encoders.items():
            value = inputs[view].to(self.device)
            value = value if encoded else encoder(value.to(next(encoder.parameters()).dtype))
            found[view] = self.branches[view].tokens(value).float()
        return found

    def task_batch(self, batch: Batch, number: int, *, encoded: bool) -> Any:
        """``batch`` as the task takes it."""
        return self.batch(self.tokens(batch.inputs, encoded=encoded), batch.captions, number)

    @torch.no_grad()
    def samples(self, pictures: Sequence[Picture]) -> list[Sample]:
        """What the model says of ``pictures``, and where the last branch's queries look, on pictures small enough for a log."""
        views = [views_of(picture.pixels, self.specs) for picture in pictures]
        tokens = self.tokens({name: torch.stack([v[name] for v in views]) for name in self.specs}, encoded=False)
        truths = [picture.captions[0] for picture in pictures]
        said = self.say(tokens, truths)
        shown = [_small(picture.pixels) for picture in pictures]
        last = list(self.branches)[-1]
        looked = [self._attention(last, tokens[last][i : i + 1], pixels) for i, pixels in enumerate(shown)]
        return [Sample(*parts) for parts in zip(shown, said, truths, looked, strict=True)]

    def _attention(self, view: str, tokens: Tensor, pixels: np.ndarray) -> np.ndarray | None:
        branch, encoder = self.branches[view], self.encoders[view]
        if isinstance(encoder, SamEncoder):
            if branch.config.tokens != "positions":
                return None  # a channel has no place on the picture
            side = encoder.config.image_size // encoder.config.patch
            places = lambda values: values.cpu().unflatten(-1, (side, side))  # noqa: E731
        else:
            places = lambda values: encoder.places(values.cpu())  # noqa: E731
        frame = ViewFrame(self.specs[view], *pixels.shape[:2])
        return attention_maps(branch.attention(tokens), branch=view, places=places, frame=frame)[-1].image()


def alignment_kit(config: TrainConfig, models: ModelsConfig, folder: Path, device: torch.device) -> Kit:
    """Stage 1 of ``config.branch`` over the encoder in ``folder``; :class:`UserError` for what is not there or does not fit."""
    view = config.branch
    if view not in models.branches:
        raise UserError(f"There is no branch {view!r} in these models; set branch to one of {', '.join(models.branches)}.")
    _check_starts(config, (view,))
    opt = _opt_source(folder, models)
    width = source_shapes(opt)["model.decoder.embed_tokens.weight"][1]
    encoders = _encoders(models, folder, (models.branches[view].encoder,), device, opt)
    tokenizer = load_text_tokenizer(config.tokenizer) if config.tokenizer else load_tokenizer(opt)
    own = models.branches[view]
    own = dataclasses.replace(
        own, qformer=dataclasses.replace(own.qformer, text_length=config.text_length or own.qformer.text_length)
    )

    def make() -> AlignmentTask:
        branch = Branch(own, encoders[own.encoder], llm_width=width, text=True)
        return AlignmentTask(branch, tokenizer, options=AlignmentOptions(hard_after=config.hard_after))

    task = make()
    begin_alignment(task, [_start(name) for name in config.init.get(view, ())], seed=config.seed)

    def save(task: nn.Module, out: Path) -> None:
        assert isinstance(task, AlignmentTask)
        save_alignment(task, out)

    return Kit(
        name=f"stage 1, {view} branch",
        outcome="branch",
        make=make,
        task=task,
        encoders={view: encoders[own.encoder]},
        specs={view: models.view(own.encoder)},
        branches={view: task.branch},
        batch=lambda tokens, captions, number: (tokens[view], captions, number),
        say=lambda tokens, captions: nearest(task, tokenizer, tokens[view], captions),
        device=device,
        save=save,
    )


def captioning_kit(config: TrainConfig, models: ModelsConfig, folder: Path, device: torch.device) -> Kit:
    """Stage 2 of ``config.system`` over the encoders and OPT in ``folder``, from its branches' starts; errors as in stage 1."""
    name = config.system
    if name not in models.systems:
        raise UserError(f"There is no system {name!r} in these models; set system to one of {', '.join(models.systems)}.")
    views = models.systems[name]
    _check_starts(config, views)
    if several := [view for view in views if len(config.init.get(view, ())) > 1]:
        raise UserError(f"In stage 2 a branch begins with one folder, not several; set init.{several[0]} to one.")
    branches = {view: models.branches[view] for view in views}
    source = _opt_source(folder, models)
    encoders = _encoders(models, folder, tuple(own.encoder for own in branches.values()), device, source)
    opt = load_opt(source, dtype=_dtype(models, folder, device, source), device=device)
    clip, sam = encoders.get("clip"), encoders.get("sam")
    assert (clip is None or isinstance(clip, ClipEncoder)) and (sam is None or isinstance(sam, SamEncoder))
    frozen = Frozen(clip, sam, None, opt)

    def make() -> CaptioningTask:
        captioner = checkpoints.build_captioner(branches, frozen)
        return CaptioningTask(captioner, models.train_prompt, max_tokens=config.text_length or CAPTION_TOKENS)

    task = make()
    starts = {view: _start(names[0]) for view, names in config.init.items() if names}
    begin_captioning(task.captioner, starts, seed=config.seed)

    def save(task: nn.Module, out: Path) -> None:
        assert isinstance(task, CaptioningTask)
        checkpoints.save_system(task.captioner, config.called or name, out)

    return Kit(
        name=f"stage 2, {name}",
        outcome="system",
        make=make,
        task=task,
        encoders={view: encoders[own.encoder] for view, own in branches.items()},
        specs={view: models.view(own.encoder) for view, own in branches.items()},
        branches=dict(task.captioner.named_branches()),
        batch=lambda tokens, captions, _: (tokens, captions),
        say=lambda tokens, _: task.captioner.generate(tokens, models.presets["fast"]),
        device=device,
        save=save,
    )


@torch.no_grad()
def nearest(task: AlignmentTask, tokenizer: Tokenizer, tokens: Tensor, captions: Sequence[str]) -> list[str]:
    """For each picture of ``tokens [b,N,D_enc]`` that of ``captions`` whose text is nearest to one of its queries."""
    qformer, config = task.branch.qformer, task.branch.config.qformer
    ids = padded(captions, tokenizer, config.text_length).to(tokens.device)
    mask = attention_mask(task.real(ids), config.queries, "itc")[:, config.queries :]
    states, texts = qformer.apart(qformer.look(task.branch.norm(tokens)), ids, mask)
    images = F.normalize(task.vision_proj(states), dim=-1)
    words = F.normalize(task.text_proj(texts[:, 0]), dim=-1)
    best = torch.einsum("iqd,jd->ijq", images, words).amax(-1).argmax(1)
    return [captions[i] for i in best.tolist()]


def _small(pixels: np.ndarray) -> np.ndarray:
    image = Image.fromarray(pixels)
    image.thumbnail((SHOWN, SHOWN))
    return np.asarray(image)


def _start(name: str) -> str:
    """A start by name; ``demo`` and ``full`` are the model folders of these names."""
    return str(checkpoints.folder_of(name)) if name in ("demo", "full") else name


def _check_starts(config: TrainConfig, views: Sequence[str]) -> None:
    if other := sorted(set(config.init) - set(views)):
        raise UserError(f"init names {', '.join(other)}, which is not trained here; it may name {', '.join(views)}.")


def _opt_source(folder: Path, models: ModelsConfig) -> str | Path:
    return folder / models.opt if (folder / models.opt).is_dir() else models.opt


def _dtype(models: ModelsConfig, folder: Path, device: torch.device, opt: str | Path) -> torch.dtype:
    return memory.frozen_dtype(memory.read_facts(folder, models, systems=(), opt=opt), device)


def _encoders(
    models: ModelsConfig, folder: Path, names: Sequence[str], device: torch.device, opt: str | Path
) -> dict[str, Encoder]:
    """The frozen encoders ``names`` of a model folder, on ``device``."""
    dtype, found = _dtype(models, folder, device, opt), dict[str, Encoder]()
    for name in names:
        if not (folder / name).is_dir():
            raise UserError(f"{folder} lacks the folder {name}, the encoder of this branch; convert it into there first.")
        module = empty(lambda: ClipEncoder(models.clip)) if name == "clip" else empty(lambda: SamEncoder(models.sam))
        found[name] = freeze(load_into(module, folder / name, device=device, dtype=dtype))
    return found
