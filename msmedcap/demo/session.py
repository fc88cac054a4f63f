"""What the server remembers of a visitor, and nothing else: a tray of scans, the open one's maps, the captions.

Comes in: a visitor's key and the bytes of a scan. Goes out: a :class:`Session` whose predictor is the visitor's own (the
models behind it are shared). Every view of a scan (window, frame) gets a fresh predictor: a caption that is still being
written for the view before notices that it was replaced and stops, so an old caption never appears beside a new picture.
Sessions end some minutes after their page was closed (it may only be loaded again), after half an hour without use, or when too
many are open or hold too much. No gradio here.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from msmedcap.config import UserError
from msmedcap.data.scans import Found, Scan, ScanError, open_scan
from msmedcap.demo.reading import Reading, sentence, view_of, window_words, write_captions
from msmedcap.demo.serving.visitors import GRACE_SECONDS, Visitors
from msmedcap.demo.structures.segments import Segments
from msmedcap.demo.tray.tray import Entry, Tray, Walk, written
from msmedcap.demo.viewer.state import Sent
from msmedcap.demo.words.chosen import Words

if TYPE_CHECKING:
    from msmedcap.demo.cases.runs import Chosen
    from msmedcap.explain.maps import Map
    from msmedcap.predictor import Predictor

__all__ = ["IDLE_SECONDS", "Point", "Reading", "Session", "Store", "sentence", "window_words"]

IDLE_SECONDS = 1800.0
MOST_SESSIONS = 48
MOST_BYTES = 4 << 30  # the pixels of all sessions together
_EMPTY = 8  # times as many pages may be open, most without scans
Point = tuple[float, float]
_FIRST_MAP = ("sam_norm", None, None)


class Session:
    """One visitor's scans and what was made of them: those in the tray, of which one is open.

    ``models`` is never used itself: each view gets ``models.fresh()``. ``point`` is (x, y) in the picture's pixels.
    """

    def __init__(self, models: Predictor, *, allow_burned_in: bool = False) -> None:
        self._models = models
        self.allow_burned_in = allow_burned_in
        self.tray = Tray()
        self.predictor: Predictor | None = None
        self.maps: list[Map] = []
        self.point: Point | None = None
        self.reading: Reading | None = None
        self.case: Chosen | None = None  # the case of a run that the scan is the picture of
        self.waiting = False  # whether the open view still waits for its maps and captions
        self.mistakes = 0  # how often the visitor was told that what was asked for cannot be done
        self.asked = 0  # how often until the maps and captions of the open view were asked for
        self.segments = Segments()  # what the visitor prompted for on the open view, and the answers
        self.words = Words()  # what is known of the captions' words, and the one that was chosen
        self.sent = Sent()  # what the visitor's browser already has of the open scan
        self.overlay = False  # whether the chosen map is drawn over the scan; at first the scan is seen alone
        self._chosen: tuple[str, str | None, int | None] = _FIRST_MAP

    @property
    def scan(self) -> Scan | None:
        """The open scan, or None."""
        return None if self.predictor is None else self.predictor.scan

    @property
    def view(self) -> str:
        """The window and frame in use in a reader's words; empty without a scan."""
        return view_of(self.predictor)

    def open(self, source: bytes | Scan, *, window: str | None = None, frame: int = 0) -> None:
        """Show a new scan, which joins the tray, or another view of the one that is open (pass ``session.scan``).

        Forgets the maps before. Raises ``ScanError`` where ``source`` is no scan we can show and ``UserError`` where the tray is
        full; what was open before stays as it was.
        """
        if isinstance(source, bytes):
            scan = open_scan(source, allow_burned_in=self.allow_burned_in)
            scan.picture(window, frame)
            (entry,) = self.tray.add([Found(scan, digest=hashlib.sha256(source).hexdigest())])
            self.keep_view()
            entry.show_anew(window, frame)
            self._turn_to(entry)
            return
        self._keep_structures()
        self._show(source, window, frame)
        if self.reading is not None and not self.reading.done:
            self.reading = None  # half a caption of the view before

    def turn_to(self, id: str) -> None:
        """Show the tray's entry ``id`` as it was left: its view, its place, its captions; what was on show is kept likewise.

        Raises ``UserError`` where the entry is gone and ``ScanError`` where it cannot be shown; what was open stays as it was.
        """
        entry = self.tray.get(id)
        self.keep_view()
        self._turn_to(entry)

    def remove(self, id: str) -> None:
        """Take an entry out of the tray; if it is the one on show, nothing is open then."""
        if self.tray.current == id:
            self._close_view()
        self.tray.remove(id)

    def keep_view(self) -> None:
        """Remember in the tray how the open scan is looked at."""
        entry, predictor = self.tray.open, self.predictor
        if entry is None or predictor is None:
            return
        entry.window, entry.frame, entry.point, entry.case = predictor.window, predictor.frame, self.point, self.case
        self._keep_structures()
        if self.reading is None or self.reading.done:
            entry.reading = self.reading

    def _keep_structures(self) -> None:
        entry, predictor = self.tray.open, self.predictor
        if entry is not None and predictor is not None:
            entry.structures[predictor.frame] = self.segments.kept

    def caption_next(self, walker: int) -> Iterator[Walk]:
        """The tray's :meth:`~msmedcap.demo.tray.tray.Tray.caption_next`; the scan on show gets its new captions, too."""
        walk = self.tray.walk
        yield from self.tray.caption_next(self._models, walker)
        entry = self.tray.open
        if walk is not None and entry is not None and entry.id == walk.entry and entry.reading is not None:
            self.reading = entry.reading

    def close(self) -> None:
        """Forget every scan, its maps and captions, and the case it belongs to."""
        self._close_view()
        self.tray.clear()

    def _close_view(self) -> None:
        self.predictor, self.maps, self.point, self.reading, self._chosen = None, [], None, None, _FIRST_MAP
        self.overlay = False
        self.case, self.segments, self.words, self.waiting = None, Segments(), Words(), False
        self.tray.current = None

    def _turn_to(self, entry: Entry) -> None:
        if entry.scan is None:
            raise ScanError(entry.error)
        before = self.tray.open
        self._show(entry.scan, entry.window, entry.frame, entry)
        if before is not None and before.scan is not None and before is not entry:
            before.scan.packed()  # lets go of the frame that was on show
        self.tray.current, self._chosen, self.overlay = entry.id, _FIRST_MAP, False
        self.point, self.reading, self.case = entry.point, entry.reading, entry.case

    def _show(self, scan: Scan, window: str | None, frame: int, entry: Entry | None = None) -> None:
        """``entry`` is the scan's in the tray, where it is not the one on show."""
        entry = entry or self.tray.open
        predictor = self._models.fresh()
        predictor.set_scan(scan, window=window, frame=frame, allow_burned_in=self.allow_burned_in)
        self.maps, self.point, self.predictor = [], None, predictor
        kept = entry.structures.get(predictor.frame, ()) if entry is not None else ()
        self.segments, self.words = Segments(predictor, kept), Words()

    def draw(self, system: str) -> None:
        """Make the maps of the open view for ``system``, with the likeness to :attr:`point` where there is one.

        What segmenting needs is made ready as well, so that the first click waits for nothing.
        """
        predictor = self.predictor
        if predictor is None:
            return
        maps = predictor.maps(system=system, point=self.point)
        if predictor is self.predictor:
            self.maps = maps
        if predictor.segmenter_absent is None:
            with contextlib.suppress(UserError):  # said to whoever asks for a mask; maps are not to wait for it
                predictor.prepare_segmenting()

    def compare(self, point: Point) -> None:
        """The next maps show where SAM's features are like those at ``point``."""
        self.point, self._chosen, self.overlay = point, ("sam_similarity", None, None), True

    def forget_reading(self) -> None:
        """Half a caption that the visitor stopped is none."""
        if self.reading is not None and not self.reading.done:
            self.reading = None

    def choose(self, index: int) -> None:
        """Show the map at ``index`` of :attr:`maps` over the scan, with -1 the scan alone.

        Another index out of range is ignored (a late click on an older list).
        """
        if index == -1:
            self.overlay = False
        if 0 <= index < len(self.maps):
            self._chosen, self.overlay = _name(self.maps[index]), True

    @property
    def shown(self) -> int:
        """Index of the map on show: the one last chosen if it exists among :attr:`maps`, else one of its kind, else 0."""
        names = [_name(m) for m in self.maps]
        for same in (lambda n: n == self._chosen, lambda n: n[0] == self._chosen[0]):
            for index, name in enumerate(names):
                if same(name):
                    return index
        return 0

    def captions(self, *, preset: str = "fast", prompt: str | None = None) -> Generator[Reading, None, None]:
        """The captions of the open view as they grow; stops early, without a word, when the view is replaced."""
        predictor, entry = self.predictor, self.tray.open
        if predictor is None:
            return
        self.words = Words()
        for reading in write_captions(predictor, preset=preset, prompt=prompt, wanted=lambda: predictor is self.predictor):
            if reading.done and reading.written and entry is not None:
                entry.note(written(predictor, reading, preset=preset, prompt=prompt, maps=self.maps))
            self.reading = reading
            yield reading


