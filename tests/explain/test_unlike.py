"""The warning that a scan is unlike the training data: distances, files, and what the predictor makes of it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from msmedcap import checkpoints, predictor
from msmedcap.captioning import Features
from msmedcap.data.phantoms import phantoms
from msmedcap.data.views import make_view
from msmedcap.explain import unlike
from msmedcap.explain.unlike import Known, Limit, Unlike
from tests import sizes

LIMIT = Limit(typical=1.0, limit=2.0, share=0.95, heard=0.05, pictures=100)


def _features(count: int, seed: int) -> Tensor:
    """Points of a flat of four dimensions in twelve, of very different spread."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    return torch.randn(count, 4, generator=generator) * torch.tensor([5.0, 2, 1, 0.5]) @ flat


def _known() -> Known:
    train = _features(400, 1) + 0.01 * torch.randn(400, 12, generator=torch.Generator().manual_seed(2))
    return Known.fit(train, keep=torch.arange(0, 400, 2), axes=4)


def test_what_is_far_off_or_off_the_axes_is_farther() -> None:
    known = _known()
    usual = known.distance(_features(100, 5))
    assert float(known.distance(_features(100, 6) * 6).median()) > 2 * float(usual.max())
    aside = _features(100, 7) + torch.randn(12, generator=torch.Generator().manual_seed(9))
    assert float(known.distance(aside).min()) > float(usual.max()), "no axis tells of it, the rest does"


def test_files_bring_back_the_same_distances(tmp_path: Path) -> None:
    check = Unlike({"clip": _known(), "sam": _known()}, {"clip": 32, "sam": 64}, dict.fromkeys(("clip", "sam", "clip+sam"), LIMIT))
    check.save(tmp_path)
    again = unlike.load(tmp_path)
    assert again is not None and again.sizes == check.sizes and again.limits == check.limits
    rows = {"clip": _features(20, 8), "sam": _features(20, 9)}
    name, distances = again.distance(rows)
    assert name == "clip+sam"
    torch.testing.assert_close(distances, check.distance(rows)[1], rtol=0.05, atol=0.05)
    assert again.distance({"sam": rows["sam"]})[0] == "sam"


def test_without_files_nothing_is_checked_and_damaged_ones_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert unlike.load(tmp_path) is None
    Unlike({"clip": _known()}, {"clip": 32}, {"clip": LIMIT}).save(tmp_path)
    (tmp_path / unlike.FACTS).write_text("{}")
    with caplog.at_level(logging.WARNING):
        assert unlike.load(tmp_path) is None
    assert "no scan is checked" in caplog.text


def test_the_sentence_gives_the_distance_and_the_limit() -> None:
    said = unlike.told(5.12, Limit(1.0, 3.2, 0.95, 0.05, 10))
    assert "distance 5.1" in said and "95%" in said and "below 3.2" in said


def _fitted(folder: Path) -> Path:
    """A model folder whose check knows phantoms, as :mod:`msmedcap.evaluation.unlike` would write it."""
    models = checkpoints.load(str(sizes.write_folder(folder)), device=torch.device("cpu"))
    pictures = [np.repeat(p.picture[..., None], 3, axis=2) for p in phantoms(24, seed=3, size=96)]
    seen = Features(models, lambda spec: torch.stack([make_view(p, spec) for p in pictures]))
    known = {view: Known.fit(unlike.pooled(seen(view)), keep=torch.arange(24), axes=8) for view in ("clip", "sam")}
    views = {view: models.config.view(view).size for view in known}
    limits = dict.fromkeys(("clip", "sam", "clip+sam"), Limit(1.0, 9.0, 0.95, 0.05, 24))
    Unlike(known, views, limits).save(folder)
    return folder


def _png(path: Path, picture: np.ndarray) -> Path:
    Image.fromarray(picture).save(path)
    return path


def test_a_strange_picture_is_warned_of_and_no_encoder_runs_twice(tmp_path: Path) -> None:
    visitor = predictor.load(str(_fitted(tmp_path / "models")))
    known = next(iter(phantoms(1, seed=3, size=96))).picture
    checks = np.indices((96, 96)).sum(0) // 3 % 2 * 255
    strange = _png(tmp_path / "strange.png", np.repeat(checks[..., None], 3, axis=2).astype(np.uint8))
    usual = _png(tmp_path / "usual.png", np.repeat(known[..., None], 3, axis=2))
    runs: list[str] = []
    for view in ("clip", "sam"):
        visitor._shared.frozen.encoder(view).register_forward_hook(lambda *_, view=view: runs.append(view))
    visitor.set_scan(strange).captions()
    assert sum("unlike those the models learnt from" in told for told in visitor.warnings) == 1
    assert sorted(runs) == ["clip", "sam"]
    for _ in visitor.stream():
        pass
    assert sum("unlike those" in told for told in visitor.warnings) == 1
    assert sorted(runs) == ["clip", "sam"]
    visitor.set_scan(usual).captions()
    assert not any("unlike those" in told for told in visitor.warnings)
    (first, second) = visitor.caption_many([usual, strange], batch=2)
    assert not any("unlike" in told for told in first.warnings) and any("unlike" in told for told in second.warnings)


def test_a_folder_without_the_files_warns_of_nothing(tmp_path: Path) -> None:
    visitor = predictor.load(str(sizes.write_folder(tmp_path / "models")))
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3)).astype(np.uint8)
    visitor.set_scan(_png(tmp_path / "noise.png", noise)).captions()
    assert not any("unlike" in told for told in visitor.warnings)
