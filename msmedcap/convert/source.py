"""Any published checkpoint, read lazily: keys, shapes and kinds first, then one tensor at a time from the mapped file.

Comes in: a folder with safetensors or PyTorch weights (whole or in shards), or one such file. Goes out: a :class:`Source`. A
tensor is a view of the file, so a conversion never holds a second copy of the weights. No pickle code is run.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from msmedcap.config import UserError

WHOLE = ("model.safetensors", "pytorch_model.bin")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
# LAVIS, Lightning and the authors' later scripts put the weights under a name of their own.
WRAPPERS = ("model", "state_dict", "model_state_dict")

KINDS: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class _File(Protocol):
    """What a :class:`Source` asks of each file behind it."""

    def keys(self) -> list[str]: ...
    def shape(self, key: str) -> tuple[int, ...]: ...
    def dtype(self, key: str) -> torch.dtype: ...
    def tensor(self, key: str) -> Tensor: ...


class _SafeFile:
    """One safetensors file, mapped."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        try:
            self._file: Any = stack.enter_context(safe_open(path, framework="pt", device="cpu"))
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from None

    def keys(self) -> list[str]:
        return list(self._file.keys())

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(key).get_shape())

    def dtype(self, key: str) -> torch.dtype:
        kind = self._file.get_slice(key).get_dtype()
        if kind not in KINDS:
            raise UserError(f"{key} is stored as {kind}, which this version cannot read.")
        return KINDS[kind]

    def tensor(self, key: str) -> Tensor:
        return self._file.get_tensor(key)


class _TorchFile:
    """One file written by ``torch.save``: mapped where it is a zip archive, read whole where it is older than that."""

    def __init__(self, path: Path) -> None:
        self._state = _unwrap(_torch_load(path), path)

    def keys(self) -> list[str]:
        return list(self._state)

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._state[key].shape)

    def dtype(self, key: str) -> torch.dtype:
        return self._state[key].dtype

    def tensor(self, key: str) -> Tensor:
        return self._state[key]


class Source:
    """A checkpoint's tensors by name, over all its files; leave the ``with`` block to close them."""

    def __init__(self, files: Mapping[str, _File], stack: ExitStack) -> None:
        self._files, self._stack = dict(files), stack

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.clear()
        self._stack.close()

    def keys(self) -> list[str]:
        """Every tensor's name, sorted."""
        return sorted(self._files)

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of ``key``, read from the file's table."""
        return self._files[key].shape(key)

    def dtype(self, key: str) -> torch.dtype:
        """What ``key`` is stored in, read from the file's table."""
        return self._files[key].dtype(key)

    def tensor(self, key: str) -> Tensor:
        """The tensor ``key`` on the CPU, as stored: a view of the mapped file, not to be written to."""
        return self._files[key].tensor(key)


def open_source(path: Path) -> Source:
    """The checkpoint in a folder or file; :class:`UserError` if none is there, it is damaged or only pickle code could open it."""
    stack = ExitStack()
    try:
        files = _files(path, stack)
        return Source({key: file for file in files for key in file.keys()}, stack)  # noqa: SIM118 - not a mapping
    except BaseException:
        stack.close()
        raise


def _files(path: Path, stack: ExitStack) -> list[_File]:
    def opened(file: Path) -> _File:
        return _SafeFile(file, stack) if file.suffix == ".safetensors" else _TorchFile(file)

    if path.is_file():
        return [opened(path)]
    if not path.is_dir():
        raise UserError(f"There is no checkpoint at {path}; name a folder or a file with weights.")
    for whole, index in zip(WHOLE, INDEXES, strict=True):
        if (path / whole).is_file():
            return [opened(path / whole)]
        if (path / index).is_file():
            return _shards(path, path / index, opened)
    raise UserError(f"{path} holds no weights: none of {', '.join(WHOLE + INDEXES)} is there.")


def _shards(folder: Path, index: Path, opened: Callable[[Path], _File]) -> list[_File]:
    try:
        table = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(table.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(index, error) from None
    if strange := [n for n in names if Path(n).name != n]:
        raise UserError(f"{index} names files outside its folder: {strange}; download the checkpoint again.")
    if absent := [n for n in names if not (folder / n).is_file()]:
        raise UserError(f"{folder} lacks {', '.join(absent)}, which its index names; download the rest of the checkpoint.")
    files = [opened(folder / name) for name in names]
    there = {key for file in files for key in file.keys()}  # noqa: SIM118 - not a mapping
    if lost := sorted(set(table) - there):
        raise UserError(f"{folder} lacks {len(lost)} weights its index names, such as {lost[0]}; download it again.")
    return files


def _torch_load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error).upper():
            raise UserError(
                f"{path} can only be opened by running code stored in it, which is refused; "
                "ask its authors for safetensors or a file with nothing but tensors."
            ) from None
        raise _damaged(path, error) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _unwrap(loaded: Any, path: Path) -> dict[str, Tensor]:
    for name in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
    if not isinstance(loaded, Mapping) or not loaded:
        raise UserError(f"{path} holds no table of weights; name the checkpoint's own file.")
    if other := [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]:
        raise UserError(f"{path} holds things that are not weights ({', '.join(other[:5])}); name the checkpoint's own file.")
    return {str(key): value for key, value in loaded.items()}


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return UserError(f"{path} cannot be read ({reason}); download it again.")
