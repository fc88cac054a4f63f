"""A visitor's segmentation of the open view: the prompt being made, the answer to it, and the structures kept so far.

Comes in: points and a box in the picture's pixels, a step at a time, for a predictor whose scan is set. Goes out: outlines to draw,
rows for the legend, sentences, and every mask in one ZIP. No gradio here. Masks of structures that were kept lie packed in memory,
one bit a pixel: a chest film has seven million of them, and a server has many visitors.
"""

from __future__ import annotations

import io
import re
import tempfile
import threading
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msmedcap.config import UserError
from msmedcap.data.classes import load_classes, plain
from msmedcap.data.outlines import screen_outlines
from msmedcap.data.prompts import Box, Point, prompt_on

if TYPE_CHECKING:
    from msmedcap.explain.maps import Map
    from msmedcap.predictor import Predictor
    from msmedcap.segmenting import HotSpot, Segmentation

# Okabe and Ito's colours without black, which a scan hides: told apart with any kind of colour vision.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2")
VIEW_SIDE = 1280  # pixels: outlines are drawn no finer than the picture area shows the scan
MOST_KEPT = 20
MOST_UNDO = 50
UNSURE = 0.5  # an estimated overlap below which a sentence says so
NO_SCAN = "There is no open scan; open one first."
BESIDE = "Only places beside the structure are marked; now mark one on it, or draw a box around it."
UNNAMED = "No name"


@dataclass(frozen=True)
class Row:
    """One structure in the legend; ``asked`` is the one that the prompt on show asks for.

    ``number`` is its place in the legend and in every file; ``key`` stays when others go.
    """

    key: int
    number: int
    colour: str
    name: str
    score: float | None
    iou: float
    area_px: int
    area_mm2: float | None
    semantic: bool
    asked: bool


@dataclass(frozen=True)
class _Step:
    """A prompt, and the answer that it refines (without its masks: refining takes its logits alone)."""

    points: tuple[Point, ...] = ()
    box: Box | None = None
    earlier: Segmentation | None = None


@dataclass(frozen=True)
class _Structure:
    """An answer with what is drawn of it. Where it was kept, its masks are packed and ``answer`` has none."""

    key: int
    colour: str
    answer: Segmentation
    outlines: Mapping[str, list[list[list[float]]]]
    packed: Mapping[str, np.ndarray] | None = None

    def pack(self) -> _Structure:
        masks = {"binary": self.answer.binary, "semantic": self.answer.semantic}
        packed = {name: np.packbits(mask) for name, mask in masks.items() if mask is not None}
        return replace(self, answer=_light(self.answer), packed=packed)

    def whole(self, shape: tuple[int, int]) -> Segmentation:
        """The answer with its masks ``[H,W]``."""
        if self.packed is None:
            return self.answer
        masks = {
            name: np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).astype(bool)
            for name, bits in self.packed.items()
        }
        return replace(self.answer, binary=masks["binary"], semantic=masks.get("semantic"))


Kept = tuple[_Structure, ...]
"""Structures that were kept on one frame of a scan; they are true in every window of it."""


