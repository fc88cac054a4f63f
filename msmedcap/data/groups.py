"""Near-duplicate groups of pictures, by perceptual hash.

Public label sets hold the same film twice, resized or recompressed; a split that separates the two copies measures memory.
Comes in: picture files. Goes out: for each the index of the first picture of its group.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.fft import dctn

# Bits of the 255-bit hash two copies may differ in: recompression and rescaling stay well under it.
MAX_DISTANCE = 36


def perceptual_hash(path: Path) -> np.ndarray:
    """The signs of the 255 lowest cosine coefficients of the 64 × 64 grey picture: ``[255] bool``."""
    with Image.open(path) as image:
        image.draft("L", (128, 128))
        grey = np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BOX), dtype=np.float32)
    low = dctn(grey, norm="ortho")[:16, :16].ravel()[1:]
    return low > np.median(low)


def near_duplicate_groups(paths: Sequence[Path], *, distance: int = MAX_DISTANCE) -> list[int]:
    """For every picture the index of the first member of its group; chains of near-duplicates make one group."""
    if not paths:
        return []
    bits = np.stack([perceptual_hash(p) for p in paths]).astype(np.float32)
    parent = list(range(len(paths)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in zip(*np.nonzero(np.triu(hamming(bits, bits) <= distance, 1)), strict=True):
        a, b = root(int(i)), root(int(j))
        parent[max(a, b)] = min(a, b)
    return [root(i) for i in range(len(paths))]


def hamming(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pairwise count of differing bits between ``a [N,K]`` and ``b [M,K]`` of zeros and ones: ``[N,M]``."""
    return a.sum(1)[:, None] + b.sum(1)[None] - 2 * (a @ b.T)
