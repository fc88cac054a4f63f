"""SEG-SAM beside a models folder: made from SAM's weights and the class file, saved, loaded, and given further classes.

A segmenter folder holds ``config.json`` (:class:`~msmedcap.config.SegmenterConfig`) and 16-bit safetensors with everything that was
trained, SAM's prompt encoder and mask decoder included, and what the text encoder said of every class. It needs the SAM
encoder it was trained on and nothing else: the text encoder only reads classes that are new. Loading is strict.
Comes in: the frozen parts of a models folder, the classes. Goes out: a :class:`~msmedcap.models.segmenter.Segmenter`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from msmedcap import config as configs
from msmedcap.checkpoints import save_weights
from msmedcap.config import SamConfig, SegmenterConfig, UserError
from msmedcap.data.classes import PARTS, ClassBook, MedicalClass, plain
from msmedcap.models.opt import Opt
from msmedcap.models.sam import SamPrompts
from msmedcap.models.segmenter import Segmenter
from msmedcap.models.text import read_with_hub, read_with_opt
from msmedcap.models.weights import empty, load_into

__all__ = ["FOLDER", "add_new_classes", "class_texts", "load_segmenter", "make_segmenter", "save_segmenter"]

FOLDER = "segmenter"


def class_texts(classes: Sequence[MedicalClass], encoder: str, opt: Opt | None) -> Tensor:
    """What a text encoder says of the classes' sentences: ``[K,P,D_text]``, fp32 on the CPU.

    ``encoder`` is ``"opt"`` (then ``opt`` is read with) or a hub id; raises :class:`UserError` where it is not there.
    """
    sentences = [sentence for one in classes for sentence in one.sentences()]
    if encoder != "opt":
        return read_with_hub(encoder, sentences).unflatten(0, (len(classes), len(PARTS)))
    if opt is None:
        raise UserError("The class texts are read with the language model, which is not loaded here; load the models folder's.")
    return read_with_opt(opt, sentences).unflatten(0, (len(classes), len(PARTS)))


def make_segmenter(
    book: ClassBook,
    names: Sequence[str],
    sam: SamConfig,
    published: SamPrompts,
    *,
    opt: Opt | None = None,
    text_encoder: str = "opt",
    semantics: bool = True,
    text: bool = True,
    tokens: int = 24,
    dense_prompts: bool = False,
    seed: int = 0,
) -> Segmenter:
    """An untrained segmenter for the classes ``names`` of ``book``, begun with the weights of SAM's prompt half.

    ``semantics`` and ``text`` switch parts off, ``dense_prompts`` is as in the config; what is drawn is drawn from ``seed``.
    Raises :class:`UserError` for an unknown class.
    """
    classes = [book.get(name) for name in names]
    texts = class_texts(classes, text_encoder, opt) if text else None
    config = SegmenterConfig(
        classes=tuple(c.name for c in classes),
        summarised=len(classes),
        semantics=semantics,
        text=text,
        tokens=tokens,
        text_encoder=text_encoder,
        text_width=SegmenterConfig.text_width if texts is None else texts.shape[-1],
        text_parts=len(PARTS),
        dense_prompts=dense_prompts,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Segmenter(config, sam, texts).start_from(published)


def save_segmenter(segmenter: Segmenter, folder: Path) -> None:
    """Write the segmenter's weights and config into ``folder``; what lay there before is replaced."""
    save_weights(segmenter.state_dict(), folder)
    (folder / "config.json").write_text(configs.to_json(segmenter.config), encoding="utf-8")


def load_segmenter(folder: Path, sam: SamConfig, *, device: torch.device | None = None) -> Segmenter:
    """The segmenter in ``folder``, in fp32 and evaluation mode on ``device``; ``sam`` is the config of the SAM it was trained on.

    Raises :class:`UserError` where a file is missing, or a weight is missing, left over or of another shape.
    """
    config = configs.read(SegmenterConfig, folder / "config.json")
    shape = (len(config.classes), config.text_parts, config.text_width)

    def build() -> Segmenter:
        return Segmenter(config, sam, torch.zeros(shape) if config.text else None)

    return load_into(empty(build), folder, device=device).eval()


def add_new_classes(segmenter: Segmenter, book: ClassBook, *, opt: Opt | None = None) -> tuple[str, ...]:
    """Let ``segmenter`` name the classes of ``book`` that it does not know in any spelling; returns their names.

    Each is read once with the text encoder of the training. Every other class keeps its logits. A description that was edited
    since has no effect on a class that is known: its vector was trained with the old one. Raises :class:`UserError` without text.
    """
    known = {plain(name) for name in segmenter.names}
    new = [c for c in book.classes if plain(c.name) not in known]
    if new:
        segmenter.add_classes([c.name for c in new], class_texts(new, segmenter.config.text_encoder, opt))
    return tuple(c.name for c in new)
