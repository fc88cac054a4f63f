"""g_CLIP and g_SAM of Eqs. 3 and 4: learned queries that read an encoder's tokens, on ``transformers``' Blip2QFormerModel.

Comes in: encoder tokens ``[B,N,D_enc]`` and, in stage 1, caption tokens. Goes out: the queries' states ``[B,Q,D]``.
Cross-attention acts on the query positions only (Section 2.2). The text half exists in stage 1 alone; stage 2 drops it.
Stage 1 asks the same pictures several times: :meth:`QFormer.look` projects their keys and values once, ``apart`` and ``joint``
read them with text beside the queries. The weights are the model's own; these passes walk its layers themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Blip2QFormerConfig, Blip2QFormerModel
from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerAttention as Block
from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerMultiHeadAttention as Heads

from msmedcap.config import QFormerConfig


@dataclass(frozen=True)
class QFormerAttention:
    """Cross-attention of one Q-Former pass: ``weights[i] [B,heads,Q,N]`` is that of layer ``layers[i]``.

    ``own[l] [B,heads,Q,Q]`` is what the queries look at among themselves, in every layer.
    """

    layers: tuple[int, ...]
    weights: tuple[Tensor, ...]
    own: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Seen:
    """``B`` pictures as cross-attention reads them: per layer of :attr:`QFormer.cross_layers` keys and values ``[B,heads,N,d]``."""

    layers: tuple[tuple[Tensor, Tensor], ...]


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
        """As :meth:`forward`, and the cross-attention of every layer that has one, equal to ``transformers``' eager attention.

        Slower, and alone in that: it neither hooks nor switches the model, which others may be reading at the same time.
        """
        states = self._start(self._queries(len(tokens)))
        weights, own = [], []
        tokens = tokens.to(states.dtype)
        for layer in self.model.encoder.layer:
            inside = layer.attention.attention
            context, mixed = _weighed(inside, states, *_keys_values(inside, states))
            states = layer.attention.output(context, states)
            own.append(mixed)
            if layer.has_cross_attention:
                across = layer.crossattention.attention
                context, looked = _weighed(across, states, *_keys_values(across, tokens))
                states = layer.crossattention.output(context, states)
                weights.append(looked)
            states = layer.feed_forward_chunk_query(states)
        return states, QFormerAttention(self.cross_layers, tuple(weights), tuple(own))

    def look(self, tokens: Tensor) -> Seen:
        """Keys and values of ``tokens [B,N,D_enc]`` for every layer that reads them, to be shared between passes."""
        tokens = tokens.to(self.query_tokens.dtype)
        layers = [self.model.encoder.layer[index] for index in self.cross_layers]
        return Seen(tuple(_keys_values(layer.crossattention.attention, tokens) for layer in layers))

    def apart(self, seen: Seen, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Queries that see no text, once for each of ``B`` pictures, and ``R`` texts: states ``[B,Q,D]`` and ``[R,T,D]``.

        ``ids [R,T]``, R a multiple of B: text ``r`` belongs to picture ``r % B``. ``mask [R,T,Q+T]`` bool: text attends to queries
        and text. ITC and ITG differ in the text's part of the mask alone, so one call serves both.
        """

        def read(block: Block, states: Tensor, index: int) -> Tensor:
            return _attended(block.attention, states, *seen.layers[index], None)

        count = len(seen.layers[0][0])
        return self._pass(self._queries(count), ids, read, text_mask=mask[:, None], query_mask=None)

    def joint(self, seen: Seen, pictures: Tensor, ids: Tensor, mask: Tensor, *, copies: bool | None = None) -> Tensor:
        """Queries and text that may see each other, picture ``pictures[r]`` beside text ``ids[r]``: states ``[R,Q+T,D]``.

        ``pictures [R]`` are places among those of ``seen``; ``mask [R,Q+T,Q+T]`` bool, row attends to column. ``copies``: every row
        gets a copy of its picture's keys, one product for all; else the rows of a picture read its keys together, picture by
        picture, since queries do not meet in cross-attention. By default the latter on a CPU, where copying is what costs.
        """
        order = pictures.argsort(stable=True)
        rows = pictures.bincount(minlength=len(seen.layers[0][0])).tolist()
        copies = ids.device.type != "cpu" if copies is None else copies
        pictures, order = pictures[order].to(ids.device), order.to(ids.device)
        ids, mask, queries = ids[order], mask[order, None], self.config.queries

        def read(block: Block, states: Tensor, index: int) -> Tensor:
            keys, values = seen.layers[index]
            if copies:
                return _attended(block.attention, states, keys[pictures], values[pictures], None)
            together = zip(states.split(rows), keys.unbind(0), values.unbind(0), strict=True)
            found = [
                _attended(block.attention, s.flatten(0, 1)[None], k[None], v[None], None).view(s.shape)
                for s, k, v in together
                if len(s)
            ]
            return torch.cat(found)

        states = self._pass(
            self._queries(len(ids)), ids, read, text_mask=mask[:, :, queries:], query_mask=mask[:, :, :queries]
        )
        return torch.cat(states, dim=1)[order.argsort()]

    def _pass(
        self,
        queries: Tensor,
        ids: Tensor,
        read: Callable[[Block, Tensor, int], Tensor],
        *,
        text_mask: Tensor,
        query_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        if self.words is None or self.positions is None:
            raise ValueError("this Q-Former has no text half; build it with text=True for stage 1")
        queries = self._start(queries)
        text = self._start(self.words(ids) + self.positions.weight[: ids.shape[1]])
        for index, layer in enumerate(self.model.encoder.layer):
            queries, text = _converse(layer.attention, queries, text, text_mask, query_mask)
            if layer.has_cross_attention:
                across = layer.crossattention
                queries = across.output(read(across, queries, index // self.config.cross_every), queries)
            queries, text = layer.feed_forward_chunk_query(queries), layer.feed_forward_chunk(text)
        return queries, text

    def _queries(self, count: int) -> Tensor:
        return self.query_tokens.expand(count, -1, -1)

    def _start(self, embedded: Tensor) -> Tensor:
        return self.model.dropout(self.model.layernorm(embedded))


def _converse(
    block: Block, queries: Tensor, text: Tensor, text_mask: Tensor, query_mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Self-attention of ``queries [B,Q,D]`` and ``text [R,T,D]``; without ``query_mask`` the queries see themselves alone."""
    heads = block.attention
    own, words = _keys_values(heads, queries), _keys_values(heads, text)
    times = len(text) // len(queries)
    keys, values = (torch.cat([q.repeat(times, 1, 1, 1), t], dim=2) for q, t in zip(own, words, strict=True))
    heard = _attended(heads, text, keys, values, text_mask)
    thought = (
        _attended(heads, queries, *own, None)
        if query_mask is None
        else _attended(heads, queries, keys, values, query_mask)
    )
    return block.output(thought, queries), block.output(heard, text)


def _split(heads: Heads, states: Tensor) -> Tensor:
    return states.unflatten(-1, (heads.num_attention_heads, heads.attention_head_size)).transpose(1, 2)


def _keys_values(heads: Heads, states: Tensor) -> tuple[Tensor, Tensor]:
    return _split(heads, heads.key(states)), _split(heads, heads.value(states))


def _attended(heads: Heads, states: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    dropout = heads.attention_dropout if heads.training else 0.0
    asked = _split(heads, heads.query(states))
    context = F.scaled_dot_product_attention(
        asked, keys, values, attn_mask=mask, dropout_p=dropout, scale=heads.scaling
    )
    return context.transpose(1, 2).flatten(2)


def _weighed(heads: Heads, states: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`_attended` without mask and dropout, and the weights ``[B,heads,Q,N]``."""
    scores = (_split(heads, heads.query(states)) @ keys.transpose(-1, -2)) * heads.scaling
    weights = scores.softmax(-1)
    return (weights @ values).transpose(1, 2).flatten(2), weights
