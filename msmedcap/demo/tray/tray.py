"""A visitor's tray: every scan of the session, the view each was left in, and all captions written of them.

Comes in: scans found in uploads. Goes out: numbered entries ("scan-01") with a thumbnail, a state and their captions, and a walk
over those still without. Scans are de-identified before they get here; no file name, no path and no tag of a patient is known.
Scans that are not on show are held as small as they can be without loss. No gradio here.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from msmedcap.config import UserError
from msmedcap.data.scans import Found, Scan, ScanError, Window
from msmedcap.demo.reading import Reading, sentence, write_captions
from msmedcap.demo.structures.segments import Kept
from msmedcap.demo.viewer.encoding import THUMB_SIDE, picture_uri

if TYPE_CHECKING:
    from msmedcap.demo.cases.runs import Chosen
    from msmedcap.explain.maps import Map
    from msmedcap.predictor import Predictor

MOST_SCANS, MOST_BYTES = 64, 512 << 20
MOST_WRITTEN = 32  # views of one scan whose captions are kept
WAITING, CAPTIONED, FAILED = "waiting", "captioned", "failed"
KEPT_MAP_SIDE = 512
_MAP_KIND = "sam_norm"
_FRAMES_TRIED = 24
GONE = "This scan is no longer in the tray."


@dataclass(frozen=True)
class KeptMap:
    """A map as it is kept for export: ``png`` is 8-bit grey, the picture's shape at a smaller size; 0 and 255 are ``range``."""

    title: str
    range: tuple[float, float]
    png: bytes


@dataclass(frozen=True)
class Written:
    """Captions and what they were written for: the window by name and, where it has them, numbers; ``frame`` counts from 0."""

    reading: Reading
    window: str
    numbers: Window | None
    frame: int
    preset: str
    prompt: str | None = None
    warnings: tuple[str, ...] = ()
    map: KeptMap | None = field(default=None, repr=False)

    @property
    def key(self) -> tuple[str, int, str, str | None]:
        """The view and the decoding; captions of the same are the same."""
        return self.window, self.frame, self.preset, self.prompt


@dataclass(eq=False)
class Entry:
    """One scan of the tray, or a file that is none (``scan`` None, ``error`` a sentence). The view is the one it was left in."""

    id: str
    scan: Scan | None
    error: str = ""
    files: int = 1
    digest: str = ""
    nbytes: int = 0
    thumbnail: str = ""
    window: str | None = None
    frame: int = 0
    point: tuple[float, float] | None = None
    case: Chosen | None = None
    reading: Reading | None = None  # what stood beside the scan when it was left
    written: list[Written] = field(default_factory=list)
    structures: dict[int, Kept] = field(default_factory=dict)  # those that were kept, by frame

    @property
    def state(self) -> str:
        """:data:`WAITING`, :data:`CAPTIONED` or :data:`FAILED`."""
        if self.scan is None:
            return FAILED
        if not self.written:
            return WAITING
        return CAPTIONED if any(self.written[-1].reading.texts.values()) else FAILED

    @property
    def said(self) -> str:
        """Why it failed, where it did."""
        if self.error or not self.written:
            return self.error
        return " ".join(dict.fromkeys(self.written[-1].reading.failed.values()))

    def show_anew(self, window: str | None, frame: int) -> None:
        """The view to open it with is ``window`` and ``frame``, as of a scan just sent, without place, captions or case."""
        self.window, self.frame, self.point, self.case, self.reading = window, frame, None, None, None

    def note(self, written: Written) -> None:
        """Keep captions; those of the same view and decoding give way, and the oldest where there are too many."""
        others = [old for old in self.written if old.key != written.key]
        self.written = [*others[-(MOST_WRITTEN - 1) :], written]
        self.reading = written.reading


@dataclass(frozen=True)
class Walk:
    """How far captioning all of them is: ``done`` of ``total``; ``entry`` is the id of the one being read."""

    done: int
    total: int
    entry: str = ""


