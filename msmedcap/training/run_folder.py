"""What a run leaves in its folder, so that its result can be traced and repeated.

``config.json`` (the whole configuration), ``versions.json`` (Python, this package, and the libraries that compute), ``run.json``
(the data's fingerprint; every start with its time, git revision and number of processes; when it finished), ``log.jsonl`` (a line
for each step) and, where the package ``tensorboard`` is installed, ``tensorboard/`` with the same and samples. Of its own it
notes no path; the configuration is kept as it was given.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import msmedcap
from msmedcap.config import UserError, to_json
from msmedcap.training.processes import place

log = logging.getLogger(__name__)

# Settings of the loop that change when a run is saved and where it is computed: it may go on with others.
HARMLESS = ("save_every", "keep", "cpu")
LIBRARIES = ("torch", "transformers", "accelerate", "safetensors", "numpy")


@dataclass(frozen=True)
class Sample:
    """A picture (uint8 ``[H,W,3]``), the caption made for it, the true one, and where the model looked (uint8 ``[H,W]``)."""

    picture: np.ndarray
    caption: str
    truth: str
    attention: np.ndarray | None = None


@contextmanager
def run_folder(folder: Path, config: Any, *, data: str) -> Iterator[None]:
    """Around a training: note in ``folder`` what it is made with (``config``, a dataclass; ``data``, a fingerprint) and when.

    A run that goes on must have the configuration and the data it began with, else UserError. Only process 0 writes.
    """
    process, processes = place()
    before = _read(folder / "run.json")
    _check_same(folder, config, data, before)
    if process == 0:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "config.json", to_json(config))
        _write(folder / "versions.json", json.dumps(versions(), indent=2) + "\n")
        start = {"time": _now(), "processes": processes, **revision()}
        before = {"data": data, "starts": [*before.get("starts", ()), start], "finished": None}
        _write(folder / "run.json", json.dumps(before, indent=2) + "\n")
    yield
    if process == 0:
        _write(folder / "run.json", json.dumps({**before, "finished": _now()}, indent=2) + "\n")


def versions() -> dict[str, str]:
    """The versions of Python, of this package and of :data:`LIBRARIES`."""
    return {
        "python": platform.python_version(),
        "msmedcap": msmedcap.__version__,
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def revision() -> dict[str, Any]:
    """``revision`` (the commit of the checkout this package runs from, None elsewhere) and ``dirty`` (it has changes beside it)."""
    package = Path(__file__).resolve().parent
    try:
        commit = _git(package, "rev-parse", "HEAD")
        # Installed inside another project's tree, the package would report that project's commit.
        if not _git(package, "ls-files", Path(__file__).name):
            return {"revision": None, "dirty": None}
        return {"revision": commit, "dirty": bool(_git(package, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"revision": None, "dirty": None}


class Record:
    """``log.jsonl`` and the TensorBoard log of a run that begins (or goes on) at step ``first``; process 0 holds it.

    Rows of steps from ``first`` on, left by a run that was killed after its last saved state, are dropped: they are run again.
    """

    def __init__(self, folder: Path, first: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "log.jsonl"
        _write(file, "".join(_lines_before(file, first)))
        self.file = open(file, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the run
        self.board = _board(folder / "tensorboard", first)

    def write(self, row: Mapping[str, Any]) -> None:
        """One step's numbers by name, with ``step``, ``seconds`` and (where known) ``samples``."""
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        if self.board:
            for name, value in row.items():
                if name not in ("step", "seconds", "samples"):
                    group = "train" if name in ("lr", "grad") else "loss"
                    self.board.add_scalar(f"{group}/{name}", value, row["step"])
            if "samples" in row:
                self.board.add_scalar("train/samples per second", row["samples"] / max(row["seconds"], 1e-9), row["step"])

    def write_samples(self, samples: Iterable[Sample], step: int) -> None:
        """Pictures with their attention beside them, and their captions above the true ones; nothing without TensorBoard."""
        if not self.board:
            return
        for index, sample in enumerate(samples):
            self.board.add_image(f"samples/{index}", side_by_side(sample), step, dataformats="HWC")
            self.board.add_text(f"samples/{index}", f"**{sample.caption}**\n\n{sample.truth}", step)

    def close(self) -> None:
        self.file.close()
        if self.board:
            self.board.close()


def side_by_side(sample: Sample) -> np.ndarray:
    """A sample's picture, and its attention to the right of it where there is one: uint8 ``[H,W or 2W,3]``."""
    if sample.attention is None:
        return sample.picture
    return np.concatenate([sample.picture, np.repeat(sample.attention[..., None], 3, axis=2)], axis=1)


def _check_same(folder: Path, config: Any, data: str, before: Mapping[str, Any]) -> None:
    old, new = _read(folder / "config.json"), json.loads(to_json(config))
    if old and (changed := sorted(name for name in _changes(old, new) if name.split(".")[-1] not in HARMLESS)):
        raise UserError(
            f"{folder} holds a run that began with another {', '.join(changed)}; give the values it began with, or a new folder."
        )
    if before and before["data"] != data:
        raise UserError(f"{folder} holds a run that began with other data; give the data it began with, or a new folder.")


def _changes(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """The names, dotted, of the values that differ between two JSON objects."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _changes(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif old != new:
        yield where


def _lines_before(file: Path, first: int) -> Iterator[str]:
    if not file.is_file():
        return
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            # The last line may be half written.
            if line.endswith("\n") and json.loads(line)["step"] < first:
                yield line


def _board(folder: Path, first: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        log.info("no TensorBoard log: the package tensorboard is not installed")
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=first or None)


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _write(file: Path, text: str) -> None:
    """Whole or not at all: a run may be killed while it writes."""
    new = file.with_name(file.name + ".new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, file)
