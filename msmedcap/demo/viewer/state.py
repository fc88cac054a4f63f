"""What the picture area shows, as the one JSON-able dict it is sent as a text. Comes in: a scan, its picture, and what lies on it.

Pictures and values are large and change rarely; points and outlines are small and change with every click. :class:`Sent`
remembers for one visitor what the browser already has, so that a redraw carries pictures only where they changed. The browser
keeps the last of each kind by its key and asks (event ``missing``) where one never arrived. No gradio here.
"""

from __future__ import annotations

import functools
import itertools
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from msmedcap.demo.viewer.encoding import MAP_SIDE, SCAN_SIDE, packed_grid, picture_uri, values_grid

if TYPE_CHECKING:
    from msmedcap.data.scans import Scan, Window
    from msmedcap.explain.maps import Map

Point = tuple[float, float, int]  # x, y in the picture's pixels, and 1 on the structure or 0 beside it
Box = tuple[float, float, float, float]
State = dict[str, Any]
# Projections: what is measured on them is the shadow on the detector, larger than the body part.
_PROJECTIONS = {"CR", "DX", "DR", "RG", "RF", "XA", "MG", "PX", "IO"}
_ENOUGH = 1 << 16  # pixels that tell how values become greys
_TURNS = itertools.count()
_TOLERANCE = 4  # greys by which the two linear curves of the standard differ in a narrow window


class Sent:
    """What one visitor's browser was sent of the open scan. Keep one a session; forgets the scan before by itself."""

    def __init__(self) -> None:
        self._scan: Scan | None = None
        self._map: Map | None = None
        self.key, self.map_key = "", ""
        self.linear = False  # whether linear windowing in the browser gives the very picture
        self._inverted: bool | None = None
        self._held: dict[str, str] = {}
        self._sample = np.zeros(0, np.float32)
        self._sampled: tuple[str, int] = ("", 0)
        self._looked: tuple[str, str, int] = ("", "", 0)

    def forget(self) -> None:
        """The browser says it lacks something: the next state carries everything of the same scan again."""
        self._held.clear()

    def use(self, scan: Scan) -> None:
        """The scan that follows; another one than before gets a key of its own, which makes the browser start afresh."""
        if scan is not self._scan:
            self.forget()
            self._scan, self.key = scan, uuid.uuid4().hex[:12]
            self._inverted = None

    def use_map(self, item: Map | None) -> None:
        """The map that follows."""
        if item is not self._map:
            self._map, self.map_key = item, uuid.uuid4().hex[:12] if item is not None else ""

    def first(self, kind: str, key: str) -> bool:
        """Whether ``key`` is not the last of its ``kind`` that was sent; it is from now on."""
        before, self._held[kind] = self._held.get(kind), key
        return before != key

    def look(self, picture: np.ndarray, window: str, frame: int, values: Callable[[], np.ndarray]) -> None:
        """Find out, once a view, how the scan's values became its picture: :attr:`inverted` and :attr:`linear`.

        Seen on the pixels themselves, so it holds whichever tag or table of a file says it.
        """
        scan = self._scan
        if scan is None or scan.colour or self._looked == (self.key, window, frame):
            return
        step = 1 + picture[..., 0].size // _ENOUGH
        if self._sampled != (self.key, frame):
            self._sampled, self._sample = (self.key, frame), values().ravel()[::step].copy()
        if self._inverted is None:
            widest = max(scan.windows, key=lambda name: scan.windows[name].width)  # never one flat grey
            shades = picture if picture.min() < picture.max() else scan.picture(widest, frame)
            self._inverted = _covariance(self._sample, shades[..., 0].ravel()[::step]) < 0
        used = scan.resolve_window(window, frame)[1]
        self.linear = used is not None and _is_ramp(self._sample, picture[..., 0].ravel()[::step], used, self.inverted)
        self._looked = (self.key, window, frame)

    @property
    def inverted(self) -> bool:
        """Whether low values are shown white."""
        return bool(self._inverted)


def viewer_state(
    scan: Scan,
    picture: np.ndarray,
    *,
    window: str,
    frame: int = 0,
    sent: Sent | None = None,
    shown: Map | None = None,
    points: Sequence[Point] = (),
    box: Box | None = None,
    outlines: Sequence[Mapping[str, Any]] = (),
    place: tuple[float, float] | None = None,
    tool: str | None = None,
    full: bool = False,
    title: str = "",
) -> State:
    """What the picture area is to show, for :func:`viewer_message`.

    ``picture [H,W,3] uint8`` is what the models see of ``scan``, with ``window``, at ``frame``. ``shown`` is the map over it;
    ``points``, ``box``, ``place`` and the ``polygons`` of ``outlines`` (dicts of name, colour, dash, polygons) are in the
    picture's pixels. ``full`` adds every pixel of a picture that is otherwise shrunk to 1280 (the answer to the event
    ``full``). ``tool`` switches the visitor's tool; ``title`` joins the description for screen readers. Without ``sent``
    everything is encoded and sent anew.
    """
    memory = sent or Sent()
    memory.use(scan)
    memory.use_map(shown)
    height, width = picture.shape[:2]
    view = f"{memory.key}:{window}:{frame}"
    state: State = {
        "scan": memory.key,
        "view": view,
        "width": width,
        "height": height,
        "spacing": [float(mm) for mm in scan.spacing] if scan.spacing else None,
        "spacing_note": "at the detector" if scan.spacing and scan.facts.get("Modality") in _PROJECTIONS else "",
        "alt": _alt(scan, window, frame, title),
        "frame": frame,
        "frames": scan.frames,
        "window": _window(scan, window, frame),
        "map": _map(shown, memory),
        "points": [[float(x), float(y), int(label)] for x, y, label in points],
        "box": None if box is None else [float(end) for end in box],
        "outlines": [_outline(item) for item in outlines],
        "place": None if place is None else [float(place[0]), float(place[1])],
        "tool": tool,
    }
    return {**state, **_pixels(scan, picture, window, frame, view, memory, full)}


