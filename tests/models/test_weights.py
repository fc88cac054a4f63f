"""Weights go from the file into a module without memory, one at a time."""

from __future__ import annotations

import re
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from msmedcap.config import UserError
from msmedcap.models import weights
from msmedcap.models.weights import WEIGHTS, empty, headers, load_into, owned_bytes
from tests import sizes


class Net(nn.Module):
    """Weights, a counter, and constants that no file holds."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))
        self.register_buffer("places", torch.arange(6), persistent=False)
        self.inner = nn.Module()
        self.inner.register_buffer("scale", torch.full((2,), 0.5), persistent=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(sizes.randomise(Net(), 3).half().state_dict(), tmp_path / WEIGHTS)
    return tmp_path


def test_headers_tell_shapes_and_types_and_read_no_tensor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "tensor", None)
    found = headers(folder)
    assert {k: h.shape for k, h in found.items()} == {k: tuple(v.shape) for k, v in Net().state_dict().items()}
    assert found["layers.0.weight"].kind == "F16" and found["layers.1.num_batches_tracked"].kind == "I64"


def test_an_empty_module_has_shapes_and_its_constants_but_no_memory() -> None:
    state = torch.get_rng_state()
    net = empty(Net)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(value.is_meta for value in net.state_dict().values())
    assert net.places.tolist() == list(range(6)) and net.inner.scale.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_it_loads_as_a_module_with_memory_does(folder: Path, dtype: torch.dtype) -> None:
    wanted, found = load_into(Net(), folder), load_into(empty(Net), folder, dtype=dtype)
    for (key, value), (_, theirs) in zip(wanted.state_dict().items(), found.state_dict().items(), strict=True):
        assert torch.equal(theirs, value.to(theirs.dtype)), key
        assert theirs.dtype == (dtype if value.is_floating_point() else value.dtype)
    assert not any(t.is_meta for t in (*found.parameters(), *found.buffers()))
    assert all(p.requires_grad for p in found.parameters())
    found.layers.eval()(torch.ones(1, 4, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_was_loaded_outlives_its_file(folder: Path, dtype: torch.dtype) -> None:
    net = load_into(empty(Net), folder, dtype=dtype)
    before = net.layers[0].weight.clone()
    (folder / WEIGHTS).write_bytes(b"\0" * (folder / WEIGHTS).stat().st_size)
    assert torch.equal(net.layers[0].weight, before)


def test_one_tensor_is_held_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, alive = weights.tensor, []

    def watched(key: str, header: weights.Header) -> Tensor:
        assert not [r for r in alive if r() is not None], "an earlier tensor is still held as it was stored"
        value = read(key, header)
        alive.append(weakref.ref(value))
        return value

    monkeypatch.setattr(weights, "tensor", watched)
    load_into(empty(Net), folder, dtype=torch.float16)
    load_into(Net(), folder)
    assert len(alive) == 2 * len(headers(folder))


def test_a_wrong_file_is_told_before_anything_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "tensor", None)
    save_file({"inner.x": torch.zeros(1), "bias": torch.zeros(2)}, folder / WEIGHTS)
    with pytest.raises(UserError, match=re.escape("lacks ['weight']; has unknown ['inner")):
        load_into(empty(lambda: nn.Linear(2, 2)), folder)


def test_tied_weights_may_be_absent(folder: Path) -> None:
    save_file({"weight": torch.ones(2, 2)}, folder / WEIGHTS)
    with pytest.raises(UserError, match="bias"):
        load_into(empty(lambda: nn.Linear(2, 2)), folder)
    assert load_into(empty(lambda: nn.Linear(2, 2)), folder, tied=("bias",)).weight.sum() == 4


def test_memory_is_counted_once() -> None:
    first, second = nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False)
    second.weight = first.weight
    assert owned_bytes(nn.ModuleList([first, second])) == 400
    assert owned_bytes(first.bfloat16()) == 200
