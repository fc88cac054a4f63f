"""One file over HTTP: on from the byte where it stopped, checked by hash where one is known, whole under its name or not there.

What has arrived of a file lies beside it as ``NAME.part``, with ``NAME.part.tag`` to tell the home's version, so that the
halves of two versions are never joined.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from msmedcap.config import UserError
from msmedcap.data.download.sources import RemoteFile

CHUNK = 1 << 20
TRIES = 5
PAUSE = 1.0  # seconds, times the number of failures in a row
_TIMEOUT = 60.0
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_BROKEN = (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError, urllib.error.URLError)


class Response(Protocol):
    """What a client gives back; ``headers`` are read by name in any case."""

    status: int
    headers: Any

    def read(self, amount: int = -1, /) -> bytes: ...
    def __enter__(self) -> Any: ...
    def __exit__(self, *args: Any) -> Any: ...


class Client(Protocol):
    """Asks for an address; an answer of any status is a :class:`Response`, a connection that fails raises."""

    def __call__(self, url: str, headers: Mapping[str, str]) -> Response: ...


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to something that can be listened in on."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme != "https" and req.type == "https":
            raise urllib.error.URLError("a redirect away from https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    """Leaves errors to whoever asked; redirects are still followed."""

    def http_response(self, request: Any, response: Any) -> Any:
        return super().http_response(request, response) if response.status in (301, 302, 303, 307, 308) else response

    https_response = http_response


def web(url: str, headers: Mapping[str, str]) -> Response:
    """The plain client: http or https, proxies from the environment."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{url} is no http address.")
    opener = urllib.request.build_opener(_Redirects, _AnyStatus)
    request = urllib.request.Request(url, headers={"User-Agent": "msmedcap", **headers})
    response: Response = opener.open(request, timeout=_TIMEOUT)
    return response


class Missing(UserError):
    """The home has no such file."""


def fetch(file: RemoteFile, path: Path, *, client: Client, arrived: Callable[[int], Any] = lambda count: None) -> str:
    """Get ``file`` as ``path`` and return its SHA-256; ``arrived`` is told the bytes (less than 0: thrown away again).

    A file that is there under its name is whole, and left as it is unless its hash is not the one its home names.

    Raises :class:`UserError` with one sentence: it broke off (what came is kept), its hash is wrong (it is removed), the disk
    is full, the home refuses. :class:`Missing` where the home has no such file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and file.bytes in (0, _size(path)):
        ours, fits = _hash(file, path)
        if fits:
            arrived(_size(path))
            return ours
    part = path.with_name(path.name + ".part")
    arrived(_size(part))
    failures = 0
    while True:
        before = _size(part)
        try:
            if _more(file, part, client, arrived):
                break
            reason = "the connection broke"
        except _BROKEN as error:
            reason = str(getattr(error, "reason", "") or error or type(error).__name__)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(
                    f"The disk is full; free some space and call again. Of {path.name} what came is kept."
                ) from error
            raise UserError(f"{part} cannot be written ({error.strerror}); check the folder.") from error
        failures = 1 if _size(part) > before else failures + 1
        if failures >= TRIES:
            raise UserError(f"{file.url} broke off at {_size(part):,} bytes ({reason}); call again to go on there.")
        time.sleep(PAUSE * failures)
    return _finish(file, part, path, arrived)


def _more(file: RemoteFile, part: Path, client: Client, arrived: Callable[[int], Any]) -> bool:
    """Ask for what is missing and append it; whether the file is whole then."""
    tag_file = part.with_name(part.name + ".tag")
    have = _size(part)
    if file.bytes and have == file.bytes:
        return True
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-"}
        if tag := tag_file.read_text(encoding="utf-8") if tag_file.is_file() else "":
            headers["If-Range"] = tag
    with client(file.url, headers) as response:
        if response.status in _BUSY:
            raise ConnectionError(f"its home answers {response.status}")
        if response.status == 416:  # there is nothing after what is here: a whole file, or one of another version
            whole = response.headers.get("Content-Range", "") == f"bytes */{have}"
            if not whole:
                _forget(part, arrived)
            return whole
        _check_status(response.status, file.url)
        start = _start(response) if response.status == 206 else 0
        if start not in (0, have) or (file.bytes and have > file.bytes):
            _forget(part, arrived)
            return False
        if have and not start:
            _forget(part, arrived)
        tag_file.write_text(_tag(response), encoding="utf-8")
        length = response.headers.get("Content-Length", "")
        expected = start + int(length) if length.isdecimal() else 0
        if file.bytes and expected and expected != file.bytes:
            raise UserError(
                f"{file.url} has {expected:,} bytes where {file.bytes:,} were announced; its home has changed it."
            )
        if expected:
            check_space(part.parent, expected - _size(part), file.path)
        with part.open("ab") as out:
            for chunk in _chunks(response):
                out.write(chunk)
                arrived(len(chunk))
        return _size(part) == expected if expected else True


def _chunks(response: Response) -> Iterator[bytes]:
    try:
        while chunk := response.read(CHUNK):
            yield chunk
    except http.client.IncompleteRead as error:
        yield error.partial
        raise


def _finish(file: RemoteFile, part: Path, path: Path, arrived: Callable[[int], Any]) -> str:
    ours, fits = _hash(file, part)
    if not fits or (file.bytes and _size(part) != file.bytes):
        _forget(part, arrived)
        what = file.digest.partition(":")[0] or "size"
        raise UserError(
            f"{path.name} from {file.url} is damaged: its {what} is not what was announced; it was removed, so call again."
        )
    os.replace(part, path)
    part.with_name(part.name + ".tag").unlink(missing_ok=True)
    return ours


def _hash(file: RemoteFile, path: Path) -> tuple[str, bool]:
    """The SHA-256 of ``path``, and whether it has the digest of ``file`` (where there is none: yes)."""
    kind, _, expected = file.digest.partition(":")
    ours, theirs = hashlib.sha256(), _hasher(kind, _size(path))
    with path.open("rb") as whole:
        while chunk := whole.read(CHUNK):
            ours.update(chunk)
            theirs.update(chunk)
    return ours.hexdigest(), not expected or theirs.hexdigest() == expected


def _hasher(kind: str, size: int) -> Any:
    if kind == "md5":
        return hashlib.md5(usedforsecurity=False)
    if kind == "blob":
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    return hashlib.sha256()


def check_space(folder: Path, need: int, what: str) -> None:
    """Raises :class:`UserError` where the disk of ``folder`` has less than ``need`` bytes free."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if need > free:
        raise UserError(
            f"{what} needs {need / 1e9:.1f} GB more and the disk of {folder} has {free / 1e9:.1f} GB free; free some space or name "
            "a folder on another disk."
        )


def _check_status(status: int, url: str) -> None:
    if status in (404, 410):
        raise Missing(f"{url} is not there ({status}); its home may have moved it.")
    if status in (401, 403):
        raise UserError(f"{url} is not open to everyone ({status}); ask for access on its page.")
    if status not in (200, 206):
        raise UserError(f"{url} answers {status}; try again later.")


def _start(response: Response) -> int:
    """Where a partial answer begins, or -1 where it does not say."""
    text = response.headers.get("Content-Range", "")
    first = text.removeprefix("bytes ").partition("-")[0]
    return int(first) if text.startswith("bytes ") and first.isdecimal() else -1


def _tag(response: Response) -> str:
    tag = response.headers.get("ETag", "") or ""
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "") or ""


def _forget(part: Path, arrived: Callable[[int], Any]) -> None:
    arrived(-_size(part))
    part.unlink(missing_ok=True)
    part.with_name(part.name + ".tag").unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
