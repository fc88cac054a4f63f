"""SEG-SAM's text-to-vision semantic module: descriptions of medical classes, told to the picture.

Each class is described in P sentences (its name, appearance, place, shape, neighbours), which a frozen text encoder reads
once; what it says is stored with the weights. Two things are learned from it, both ours where the abstract is silent:

- :class:`ClassTexts` turns the sentences into one vector per class, which names are scored against. Sentences are first
  standardised by the mean and deviation over the classes of the training (texts from one encoder lie close together), and
  these are stored, so that a class added later gets its vector without touching another's.
- :class:`TextSummary` makes the text token: every class of the training looks at the picture's features, then one learned
  query sums up those that fit. The token joins the prompt tokens of both decoders. It depends on the picture, not on the
  prompt, and is made once per picture. Its last layer begins at zero.

Comes in: texts, and SAM's features ``[B,C,h,w]``. Goes out: class vectors ``[K,C]`` and a token ``[B,1,C]``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from msmedcap.config import UserError
from msmedcap.models.opt import Opt
from msmedcap.models.semantics import mlp

LENGTH = 128  # tokens of a sentence that are read; the descriptions stay below
AT_ONCE = 64


class ClassTexts(nn.Module):
    """What the text encoder said of each class ``[K,P,D_text]``, and the class vectors made of it."""

    def __init__(self, texts: Tensor, *, known: int, width: int) -> None:
        """``texts [K,P,D_text]``; the first ``known`` are those of the training."""
        super().__init__()
        self.known = known
        self.register_buffer("texts", texts.float())
        self.register_buffer("mean", texts[:known].float().mean(0))
        # A single class has no deviation.
        self.register_buffer("deviation", texts[:known].float().std(0, correction=0).clamp(min=1e-3))
        self.to_class = nn.Linear(texts.shape[1] * texts.shape[2], width)

    def forward(self) -> Tensor:
        """The vectors of all classes ``[K,D]``."""
        told = (self.get_buffer("texts") - self.get_buffer("mean")) / self.get_buffer("deviation")
        return self.to_class(told.flatten(1))

    def extended(self, texts: Tensor) -> Tensor:
        """All texts with those of further classes ``[n,P,D_text]`` behind; raises ``ValueError`` where they do not fit."""
        have = self.get_buffer("texts")
        if texts.shape[1:] != have.shape[1:]:
            raise ValueError(f"texts of a class are {tuple(have.shape[1:])} here, not {tuple(texts.shape[1:])}")
        return torch.cat([have, texts.to(have)])


class TextSummary(nn.Module):
    """The text token of a picture, by attention of the classes over its features and of one query over the classes."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.look = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_class, self.norm_seen, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.think = mlp(width, width)
        self.query = nn.Parameter(torch.randn(1, 1, width) * 0.5)
        self.summarise = nn.MultiheadAttention(width, heads, batch_first=True)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, classes: Tensor, features: Tensor, place: Tensor) -> Tensor:
        """``classes [K,C]``, ``features [B,C,h,w]``, ``place [1,C,h,w]`` → ``[B,1,C]``."""
        seen, where = features.flatten(2).transpose(1, 2), place.flatten(2).transpose(1, 2)
        own = self.norm_class(classes).expand(len(features), -1, -1)
        told = self.norm_seen(own + self.look(own, seen + where, seen, need_weights=False)[0])
        told = told + self.think(told)
        query = self.query.expand(len(features), -1, -1)
        return self.out(self.norm_out(self.summarise(query, told, told, need_weights=False)[0]))


@torch.no_grad()
def read_with_opt(opt: Opt, texts: Sequence[str]) -> Tensor:
    """Each text as the mean of OPT's last states over its tokens (the first token, ``</s>``, left out): ``[n,D]``, fp32, CPU."""
    model, tokenizer = opt.model, opt.tokenizer
    most = min(LENGTH, model.config.max_position_embeddings)
    found = []
    for start in range(0, len(texts), AT_ONCE):
        ids = padded_right(
            [tokenizer(t, add_special_tokens=False).input_ids[: most - 1] for t in texts[start : start + AT_ONCE]],
            first=tokenizer.bos_token_id,
            pad=tokenizer.pad_token_id,
        ).to(model.device)
        real = ids != tokenizer.pad_token_id
        states = model.model.decoder(input_ids=ids, attention_mask=real.long()).last_hidden_state.float()
        real[:, 0] = False
        found.append(((states * real[..., None]).sum(1) / real.sum(1, keepdim=True)).cpu())
    return torch.cat(found)


def padded_right(rows: Sequence[Sequence[int]], *, first: int, pad: int) -> Tensor:
    """Token ids behind ``first``, each row filled up with ``pad`` at its end: ``[B,T]``."""
    ids = torch.full((len(rows), 1 + max(map(len, rows))), pad)
    for i, row in enumerate(rows):
        ids[i, : 1 + len(row)] = torch.tensor([first, *row])
    return ids


@torch.no_grad()
def read_with_hub(source: str, texts: Sequence[str], *, device: torch.device | None = None) -> Tensor:
    """Each text as a hub model says it ``[n,D]``, fp32 on the CPU: a CLIP's text features, else the mean of the last states.

    ``source`` is a hub id or a folder of ``transformers``. Raises :class:`UserError` where it cannot be loaded.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModel.from_pretrained(source, use_safetensors=True).to(device or "cpu").eval()
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"The text encoder {source} cannot be loaded ({reason}); name another, or download it first.") from error
    most = min(LENGTH, getattr(getattr(model.config, "text_config", model.config), "max_position_embeddings", LENGTH))
    found = []
    for start in range(0, len(texts), AT_ONCE):
        part = tokenizer(
            list(texts[start : start + AT_ONCE]), padding=True, truncation=True, max_length=most, return_tensors="pt"
        ).to(model.device)
        if hasattr(model, "get_text_features"):
            said = model.get_text_features(input_ids=part.input_ids, attention_mask=part.attention_mask)
            said = said if isinstance(said, Tensor) else said.pooler_output
        else:
            real = part.attention_mask[..., None].float()
            said = (model(**part).last_hidden_state * real).sum(1) / real.sum(1)
        found.append(said.float().cpu())
    return torch.cat(found)
