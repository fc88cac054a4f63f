"""Where a model folder can be pulled from: a repository on the hub, or a folder that mirrors one; both answer the same questions.

Comes in: ``USER/NAME``, ``USER/NAME@REVISION``, a path or a ``file://`` address. Goes out: what files there are, and their bytes
from any position on, so that a pull can go on where it stopped.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import unquote, urlsplit

from huggingface_hub import HfApi, get_session, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from msmedcap.config import UserError
from msmedcap.hub.folder import KINDS, Entry, read, walk

log = logging.getLogger(__name__)

PATIENCE = 60  # seconds without a byte before the connection counts as broken
RETRIES = 5  # broken connections in a row, nothing having arrived in between
PAUSE = 1.0  # seconds before the first of them; doubles


class Source(Protocol):
    """A place that holds a model folder; ``name`` is what errors call it."""

    name: str

    @property
    def folder(self) -> Path | None:
        """Its path, if it has one."""

    def entries(self) -> dict[str, Entry]:
        """The safetensors and text files there; a hash stands in an entry only where the place itself vouches for one."""

    def chunks(self, name: str, start: int) -> Iterator[bytes]:
        """The bytes of a file from ``start`` on."""


class FolderSource:
    """A folder on this machine or a mounted one."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"There is no folder {folder}; name a model folder, or a repository on the hub as USER/NAME.")
        self.name, self.folder = str(folder), folder.resolve()

    def entries(self) -> dict[str, Entry]:
        """See :class:`Source`; a folder vouches for no hash."""
        return {name: Entry(path.stat().st_size, None) for name, path in walk(self.folder) if path.suffix in KINDS}

    def chunks(self, name: str, start: int) -> Iterator[bytes]:
        """See :class:`Source`."""
        yield from read(self.folder / name, start)


class HubSource:
    """A repository at one commit. ``client`` is an ``HfApi``; its endpoint and token are used for the bytes too."""

    folder: Path | None = None

    def __init__(self, client: HfApi, repo: str, revision: str | None) -> None:
        info = client.model_info(repo, revision=revision, files_metadata=True, timeout=PATIENCE)
        self.name, self._client, self._repo = repo, client, repo
        # One commit for all files: a push in the middle of a pull must not mix two versions.
        self._commit, self._siblings = info.sha, info.siblings or []

    def entries(self) -> dict[str, Entry]:
        """See :class:`Source`; the hub knows the SHA-256 of large files and the git blob id of small ones."""
        found = {}
        for file in self._siblings:
            path = PurePosixPath(file.rfilename)
            if path.suffix in KINDS and not path.parts[0].startswith(".git") and file.size is not None:
                found[file.rfilename] = Entry(file.size, file.lfs.sha256 if file.lfs else None, file.blob_id)
        return found

    def chunks(self, name: str, start: int) -> Iterator[bytes]:
        """See :class:`Source`; a connection that breaks is taken up again at the byte where it broke."""
        failures = 0
        while True:
            try:
                for chunk in self._ask(name, start):
                    start, failures = start + len(chunk), 0
                    yield chunk
                return
            except HTTPError as error:
                final = isinstance(error, HfHubHTTPError) and error.response.status_code < 500
                failures += 1
                if final or failures > RETRIES:
                    raise
                log.info("%s: the connection broke (%s); going on at byte %s.", name, type(error).__name__, f"{start:,}")
                time.sleep(PAUSE * 2 ** (failures - 1))

    def _ask(self, name: str, start: int) -> Iterator[bytes]:
        url = hf_hub_url(self._repo, name, revision=self._commit, endpoint=self._client.endpoint)
        headers = build_hf_headers(token=self._client.token, library_name="msmedcap")
        headers |= {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        # huggingface_hub's own download starts a file anew after an interruption, and a shard may be gigabytes.
        with get_session().stream("GET", url, headers=headers, timeout=PATIENCE) as response:
            if response.is_error:
                response.read()
            hf_raise_for_status(response)
            skip = 0 if response.status_code == 206 else start  # a server that ignores ranges sends it all
            for chunk in response.iter_bytes():  # as they come: a chunk size would hold bytes back and lose them in a break
                if len(chunk) > skip:
                    yield chunk[skip:]
                skip = max(0, skip - len(chunk))


def local_folder(text: str) -> Path | None:
    """``text`` as a local path if it is written as one (``/…``, ``./…``, ``~…``, ``file://…``), else None: then it is the hub's."""
    if text.startswith("file://"):
        address = urlsplit(text)
        if address.netloc not in ("", "localhost"):
            raise UserError(f"{text} is on another machine; mount it and name the path, or write file:///PATH.")
        return Path(unquote(address.path))
    if os.path.isabs(text) or text.startswith((".", "~")):
        return Path(text).expanduser()
    return None


def split_revision(repo: str, revision: str | None) -> tuple[str, str | None]:
    """``USER/NAME@REVISION`` as its two halves; ``revision`` given twice must agree."""
    name, at, inside = repo.partition("@")
    if at and (not inside or (revision and revision != inside)):
        raise UserError(f"{repo!r} and revision {revision!r} do not fit together; name the revision once, as USER/NAME@REVISION.")
    return name, inside or revision


def open_source(repo: str, *, revision: str | None, client: HfApi | None) -> Source:
    """The place ``repo`` names; an existing folder is taken for itself, so that ``pull checkpoints/demo`` asks no network."""
    folder = local_folder(repo) or (Path(repo) if Path(repo).is_dir() else None)
    if folder is None:
        name, revision = split_revision(repo, revision)
        return HubSource(client or HfApi(library_name="msmedcap"), name, revision)
    if revision:
        raise UserError(f"{folder} is a folder and has no revision {revision!r}; leave the revision out.")
    return FolderSource(folder)
