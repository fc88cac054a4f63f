"""Segmenters at test size, every weight drawn: what the tests of SEG-SAM's parts share."""

from __future__ import annotations

import torch
from torch import Tensor

from msmedcap.config import SegmenterConfig
from msmedcap.models.sam import SamPrompts
from msmedcap.models.segmenter import Segmenter
from tests import sizes

NAMES = ("Left Lung", "Right Lung", "liver", "aorta", "nodule")
PARTS, WIDTH = 3, 16
SIDE = sizes.config().sam.image_size


def config(*, semantics: bool = True, text: bool = True, dense: bool = False) -> SegmenterConfig:
    return SegmenterConfig(
        classes=NAMES, summarised=len(NAMES), semantics=semantics, text=text, tokens=6, text_width=WIDTH, text_parts=PARTS,
        dense_prompts=dense,
    )  # fmt: skip


def texts(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, PARTS, WIDTH, generator=torch.Generator().manual_seed(seed))


def segmenter(*, semantics: bool = True, text: bool = True, dense: bool = False, seed: int = 0) -> Segmenter:
    """A segmenter in evaluation mode whose every weight is drawn; what the text encoder said stays what it was."""
    sam = sizes.config().sam
    made = Segmenter(config(semantics=semantics, text=text, dense=dense), sam, texts(len(NAMES)) if text else None)
    said = {k: v.clone() for k, v in made.state_dict().items() if k in ("texts.texts", "texts.mean", "texts.deviation")}
    sizes.randomise(made, seed)
    made.load_state_dict(said, strict=False)
    return made


def untrained(published: SamPrompts, *, semantics: bool = True, text: bool = True, seed: int = 0) -> Segmenter:
    """A segmenter as training begins: SAM's weights, the rest drawn as the classes draw it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Segmenter(
            config(semantics=semantics, text=text), sizes.config().sam, texts(len(NAMES)) if text else None
        )
    return made.start_from(published).eval()


def features(count: int, seed: int = 0) -> Tensor:
    """Feature maps ``[count,C,h,w]``, about as large as SAM's."""
    sam = sizes.config().sam
    grid = sam.image_size // sam.patch
    return torch.randn(count, sam.out, grid, grid, generator=torch.Generator().manual_seed(seed))