def _name(item: Map) -> tuple[str, str | None, int | None]:
    # Plain SAM maps are found again by kind alone, whichever branch name they carry.
    return (item.kind, None, None) if item.kind.startswith("sam_") else (item.kind, item.branch, item.layer)


class Store:
    """The visitors' sessions: at most ``most`` with scans, which hold ``most_bytes`` of pixels together.

    Each is forgotten after ``idle`` seconds without use, or ``grace`` seconds after its last page was closed.
    """

    def __init__(
        self,
        models: Predictor,
        *,
        allow_burned_in: bool = False,
        idle: float = IDLE_SECONDS,
        grace: float = GRACE_SECONDS,
        most: int = MOST_SESSIONS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._models, self._allow_burned_in = models, allow_burned_in
        self._idle, self._look, self._most, self._most_bytes = idle, min(idle, grace) / 4, most, most_bytes
        self._visitors = Visitors(grace=grace)
        self._sessions: OrderedDict[int, tuple[Session, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._watcher: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, key: str) -> Session:
        """The session of the page ``key``, made where there is none.

        When there are too many with scans, or they hold too much, those whose page is closed give way, then the longest unused.
        """
        with self._lock:
            return self._use(self._visitors.of(key))

    def arrive(self, key: str, token: object, *, login: str = "") -> tuple[Session, str]:
        """A page was loaded with the ``token`` of an earlier one, or none: its session, and the token to keep from now on.

        A token that is not known, or was given to another ``login`` (the visitor's name on a closed page), opens nothing: the page
        gets a session and a token of its own. A page that already holds scans keeps them.
        """
        with self._lock:
            known = self._visitors.known(token, login=login)
            number = self._visitors.of(key)
            session = self._use(number)
            if known is not None and known in self._sessions and not len(session.tray):
                self._visitors.join(key, known)
                if known != number:
                    self._forget(number)
                return self._use(known), str(token)
            return session, self._visitors.token(number, login=login)

    def leave(self, key: str) -> None:
        """The page ``key`` is gone, for good or to be loaded again: its session waits for a while."""
        with self._lock:
            number = self._visitors.leave(key)
            if number in self._sessions and not len(self._sessions[number][0].tray):
                del self._sessions[number]  # nothing to come back to, but the page keeps its token

    def drop(self, key: str) -> None:
        """Forget the session of the page ``key`` at once; nothing happens where there is none."""
        with self._lock:
            number = self._visitors.at(key)
            if number is not None:
                self._forget(number)

    def sweep(self) -> None:
        """Forget every session that was not used for ``idle`` seconds or was left for good."""
        oldest = time.monotonic() - self._idle
        with self._lock:
            for number in {n for n, (_, used) in self._sessions.items() if used < oldest} | set(self._visitors.gone()):
                self._forget(number)

    def _use(self, number: int) -> Session:
        session, _ = self._sessions.pop(number, (None, 0.0))
        if session is None:
            session = Session(self._models, allow_burned_in=self._allow_burned_in)
        self._sessions[number] = (session, time.monotonic())
        self._make_room()
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="sessions", daemon=True)
            self._watcher.start()
        return session

    def _make_room(self) -> None:
        """Forget what is wanted least, but nothing of whoever asked last.

        A page without scans takes next to nothing: it may be about to send its first, and gives way to a crowd alone.
        """
        *others, _ = self._sessions
        full = sorted((n for n in others if len(self._sessions[n][0].tray)), key=self._wanted)
        while full and (len(full) >= self._most or self._nbytes() > self._most_bytes):
            self._forget(full.pop(0))
        empty = sorted((n for n in others if n in self._sessions and n not in full), key=self._wanted)
        for number in empty[: max(0, len(self._sessions) - _EMPTY * self._most)]:
            self._forget(number)

    def _wanted(self, number: int) -> tuple[bool, float]:
        """How much a session is still wanted: those whose page is closed least, then the longest unused."""
        _, used = self._sessions[number]
        left = self._visitors.left(number)
        return left is None, used if left is None else left

    def _forget(self, number: int) -> None:
        session, _ = self._sessions.pop(number, (None, 0.0))
        self._visitors.forget(number)
        if session is not None:
            session.close()

    def _nbytes(self) -> int:
        return sum(session.tray.nbytes for session, _ in self._sessions.values())

    def _watch(self) -> None:
        # A scan must not wait in memory for the next visitor to push it out: look even when nobody comes.
        while True:
            time.sleep(self._look)
            self.sweep()
            with self._lock:
                if not self._sessions and not len(self._visitors):
                    self._watcher = None
                    return
