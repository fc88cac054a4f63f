"""The published model behind a metric: its folder, the digest of its exact weights, and loading that never fails silently.

Comes in: a folder, a hub id (``facebook/bart-large-cnn``) or an id with its revision (``ID@REVISION``). Goes out: a
:class:`Checkpoint` and modules of ``transformers`` whose every weight was found in it. Safetensors are preferred; a PyTorch
``.bin`` is read by ``torch.load(weights_only=True)``, which builds tensors and nothing else. No code of a repository is run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import httpx
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError

from msmedcap.config import UserError

T = TypeVar("T")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SMALL = ("*.json", "vocab.txt", "merges.txt", "*.model")
# In the order of preference; only the first kind that a repository has is downloaded.
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
VOCABULARIES = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"), ("*.model",))


@dataclass(frozen=True)
class Checkpoint:
    """A model's local folder; ``name`` as the user wrote it, ``digest`` the hub's commit or a hash of the folder's files."""

    name: str
    folder: Path
    digest: str

    def config(self) -> dict[str, Any]:
        """``config.json``; raises :class:`UserError` when it is no JSON object."""
        try:
            config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.folder / 'config.json'} cannot be read ({error}); download {self.name} again."
            ) from None
        if not isinstance(config, dict):
            raise UserError(f"{self.folder / 'config.json'} is no JSON object; download {self.name} again.")
        return config


def find(model: str | Path) -> Checkpoint:
    """The checkpoint that ``model`` names, downloaded where the hub can be reached; :class:`UserError` says what to download."""
    name = str(model)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if folder.exists() or not re.fullmatch(r"([\w.-]+/)?[\w.-]+(@[\w./-]+)?", name):
            raise UserError(f"There is no model folder at {name}; name a folder that holds a config.json, or a hub id.")
        folder = _download(name)
    if not (folder / "config.json").is_file() or not _weights(folder):
        raise UserError(
            f"{folder} is not a whole model: it must hold config.json, the tokenizer's files and model.safetensors or "
            f"pytorch_model.bin; download the repository again."
        )
    commit = folder.name if folder.parent.name == "snapshots" else _hash(folder.resolve(), _stamps(folder))
    return Checkpoint(name=name, folder=folder, digest=commit)


def load(cls: Any, checkpoint: Checkpoint, *, config: Any, dtype: str, device: str, head: tuple[str, ...] = (),
         renamed: Mapping[str, str] | None = None) -> Any:  # fmt: skip
    """``cls`` of ``transformers`` with the checkpoint's weights, in evaluation mode; every weight that it needs must be there.

    ``head`` are prefixes of weights that the metric does not use and that may be missing (a pooler); ``renamed`` maps patterns
    of the file's names to the module's. Raises :class:`UserError` when a weight is missing or the folder cannot be loaded.
    """
    try:
        with _quiet():
            model, info = cls.from_pretrained(
                checkpoint.folder, config=config, dtype=DTYPES[dtype], local_files_only=True, output_loading_info=True,
                key_mapping=dict(renamed) if renamed else None,
            )  # fmt: skip
    except (OSError, ValueError, RuntimeError, KeyError, UnpicklingError, SafetensorError) as error:
        raise UserError(f"{checkpoint.name} cannot be loaded as {cls.__name__} ({_first_line(error)}).") from error
    if missing := sorted(key for key in info["missing_keys"] if not key.startswith(head or "\0")):
        raise UserError(
            f"{checkpoint.name} lacks {len(missing)} weights of {cls.__name__}, the first is {missing[0]}; "
            "name a model of the kind this metric needs."
        )
    return model.eval().to(pick_device(device))


@lru_cache(maxsize=1)
def opened(build: Callable[..., T], checkpoint: Checkpoint, *settings: Any) -> T:
    """``build(checkpoint, *settings)``, kept until another is opened: systems share a metric's model, metrics no memory."""
    return build(checkpoint, *settings)


def load_tokenizer(cls: Any, checkpoint: Checkpoint) -> Any:
    """The checkpoint's tokenizer as ``cls`` of ``transformers``; raises :class:`UserError` when its files are missing."""
    if not any(all(any(checkpoint.folder.glob(file)) for file in files) for files in VOCABULARIES):
        # The library would make a tokenizer that knows no word, and every score would be one of unknown words.
        raise UserError(
            f"{checkpoint.folder} has no vocabulary; download the whole repository of {checkpoint.name} again."
        )
    try:
        with _quiet():
            return cls.from_pretrained(checkpoint.folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
        raise UserError(f"The tokenizer of {checkpoint.name} cannot be loaded ({_first_line(error)}).") from error


def pick_device(device: str | None) -> str:
    """``device``, or the accelerator if there is one; raises :class:`UserError` for one that is not there."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"This machine has no {device}; choose the device cpu.")
    return device


def check_dtype(dtype: str) -> str:
    """``dtype`` if it is known; raises :class:`UserError` otherwise."""
    if dtype not in DTYPES:
        raise UserError(f"The number type {dtype!r} is not known; choose one of {', '.join(DTYPES)}.")
    return dtype


def longest(tokenizer: Any, config: Any) -> int:
    """The most tokens a text may have, special ones included: the least of what the tokenizer and the positions allow."""
    limits = [tokenizer.model_max_length]  # about 1e30 where the tokenizer's files do not say
    if positions := getattr(config, "max_position_embeddings", None):
        # RoBERTa counts its positions from the padding token's id on, so that two of them are never used.
        offset = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
        limits.append(positions - offset)
    return int(min(limits))


def _download(name: str) -> Path:
    repo, _, revision = name.partition("@")
    try:
        for weights in WEIGHTS:
            files = [*SMALL, weights, f"{weights}.index.json"]
            folder = Path(snapshot_download(repo, revision=revision or None, allow_patterns=files))
            if _weights(folder):
                return folder
        return folder
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError(f"{name} is neither a folder here nor a public model on the hub.") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        raise UserError(
            f"{repo} is not on this machine and the hub cannot be reached; on a machine with a network run "
            f"`hf download {repo}`, copy the folder here and name its path, or set HF_HOME to where it was downloaded."
        ) from error


def _weights(folder: Path) -> list[Path]:
    for pattern in WEIGHTS:
        if found := sorted(folder.glob(pattern)):
            return found
    return []


def _stamps(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """What a metric reads of a folder, with sizes and times: while these stand, the hash does."""
    files = {path for pattern in SMALL for path in folder.glob(pattern)} | set(_weights(folder))
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(files))


@lru_cache(maxsize=8)
def _hash(folder: Path, stamps: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, size, _ in stamps:
        digest.update(f"{name}\0{size}\0".encode())
        with (folder / name).open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()[:40]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's report of unused weights: a metric drops layers and heads on purpose."""
    from transformers.utils import logging as library

    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
