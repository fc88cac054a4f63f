"""Trainings from a config to their outcome, at test size: both stages, every data set, cut off and gone on with, by one or two."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import msmedcap
from msmedcap.checkpoints import read_weights
from msmedcap.config import LoopConfig, UserError, to_json
from msmedcap.data.sets import read_dataset
from msmedcap.data.shards import write_shards
from msmedcap.training import train
from msmedcap.training.config import DataPart, TrainConfig
from msmedcap.training.run_folder import Sample
from msmedcap.training.task_data import Batches
from msmedcap.training.train import Outcome, run
from tests import sizes
from tests.training import pictures
from tests.training.toy import finish, free_port, rows_of, start

LOOP = LoopConfig(steps=2, lr=1e-3, warmup=1, precision="no", save_every=2)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder at test size."""
    return sizes.write_folder(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of twelve training pictures, one of them damaged, and four others."""
    return pictures.table(tmp_path_factory.mktemp("table"), bad=(3,))


@pytest.fixture(scope="module")
def branches(models: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The outcome of stage 1 of each branch."""
    root = tmp_path_factory.mktemp("stage1")
    for view in ("clip", "sam"):
        done(run("alignment", alignment(root / f"{view}.json", models, table, branch=view), out=root / view))
    return {view: root / view / "branch" for view in ("clip", "sam")}


def done(outcome: Outcome | None) -> Outcome:
    assert outcome is not None
    return outcome


def alignment(file: Path, models: Path, table: Path, **options: Any) -> str:
    """A config's file, of stage 1 where ``options`` do not say otherwise."""
    data = (DataPart("table", str(table)),)
    val = (DataPart("table", str(table), split="val"),)
    plain: dict[str, Any] = {"models": str(models), "branch": "clip", "val": val, "batch": 4}
    file.write_text(to_json(TrainConfig("alignment", data, LOOP, **plain)))
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, **json.loads(json.dumps(options))}))
    return str(file)


def captioning(file: Path, models: Path, table: Path, branches: dict[str, Path], **options: Any) -> str:
    starts = {view: [str(folder)] for view, folder in branches.items()}
    return alignment(file, models, table, task="captioning", branch="", **{"system": "MSMedCap", "init": starts} | options)


def test_stage_one_leaves_a_branch_and_what_it_was_made_with(branches: dict[str, Path]) -> None:
    for view, folder in branches.items():
        record = json.loads((folder / "config.json").read_text())
        assert record["encoder"] == view and (folder / "model.safetensors").is_file()
        run_folder = folder.parent
        config = json.loads((run_folder / "config.json").read_text())
        assert config["branch"] == view and config["out"] == "" and config["loop"]["steps"] == 2
        outcome = json.loads((run_folder / "outcome.json").read_text())
        assert set(outcome["val"]) == {"loss", "itc", "itm", "itg"} and outcome["val_batch"] == 4
        assert outcome["skipped"] == 1 and outcome["steps"] == 2
        assert json.loads((run_folder / "run.json").read_text())["finished"]
        assert [row["step"] for row in rows_of(run_folder)] == [0, 1]


@pytest.mark.parametrize("system", ["MSMedCap", "BLIP2", "SAM-BLIP2"])
def test_stage_two_makes_a_system_of_branches_that_captions(
    system: str, branches: dict[str, Path], models: Path, table: Path, tmp_path: Path
) -> None:
    own = {view: folder for view, folder in branches.items() if view in sizes.config().systems[system]}
    file = captioning(tmp_path / "c.json", models, table, own, system=system)
    outcome = done(run("captioning", file, out=tmp_path / "run", out_models=tmp_path / "models"))
    assert set(outcome.val) == {"loss"} and outcome.weights == str(tmp_path / "run" / "system")
    trained = read_weights(Path(outcome.weights))
    for view, folder in own.items():  # from the branch, and moved by the two steps
        before = read_weights(folder)["branch.qformer.query_tokens"].float()
        after = trained[f"branches.{view}.qformer.query_tokens"].float()
        assert 0 < float((after - before).abs().max()) < 0.01
    said = msmedcap.load(outcome.models, device="cpu").set_scan(table.parent / "1.png").captions()
    assert set(said) == {system}


