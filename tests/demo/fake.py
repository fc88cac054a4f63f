"""A predictor without models, for the page: real scans in, made captions and maps out, the same for the same picture.

``slow`` seconds pass between two words; ``broken`` names systems that write nothing; ``crash`` makes every caption raise.
Used by two at once it raises too: the models behind a real one are shared. Only prompts are answered beside anything else.
A mask is a disc around the middle of the points, or the box; ``absent`` says why there is no segmenter.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from msmedcap.config import UserError
from msmedcap.data.prompts import prompt_on
from msmedcap.data.scans import Scan, open_scan
from msmedcap.explain.maps import Map
from msmedcap.explain.words import Word
from msmedcap.predictor import Predictor
from msmedcap.segmenting import HotSpot, Segmentation, hottest, write_segmentations
from msmedcap.segmenting.regions import NO_SPACING
from msmedcap.systems import PRESETS, SYSTEMS


class FakePredictor:
    """Captions name the picture's mean grey, so that two visitors' scans cannot be confused unnoticed."""

    def __init__(
        self,
        *,
        systems: Sequence[str] = tuple(SYSTEMS),
        slow: float = 0.0,
        broken: Sequence[str] = (),
        crash: str = "",
        absent: str | None = None,
    ):
        self.systems = tuple(systems)
        self.models = "fake"
        self.segmenter_absent = absent
        self.prepared = 0
        self._id = ""
        self._slow, self._broken, self._crash = slow, tuple(broken), crash
        self._models = threading.Lock()
        self.scan: Scan | None = None
        self.picture: np.ndarray | None = None
        self.window, self.frame = "", 0
        self.warnings: list[str] = []
        self.seconds: dict[str, float] = {}
        self._said: dict[str, str] = {}

    def fresh(self) -> FakePredictor:
        other = FakePredictor(
            systems=self.systems, slow=self._slow, broken=self._broken, crash=self._crash, absent=self.segmenter_absent
        )
        other._models = self._models
        return other

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._models.acquire(blocking=False):
            raise RuntimeError("two use the models at once")
        try:
            yield
        finally:
            self._models.release()

    def set_scan(
        self,
        source: str | Path | bytes | Scan,
        *,
        window: str | None = None,
        frame: int = 0,
        allow_burned_in: bool = False,
    ) -> FakePredictor:
        self.scan = source if isinstance(source, Scan) else open_scan(source, allow_burned_in=allow_burned_in)
        self.window, _ = self.scan.resolve_window(window)
        self.frame, self.picture = frame, self.scan.picture(window, frame)
        self.warnings = list(self.scan.warnings)
        self._id = f"{self.scan.id} {frame}"
        return self

    def captions(
        self, *, systems: Sequence[str] | None = None, preset: str = "fast", prompt: str | None = None
    ) -> dict[str, str]:
        return list(self.stream(systems=systems, preset=preset, prompt=prompt))[-1]

    def stream(
        self, *, systems: Sequence[str] | None = None, preset: str = "fast", prompt: str | None = None
    ) -> Iterator[dict[str, str]]:
        chosen = tuple(systems or self.systems)
        if unknown := [name for name in chosen if name not in self.systems]:
            raise UserError(f"There is no system {unknown[0]}; choose from {', '.join(self.systems)}.")
        if preset not in PRESETS:
            raise UserError(f"There is no preset {preset!r}; choose fast or paper.")
        if self._crash:
            raise RuntimeError(self._crash)
        assert self.picture is not None
        start = time.perf_counter()
        words = f"axial scan, mean grey {self.picture.mean():.2f}, {self.window}, seen by".split()
        with self._alone():
            for count in range(1, len(words) + 1):
                time.sleep(self._slow)
                end = "" if count < len(words) else " {}."
                yield {
                    name: "" if name in self._broken else " ".join(words[:count]) + end.format(name) for name in chosen
                }
                if end:
                    self._said |= {name: f"{' '.join(words)} {name}." for name in chosen if name not in self._broken}
        self.seconds = {"encode": 0.25, "decode": time.perf_counter() - start}

    def maps(self, *, system: str = "MSMedCap", point: tuple[float, float] | None = None) -> list[Map]:
        if system not in self.systems:
            raise UserError(f"There is no system {system}; choose from {', '.join(self.systems)}.")
        assert self.picture is not None
        with self._alone():
            time.sleep(self._slow)
            grey = self.picture.mean(axis=2).astype(np.float32)
            height, width = grey.shape
            y, x = np.mgrid[0:height, 0:width].astype(np.float32)
            maps = [
                Map("sam_norm", None, None, None, (2.5, 9.0), 2.5 + 6.5 * grey / 255),
                Map(
                    "sam_pca",
                    None,
                    None,
                    None,
                    (0.0, 255.0),
                    np.stack([grey, 255 - grey, x / width * 255], 2).astype(np.uint8),
                ),
            ]
            if point is not None:
                near = np.exp(-((x + 0.5 - point[0]) ** 2 + (y + 0.5 - point[1]) ** 2) / (0.02 * width * height))
                maps.insert(0, Map("sam_similarity", None, None, None, (-1.0, 1.0), 2 * near - 1))
            for branch in SYSTEMS[system]:
                for layer in (0, 2):
                    spot = np.exp(-((x / width - 0.3 - 0.1 * layer) ** 2 + (y / height - 0.5) ** 2) / 0.03)
                    maps.append(Map("attention", branch, layer, None, (0.0, 0.04), 0.04 * spot))
        return maps

    def adopt(self, captions: Mapping[str, str], *, preset: str = "fast", prompt: str | None = None) -> None:
        self._said |= captions

    def words(self, *, system: str = "MSMedCap") -> list[Word]:
        """The later a word, the less sure."""
        return [
            Word(found[0], *found.span(), 1 / (place + 1), (("Coronal", 0.2), ("<b>", 0.1)))
            for place, found in enumerate(re.finditer(r"\S+", self._said[system]))
        ]

    def word_maps(self, word: int, *, system: str = "MSMedCap", method: str = "gradient") -> list[Map]:
        """A spot that moves to the right with the words."""
        text = self.words(system=system)[word].text
        assert self.picture is not None
        height, width = self.picture.shape[:2]
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        with self._alone():
            spot = np.exp(-((x / width - 0.1 * word) ** 2 + (y / height - 0.5) ** 2) / 0.03)
        return [
            Map("word", branch, None, text, (0.0, 1.0), spot, place=word, method=method) for branch in SYSTEMS[system]
        ]

    def prepare_segmenting(self) -> None:
        self._demand_segmenter()
        self.prepared += 1

    def segment(
        self,
        points: Sequence[Sequence[float]] = (),
        box: Sequence[float] | None = None,
        *,
        earlier: Segmentation | None = None,
    ) -> Segmentation:
        """With ``earlier`` the quality is said to be higher, so that a test sees what was refined."""
        self._demand_segmenter()
        assert self.picture is not None and self.scan is not None
        height, width = self.picture.shape[:2]
        prompt = prompt_on(height, width, points, box)
        if earlier is not None and earlier.scan_id != self._id:
            raise UserError("The earlier mask is of another scan or frame; begin again with a point or a box.")
        y, x = np.mgrid[0:height, 0:width] + 0.5
        inside = [(px, py) for px, py, label in prompt.points if label]
        cx, cy = np.mean(inside, axis=0) if inside else ((prompt.box[0] + prompt.box[2]) / 2, 0)  # type: ignore[index]
        if prompt.box is not None:
            x0, y0, x1, y1 = prompt.box
            binary = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
            semantic = binary & (x >= x0 + 1)
        else:
            away, radius = (x - cx) ** 2 + (y - cy) ** 2, min(height, width) / 8
            binary, semantic = away < radius**2, away < (0.8 * radius) ** 2
        spacing = self.scan.spacing
        area = int(binary.sum())
        return Segmentation(
            label="Left Lung" if cx > width / 2 else "Right Lung",
            score=0.9,
            iou=0.8 if earlier is None else 0.95,
            binary=binary,
            semantic=semantic,
            present=(("heart", 0.8), ("aorta", 0.6)),
            area_px=area,
            area_mm2=None if spacing is None else area * spacing[0] * spacing[1],
            area_note=NO_SPACING if spacing is None else "",
            prompt=prompt,
            logits=np.zeros((4, 4), np.float32),
            scan_id=self._id,
        )

    def explain(self, **options) -> tuple[list[Map], dict]:
        return Predictor.explain(self, **options)  # type: ignore[arg-type]

    def hot_spot(self, found: Map) -> HotSpot:
        x, y = hottest(found.values)
        return HotSpot((x, y), float(found.values[int(y), int(x)]), self.segment([(x, y, 1)]))

    def write_masks(self, found: Sequence[Segmentation], folder: Path, *, dicom_seg: bool = False) -> list[dict]:
        assert self.scan is not None and self.picture is not None
        return write_segmentations(found, folder, scan=self.scan, picture=self.picture, dicom_seg=dicom_seg)

    def _demand_segmenter(self) -> None:
        if self.segmenter_absent is not None:
            raise UserError(self.segmenter_absent)
