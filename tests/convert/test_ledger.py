"""Every key is accounted for, and the table says so in lines a reader can follow."""

from __future__ import annotations

import pytest

from msmedcap.config import UserError
from msmedcap.convert.ledger import Ledger


def filled() -> Ledger:
    ledger = Ledger()
    for i in range(3):
        ledger.took(f"vision.layers.{i}.weight", "clip", f"blocks.{i}.w")
    ledger.took("query_tokens", "BLIP2/clip", "branches.clip.qformer.query_tokens")
    ledger.left("position_ids", "a constant")
    ledger.started("stage 1/clip", "temp", "not published; begun at 0.07")
    return ledger


def test_all_accounted_for() -> None:
    filled().close(["query_tokens", "position_ids", *(f"vision.layers.{i}.weight" for i in range(3))])


def test_every_unknown_key_is_named() -> None:
    with pytest.raises(UserError, match=r"2 weights this version does not know.*: adapter\.a, adapter\.b\.$"):
        filled().close(["query_tokens", "adapter.b", "adapter.a"])


def test_many_unknown_keys_are_counted() -> None:
    with pytest.raises(UserError, match=r"30 weights .*: k00, k01.*k19 and 10 more\.$"):
        filled().close([f"k{i:02d}" for i in range(30)])


def test_the_table() -> None:
    assert filled().table().splitlines() == [
        "| Source | Weights | Went to | Why |",
        "| --- | ---: | --- | --- |",
        "| `vision.layers.*` | 3 | clip: `blocks.*` |  |",
        "| `query_tokens` | 1 | BLIP2/clip: `branches.clip.qformer.query_tokens` |  |",
        "| `position_ids` | 1 | left out | a constant |",
        "| not in the source | 1 | stage 1/clip: `temp` | not published; begun at 0.07 |",
    ]


def test_the_rows() -> None:
    first = filled().rows()[0]
    assert first == {"source": "vision.layers.*", "count": 3, "part": "clip", "new": "blocks.*", "why": ""}
    assert sum(int(str(row["count"])) for row in filled().rows()) == 6
