"""The models behind the metrics: found or said how to get, named by a digest, loaded strictly and without pickle's code."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from msmedcap.config import UserError
from msmedcap.evaluation import neural
from msmedcap.evaluation.neural.checkpoint import find, pick_device
from tests.evaluation import neural_models


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return neural_models.distilbert(tmp_path / "distilbert")


def _score(folder: Path) -> float:
    return neural.bertscore([["ct of the chest"]], ["mri"], model=folder, layer=2, progress=False).corpus


@pytest.mark.parametrize("metric", ["bertscore", "bartscore", "bleurt"])
def test_a_published_model_that_is_not_here(metric: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    default = {"bertscore": neural.BERT_MODEL, "bartscore": neural.BART_MODEL, "bleurt": neural.BLEURT_MODEL}[metric]
    with pytest.raises(UserError) as caught:
        getattr(neural, metric)([["ct"]], ["mri"], progress=False)
    assert str(caught.value) == (
        f"{default} is not on this machine and the hub cannot be reached; on a machine with a network run "
        f"`hf download {default}`, copy the folder here and name its path, or set HF_HOME to where it was downloaded."
    )


def test_a_model_in_the_hubs_cache_is_named_by_its_commit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    home = tmp_path / "hub" / "models--owner--bert"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    shutil.copytree(folder, home / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert [find(name).digest for name in ("owner/bert", "owner/bert@main", f"owner/bert@{commit}")] == [commit] * 3
    assert neural.bertscore(
        [["ct of the chest"]], ["mri"], model="owner/bert", layer=2, progress=False
    ).corpus == _score(folder)
    (home / "snapshots" / commit / "model.safetensors").unlink()
    with pytest.raises(UserError, match="is not a whole model"):
        find("owner/bert")


def test_what_names_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in (tmp_path / "file", tmp_path / "no" / "such" / "folder"):
        with pytest.raises(UserError, match="There is no model folder at"):
            find(name)
    with pytest.raises(UserError, match="is not a whole model"):
        find(tmp_path)


def test_the_digest_follows_the_content(folder: Path, tmp_path: Path) -> None:
    first = find(folder).digest
    shutil.copytree(folder, tmp_path / "copy")
    assert find(tmp_path / "copy").digest == first
    (folder / "README.md").write_text("not read by a metric")
    assert find(folder).digest == first
    for file in ("model.safetensors", "tokenizer_config.json"):
        held = (folder / file).read_bytes()
        (folder / file).write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
        os.utime(folder / file, ns=(1, 1))
        assert find(folder).digest != first
        (folder / file).write_bytes(held)


def test_other_weights_are_other_scores_also_from_the_cache(folder: Path, tmp_path: Path) -> None:
    def score() -> float:
        scores = neural.bertscore([["ct"]], ["mri"], model=folder, layer=2, cache=tmp_path / "scores", progress=False)
        return scores.corpus

    first = score()
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    save_file({**weights, name: weights[name].roll(1, 0)}, folder / "model.safetensors", metadata={"format": "pt"})
    assert score() != pytest.approx(first, abs=1e-4)


@pytest.mark.parametrize("metric", ["bertscore", "bartscore", "bleurt"])
def test_kept_scores_need_no_model(metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = {
        "bertscore": neural_models.distilbert,
        "bartscore": neural_models.bart,
        "bleurt": neural_models.bert_bleurt,
    }
    folder = build[metric](tmp_path / "model")
    layer = {"layer": 2} if metric == "bertscore" else {}

    def score() -> list[float]:
        score = getattr(neural, metric)
        return list(score([["ct"]], ["mri"], model=folder, cache=tmp_path / "scores", progress=False, **layer).per_case)

    fresh = score()

    def refuse(*args: object) -> None:
        raise AssertionError("a model was opened")

    monkeypatch.setattr(f"msmedcap.evaluation.neural.{metric.replace('score', '')}scorer.opened", refuse)
    assert score() == fresh


def test_a_missing_weight_is_an_error(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "layer.1.ffn.lin1.bias" in name))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks 1 weights of .*, the first is .*layer.1.ffn.lin1.bias"):
        _score(folder)


def test_a_damaged_file_is_an_error(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match="cannot be loaded"):
        _score(folder)


def test_pytorch_files_are_read_but_their_code_is_not_run(folder: Path, tmp_path: Path) -> None:
    expected = _score(folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert _score(folder) == pytest.approx(expected, abs=1e-6)

    class Sly:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({**weights, "sly": Sly()}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        _score(folder)
    assert not (tmp_path / "ran").exists()


def test_code_of_a_repository_is_not_run(folder: Path, tmp_path: Path) -> None:
    (folder / "sly.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: ...\nclass Model: ...\n")
    config = (folder / "config.json").read_text().replace('"model_type": "distilbert"', '"model_type": "sly"')
    (folder / "config.json").write_text(
        config.replace("{", '{"auto_map": {"AutoConfig": "sly.Config", "AutoModel": "sly.Model"},', 1)
    )
    with pytest.raises(UserError, match="is of no kind that BERTScore can read"):
        _score(folder)
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_its_vocabulary(folder: Path) -> None:
    """The library alone would score with a tokenizer that knows no word."""
    for file in ("tokenizer.json", "vocab.txt"):
        (folder / file).unlink()
    with pytest.raises(UserError, match="has no vocabulary"):
        _score(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="The tokenizer of .* cannot be loaded"):
        _score(folder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has an accelerator")
def test_an_accelerator_that_is_not_there() -> None:
    assert pick_device(None) == "cpu"
    with pytest.raises(UserError, match="choose the device cpu"):
        pick_device("cuda")


def test_half_precision_is_near(folder: Path) -> None:
    notes: list[str] = []
    half = neural.bertscore([["ct"]], ["mri"], model=folder, layer=2, dtype="bfloat16", progress=False, notes=notes)
    full = neural.bertscore([["ct"]], ["mri"], model=folder, layer=2, progress=False)
    assert half.corpus == pytest.approx(full.corpus, abs=0.05) and "bfloat16" in notes[-1]