class Tray:
    """One visitor's scans in their order; safe to use from several threads."""

    def __init__(self, *, most_scans: int = MOST_SCANS, most_bytes: int = MOST_BYTES) -> None:
        self._most_scans, self._most_bytes = most_scans, most_bytes
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._made = 0
        self.current: str | None = None
        self._todo: list[str] = []
        self._total = self._walkers = 0
        self._how: tuple[str, str | None] = ("fast", None)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All of them, in the order they came."""
        with self._lock:
            return tuple(self._entries.values())

    @property
    def nbytes(self) -> int:
        """The memory that the scans take."""
        return sum(entry.nbytes for entry in self.entries)

    @property
    def room(self) -> int:
        """How many bytes of pixels may still be added."""
        return max(0, self._most_bytes - self.nbytes)

    @property
    def open(self) -> Entry | None:
        """The entry on show."""
        return self._entries.get(self.current) if self.current is not None else None

    def get(self, id: str) -> Entry:
        """The entry ``id``; raises :class:`UserError` where it is gone."""
        entry = self._entries.get(id)
        if entry is None:
            raise UserError(GONE)
        return entry

    def add(self, found: Sequence[Found]) -> list[Entry]:
        """Take what was found in uploads, in order; a scan that is in the tray already is not taken twice but given back.

        Raises :class:`UserError` where not all of it fits; nothing is taken then.
        """
        with self._lock:
            known = {entry.digest: entry for entry in self._entries.values() if entry.digest and entry.scan is not None}
            new = [item for item in found if item.scan is None or item.digest not in known]
            if len(self._entries) + len(new) > self._most_scans:
                raise UserError(
                    f"The tray holds {self._most_scans} scans at most; remove some before you add {_count(len(new))}."
                )
            if sum(item.scan.nbytes for item in new if item.scan is not None) > self.room:
                raise UserError(
                    f"The tray holds {self._most_bytes >> 20} MB at most; remove some scans, or send a part of these."
                )
            return [self._known(item, known) or self._new(item) for item in found]

    def remove(self, id: str) -> None:
        """Forget an entry, captions and all; nothing happens where there is none."""
        with self._lock:
            self._entries.pop(id, None)
            if id in self._todo:
                self._todo.remove(id)
                self._total -= 1
            if self.current == id:
                self.current = None

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._todo, self._total, self.current = [], 0, None

    def start(self, *, preset: str, prompt: str | None) -> None:
        """Put all scans that have no captions of their present view and this decoding into the walk's line."""
        with self._lock:
            self._how = (preset, prompt)
            self._todo = [entry.id for entry in self._entries.values() if self._waits(entry)]
            self._total = len(self._todo)

    def walker(self) -> int:
        """The right to walk on; whoever had it before stops at the next word (a page loaded again walks in its place)."""
        with self._lock:
            self._walkers += 1
            return self._walkers

    def stop(self) -> None:
        """No further scan is begun, and what is being written is dropped at its next word."""
        with self._lock:
            self._todo, self._total = [], 0

    @property
    def walk(self) -> Walk | None:
        """How far it is; None where nothing is under way."""
        with self._lock:
            if not self._todo:
                return None
            return Walk(self._total - len(self._todo), self._total, self._todo[0])

    def caption_next(self, models: Predictor, walker: int) -> Iterator[Walk]:
        """Caption one scan of the walk, with the models alone to itself; yields as its words come, nothing where it is over.

        Captions are those that the scan would get by itself, for they are made in the same way. What fails is kept with the
        scan, and the next one's turn comes.
        """
        walk = self.walk
        if walk is None or walker != self._walkers:
            return
        entry = self._entries[walk.entry]
        preset, prompt = self._how
        try:
            predictor = models.fresh()
            assert entry.scan is not None
            predictor.set_scan(entry.scan, window=entry.window, frame=entry.frame)
            for reading in write_captions(predictor, preset=preset, prompt=prompt, wanted=self._wanted(entry.id, walker)):
                if reading.done:
                    entry.note(written(predictor, reading, preset=preset, prompt=prompt))
                yield walk
            entry.scan.packed()  # lets go of the frame just decoded
        except Exception as error:  # a frame that cannot be shown, say
            said = sentence(error, "reading the scan")
            lost = Reading("", failed=dict.fromkeys(models.systems, said), done=True)
            entry.note(Written(lost, entry.window or "", None, entry.frame, preset, prompt))
        with self._lock:
            if self._wanted(entry.id, walker)():
                del self._todo[0]

    def _wanted(self, id: str, walker: int) -> Callable[[], bool]:
        return lambda: self._todo[:1] == [id] and walker == self._walkers

    def _waits(self, entry: Entry) -> bool:
        if entry.scan is None:
            return False
        window = window_name(entry.scan, entry.window, entry.frame)
        done = {old.key for old in entry.written if any(old.reading.texts.values())}
        return (window, entry.frame, *self._how) not in done

    def _known(self, item: Found, known: dict[str, Entry]) -> Entry | None:
        return known.get(item.digest) if item.scan is not None else None

    def _new(self, item: Found) -> Entry:
        self._made += 1
        entry = Entry(f"scan-{self._made:02d}", item.scan, item.error, item.files, item.digest)
        if item.scan is not None:
            try:
                entry.frame, entry.thumbnail = _first_view(item.scan, stack=item.files > 1)
                entry.scan = item.scan.packed()
                entry.nbytes = entry.scan.nbytes
            except ScanError as error:
                entry.scan, entry.error = None, str(error)
        self._entries[entry.id] = entry
        return entry


