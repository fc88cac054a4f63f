"""LAVIS' arithmetic and LAVIS' checkpoints, written from its definitions: plain tensors under LAVIS' names, none of our modules.

``*_state`` draw state dicts with the names, shapes and kinds LAVIS saves; the other functions compute with them what
LAVIS' models compute (BERT with a second feed-forward for the queries, EVA's transformer, stage 1's three objectives, the
prefix of stage 2). A head is 64 wide in the Q-Former and 88 in the transformer, as in LAVIS' sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
BERT_HEAD, EVA_HEAD = 64, 88
MASKED = -10000.0  # what LAVIS adds to a score that is not to be seen


@dataclass(frozen=True)
class Sizes:
    """One Q-Former's sizes; ``reads`` is the width of the tokens it reads, ``llm`` that of the language model."""

    reads: int
    hidden: int = 128
    layers: int = 3
    mlp: int = 96
    queries: int = 5
    words: int = 61
    places: int = 512
    joint: int = 24
    llm: int = 40


def qformer_state(prefix: str, sizes: Sizes, *, text: bool, seed: int) -> State:
    """``Qformer.bert.*`` as saved: the buffer of position numbers too, and with ``text`` the half that stage 2 drops."""
    draw, state, hidden = _Draw(seed), {}, sizes.hidden
    bert = f"{prefix}bert."
    state[f"{bert}embeddings.position_ids"] = torch.arange(sizes.places)[None]
    if text:
        state[f"{bert}embeddings.word_embeddings.weight"] = draw(sizes.words, hidden) * 0.1
        state[f"{bert}embeddings.position_embeddings.weight"] = draw(sizes.places, hidden) * 0.1
    state |= draw.norm(f"{bert}embeddings.LayerNorm", hidden)
    for i in range(sizes.layers):
        layer = f"{bert}encoder.layer.{i}."
        for kind, reads in (("attention", hidden), ("crossattention", sizes.reads)):
            if kind == "crossattention" and i % 2:
                continue
            state |= draw.linear(f"{layer}{kind}.self.query", hidden, hidden)
            state |= draw.linear(f"{layer}{kind}.self.key", reads, hidden)
            state |= draw.linear(f"{layer}{kind}.self.value", reads, hidden)
            state |= draw.linear(f"{layer}{kind}.output.dense", hidden, hidden)
            state |= draw.norm(f"{layer}{kind}.output.LayerNorm", hidden)
        for half in ("", "_query") if text else ("_query",):
            state |= draw.linear(f"{layer}intermediate{half}.dense", hidden, sizes.mlp)
            state |= draw.linear(f"{layer}output{half}.dense", sizes.mlp, hidden)
            state |= draw.norm(f"{layer}output{half}.LayerNorm", hidden)
    return state


def stage2_state(sizes: Sizes, *, seed: int = 0) -> State:
    """A single-branch captioner as LAVIS saves it: frozen weights dropped."""
    draw = _Draw(seed + 100)
    return {
        "query_tokens": draw(1, sizes.queries, sizes.hidden),
        **draw.norm("ln_vision", sizes.reads),
        **qformer_state("Qformer.", sizes, text=False, seed=seed),
        **draw.linear("opt_proj", sizes.hidden, sizes.llm),
    }


def sam_side_state(sizes: Sizes, *, seed: int = 50) -> State:
    """What the dual-branch captioner adds: the SAM side, and the two buffers of its frozen SAM, which are no parameters."""
    draw = _Draw(seed + 100)
    constant = draw(2, 16)
    return {
        "sam_query_tokens": draw(1, sizes.queries, sizes.hidden),
        **qformer_state("sam_Qformer.", sizes, text=False, seed=seed),
        "sam_model.shared_image_embedding.positional_embedding": constant,
        "sam_model.prompt_encoder.shared_embedding.positional_embedding": constant,
        **draw.linear("sam_opt_proj", sizes.hidden, sizes.llm),
    }


def stage1_state(sizes: Sizes, *, prefix: str = "Qformer.", queries: str = "query_tokens", seed: int = 0) -> State:
    """The first stage: text half, word head (its table tied to the words', its bias under two names) and the other heads."""
    draw = _Draw(seed + 200)
    state = qformer_state(prefix, sizes, text=True, seed=seed)
    head = f"{prefix}cls.predictions."
    bias = draw(sizes.words)
    return {
        queries: draw(1, sizes.queries, sizes.hidden),
        "temp": torch.tensor(0.05),
        **state,
        f"{head}bias": bias,
        **draw.linear(f"{head}transform.dense", sizes.hidden, sizes.hidden),
        **draw.norm(f"{head}transform.LayerNorm", sizes.hidden),
        f"{head}decoder.weight": state[f"{prefix}bert.embeddings.word_embeddings.weight"],
        f"{head}decoder.bias": bias,
        **draw.linear("vision_proj", sizes.hidden, sizes.joint),
        **draw.linear("text_proj", sizes.hidden, sizes.joint),
        **draw.linear("itm_head", sizes.hidden, 2),
    }


