"""What a reader gets to see, with nothing in it that tells the systems apart.

Comes in: captions, the picture as displayed, the systems' maps. Goes out: captions that name no system, a PNG without metadata,
and one map for each caption whatever the system looked with: the attention of all layers and branches put together. All maps of a
case lie on one grid of half the cells of the coarsest encoder's, so that none can show a detail another's encoder has not, are
blurred alike and hold the same grey values. Where it looked remains; a reader who knows how an encoder tends to look may still
guess, which is why maps wait for the second stage.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from msmedcap.config import UserError
from msmedcap.data.sizes import within
from msmedcap.data.views import Heatmap
from msmedcap.demo.viewer.encoding import lookup

if TYPE_CHECKING:
    from msmedcap.explain.maps import Map

LONGEST, LONGEST_MAP = 1280, 640
BLUR = 0.3  # of a cell of the common grid
_PLAIN = 8  # cells a side that a map counts for which comes without its tokens


def blind_captions(captions: Mapping[str, str], systems: Sequence[str], *, case: str = "") -> dict[str, str]:
    """The captions of ``systems`` with plain spacing; a system without one has an empty text.

    Raises :class:`UserError` where a caption names a system.
    """
    names = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in systems), re.IGNORECASE)
    blind = {system: " ".join(captions.get(system, "").split()) for system in systems}
    for text in blind.values():
        if found := names.search(text):
            raise UserError(
                f"A caption of the case {case} names a system ({found[0]}); readers would know. Leave the case out."
            )
    return blind


def picture_png(picture: np.ndarray) -> tuple[bytes, int, int]:
    """``picture [H,W,3] uint8`` as a PNG of at most :data:`LONGEST` pixels a side, its width and its height."""
    pixels = picture[..., 0] if (picture == picture[..., :1]).all() else picture
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if max(image.size) > LONGEST:
        image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return _png(image), image.width, image.height


def combined_maps(maps: Mapping[str, Iterable[Map]]) -> dict[str, bytes]:
    """The attention of each system's ``maps`` of one picture as one coloured PNG of the picture's shape, by system.

    Raises :class:`UserError` where a system has no attention map.
    """
    attention = {system: [item for item in items if item.kind == "attention"] for system, items in maps.items()}
    if not all(attention.values()):
        raise UserError("A system drew no attention map; make the study without a second stage.")
    tokens = [_tokens(item) for items in attention.values() for item in items]
    coarsest = min(rows for rows, _ in tokens), min(columns for _, columns in tokens)
    return {system: _combined(items, coarsest) for system, items in attention.items()}


def _tokens(item: Map) -> tuple[int, int]:
    """How many rows and columns of tokens a map has over the picture, padding left out."""
    if not isinstance(item.source, Heatmap):
        return _PLAIN, _PLAIN
    frame, (rows, columns) = item.source.frame, item.source.grids.shape[-2:]
    return max(1, round(rows * frame.height / frame.size)), max(1, round(columns * frame.width / frame.size))


def _combined(maps: Sequence[Map], coarsest: tuple[int, int]) -> bytes:
    branches: dict[str | None, list[np.ndarray]] = {}
    for item in maps:
        branches.setdefault(item.branch, []).append(_coarse(item, coarsest))
    together = np.mean([np.mean(each, axis=0) for each in branches.values()], axis=0).astype(np.float32)
    height, width = within(maps[0].shape, LONGEST_MAP)
    image = Image.fromarray(together).resize((width, height), Image.Resampling.BICUBIC)
    drawn = _blurred(np.asarray(image), BLUR * height / together.shape[0], BLUR * width / together.shape[1])
    ranks = np.empty(drawn.size, np.int64)
    ranks[np.argsort(drawn, axis=None, kind="stable")] = np.arange(drawn.size)
    grey = (ranks * 256 // drawn.size).astype(np.uint8).reshape(drawn.shape)
    return _png(Image.fromarray(lookup("inferno")[grey]))


def _coarse(item: Map, coarsest: tuple[int, int]) -> np.ndarray:
    """A map on half of the ``coarsest`` grid, with values that sum to 1; one that is 0 everywhere looked everywhere alike."""
    rows, columns = coarsest
    source = item.source
    grid = source.frame.heatmap_to_picture(source.grids, coarsest) if isinstance(source, Heatmap) else source
    image = Image.fromarray(np.ascontiguousarray(grid, dtype=np.float32))
    image = image.resize((columns, rows), Image.Resampling.BOX)
    coarse = np.asarray(image.resize((max(1, columns // 2), max(1, rows // 2)), Image.Resampling.BOX)).clip(min=0)
    total = float(coarse.sum())
    return coarse / total if total > 0 else np.full_like(coarse, 1 / coarse.size)


def _blurred(values: np.ndarray, down: float, across: float) -> np.ndarray:
    """``values`` under a Gaussian of so many pixels down and across; at the edges the outermost values go on."""
    for axis, width in ((0, down), (1, across)):
        reach = max(1, round(3 * width))
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(width, 1e-6)) ** 2)
        padded = np.pad(values, [(reach, reach) if axis == i else (0, 0) for i in (0, 1)], mode="edge")
        values = np.apply_along_axis(np.convolve, axis, padded, weights / weights.sum(), mode="valid")
    return values


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
