"""What the server remembers of each visitor, and nothing else: an open scan, its maps, its captions.

Comes in: a visitor's key and the bytes of a scan. Goes out: a :class:`Session` whose predictor is the visitor's own (the
models behind it are shared). Every view of a scan (window, frame) gets a fresh predictor: a caption that is still being
written for the view before notices that it was replaced and stops, so an old caption never appears beside a new picture.
Sessions end when the page is closed, after half an hour without use, or when too many are open. No gradio here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from msmedcap.config import UserError
from msmedcap.data.scans import Scan, ScanError

if TYPE_CHECKING:
    from msmedcap.demo.runs import Chosen
    from msmedcap.explain.maps import Map
    from msmedcap.predictor import Predictor

log = logging.getLogger(__name__)

IDLE_SECONDS = 1800.0
MOST_SESSIONS = 48
Point = tuple[float, float]
_FIRST_MAP = ("sam_norm", None, None)


def sentence(error: Exception, doing: str) -> str:
    """What a visitor reads of ``error``: our own sentences as they are, anything else hidden, logged and named by ``doing``."""
    if isinstance(error, (ScanError, UserError)):
        return str(error)
    log.error("failed while %s", doing, exc_info=error)
    return f"Something went wrong while {doing}. Please try again; if it happens again, try another file."


@dataclass(frozen=True)
class Reading:
    """The captions as far as they are written: ``texts`` by system, for the ``view`` they describe.

    ``failed`` says, by system, why there is no caption. ``seconds`` is empty until ``done``.
    """

    view: str
    texts: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    done: bool = False


class Session:
    """One visitor's scan and what was made of it.

    ``models`` is never used itself: each view gets ``models.fresh()``. ``point`` is (x, y) in the picture's pixels.
    """

    def __init__(self, models: Predictor, *, allow_burned_in: bool = False) -> None:
        self._models = models
        self._allow_burned_in = allow_burned_in
        self.predictor: Predictor | None = None
        self.maps: list[Map] = []
        self.point: Point | None = None
        self.reading: Reading | None = None
        self.case: Chosen | None = None  # the case of a run that the scan is the picture of
        self.waiting = False  # whether the open view still waits for its maps and captions
        self._chosen: tuple[str, str | None, int | None] = _FIRST_MAP

    @property
    def scan(self) -> Scan | None:
        """The open scan, or None."""
        return None if self.predictor is None else self.predictor.scan

    @property
    def view(self) -> str:
        """The window and frame in use in a reader's words; empty without a scan."""
        if self.predictor is None or self.predictor.scan is None:
            return ""
        words = [] if self.predictor.scan.colour else [window_words(self.predictor.window)]
        if self.predictor.scan.frames > 1:
            words.append(f"frame {self.predictor.frame + 1} of {self.predictor.scan.frames}")
        return ", ".join(words) or "as stored"

    def open(self, source: bytes | Scan, *, window: str | None = None, frame: int = 0) -> None:
        """Show a new scan, or another view of the one that is open (pass ``session.scan``); forgets the maps before.

        Raises ``ScanError`` where ``source`` is no scan we can show; what was open before stays as it was.
        """
        predictor = self._models.fresh()
        predictor.set_scan(source, window=window, frame=frame, allow_burned_in=self._allow_burned_in)
        if isinstance(source, bytes):
            self.close()
        self.maps, self.point, self.predictor = [], None, predictor
        if self.reading is not None and not self.reading.done:
            self.reading = None  # half a caption of the view before

    def close(self) -> None:
        """Forget the scan, its maps and captions, and the case it belongs to."""
        self.predictor, self.maps, self.point, self.reading, self._chosen = None, [], None, None, _FIRST_MAP
        self.case = None

    def draw(self, system: str, point: Point | None) -> None:
        """Make the maps of the open view for ``system``; ``point`` adds the similarity to that place and shows it."""
        predictor = self.predictor
        if predictor is None:
            return
        maps = predictor.maps(system=system, point=point)
        if predictor is not self.predictor:
            return
        if point is not None and point != self.point:
            self._chosen = ("sam_similarity", None, None)
        self.maps, self.point = maps, point

    def choose(self, index: int) -> None:
        """Show the map at ``index`` of :attr:`maps`; an index out of range is ignored (a late click on an older list)."""
        if 0 <= index < len(self.maps):
            self._chosen = _name(self.maps[index])

    @property
    def shown(self) -> int:
        """Index of the map on show: the one last chosen if it exists among :attr:`maps`, else one of its kind, else 0."""
        names = [_name(m) for m in self.maps]
        for same in (lambda n: n == self._chosen, lambda n: n[0] == self._chosen[0]):
            for index, name in enumerate(names):
                if same(name):
                    return index
        return 0

    def captions(self, *, preset: str = "fast", prompt: str | None = None) -> Iterator[Reading]:
        """The captions of the open view as they grow; stops early, without a word, when the view is replaced."""
        predictor, view = self.predictor, self.view
        if predictor is None:
            return
        reading = Reading(view)
        try:
            for texts in predictor.stream(preset=preset, prompt=prompt):
                if predictor is not self.predictor:
                    return
                reading = self.reading = replace(reading, texts=dict(texts))
                yield reading
            failed = {
                s: "This system wrote no caption for this view." for s in predictor.systems if not reading.texts.get(s)
            }
        except Exception as error:  # the page lives on whatever a model does; sentence() logs what is not ours
            said = sentence(error, "writing the captions")
            failed = dict.fromkeys(predictor.systems, said)
        if predictor is self.predictor:
            self.reading = replace(reading, failed=failed, seconds=dict(predictor.seconds), done=True)
            yield self.reading


