"""What every metric's entry holds, and what scores are."""

from __future__ import annotations

import numpy as np
import pytest

from msmedcap.evaluation import metric


def test_every_metric_has_its_own_name_and_a_source() -> None:
    found = metric.registry()
    assert {"BLEU-1", "METEOR", "ROUGE-L", "CIDEr", "ROUGE-1", "BERTScore", "BLEURT"} <= set(found)
    assert len({entry.column for entry in found.values()}) == len(found)
    for name, entry in found.items():
        assert entry.name == name and entry.source and 0 <= entry.scale <= 3


def test_mean_of() -> None:
    scores = metric.mean_of(np.array([1, 2, 6]))
    assert scores.corpus == 3 and scores.per_case.dtype == np.float64 and scores.counts is None
    with pytest.raises(AttributeError):
        scores.corpus = 1  # type: ignore[misc]
