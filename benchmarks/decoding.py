"""Decoding alone: three captions against one, and against three calls of ``transformers``' ``generate``.

Random weights: a newline may never come, so every caption is held to the same length and the rows compare equal work. Comes in: a
device. Goes out: rows at OPT-2.7B's width (four of its 32 layers, hence more weight on the head than at true depth) in bf16, and at
the demo's size in fp32.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.timing import Row, default_dtype, pair
from msmedcap.config import Decoding
from msmedcap.models.decoding import Said, decode
from msmedcap.models.frozen import freeze
from msmedcap.models.opt import OptModel
from msmedcap.models.opt_loading import build_opt
from msmedcap.models.packed import pack

NEWLINE, PAD, PROMPT = 50, 1, 5


@dataclass(frozen=True)
class Size:
    """An OPT of some width and what its systems' prefixes hold: two branches' queries for the first, one's for the others."""

    name: str
    vocab: int
    hidden: int
    layers: int
    heads: int
    queries: int
    tokens: int
    dtype: torch.dtype


FULL = Size("2.7B's width", 50272, 2560, 4, 32, 32, 30, torch.bfloat16)
DEMO = Size("demo size", 4096, 256, 4, 4, 16, 30, torch.float32)
TINY = Size("test size", 96, 32, 2, 2, 4, 4, torch.float32)


def rows(*, device: torch.device, quick: bool) -> list[Row]:
    """The decoding rows; ``quick`` runs a test-size model once."""
    if quick:
        return _rows(TINY, device, rounds=1)
    return [*_rows(FULL, device, rounds=5), *_rows(DEMO, device, rounds=9)]


def _rows(size: Size, device: torch.device, *, rounds: int) -> list[Row]:
    with default_dtype(size.dtype):
        model = freeze(build_opt(size.vocab, hidden=size.hidden, layers=size.layers, heads=size.heads).to(device))
    generator = torch.Generator().manual_seed(0)
    lengths = [branches * size.queries + PROMPT for branches in (2, 1, 1)]
    prefixes = [0.02 * torch.randn(n, size.hidden, generator=generator).to(device) for n in lengths]
    packed = copy.deepcopy(model)
    pack(packed)  # as the product loads it; the peers' weights stay as transformers has them
    return [row for beams in (1, 5) for row in _compared(packed, model, prefixes, size, beams, rounds)]


def _compared(
    packed: OptModel, plain: OptModel, prefixes: list[Tensor], size: Size, beams: int, rounds: int
) -> list[Row]:
    decoding = Decoding(beams=beams, min_new_tokens=size.tokens, max_new_tokens=size.tokens)
    note = f"{torch.get_num_threads()} threads" if plain.device.type == "cpu" else ""

    def ours(prefixes: list[Tensor], model: OptModel = packed) -> list[Said]:
        return decode(model, prefixes, decoding, newline=NEWLINE)

    def theirs(prefixes: list[Tensor]) -> list[Tensor]:
        return [_generate(plain, prefix, decoding) for prefix in prefixes]

    one = prefixes[:1]
    ways: list[tuple[str, Callable[[], object], Callable[[], object], str]] = [
        ("three captions / the longest one", lambda: ours(prefixes), lambda: ours(one), "≤ 1.9"),
        ("three captions / three calls of generate", lambda: ours(prefixes), lambda: theirs(prefixes), "≤ 0.7"),
        ("one caption / one call of generate", lambda: ours(one), lambda: theirs(one), "≤ 1"),
        ("three captions, packed weights / plain ones", lambda: ours(prefixes), lambda: ours(prefixes, plain), "≤ 1"),
        ("twelve captions / three", lambda: ours(prefixes * 4), lambda: ours(prefixes), "≤ 4"),
    ]
    how = f"{size.name}, {'greedy' if beams == 1 else f'{beams} beams'}"
    return [pair("decoding", f"{w} ({how})", call, peer, rounds=rounds, goal=g, note=note) for w, call, peer, g in ways]


def _generate(model: OptModel, prefix: Tensor, decoding: Decoding) -> Tensor:
    ids: Tensor = model.generate(
        inputs_embeds=prefix[None].to(model.dtype),
        attention_mask=torch.ones(1, len(prefix), dtype=torch.long, device=prefix.device),
        do_sample=False,
        num_beams=decoding.beams,
        min_new_tokens=decoding.min_new_tokens,
        max_new_tokens=decoding.max_new_tokens,
        eos_token_id=NEWLINE,
        pad_token_id=PAD,
    )
    return ids[0]
