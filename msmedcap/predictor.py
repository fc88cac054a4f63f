"""Load once, ``set_scan`` once, then captions, maps and masks as often as wanted (the seam the page and the commands stand on).

Comes in: a scan. Goes out: three captions decoded as one batch, and maps and masks in the picture's frame. Every encoder runs
once for a picture, whatever asks for it. A :class:`Predictor` is one visitor's; the models behind it are shared.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msmedcap import batch, captioning, checkpoints, segmenters
from msmedcap.captioning import Asked, Features, Reading
from msmedcap.config import Decoding, UserError
from msmedcap.data.classes import ClassBook
from msmedcap.data.prompts import prompt_on
from msmedcap.data.scans import Scan, Window
from msmedcap.data.views import ViewFrame, make_view
from msmedcap.explain.attention import attention_maps, places_of
from msmedcap.explain.maps import Map
from msmedcap.explain.sam_features import norm_map, pca_map, similarity_map
from msmedcap.explain.words import CaptionWords, Word
from msmedcap.models.branch import Branch
from msmedcap.models.opt import OnTokens
from msmedcap.segmenting import HotSpot, Regions, Segmentation, SharedSegmenter, structure_record, write_segmentations

NO_SCAN = "No scan is set; call set_scan first."


def load(
    models: str = "demo", *, device: str | None = None, load_8bit: bool = False, offload: bool = False
) -> Predictor:
    """A predictor for ``demo``, ``full`` or a model folder; ``load_8bit`` and ``offload`` as in :func:`.checkpoints.load`.

    Raises :class:`UserError` when there are no such models, no such device, or the models do not fit on it.
    """
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(chosen)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError):
        raise UserError(f"The device {chosen!r} is not available here; use --device cpu.") from None
    return Predictor(checkpoints.load(models, device=place, load_8bit=load_8bit, offload=offload), models)


class Predictor:
    """One visitor's view of the shared models; see the module's text. Not for use from two threads at once."""

    def __init__(
        self, shared: checkpoints.Models, models: str, *, segmenter: SharedSegmenter | None = None
    ) -> None:
        """``segmenter`` is the one another visitor uses already; without it this one's is the first."""
        self._shared = shared
        self._segmenter = segmenter or SharedSegmenter(shared, models)
        self.models = models
        self.scan: Scan | None = None
        self.picture: np.ndarray | None = None
        self.window = ""
        self.frame = 0
        self.warnings: list[str] = []
        self.seconds: dict[str, float] = {}
        self._features: Features | None = None
        self._regions: Regions | None = None
        self._said: dict[str, tuple[Decoding, str]] = {}  # by system, the caption last written of this scan
        self._words: dict[str, CaptionWords] = {}

    @property
    def systems(self) -> tuple[str, ...]:
        """The systems there are weights for, in the order they are shown."""
        return captioning.systems_of(self._shared)

    def fresh(self) -> Predictor:
        """A predictor for another visitor: no scan yet, the same models."""
        return Predictor(self._shared, self.models, segmenter=self._segmenter)

    @property
    def segmenter_absent(self) -> str | None:
        """Why these models cannot segment and which command makes what is missing; None where they can."""
        return self._segmenter.absent

    def set_scan(
        self,
        source: str | Path | bytes | Scan,
        *,
        window: str | Window | None = None,
        frame: int = 0,
        allow_burned_in: bool = False,
    ) -> Predictor:
        """Open, window and keep a scan (a file, its bytes, or one already open); returns self.

        Raises ScanError and leaves the scan that was set before untouched. No encoder runs yet.
        """
        found = captioning.look(source, window=window, frame=frame, allow_burned_in=allow_burned_in)
        self.scan, self.picture, self.window, self.frame = found.scan, found.picture, found.window, found.frame
        self.warnings, self.seconds = list(found.scan.warnings), {}
        self._said, self._words = {}, {}
        features = self._features = Features(self._shared, lambda spec: make_view(found.picture, spec)[None])
        self._regions = Regions(self._segmenter, lambda: features("sam"), self._frame("sam"), found.scan, found.frame)
        return self

    def captions(
        self, *, systems: Sequence[str] | None = None, preset: str = "fast", prompt: str | None = None
    ) -> dict[str, str]:
        """What each system says of the scan, by name; a system that fails is left out and named in ``warnings``."""
        asked = captioning.ask(self._shared, systems=systems, preset=preset, prompt=prompt)
        return self._write(asked, self._read(asked), None)

    def stream(
        self, *, systems: Sequence[str] | None = None, preset: str = "fast", prompt: str | None = None
    ) -> Iterator[dict[str, str]]:
        """As :meth:`captions`, growing: each item holds every system's text so far, the last is complete."""
        asked = captioning.ask(self._shared, systems=systems, preset=preset, prompt=prompt)
        reading = self._read(asked)
        steps: queue.Queue[dict[str, str] | Exception | None] = queue.Queue()
        dropped = threading.Event()

        def on_tokens(texts: list[str]) -> None:
            if dropped.is_set():
                raise InterruptedError("nobody reads these captions any more")
            steps.put(dict(zip(reading.prefixes, texts, strict=True)))

        def decode() -> None:
            try:
                steps.put(self._write(asked, reading, on_tokens))
            except Exception as error:  # handed to the caller's thread, which raises it
                steps.put(error)
            steps.put(None)

        thread = threading.Thread(target=decode, daemon=True)
        thread.start()
        try:
            while (step := steps.get()) is not None:
                if isinstance(step, Exception):
                    raise step
                yield step
        finally:
            # Whoever drops the stream may let the next visitor at the models: nothing of this one may still run then.
            dropped.set()
            thread.join()

    def caption_many(self, sources: Iterable[batch.Source], **options: Any) -> Iterator[batch.BatchItem]:
        """The captions of many scans, each as it would be by itself; the scan that is set here plays no part.

        Options and errors as in :func:`msmedcap.batch.caption_many`.
        """
        return batch.caption_many(self._shared, sources, **options)

    def maps(self, *, system: str = "MSMedCap", point: tuple[float, float] | None = None) -> list[Map]:
        """SAM's feature maps and the raw Q-Former attention of ``system``'s branches, in the picture's frame.

        ``point`` (x, y in the picture's pixels) adds the likeness of every place to that point.
        """
        (name,) = captioning.ask(self._shared, systems=[system], preset="fast", prompt=None).names
        height, width = self._picture().shape[:2]
        if point is not None and not (0 <= point[0] <= width and 0 <= point[1] <= height):
            raise UserError(f"The point {point[0]:g},{point[1]:g} lies outside the scan, which is {width} x {height} pixels.")
        sam_frame = self._frame("sam")
        features = self._encoded("sam")[0].float().cpu()
        maps = [pca_map(features, sam_frame), norm_map(features, sam_frame)]
        if point is not None:
            maps.append(similarity_map(features, sam_frame, point))
        for view, branch in self._shared.captioners[name].named_branches():
            maps += self._attention(view, branch)
        return maps

    def words(self, *, system: str = "MSMedCap") -> list[Word]:
        """The words of the caption that ``system`` last wrote of this scan (it is written where there is none), in order."""
        return list(self._caption_words(system).words)

    def word_maps(self, word: int, *, system: str = "MSMedCap", method: str | None = None) -> list[Map]:
        """Where ``system``'s branches looked for the word at place ``word`` (from 0) of that caption, in the picture's frame.

        The first word's maps are all words' for that ``method`` (one of :data:`msmedcap.explain.words.METHODS`;
        without one as :meth:`~msmedcap.explain.words.CaptionWords.maps` chooses). Raises
        :class:`UserError` for a word or a method there is none of.
        """
        words = self._caption_words(system)
        maps = words.maps(word, method)
        self.warnings += [f"{system}: {told}" for told in words.warnings if f"{system}: {told}" not in self.warnings]
        return maps

    def adopt(self, captions: Mapping[str, str], *, preset: str = "fast", prompt: str | None = None) -> None:
        """Take ``captions`` (by system) for those last written of this scan: another predictor wrote them so.

        Raises :class:`UserError` for a system or preset there is none of.
        """
        if captions:
            asked = captioning.ask(self._shared, systems=list(captions), preset=preset, prompt=prompt)
            self._note(asked.decoding, captions)

    def explain(
        self,
        *,
        system: str = "MSMedCap",
        point: tuple[float, float] | None = None,
        word: int | None = None,
        method: str | None = None,
    ) -> tuple[list[Map], dict[str, dict[str, Any]]]:
        """All maps of the scan that is set, those of the ``word`` last, and by their file what lies at each one's hottest place.

        That is told of the maps that say where ``system`` looked, where the models can segment. What is given is as for
        :meth:`maps` and :meth:`word_maps`. Raises :class:`UserError`, also for a ``method`` without a ``word``.
        """
        if method and word is None:
            raise UserError("A method says how the maps of a word are made; name the word, too.")
        maps = self.maps(system=system, point=point)
        if word is not None:
            maps += self.word_maps(word, system=system, **({"method": method} if method else {}))
        if self.segmenter_absent is not None:
            return maps, {}
        looked = [made for made in maps if made.kind in ("attention", "word")]
        return maps, {made.file: structure_record(self.hot_spot(made)) for made in looked}

    def segment(
        self,
        points: Sequence[Sequence[float]] = (),
        box: Sequence[float] | None = None,
        *,
        earlier: Segmentation | None = None,
    ) -> Segmentation:
        """The mask of what is prompted, its class, and what else is in the picture; all in the picture's frame.

        ``points`` are (x, y) or (x, y, label) with label 1 on the structure and 0 beside it, ``box`` is (x0, y0, x1, y1), all in
        the picture's pixels. A further round gives all points again and, as SAM does, the ``earlier`` answer to refine. The
        encoder runs at the first prompt, if neither captions nor maps needed it before. Raises :class:`UserError` where the
        prompt is empty, lies outside the picture or contradicts itself, or these models hold no segmenter.
        """
        height, width = self._picture().shape[:2]
        prompt = prompt_on(height, width, points, box)
        on = {point[:2] for point in prompt.points if point[2]}
        if both := [point[:2] for point in prompt.points if not point[2] and point[:2] in on]:
            x, y = both[0]
            raise UserError(f"The point {x:g},{y:g} is given as on the structure and as beside it; leave one of them out.")
        return self._scan_regions.segment(prompt, earlier=earlier)

    def add_classes(self, book: ClassBook) -> tuple[str, ...]:
        """Let the segmenter name the classes of ``book`` that are new to it, for every visitor until the program ends.

        Nothing is trained; returns their names. Raises :class:`UserError` without a segmenter, and for one without class texts.
        """
        return segmenters.add_new_classes(self._segmenter.get(), book, opt=self._shared.frozen.opt)

    def write_masks(
        self, found: Sequence[Segmentation], folder: Path, *, dicom_seg: bool = False
    ) -> list[dict[str, Any]]:
        """Write answers of :meth:`segment` about the scan that is set, as :func:`msmedcap.segmenting.write_segmentations` does.

        Raises :class:`UserError` where there is none, or one is of another scan.
        """
        picture, regions = self._picture(), self._scan_regions
        assert self.scan is not None
        regions.check_own(found)
        return write_segmentations(found, folder, scan=self.scan, picture=picture, dicom_seg=dicom_seg)

    def hot_spot(self, found: Map) -> HotSpot:
        """The hottest place of one of :meth:`maps` and the structure that lies there, found with that place as a prompt.

        It says where the model looked, not why. Raises :class:`UserError` for the map in colours, or without a segmenter.
        """
        return self._scan_regions.hot_spot(found)

    def prepare_segmenting(self) -> None:
        """Load the segmenter and encode the scan now, so that the first click waits for neither."""
        self._scan_regions.prepare()

    @torch.inference_mode()
    def _attention(self, view: str, branch: Branch) -> list[Map]:
        places = places_of(branch)
        if places is None:
            return []  # a channel has no place on the picture
        attention = branch.attention(captioning.tokens_of(branch, self._encoded(view)))
        return attention_maps(attention, branch=view, places=places, frame=self._frame(view))

    def _caption_words(self, system: str) -> CaptionWords:
        """What was said last and what it was said of; made anew when another caption was written since."""
        (name,) = captioning.ask(self._shared, systems=[system], preset="fast", prompt=None).names
        if name not in self._said:
            self.captions(systems=[name])
        if name not in self._said:
            raise UserError(" ".join(self.warnings) or f"{name} wrote no caption of this scan.")
        if name not in self._words:
            decoding, caption = self._said[name]
            captioning.check_caption(self._shared, name, decoding.prompt, caption)
            captioner, sizes = self._shared.captioners[name], decoding.view_sizes
            tokens, specs = {}, {}
            for view, branch in captioner.named_branches():
                tokens[view] = captioning.tokens_of(branch, self._encoded(view, sizes.get(view)))
                spec = self._shared.config.view(view)
                specs[view] = dataclasses.replace(spec, size=sizes.get(view, spec.size))
            self._words[name] = CaptionWords(
                captioner, tokens, caption=caption, prompt=decoding.prompt, picture=self._picture(), specs=specs
            )
        return self._words[name]

    def _read(self, asked: Asked) -> Reading:
        features = self._encoded  # raises where no scan is set, before anything is timed
        self.warnings = list(self.scan.warnings) if self.scan else []
        start = time.perf_counter()
        (reading,) = captioning.read(self._shared, asked, features)
        self.seconds = {"encode": round(time.perf_counter() - start, 3)}
        return reading

    def _write(self, asked: Asked, reading: Reading, on_tokens: OnTokens | None) -> dict[str, str]:
        start = time.perf_counter()
        (captions,) = captioning.write(self._shared, asked, [reading], on_tokens=on_tokens)
        self.seconds["decode"] = round(time.perf_counter() - start, 3)
        self.warnings += reading.warnings
        self._note(asked.decoding, captions)
        return captions

    def _note(self, decoding: Decoding, captions: Mapping[str, str]) -> None:
        for name, caption in captions.items():
            if self._said.get(name) != (decoding, caption):
                self._said[name] = (decoding, caption)
                self._words.pop(name, None)

    @property
    def _encoded(self) -> Features:
        """The encoders' outputs for the scan, each computed once for each size it is looked at."""
        if self._features is None:
            raise UserError(NO_SCAN)
        return self._features

    @property
    def _scan_regions(self) -> Regions:
        if self._regions is None:
            raise UserError(NO_SCAN)
        return self._regions

    def _frame(self, view: str) -> ViewFrame:
        height, width = self._picture().shape[:2]
        return ViewFrame(self._shared.config.view(view), height, width)

    def _picture(self) -> np.ndarray:
        if self.picture is None:
            raise UserError(NO_SCAN)
        return self.picture
