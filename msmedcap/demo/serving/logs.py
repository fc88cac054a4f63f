"""What the server writes down: one line an event, as JSON or as text, with nothing in it that tells who came or what was shown.

Comes in: what happens on the page (:class:`Journal`), and whatever any library logs. Goes out: lines on stderr. Fields come from a
list and words from fixed vocabularies, so a file name, a patient's tag, a caption or a token cannot slip in; of an error only
its class and the places in the code are kept, for its text may quote what it choked on. Visitors are numbered as they come.
"""

from __future__ import annotations

import datetime
import io
import json
import logging
import math
import re
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from msmedcap.config import UserError
from msmedcap.systems import PRESETS, SYSTEMS

LEVELS, FORMATS = ("debug", "info", "warning", "error"), ("text", "json")
EVENTS = frozenset((
    "started", "opened", "viewed", "mapped", "captioned", "segmented", "exported", "rated", "left", "asked", "signed-in",
    "turned-away", "saved",
))
BY_PROGRAM: dict[str, float | str] = {"from": "program"}
"""What an event carries that no page asked for."""
OUTCOMES = ("ok", "error", "cancelled")
# What an event may carry: a number, or a word out of a few.
_NUMBERS = frozenset(["seconds", "waited", "ahead", "frames", "systems", "points", "masks", "bytes", "cases", "port"])
_WORDS: dict[str, frozenset[str]] = {
    "system": frozenset(SYSTEMS),
    "preset": frozenset(PRESETS),
    "kind": frozenset(("DICOM", "PNG", "JPEG", "TIFF", "BMP", "WebP", "GIF")),
    "models": frozenset(("demo", "full", "folder")),
    "from": frozenset(("upload", "example", "case", "program")),
}
# What may be said to have failed; a test holds it against what the page says.
DOINGS = frozenset((
    "answering the review", "changing the view", "counting the study", "drawing the figure", "drawing the maps",
    "drawing the word's map", "making the file", "opening the case", "opening the example", "opening the files", "opening the scan",
    "reading the captions file", "reading the files", "reading the run", "reading the scan", "segmenting", "segmenting the scan",
    "writing the captions", "writing the masks",
))
_MOST_VISITORS, _MOST_PLACES = 4096, 8
_OURS = "msmedcap"
_log = logging.getLogger("msmedcap.events")


