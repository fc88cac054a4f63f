"""Contrastive pre-training: equal texts share the target, and a picture is asked only about facts it has."""

from __future__ import annotations

import math

import pytest
import torch

from msmedcap.models.clip import ClipEncoder
from msmedcap.training.contrast import ContrastiveTask, shared_target_loss, texts_of
from tests import sizes


def test_shared_target_loss_by_hand() -> None:
    similarity = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])  # three pictures, two texts; the first two share one

    def log(*values: float) -> float:
        return math.log(sum(math.exp(v) for v in values))

    to_text = ((log(2, 0) - 2) + (log(1, 0) - 1) + (log(0, 3) - 3)) / 3
    to_picture = ((log(2, 1, 0) - (2 + 1) / 2) + (log(0, 0, 3) - 3)) / 2
    found = shared_target_loss(similarity, torch.tensor([0, 0, 1]), smoothing=0.0)
    assert float(found) == pytest.approx((to_text + to_picture) / 2, rel=1e-6)


def test_texts_of_a_fact_sheet() -> None:
    assert texts_of({"modality": "CT", "plane": "axial", "part": "head", "finding": "mass", "side": "left"}) == {
        "caption": "Axial CT of the head. Mass on the left.",
        "modality": "CT scan",
        "plane": "axial view",
        "part": "a scan of the head",
        "finding": "Mass on the left.",
    }
    assert set(texts_of({"modality": "ultrasound"})) == {"caption", "modality"}


def test_a_kind_all_pictures_agree_on_teaches_nothing() -> None:
    task = ContrastiveTask(ClipEncoder(sizes.config().clip), sizes.tokenizer(), width=16)
    views = sizes.views(3)["clip"]
    texts = [{"modality": "CT scan", "plane": p} for p in ("axial view", "coronal view", "axial view")]
    losses = task((views, texts))
    assert set(losses) == {"loss", "plane"}
    assert torch.equal(losses["loss"], losses["plane"])
    losses["loss"].backward()
    assert task.encoder.vision.embeddings.class_embedding.grad is not None


def test_a_batch_without_any_contrast_has_no_loss() -> None:
    task = ContrastiveTask(ClipEncoder(sizes.config().clip), sizes.tokenizer(), width=16)
    losses = task((sizes.views(2)["clip"], [{"modality": "CT scan"}, {"modality": "CT scan"}]))
    assert set(losses) == {"loss"} and float(losses["loss"]) == 0


@torch.no_grad()
def test_a_text_reads_the_same_beside_longer_ones() -> None:
    task = ContrastiveTask(ClipEncoder(sizes.config().clip), sizes.tokenizer(), width=16).eval()
    alone = task.embed_texts(["CT scan"])
    torch.testing.assert_close(task.embed_texts([sizes.CAPTIONS[3], "CT scan"])[1:], alone, atol=1e-6, rtol=1e-5)
