"""The caption metrics' rows: that pairs are all different, and that both sides are measured."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

benchmark = pytest.importorskip("benchmarks.caption_metrics", reason="the benchmarks need psutil")


def test_every_pair_is_new_and_shares_its_beginning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MSMEDCAP_DATA", str(tmp_path))
    references, candidates, kind = benchmark.made_pairs(500)
    assert kind == "made-up" and len(references) == len(candidates) == 500
    assert len(set(candidates)) == 500 and len({text for text, in references}) == 500
    assert all(text.split()[:2] == candidate.split()[:2] for (text,), candidate in zip(references, candidates, strict=True))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java (apt install default-jre-headless)")
def test_both_sides_are_measured() -> None:
    pytest.importorskip("pycocoevalcap", reason="needs the COCO caption toolkit (pip install pycocoevalcap)")
    for options in ((), ("--toolkit",)):
        found = benchmark.measured(20, *options)
        assert found["pairs"] == 20 and found["seconds"] > 0 and 10 < found["mb"] < 4000 and found["java_mb"] > 10
