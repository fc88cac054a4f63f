"""The folder behind what a user named: a path as it is, or a hub id's files, only those a conversion reads.

Comes in: ``path/to/folder`` or ``owner/name``. Goes out: a local path. A download that was cut off goes on where it stopped.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from msmedcap.config import UserError
from msmedcap.convert.source import INDEXES, WHOLE

TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "vocab.txt", "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip
SMALL = ("config.json", "generation_config.json", *TOKENIZER, *INDEXES)


def fetch(source: str) -> Path:
    """The local folder or file ``source``, else the hub's repository of that id; :class:`UserError` if it is neither."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise UserError(f"There is no checkpoint at {source}; name a folder, a file or a hub id such as Salesforce/blip2-opt-2.7b.")
    try:
        folder = _download(source, SMALL)
        # The first kind of weights that is there, safetensors before PyTorch's own, is the only one downloaded.
        for whole, index in zip(WHOLE, INDEXES, strict=True):
            files = _shards(folder / index) if (folder / index).is_file() else (whole,)
            folder = _download(source, files)
            if (folder / files[0]).is_file():
                return folder
    except RepositoryNotFoundError:
        raise UserError(f"{source} is neither a folder or file here nor a public repository on the hub.") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{source} could not be downloaded ({reason}); run the same command again to go on.") from error
    raise UserError(f"{source} on the hub holds no weights: none of {', '.join(WHOLE + INDEXES)} is there.")


def read_json(folder: Path) -> dict[str, Any]:
    """``folder/config.json``; raises :class:`UserError` when it is absent or no JSON object."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} has no config.json; download the whole repository from the hub.") from None
    except ValueError as error:
        raise UserError(f"{folder / 'config.json'} is not valid JSON ({error}); download it again.") from None
    if not isinstance(config, dict):
        raise UserError(f"{folder / 'config.json'} is not a JSON object; download it again.")
    return config


def _download(source: str, files: tuple[str, ...]) -> Path:
    return Path(snapshot_download(source, allow_patterns=list(files)))


def _shards(index: Path) -> tuple[str, ...]:
    return tuple(sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())))