def eva_state(prefix: str, *, width: int, layers: int, mlp: int, grid: int, patch: int, seed: int = 0) -> State:
    """EVA's transformer: one matrix for queries, keys and values, biases for queries and values alone."""
    draw, state = _Draw(seed + 300), {}
    state[f"{prefix}cls_token"] = draw(1, 1, width)
    state[f"{prefix}pos_embed"] = draw(1, grid * grid + 1, width)
    state[f"{prefix}patch_embed.proj.weight"] = draw(width, 3, patch, patch) * 0.1
    state[f"{prefix}patch_embed.proj.bias"] = draw(width)
    for i in range(layers):
        block = f"{prefix}blocks.{i}."
        state |= draw.norm(f"{block}norm1", width)
        state[f"{block}attn.q_bias"] = draw(width)
        state[f"{block}attn.v_bias"] = draw(width)
        state[f"{block}attn.qkv.weight"] = draw(3 * width, width) * width**-0.5
        state |= draw.linear(f"{block}attn.proj", width, width)
        state |= draw.norm(f"{block}norm2", width)
        state |= draw.linear(f"{block}mlp.fc1", width, mlp)
        state |= draw.linear(f"{block}mlp.fc2", mlp, width)
    return state


def eva_tokens(state: State, prefix: str, view: Tensor, *, layers: int) -> Tensor:
    """The transformer's tokens ``[B,1+N,D]`` for ``view [B,3,S,S]`` after its first ``layers`` blocks; no norm behind them."""
    patches = state[f"{prefix}patch_embed.proj.weight"]
    x = F.conv2d(view, patches, state[f"{prefix}patch_embed.proj.bias"], stride=patches.shape[-1]).flatten(2).transpose(1, 2)
    x = torch.cat([state[f"{prefix}cls_token"].expand(len(x), -1, -1), x], 1) + state[f"{prefix}pos_embed"]
    for i in range(layers):
        block = f"{prefix}blocks.{i}."
        y = _norm(state, f"{block}norm1", x, 1e-6)
        q, k, v = (y @ state[f"{block}attn.qkv.weight"].T).chunk(3, -1)
        q, v = q + state[f"{block}attn.q_bias"], v + state[f"{block}attn.v_bias"]
        x = x + _linear(state, f"{block}attn.proj", _attend(q, k, v, EVA_HEAD, None))
        y = F.gelu(_linear(state, f"{block}mlp.fc1", _norm(state, f"{block}norm2", x, 1e-6)))
        x = x + _linear(state, f"{block}mlp.fc2", y)
    return x


