"""What each system is, and the sizes of the demo, full and test scales. No torch.

The paper's three systems differ in one thing, the tuple of branches they read with (the rows of Table 1):
BLIP2 looks through CLIP, SAM-BLIP2 through SAM, MSMedCap through both. Comes in: a name. Goes out: a config.
"""

from __future__ import annotations

import dataclasses

from msmedcap.config import (
    BranchConfig,
    ClipConfig,
    Decoding,
    ModelsConfig,
    QFormerConfig,
    SamConfig,
    ViewSpec,
)

SYSTEMS: dict[str, tuple[str, ...]] = {"MSMedCap": ("clip", "sam"), "BLIP2": ("clip",), "SAM-BLIP2": ("sam",)}
PRESETS = ("fast", "paper")

# The published normalisations, on the 0-255 scale.
CLIP_MEAN, CLIP_STD = (122.7709, 116.7460, 104.0937), (68.5005, 66.6322, 70.3232)
SAM_MEAN, SAM_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

# The authors' decoding: 15 beams, 10-50 tokens, repetition penalty 9.0, length penalty 1.2, 364 px, their prompt.
PAPER_DECODING = Decoding(
    beams=15,
    min_new_tokens=10,
    max_new_tokens=50,
    repetition_penalty=9.0,
    length_penalty=1.2,
    prompt="Question: Describe the image. Answer:",
    view_sizes={"clip": 364},
)

SAM_SIZES: dict[str, SamConfig] = {
    "b": SamConfig(hidden=768, layers=12, heads=12, global_layers=(2, 5, 8, 11)),
    "l": SamConfig(hidden=1024, layers=24, heads=16, global_layers=(5, 11, 17, 23)),
    "h": SamConfig(hidden=1280, layers=32, heads=16, global_layers=(7, 15, 23, 31)),
}


def full(sam: str = "h", opt: str = "facebook/opt-2.7b") -> ModelsConfig:
    """The published scale: BLIP-2's ViT-g at 224 px, SAM at 1024 px, BERT-base Q-Formers with 32 queries, OPT-2.7B."""
    qformer = QFormerConfig()
    return ModelsConfig(
        name="full",
        views=(
            ViewSpec("clip", 224, "squash", CLIP_MEAN, CLIP_STD),
            ViewSpec("sam", 1024, "letterbox", SAM_MEAN, SAM_STD),
        ),
        clip=ClipConfig(hidden=1408, layers=39, heads=16, mlp=6144, image_size=224, patch=14),
        sam=SAM_SIZES[sam],
        opt=opt,
        branches={"clip": BranchConfig("clip", qformer=qformer), "sam": BranchConfig("sam", qformer=qformer)},
        systems=dict(SYSTEMS),
        presets={
            "fast": Decoding(prompt="a photo of", max_new_tokens=50),
            "paper": PAPER_DECODING,
        },
        train_prompt="a photo of",
    )


def demo() -> ModelsConfig:
    """The shipped scale: everything small enough for two CPU cores and 60 MB, made by our own training code."""
    qformer = QFormerConfig(
        hidden=192, layers=4, heads=3, mlp=768, queries=16, dropout=0.0, vocab=4096, text_length=32, projection=128
    )
    return ModelsConfig(
        name="demo",
        views=(
            ViewSpec("clip", 128, "squash", CLIP_MEAN, CLIP_STD, grey=True),
            ViewSpec("sam", 256, "letterbox", SAM_MEAN, SAM_STD, grey=True),
        ),
        clip=ClipConfig(hidden=192, layers=6, heads=3, mlp=768, image_size=128, patch=16, stem="conv"),
        sam=SamConfig(
            hidden=192, layers=6, heads=3, global_layers=(2, 5), window=8, image_size=256, patch=16, out=128, stem="conv",
            decoder_heads=4, decoder_mlp=512,
        ),
        opt="opt",
        branches={"clip": BranchConfig("clip", qformer=qformer), "sam": BranchConfig("sam", qformer=qformer)},
        systems=dict(SYSTEMS),
        presets={
            "fast": Decoding(prompt="The scan shows:", max_new_tokens=48),
            # The demo encoder was trained at one size and knows one prompt; beams and penalties of the authors are kept in
            # kind, the repetition penalty far below 9.0, which on a 4,096-word vocabulary forbids "of the" twice.
            "paper": Decoding(
                beams=15, min_new_tokens=5, max_new_tokens=50, repetition_penalty=1.1, length_penalty=1.2,
                prompt="The scan shows:",
            ),
        },
        train_prompt="The scan shows:",
    )


def test() -> ModelsConfig:
    """The size the tests run at: width 32, two layers, the same classes."""
    qformer = QFormerConfig(hidden=32, layers=2, heads=2, mlp=64, queries=4, dropout=0.0, vocab=512, text_length=12, projection=16)
    small = demo()
    return dataclasses.replace(
        small,
        name="test",
        views=tuple(dataclasses.replace(v, size=s) for v, s in zip(small.views, (32, 64), strict=True)),
        clip=ClipConfig(hidden=32, layers=2, heads=2, mlp=64, image_size=32, patch=8, stem="conv"),
        sam=SamConfig(
            hidden=32, layers=2, heads=2, global_layers=(1,), window=3, image_size=64, patch=8, out=32, stem="conv",
            decoder_heads=2, decoder_mlp=64,
        ),
        branches={"clip": BranchConfig("clip", qformer=qformer), "sam": BranchConfig("sam", qformer=qformer)},
    )
