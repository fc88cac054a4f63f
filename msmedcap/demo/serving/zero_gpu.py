"""ZeroGPU of Hugging Face Spaces: a GPU for as long as a model runs, where the Space has it; everywhere else this does nothing.

Comes in: the loaded predictor. Goes out: the same predictor, or one that sends each piece of model work to a function the
``spaces`` library knows. Such a function runs in a process of its own and speaks to ours through pickles: the scan goes there
with every call, captions, maps and masks come back, and what the process remembers of a scan is lost with the call.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msmedcap.config import UserError
from msmedcap.data.scans import Scan, ScanError

if TYPE_CHECKING:
    import numpy as np

    from msmedcap.data.scans import Window
    from msmedcap.explain.maps import Map
    from msmedcap.explain.words import Word
    from msmedcap.predictor import Predictor
    from msmedcap.segmenting import HotSpot, Segmentation

# Seconds of GPU asked for: shorter pieces of work come to their turn sooner.
SECONDS = {"fast": 30, "paper": 120, "maps": 20, "segment": 20, "explain": 60}
Said = tuple[dict[str, str], dict[str, Any]]  # the captions written last, and how
View = tuple[Scan, str, int, Said | None]


def prepare(env: Mapping[str, str] = os.environ) -> bool:
    """Whether this is ZeroGPU. If so ``spaces`` is imported here, which must come before anything that imports torch."""
    if env.get("SPACES_ZERO_GPU", "").lower() not in ("1", "t", "true") or not importlib.util.find_spec("spaces"):
        return False
    importlib.import_module("spaces")
    return True


def on_gpu(models: Predictor, env: Mapping[str, str] = os.environ) -> Predictor:
    """``models`` as they are, or on ZeroGPU with their work decorated; call it before the page is launched."""
    if not prepare(env):
        return models
    gpu = importlib.import_module("spaces").GPU
    return OnGpu(models, _Work(models, gpu))  # type: ignore[return-value]


class _Work:
    """The decorated functions; ``models`` lie in the memory that a process of ZeroGPU begins with."""

    def __init__(self, models: Predictor, gpu: Callable[..., Callable[..., Any]]) -> None:
        def opened(view: View) -> Predictor:
            scan, window, frame, said = view
            # What may be opened was decided before the scan was sent.
            predictor = models.fresh().set_scan(scan, window=window, frame=frame, allow_burned_in=True)
            if said is not None:
                predictor.adopt(said[0], **said[1])
            return predictor

        def stream(view: View, options: dict[str, Any]) -> Iterator[Any]:
            try:
                predictor = opened(view)
                yield from predictor.stream(**options)
                yield predictor.seconds, predictor.warnings
            except (UserError, ScanError) as error:  # another error's text does not come back to us
                yield error

        def maps(view: View, options: dict[str, Any]) -> Any:
            return _or_error(lambda: opened(view).maps(**options))

        def segment(view: View, points: Any, box: Any, earlier: Segmentation | None) -> Any:
            def answer() -> Segmentation:
                predictor = opened(view)
                return predictor.segment(points, box, earlier=_as_of(predictor, earlier))

            return _or_error(answer)

        def words(view: View, system: str) -> Any:
            return _or_error(lambda: opened(view).words(system=system))

        def word_maps(view: View, word: int, options: dict[str, Any]) -> Any:
            def answer() -> tuple[list[Map], list[str]]:
                predictor = opened(view)
                return predictor.word_maps(word, **options), predictor.warnings

            return _or_error(answer)

        def explain(view: View, options: dict[str, Any]) -> Any:
            def answer() -> tuple[Any, list[str]]:
                predictor = opened(view)
                return predictor.explain(**options), predictor.warnings

            return _or_error(answer)

        def hot_spot(view: View, found: Map) -> Any:
            return _or_error(lambda: opened(view).hot_spot(found))

        self.stream = gpu(duration=lambda view, options: SECONDS.get(options["preset"], 1))(stream)
        self.maps = gpu(duration=SECONDS["maps"])(maps)
        self.words = gpu(duration=SECONDS["fast"])(words)
        self.word_maps = gpu(duration=SECONDS["fast"])(word_maps)
        self.explain = gpu(duration=SECONDS["explain"])(explain)
        self.segment = gpu(duration=SECONDS["segment"])(segment)
        self.hot_spot = gpu(duration=SECONDS["segment"])(hot_spot)


class OnGpu:
    """A predictor's face whose work is done elsewhere; scans are opened and masks written here."""

    def __init__(self, models: Predictor, work: _Work) -> None:
        self._here, self._work = models.fresh(), work
        self._said: Said | None = None

    @property
    def systems(self) -> tuple[str, ...]:
        """As the predictor's."""
        return self._here.systems

    @property
    def models(self) -> str:
        """As the predictor's."""
        return self._here.models

    @property
    def scan(self) -> Scan | None:
        """As the predictor's."""
        return self._here.scan

    @property
    def picture(self) -> np.ndarray | None:
        """As the predictor's, uint8 [H,W,3]."""
        return self._here.picture

    @property
    def window(self) -> str:
        """As the predictor's."""
        return self._here.window

    @property
    def frame(self) -> int:
        """As the predictor's."""
        return self._here.frame

    @property
    def warnings(self) -> list[str]:
        """As the predictor's."""
        return self._here.warnings

    @property
    def seconds(self) -> dict[str, float]:
        """As the predictor's, measured on the GPU."""
        return self._here.seconds

    @property
    def segmenter_absent(self) -> str | None:
        """As the predictor's."""
        return self._here.segmenter_absent

    def fresh(self) -> OnGpu:
        """For another visitor: no scan yet, the same models."""
        return OnGpu(self._here, self._work)

    def set_scan(
        self,
        source: str | Path | bytes | Scan,
        *,
        window: str | Window | None = None,
        frame: int = 0,
        allow_burned_in: bool = False,
    ) -> OnGpu:
        """As the predictor's; nothing goes to the GPU yet."""
        self._here.set_scan(source, window=window, frame=frame, allow_burned_in=allow_burned_in)
        self._said = None
        return self

    def captions(
        self, *, systems: Sequence[str] | None = None, preset: str = "fast", prompt: str | None = None
    ) -> dict[str, str]:
        """As the predictor's."""
        return list(self.stream(systems=systems, preset=preset, prompt=prompt))[-1]

    def stream(
        self, *, systems: Sequence[str] | None = None, preset: str = "fast", prompt: str | None = None
    ) -> Iterator[dict[str, str]]:
        """As the predictor's."""
        options = {"systems": systems, "preset": preset, "prompt": prompt}
        steps = iter(self._work.stream(self._view(), options))
        texts: dict[str, str] = {}
        while (step := _told(lambda: next(steps, None))) is not None:
            if isinstance(step, tuple):
                self._here.seconds, self._here.warnings = step
                self.adopt(texts, preset=preset, prompt=prompt)
            else:
                texts = step
                yield step

    def words(self, *, system: str = "MSMedCap") -> list[Word]:
        """As the predictor's."""
        return _told(lambda: self._work.words(self._view(), system))

    def word_maps(self, word: int, *, system: str = "MSMedCap", method: str | None = None) -> list[Map]:
        """As the predictor's."""
        options = {"system": system, "method": method}
        maps, self._here.warnings = _told(lambda: self._work.word_maps(self._view(), word, options))
        return maps

    def adopt(self, captions: Mapping[str, str], *, preset: str = "fast", prompt: str | None = None) -> None:
        """As the predictor's; the captions go along with the scan from now on."""
        if captions:
            known = self._said[0] if self._said is not None else {}
            self._said = {**known, **captions}, {"preset": preset, "prompt": prompt}

    def maps(self, *, system: str = "MSMedCap", point: tuple[float, float] | None = None) -> list[Map]:
        """As the predictor's."""
        return _told(lambda: self._work.maps(self._view(), {"system": system, "point": point}))

    def explain(
        self,
        *,
        system: str = "MSMedCap",
        point: tuple[float, float] | None = None,
        word: int | None = None,
        method: str | None = None,
    ) -> tuple[list[Map], dict[str, dict[str, Any]]]:
        """As the predictor's, all of it in one call."""
        options = {"system": system, "point": point, "word": word, "method": method}
        found, self._here.warnings = _told(lambda: self._work.explain(self._view(), options))
        return found

    def segment(
        self,
        points: Sequence[Sequence[float]] = (),
        box: Sequence[float] | None = None,
        *,
        earlier: Segmentation | None = None,
    ) -> Segmentation:
        """As the predictor's."""
        if earlier is not None:
            self._here._scan_regions.check_own([earlier])
        found = _told(lambda: self._work.segment(self._view(), points, box, earlier))
        return _as_of(self._here, found)

    def hot_spot(self, found: Map) -> HotSpot:
        """As the predictor's."""
        spot = _told(lambda: self._work.hot_spot(self._view(), found))
        return dataclasses.replace(spot, structure=_as_of(self._here, spot.structure))

    def write_masks(
        self, found: Sequence[Segmentation], folder: Path, *, dicom_seg: bool = False
    ) -> list[dict[str, Any]]:
        """As the predictor's; no model is needed."""
        return self._here.write_masks(found, folder, dicom_seg=dicom_seg)

    def prepare_segmenting(self) -> None:
        """Nothing: what would be prepared is forgotten between two calls."""

    def _view(self) -> View:
        if self._here.scan is None:
            raise UserError("No scan is set; call set_scan first.")
        return self._here.scan, self._here.window, self._here.frame, self._said


def _as_of(predictor: Predictor, found: Any) -> Any:
    """``found`` as an answer about the scan of ``predictor``: it is the same scan, opened in another process."""
    return None if found is None else dataclasses.replace(found, scan_id=predictor._scan_regions._id)


def _or_error(answer: Callable[[], Any]) -> Any:
    try:
        return answer()
    except (UserError, ScanError) as error:
        return error


def _told(call: Callable[[], Any]) -> Any:
    """What came back; our own errors are raised here, and what ZeroGPU says (no quota left, too long) becomes one of ours."""
    try:
        found = call()
    except Exception as error:
        said = getattr(error, "message", None)
        if type(error).__module__.split(".")[0] != "gradio" or not isinstance(said, str):
            raise
        raise UserError(f"The GPU did not answer: {re.sub('<[^>]*>', '', said).strip()}") from None
    if isinstance(found, Exception):
        raise found
    return found