def written(predictor: Predictor, reading: Reading, *, preset: str, prompt: str | None, maps: Sequence[Map] = ()) -> Written:
    """``reading`` with what it was written for; ``maps`` are those of the same view, made where there are none."""
    scan = predictor.scan
    assert scan is not None
    _, numbers = scan.resolve_window(predictor.window, predictor.frame)
    if not maps and any(reading.texts.values()):
        try:
            maps = predictor.maps(system=predictor.systems[0])  # cheap: the encoders have run for the captions
        except Exception as error:  # captions without a map are still captions
            sentence(error, "drawing the maps")
    kept = next((_kept(item) for item in maps if item.kind == _MAP_KIND), None)
    window = window_name(scan, predictor.window, predictor.frame)
    shown = numbers if window else None
    return Written(reading, window, shown, predictor.frame, preset, prompt, tuple(predictor.warnings), kept)


def window_name(scan: Scan, window: str | None, frame: int) -> str:
    """The window in use as captions remember it; empty for colours, which have none."""
    return "" if scan.colour else scan.resolve_window(window, frame)[0]


def facts_of(scan: Scan) -> dict[str, Any]:
    """What may be said of a scan outside of the session: the kind of file, allow-listed tags, size and spacing."""
    return {
        "kind": scan.kind,
        "facts": dict(scan.facts),
        "height": scan.height,
        "width": scan.width,
        "frames": scan.frames,
        "spacing_mm": list(scan.spacing) if scan.spacing else None,
        "between_slices_mm": scan.between,
    }


def title(entry: Entry) -> str:
    """A scan in a few words for its place in the list: what it is and how many slices it has."""
    if entry.scan is None:
        return "could not be opened"
    facts = entry.scan.facts
    words = [facts.get("Modality", ""), facts.get("BodyPartExamined", "").lower()]
    if entry.scan.frames > 1:
        words.append(f"{entry.scan.frames} {'slices' if entry.files > 1 else 'frames'}")
    return " ".join(filter(None, words)) or entry.scan.kind


def _first_view(scan: Scan, *, stack: bool) -> tuple[int, str]:
    """The frame a scan is first shown at and its thumbnail: of a series the middle slice, or the nearest one that shows something.

    Raises :class:`ScanError` where no frame near it does.
    """
    middle = scan.frames // 2 if stack else 0
    near = sorted(range(scan.frames), key=lambda frame: (abs(frame - middle), -frame))[:_FRAMES_TRIED]
    for frame in near:
        try:
            return frame, picture_uri(scan.picture(frame=frame), THUMB_SIDE)
        except ScanError as error:
            last = error
    raise last


def _kept(item: Map) -> KeptMap:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(item.image(KEPT_MAP_SIDE))).save(file, "PNG")
    return KeptMap(item.title, (float(item.range[0]), float(item.range[1])), file.getvalue())


def _count(count: int) -> str:
    return "another" if count == 1 else f"{count} more"
