"""A conversion's plan, checked before a byte is written: which of our weights comes from which of the source's keys.

Comes in: parts (:class:`Part`), an open source, a ledger. Goes out: the parts' folders, all or none. Every weight a part needs is
there in the right shape, every key of the source is accounted for and the disk has room, or nothing is touched.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from msmedcap import config as configs
from msmedcap.checkpoints import SystemConfig
from msmedcap.config import UserError
from msmedcap.convert.ledger import Ledger
from msmedcap.convert.source import Source
from msmedcap.convert.writer import PartWriter

log = logging.getLogger(__name__)
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Part:
    """A folder to write: ``tensors`` maps our names to source keys, ``fresh`` holds weights the source has none for.

    ``label`` names it in the ledger, ``wanted`` are the shapes of its module, all of them and no others, ``texts`` and ``copies``
    are the files beside the weights.
    """

    folder: str
    label: str
    tensors: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, tuple[Tensor, str]] = field(default_factory=dict)
    wanted: Shapes = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    copies: tuple[Path, ...] = ()


def shapes(build: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a module's weights, without the memory for them."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in build().state_dict().items()}


def refuse_exchange(out: Path, part: str, *, but: str = "") -> None:
    """Raise :class:`UserError` if systems in ``out`` (other than ``but``) read with the ``part`` that would be exchanged."""
    branches = {
        file.parent.name: configs.read(SystemConfig, file).branches for file in (out / "systems").glob("*/config.json")
    }
    if readers := sorted(name for name, read in branches.items() if name != but and (part == "opt" or part in read)):
        raise UserError(
            f"{out} holds {', '.join(readers)}, trained with another {part}; convert into a folder of its own."
        )


def write_parts(source: Source, parts: Sequence[Part], out: Path, ledger: Ledger) -> None:
    """Enter ``parts`` in the ``ledger``, check everything, then stream them into ``out``; :class:`UserError` before any change."""
    for part in parts:
        for new, key in part.tensors.items():
            ledger.took(key, part.label, new)
        for new, (_, why) in part.fresh.items():
            ledger.started(part.label, new, why)
    ledger.close(source.keys())
    for part in parts:
        _check(source, part)
    total = sum(_bytes(source, key) for part in parts for key in part.tensors.values())
    _check_room(out, total)
    with ExitStack() as stack, tqdm(total=total, unit="B", unit_scale=True, desc="converting", delay=2) as bar:
        writers = [(part, stack.enter_context(PartWriter(out / part.folder))) for part in parts]
        for part, writer in writers:
            for name, text in part.texts.items():
                writer.text(name, text)
            for file in part.copies:
                writer.copy(file)
            for new, key in part.tensors.items():
                writer.add(new, source.tensor(key))
                bar.update(_bytes(source, key))
            for new, (tensor, _) in part.fresh.items():
                writer.add(new, tensor)
            writer.finish()  # all parts are whole before the first takes its place
    log.info("wrote %s into %s", ", ".join(part.folder for part in parts), out)


def _check(source: Source, part: Part) -> None:
    found = {new: source.shape(key) for new, key in part.tensors.items()}
    found |= {new: tuple(tensor.shape) for new, (tensor, _) in part.fresh.items()}
    if lost := sorted(set(part.wanted) - set(found)):
        raise UserError(f"The checkpoint lacks {len(lost)} weights that {part.label} needs, such as {lost[0]}; it is not whole.")
    if extra := sorted(set(found) - set(part.wanted)):
        key = part.tensors.get(extra[0], extra[0])
        raise UserError(f"The checkpoint holds {key}, for which {part.label} of its size has no place; its config is not its own.")
    for new, shape in part.wanted.items():
        if found[new] != shape:
            key = part.tensors.get(new, new)
            raise UserError(f"{key} has the shape {list(found[new])}, but {part.label} of this size needs {list(shape)}.")


def _check_room(out: Path, total: int) -> None:
    there = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if free < total:
        raise UserError(
            f"The conversion writes {total / 1e9:.1f} GB to {out}, where {free / 1e9:.1f} GB are free; "
            "free some space or choose another folder."
        )


def _bytes(source: Source, key: str) -> int:
    return torch.Size(source.shape(key)).numel() * source.dtype(key).itemsize
