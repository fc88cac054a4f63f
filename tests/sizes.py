"""Real classes at test size: frozen parts, systems and a model folder, built in a fraction of a second from a seed.

Every weight is drawn, those that libraries start at zero or one included: two models that agree only because a table is
zero would agree here by accident no longer.
"""

from __future__ import annotations

import dataclasses
import io
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedTokenizerFast

from msmedcap import checkpoints, systems
from msmedcap.checkpoints import Frozen
from msmedcap.config import Decoding, ModelsConfig, to_json
from msmedcap.models.captioner import Captioner
from msmedcap.models.clip import ClipEncoder
from msmedcap.models.frozen import freeze
from msmedcap.models.opt import Opt
from msmedcap.models.opt_loading import build_opt
from msmedcap.models.sam import SamEncoder, SamPrompts
from msmedcap.models.tokens import train_tokenizer

M = TypeVar("M", bound=nn.Module)

CAPTIONS = (
    "Axial CT of the head. Hemorrhage on the left.",
    "Axial CT of the chest. Nodule on the right.",
    "Coronal CT of the abdomen. Stone on the left.",
    "Sagittal T2-weighted MRI of the spine. Disc herniation.",
    "Axial FLAIR MRI of the head. Infarct on the right.",
    "Frontal X-ray of the chest. Findings of pneumonia.",
    "Lateral X-ray of the chest. No findings.",
    "Ultrasound of the breast. Malignant mass.",
)

HEIGHT, WIDTH = 50, 80
"""Of :func:`png`, unless it is asked for another."""


def png(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> bytes:
    """A scan of noise, wider than high, so that frames that are mixed up show."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def config() -> ModelsConfig:
    """``systems.test()`` with short presets; ``paper`` looks through CLIP at another size, as the authors' does."""
    presets = {
        "fast": Decoding(prompt="The scan shows:", max_new_tokens=6),
        "paper": Decoding(beams=3, max_new_tokens=6, length_penalty=1.2, prompt="The scan shows:", view_sizes={"clip": 48}),
    }
    return dataclasses.replace(systems.test(), presets=presets)


def randomise(module: M, seed: int, *, scale: float = 0.15) -> M:
    """Draw every weight and statistic of ``module`` anew (factors and variances around 1), in place; sets evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if not value.is_floating_point():
                continue
            noise = torch.randn(value.shape, generator=generator) * scale
            ratio = name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight"))
            value.copy_(noise.exp() if ratio else noise)
    return module.eval()


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of at most 512 entries, trained on :data:`CAPTIONS`."""
    return train_tokenizer([*CAPTIONS, "The scan shows: a photo of\n"], config().branches["clip"].qformer.vocab)


def opt(seed: int = 0) -> Opt:
    """A two-layer OPT of width 32 whose next-token choices are far apart."""
    model = build_opt(len(tokenizer()), hidden=32, layers=2, heads=2, positions=128)
    return Opt(randomise(model, seed, scale=0.3), tokenizer())


def frozen(seed: int = 0) -> Frozen:
    """All frozen parts of :func:`config`."""
    sizes = config()
    return Frozen(
        clip=freeze(randomise(ClipEncoder(sizes.clip), seed + 1)),
        sam=freeze(randomise(SamEncoder(sizes.sam), seed + 2)),
        prompts=freeze(randomise(SamPrompts(sizes.sam), seed + 3)),
        opt=opt(seed + 4),
    )


def captioner(name: str, parts: Frozen, *, seed: int = 10) -> Captioner:
    """The system ``name`` over ``parts``."""
    sizes = config()
    branches = {view: sizes.branches[view] for view in sizes.systems[name]}
    return randomise(checkpoints.build_captioner(branches, parts), seed)


def views(count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """``count`` random pictures as each encoder's view, about as bright as normalised scans."""
    generator = torch.Generator().manual_seed(seed)
    return {v.name: torch.randn(count, 3, v.size, v.size, generator=generator) for v in config().views}


def write_folder(folder: Path) -> Path:
    """A complete model folder with three untrained systems, as :mod:`msmedcap.checkpoints` reads it."""
    parts, sizes = frozen(), config()
    for name, module in (("clip", parts.clip), ("sam", parts.sam), ("sam_prompts", parts.prompts)):
        checkpoints.save_weights(module.state_dict(), folder / name)
    parts.opt.model.save_pretrained(folder / "opt")
    parts.opt.tokenizer.save_pretrained(folder / "opt")
    for seed, name in enumerate(sizes.systems):
        checkpoints.save_system(captioner(name, parts, seed=seed), name, folder / "systems" / name)
    (folder / "config.json").write_text(to_json(sizes), encoding="utf-8")
    return folder
