"""Too much is refused before it fills the disk; what a broken upload leaves behind goes, and nothing else does."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import time
from pathlib import Path

import gradio as gr
import httpx
import pytest
from starlette.middleware import Middleware

from msmedcap.demo.serving import limits
from msmedcap.demo.serving.limits import Shut, UploadLimit, cleaning, forget_pages, sweep, upload_folder

MOST = 100_000
_apps: dict = {}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A gradio page with the limit and the cleaning, sweeping all the time; (address, upload folder)."""
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        patch.setattr(limits, "_EVERY", 0.05)
        patch.setattr(limits.sweep, "__kwdefaults__", {"age": 1.0})
        with gr.Blocks(analytics_enabled=False) as page:
            gr.File()
        _, url, _ = page.launch(
            prevent_thread_lock=True, quiet=True, ssr_mode=False, max_file_size=MOST,
            app_kwargs={"middleware": [Middleware(UploadLimit, most=MOST)], "lifespan": cleaning},
        )  # fmt: skip
        _apps[url] = page.app
        yield url, folder
        page.close()


def test_a_file_within_the_limit_passes(server):
    url, folder = server
    answer = httpx.post(f"{url}gradio_api/upload", files={"files": ("scan.dcm", b"x" * MOST)})
    assert answer.status_code == 200 and Path(answer.json()[0]).is_relative_to(folder)


def test_more_is_refused_as_a_whole(server):
    url, folder = server
    half = ("scan.dcm", b"x" * (MOST * 3 // 4))
    answer = httpx.post(f"{url}gradio_api/upload", files=[("files", half), ("files", half), ("files", half)])
    assert answer.status_code == 413 and "MB that may be sent" in answer.text


def test_one_that_tells_no_length_is_refused_when_it_passes_the_limit(server):
    url, folder = server

    def body():
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        for _ in range(400):
            yield b"x" * 1000
        yield b"\r\n--b--\r\n"

    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = httpx.post(f"{url}gradio_api/upload", content=body(), headers=headers)
    assert answer.status_code in (400, 413)
    assert not [p for p in folder.rglob("*") if p.is_file() and p.stat().st_size > MOST]


def test_what_a_broken_upload_leaves_behind_goes(server):
    url, folder = server
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port)) as broken:
        broken.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + b"x" * 20_000
        )
        _until(lambda: list(folder.glob("tmp*")))
    _until(lambda: not list(folder.glob("tmp*")))


def test_only_old_leftovers_go(tmp_path):
    kept = tmp_path / "abc" / "scan.dcm"
    kept.parent.mkdir()
    kept.write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    for name in ("tmpold", "tmpnew", "other"):
        (tmp_path / name).write_bytes(b"x")
    past = time.time() - 4000
    for name in ("tmpold", "other", "empty", "abc", "abc/scan.dcm"):
        os.utime(tmp_path / name, (past, past))
    assert sweep(tmp_path) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["abc", "other", "tmpnew"] and kept.exists()
    assert sweep(tmp_path / "missing") == 0


def test_closed_and_forgotten_pages_leave_gradios_memory_and_open_ones_stay():
    with gr.Blocks(analytics_enabled=False) as page:
        gr.HTML("")
    app = page.app
    for key in ("open", "closed", "left open", "just closed"):
        app.state_holder[key][next(iter(page.blocks))].value = "a picture"
    app.state_holder.session_data["closed"].is_closed = app.state_holder.session_data["just closed"].is_closed = True
    for key, seconds in (("closed", 400), ("left open", 2000), ("open", 400)):
        app.state_holder.time_last_used[key] -= datetime.timedelta(seconds=seconds)
    line = app.get_blocks()._queue
    line.pending_messages_per_session["closed"] = asyncio.Queue()
    assert forget_pages(app) == 2
    assert set(app.state_holder.session_data) == set(app.state_holder.time_last_used) == {"open", "just closed"}
    assert "closed" not in line.pending_messages_per_session and forget_pages(app) == 0
    still = app.state_holder["open"]
    assert not still.config_values
    (number,) = (n for n, block in page.blocks.items() if isinstance(block, gr.HTML))
    still._update_value_in_config(number, "another picture")  # what gradio does after the page's next event
    assert still.config_values[number]["props"]["value"] == "another picture"


def test_the_server_forgets_by_itself(server, monkeypatch):
    url, _ = server
    monkeypatch.setattr(limits.forget_pages, "__kwdefaults__", {"closed": 0.2, "unused": 0.2})
    app = _apps[url]
    app.state_holder["a visitor"]
    _until(lambda: "a visitor" not in app.state_holder.session_data)


def test_the_folder_is_gradios(monkeypatch, tmp_path):
    from gradio.utils import get_upload_folder

    for value in (str(tmp_path), ""):
        monkeypatch.setenv("GRADIO_TEMP_DIR", value)
        assert upload_folder().resolve() == Path(get_upload_folder()).resolve()


@pytest.mark.parametrize(
    ("path", "open_"),
    [
        ("/gradio_api/deep_link", False),
        ("//gradio_api/deep_link", False),
        ("/gradio_api/file=http://example.org/x", False),
        ("/gradio_api/file=HTTPS://example.org/x", False),
        ("/gradio_api/file=/tmp/gradio/abc/maps.png", True),
        ("/gradio_api/proxy=http://example.org", False),
        ("/monitoring/summary", False),
        ("/gradio_api/vibe-edit/", False),
        ("/gradio_api/upload", True),
        ("/gradio_api/queue/data", True),
        ("/gradio_api/run/caption", True),
        ("/", True),
    ],
)
def test_doors_that_are_not_used_are_shut(path, open_):
    passed, sent = [], []

    async def app(scope, receive, send):
        passed.append(scope)

    async def send(message):
        sent.append(message)

    asyncio.run(Shut(app)({"type": "http", "method": "GET", "path": path, "headers": []}, None, send))
    assert bool(passed) is open_ and (open_ or sent[0]["status"] == 404)


@pytest.mark.parametrize("told", [b"-5", b"x", b"99999999999"])
def test_a_length_that_is_none_is_refused_unread(told):
    sent = []

    async def send(message):
        sent.append(message)

    async def never(*_):
        raise AssertionError("it was read")

    scope = {"type": "http", "method": "POST", "path": "/x", "headers": [(b"content-length", told)]}
    asyncio.run(UploadLimit(never, most=1000)(scope, never, send))
    assert sent[0]["status"] == 413


def _until(true) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)