def window_words(window: str) -> str:
    """A window in words: a preset's name as it is, ``"W,L"`` as width and level."""
    if window == "file":
        return "the file's own window"
    width, comma, level = window.partition(",")
    return f"width {width.strip()}, level {level.strip()}" if comma else f"{window} window"


def _name(item: Map) -> tuple[str, str | None, int | None]:
    # Plain SAM maps are found again by kind alone, whichever branch name they carry.
    return (item.kind, None, None) if item.kind.startswith("sam_") else (item.kind, item.branch, item.layer)


class Store:
    """The visitors' sessions by key, at most ``most``, each forgotten after ``idle`` seconds without use."""

    def __init__(
        self, models: Predictor, *, allow_burned_in: bool = False, idle: float = IDLE_SECONDS, most: int = MOST_SESSIONS
    ) -> None:
        self._models, self._allow_burned_in, self._idle, self._most = models, allow_burned_in, idle, most
        self._sessions: OrderedDict[str, tuple[Session, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._watcher: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, key: str) -> Session:
        """The session of ``key``, made where there is none; the longest unused one gives way when there are too many."""
        with self._lock:
            session, _ = self._sessions.pop(key, (None, 0.0))
            if session is None:
                session = Session(self._models, allow_burned_in=self._allow_burned_in)
            self._sessions[key] = (session, time.monotonic())
            while len(self._sessions) > self._most:
                self._sessions.popitem(last=False)[1][0].close()
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="sessions", daemon=True)
                self._watcher.start()
        return session

    def drop(self, key: str) -> None:
        """Forget the session of ``key``; nothing happens where there is none."""
        with self._lock:
            session, _ = self._sessions.pop(key, (None, 0.0))
        if session is not None:
            session.close()

    def sweep(self) -> None:
        """Forget every session that was not used for ``idle`` seconds."""
        oldest = time.monotonic() - self._idle
        with self._lock:
            for key in [k for k, (_, used) in self._sessions.items() if used < oldest]:
                self._sessions.pop(key)[0].close()

    def _watch(self) -> None:
        # A scan must not wait in memory for the next visitor to push it out: look even when nobody comes.
        while True:
            time.sleep(self._idle / 4)
            self.sweep()
            with self._lock:
                if not self._sessions:
                    self._watcher = None
                    return
