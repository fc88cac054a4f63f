"""Near-duplicate groups of pictures, by perceptual hash.

Public label sets hold the same film twice, resized or recompressed; a split that separates the two copies measures memory.
Comes in: picture files. Goes out: for each the index of the first picture of its group. A file that cannot be read is a group
of its own: it is found and counted when it is its turn to be opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.fft import dctn

# Pictures compared with all others at once; what a comparison needs does not grow with the square of the set.
_BLOCK = 1024
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
    hashes = [_hash_or_none(path) for path in paths]
    read = [i for i, found in enumerate(hashes) if found is not None]
    parent = list(range(len(paths)))
    if not read:
        return parent
    bits = np.stack([found for found in hashes if found is not None]).astype(np.float32)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for start in range(0, len(read), _BLOCK):
        near = hamming(bits[start : start + _BLOCK], bits[start:]) <= distance
        for i, j in zip(*np.nonzero(np.triu(near, 1)), strict=True):
            a, b = root(read[start + int(i)]), root(read[start + int(j)])
            parent[max(a, b)] = min(a, b)
    return [root(i) for i in range(len(paths))]


def _hash_or_none(path: Path) -> np.ndarray | None:
    try:
        return perceptual_hash(path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def hamming(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pairwise count of differing bits between ``a [N,K]`` and ``b [M,K]`` of zeros and ones: ``[N,M]``."""
    return a.sum(1)[:, None] + b.sum(1)[None] - 2 * (a @ b.T)