class Segments:
    """Prompts and answers for the scan that is set in ``predictor`` (None: no scan is open, and every call says so).

    ``solid`` and ``dashed`` say which outlines are shown: of the binary and of the semantic masks. Whoever changes it from several
    threads holds ``lock``; ``prepared`` says whether :meth:`prepare` was called.
    """

    def __init__(self, predictor: Predictor | None = None, kept: Kept = ()) -> None:
        """``kept``: the :attr:`kept` of an earlier view of the same frame."""
        self._predictor = predictor
        self._steps: list[_Step] = [_Step()]
        self._asked: _Structure | None = None
        self._kept = list(kept)
        self._made = max((one.key + 1 for one in kept), default=0)
        self.solid = self.dashed = True
        self.lock, self.prepared = threading.Lock(), False

    @property
    def points(self) -> tuple[Point, ...]:
        """The prompt's points (x, y, label) (label 1 on the structure, 0 beside it) in the picture's pixels."""
        return self._steps[-1].points

    @property
    def box(self) -> Box | None:
        """The prompt's box (x0, y0, x1, y1), or None."""
        return self._steps[-1].box

    @property
    def kept(self) -> Kept:
        """What was kept, for a later view of the same frame."""
        return tuple(self._kept)

    @property
    def current(self) -> Segmentation | None:
        """The answer to the prompt, or None where there is no prompt yet."""
        return None if self._asked is None else self._asked.answer

    @property
    def note(self) -> str:
        """What to know of the areas: where their spacing was measured, or that there is none. Empty where nothing is."""
        return next((one.answer.area_note for one in self._all), "")

    def prepare(self) -> None:
        """Encode the scan, if nobody has; errors as the predictor's."""
        if self._predictor is not None:
            self._predictor.prepare_segmenting()
        self.prepared = True

    def ask(self, points: Sequence[Sequence[float]], box: Sequence[float] | None = None) -> None:
        """Make this the prompt, and answer it: where it adds points to the prompt before, by refining that one's answer.

        With places beside the structure alone there is no answer yet. Raises :class:`UserError`, and leaves everything as it was,
        where the prompt does not lie in the picture or cannot be answered.
        """
        if not points and box is None:
            self.clear()
            return
        answerable = box is not None or any(len(point) == 2 or point[2] for point in points)
        height, width = self._shape()
        # What lies beside a structure is checked as any prompt is; only an answer waits for a place on it.
        prompt = prompt_on(height, width, points, box if answerable else (0, 0, width, height))
        step = _Step(prompt.points, prompt.box if answerable else None)
        last = self._steps[-1]
        if (step.points, step.box) == (last.points, last.box):
            return
        if len(self._steps) > 1 and (step.points, step.box) == (self._steps[-2].points, self._steps[-2].box):
            self.undo()
            return
        more = len(step.points) > len(last.points) and step.points[: len(last.points)] == last.points
        if more and step.box == last.box and self._asked is not None:
            step = replace(step, earlier=_light(self._asked.answer))
        self._asked = self._answered(step)
        self._steps = [*self._steps[-MOST_UNDO:], step]

    def add(self, x: float, y: float, label: int = 1) -> None:
        """Add a point to the prompt; errors as in :meth:`ask`."""
        self.ask([*self._steps[-1].points, (x, y, label)], self._steps[-1].box)

    def remove(self, index: int) -> None:
        """Take the point at ``index`` out of the prompt; one that is gone already is ignored."""
        points = list(self._steps[-1].points)
        if 0 <= index < len(points):
            del points[index]
            self.ask(points, self._steps[-1].box)

    def set_box(self, box: Sequence[float] | None) -> None:
        """Set or (None) remove the prompt's box; errors as in :meth:`ask`."""
        self.ask(self._steps[-1].points, box)

    def undo(self) -> None:
        """Back to the prompt before; raises :class:`UserError` where there is none."""
        if len(self._steps) == 1:
            raise UserError("There is nothing to undo.")
        self._asked = self._answered(self._steps[-2])
        self._steps.pop()

    def clear(self) -> None:
        """Empty the prompt; structures that were kept stay. :meth:`undo` brings it back."""
        if self._steps[-1] != _Step():
            self._steps.append(_Step())
        self._asked = None

    def keep(self) -> None:
        """Keep the answer and begin with the next structure; raises :class:`UserError` without one, or where there are many."""
        if self._asked is None:
            raise UserError("There is no mask to keep yet; mark a place on a structure first.")
        if len(self._kept) >= MOST_KEPT:
            raise UserError(f"There are {MOST_KEPT} structures already; remove one of them first.")
        self._kept.append(self._asked.pack())
        self._steps, self._asked = [_Step()], None
        self._made += 1

    def drop(self, key: int) -> None:
        """Remove the structure of this :attr:`Row.key`, kept or asked for; one that is gone already is ignored."""
        if self._asked is not None and self._asked.key == key:
            self.clear()
        self._kept = [one for one in self._kept if one.key != key]

    def ask_hottest(self, found: Map) -> HotSpot:
        """Make the hottest place of a map the prompt; raises :class:`UserError` for a map in colours."""
        if self._predictor is None:
            raise UserError(NO_SCAN)
        spot = self._predictor.hot_spot(found)
        step = _Step(((*spot.point, 1),))
        self._asked = self._drawn(spot.structure)
        self._steps = [*self._steps[-MOST_UNDO:], step]
        return spot

    def rows(self) -> list[Row]:
        """The legend: what was kept in its order, then what is asked for."""
        return [
            Row(
                one.key, number, one.colour, one.answer.label or UNNAMED, one.answer.score, one.answer.iou, one.answer.area_px,
                one.answer.area_mm2, "semantic" in one.outlines, one is self._asked,
            )
            for number, one in enumerate(self._all, 1)
        ]  # fmt: skip

    def present(self) -> tuple[tuple[str, float], ...] | None:
        """Classes that the last answer says are elsewhere in the picture, with their chance, the likeliest first.

        None where the models were not measured on such scans.
        """
        return self._all[-1].answer.present if self._all else ()

    def outlines(self) -> list[dict[str, Any]]:
        """What is drawn: ``{"name", "colour", "dash", "polygons": [[[x, y], …], …]}`` in the picture's pixels.

        Semantic masks are dashed. Names begin with the legend's number.
        """
        wanted = [("binary", False)] * self.solid + [("semantic", True)] * self.dashed
        return [
            {"name": f"{number} {one.answer.label or UNNAMED}", "colour": one.colour, "dash": dash,
             "polygons": one.outlines[which]}
            for number, one in enumerate(self._all, 1) for which, dash in wanted if which in one.outlines
        ]  # fmt: skip

    def export(self, *, dicom_seg: bool = False) -> bytes:
        """A ZIP of every mask in the legend, as ``Predictor.write_masks`` writes them; raises :class:`UserError` for none."""
        shape = self._shape()
        assert self._predictor is not None
        with tempfile.TemporaryDirectory() as folder:
            self._predictor.write_masks([one.whole(shape) for one in self._all], Path(folder), dicom_seg=dicom_seg)
            data = io.BytesIO()
            with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as pack:
                for file in sorted(Path(folder).iterdir()):
                    # A bare entry: the time it was made would say when the patient was read.
                    pack.writestr(zipfile.ZipInfo(file.name), file.read_bytes(), zipfile.ZIP_DEFLATED)
        return data.getvalue()

    @property
    def _all(self) -> list[_Structure]:
        return self._kept if self._asked is None else [*self._kept, self._asked]

    def _shape(self) -> tuple[int, int]:
        if self._predictor is None or self._predictor.picture is None:
            raise UserError(NO_SCAN)
        height, width = self._predictor.picture.shape[:2]
        return height, width

    def _answered(self, step: _Step) -> _Structure | None:
        if self._predictor is None:
            raise UserError(NO_SCAN)
        if step.box is None and not any(label for _, _, label in step.points):
            return None
        return self._drawn(self._predictor.segment(step.points, step.box, earlier=step.earlier))

    def _drawn(self, answer: Segmentation) -> _Structure:
        """The answer with its outlines, in the first of the colours that fewest of the kept structures have."""
        colours = [one.colour for one in self._kept]
        colour = min(COLOURS, key=colours.count)
        masks = {"binary": answer.binary, "semantic": answer.semantic}
        lines = {
            name: [polygon.round(1).tolist() for polygon in screen_outlines(mask, VIEW_SIDE)]
            for name, mask in masks.items()
            if mask is not None
        }
        return _Structure(self._made, colour, answer, lines)


