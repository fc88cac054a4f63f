"""Pictures in memory for training: grey squares, and random views of them for each encoder.

Comes in: pictures ``[H,W,3] uint8``. Goes out: :class:`PictureStore`, and from it augmented ``"clip"`` and ``"sam"`` views whose
geometry is the encoders' own (:mod:`msmedcap.data.views`), both from one draw, so that the two branches see the same picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from msmedcap.config import ViewSpec

SIDE = 320


@dataclass(frozen=True)
class PictureStore:
    """``pixels [P,320,320] uint8``: each picture's luma, longest side 320, at the top left; ``extent [P,2]`` its (h,w) share."""

    pixels: Tensor
    extent: Tensor

    def __len__(self) -> int:
        return self.pixels.shape[0]

    @staticmethod
    def of(pictures: Iterable[np.ndarray]) -> PictureStore:
        """A store of ``pictures`` (each ``[H,W,3]`` or ``[H,W] uint8``), read one after the other."""
        rows = [_letterbox(p) for p in pictures]
        return PictureStore(torch.stack([r[0] for r in rows]), torch.tensor([r[1] for r in rows]))

    @staticmethod
    def join(stores: Iterable[PictureStore]) -> PictureStore:
        """Several stores as one, in order."""
        parts = list(stores)
        return PictureStore(torch.cat([s.pixels for s in parts]), torch.cat([s.extent for s in parts]))


def _letterbox(picture: np.ndarray) -> tuple[Tensor, tuple[float, float]]:
    image = Image.fromarray(picture).convert("L")
    scale = SIDE / max(image.size)
    width, height = (max(1, int(side * scale + 0.5)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    square = np.zeros((SIDE, SIDE), np.uint8)
    square[:height, :width] = np.asarray(small)
    return torch.from_numpy(square), (height / SIDE, width / SIDE)


@dataclass(frozen=True)
class Augmentation:
    """How far a random view may go; ``strength`` 0 is the plain picture. ``flip`` is the chance of a mirror image."""

    strength: float = 1.0
    flip: float = 0.5


@dataclass(frozen=True)
class Draw:
    """One random draw for B pictures: ``affine [B,2,3]`` (output → input, in half-picture units, isotropic), intensities, flips."""

    affine: Tensor
    gamma: Tensor
    gain: Tensor
    shift: Tensor
    noise: Tensor
    blur: Tensor
    flipped: Tensor
    seed: int


def draw(count: int, augmentation: Augmentation, seed: int) -> Draw:
    """The random draw that ``seed`` names, for ``count`` pictures."""
    g = torch.Generator().manual_seed(seed)
    s = augmentation.strength

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=g) * (high - low) + low

    angle = uniform(-0.26, 0.26) * s
    zoom = torch.exp(uniform(-0.35, 0.18) * s)
    stretch = torch.exp(uniform(-0.12, 0.12) * s)
    flipped = torch.rand(count, generator=g) < augmentation.flip
    mirror = torch.where(flipped, -1.0, 1.0)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    shift_x, shift_y = uniform(-0.15, 0.15) * s, uniform(-0.15, 0.15) * s
    rows = [cos * mirror * stretch, -sin / stretch, shift_x, sin * mirror * stretch, cos / stretch, shift_y]
    affine = torch.stack(rows, dim=1).view(count, 2, 3)
    return Draw(
        affine=affine,
        gamma=torch.exp(uniform(-0.35, 0.35) * s),
        gain=1 + uniform(-0.25, 0.25) * s,
        shift=uniform(-0.12, 0.12) * s,
        noise=uniform(0, 0.05) * s * (torch.rand(count, generator=g) < 0.5),
        blur=torch.rand(count, generator=g) < 0.3 * s,
        flipped=flipped,
        seed=seed + 1,
    )


def random_views(store: PictureStore, rows: Tensor, spec: ViewSpec, chosen: Draw) -> Tensor:
    """The drawn views of the pictures ``rows [B]`` for one encoder, normalised: ``[B,3,S,S]``, on the CPU."""
    extent = store.extent[rows]
    pixels = store.pixels[rows].float().unsqueeze(1) / 255
    if spec.size * 2 <= SIDE:  # halve by area first: bilinear sampling alone would alias
        pixels = F.avg_pool2d(pixels, 2)
    pixels = torch.where(chosen.blur[:, None, None, None], F.avg_pool2d(pixels, 3, 1, 1), pixels)
    grid, inside = _sampling_grid(extent, spec, chosen.affine)
    view = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    per_picture = (-1, 1, 1, 1)
    view = view.clamp(0, 1) ** chosen.gamma.view(per_picture)
    view = view * chosen.gain.view(per_picture) + chosen.shift.view(per_picture)
    noise = torch.randn(view.shape, generator=torch.Generator().manual_seed(chosen.seed))
    view = (view + noise * chosen.noise.view(per_picture)).clamp(0, 1) * 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    return torch.where(inside, (view - mean) / std, 0.0).contiguous(memory_format=torch.channels_last)


def random_masks(masks: Tensor, extent: Tensor, spec: ViewSpec, chosen: Draw) -> Tensor:
    """Masks ``[B,K,s,s]`` (laid out as the store's squares) as the drawn views show them: ``[B,K,S,S]`` bool."""
    grid, inside = _sampling_grid(extent, spec, chosen.affine)
    return (F.grid_sample(masks.float(), grid, mode="bilinear", align_corners=False) > 0.5) & inside


def _sampling_grid(extent: Tensor, spec: ViewSpec, affine: Tensor) -> tuple[Tensor, Tensor]:
    """Where in the store's square each view pixel looks ``[B,S,S,2]``, and whether it lies on the picture ``[B,1,S,S]``."""
    count = extent.shape[0]
    axis = (torch.arange(spec.size) + 0.5) / spec.size * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    place = torch.stack([x, y], dim=-1).expand(count, -1, -1, -1)
    # In units of half the picture's longest side, seen from the picture's centre.
    half = extent.flip(1)[:, None, None, :]
    if spec.fit == "squash":
        centred = place * half
        inside = torch.ones(count, 1, spec.size, spec.size, dtype=torch.bool)
    else:
        corner = place + 1
        inside = (corner <= 2 * half).all(-1).unsqueeze(1)
        centred = corner - half
    moved = centred @ affine[:, :, :2].transpose(1, 2)[:, None] + affine[:, None, None, :, 2]
    return moved + half - 1, inside
