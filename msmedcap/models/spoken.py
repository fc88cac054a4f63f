"""OPT reads a caption it has said once more: each token's log-probability, what else it could have said, and all its attention.

Comes in: a prefix (Eq. 5) and the caption's tokens. Goes out: one teacher-forced pass over both, :class:`Spoken`. The pass walks
the model's own modules (which may be packed or in 8 bits) with attention written out, equal to ``transformers``' eager attention;
it neither hooks nor switches the model, which others may be reading at the same time. Letters: S = L + T - 1 slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from msmedcap.models.opt import Opt
from msmedcap.models.opt_walk import walk


@dataclass(frozen=True)
class Spoken:
    """``log_probs [B,T]`` of the tokens said, all ``logits [B,T,V]``, and each layer's attention ``[B,heads,S,S]``, row to column.

    Slot ``first + t`` is the one that predicts token t. All of it hangs on the prefix's graph, where that has one.
    """

    log_probs: Tensor
    logits: Tensor
    attention: tuple[Tensor, ...]
    first: int


def spoken(opt: Opt, prefix: Tensor, ids: Sequence[int]) -> Spoken:
    """``prefix [B,L,D_llm]`` and the same T tokens ``ids`` behind each; raises ``ValueError`` for no tokens."""
    if not ids:
        raise ValueError("there is no caption to read: it has no tokens")
    said = torch.tensor(ids, device=opt.model.device)
    heard = opt.embed(said[:-1]).expand(len(prefix), -1, -1)
    hidden, attention = _read(opt, torch.cat([prefix.to(opt.model.dtype), heard.to(opt.model.dtype)], dim=1))
    first = prefix.shape[1] - 1
    logits: Tensor = _exact(opt.model.lm_head(hidden[:, first:]))
    chosen = said.expand(len(prefix), -1)[..., None]
    log_probs = logits.log_softmax(-1).gather(-1, chosen.to(logits.device))[..., 0]
    return Spoken(log_probs, logits, attention, first)


def _read(opt: Opt, embeds: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """OPT over ``embeds [B,S,D_llm]``: the last states ``[B,S,D_llm]`` and each layer's attention."""
    slots, heads = embeds.shape[1], opt.model.config.num_attention_heads
    later = torch.ones(slots, slots, dtype=torch.bool, device=embeds.device).triu(1)
    looked: list[Tensor] = []

    def split(rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (heads, -1)).transpose(1, 2)

    def attend(_: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = split(query), split(key), split(value)
        scores = _exact(query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5
        weights = scores.masked_fill(later.to(scores.device), -torch.inf).softmax(-1)
        looked.append(weights)
        return (weights.to(value.dtype) @ value).transpose(1, 2).flatten(2)

    positions = torch.arange(slots, device=embeds.device).expand(len(embeds), -1)
    return walk(opt.model, embeds, positions, attend), tuple(looked)


def _exact(values: Tensor) -> Tensor:
    """In 32 bits, or more where they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
