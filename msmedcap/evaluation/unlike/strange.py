"""Pictures the models never learnt from, by kind: scans turned, inverted or badly windowed, and no scans at all.

Comes in: held-back scans' pictures, and photographs where there are any. Goes out: pictures uint8 ``[H,W,3]``, by kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from msmedcap.data.scenes import make_scene

EACH = 20
_CROPS = 5
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def strange_pictures(
    scans: Sequence[np.ndarray], photos: Sequence[np.ndarray] = (), *, seed: int = 0
) -> Mapping[str, list[np.ndarray]]:
    """The kinds by name, at most :data:`EACH` pictures of each; those made of ``scans`` take every one in turn."""
    rng = np.random.default_rng(seed)
    kinds: dict[str, list[np.ndarray]] = {
        "scans upside down": [np.ascontiguousarray(p[::-1]) for p in _turn(scans, 0)],
        "scans a quarter turn round": [np.ascontiguousarray(np.rot90(p)) for p in _turn(scans, 1)],
        "scans, black and white exchanged": [255 - p for p in _turn(scans, 2)],
        "scans, window far too dark": [_windowed(p, 200, 255) for p in _turn(scans, 3)],
        "scans, window far too bright": [_windowed(p, 0, 24) for p in _turn(scans, 4)],
        "photographs": _crops(photos, rng)[:EACH],
        "drawn scenes": [make_scene(900_000 + i)[0] for i in range(EACH)],
        "pages of text": [_page(rng) for _ in range(EACH)],
        "noise": [_noise(rng, 0.5 * 2 ** (i % 6)) for i in range(EACH)],
        "one grey": [np.full((256, 256, 3), value, np.uint8) for value in np.linspace(0, 255, EACH).astype(int).tolist()],
    }
    return {name: pictures for name, pictures in kinds.items() if pictures}


def _turn(scans: Sequence[np.ndarray], first: int) -> list[np.ndarray]:
    return list(scans[first::5][:EACH])


def _windowed(picture: np.ndarray, low: int, high: int) -> np.ndarray:
    return np.clip((picture.astype(np.float32) - low) * 255 / (high - low), 0, 255).astype(np.uint8)


def _crops(photos: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Each photograph, then parts of each in turn."""
    found = list(photos)
    for _ in range(_CROPS):
        for photo in photos:
            side = int(min(photo.shape[:2]) * rng.uniform(0.5, 0.95))
            y, x = (int(rng.integers(0, n - side + 1)) for n in photo.shape[:2])
            found.append(photo[y : y + side, x : x + side])
    return found


def _page(rng: np.random.Generator) -> np.ndarray:
    page = Image.new("RGB", (400, 500), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    left = int(rng.integers(10, 50))
    for y in range(20, 480, int(rng.integers(13, 22))):
        line = " ".join("".join(rng.choice(list(_LETTERS), rng.integers(2, 9))) for _ in range(9))
        draw.text((left, y), line, fill=(0, 0, 0))
    return np.asarray(page)


def _noise(rng: np.random.Generator, sigma: float) -> np.ndarray:
    soft = ndimage.gaussian_filter(rng.standard_normal((256, 256)), sigma)
    grey = np.clip(128 + 60 * soft / soft.std(), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
