"""Each encoder's own view of the original picture, and the way back.

In: a picture as displayed (``uint8 [H,W,3]``) and a :class:`~msmedcap.config.ViewSpec`. Out: the encoder's tensor
(:func:`make_view`) and a :class:`ViewFrame`, which carries points, boxes, masks and heatmaps between the two frames.

Both frames count pixels the same way: pixel ``i`` covers ``[i, i + 1)`` and its centre is at ``i + 0.5``; points are
continuous ``(x, y)``. A view is the picture scaled to :attr:`ViewFrame.width` x :attr:`ViewFrame.height` at its top left; what
is left of the square (letterbox only) is padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image

from msmedcap.config import UserError, ViewSpec
from msmedcap.data.sizes import within


def make_view(picture: np.ndarray, spec: ViewSpec) -> torch.Tensor:
    """The view of ``picture`` (uint8 [H,W,3], 0-255) an encoder takes: float32 [3,S,S], S = ``spec.size``, normalised.

    ``squash`` is the BLIP-2 hub processing (PIL bicubic to the square, then ``(x - mean) / std``), ``letterbox`` is SAM's
    (longest side to S, PIL bilinear, normalise, zeros at the right and bottom). Raises ``ValueError`` on another picture type.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise ValueError(f"A picture is uint8 [H,W,3], not {picture.dtype} {list(picture.shape)}.")
    frame = ViewFrame(spec, *picture.shape[:2])
    image = Image.fromarray(picture)
    if spec.grey:
        image = image.convert("L").convert("RGB")
    resample = Image.Resampling.BICUBIC if spec.fit == "squash" else Image.Resampling.BILINEAR
    pixels: np.ndarray = np.array(image.resize((frame.width, frame.height), resample), dtype=np.float32)
    pixels = (pixels - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    view = torch.zeros(3, spec.size, spec.size)
    view[:, : frame.height, : frame.width] = torch.from_numpy(pixels).permute(2, 0, 1)
    return view


class ViewFrame:
    """Where a picture of ``picture_height`` x ``picture_width`` pixels lies in a view of ``spec``.

    ``height`` and ``width`` are the picture's size inside the view, in view pixels; it starts at the view's top left.
    """

    def __init__(self, spec: ViewSpec, height: int, width: int) -> None:
        """Raises ``UserError`` on an unknown ``spec.fit`` and ``ValueError`` on an empty picture."""
        if height < 1 or width < 1:
            raise ValueError(f"A picture has at least one pixel, not {height} x {width}.")
        self.size = spec.size
        self.picture_height, self.picture_width = height, width
        if spec.fit == "squash":
            self.height = self.width = spec.size
        elif spec.fit == "letterbox":
            scale = spec.size / max(height, width)
            # A very long, thin picture would round to nothing; one row of it is still a picture.
            self.height, self.width = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
        else:
            raise UserError(f"The view {spec.name!r} has fit {spec.fit!r}; it must be 'squash' or 'letterbox'.")

    def points_to_view(self, xy: ArrayLike) -> np.ndarray:
        """Points [N,2] (x, y) from the picture's frame to the view's, float32."""
        return self._scaled(xy, 1)

    def points_to_picture(self, xy: ArrayLike) -> np.ndarray:
        """Points [N,2] (x, y) from the view's frame to the picture's, float32; padding lies outside the picture."""
        return self._scaled(xy, -1)

    def boxes_to_view(self, boxes: ArrayLike) -> np.ndarray:
        """Boxes [N,4] (x0, y0, x1, y1) from the picture's frame to the view's, float32."""
        return self._scaled(boxes, 1)

    def boxes_to_picture(self, boxes: ArrayLike) -> np.ndarray:
        """Boxes [N,4] (x0, y0, x1, y1) from the view's frame to the picture's, float32."""
        return self._scaled(boxes, -1)

    def masks_to_view(self, masks: ArrayLike) -> np.ndarray:
        """Masks bool [...,H,W] of the picture as bool [...,S,S] of the view (nearest pixel centre; padding is False)."""
        masks = np.asarray(masks, dtype=bool)
        self._demand(masks.shape[-2:], (self.picture_height, self.picture_width))
        view = np.zeros((*masks.shape[:-2], self.size, self.size), dtype=bool)
        rows = _nearest(self.height, self.picture_height)
        view[..., : self.height, : self.width] = masks[..., rows, :][..., _nearest(self.width, self.picture_width)]
        return view

    def masks_to_picture(self, masks: ArrayLike) -> np.ndarray:
        """Masks bool [...,S,S] of the view as bool [...,H,W] of the picture (nearest pixel centre).

        Undoes :meth:`masks_to_view` exactly wherever the view is no smaller than the picture.
        """
        masks = np.asarray(masks, dtype=bool)
        self._demand(masks.shape[-2:], (self.size, self.size))
        return masks[..., _nearest(self.picture_height, self.height), :][..., _nearest(self.picture_width, self.width)]

    def heatmap_to_picture(self, grid: ArrayLike, size: tuple[int, int] | None = None) -> np.ndarray:
        """A token grid [h,w] over the whole view, padding included, as float32 [H,W] of the picture.

        Bilinear between the tokens' centres (an average where the picture is coarser than the grid), held at the edges;
        the padding's tokens are cropped away. ``size`` (height, width) draws the whole picture with other pixels than its own.
        """
        height, width = size or (self.picture_height, self.picture_width)
        grid = np.asarray(grid, dtype=np.float32)
        if grid.ndim != 2 or not grid.size:
            raise ValueError(f"A heatmap is a grid [h,w], not {list(grid.shape)}.")
        rows = _bilinear(height, grid.shape[0], self.height / self.size)
        columns = _bilinear(width, grid.shape[1], self.width / self.size)
        return np.asarray(rows @ grid @ columns.T, dtype=np.float32)

    def logits_to_picture(self, grid: ArrayLike) -> np.ndarray:
        """A mask's logits [h,w] over the whole view as its mask, bool [H,W] of the picture: :meth:`heatmap_to_picture` above 0.

        Only the part of the picture that a logit above 0 can reach is computed: a large scan's mask must not wait for the rest.
        """
        grid = np.asarray(grid, dtype=np.float32)
        mask = np.zeros((self.picture_height, self.picture_width), dtype=bool)
        above: np.ndarray = grid > 0
        if above.any():
            rows, y = _reached(
                _bilinear(self.picture_height, grid.shape[0], self.height / self.size), np.asarray(above.any(1))
            )
            columns, x = _reached(
                _bilinear(self.picture_width, grid.shape[1], self.width / self.size), np.asarray(above.any(0))
            )
            mask[y, x] = rows @ grid @ columns.T > 0
        return mask

    def _scaled(self, values: ArrayLike, power: int) -> np.ndarray:
        factors = np.array([self.width / self.picture_width, self.height / self.picture_height]) ** power
        array = np.asarray(values, dtype=np.float64)
        return (array * np.tile(factors, array.shape[-1] // 2)).astype(np.float32)

    @staticmethod
    def _demand(shape: tuple[int, ...], wanted: tuple[int, int]) -> None:
        if shape != wanted:
            raise ValueError(f"The masks are {list(shape)}, but this frame needs {list(wanted)}.")


@dataclass(frozen=True)
class Heatmap:
    """Token grids over the whole view, with where the picture lies in it: a map that takes no more memory than its tokens.

    ``grids [h,w]`` or ``[C,h,w]`` float. Pixels are made when they are asked for (:meth:`draw`).
    """

    frame: ViewFrame
    grids: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """The picture's (height, width)."""
        return self.frame.picture_height, self.frame.picture_width

    def draw(self, longest: int | None = None) -> np.ndarray:
        """The picture's pixels float32 [H,W] or [C,H,W]; with ``longest`` no side has more, and the shape is kept."""
        size = within(self.shape, longest)
        if self.grids.ndim == 2:
            return self.frame.heatmap_to_picture(self.grids, size)
        return np.stack([self.frame.heatmap_to_picture(grid, size) for grid in self.grids])


def _nearest(out: int, source: int) -> np.ndarray:
    """For each of ``out`` pixels the index of the ``source`` pixel under its centre, over the same extent."""
    return np.minimum(((np.arange(out) + 0.5) * source / out).astype(int), source - 1)


def _reached(weights: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, slice]:
    """The rows of ``weights [pixels, tokens]`` that read one of ``tokens`` (bool), and where they are: one run of pixels."""
    found = np.flatnonzero((weights[:, tokens] > 0).any(1))
    run = slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)  # padding may hold the only ones
    return weights[run], run


def _bilinear(pixels: int, tokens: int, share: float) -> np.ndarray:
    """Weights [pixels, tokens] (rows sum to 1) reading ``pixels`` off the first ``share`` of a row of ``tokens``."""
    step = tokens * share / pixels
    centres = (np.arange(pixels) + 0.5) * step - 0.5
    weights = np.maximum(0.0, 1.0 - np.abs(centres[:, None] - np.arange(tokens)) / max(1.0, step))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
