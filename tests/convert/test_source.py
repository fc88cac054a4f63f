"""Checkpoints read lazily, in every format, without running what is stored in them."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from msmedcap.config import UserError
from msmedcap.convert.source import open_source

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16), "c": torch.tensor(3)}


def safe(folder: Path) -> Path:
    save_file(STATE, folder / "model.safetensors")
    return folder


def safe_file(folder: Path) -> Path:
    return safe(folder) / "model.safetensors"


def safe_shards(folder: Path) -> Path:
    names = {key: f"part-{i}.safetensors" for i, key in enumerate(STATE)}
    for key, name in names.items():
        save_file({key: STATE[key]}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    return folder


def torch_file(folder: Path) -> Path:
    torch.save(OrderedDict(STATE), folder / "x.pth")
    return folder / "x.pth"


def wrapped(folder: Path) -> Path:
    beside = {"optimizer": {"state": {}, "lr": 0.1}, "config": {"run": {"seed": 1}}, "scaler": None, "epoch": 3}
    torch.save({"model": STATE, **beside}, folder / "x.pth")
    return folder / "x.pth"


def old(folder: Path) -> Path:
    torch.save(STATE, folder / "x.bin", _use_new_zipfile_serialization=False)
    return folder / "x.bin"


@pytest.mark.parametrize("make", [safe, safe_file, safe_shards, torch_file, wrapped, old])
def test_every_format(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with open_source(make(tmp_path)) as source:
        assert source.keys() == sorted(STATE)
        for key, value in STATE.items():
            found = source.tensor(key)
            assert source.shape(key) == tuple(value.shape) and source.dtype(key) == value.dtype == found.dtype
            assert torch.equal(found, value)


def test_safetensors_come_before_pickles(tmp_path: Path) -> None:
    torch.save({"other": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    with open_source(safe(tmp_path)) as source:
        assert "other" not in source.keys()  # noqa: SIM118 - not a mapping


class Runs:
    """What a malicious file holds: loading it would run a command."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_needs_code_is_refused(tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": STATE, "args": Runs()}, "x.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="running code stored in it, which is refused"):
        open_source(tmp_path / "x.pth")
    assert not Path("ran").exists()


def cut(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        path = make(folder)
        file = path if path.is_file() else path / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-40])
        return path

    return made


def text(folder: Path) -> Path:
    (folder / "x.pth").write_text("<html>Not found</html>")
    return folder / "x.pth"


def saved(content: Any) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        torch.save(content, folder / "x.pth")
        return folder / "x.pth"

    return made


def index(table: Any) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        safe_shards(folder)
        (folder / "model.safetensors.index.json").write_text(json.dumps(table))
        return folder

    return made


BAD = {
    "cut safetensors": (cut(safe), "cannot be read .*download it again"),
    "cut zip": (cut(torch_file), "cannot be read .*download it again"),
    "cut pickle": (cut(old), "cannot be read .*download it again"),
    "a web page": (text, "cannot be read .*download it again"),
    "a number": (saved(3), "holds no table of weights"),
    "an optimizer": (saved({"lr": 0.1, "w": torch.ones(1)}), r"things that are not weights \(lr\)"),
    "empty": (lambda folder: folder, "holds no weights"),
    "nothing": (lambda folder: folder / "absent", "There is no checkpoint"),
    "index without table": (index({}), "cannot be read"),
    "index to elsewhere": (index({"weight_map": {"b": "../b.safetensors"}}), "files outside its folder"),
    "index to a lost file": (index({"weight_map": {"b": "lost.safetensors"}}), "lacks lost.safetensors"),
    "index to a lost weight": (index({"weight_map": {"d": "part-1.safetensors"}}), "lacks 1 weights .* such as d"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(UserError, match=message) as caught:
        open_source(make(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_tensor_is_a_view_of_the_file(tmp_path: Path) -> None:
    for make in (safe, torch_file):
        with open_source(make(tmp_path)) as source:
            pointers = {source.tensor("a.weight").data_ptr() for _ in range(2)}
            assert len(pointers) == 1


def test_tensors_outlive_the_source(tmp_path: Path) -> None:
    kept: list[Tensor] = []
    with open_source(safe(tmp_path)) as source:
        kept.append(source.tensor("a.weight"))
    assert torch.equal(kept[0], STATE["a.weight"])
