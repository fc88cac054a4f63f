"""Greedy and beam search over OPT in which many captions cost little more than one (Eq. 6, for all systems and pictures at once).

Comes in: prefixes ``[L_i,D_llm]``. Goes out: each caption's tokens with their log-probabilities, those that ``generate`` of
``transformers`` finds. Every caption and beam is a row of one batch, and a caption that is done leaves it. That library's cache
holds a prefix once per beam and moves all keys and values whenever beams change places; here a caption's prefix and all its beams'
tokens lie in one row of slots, written once, and a mask says which slots a beam descends from. Only modules are called: weights may
be in 8 bits. Letters beside the usual: C captions being decoded, K beams of each, R rows, H heads, S slots, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import OPTForCausalLM

from msmedcap.config import Decoding
from msmedcap.models.opt_walk import Attend, walk


@dataclass(frozen=True)
class Said:
    """A caption, or a beginning of one: its tokens (the newline that ends it included) and each one's log-probability.

    The log-probability is the model's own, before penalties and before the newline is held back.
    """

    ids: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()

    def then(self, token: int, log_prob: float) -> Said:
        """This and one more token."""
        return Said((*self.ids, token), (*self.log_probs, log_prob))


OnStep = Callable[[list[Said]], None]


@torch.no_grad()
def decode(
    model: OPTForCausalLM, prefixes: Sequence[Tensor], decoding: Decoding, *, newline: int, on_step: OnStep | None = None
) -> list[Said]:
    """What follows each prefix ``[L_i,D_llm]``, as ``model.generate`` with ``newline`` for its end token would say.

    ``on_step`` is called after every step with what each caption has come to (with beams the best so far, which may change); the
    last call is handed the result. What it raises ends the search.
    """
    beams = decoding.beams
    searches: list[_Search] = [_Greedy(decoding, newline) if beams == 1 else _Beams(decoding, newline) for _ in prefixes]
    context = _Context(model, prefixes, beams=beams, steps=decoding.max_new_tokens - 1)
    live, logits = list(searches), context.read()
    while True:
        for search, candidates in zip(live, _candidates(logits, live, decoding, newline), strict=True):
            search.advance(candidates)
        if on_step is not None:
            on_step([search.said for search in searches])
        for row in reversed(range(len(live))):
            if live[row].done:
                context.drop(row)
                live[row] = live[-1]
                live.pop()
        if not live:
            return [search.said for search in searches]
        ids = [[beam.said.ids[-1] for beam in search.running] for search in live]
        logits = context.step(ids, [[beam.parent for beam in search.running] for search in live])


@dataclass(frozen=True)
class _Beam:
    """A hypothesis: its score (the sum of log-probabilities after penalties) and the beam it came from in the step before."""

    said: Said
    score: float
    parent: int


@dataclass(frozen=True)
class _Candidate:
    """A token that one of a caption's beams may say next; ``score`` is the whole hypothesis', ``log_prob`` the token's."""

    parent: int
    token: int
    score: float
    log_prob: float


class _Search(Protocol):
    """One caption's search: the beams that go on, best first; whether it is done; and its caption, the best so far."""

    running: list[_Beam]
    done: bool

    @property
    def said(self) -> Said: ...

    def advance(self, candidates: Sequence[_Candidate]) -> None: ...


class _Greedy:
    """The likeliest token, until the newline or the longest length."""

    def __init__(self, decoding: Decoding, newline: int) -> None:
        self.longest, self.newline = decoding.max_new_tokens, newline
        self.running, self.done = [_Beam(Said(), 0.0, 0)], False

    @property
    def said(self) -> Said:
        return self.running[0].said

    def advance(self, candidates: Sequence[_Candidate]) -> None:
        (best,) = candidates
        said = self.said.then(best.token, best.log_prob)
        self.running = [_Beam(said, 0.0, 0)]
        self.done = best.token == self.newline or len(said.ids) == self.longest


