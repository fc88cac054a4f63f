"""``push``: a model folder as one commit on the hub, or as a mirror on a disk. Comes in: a folder. Goes out: where it stands."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from msmedcap.config import UserError
from msmedcap.hub import folder as folders
from msmedcap.hub.card import card
from msmedcap.hub.fetching import pull
from msmedcap.hub.folder import CARD, CONFIG, MANIFEST
from msmedcap.hub.sentences import one_sentence
from msmedcap.hub.sources import local_folder, split_revision

log = logging.getLogger(__name__)


def push(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    client: HfApi | None = None,
    message: str | None = None,
) -> str:
    """Send a model folder to ``repo`` (``USER/NAME``; or ``/…``, ``./…``, ``file://…`` for a mirror); returns the commit's address.

    Writes ``manifest.json`` into the folder, and ``README.md`` if it has none. Only safetensors and text leave, as one commit on
    ``revision`` (a branch, made if new). Raises :class:`UserError` when the folder is not whole, holds a pickle or a training
    state, or the hub refuses.
    """
    folder = Path(folder)
    target = local_folder(repo)
    if target is not None and (private or revision):
        raise UserError(f"{repo} is a folder; leave out the revision and --private, which are the hub's.")
    if target is None and (repo.count("/") != 1 or Path(repo).is_dir()):  # nothing is published by a slip
        raise UserError(f"Write USER/NAME for a repository on the hub, or ./{repo} for a folder; {repo!r} could be either.")
    config = folders.check(folder)
    name, revision = (repo, None) if target is not None else split_revision(repo, revision)
    try:
        if not (folder / CARD).is_file():
            _write(folder / CARD, card(folder, config, "USER/NAME" if target is not None else name))
            log.info("Wrote a model card into %s; read it and add what it cannot know.", folder / CARD)
        folders.write_manifest(folder, folders.manifest(folder))
    except PermissionError as error:
        raise UserError(f"{error.filename} cannot be written; push a copy of the folder that you may write to.") from None
    if target is not None:
        return pull(str(folder.resolve()), target).resolve().as_uri()
    with one_sentence(name, pushing=True):
        return _commit(client or HfApi(library_name="msmedcap"), folder, name, private, revision, message or f"Push {config.name}")


def _commit(api: HfApi, folder: Path, repo: str, private: bool, revision: str | None, message: str) -> str:
    api.create_repo(repo, private=True if private else None, exist_ok=True)
    info = api.model_info(repo)
    if private and info.private is False:
        raise UserError(f"{repo} exists and is public; make it private on its page at the hub, or name a new repository.")
    if revision and revision != "main":
        api.create_branch(repo, branch=revision, exist_ok=True)
        info = api.model_info(repo, revision=revision)
    there = [file.rfilename for file in info.siblings or []]
    names = [*sorted(folders.model_files(folder)), MANIFEST]
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(folder / name)) for name in names
    ]
    operations += [CommitOperationDelete(path_in_repo=name) for name in _outdated(repo, there, names)]
    # One commit: whoever pulls sees the old folder or the new one. Blobs sent before a break are not sent again.
    done = api.create_commit(repo, operations, commit_message=message, revision=revision)
    return str(done.commit_url)


def _outdated(repo: str, there: Iterable[str], names: Iterable[str]) -> list[str]:
    """Weights of an earlier push that the folder no longer has; a repository of something else raises :class:`UserError`."""
    there = set(there)
    weights = {n for n in there if n.endswith((".safetensors", ".safetensors.index.json"))}
    if MANIFEST not in there and (weights or CONFIG in there):
        raise UserError(f"{repo} holds another model (it has no {MANIFEST}); name a new repository.")
    return sorted(weights - set(names))


def _write(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
