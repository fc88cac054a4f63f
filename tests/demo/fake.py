"""A predictor without models, for the page: real scans in, made captions and maps out, the same for the same picture.

``slow`` seconds pass between two words; ``broken`` names systems that write nothing; ``crash`` makes every caption raise.
Used by two at once it raises too: the models behind a real one are shared.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from msmedcap.config import UserError
from msmedcap.data.scans import Scan, open_scan
from msmedcap.explain.maps import Map
from msmedcap.systems import PRESETS, SYSTEMS


class FakePredictor:
    """Captions name the picture's mean grey, so that two visitors' scans cannot be confused unnoticed."""

    def __init__(
        self, *, systems: Sequence[str] = tuple(SYSTEMS), slow: float = 0.0, broken: Sequence[str] = (), crash: str = ""
    ):
        self.systems = tuple(systems)
        self.models = "fake"
        self._slow, self._broken, self._crash = slow, tuple(broken), crash
        self._models = threading.Lock()
        self.scan: Scan | None = None
        self.picture: np.ndarray | None = None
        self.window, self.frame = "", 0
        self.warnings: list[str] = []
        self.seconds: dict[str, float] = {}

    def fresh(self) -> FakePredictor:
        other = FakePredictor(systems=self.systems, slow=self._slow, broken=self._broken, crash=self._crash)
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
