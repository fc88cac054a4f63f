"""A map: values over the scan, what they mean, and the grey picture they become.

Every map says where a model looked, not why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_TITLES = {
    "sam_pca": "SAM features (three main components as colours)",
    "sam_norm": "SAM features (strength, measured from the scan's mean)",
    "sam_similarity": "SAM features (likeness to the chosen point)",
}


@dataclass(frozen=True)
class Map:
    """One map in the picture's frame: ``values [H,W] float32``, or ``[H,W,3] uint8`` for ``sam_pca``.

    ``kind`` is one of sam_pca, sam_norm, sam_similarity, attention, word; ``range`` holds the values at grey 0 and grey 255. A
    word's map also has the word's ``place`` in its caption, counted from 0, and the ``method`` it was made by.
    """

    kind: str
    branch: str | None
    layer: int | None
    word: str | None
    range: tuple[float, float]
    values: np.ndarray
    place: int | None = None
    method: str = ""

    @property
    def title(self) -> str:
        """What the map shows, for people."""
        if self.kind in _TITLES:
            return _TITLES[self.kind]
        branch = (self.branch or "").upper()
        if self.kind == "word":
            return f"“{self.word}”: {branch} branch, {self.method}"
        return f"{branch} Q-Former attention, layer {self.layer}"

    @property
    def file(self) -> str:
        """The file name of the map's picture, such as ``attention-clip-layer0.png``; one system's maps never share one."""
        branch = self.branch if self.branch and not self.kind.startswith(self.branch) else None
        kind = self.kind.replace("_", "-") + ("" if self.place is None else str(self.place))
        parts = [kind, self.method or None, branch, None if self.layer is None else f"layer{self.layer}"]
        return "-".join(part for part in parts if part) + ".png"

    def image(self) -> np.ndarray:
        """The map as 8-bit grey ``[H,W]`` (0-255 = ``range``); ``sam_pca`` as RGB ``[H,W,3]``."""
        if self.values.ndim == 3:
            return self.values
        low, high = self.range
        scaled = (self.values - low) / (high - low) if high > low else np.zeros_like(self.values)
        return (scaled.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def write_maps(
    maps: Sequence[Map], folder: Path, *, structures: Mapping[str, dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """Write each map as a PNG of the picture's size into ``folder``, and ``maps.json``; returns the list in it.

    An item is ``{file, kind, branch, layer, word, range}``; ``file`` is relative to ``folder``. Where ``structures`` has something
    for a file, the item has it as ``structure``: what lies at the map's hottest place.
    """
    folder.mkdir(parents=True, exist_ok=True)
    items: list[dict[str, Any]] = []
    for made in maps:
        Image.fromarray(made.image()).save(folder / made.file)
        item: dict[str, Any] = {"file": made.file, "kind": made.kind, "branch": made.branch, "layer": made.layer}
        item |= {"word": made.word, "range": [float(end) for end in made.range]}
        items.append({**item, "structure": structures[made.file]} if structures and made.file in structures else item)
    (folder / "maps.json").write_text(json.dumps(items, indent=2) + "\n", encoding="utf-8")
    return items
