"""Uploaded files go as soon as they are read, but never from under another reader."""

from __future__ import annotations

import asyncio
import json

import pytest

from msmedcap.data.scans import ScanError
from msmedcap.demo.serving import uploads
from msmedcap.demo.serving.uploads import CountUploads, Uploads


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "scan"
    path.write_bytes(b"pixels")
    return path


def test_a_file_is_gone_once_it_is_read(file):
    book = Uploads()
    book.expect([str(file)])
    assert book.take(str(file)) == b"pixels" and not file.exists()
    with pytest.raises(ScanError, match="send it again"):
        book.take(str(file))


def test_two_readers_of_one_file_both_read_it(file):
    book = Uploads()
    book.expect([str(file)])
    book.expect([str(file)])
    assert book.take(str(file)) == b"pixels" and file.exists()
    assert book.take(str(file)) == b"pixels" and not file.exists()


def test_nothing_is_deleted_while_a_file_of_unknown_name_arrives(file):
    book = Uploads()
    book.expect([str(file)])
    book.begin()
    book.take(str(file))
    assert file.exists()
    book.expect([str(file)])
    book.end()
    assert book.take(str(file)) == b"pixels" and not file.exists()


def test_a_read_file_goes_when_the_other_upload_ends(file):
    book = Uploads()
    book.begin()
    book.take(str(file))
    book.end()
    assert not file.exists()


def test_no_file_is_one_sentence():
    with pytest.raises(ScanError, match="No file"):
        Uploads().take(None)


@pytest.mark.parametrize(
    ("path", "status", "counted"), [("/gradio_api/upload", 200, 2), ("/upload", 413, 0), ("/other", 200, 0)]
)
def test_the_servers_uploads_are_counted(monkeypatch, file, path, status, counted):
    book = Uploads()
    monkeypatch.setattr(uploads, "UPLOADS", book)
    body = json.dumps([str(file)]).encode() if status == 200 else b"too large"

    async def server(scope, receive, send):
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body", "body": body[:5], "more_body": True})
        await send({"type": "http.response.body", "body": body[5:]})

    async def send(message):
        pass

    for _ in range(2):
        asyncio.run(CountUploads(server)({"type": "http", "method": "POST", "path": path}, send, send))
    assert book._readers[str(file)] == counted and book._arriving == 0