def bert(
    state: State, prefix: str, *, queries: Tensor | None, ids: Tensor | None, tokens: Tensor | None, mask: Tensor,
    past: list[Tensor] | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """``Qformer.bert``: the last states ``[B,Q+T,D]``, and what each layer's self-attention was given (LAVIS' cache).

    ``queries [B,Q,D]`` and ``ids [B,T]`` may be absent; the queries alone read ``tokens``. ``past`` stands before the states of
    this pass as keys and values. ``mask [B,Q+T,P+Q+T]``: 1 where a row sees a column.
    """
    name = f"{prefix}bert."
    parts = [] if queries is None else [queries]
    if ids is not None:
        places = state[f"{name}embeddings.position_embeddings.weight"][: ids.shape[1]]
        parts.append(state[f"{name}embeddings.word_embeddings.weight"][ids] + places)
    x = _norm(state, f"{name}embeddings.LayerNorm", torch.cat(parts, 1), 1e-12)
    count = 0 if queries is None else queries.shape[1]
    given: list[Tensor] = []
    while f"{name}encoder.layer.{len(given)}.attention.self.query.weight" in state:
        i, layer = len(given), f"{name}encoder.layer.{len(given)}."
        given.append(x)
        over = x if past is None else torch.cat([past[i], x], 1)
        x = _bert_attention(state, f"{layer}attention.", x, over, (1.0 - mask[:, None].float()) * MASKED)
        read, said = x[:, :count], x[:, count:]
        if count and i % 2 == 0:
            assert tokens is not None
            read = _bert_attention(state, f"{layer}crossattention.", read, tokens, None)
        halves = [_bert_feed_forward(state, layer, "_query", read)] if count else []
        if said.shape[1]:
            halves.append(_bert_feed_forward(state, layer, "", said))
        x = torch.cat(halves, 1)
    return x, given


def prefix_of(state: State, tokens: Tensor, *, side: str = "") -> Tensor:
    """A side's part of the language model's prefix, from its encoder's tokens (``side`` is ``""`` or ``"sam_"``)."""
    tokens = tokens if side else vision_norm(state, tokens)
    return _linear(state, f"{side}opt_proj", read(state, tokens, queries=f"{side}query_tokens", prefix=f"{side}Qformer."))


def vision_norm(state: State, tokens: Tensor) -> Tensor:
    """The trained norm between CLIP's encoder and its Q-Former, with PyTorch's own epsilon."""
    return _norm(state, "ln_vision", tokens, 1e-5)


def read(state: State, tokens: Tensor, *, queries: str = "query_tokens", prefix: str = "Qformer.") -> Tensor:
    """The queries' states ``[B,Q,D]`` over (normed) ``tokens``."""
    return _query_pass(state, tokens, queries, prefix)[0]


def contrast(state: State, tokens: Tensor, ids: Tensor, real: Tensor, **names: str) -> Tensor:
    """ITC: picture × caption ``[B,B]``, the best query's cosine with the caption's first token; two passes apart."""
    images = F.normalize(_linear(state, "vision_proj", read(state, tokens, **names)), dim=-1)
    seen = real[:, None].expand(-1, ids.shape[1], -1)
    states, _ = bert(state, names.get("prefix", "Qformer."), queries=None, ids=ids, tokens=None, mask=seen)
    texts = F.normalize(_linear(state, "text_proj", states[:, 0]), dim=-1)
    return torch.stack([(image @ texts.T).amax(0) for image in images])


def matching(state: State, tokens: Tensor, ids: Tensor, real: Tensor) -> Tensor:
    """ITM's logits ``[B,2]``: queries and text see one another, the queries' logits are averaged."""
    queries = state["query_tokens"].expand(len(ids), -1, -1)
    seen = torch.cat([torch.ones(len(ids), queries.shape[1]), real.float()], 1)
    mask = seen[:, None].expand(-1, seen.shape[1], -1)
    states, _ = bert(state, "Qformer.", queries=queries, ids=ids, tokens=tokens, mask=mask)
    return _linear(state, "itm_head", states[:, : queries.shape[1]]).mean(1)


def generation(state: State, tokens: Tensor, ids: Tensor, real: Tensor) -> Tensor:
    """ITG's logits ``[B,T,V]`` for the word after each of ``ids``, which begin with the decoder's own first token.

    The text reads what the queries were in their pass alone, kept as keys and values, and the words so far.
    """
    _, past = _query_pass(state, tokens, "query_tokens", "Qformer.")
    count, length = past[0].shape[1], ids.shape[1]
    mask = torch.cat([torch.ones(length, count), torch.ones(length, length).tril()], 1)
    mask = mask * torch.cat([torch.ones(len(ids), count), real.float()], 1)[:, None]
    states, _ = bert(state, "Qformer.", queries=None, ids=ids, tokens=None, mask=mask, past=past)
    head = "Qformer.cls.predictions."
    states = _norm(state, f"{head}transform.LayerNorm", F.gelu(_linear(state, f"{head}transform.dense", states)), 1e-12)
    return _linear(state, f"{head}decoder", states)


def _query_pass(state: State, tokens: Tensor, queries: str, prefix: str) -> tuple[Tensor, list[Tensor]]:
    start = state[queries].expand(len(tokens), -1, -1)
    mask = torch.ones(len(tokens), start.shape[1], start.shape[1])
    return bert(state, prefix, queries=start, ids=None, tokens=tokens, mask=mask)


class _Draw:
    """Weights from a seed, none of them at a value that could hide a mistake."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator)

    def linear(self, name: str, reads: int, writes: int) -> State:
        return {f"{name}.weight": self(writes, reads) * reads**-0.5, f"{name}.bias": self(writes) * 0.2}

    def norm(self, name: str, width: int) -> State:
        return {f"{name}.weight": (self(width) * 0.2).exp(), f"{name}.bias": self(width) * 0.2}


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _norm(state: State, name: str, x: Tensor, epsilon: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + epsilon).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def _attend(q: Tensor, k: Tensor, v: Tensor, head: int, added: Tensor | None) -> Tensor:
    q, k, v = (x.unflatten(-1, (-1, head)).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) * head**-0.5
    if added is not None:
        scores = scores + added
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def _bert_attention(state: State, name: str, x: Tensor, over: Tensor, added: Tensor | None) -> Tensor:
    q = _linear(state, f"{name}self.query", x)
    k, v = _linear(state, f"{name}self.key", over), _linear(state, f"{name}self.value", over)
    out = _linear(state, f"{name}output.dense", _attend(q, k, v, BERT_HEAD, added))
    return _norm(state, f"{name}output.LayerNorm", out + x, 1e-12)


def _bert_feed_forward(state: State, layer: str, half: str, x: Tensor) -> Tensor:
    out = _linear(state, f"{layer}output{half}.dense", F.gelu(_linear(state, f"{layer}intermediate{half}.dense", x)))
    return _norm(state, f"{layer}output{half}.LayerNorm", out + x, 1e-12)
