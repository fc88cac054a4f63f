"""Parts of a model folder written shard by shard, and its ``config.json`` changed, so that a crash leaves what was there.

Comes in: tensors one at a time, in the dtype to keep. Goes out: ``OUT/part/model*.safetensors`` with an index when there are
several. A part grows beside the old one in ``part.new`` and takes its place when it is whole.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from msmedcap import config as configs
from msmedcap.config import ModelsConfig, UserError, to_json

INDEX = "model.safetensors.index.json"


class PartWriter:
    """One part's folder in the making: add tensors and files, then ``close``; or use it in a ``with`` block.

    ``shard`` is the most bytes a file may hold (a larger tensor gets a file of its own). Raises :class:`UserError` when the disk is
    full; what lay in ``folder`` before is then untouched.
    """

    def __init__(self, folder: Path, *, shard: int = 2_000_000_000) -> None:
        self.folder, self._limit = folder, shard
        self._new = folder.with_name(folder.name + ".new")
        self._pending: dict[str, Tensor] = {}
        self._bytes = 0
        self._shards: list[list[str]] = []
        self._total = 0
        self._whole = False
        self._old = folder.with_name(folder.name + ".old")
        if self._old.exists() and not folder.exists():  # a run that was killed between its two renames
            self._old.rename(folder)
        if self._new.exists():  # a run that was killed before
            shutil.rmtree(self._new)
        self._new.mkdir(parents=True)

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def add(self, name: str, tensor: Tensor) -> None:
        """Write ``tensor`` under ``name``, in the dtype it has; it is held until its shard is full."""
        if name in self._pending or any(name in names for names in self._shards):
            raise ValueError(f"{name} was added twice")
        size = tensor.numel() * tensor.element_size()
        if self._pending and self._bytes + size > self._limit:
            self._flush()
        # Contiguous tensors stay views of the source's file: the shard is written from there and never held.
        self._pending[name] = tensor.detach().contiguous()
        self._bytes += size

    def text(self, name: str, content: str) -> None:
        """Put a text file such as ``config.json`` beside the weights."""
        with _disk(self.folder):
            (self._new / name).write_text(content, encoding="utf-8")

    def copy(self, file: Path) -> None:
        """Copy a file such as a tokenizer's beside the weights, links followed."""
        with _disk(self.folder):
            shutil.copyfile(file, self._new / file.name)

    def finish(self) -> None:
        """Write what is left and the index; the old part still stands."""
        if not self._whole:
            self._flush()
            self._name_shards()
            self._whole = True

    def close(self) -> None:
        """:meth:`finish`, then put the new part in the old one's place."""
        try:
            self.finish()
        except BaseException:
            self.discard()
            raise
        if self.folder.exists():
            if self._old.exists():
                shutil.rmtree(self._old)
            self.folder.rename(self._old)
        self._new.rename(self.folder)
        if self._old.exists():
            shutil.rmtree(self._old)

    def discard(self) -> None:
        """Remove the unfinished part."""
        self._pending.clear()
        shutil.rmtree(self._new, ignore_errors=True)

    def _flush(self) -> None:
        if not self._pending:
            return
        seen: set[int] = set()
        for name, tensor in self._pending.items():
            # safetensors takes no two names for one piece of memory; a tied weight is written under each of its names.
            if tensor.data_ptr() in seen:
                self._pending[name] = tensor.clone()
            seen.add(tensor.data_ptr())
        with _disk(self.folder):
            save_file(self._pending, self._new / f"shard-{len(self._shards)}.safetensors", metadata={"format": "pt"})
        self._shards.append(list(self._pending))
        self._total += self._bytes
        self._pending, self._bytes = {}, 0

    def _name_shards(self) -> None:
        count = len(self._shards)
        table: dict[str, str] = {}
        for i, names in enumerate(self._shards):
            file = "model.safetensors" if count == 1 else f"model-{i + 1:05d}-of-{count:05d}.safetensors"
            (self._new / f"shard-{i}.safetensors").rename(self._new / file)
            table |= dict.fromkeys(names, file)
        if count > 1:
            self.text(INDEX, json.dumps({"metadata": {"total_size": self._total}, "weight_map": table}, indent=2) + "\n")


def update_config(out: Path, change: Callable[[ModelsConfig], ModelsConfig], default: ModelsConfig) -> None:
    """Rewrite ``out/config.json`` as ``change`` of what it holds, or of ``default`` where there is none yet."""
    file = out / "config.json"
    before = configs.read(ModelsConfig, file) if file.is_file() else default
    new = file.with_name(file.name + ".new")
    with _disk(out):
        out.mkdir(parents=True, exist_ok=True)
        new.write_text(to_json(change(before)), encoding="utf-8")
        os.replace(new, file)


class _disk:
    """Turns a full disk into one sentence."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        if full or (isinstance(error, SafetensorError) and "No space left" in str(error)):
            raise UserError(f"The disk is full at {self._folder}; free some space and convert again.") from error