def viewer_message(state: State) -> str:
    """``state`` as the picture area's value.

    One text, not a tree: gradio's page watches every branch of a value and copies it leaf by leaf at each event, which with the
    places of a few outlines costs the browser more than all else that a click does. No two are the same, so that the area hears
    of a redraw that changes nothing, too (a prompt that was refused goes back to what it was).
    """
    return json.dumps({**state, "turn": next(_TURNS)}, separators=(",", ":"))


def _pixels(scan: Scan, picture: np.ndarray, window: str, frame: int, view: str, memory: Sent, full: bool) -> State:
    """What is large: the picture, the values under it, and all of its pixels where the browser asked for them."""
    values = functools.cache(lambda: scan.values(frame))  # decoding is slow: at most once
    memory.look(picture, window, frame, values)
    linear = memory.linear and not scan.colour
    grid = f"{memory.key}:{frame}"
    state: State = {"values_key": None if scan.colour else grid, "full_key": grid if linear else view}
    if memory.first("picture", view):
        state["picture"] = picture_uri(picture, SCAN_SIDE)
    if not scan.colour and memory.first("values", grid):
        state["values"] = {**values_grid(values(), SCAN_SIDE), "unit": _unit(scan), "invert": memory.inverted}
    side = max(picture.shape[:2])
    if full and side > SCAN_SIDE:
        state["full"] = values_grid(values(), side) if linear else {"uri": picture_uri(picture, side)}
    return state


def _window(scan: Scan, window: str, frame: int) -> State | None:
    """The window in use and the presets: ``{name, w, l, table}``; with ``table`` the numbers are only where a drag begins."""
    if scan.colour:
        return None
    return {**_numbers(scan, window, frame), "presets": [_numbers(scan, preset, frame) for preset in scan.windows]}


def _numbers(scan: Scan, window: str, frame: int) -> State:
    name, used = scan.resolve_window(window, frame)
    near = used or scan.windows.get(name) or scan.windows[scan.default_window]
    return {"name": name, "w": float(near.width), "l": float(near.level), "table": used is None}


def _map(shown: Map | None, memory: Sent) -> State | None:
    if shown is None:
        memory.first("map", "")
        return None
    state: State = {
        "key": memory.map_key,
        "title": shown.title,
        "range": [float(end) for end in shown.range],
        "grey": not shown.colour,
        "fades": shown.fades,
        "peak": shown.peak if shown.kind == "word" else None,
    }
    if memory.first("map", memory.map_key):
        image = shown.image(MAP_SIDE)
        if shown.colour:
            state["uri"] = picture_uri(image, MAP_SIDE)
        else:
            state["grid"] = packed_grid(image)
    return state


def _outline(item: Mapping[str, Any]) -> State:
    polygons = [np.asarray(polygon, np.float64).round(2).tolist() for polygon in item["polygons"]]
    colour, dash = str(item.get("colour", "#56B4E9")), bool(item.get("dash", False))
    return {"name": str(item.get("name", "")), "colour": colour, "dash": dash, "polygons": polygons}


def _alt(scan: Scan, window: str, frame: int, title: str) -> str:
    facts = [scan.facts[name] for name in ("Modality", "BodyPartExamined", "ViewPosition") if scan.facts.get(name)]
    words = [title, " ".join(facts) or scan.kind, f"{scan.width} by {scan.height} pixels"]
    if not scan.colour:
        words.append(f"{window} window")
    if scan.frames > 1:
        words.append(f"frame {frame + 1} of {scan.frames}")
    return ", ".join(word for word in words if word)


def _unit(scan: Scan) -> str:
    return "HU" if scan.facts.get("Modality") == "CT" and "soft tissue" in scan.windows else ""


def _covariance(values: np.ndarray, grey: np.ndarray) -> float:
    shades = grey.astype(np.float32)
    return float(((values - values.mean()) * (shades - shades.mean())).mean())


def _is_ramp(values: np.ndarray, grey: np.ndarray, window: Window, inverted: bool) -> bool:
    """Whether ``grey`` is a plain ramp of ``values``, not a lookup table or a curve."""
    share = ((values - window.level) / window.width + 0.5).clip(0, 1) * 255
    expected = 255 - share if inverted else share
    return bool(np.abs(expected - grey).max() <= _TOLERANCE)
