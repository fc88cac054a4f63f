"""Fitting the check that a scan is unlike the training data, and the check that is shipped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from msmedcap import checkpoints
from msmedcap.captioning import Features
from msmedcap.data.scans import open_scan
from msmedcap.data.views import make_view
from msmedcap.evaluation import unlike as fitting
from msmedcap.evaluation.unlike import fit, fit_unlike, strange_pictures
from msmedcap.explain import unlike
from tests import sizes

LARGEST = 300_000


def test_the_check_is_fitted_written_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "MOST", {"phantoms": 60})
    monkeypatch.setattr("msmedcap.evaluation.unlike.strange.EACH", 4)
    folder = sizes.write_folder(tmp_path / "models")
    found = fit_unlike(folder, None, work=tmp_path / "work")
    again = unlike.load(folder)
    assert again is not None and again.limits == found.limits and set(found.limits) == {"clip", "sam", "clip+sam"}
    assert (folder / unlike.ARRAYS).stat().st_size < LARGEST
    facts = json.loads((folder / unlike.FACTS).read_text())
    told = facts["measured"]["clip+sam"]
    assert told["held out"]["pictures"] == 20 == found.limits["clip"].pictures
    assert told["held out"]["alarms"] == pytest.approx(found.limits["clip+sam"].heard)
    assert told["strange/one grey"]["auc"] > 0.9
    assert "strange/photographs" not in told
    monkeypatch.setattr(checkpoints, "load", lambda *_, **__: pytest.fail("looked a second time"))
    assert fit_unlike(folder, None, work=tmp_path / "work").limits == found.limits


def test_strange_pictures_are_pictures() -> None:
    scans = [np.random.default_rng(i).integers(0, 256, (60, 80, 3)).astype(np.uint8) for i in range(10)]
    kinds = strange_pictures(scans, scans[:1])
    assert len(kinds) == 10 and all(pictures for pictures in kinds.values())
    assert all(p.dtype == np.uint8 and p.ndim == 3 and p.shape[2] == 3 for pictures in kinds.values() for p in pictures)
    assert (kinds["scans upside down"][0] == scans[0][::-1]).all()
    assert (kinds["scans, black and white exchanged"][0] == 255 - scans[2]).all()


@pytest.fixture(scope="module")
def demo() -> tuple[checkpoints.Models, unlike.Unlike]:
    models = checkpoints.load("demo", device=torch.device("cpu"))
    assert models.folder is not None
    check = unlike.load(models.folder)
    assert check is not None, "the shipped weights come with their check"
    return models, check


def test_the_shipped_check_is_small_and_says_how_often_it_is_wrong(demo: tuple[checkpoints.Models, unlike.Unlike]) -> None:
    models, check = demo
    assert models.folder is not None
    assert (models.folder / unlike.ARRAYS).stat().st_size < LARGEST
    for limit in check.limits.values():
        assert limit.share == fitting.SHARE and 0 < limit.heard < 0.12 and limit.pictures >= 150


def test_the_shipped_check_knows_a_photograph_of_nothing_from_a_scan(
    demo: tuple[checkpoints.Models, unlike.Unlike], root: Path
) -> None:
    models, check = demo
    scans = [open_scan(root / "assets" / "examples" / name).picture() for name in ("ct-head.dcm", "cr-chest.dcm", "us-breast.dcm")]
    kinds = strange_pictures(scans)
    pictures = [*scans, kinds["noise"][1], kinds["pages of text"][0], kinds["one grey"][10]]
    features = Features(models, lambda spec: torch.stack([make_view(p, spec) for p in pictures]))
    told = check.sentences({view: features(view) for view in ("clip", "sam")})
    assert [sentence is None for sentence in told] == [True] * 3 + [False] * 3
