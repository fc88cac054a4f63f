"""The 8-bit benchmark runs at test size and counts what it says it counts."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks import eight_bit
from benchmarks.eight_bit import Case, agreement, perplexity
from msmedcap.models.decoding import Said
from tests import sizes


@pytest.mark.slow
def test_it_has_its_rows() -> None:
    rows = {row.what: row for row in eight_bit.rows(device=torch.device("cpu"), quick=True)}
    for what in ("captions equal to fp32's", "tokens equal to fp32's"):
        assert 0 <= rows[what].ours <= 1 and rows[what].peer is not None and 0 < rows[what].peer <= 1
    assert rows["degenerate captions"].ours == 0
    assert 0.9 < (rows["perplexity of references"].ratio or 0) < 1.1
    assert 0 < rows["relative error of the last states"].ours < 0.1
    assert rows["likeliest next tokens equal to bf16's"].ours > 0.5
    assert 0.45 < (rows["weights of the layers"].ratio or 0) < 0.6
    assert 0.5 < (rows["weights, OPT-2.7B"].ratio or 0) < 0.55
    assert all(rows[f"a step of {n} rows"].ours > 0 for n in (1, 3, 15))


def test_agreement_by_hand() -> None:
    left, right = [Said((1, 2, 3)), Said((4, 5))], [Said((1, 2, 3)), Said((4, 6, 7))]
    assert agreement(left, right) == (0.5, 4 / 6)
    assert agreement(left, left) == (1.0, 1.0)


@torch.no_grad()
def test_perplexity_weighs_every_token_alike() -> None:
    opt = sizes.opt()
    drawn = torch.randn(3, 5, opt.width, generator=torch.Generator().manual_seed(0))
    prefixes = [drawn[0], drawn[1], drawn[2, :3]]  # of two lengths
    captions = ["Normal.", *sizes.CAPTIONS[:2]]
    cases = [Case(prefix, caption) for prefix, caption in zip(prefixes, captions, strict=True)]
    losses = [float(opt.loss(c.prefix[None], [c.reference])) for c in cases]
    counts = [len(opt.caption_ids(c)) for c in captions]
    wanted = math.exp(sum(a * b for a, b in zip(losses, counts, strict=True)) / sum(counts))
    assert perplexity(opt, cases) == pytest.approx(wanted, rel=1e-5)
