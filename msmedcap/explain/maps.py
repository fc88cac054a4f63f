"""A map: values over the scan, what they mean, and the grey picture they become.

Every map says where a model looked, not why.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from msmedcap.data.sizes import within
from msmedcap.data.views import Heatmap
from msmedcap.explain.spelling import bare

# No map is sent or shown with more pixels a side than a peak is looked for at.
_PEAK_SIDE = 640
_TITLES = {
    "sam_pca": "SAM features (three main components as colours)",
    "sam_norm": "SAM features (strength, measured from the scan's mean)",
    "sam_similarity": "SAM features (likeness to the chosen point)",
}


@dataclass(frozen=True)
class Map:
    """One map in the picture's frame, drawn from ``source`` when it is asked for: a chest film's maps would fill memory.

    ``source`` is a :class:`~msmedcap.data.views.Heatmap` (of three grids for ``sam_pca``, 0 to 255), or the values themselves.
    ``kind`` is one of sam_pca, sam_norm, sam_similarity, attention, word; ``range`` holds the values at grey 0 and grey 255. A
    word's map also has the word's ``place`` in its caption, counted from 0, and the ``method`` it was made by.
    """

    kind: str
    branch: str | None
    layer: int | None
    word: str | None
    range: tuple[float, float]
    source: Heatmap | np.ndarray = field(repr=False)
    place: int | None = None
    method: str = ""

    @property
    def values(self) -> np.ndarray:
        """``[H,W] float32`` in the picture's own pixels, or ``[H,W,3] uint8`` for ``sam_pca``; drawn anew at every use."""
        return self._drawn(None)

    @property
    def shape(self) -> tuple[int, int]:
        """The picture's (height, width)."""
        return self.source.shape[0], self.source.shape[1]

    @property
    def colour(self) -> bool:
        """Whether it is a picture in colours, and not values."""
        return (self.source.grids if isinstance(self.source, Heatmap) else self.source).ndim == 3

    @property
    def fades(self) -> bool:
        """Whether grey 0 means that there is nothing, so that the map is clear where it is low."""
        return self.kind in ("attention", "word")

    @functools.cached_property
    def peak(self) -> float:
        """The highest value on the picture, whatever :attr:`range` is."""
        return float(self._drawn(_PEAK_SIDE).max())

    def _drawn(self, longest: int | None) -> np.ndarray:
        if isinstance(self.source, Heatmap):
            drawn = self.source.draw(longest)
            return drawn if drawn.ndim == 2 else np.moveaxis((drawn.clip(0, 255) + 0.5).astype(np.uint8), 0, 2)
        height, width = within(self.shape, longest)
        if (height, width) == self.shape:
            return self.source
        return np.asarray(Image.fromarray(self.source).resize((width, height), Image.Resampling.BOX))

    @property
    def title(self) -> str:
        """What the map shows, for people."""
        if self.kind in _TITLES:
            return _TITLES[self.kind]
        branch = (self.branch or "").upper()
        if self.kind == "word" and self.branch is None:
            return f"“{bare(self.word or '')}”: all branches, {self.method}"
        if self.kind == "word":
            return f"“{bare(self.word or '')}”: {branch} branch, {self.method}"
        return f"{branch} Q-Former attention, layer {self.layer}"

    @property
    def file(self) -> str:
        """The file name of the map's picture, such as ``attention-clip-layer0.png``; one system's maps never share one."""
        branch = self.branch if self.branch and not self.kind.startswith(self.branch) else None
        kind = self.kind.replace("_", "-") + ("" if self.place is None else str(self.place))
        parts = [kind, self.method or None, branch, None if self.layer is None else f"layer{self.layer}"]
        return "-".join(part for part in parts if part) + ".png"

    def image(self, longest: int | None = None) -> np.ndarray:
        """The map as 8-bit grey ``[H,W]`` (0-255 = ``range``), ``sam_pca`` as RGB ``[H,W,3]``; no side over ``longest`` pixels."""
        values = self._drawn(longest)
        if values.ndim == 3:
            return values
        low, high = self.range
        scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
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
