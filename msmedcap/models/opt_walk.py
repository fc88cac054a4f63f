"""OPT's decoder, layer by layer, with the attention left to whoever walks it: decoding with slots of its own, reading with weights.

Comes in: embeddings and positions. Goes out: the states behind the last layer. Only modules are called, so weights may be packed
or in 8 bits; nothing is hooked or switched, since others may be reading the same model.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from transformers import OPTForCausalLM

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""From a layer's number and its queries, keys and values ``[...,D]``, the mixed values ``[...,D]``."""


def walk(model: OPTForCausalLM, embeds: Tensor, positions: Tensor, attend: Attend, *, only: Tensor | None = None) -> Tensor:
    """The states ``[...,D_llm]`` that ``model.lm_head`` takes, of ``embeds [...,D_llm]`` at ``positions [...]``.

    With ``only`` (row numbers ``[n]`` of the first axis) no other rows go on behind the last layer's attention: ``[n,...,D_llm]``.
    """
    decoder = model.model.decoder
    hidden = embeds if decoder.project_in is None else decoder.project_in(embeds)
    hidden = hidden + decoder.embed_positions(None, position_ids=positions)
    last = len(decoder.layers) - 1
    for index, layer in enumerate(decoder.layers):
        attention, first = layer.self_attn, layer.do_layer_norm_before  # after the sum instead in OPT-350m
        inner = layer.self_attn_layer_norm(hidden) if first else hidden
        mixed = attend(index, attention.q_proj(inner), attention.k_proj(inner), attention.v_proj(inner))
        if only is not None and index == last:
            hidden, mixed = hidden[only], mixed[only]
        hidden = hidden + attention.out_proj(mixed)
        hidden = hidden if first else layer.self_attn_layer_norm(hidden)
        inner = layer.final_layer_norm(hidden) if first else hidden
        hidden = hidden + layer.fc2(layer.activation_fn(layer.fc1(inner)))
        hidden = hidden if first else layer.final_layer_norm(hidden)
    if decoder.final_layer_norm is not None:
        hidden = decoder.final_layer_norm(hidden)
    if decoder.project_out is not None:
        hidden = decoder.project_out(hidden)
    return hidden
