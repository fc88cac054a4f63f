"""What a reader gets to see, with nothing in it that tells the systems apart.

Comes in: captions, the picture as displayed, a system's maps. Goes out: captions that name no system, a PNG without metadata, and
one map for each caption whatever the system looked with: the attention of all layers and branches put together, on a coarse
common grid (the encoders' own grids differ, and would show), with the same grey values in every map. Where it looked remains;
a reader who knows how an encoder tends to look may still guess, which is why maps wait for the second stage.
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
from msmedcap.demo.viewer.encoding import lookup

if TYPE_CHECKING:
    from msmedcap.explain.maps import Map

LONGEST, LONGEST_MAP, GRID = 1280, 640, 12


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


def combined_map(maps: Iterable[Map]) -> bytes:
    """The attention of ``maps`` (one system's, of one picture) as one coloured PNG of the picture's shape.

    Raises :class:`UserError` where none of them is an attention map.
    """
    branches: dict[str | None, list[np.ndarray]] = {}
    shape = (0, 0)
    for item in maps:
        if item.kind == "attention":
            shape = item.shape
            branches.setdefault(item.branch, []).append(_coarse(item.values))
    if not branches:
        raise UserError("A system drew no attention map; make the study without a second stage.")
    together = np.mean([np.mean(each, axis=0) for each in branches.values()], axis=0).astype(np.float32)
    height, width = within(shape, LONGEST_MAP)
    drawn = np.asarray(Image.fromarray(together).resize((width, height), Image.Resampling.BICUBIC))
    ranks = np.empty(drawn.size, np.int64)
    ranks[np.argsort(drawn, axis=None, kind="stable")] = np.arange(drawn.size)
    grey = (ranks * 256 // drawn.size).astype(np.uint8).reshape(drawn.shape)
    return _png(Image.fromarray(lookup("inferno")[grey]))


def _coarse(values: np.ndarray) -> np.ndarray:
    """A map on the common grid, with values that sum to 1; a map that is 0 everywhere looked everywhere alike."""
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    coarse = np.asarray(image.resize((GRID, GRID), Image.Resampling.BOX)).clip(min=0)
    total = float(coarse.sum())
    return coarse / total if total > 0 else np.full_like(coarse, 1 / coarse.size)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
