"""g_CLIP and g_SAM of Eqs. 3 and 4: learned queries that read an encoder's tokens, on ``transformers``' Blip2QFormerModel.

Comes in: encoder tokens ``[B,N,D_enc]`` and, in stage 1, caption tokens. Goes out: the queries' states ``[B,Q,D]``.
Cross-attention acts on the query positions only (Section 2.2). The text half exists in stage 1 alone; stage 2 drops it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from msmedcap.config import QFormerConfig


@dataclass(frozen=True)
class QFormerAttention:
    """Cross-attention of one Q-Former pass: ``weights[i] [B,heads,Q,N]`` is that of layer ``layers[i]``."""

    layers: tuple[int, ...]
    weights: tuple[Tensor, ...]


class QFormer(nn.Module):
    """A Q-Former with its learned queries; ``text=True`` adds the caption half that stage 1 trains with."""

    def __init__(self, config: QFormerConfig, *, encoder_width: int, text: bool = False) -> None:
        super().__init__()
        self.config = config
        self.query_tokens = nn.Parameter(torch.empty(1, config.queries, config.hidden).normal_(std=0.02))
        self.model = Blip2QFormerModel(
            Blip2QFormerConfig(
                vocab_size=config.vocab,
                hidden_size=config.hidden,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=config.mlp,
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=config.dropout,
                cross_attention_frequency=config.cross_every,
                encoder_hidden_size=encoder_width,
                use_qformer_text_input=text,
            )
        )
        self.words = nn.Embedding(config.vocab, config.hidden) if text else None
        self.positions = nn.Embedding(max(512, config.text_length), config.hidden) if text else None
        for table in (self.words, self.positions):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)

    @property
    def cross_layers(self) -> tuple[int, ...]:
        """The layers that have cross-attention."""
        return tuple(range(0, self.config.layers, self.config.cross_every))

    def forward(self, tokens: Tensor) -> Tensor:
        """The queries' last states for encoder ``tokens [B,N,D_enc]``: ``[B,Q,D]``."""
        queries = self.query_tokens.expand(tokens.shape[0], -1, -1)
        return self.model(query_embeds=queries, encoder_hidden_states=tokens).last_hidden_state

    def attend(self, tokens: Tensor) -> tuple[Tensor, QFormerAttention]:
        """As :meth:`forward`, and the cross-attention of every layer that has one (slower: eager attention, this pass only)."""
        queries = self.query_tokens.expand(tokens.shape[0], -1, -1)
        with self._eager():
            out = self.model(query_embeds=queries, encoder_hidden_states=tokens, output_attentions=True)
        return out.last_hidden_state, QFormerAttention(self.cross_layers, tuple(out.cross_attentions))

    def joint(self, tokens: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Queries and text in one pass: ``tokens [B,N,D_enc]``, ``ids [B,T]`` → states ``[B,Q+T,D]``.

        ``mask [B,Q+T,Q+T]`` bool, row attends to column; the three objectives differ in it alone (Section 2.2).
        """
        if self.words is None or self.positions is None:
            raise ValueError("this Q-Former has no text half; build it with text=True for stage 1")
        text = self.words(ids) + self.positions.weight[: ids.shape[1]]
        queries = self.query_tokens.expand(ids.shape[0], -1, -1)
        out = self.model(
            query_embeds=torch.cat([queries, text], dim=1),
            query_length=queries.shape[1],
            attention_mask=mask[:, None],
            encoder_hidden_states=tokens,
        )
        return out.last_hidden_state

    @contextmanager
    def _eager(self) -> Iterator[None]:
        # sdpa returns no weights: it leaves cross_attentions an empty tuple.
        before = self.model.config._attn_implementation
        self.model.set_attn_implementation("eager")
        try:
            yield
        finally:
            self.model.set_attn_implementation(before)
