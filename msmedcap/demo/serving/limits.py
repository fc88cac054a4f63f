"""What may be asked of the server and how much may be sent to it, and what is left of uploads that ended badly.

Comes in: requests, and gradio's upload folder. Goes out: a middleware that shuts the doors of gradio which the page does not
use, one that refuses a request as a whole (gradio's own limit is for each of up to a thousand files), a lifespan that removes
what gradio keeps too long: parts of an upload whose sender went away, and its memory of pages that are closed; and a folder for
all of gradio's files that is the server's own and ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.responses import PlainTextResponse

Message = MutableMapping[str, Any]
_ROOM = 64 * 1024  # what the form around a file may take
_TEMPORARY = "GRADIO_TEMP_DIR"
_AGE, _CLOSED, _EVERY = 1800.0, 300.0, 20.0


class Shut:
    """ASGI middleware: 404 for what gradio offers and the page does not use.

    A deep link writes all that a visitor sees to the disk, where it stays; a file by URL makes the server fetch it for anybody.
    """

    _FIRST = re.compile(
        r"/+(gradio_api/+(deep_link|process_recording|dev|runs|run-history|(undo-)?vibe-\w+|proxy=|stream|profiling)|monitoring)"
    )
    _ELSEWHERE = re.compile(r"/+gradio_api/+file[=/][a-z][a-z0-9+.-]*:", re.I)

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Pass on one request, or answer that there is nothing."""
        path = scope.get("path", "")
        if scope["type"] == "http" and (self._FIRST.match(path) or self._ELSEWHERE.match(path)):
            return await PlainTextResponse("There is nothing here.", 404)(scope, receive, send)
        await self._app(scope, receive, send)


class UploadLimit:
    """ASGI middleware: a POST request with a body of more than ``most`` bytes is answered 413, before it is read if it tells."""

    def __init__(self, app: Callable[..., Awaitable[None]], *, most: int) -> None:
        self._app, self._most = app, most + _ROOM

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Pass on one request, or refuse it."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if not told.isdigit() or int(told) > self._most:
            return await self._refusal()(scope, receive, send)
        came, answered = 0, False

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self._most:  # no length was told, or a wrong one
                return {"type": "http.disconnect"}
            return message

        async def watched(message: Message) -> None:
            nonlocal answered
            if came <= self._most:
                answered = True
                await send(message)

        try:
            await self._app(scope, counted, watched)
        except Exception:
            if came <= self._most:
                raise
        if came > self._most and not answered:
            await self._refusal()(scope, receive, send)

    def _refusal(self) -> PlainTextResponse:
        megabytes = (self._most - _ROOM) / 2**20
        return PlainTextResponse(f"This is larger than the {megabytes:g} MB that may be sent.", 413)


def sweep(folder: Path, *, age: float = _AGE) -> int:
    """Remove gradio's temporary files right in ``folder`` that were not written for ``age`` seconds, and empty folders as old.

    Returns how many went. Files in use are younger, and finished uploads lie in folders of their own, which gradio cleans.
    """
    gone, oldest = 0, time.time() - age
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # it went by itself, or holds something
                if entry.stat(follow_symlinks=False).st_mtime > oldest:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    os.rmdir(entry.path)
                elif entry.name.startswith("tmp"):
                    os.unlink(entry.path)
                else:
                    continue
                gone += 1
    return gone


def upload_folder() -> Path:
    """Where gradio keeps uploads, as it decides itself."""
    return Path(os.environ.get(_TEMPORARY) or Path(tempfile.gettempdir()) / "gradio")


@contextlib.contextmanager
def own_folder() -> Iterator[None]:
    """While it lasts, gradio's files lie in a new folder that no other account may enter, and are gone with it afterwards.

    To be entered before gradio is imported. A request to end the process (SIGTERM) ends it in order. Where ``GRADIO_TEMP_DIR``
    names a folder already, it is that one, and nothing of it is removed.
    """
    if os.environ.get(_TEMPORARY):
        yield
        return
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)) if main else None
    folder = os.environ[_TEMPORARY] = tempfile.mkdtemp(prefix="gradio-")  # of mode 0700
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second request must not stop the removal
        shutil.rmtree(folder, ignore_errors=True)
        os.environ.pop(_TEMPORARY, None)
        if main:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def forget_pages(app: Any, *, closed: float = _CLOSED, unused: float = _AGE) -> int:
    """Drop what gradio remembers of pages that were closed ``closed`` seconds ago or not used for ``unused``; how many it were.

    Gradio itself keeps the newest value of every component, pictures included, of the last ten thousand pages: for links that
    open a page as somebody else saw it. There are none here (:class:`Shut`), so open pages' are dropped, too: a megabyte each.
    """
    holder, line = app.state_holder, app.get_blocks()._queue
    now, gone = datetime.datetime.now(), 0
    for key, page in list(holder.session_data.items()):
        page.config_values.clear()
        idle = (now - holder.time_last_used.get(key, now)).total_seconds()
        if idle > (closed if page.is_closed else unused):
            holder.session_data.pop(key, None)
            holder.time_last_used.pop(key, None)
            line.pending_event_ids_session.pop(key, None)
            if key in line.pending_messages_per_session:
                del line.pending_messages_per_session[key]
            gone += 1
    return gone


@contextlib.asynccontextmanager
async def cleaning(app: object) -> AsyncIterator[dict[str, Any]]:
    """A lifespan (``app_kwargs={"lifespan": cleaning}``) that sweeps and forgets all the time while the server runs."""

    async def clean() -> None:
        while True:
            await asyncio.sleep(_EVERY)
            forget_pages(app)  # in the loop that gradio, too, changes these from
            await anyio.to_thread.run_sync(sweep, upload_folder())

    task = asyncio.create_task(clean())
    try:
        yield {}
    finally:
        task.cancel()
