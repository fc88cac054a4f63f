"""One visitor of the page without a browser: the requests a browser sends, and what of the answers it would show.

Comes in: the page's address. Goes out: :class:`Visitor`, which opens scans, presses and points, follows the events that the page
chains to one another, and keeps every component's newest value. It is what :mod:`benchmarks.visitors` sends twenty of.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
from gradio_client.utils import apply_diff


class Failed(Exception):
    """The server refused a request, an event ended in an error, or the page said that something is wrong."""


class Visitor:
    """A tab of the page, open until :meth:`leave`; a context manager. ``told`` gets every status line as it comes."""

    def __init__(self, address: str, *, told: Callable[[str], None] = lambda text: None) -> None:
        self._told = told
        self._client = httpx.Client(base_url=address, timeout=httpx.Timeout(30.0, read=300.0))
        config = self._get("config").json()
        self._events = {item["id"]: item for item in config["dependencies"]}
        self._names = {item["id"]: item["props"].get("elem_id") for item in config["components"]}
        self._ids = {name: number for number, name in self._names.items() if name}
        self.values: dict[int, Any] = {item["id"]: item["props"].get("value") for item in config["components"]}
        (field,) = (item for item in config["components"] if item["props"].get("elem_id") == "mm-file")
        self._takes_several = field["props"].get("file_count") != "single"
        self._kept: dict[tuple[str, Any], str] = {}
        self.key = secrets.token_hex(6)
        # As long as this connection is open the tab is.
        url = self._client.base_url
        self._open = socket.create_connection((url.host, url.port or 80))
        self._open.sendall(f"GET /gradio_api/heartbeat/{self.key} HTTP/1.1\r\nHost: {url.host}\r\n\r\n".encode())

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Close the tab; the server forgets what was open in it."""
        self._open.close()
        self._client.close()

    def open(self, data: bytes, name: str = "scan") -> None:
        """Drop a file on the page, and wait until it is shown (or refused: :class:`Failed`)."""
        answer = self._client.post("/gradio_api/upload", files={"files": (name, data)})
        if answer.status_code != 200:
            raise Failed(f"upload: {answer.status_code}")
        self.sent = str(answer.json()[0])
        file = {"path": self.sent, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
        self.values[self._ids["mm-file"]] = [file] if self._takes_several else file
        self._opened = self._run(self._event("mm-file", "upload"))

    def again(self) -> None:
        """Press "Caption this view"; :meth:`follow` does the rest."""
        self._opened = self._run(self._event("mm-again", "click"))

    def follow(self) -> Iterator[str]:
        """What the page does by itself after :meth:`open` or :meth:`again`: each event's name, once it has ended."""
        waiting = [self._opened]
        while waiting:
            after = waiting.pop(0)
            for event in self._events.values():
                if event["trigger_after"] == after and event["backend_fn"]:
                    self._run(event["id"])
                    yield event["api_name"].lstrip("_").split("_")[0]
                    waiting.append(event["id"])

    def act(self, element: str, event: str, **data: Any) -> None:
        """Press or point: the ``event`` of the component with that ``elem_id``, with what it carries."""
        self._run(self._event(element, event), data or None)

    def press(self, element: str, event: str) -> None:
        """As :meth:`act`, beside an event that runs: nobody waits for what comes of it."""
        self._join(self._event(element, event), None)

    def value(self, element: str) -> Any:
        """What the component shows now."""
        return self.values[self._ids[element]]

    def captions(self) -> dict[str, str]:
        """The caption on each system's card."""
        cards = _Cards()
        cards.feed(self.value("mm-captions") or "")
        return cards.texts

    def picture(self) -> str:
        """A digest of the picture on show and the values under it."""
        state = self.value("mm-viewer")
        found = [self._kept.get(("picture", state["view"])), self._kept.get(("values", state["values_key"]))]
        if found[0] is None:
            raise Failed("a picture that was never sent is to be shown")
        return _digest([*found, state["width"], state["height"]])

    def map(self) -> str:
        """A digest of the map on show."""
        found = self.value("mm-viewer")["map"] or {}
        return _digest([self._kept.get(("map", found.get("key"))), found.get("title"), found.get("range")])

    def outlines(self) -> str:
        """A digest of what is outlined, with its names."""
        return _digest(self.value("mm-viewer")["outlines"])

    def _event(self, element: str, name: str) -> int:
        target = [self._ids[element], name]
        return next(
            number
            for number, event in self._events.items()
            if event["backend_fn"] and target in [list(t) for t in event["targets"]]
        )

    def _run(self, number: int, data: Any = None) -> int:
        """One event from joining the queue to its end, its updates taken in; raises :class:`Failed` where it failed."""
        event = self._events[number]
        mine, held = self._join(number, data), [None] * len(event["outputs"])
        with self._client.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.key}) as stream:
            for line in stream.iter_lines():
                if not line.startswith("data:"):
                    continue
                message = json.loads(line[5:])
                if message.get("event_id") not in (mine, None):
                    continue
                if message["msg"] == "process_generating":
                    new = message["output"]["data"]
                    changed = any(item is not None for item in held)
                    held = [apply_diff(a, b) for a, b in zip(held, new, strict=True)] if changed else new
                    self._take(event["outputs"], held)
                elif message["msg"] == "process_completed":
                    if not message["success"]:
                        raise Failed(f"{event['api_name']}: {message['output'].get('error')}")
                    if not held or all(item is None for item in held):
                        self._take(event["outputs"], message["output"]["data"])
                    return number
                elif message["msg"] in ("unexpected_error", "server_stopped"):
                    raise Failed(f"{event['api_name']}: {message.get('message')}")
        raise Failed(f"{event['api_name']}: the connection ended")

    def _join(self, number: int, data: Any) -> str:
        event = self._events[number]
        inputs = [self.values[i] for i in event["inputs"]]
        body = {"data": inputs, "event_data": data, "fn_index": number, "trigger_id": None, "session_hash": self.key}
        joined = self._client.post("/gradio_api/queue/join", json=body)
        if joined.status_code != 200:
            raise Failed(f"{event['api_name']}: {joined.status_code} {joined.text[:100]}")
        return str(joined.json()["event_id"])

    def _take(self, outputs: list[int], data: list[Any]) -> None:
        for number, new in zip(outputs, data, strict=True):
            if isinstance(new, dict) and new.get("__type__") == "update":
                if "value" not in new:
                    continue
                new = new["value"]
            if isinstance(new, str) and self._names[number] == "mm-viewer":
                new = json.loads(new)
                self._keep(new)
            self.values[number] = new
            if isinstance(new, str) and "mm-status" in new:
                if "mm-error" in new:
                    raise Failed(_text(new))
                self._told(_text(new))

    def _keep(self, state: dict[str, Any]) -> None:
        """What is large is sent once; a browser keeps it by its key."""
        shown = state.get("map") or {}
        for kind, key, item in (
            ("picture", state["view"], state.get("picture")),
            ("values", state.get("values_key"), state.get("values")),
            ("map", shown.get("key"), shown.get("uri") or shown.get("grid")),
        ):
            if item is not None:
                self._kept[kind, key] = _digest(item)

    def _get(self, path: str) -> httpx.Response:
        answer = self._client.get(path)
        if answer.status_code != 200:
            raise Failed(f"{path}: {answer.status_code}")
        return answer


class _Cards(HTMLParser):
    """The words in the elements of class ``mm-caption``, by the ``data-system`` of the card around them."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self._system, self._inside = "", ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._system = found.get("data-system") or self._system
        if "mm-caption" in (found.get("class") or "").split():
            self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[self._system] = self.texts.get(self._system, "") + data


def _text(html: str) -> str:
    parts: list[str] = []
    parser = HTMLParser()
    parser.handle_data = parts.append  # type: ignore[method-assign]
    parser.feed(html)
    return "".join(parts)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
