"""Uploaded files: read once, then gone from the disk. Comes in: the server's traffic and a path. Goes out: bytes.

Gradio names an upload after its content, so two visitors who send the same scan share one file: deleting it after the first
has been read would take it from the second. Hence a book of who still waits for which file. It is the process's, as gradio's
upload folder is. Files that nobody reads are gradio's to delete (``delete_cache``).
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from msmedcap.data.scans import ScanError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Uploads:
    """How many readers each uploaded file waits for; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: Counter[str] = Counter()
        self._arriving = 0
        self._read: set[str] = set()

    def begin(self) -> None:
        """A file starts to arrive, under a name not known yet: nothing is deleted meanwhile."""
        with self._lock:
            self._arriving += 1

    def expect(self, paths: list[str]) -> None:
        """Files have arrived, each for one reader."""
        with self._lock:
            self._readers.update(paths)

    def end(self) -> None:
        """What began has ended, well or not."""
        with self._lock:
            self._arriving -= 1
            self._delete()

    def take(self, upload: str | None) -> bytes:
        """The content of an uploaded file, which is deleted unless another reader waits for it.

        Raises ``ScanError`` where nothing was sent or the file is gone.
        """
        if not upload:
            raise ScanError("No file was sent; give a DICOM, PNG, JPEG, TIFF, BMP or WebP file.")
        try:
            return Path(upload).read_bytes()
        except FileNotFoundError:
            raise ScanError("The uploaded file is gone; please send it again.") from None
        finally:
            with self._lock:
                self._readers[str(upload)] -= 1
                self._read.add(str(upload))
                self._delete()

    def _delete(self) -> None:
        if self._arriving:
            return
        for path in self._read:
            if self._readers[path] <= 0:
                Path(path).unlink(missing_ok=True)
                del self._readers[path]
        self._read.clear()


UPLOADS = Uploads()


class CountUploads:
    """ASGI middleware that tells :data:`UPLOADS` of every file that arrives, before its sender can ask for anything."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass on one request; an upload's answer is the JSON list of its paths."""
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith("/upload"):
            return await self._app(scope, receive, send)
        answer, status = bytearray(), [0]

        async def watch(message: Message) -> None:
            status[0] = message.get("status", status[0])
            answer.extend(message.get("body", b""))
            if message["type"] == "http.response.body" and not message.get("more_body") and status[0] == 200:
                UPLOADS.expect([str(path) for path in json.loads(answer)])
            await send(message)

        UPLOADS.begin()
        try:
            await self._app(scope, receive, watch)
        finally:
            UPLOADS.end()
