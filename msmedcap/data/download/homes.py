"""What a home says it holds: the files of a Zenodo record, a hub data set or a GitHub repository, with the hashes it publishes."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from msmedcap.config import UserError
from msmedcap.data.download.archives import safe_path
from msmedcap.data.download.sources import RemoteFile, Source
from msmedcap.data.download.transfer import Client

_LONGEST = 64 << 20
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


def listed(source: Source, *, client: Client) -> tuple[RemoteFile, ...]:
    """The files of ``source``: those it names, or those its home lists now; :class:`UserError` where it does not answer."""
    if not source.listing:
        return source.files
    kind, _, where = source.listing.partition(":")
    try:
        found = {"zenodo": _zenodo, "hub": _hub, "github": _github}[kind](where, client)
        chosen = {target: file for file in found if (target := placed(source, file.path))}
        files = tuple(
            RemoteFile(f.url, safe_path(t, source.name), f.bytes, f.digest, f.unpack) for t, f in chosen.items()
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{source.home} lists its files in a way this version does not know; get them by hand."
        ) from error
    if not files:
        raise UserError(f"{source.home} no longer holds {source.layout}; get it by hand.")
    return files


def placed(source: Source, name: str) -> str:
    """Where below the folder a file called ``name`` at the home goes, or an empty string where it is left out."""
    if not source.take:
        return name
    return next((new + name[len(old) :] for old, new in source.take if name.startswith(old)), "")


def _zenodo(record: str, client: Client) -> list[RemoteFile]:
    answer = _json(f"https://zenodo.org/api/records/{record}", client)
    return [
        RemoteFile(
            f"https://zenodo.org/api/records/{record}/files/{quote(row['key'])}/content",
            row["key"],
            int(row["size"]),
            row["checksum"],
            unpack=row["key"].endswith(_ARCHIVES),
        )
        for row in answer["files"]
    ]


def _hub(name: str, client: Client) -> list[RemoteFile]:
    answer = _json(f"https://huggingface.co/api/datasets/{name}?blobs=true", client)
    files = []
    for row in answer["siblings"]:
        digest = f"sha256:{row['lfs']['sha256']}" if row.get("lfs") else f"blob:{row['blobId']}"
        url = f"https://huggingface.co/datasets/{name}/resolve/{answer['sha']}/{quote(row['rfilename'])}"
        files.append(RemoteFile(url, row["rfilename"], int(row["size"]), digest))
    return files


def _github(name: str, client: Client) -> list[RemoteFile]:
    commit = _json(f"https://api.github.com/repos/{name}/commits/HEAD", client)["sha"]
    tree = _json(f"https://api.github.com/repos/{name}/git/trees/{commit}?recursive=1", client)
    if tree.get("truncated"):
        raise UserError(f"https://github.com/{name} has too many files to list; clone it by hand.")
    return [
        RemoteFile(
            f"https://raw.githubusercontent.com/{name}/{commit}/{quote(row['path'])}",
            row["path"],
            int(row["size"]),
            f"blob:{row['sha']}",
        )
        for row in tree["tree"]
        if row["type"] == "blob" and row["mode"] != "120000"  # a link
    ]


def _json(url: str, client: Client) -> dict[str, Any]:
    try:
        with client(url, {"Accept": "application/json"}) as response:
            text = response.read(_LONGEST + 1)
            if response.status != 200:
                raise UserError(f"{url} answers {response.status}; try again later.")
        answer = json.loads(text)
    except OSError as error:
        reason = getattr(error, "reason", "") or type(error).__name__
        raise UserError(f"{url} cannot be reached ({reason}); try again later.") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{url} gave no list of files; try again later.") from error
    if not isinstance(answer, dict):
        raise UserError(f"{url} gave no list of files; try again later.")
    return answer
