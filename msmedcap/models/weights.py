"""Weights on disk, read one tensor at a time: what a folder holds, and how a module gets it without a second copy in memory.

Comes in: a folder with ``model.safetensors``, whole or in shards with an index. Goes out: names, shapes and stored types from the
headers alone, single tensors, and modules that own them in the wanted type on the wanted device. Strict: every key of the
file is used and every weight of the module is found, or nothing is read and the sentence names the keys. No pickle is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from msmedcap.config import UserError

M = TypeVar("M", bound=nn.Module)
Place = Callable[[str, Tensor], Tensor]

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Header:
    """What a file says of a tensor before it is read; ``kind`` is safetensors' name of its type (``F16``, ``I64``)."""

    file: Path
    shape: tuple[int, ...]
    kind: str

    @property
    def floating(self) -> bool:
        """Whether it holds real numbers, whose type may be chosen when it is loaded."""
        return self.kind.startswith(("F", "BF"))

    @property
    def count(self) -> int:
        """The number of its elements."""
        total = 1
        for side in self.shape:
            total *= side
        return total


def headers(folder: Path) -> dict[str, Header]:
    """Every tensor of a weight folder by name; no tensor is read. :class:`UserError` when a file is missing or damaged."""
    found: dict[str, Header] = {}
    with _readable(folder):
        index = folder / INDEX
        names = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.is_file() else [WEIGHTS]
        for name in names:
            with safe_open(folder / name, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 - the handle is no mapping
                    part = file.get_slice(key)
                    found[key] = Header(folder / name, tuple(part.get_shape()), str(part.get_dtype()))
    return found


def tensor(key: str, header: Header) -> Tensor:
    """One tensor as it is stored, a view of the mapped file: the pages go when the caller lets go of it.

    The file is opened anew for each, or what was read of a shard would stay mapped, a second copy, until the shard is done.
    """
    with _readable(header.file.parent), safe_open(header.file, framework="pt") as file:
        return file.get_tensor(key)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a weight folder, floats as float32; raises :class:`UserError` when a file is missing or damaged."""
    return {k: owned(tensor(k, h), torch.device("cpu"), torch.float32) for k, h in headers(folder).items()}


def empty(build: Callable[[], M]) -> M:
    """What ``build`` makes, with weights that have shapes but no memory; constants that no file holds have their values."""
    with torch.device("meta"):
        module = build()
    constants = [name for name, _ in module.named_buffers() if name not in module.state_dict()]
    if constants:
        with torch.random.fork_rng(devices=[]):
            real = build()
        for name in constants:
            path, _, last = name.rpartition(".")
            module.get_submodule(path)._buffers[last] = real.get_buffer(name)
    return module


def load_into(
    module: M,
    folder: Path,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    place: Place | None = None,
    tied: Collection[str] = (),
) -> M:
    """Strictly load a weight folder into ``module`` and return it.

    A module made by :func:`empty` gets each tensor as it is read, floats in ``dtype`` on ``device`` (or as ``place`` returns it);
    one that has memory keeps its types and its device. ``tied`` weights are another's and may be absent from the file. Raises
    :class:`UserError` naming every key that is missing, left over or of another shape.
    """
    found, own = headers(folder), module.state_dict()
    wrong = [k for k in own.keys() & found.keys() if tuple(own[k].shape) != found[k].shape]
    absent = own.keys() - found.keys() - set(tied)
    problems = {"lacks": absent, "has unknown": found.keys() - own.keys(), "has wrong shapes for": wrong}
    if told := "; ".join(f"{what} {sorted(keys)}" for what, keys in problems.items() if keys):
        raise UserError(f"The weights in {folder} do not fit this version: the file {told}.")
    if not any(v.is_meta for v in own.values()):
        with torch.no_grad():
            for key, header in found.items():
                own[key].copy_(tensor(key, header))
        return module
    target = device or torch.device("cpu")
    put = place or (lambda _, value: owned(value, target, dtype))
    # Only what will stay is held: each tensor is dropped as it was stored before the next one is read.
    state = {key: put(key, tensor(key, header)) for key, header in found.items()}
    module.load_state_dict(state, strict=not tied, assign=True)
    for name in [n for n, b in module.named_buffers() if n not in own]:
        path, _, last = name.rpartition(".")
        module.get_submodule(path)._buffers[last] = module.get_buffer(name).to(target)
    return module


def owned_bytes(module: nn.Module) -> int:
    """The memory of ``module``'s weights and buffers in bytes; what two names share counts once."""
    tensors = [*module.parameters(), *module.buffers()]
    for part in module.modules():  # the scales of bitsandbytes' weights, which the first pass moves
        scales = [getattr(holder, "SCB", None) for holder in (getattr(part, "weight", None), getattr(part, "state", None))]
        tensors += [scale for scale in scales if isinstance(scale, Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def owned(value: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """``value`` on ``device``, floats in ``dtype``, in memory of its own: a view would break when the file is written anew."""
    moved = value.to(device)
    return moved.to(dtype if value.is_floating_point() else value.dtype, copy=moved is value)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Whatever goes wrong inside is told as one sentence about the weights in ``folder``."""
    try:
        yield
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"The weights in {folder} cannot be read ({error}); copy the folder again.") from None