class _Beams:
    """Beam search as ``transformers`` has it with ``early_stopping=False``."""

    def __init__(self, decoding: Decoding, newline: int) -> None:
        self.beams, self.longest, self.newline = decoding.beams, decoding.max_new_tokens, newline
        self.length_penalty = decoding.length_penalty
        self.running, self.done = [_Beam(Said(), 0.0, 0)], False
        self.ended: list[_Beam] = []  # the best so far, their scores divided by length ** length_penalty

    @property
    def said(self) -> Said:
        return self.ended[0].said if self.done else self.running[0].said

    def advance(self, candidates: Sequence[_Candidate]) -> None:
        """``candidates`` are twice as many as beams, best first: enough go on even if every beam could end."""
        length = len(self.running[0].said.ids) + 1
        last, norm = length == self.longest, length**self.length_penalty
        following: list[_Beam] = []
        for rank, one in enumerate(candidates):
            if one.token != self.newline and not last:
                if len(following) < self.beams:
                    following.append(self._grown(one, one.score))
            elif rank < self.beams:  # the rest are spares to go on with, too unlikely to end with
                self.ended.append(self._grown(one, one.score / norm))
        self.ended = sorted(self.ended, key=lambda beam: -beam.score)[: self.beams]
        # A longer hypothesis is taken to score at most what the best running one would if it ended here.
        full = len(self.ended) == self.beams
        self.done = last or (full and not following[0].score / norm > self.ended[-1].score)
        if not last:
            self.running = following

    def _grown(self, one: _Candidate, score: float) -> _Beam:
        return _Beam(self.running[one.parent].said.then(one.token, one.log_prob), score, one.parent)


def _candidates(
    logits: Tensor, searches: Sequence[_Search], decoding: Decoding, newline: int
) -> list[list[_Candidate]]:
    """The best continuations of each caption, best first, from ``logits [C,K,V]``: one if greedy, else twice the beams."""
    said = [[beam.said.ids for beam in search.running] for search in searches]
    logits = logits.float()
    greedy = decoding.beams == 1
    # transformers penalises what it compares: logits when greedy, log-probabilities with beams.
    compared = plain = logits if greedy else logits.log_softmax(-1)
    if decoding.repetition_penalty != 1 and said[0][0]:
        seen = torch.tensor(said, device=logits.device)
        values = plain.gather(-1, seen)
        factor = decoding.repetition_penalty
        compared = plain.scatter(-1, seen, torch.where(values < 0, values * factor, values / factor))
    if len(said[0][0]) < decoding.min_new_tokens:
        compared = compared.clone() if compared is plain else compared
        compared[..., newline] = -torch.inf
    if greedy:
        scores, places = compared[:, 0].max(-1, keepdim=True)
        log_probs = plain[:, 0].gather(-1, places) - logits[:, 0].logsumexp(-1, keepdim=True)
    else:
        running = torch.tensor([[beam.score for beam in search.running] for search in searches], device=logits.device)
        scores, places = (compared + running[..., None]).flatten(1).topk(2 * decoding.beams)
        log_probs = plain.flatten(1).gather(-1, places)
    # One transfer for all; a double holds every place exactly.
    rows = torch.stack([places.double(), scores.double(), log_probs.double()], dim=-1).tolist()
    vocab = logits.shape[-1]
    return [[_Candidate(*divmod(int(place), vocab), *scores) for place, *scores in row] for row in rows]


