"""The COCO caption toolkit's own way from captions to numbers: ``COCO``, ``loadRes``, ``COCOEvalCap.evaluate``."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest


def toolkit(
    references: Sequence[Sequence[str]], candidates: Sequence[str], patch: pytest.MonkeyPatch, *, meteor: bool
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """The toolkit's corpus values and each case's, by the toolkit's names; SPICE, and METEOR unless asked for, stand idle."""
    from pycocoevalcap import eval as toolkit_eval
    from pycocotools.coco import COCO

    class Idle:
        def method(self) -> str:
            return "idle"

        def compute_score(self, truths: dict[int, Any], texts: dict[int, Any]) -> tuple[float, list[float]]:
            return 0.0, [0.0] * len(truths)

    patch.setenv("LC_ALL", "C.UTF-8")
    patch.setattr(toolkit_eval, "Spice", Idle)
    if not meteor:
        patch.setattr(toolkit_eval, "Meteor", Idle)
    coco = COCO()
    annotations = [(case, text) for case, texts in enumerate(references) for text in texts]
    coco.dataset = {
        "info": {},
        "images": [{"id": case} for case in range(len(references))],
        "annotations": [{"id": i, "image_id": case, "caption": text} for i, (case, text) in enumerate(annotations, 1)],
    }
    coco.createIndex()
    results = coco.loadRes([{"image_id": case, "caption": text} for case, text in enumerate(candidates)])
    judge = toolkit_eval.COCOEvalCap(coco, results)
    judge.evaluate()
    names = [name for name in judge.eval if name != "SPICE" and (meteor or name != "METEOR")]
    return (
        {_ours(name): float(judge.eval[name]) for name in names},
        {_ours(name): np.array([case[name] for case in judge.evalImgs]) for name in names},
    )


def disturbed(captions: Sequence[str], seed: int = 0) -> tuple[list[list[str]], list[str]]:
    """Cases made of ``captions``: one to three references each, and candidates between a copy and another case's caption."""
    chance = random.Random(seed)
    references, candidates = [], []
    for caption in captions:
        others = [chance.choice(captions) for _ in range(3)]
        references.append([caption, *others[: chance.choice((0, 0, 1, 2))]])
        words, other = caption.split(), others[2].split()
        cut = chance.randint(0, len(words))
        mixed = words[:cut] + other[len(other) // 2 :]
        candidates.append(caption if chance.random() < 0.05 else " ".join(mixed) if mixed else "a scan")
    return references, candidates


def _ours(name: str) -> str:
    return name.replace("Bleu_", "BLEU-").replace("ROUGE_L", "ROUGE-L")
