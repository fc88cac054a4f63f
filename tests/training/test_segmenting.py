"""The segmenter's training from a config to its outcome, at test size: alone and by two, cut off, continued, with the encoder."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from msmedcap import config as configs
from msmedcap.checkpoints import absent_part, read_weights
from msmedcap.config import LoopConfig, ModelsConfig, SegmentationOptions, UserError, to_json
from msmedcap.segmenters import load_segmenter
from msmedcap.training import segmenting, train
from msmedcap.training.config import DataPart, TrainConfig
from msmedcap.training.presets import PRESETS, describe, read_config
from msmedcap.training.segment_config import SegmentTraining
from msmedcap.training.segmenting import Trained, demo_segmenter
from tests import segments, sizes
from tests.training.toy import finish, free_port, rows_of, start

LOOP = LoopConfig(steps=2, lr=1e-3, warmup=1, precision="no", save_every=1)
NAMES = ("Left Lung", "Right Lung", "heart")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder at test size."""
    return sizes.write_folder(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with index maps."""
    return segments.folder(tmp_path_factory.mktemp("set") / "set", count=10)


def config(models: Path, pictures: Path, out: Path, **options: Any) -> TrainConfig:
    parts = SegmentTraining(each=2, draws=2, options=SegmentationOptions(rounds=1))
    data = (DataPart("folder", str(pictures), split=""),)
    made = TrainConfig("segmentation", data, LOOP, models=str(models), batch=4, out=str(out), val_count=4, segments=parts)
    return dataclasses.replace(made, **options)


def done(outcome: Trained | None) -> Trained:
    assert outcome is not None
    return outcome


def sam(models: Path) -> configs.SamConfig:
    return configs.read(ModelsConfig, models / "config.json").sam


def test_a_training_leaves_a_segmenter_beside_its_encoder(models: Path, pictures: Path, tmp_path: Path) -> None:
    file = tmp_path / "training.json"
    val = (DataPart("folder", str(pictures), split=""),)
    file.write_text(to_json(config(models, pictures, Path("elsewhere"), val=val)))
    made = train.run("segmentation", str(file), ["segments.tokens=7"], out=tmp_path / "run", out_models=models)
    assert isinstance(made, Trained) and made.classes == NAMES and made.steps == 2
    assert {"loss", "naming", "presence", "overlap"} <= set(made.val) and made.skipped == 0
    kept, put = (load_segmenter(folder, sam(models)) for folder in (Path(made.weights), models / "segmenter"))
    assert kept.names == NAMES and kept.config.tokens == 7
    for key, value in kept.state_dict().items():
        assert torch.equal(put.state_dict()[key], value), key
    assert json.loads((tmp_path / "run" / "outcome.json").read_text())["classes"] == list(NAMES)
    assert [row["step"] for row in rows_of(tmp_path / "run")] == [0, 1]
    # Run again, it has nothing to do and says the same.
    again = train.run("segmentation", str(file), ["segments.tokens=7"], out=tmp_path / "run", out_models=models)
    assert dataclasses.asdict(done(again) if isinstance(again, Trained) else Trained(**{})) == dataclasses.asdict(made)


def test_features_from_a_cache_train_alike(models: Path, pictures: Path, tmp_path: Path) -> None:
    for name, cache in (("kept", str(tmp_path / "cache")), ("made", "")):
        segmenting.train_segments(config(models, pictures, tmp_path / name, cache=cache))
    kept, made = rows_of(tmp_path / "kept"), rows_of(tmp_path / "made")
    assert [row["loss"] for row in kept] == pytest.approx([row["loss"] for row in made], rel=0.02)
    assert list((tmp_path / "cache").glob("sam-*"))


def test_a_stopped_training_goes_on_and_ends_alike(
    models: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = done(segmenting.train_segments(config(models, pictures, tmp_path / "straight")))
    real = segmenting.SegmentData.batch

    def failing(self: Any, number: int, size: int, *, each: int) -> Any:
        if number == 1:
            raise InterruptedError
        return real(self, number, size, each=each)

    with monkeypatch.context() as patch:
        patch.setattr(segmenting.SegmentData, "batch", failing)
        with pytest.raises(InterruptedError):
            segmenting.train_segments(config(models, pictures, tmp_path / "cut"))
    resumed = done(segmenting.train_segments(config(models, pictures, tmp_path / "cut")))
    assert rows_of(tmp_path / "straight") == rows_of(tmp_path / "cut")
    a, b = read_weights(Path(straight.weights)), read_weights(Path(resumed.weights))
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(("semantics", "text"), [(False, True), (True, False), (False, False)])
def test_parts_can_be_left_out(models: Path, pictures: Path, tmp_path: Path, semantics: bool, text: bool) -> None:
    parts = SegmentTraining(each=2, draws=1, semantics=semantics, text=text, options=SegmentationOptions(rounds=1))
    made = done(segmenting.train_segments(config(models, pictures, tmp_path, segments=parts)))
    segmenter = load_segmenter(Path(made.weights), sam(models))
    assert (segmenter.semantics is not None, segmenter.texts is not None) == (semantics, text)
    assert ("naming" in rows_of(tmp_path)[0]) == semantics


def test_the_encoder_learns_where_that_is_asked_for(models: Path, pictures: Path, tmp_path: Path) -> None:
    parts = SegmentTraining(each=2, draws=1, encoder=True, options=SegmentationOptions(rounds=1))
    made = config(models, pictures, tmp_path / "run", segments=parts)
    segmenting.train_segments(made)
    before, after = read_weights(models / "sam"), read_weights(tmp_path / "run" / "sam")
    assert set(before) == set(after) and any(not torch.equal(before[k], after[k]) for k in before)
    with pytest.raises(UserError, match="captions need the old one"):
        segmenting.train_segments(dataclasses.replace(made, out_models=str(models)))


def test_a_training_can_begin_with_a_segmenter(models: Path, pictures: Path, tmp_path: Path) -> None:
    first = done(segmenting.train_segments(config(models, pictures, tmp_path / "first")))
    still = LoopConfig(steps=1, lr=1e-12, warmup=1, weight_decay=0.0, precision="no", save_every=1)
    parts = SegmentTraining(each=2, draws=1, start=first.weights, options=SegmentationOptions(rounds=1))
    second = done(segmenting.train_segments(config(models, pictures, tmp_path / "second", segments=parts, loop=still)))
    a, b = read_weights(Path(first.weights)), read_weights(Path(second.weights))
    assert all(torch.allclose(a[key], b[key], atol=1e-6) for key in a)
    (pictures / "names.json").write_text(json.dumps({**segments.LABELS, "3": "aorta"}))
    try:
        with pytest.raises(UserError, match="cannot name aorta"):
            segmenting.train_segments(config(models, pictures, tmp_path / "third", segments=parts))
    finally:
        (pictures / "names.json").write_text(json.dumps(segments.LABELS))


def test_an_estimate_does_nothing(
    models: Path, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert segmenting.train_segments(config(models, pictures, tmp_path / "run", cache=str(tmp_path / "c")), estimate=True) is None
    assert "10 pictures with 30 masks, in 20 views" in caplog.text and not (tmp_path / "run").exists()


def test_the_demo_stage_trains_on_what_is_there(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = PRESETS["demo-segmentation"]
    few = tuple(dataclasses.replace(p, path="30") if p.name == "phantoms" else p for p in preset.data)
    monkeypatch.setitem(PRESETS, "demo-segmentation", dataclasses.replace(preset, data=few, batch=2))
    demo_segmenter(None, models, tmp_path / "work", steps=1)
    made = load_segmenter(models / "segmenter", sam(models))
    assert "brain" in made.names and made.config.dense_prompts
    assert (tmp_path / "work" / "segmenter" / "log.jsonl").is_file()


def test_presets_can_be_changed_by_their_parts() -> None:
    changed = read_config("demo-segmentation", ["segments.text=false", "segments.options.alignment=0", "seed=2"])
    assert changed.segments is not None and not changed.segments.text and changed.segments.options.alignment == 0
    made = read_config("demo-captioning-blip2", ["segments.each=3"])
    assert made.segments == SegmentTraining(each=3)
    with pytest.raises(UserError, match="no 'rounds' in segments.rounds"):
        read_config("demo-segmentation", ["segments.rounds=3"])
    assert describe(PRESETS["full-segmentation"]).startswith("SEG-SAM on sa_med2d (M) + cxr_seg (M)")
    for wrong in ("segments.each=0", "segments.balance=2"):
        with pytest.raises(UserError, match="must be"):
            read_config("demo-segmentation", [wrong])


def test_the_command_that_is_named_for_a_missing_segmenter_names_a_preset() -> None:
    small = sizes.config()
    published = dataclasses.replace(small, clip=dataclasses.replace(small.clip, stem="patch"))
    told = absent_part("models/mine", "segmenter", published)
    words = told.removesuffix(".").split()
    preset, changed = words[words.index("--config") + 1], words[words.index("--set") + 1]
    assert read_config(preset, [changed]).models == "models/mine"
    assert words[words.index("train") + 1] == PRESETS[preset].task and told.endswith("--out-models models/mine.")


def together(index: int, port: int, made: TrainConfig) -> None:
    """One of two processes of a training."""
    os.environ.update(
        RANK=str(index), LOCAL_RANK=str(index), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    segmenting.train_segments(made)


@pytest.mark.slow
def test_two_processes_train_one_segmenter(models: Path, pictures: Path, tmp_path: Path) -> None:
    made = config(models, pictures, tmp_path / "run", cache=str(tmp_path / "cache"))
    port = free_port()
    started = [start(together, index, port, made) for index in range(2)]
    assert finish(*started) == [0, 0]
    rows = rows_of(tmp_path / "run")
    assert [row["samples"] for row in rows] == [4, 4]
    assert load_segmenter(tmp_path / "run" / "segmenter", sam(models)).names == NAMES