def test_a_second_system_is_added_to_the_model_folder_and_other_models_are_refused(
    branches: dict[str, Path], models: Path, table: Path, tmp_path: Path
) -> None:
    for system, view in (("BLIP2", "clip"), ("SAM-BLIP2", "sam")):
        own, called = {view: branches[view]}, f"{system}-GM"
        file = captioning(tmp_path / f"{system}.json", models, table, own, system=system, called=called)
        run("captioning", file, out=tmp_path / system, out_models=tmp_path / "models")
    assert set(msmedcap.load(str(tmp_path / "models"), device="cpu").systems) == {"BLIP2-GM", "SAM-BLIP2-GM"}
    other = dataclasses.replace(sizes.config(), name="other")
    (tmp_path / "models" / "config.json").write_text(to_json(other))
    with pytest.raises(UserError, match="another construction"):
        run("captioning", file, out=tmp_path / "no", out_models=tmp_path / "models")
    assert not (tmp_path / "no").exists()  # found before anything was trained


class Cut(Exception):
    """The power goes out."""


@pytest.mark.parametrize("cached", [False, True])
def test_a_run_that_was_cut_off_goes_on_to_the_same_end(
    cached: bool, models: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = dataclasses.asdict(dataclasses.replace(LOOP, steps=5))
    options = {"loop": loop, **({"cache": str(tmp_path / "cache")} if cached else {"augment": 0.5})}
    file = alignment(tmp_path / "a.json", models, table, **options)
    whole = done(run("alignment", file, out=tmp_path / "whole"))
    make = Batches.__call__

    def cut(self: Batches, number: int) -> Any:
        if number == 3:
            raise Cut
        return make(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(Batches, "__call__", cut)
        with pytest.raises(Cut):
            run("alignment", file, out=tmp_path / "cut")
    assert not (tmp_path / "cut" / "branch").exists()
    again = done(run("alignment", file, out=tmp_path / "cut"))
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole") and again.val == whole.val
    a, b = (read_weights(tmp_path / name / "branch") for name in ("cut", "whole"))
    assert all(torch.equal(a[key], b[key]) for key in b)
    assert len(json.loads((tmp_path / "cut" / "run.json").read_text())["starts"]) == 2
    with pytest.raises(UserError, match=r"another loop\.lr"):
        run("alignment", file, ["loop.lr=0.01"], out=tmp_path / "cut")


def test_epochs_decide_the_steps_and_an_estimate_does_nothing(
    models: Path, table: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = alignment(tmp_path / "a.json", models, table, epochs=2.5, cache=str(tmp_path / "cache"))
    with caplog.at_level(logging.INFO, logger="msmedcap"):
        assert run("alignment", file, out=tmp_path / "run", estimate=True) is None
    assert "8 steps of 4 pictures by 1 process(es), 32 pictures in all, 2.67 times the 12 there are" in caplog.text
    # CLIP at test size: 17 tokens of 32 numbers of two bytes.
    assert "(0% general, 100% medical); their features take 0.00 GB" in caplog.text
    assert train._feature_bytes(sizes.config(), "clip") == 17 * 32 * 2
    assert train._feature_bytes(sizes.config(), "sam") == 64 * 32 * 2
    assert not (tmp_path / "run").exists() and not (tmp_path / "cache").exists()


def test_samples_say_something_of_every_picture_and_where_it_looked(
    branches: dict[str, Path], models: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[list[Sample]] = []
    fit = train.fit

    def seen(*arguments: Any, samples: Callable[[], list[Sample]], **options: Any) -> Any:
        weights = fit(*arguments, samples=samples, **options)
        shown.append(samples())
        return weights

    monkeypatch.setattr(train, "fit", seen)
    run("alignment", alignment(tmp_path / "a.json", models, table, branch="sam"), out=tmp_path / "a")
    run("captioning", captioning(tmp_path / "c.json", models, table, branches), out=tmp_path / "c")
    for samples in shown:
        assert len(samples) == 4  # all there are of val
        assert {sample.truth for sample in samples} == set(sizes.CAPTIONS[4:8])
        for sample in samples:
            assert sample.attention is not None and sample.attention.shape == sample.picture.shape[:2]
    assert {sample.caption for sample in shown[0]} <= set(sizes.CAPTIONS[4:8])


@pytest.mark.parametrize(
    ("task", "options", "said"),
    [
        ("segmenting", {}, "no task 'segmenting'; there are alignment, captioning"),
        ("captioning", {}, "a training of the task alignment, not captioning"),
        ("alignment", {"branch": "eye"}, "no branch 'eye' in these models; set branch to one of clip, sam"),
        ("alignment", {"init": {"sam": ["x"]}}, "init names sam, which is not trained here; it may name clip"),
        ("alignment", {"batch": 6, "val": [{"name": "table", "path": "/nowhere"}]}, "/nowhere does not exist"),
        ("captioning", {"task": "captioning", "system": "BLIP3"}, "no system 'BLIP3'"),
        ("captioning", {"task": "captioning", "system": "BLIP2"}, "name the folder of clip"),
        ("captioning", {"task": "captioning", "system": "BLIP2", "init": {"clip": ["a", "b"]}}, "one folder, not several"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence_before_a_folder_is_made(
    task: str, options: dict[str, Any], said: str, models: Path, table: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        run(task, alignment(tmp_path / "a.json", models, table, **options), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_folder_and_a_batch_that_cannot_be_shared_are_refused(
    models: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = alignment(tmp_path / "a.json", models, table)
    with pytest.raises(UserError, match="--out DIR"):
        run("alignment", file)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="choose a multiple of 3"):
        run("alignment", file, out=tmp_path / "run")


def shards(folder: Path) -> Path:
    write_shards(read_dataset("table", pictures.table(folder / "table"), "train"), folder / "shards", progress=False)
    return folder / "shards"


MADE: dict[str, Callable[[Path], Path]] = {
    "table": pictures.table, "coco2014": pictures.coco, "roco": pictures.roco, "rocov2": pictures.rocov2, "shards": shards,
}  # fmt: skip
REAL = {"medpix": "medpix", "cxr_labels": "cxr_labels", "busi": "busi", "medicat": "medicat_sample"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MADE, *REAL])
def test_every_data_set_trains(
    name: str, branches: dict[str, Path], models: Path, table: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name in MADE:
        path = MADE[name](tmp_path / "data")
    else:
        path = request.getfixturevalue("shared_data") / REAL[name]
        if not path.is_dir():
            pytest.skip(f"{path} is not here")
    data = [{"name": name, "path": str(path), "clean": name in ("roco", "medicat")}]
    # Within the warm-up nobody judges how far apart the similarities are.
    options = {"data": data, "val": [], "loop": dataclasses.asdict(dataclasses.replace(LOOP, warmup=2))}
    first = done(run("alignment", alignment(tmp_path / "a.json", models, table, **options), out=tmp_path / "a"))
    starts = {**branches, "clip": Path(first.weights)}
    done(run("captioning", captioning(tmp_path / "c.json", models, table, starts, **options), out=tmp_path / "c"))
    for folder in ("a", "c"):
        rows = rows_of(tmp_path / folder)
        assert len(rows) == 2 and all(row["grad"] > 0 for row in rows)


def work(index: int, port: int, file: str, out: Path) -> None:
    """Process ``index`` of the two of a run; what it returns goes beside the run."""
    torch.set_num_threads(1)
    where = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": 2, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({name: str(value) for name, value in where.items()})
    outcome = done(run(json.loads(Path(file).read_text())["task"], file, out=out))
    (out / f"said-{index}.json").write_text(json.dumps(dataclasses.asdict(outcome)))


@pytest.mark.slow
@pytest.mark.timeout(900)  # processes that start, and import everything, on a busy machine
@pytest.mark.parametrize(("task", "cached"), [("alignment", False), ("captioning", True)])
def test_two_processes_train_as_one(
    task: str, cached: bool, branches: dict[str, Path], models: Path, table: Path, tmp_path: Path
) -> None:
    """With a bad picture, micro batches, other pictures' loss, and (cached) features that both make together."""
    files = {}
    for name in ("alone", "together"):
        loop = dataclasses.asdict(dataclasses.replace(LOOP, steps=3, accumulate=2, save_every=1))
        options = {"loop": loop, "batch": 8, **({"cache": str(tmp_path / f"cache {name}")} if cached else {})}
        if task == "alignment":
            files[name] = alignment(tmp_path / f"{name}.json", models, table, **options)
        else:
            files[name] = captioning(tmp_path / f"{name}.json", models, table, branches, **options)
    alone = done(run(task, files["alone"], out=tmp_path / "alone"))
    port, out = free_port(), tmp_path / "together"
    started = [start(work, index, port, files["together"], out) for index in range(2)]
    assert finish(*started) == [0, 0]
    first, second = (Outcome(**json.loads((out / f"said-{index}.json").read_text())) for index in range(2))
    assert first.val == second.val == pytest.approx(alone.val, rel=1e-3)
    for a, b in zip(rows_of(tmp_path / "alone"), rows_of(out), strict=True):
        for name in a.keys() - {"itc_spread"}:  # each process's is that of its own rows
            assert b[name] == pytest.approx(a[name], rel=1e-3, abs=1e-5), name
    together = read_weights(Path(first.weights))
    for key, wanted in read_weights(Path(alone.weights)).items():
        torch.testing.assert_close(together[key].float(), wanted.float(), atol=2e-3, rtol=1e-2, msg=key)
