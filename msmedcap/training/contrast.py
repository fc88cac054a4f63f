"""Pre-training of the demo CLIP encoder: image and text drawn together (the "pre-trained with CLIP" of Section 2.1).

Every picture carries texts of several kinds (its whole caption, its modality, its plane, …). Within a kind, a picture is
contrasted with the batch's distinct texts, so that equal texts share the target and are never each other's negatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msmedcap.data.captions import finding_sentence, plain_caption
from msmedcap.models.clip import ClipEncoder, pooled
from msmedcap.models.tokens import Tokenizer

KIND_WEIGHTS = {"caption": 1.0, "modality": 0.5, "plane": 1.0, "part": 1.0, "sequence": 0.3, "finding": 1.0}


def texts_of(facts: Mapping[str, str]) -> dict[str, str]:
    """The texts a picture is contrasted with, by kind; kinds it has no fact for are absent."""
    texts = {"caption": plain_caption(facts)}
    if modality := facts.get("modality"):
        texts["modality"] = f"{modality} scan"
    if plane := facts.get("plane") or facts.get("view"):
        texts["plane"] = f"{plane} view"
    if part := facts.get("part"):
        texts["part"] = f"a scan of the {part}"
    if sequence := facts.get("sequence"):
        texts["sequence"] = f"{sequence} image"
    if finding := finding_sentence(facts):
        texts["finding"] = finding
    return texts


class TextTower(nn.Module):
    """Two transformer layers over tokens, averaged: token ids ``[B,T]`` (0 pads) → ``[B,D]``. Used in pre-training alone."""

    def __init__(self, vocab: int, width: int, out: int, *, length: int = 48) -> None:
        super().__init__()
        self.words = nn.Embedding(vocab, width)
        self.places = nn.Parameter(torch.randn(length, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(width, out)

    def forward(self, ids: Tensor, real: Tensor) -> Tensor:
        x = self.layers(self.words(ids) + self.places[: ids.shape[1]], src_key_padding_mask=~real)
        weights = real.unsqueeze(-1).to(x.dtype)
        return self.out((x * weights).sum(1) / weights.sum(1))


class ContrastiveTask(nn.Module):
    """The CLIP encoder with a projection, a text tower and a temperature; ``tokenizer`` reads the texts."""

    def __init__(self, encoder: ClipEncoder, tokenizer: Tokenizer, *, width: int = 128, smoothing: float = 0.1) -> None:
        super().__init__()
        self.encoder = encoder
        self.norm = nn.LayerNorm(encoder.width)
        self.image_out = nn.Linear(2 * encoder.width, width)
        self.text = TextTower(len(tokenizer), width, width)
        self.scale = nn.Parameter(torch.tensor(2.3))
        self.smoothing = smoothing
        self._tokenizer = (tokenizer,)

    def embed_views(self, views: Tensor) -> Tensor:
        """Unit vectors ``[B,E]`` of views ``[B,3,S,S]``."""
        return F.normalize(self.image_out(pooled(self.norm(self.encoder(views)))).float(), dim=-1)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors ``[len(texts),E]``."""
        rows = [self._tokenizer[0](t, add_special_tokens=False).input_ids[:48] for t in texts]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        real = torch.zeros_like(ids, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)], real[i, : len(row)] = torch.tensor(row), True
        device = self.scale.device
        return F.normalize(self.text(ids.to(device), real.to(device)).float(), dim=-1)

    def forward(self, batch: tuple[Tensor, Sequence[Mapping[str, str]]]) -> dict[str, Tensor]:
        """``(views [B,3,S,S], each picture's texts by kind)`` → the weighted mean of the kinds' losses, and each by name."""
        views, texts = batch
        images = self.embed_views(views)
        distinct = sorted({t for row in texts for t in row.values()})
        place = {t: i for i, t in enumerate(distinct)}
        similarity = images @ self.embed_texts(distinct).T * self.scale.exp().clamp(max=100)
        losses, total, weight = {}, similarity.new_zeros(()), 0.0
        for kind, factor in KIND_WEIGHTS.items():
            rows = [i for i, row in enumerate(texts) if kind in row]
            columns = sorted({place[texts[i][kind]] for i in rows})
            if len(columns) < 2:
                continue
            target = torch.tensor([columns.index(place[texts[i][kind]]) for i in rows], device=similarity.device)
            losses[kind] = shared_target_loss(similarity[rows][:, columns], target, smoothing=self.smoothing)
            total, weight = total + factor * losses[kind], weight + factor
        return {"loss": total / max(weight, 1.0), **losses}


def shared_target_loss(similarity: Tensor, target: Tensor, *, smoothing: float) -> Tensor:
    """Symmetric contrast of B pictures with K distinct texts: ``similarity [B,K]``, ``target [B]`` each picture's text.

    Picture → text is a cross-entropy; text → picture shares its target among all pictures that carry the text.
    """
    to_text = F.cross_entropy(similarity, target, label_smoothing=smoothing)
    share = F.one_hot(target, similarity.shape[1]).to(similarity.dtype)
    share = share / share.sum(0, keepdim=True)
    to_picture = -(share * similarity.log_softmax(0)).sum(0).mean()
    return 0.5 * (to_text + to_picture)
