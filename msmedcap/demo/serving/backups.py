"""Ratings saved elsewhere on a schedule: a Space's own disk is empty again after every restart.

Comes in: a function that exports what there is as files, and where they go: a folder (a mounted bucket) or a data set of the hub.
Goes out: the files there, renewed every few minutes and once more at the end; nothing is sent where nothing changed. What cannot
be saved is said in the log and tried again at the next turn. A database saved as a file comes back with :func:`fetch`.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from msmedcap.config import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger(__name__)

Files = Mapping[str, str | bytes]
Export = Callable[[], Files]
HUB = "hub:"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


class Backups:
    """Saves what ``export`` gives (file name → content) every ``minutes`` while the context lasts, and when it ends.

    ``target`` is a folder, or ``hub:OWNER/NAME`` for a private data set of the hub, which is made where there is none; the token
    is the environment's ``HF_TOKEN``. Raises :class:`UserError` where the target cannot be.
    """

    def __init__(self, export: Export, target: str, *, minutes: float = 10.0, api: HfApi | None = None) -> None:
        if minutes <= 0:
            raise UserError("Backups need a number of minutes above zero.")
        self._export, self._seconds = export, minutes * 60
        self._stopped = threading.Event()
        self._place = _Hub(target[len(HUB) :], api) if target.startswith(HUB) else _Folder(Path(target))
        self._thread = threading.Thread(target=self._run, name="backups", daemon=True)

    def save(self) -> bool:
        """Save now; whether it went well. What failed is logged, without the words of the error."""
        try:
            self._place.put(self._export())
        except Exception as error:  # the study goes on without its backup; the next turn tries again
            log.error("the backup failed; it is tried again", exc_info=error)
            return False
        return True

    def __enter__(self) -> Backups:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self.save()
        self._place.close()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            self.save()


class _Folder:
    """A folder, each file replaced at once: a reader never sees half of one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise UserError(f"Nothing can be saved in {folder} ({error.strerror}); give another folder.") from None

    def put(self, files: Files) -> None:
        for name, content in files.items():
            _replace(self._folder / Path(name).name, content)

    def close(self) -> None:
        pass


class _Hub:
    """A data set of the hub, through a folder that ``huggingface_hub`` commits from."""

    def __init__(self, repository: str, api: HfApi | None) -> None:
        from huggingface_hub import CommitScheduler

        if not _REPOSITORY.fullmatch(repository):
            raise UserError(f"{HUB}{repository} is no data set of the hub; give {HUB}OWNER/NAME.")
        if api is None and not os.environ.get("HF_TOKEN"):
            raise UserError("Saving to the hub needs the secret HF_TOKEN with a token that may write.")
        self._kept = tempfile.TemporaryDirectory(prefix="ratings-")
        self._folder = Path(self._kept.name)
        try:
            # Its own clock is set beyond any study: we ask for every commit, so that each holds a whole export.
            self._scheduler = CommitScheduler(
                repo_id=repository, repo_type="dataset", private=True, folder_path=self._folder, every=525_600,
                path_in_repo="ratings", hf_api=api, token=os.environ.get("HF_TOKEN"),
            )  # fmt: skip
        except Exception as error:
            self._kept.cleanup()
            log.error("the data set cannot be opened", exc_info=error)
            raise UserError(
                f"The data set {repository} cannot be opened or made ({type(error).__name__}); check its name and HF_TOKEN."
            ) from None

    def put(self, files: Files) -> None:
        with self._scheduler.lock:
            for name, content in files.items():
                _replace(self._folder / Path(name).name, content)
        self._scheduler.trigger().result()

    def close(self) -> None:
        self._scheduler.stop()
        self._kept.cleanup()


def snapshot(database: Path) -> bytes:
    """A SQLite file's content as of one moment, readers and writers at work or not."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        source, target = sqlite3.connect(database), sqlite3.connect(copy)
        try:
            source.backup(target)
        finally:
            source.close()
            target.close()
        return copy.read_bytes()


def fetch(target: str, name: str, into: Path, *, api: HfApi | None = None) -> bool:
    """Bring back the file ``name`` that was saved to ``target`` last, where ``into`` does not exist; whether it did.

    Raises :class:`UserError` where there may be one but it cannot be read: going on would save an empty one over it.
    """
    if into.exists():
        return False
    try:
        found = _fetched(target[len(HUB) :], name, api) if target.startswith(HUB) else Path(target) / Path(name).name
        if found is None or not found.is_file():
            return False
        into.parent.mkdir(parents=True, exist_ok=True)
        new = into.with_name(f".{into.name}.new")
        shutil.copyfile(found, new)
        new.replace(into)
    except Exception as error:
        log.error("the saved file cannot be fetched", exc_info=error)
        raise UserError(f"What was saved in {target} cannot be read ({type(error).__name__}); nothing was begun.") from None
    return True


def _fetched(repository: str, name: str, api: HfApi | None) -> Path | None:
    """The file from a data set of the hub; None where the data set or the file does not exist."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    hub = api or HfApi(token=os.environ.get("HF_TOKEN"))
    try:
        return Path(hub.hf_hub_download(repository, f"ratings/{name}", repo_type="dataset"))
    except (EntryNotFoundError, RepositoryNotFoundError):
        return None


def _replace(file: Path, content: str | bytes) -> None:
    """Write ``file`` in one step; one that holds ``content`` already is left alone, with its time."""
    data = content.encode() if isinstance(content, str) else content
    if file.is_file() and file.read_bytes() == data:
        return
    new = file.with_name(f".{file.name}.new")
    new.write_bytes(data)
    new.replace(file)