def told(answer: Segmentation) -> str:
    """The answer in one sentence."""
    if not answer.area_px:
        return "The model outlines nothing there; mark another place, or draw a box."
    name = "A structure without a name" if answer.label is None else answer.label
    sure = "" if answer.score is None else f" ({answer.score:.0%})"
    return f"{name}{sure}, {', '.join(area_words(answer.area_px, answer.area_mm2))}."


def area_words(pixels: int, square_mm: float | None) -> list[str]:
    """An area in a reader's words: in pixels and, where it is known, in mm²."""
    words = [f"{pixels:,} pixels"]
    if square_mm is not None:
        words.append(f"{square_mm:,.{0 if square_mm >= 100 else 1}f} mm²")
    return words


def told_hottest(found: Map, spot: HotSpot, captions: Mapping[str, str]) -> str:
    """Which structure the segmenter says lies at the hottest place of ``found``, and whose of ``captions`` name it too."""
    x, y = spot.point
    where = f"At the hottest place of {found.title} ({x:g}, {y:g})"
    label, score = spot.structure.label, spot.structure.score
    if not spot.structure.area_px:
        return f"{where} the model outlines nothing."
    if label is None or score is None:
        return f"{where} lies a structure that these models have no name for."
    unsure = "" if spot.structure.iou >= UNSURE else f" It doubts its own outline (estimated overlap {spot.structure.iou:.0%})."
    said = f"{where} the model says: {label}, {score:.0%}.{unsure}"
    naming = [system for system, text in captions.items() if mentions(text, label)]
    return f"{said} The name is in the caption of {' and '.join(naming)} too." if naming else said


def mentions(caption: str, label: str) -> bool:
    """Whether a caption has the class's name, or a synonym of it, as words of its own."""
    book = load_classes()
    known = book.resolve(label)
    spellings = {label, *((known, *book.get(known).synonyms) if known else ())}
    text = plain(caption)
    return any(re.search(rf"(?<!\w){re.escape(plain(name))}(?!\w)", text) for name in spellings)


def _light(answer: Segmentation) -> Segmentation:
    return replace(answer, binary=np.zeros((0, 0), dtype=bool), semantic=None)
