"""A map: values over the scan, what they mean, and the grey picture they become.

Every map says where a model looked, not why.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_TITLES = {
    "sam_pca": "SAM features (three main components as colours)",
    "sam_norm": "SAM features (strength)",
    "sam_similarity": "SAM features (likeness to the chosen point)",
}


@dataclass(frozen=True)
class Map:
    """One map in the picture's frame: ``values [H,W] float32``, or ``[H,W,3] uint8`` for ``sam_pca``.

    ``kind`` is one of sam_pca, sam_norm, sam_similarity, attention, word; ``range`` holds the values at grey 0 and grey 255.
    """

    kind: str
    branch: str | None
    layer: int | None
    word: str | None
    range: tuple[float, float]
    values: np.ndarray

    @property
    def title(self) -> str:
        """What the map shows, for people."""
        if self.kind in _TITLES:
            return _TITLES[self.kind]
        looked = f"{(self.branch or '').upper()} Q-Former attention, layer {self.layer}"
        return f"“{self.word}”: {looked}" if self.word else looked

    def image(self) -> np.ndarray:
        """The map as 8-bit grey ``[H,W]`` (0-255 = ``range``); ``sam_pca`` as RGB ``[H,W,3]``."""
        if self.values.ndim == 3:
            return self.values
        low, high = self.range
        scaled = (self.values - low) / (high - low) if high > low else np.zeros_like(self.values)
        return (scaled.clip(0, 1) * 255 + 0.5).astype(np.uint8)