class _Context:
    """What OPT has read and said: the keys and values of the captions being decoded ``[layers,2,C,H,S,D/H]``.

    A caption's slots: its prefix, filled up to the longest, then one slot for each beam and step.
    """

    def __init__(self, model: OPTForCausalLM, prefixes: Sequence[Tensor], *, beams: int, steps: int) -> None:
        self.model, self.beams = model, beams
        self.lengths = torch.tensor([len(p) for p in prefixes], device=prefixes[0].device)
        self.captions, self.longest = len(prefixes), max(map(len, prefixes))
        self.prefixes = torch.cat(list(prefixes)).to(model.dtype)
        self.used, self.said = self.longest, 0
        heads, width = model.config.num_attention_heads, model.config.hidden_size
        slots = self.longest + steps * beams
        self.heads = heads
        shape = (model.config.num_hidden_layers, 2, self.captions, heads, slots, width // heads)
        # For a single query torch's attention on the CPU takes five times as long in bf16 as in fp32.
        single = beams == 1 and self.prefixes.device.type == "cpu"
        self.cache = self.prefixes.new_empty(shape, dtype=torch.float32 if single else None)
        # Added to the attention's logits: 0 where a beam descends from the slot, else -inf.
        self.hidden_slots = self.cache.new_full((self.captions, beams, slots), -torch.inf)
        filled = torch.arange(self.longest, device=self.lengths.device) < self.lengths[:, None]
        self.hidden_slots[:, :, : self.longest].masked_fill_(filled[:, None], 0)
        self.masked = beams > 1 or not bool(filled.all())

    def read(self) -> Tensor:
        """The logits after each prefix, ``[C,1,V]``: the prefixes are read once, whatever the beams."""
        positions = torch.cat([torch.arange(n, device=self.lengths.device) for n in self.lengths.tolist()])
        rows = torch.arange(self.captions, device=positions.device).repeat_interleave(self.lengths)
        places = rows * self.longest + positions

        def spread(packed: Tensor) -> Tensor:
            """``[sum L_i,D] → [C,H,L,D/H]``, zeros behind the shorter ones: what is masked must still be finite."""
            padded = packed.new_zeros(self.captions * self.longest, packed.shape[-1]).index_copy_(0, places, packed)
            return padded.view(self.captions, self.longest, self.heads, -1).transpose(1, 2)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys, values = spread(key), spread(value)
            self.cache[layer, 0, :, :, : self.longest] = keys
            self.cache[layer, 1, :, :, : self.longest] = values
            mixed = scaled_dot_product_attention(spread(query), keys, values, is_causal=True)
            return mixed.transpose(1, 2).reshape(-1, query.shape[-1])[places]

        # Only the state at each prefix's end is asked for: all others are done with once the last layer has their keys.
        return self._forward(self.prefixes, positions, attend, only=self.lengths.cumsum(0) - 1)[:, None]

    def step(self, ids: Sequence[Sequence[int]], parents: Sequence[Sequence[int]]) -> Tensor:
        """The logits ``[C,K,V]`` once each beam says its token of ``ids [C,K]`` after what its beam of ``parents [C,K]`` said."""
        count, beams, start, end = self.captions, self.beams, self.used, self.used + self.beams
        device = self.cache.device
        mask = None
        if self.masked:
            if beams > 1:
                order = torch.tensor(parents, device=device)[..., None]
                before = self.hidden_slots[:count, :, self.longest : start]
                before.copy_(before.take_along_dim(order, 1))
            self.hidden_slots[:count, :, start:end].diagonal(dim1=1, dim2=2).zero_()
            mask = self.hidden_slots[:count, None, :, :end]

        def split(rows: Tensor) -> Tensor:
            return rows.view(count, beams, self.heads, -1).transpose(1, 2)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys, values = self.cache[layer, :, :count, :, :end]
            keys[:, :, start:] = split(key)
            values[:, :, start:] = split(value)
            mixed = scaled_dot_product_attention(split(query).to(keys.dtype), keys, values, attn_mask=mask)
            return mixed.transpose(1, 2).reshape(count * beams, -1).to(query.dtype)

        positions = (self.lengths[:count] + self.said).repeat_interleave(beams)
        tokens = self.model.get_input_embeddings()(torch.tensor(ids, device=device).flatten())
        self.used, self.said = end, self.said + 1
        return self._forward(tokens, positions, attend).view(count, beams, -1)

    def drop(self, row: int) -> None:
        """A caption leaves: the last one moves to its ``row``."""
        self.captions -= 1
        if row != self.captions:
            for kept in (self.cache[..., : self.used, :].movedim(2, 0), self.hidden_slots, self.lengths):
                kept[row] = kept[self.captions]

    def _forward(self, embeds: Tensor, positions: Tensor, attend: Attend, *, only: Tensor | None = None) -> Tensor:
        """The logits ``[R,V]`` of ``embeds [R,D_llm]`` at ``positions [R]``, or those of the rows ``only``."""
        logits: Tensor = self.model.lm_head(walk(self.model, embeds, positions, attend, only=only))
        return logits
