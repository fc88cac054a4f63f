"""A hub for tests: a server on this machine that speaks what a pull asks of the real one, and a client that takes a push.

``Hub`` serves a folder through the real ``HfApi`` (its listing, commits and byte ranges) and counts what it sent; it can cut a
connection off, ignore ranges or answer with an error. ``Uploads`` has the methods of ``HfApi`` that a push calls, with the
arguments it gives, and keeps the files.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi

REPO = "someone/models"
LARGE = 2_000  # bytes from which this hub keeps a file as LFS, with a SHA-256
COMMIT = "c0ffee" + "0" * 34


class Hub:
    """Serves ``folder`` as the repository :data:`REPO`; ``sent`` counts bytes by file, ``ranges`` holds the positions asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sent: dict[str, int] = {}
        self.ranges: list[tuple[str, str | None]] = []
        self.listing: list[dict[str, Any]] = []  # entries besides the folder's own
        self.cut: dict[str, int] = {}  # file: bytes until the connection breaks, each time
        self.status = 0  # answer everything with this error
        self.error_code = ""
        self.dies_at = ""  # having sent of this file what it does, the hub answers 503
        self.ignore_ranges = False
        self.asked: list[str] = []
        self.tokens: list[str | None] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.api = HfApi(endpoint=f"http://127.0.0.1:{self._server.server_port}", token="hf_test")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def siblings(self) -> list[dict[str, Any]]:
        rows = [{"rfilename": ".gitattributes", "size": 3, "blobId": "0" * 40}]
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            content = path.read_bytes()
            row: dict[str, Any] = {"rfilename": path.relative_to(self.folder).as_posix(), "size": len(content)}
            row["blobId"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            if len(content) >= LARGE:
                row["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
            rows.append(row)
        return rows + self.listing

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.asked.append(path)
                hub.tokens.append(self.headers.get("Authorization"))
                files = f"/{REPO}/resolve/{COMMIT}/"
                if hub.status:
                    self.answer(hub.status, b"{}", {"X-Error-Code": hub.error_code} if hub.error_code else {})
                elif path in (f"/api/models/{REPO}", f"/api/models/{REPO}/revision/v1"):
                    info = {"id": REPO, "modelId": REPO, "sha": COMMIT, "private": False, "siblings": hub.siblings()}
                    self.answer(200, json.dumps(info | {"tags": [], "downloads": 0, "likes": 0}).encode())
                elif path.startswith(f"/api/models/{REPO}/revision/"):
                    self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                elif path.startswith(files) and (hub.folder / path.removeprefix(files)).is_file():
                    self.file(path.removeprefix(files))
                else:
                    self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

            def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for key, value in (headers or {}).items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def file(self, name: str) -> None:
                content, wanted = (hub.folder / name).read_bytes(), self.headers.get("Range")
                hub.ranges.append((name, wanted))
                start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and not hub.ignore_ranges else 0
                body = content[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                body = body[: hub.cut.get(name, len(body))]
                self.wfile.write(body)
                hub.sent[name] = hub.sent.get(name, 0) + len(body)
                hub.status = 503 if name == hub.dies_at else hub.status
                if start + len(body) < len(content):
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                """Nothing; a test's output is its own."""

        return Handler


class Uploads:
    """The part of ``HfApi`` that a push calls; ``folder`` is the repository, each call is kept in ``calls``."""

    endpoint, token = "https://hub.invalid", None

    def __init__(self, folder: Path, *, private: bool = False, error: Exception | None = None) -> None:
        self.folder, self.private, self.error = folder, private, error
        self.calls: list[str] = []
        self.commits: list[dict[str, Any]] = []

    def create_repo(self, repo_id: str, *, private: bool | None = None, exist_ok: bool = False) -> str:
        self.calls.append("create_repo")
        if self.error:
            raise self.error
        assert exist_ok, "a second push must not fail because the repository is there"
        if not self.folder.exists():
            self.folder.mkdir()
            self.private = bool(private)
        return f"{self.endpoint}/{repo_id}"

    def model_info(self, repo_id: str, *, revision: str | None = None) -> SimpleNamespace:
        self.calls.append("model_info")
        names = [p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file()]
        siblings = [SimpleNamespace(rfilename=n) for n in [".gitattributes", *names]]
        return SimpleNamespace(private=self.private, siblings=siblings, sha=COMMIT)

    def create_branch(self, repo_id: str, *, branch: str, exist_ok: bool = False) -> None:
        self.calls.append(f"create_branch {branch}")

    def create_commit(
        self, repo_id: str, operations: Iterable[Any], *, commit_message: str, revision: str | None = None
    ) -> CommitInfo:
        self.calls.append("create_commit")
        added, deleted = [], []
        for operation in operations:
            path = self.folder / operation.path_in_repo
            if isinstance(operation, CommitOperationAdd):
                path.parent.mkdir(parents=True, exist_ok=True)
                with operation.as_file() as file:
                    path.write_bytes(file.read())
                added.append(operation.path_in_repo)
            elif isinstance(operation, CommitOperationDelete):
                path.unlink()
                deleted.append(operation.path_in_repo)
        self.commits.append({"message": commit_message, "revision": revision, "added": added, "deleted": deleted})
        return CommitInfo(f"{self.endpoint}/{repo_id}/commit/{COMMIT}", commit_message, "", COMMIT, _endpoint=self.endpoint)