class Happening:
    """One event while it lasts: more can be said of it, and that it failed."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts
        self.outcome, self.error = "ok", ""

    def note(self, **facts: float | str) -> None:
        """Add fields; raises ``TypeError`` for one that is not on the list, and writes an unknown word as "other"."""
        self._facts.update(_checked(facts))

    def failed(self, error: BaseException) -> None:
        """The event ended with ``error``, which the visitor was told of."""
        self.outcome, self.error = "error", type(error).__name__

    def cancelled(self) -> None:
        """The visitor stopped it."""
        self.outcome = "cancelled"


class Journal:
    """The events of one server. Safe to use from several threads."""

    def __init__(self) -> None:
        self._numbers: OrderedDict[str, int] = OrderedDict()
        self._last = 0
        self._lock = threading.Lock()

    def visitor(self, key: str) -> int:
        """The number of the visitor with ``key``: 1 for the first this process has seen, and so on."""
        with self._lock:
            if key not in self._numbers:
                self._last += 1
                self._numbers[key] = self._last
                if len(self._numbers) > _MOST_VISITORS:
                    self._numbers.popitem(last=False)
            self._numbers.move_to_end(key)
            return self._numbers[key]

    def say(self, event: str, key: str | None = None, **facts: float | str) -> None:
        """Write down that ``event`` happened, to the visitor with ``key``; fields as in :meth:`Happening.note`."""
        self._write(event, key, _checked(facts), "ok", "")

    @contextmanager
    def event(self, event: str, key: str | None = None, **facts: float | str) -> Iterator[Happening]:
        """As :meth:`say`, when the block ends, with how long it took and how it ended; errors pass through."""
        happening, start = Happening(_checked(facts)), time.perf_counter()
        try:
            yield happening
        except GeneratorExit:
            happening.cancelled()
            raise
        except BaseException as error:
            happening.failed(error)
            raise
        finally:
            happening.note(seconds=round(time.perf_counter() - start, 3))
            self._write(event, key, happening._facts, happening.outcome, happening.error)

    def _write(self, event: str, key: str | None, facts: Mapping[str, Any], outcome: str, error: str) -> None:
        if event not in EVENTS:
            raise TypeError(f"{event!r} is no event of the journal")
        fields: dict[str, Any] = {"event": event}
        if key is not None:
            fields["visitor"] = self.visitor(key)
        fields |= dict(facts)
        fields["outcome"] = outcome
        if error:
            fields["error"] = error
        level = logging.WARNING if outcome == "error" else logging.INFO
        _log.log(level, event, extra={"fields": fields})


def configure(level: str = "info", form: str = "text", *, stream: TextIO | None = None) -> None:
    """Send every log of the process to stderr (``stream``) as lines of ``form``; libraries' from warnings up only.

    Raises :class:`UserError` where there is no such level or form.
    """
    if level not in LEVELS:
        raise UserError(f"There is no log level {level!r}; choose from {', '.join(LEVELS)}.")
    if form not in FORMATS:
        raise UserError(f"There is no log format {form!r}; choose text or json.")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Lines(as_json=form == "json"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(_OURS).setLevel(level.upper())
    logging.captureWarnings(True)  # they quote what they warn of


@contextmanager
def printed() -> Iterator[None]:
    """While it lasts, what any library prints to stderr becomes a log line too, without its words.

    Gradio prints the errors of a request it cannot read with the request in them, the name of a visitor's file included.
    """
    before, sys.stderr = sys.stderr, _Printed()
    try:
        yield
    finally:
        sys.stderr = before


class _Printed(io.TextIOBase):
    """A stderr that keeps of each traceback its places and the error's class, and says once in a while that more was printed."""

    _PLACE, _ERROR = re.compile(r'  File "([^"]+)", line (\d+), in (\S+)'), re.compile(r"([A-Za-z_][\w.]*)(?::|$)")
    _SELDOM = 10.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rest, self._trace, self._inside, self._said = "", list[str](), False, -math.inf

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            self._rest = self._rest[-10_000:]
            for line in lines:
                self._line(line)
        return len(text)

    def _line(self, line: str) -> None:
        if line.startswith("Traceback (most recent call last)"):
            self._trace, self._inside = [], True
        elif self._inside and (place := self._PLACE.match(line)):
            self._trace.append(f"{Path(place[1]).name}:{place[2]} {place[3]}")
        elif self._inside and line[:1].strip() and (error := self._ERROR.match(line)):
            self._inside = False
            fields = {"logger": "stderr", "error": error[1].rpartition(".")[2], "trace": self._trace[-_MOST_PLACES:]}
            _log.error("printed", extra={"fields": fields})
        elif not self._inside and line.strip() and time.monotonic() - self._said > self._SELDOM:
            self._said = time.monotonic()
            _log.warning("printed", extra={"fields": {"logger": "stderr", "message": "something was printed"}})


class _Lines(logging.Formatter):
    """One line a record, without anything that a visitor brought."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        fields = {"time": at, "level": record.levelname.lower(), **_fields(record)}
        if self._as_json:
            return json.dumps(fields)
        return " ".join(str(v) if k in ("time", "level", "event") else f"{k}={_word(v)}" for k, v in fields.items())


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """An event's fields; of any other record who logged it and where, and our own message without what was filled in.

    What was being done when it failed (``extra={"doing": ...}``) is one of :data:`DOINGS`.
    """
    fields: dict[str, Any] | None = getattr(record, "fields", None)
    if fields is None:
        fields = {"logger": record.name, "at": f"{record.module}:{record.lineno}"}
        if record.name.split(".")[0] == _OURS and isinstance(record.msg, str):
            fields["message"] = record.msg
            if (doing := getattr(record, "doing", None)) is not None:
                fields["doing"] = doing if doing in DOINGS else "other"
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        fields = {**fields, "error": type(error).__name__, "trace": _places(error)}
    return fields


def _places(error: BaseException) -> list[str]:
    """Where ``error`` came from, the innermost last: file name, line and function, never the text."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[-_MOST_PLACES:]]


def _checked(facts: Mapping[str, float | str]) -> dict[str, float | str]:
    checked: dict[str, float | str] = {}
    for name, value in facts.items():
        if name in _NUMBERS and isinstance(value, (int, float)):
            checked[name] = value
        elif name in _WORDS:
            checked[name] = value if value in _WORDS[name] else "other"
        else:
            raise TypeError(f"{name} is no field of the journal, or not a number")
    return checked


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return json.dumps(text) if " " in text else text
