"""What one visitor brings no other visitor gets: not by asking, not by guessing addresses, not with somebody else's words."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from fake import FakePredictor
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.visitor import Failed, Visitor  # noqa: E402


@pytest.fixture(scope="module")
def page(serve):
    with serve(FakePredictor()) as served:
        yield served


@pytest.fixture
def scan(tmp_path) -> bytes:
    pixels = np.random.default_rng(7).integers(0, 255, (50, 70), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scan.png")
    return (tmp_path / "scan.png").read_bytes()


@pytest.fixture
def anna(page, scan):
    """A visitor with an open scan, its maps, captions and a mask."""
    with Visitor(page.url) as visitor:
        visitor.open(scan, "ANNA-SCAN.png")
        list(visitor.follow())
        visitor.act("mm-viewer", "prompt", points=[[30, 20, 1]], box=None)
        assert visitor.value("mm-viewer")["outlines"] and len(visitor.captions()) == 3
        yield visitor


@pytest.fixture
def bert(page):
    with Visitor(page.url) as visitor:
        yield visitor


def _held(visitor: Visitor) -> str:
    return str([visitor.value(name) for name in ("mm-viewer", "mm-captions", "mm-maps", "mm-segments")])


@pytest.mark.parametrize(
    ("event", "data"),
    [
        ("full", {}),
        ("missing", {}),
        ("frame", {"index": 0}),
        ("window", {"width": 10, "level": 5}),
        ("place", {"x": 3, "y": 4}),
        ("prompt", {"points": [[3, 4, 1]], "box": None}),
    ],
)
def test_asking_for_what_is_open_gives_a_stranger_nothing(anna, bert, event, data):
    with_scan = anna.value("mm-viewer")
    try:
        bert.act("mm-viewer", event, **data)
    except Failed as error:
        said = str(error)
        assert "open" in said or "scan" in said
    held = _held(bert)
    assert with_scan["scan"] not in held and "data:image" not in str(bert.value("mm-viewer"))
    assert "mean grey" not in held


def test_each_of_two_sees_the_own_scan(anna, bert, tmp_path):
    Image.fromarray(np.full((40, 40), 9, np.uint8) + np.eye(40, dtype=np.uint8) * 99).save(tmp_path / "b.png")
    bert.open((tmp_path / "b.png").read_bytes())
    list(bert.follow())
    before = anna.captions()
    anna.act("mm-viewer", "missing")
    assert anna.captions() == before != bert.captions()
    assert anna.value("mm-viewer")["width"] == 70 and bert.value("mm-viewer")["width"] == 40


@pytest.mark.parametrize(
    "address",
    [
        "gradio_api/file=/etc/hostname",
        "gradio_api/file=../../../../etc/hostname",
        "gradio_api/file=%2e%2e/%2e%2e/%2e%2e/etc/hostname",
        "gradio_api/file=file:///etc/hostname",
        "gradio_api/file=app.py",
        "gradio_api/file=README.md",
        f"gradio_api/file={ROOT}/app.py",
        f"gradio_api/file={ROOT}/checkpoints/demo/config.json",
        f"gradio_api/file={ROOT}/.git/config",
        "gradio_api/file=/proc/self/environ",
        "gradio_api/file=http://127.0.0.1/",
        "gradio_api/proxy=http://127.0.0.1/",
        "file=/etc/hostname",
        "static/..%2f..%2f..%2fetc%2fhostname",
        "assets/..%2f..%2f..%2fetc%2fhostname",
        "svelte/..%2f..%2fetc%2fhostname",
    ],
)
def test_the_servers_files_cannot_be_fetched(page, address):
    answer = httpx.get(f"{page.url}{address}")
    assert answer.status_code >= 400 or "<!doctype html" in answer.text.lower(), answer.text[:200]
    assert Path("/etc/hostname").read_text().strip() not in answer.text


def test_an_uploaded_file_cannot_be_found_by_who_has_the_same_scan(page, scan):
    """Its address holds a hash that the server salts, and it is gone once the scan is open."""
    with Visitor(page.url) as visitor:
        visitor.open(scan, "scan.png")
        path = Path(visitor.sent)
        assert path.parent.name != hashlib.sha256(scan).hexdigest() and re.fullmatch("[0-9a-f]{64}", path.parent.name)
        for address in (path, path.parent, path.parent.parent, path.parents[1] / hashlib.sha256(scan).hexdigest() / "scan.png"):
            assert httpx.get(f"{page.url}gradio_api/file={address}").status_code >= 400, address


def test_a_file_of_the_server_is_not_opened_as_a_scan(page, bert):
    example = str(ROOT / "assets" / "examples" / "ct-chest.dcm")
    for path in ("/etc/hostname", example, "../../etc/hostname", f"{page.url}health", "http://127.0.0.1/x.png"):
        file = {"path": path, "orig_name": "x", "meta": {"_type": "gradio.FileData"}}
        bert.values[bert._ids["mm-file"]] = [file] if bert._takes_several else file
        with pytest.raises(Failed):
            bert._run(bert._event("mm-file", "upload"))
        assert "data:image" not in _held(bert)


@pytest.mark.parametrize("key", ["guess", "", "null", "../x", "%00"])
def test_a_guessed_key_hears_nothing(page, anna, key):
    said = ""
    with (
        contextlib.suppress(httpx.RemoteProtocolError),  # the server breaks off
        httpx.stream("GET", f"{page.url}gradio_api/queue/data", params={"session_hash": key}, timeout=30) as stream,
    ):
        for text in stream.iter_text():
            said += text
    assert "data:image" not in said and anna.key not in said and ("unexpected_error" in said or not said)


@pytest.mark.parametrize(
    "address",
    [
        "config",
        "gradio_api/info",
        "gradio_api/startup-events",
        "gradio_api/openapi.json",
        "gradio_api/app_id",
        "gradio_api/token",
        "gradio_api/user",
        "monitoring",
        "monitoring/summary",
        "gradio_api/runs",
        "health",
        "",
        "manifest.json",
        "robots.txt",
        "theme.css",
    ],
)
def test_no_address_tells_who_is_there_or_where_things_lie(page, anna, address):
    said = httpx.get(f"{page.url}{address}", timeout=60, follow_redirects=True).text
    for secret in (anna.key, "ANNA-SCAN", str(ROOT), str(page.cache), anna.value("mm-viewer")["scan"]):
        assert secret not in said, f"{address} tells {secret}"


@pytest.mark.parametrize(
    ("address", "body"),
    [
        ("gradio_api/process_recording", {}),
        ("gradio_api/component_server", {"data": [], "component_id": 1, "session_hash": "x", "fn_name": "load"}),
        ("gradio_api/vibe-edit/", {"prompt": "x"}),
        ("gradio_api/run/_open_file", {"data": [None], "session_hash": "x"}),
        ("gradio_api/call/_open_file", {"data": [None]}),
        ("gradio_api/api/caption", {"data": [None]}),
    ],
)
def test_doors_of_gradio_that_the_page_does_not_use_are_shut(page, address, body):
    answer = httpx.post(f"{page.url}{address}", json=body)
    assert answer.status_code >= 400, answer.text[:200]


def test_a_shared_link_keeps_nothing_of_a_visitor(page, anna):
    answer = httpx.get(f"{page.url}gradio_api/deep_link", params={"session_hash": anna.key})
    assert answer.status_code == 404 and not list(page.cache.rglob("state.json"))
    kept = "".join(path.read_text(errors="ignore") for path in page.kept())
    for private in ("ANNA-SCAN", "mean grey", "data:image"):
        assert private not in kept and private not in answer.text


def test_nobody_can_stop_another_visitors_captions(page, anna, bert):
    """A stranger's Stop and a stranger's cancel name the stranger's own key; a cancel needs the event's own random name."""
    bert.act("mm-stop", "click")
    answer = httpx.post(
        f"{page.url}gradio_api/cancel", json={"session_hash": "guess", "fn_index": 0, "event_id": "guess"}
    )
    assert answer.status_code == 200
    anna.act("mm-viewer", "missing")
    assert len(anna.captions()) == 3


def test_nothing_is_left_when_all_have_gone(page, scan):
    with Visitor(page.url) as visitor:
        visitor.open(scan, "ANNA-SCAN.png")
        list(visitor.follow())
    assert page.kept() == []
