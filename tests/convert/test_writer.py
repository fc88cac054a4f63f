"""Parts are written in shards, keep their dtype, and stand whole or not at all."""

from __future__ import annotations

import dataclasses
import errno
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from msmedcap import config as configs
from msmedcap import systems
from msmedcap.checkpoints import read_weights
from msmedcap.config import ModelsConfig, UserError
from msmedcap.convert import parts, writer
from msmedcap.convert.ledger import Ledger
from msmedcap.convert.parts import Part, write_parts
from msmedcap.convert.source import open_source
from msmedcap.convert.writer import PartWriter, update_config

STATE = {f"layer.{i}": torch.full((10,), float(i), dtype=dtype) for i, dtype in enumerate((torch.float32, torch.bfloat16) * 3)}


def write(folder: Path, state: Mapping[str, torch.Tensor] | Iterator[tuple[str, torch.Tensor]], **options: Any) -> None:
    with PartWriter(folder, **options) as part:
        for name, tensor in state.items() if isinstance(state, Mapping) else state:
            part.add(name, tensor)


def test_one_file_where_it_fits(tmp_path: Path) -> None:
    write(tmp_path / "clip", STATE)
    assert [p.name for p in (tmp_path / "clip").iterdir()] == ["model.safetensors"]
    found = load_file(tmp_path / "clip" / "model.safetensors")
    assert found.keys() == STATE.keys()
    assert all(found[k].dtype == v.dtype and torch.equal(found[k], v) for k, v in STATE.items())


def test_shards_hold_no_more_than_they_may(tmp_path: Path) -> None:
    write(tmp_path / "clip", STATE, shard=70)
    files = sorted((tmp_path / "clip").glob("*.safetensors"))
    assert [f.name for f in files] == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert all(sum(v.nbytes for v in load_file(f).values()) <= 70 for f in files)
    index = json.loads((tmp_path / "clip" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(v.nbytes for v in STATE.values())
    assert {k: v.tolist() for k, v in read_weights(tmp_path / "clip").items()} == {k: v.tolist() for k, v in STATE.items()}


def test_a_tensor_larger_than_a_shard_has_a_file_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "clip", STATE, shard=1)
    assert len(list((tmp_path / "clip").glob("*.safetensors"))) == len(STATE)


def test_one_tensor_under_two_names_and_one_in_strange_order(tmp_path: Path) -> None:
    one = torch.arange(6.0).reshape(2, 3)
    write(tmp_path / "clip", {"a": one, "b": one, "c": one.T})
    found = load_file(tmp_path / "clip" / "model.safetensors")
    assert torch.equal(found["a"], one) and torch.equal(found["b"], one) and torch.equal(found["c"], one.T)


def test_a_name_comes_once(tmp_path: Path) -> None:
    with PartWriter(tmp_path / "clip", shard=1) as part:
        part.add("a", torch.ones(1))
        part.add("b", torch.ones(1))
        with pytest.raises(ValueError, match="a was added twice"):
            part.add("a", torch.ones(1))


def test_a_new_part_replaces_the_old_one_whole(tmp_path: Path) -> None:
    write(tmp_path / "clip", STATE, shard=70)
    write(tmp_path / "clip", {"a": torch.ones(1)})
    assert [p.name for p in (tmp_path / "clip").iterdir()] == ["model.safetensors"]
    assert [p.name for p in tmp_path.iterdir()] == ["clip"]


def test_a_failure_leaves_the_old_part(tmp_path: Path) -> None:
    write(tmp_path / "clip", STATE)

    def fail() -> Iterator[tuple[str, torch.Tensor]]:
        yield "a", torch.ones(1)
        yield "b", torch.ones(1)
        raise KeyError

    with pytest.raises(KeyError):
        write(tmp_path / "clip", fail(), shard=1)
    assert load_file(tmp_path / "clip" / "model.safetensors").keys() == STATE.keys()
    assert [p.name for p in tmp_path.iterdir()] == ["clip"]


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "clip.new").mkdir()
    (tmp_path / "clip.new" / "shard-7.safetensors").write_bytes(b"half")
    write(tmp_path / "clip", STATE)
    assert [p.name for p in (tmp_path / "clip").iterdir()] == ["model.safetensors"]


def test_a_run_killed_between_its_renames_loses_nothing(tmp_path: Path) -> None:
    write(tmp_path / "clip", STATE)
    (tmp_path / "clip").rename(tmp_path / "clip.old")
    part = PartWriter(tmp_path / "clip")
    assert load_file(tmp_path / "clip" / "model.safetensors").keys() == STATE.keys()
    part.discard()
    assert [p.name for p in tmp_path.iterdir()] == ["clip"]


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "clip", STATE)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "save_file", full)
    with pytest.raises(UserError, match="The disk is full at .*; free some space"):
        write(tmp_path / "clip", {"a": torch.ones(1)})
    assert load_file(tmp_path / "clip" / "model.safetensors").keys() == STATE.keys()
    assert [p.name for p in tmp_path.iterdir()] == ["clip"]


def test_a_disk_too_small_is_told_with_numbers_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "source", {"w": torch.zeros(12_500_000)})
    usage = parts.shutil.disk_usage(tmp_path)._replace(free=10_000_000)
    monkeypatch.setattr(parts.shutil, "disk_usage", lambda _: usage)
    with (
        open_source(tmp_path / "source") as source,
        pytest.raises(UserError, match=r"writes 0\.1 GB to .*where 0\.0 GB are free"),
    ):
        write_parts(source, [Part("clip", "clip", {"w": "w"}, wanted={"w": (12_500_000,)})], tmp_path / "out", Ledger())
    assert not (tmp_path / "out").exists()


def test_the_config_is_changed_or_begun(tmp_path: Path) -> None:
    update_config(tmp_path / "out", lambda c: dataclasses.replace(c, opt="opt"), systems.full())
    update_config(tmp_path / "out", lambda c: dataclasses.replace(c, train_prompt="x"), systems.demo())
    found = configs.read(ModelsConfig, tmp_path / "out" / "config.json")
    assert found == dataclasses.replace(systems.full(), opt="opt", train_prompt="x")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["config.json"]
