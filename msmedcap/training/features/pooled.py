"""The demo recipe's cache: a few random views of every picture of a pool, for stages 1 and 2.

Comes in: a pool and the frozen encoders. Goes out: :class:`PoolCache`. All encoders see the same draw of a picture; a mirrored draw
swaps its caption's sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from msmedcap.config import ModelsConfig, ViewSpec
from msmedcap.data.captions import swap_sides
from msmedcap.data.store import Augmentation, Draw, PictureStore, draw, random_views
from msmedcap.training.features.cache import BATCH, FeatureCache, demand_room
from msmedcap.training.pool import Pool, caption_of


@dataclass(frozen=True)
class PoolCache:
    """``draws[k]`` holds the features of draw k of every picture, ``flipped [draws,P]`` whether it mirrors it."""

    draws: list[FeatureCache]
    flipped: Tensor
    captions: list[str]

    def batch(
        self, rows: Tensor, *, seed: int, only: Collection[str] | None = None
    ) -> tuple[dict[str, Tensor], list[str]]:
        """Features fp32 by encoder (``only`` those named) and captions of the pictures ``rows [B]``, all from one of the draws.

        ``seed`` picks the draw.
        """
        k = seed % len(self.draws)
        texts = [
            swap_sides(self.captions[row]) if flip else self.captions[row]
            for row, flip in zip(rows.tolist(), self.flipped[k][rows].tolist(), strict=True)
        ]
        return self.draws[k].batch(rows, only=only), texts


def cache_features(
    pool: Pool, encoders: Mapping[str, nn.Module], config: ModelsConfig, folder: Path, *, draws: int, strength: float
) -> PoolCache:
    """Encode ``draws`` random views of every picture of ``pool`` (the first is the plain one), but for what is in ``folder``.

    Raises :class:`~msmedcap.config.UserError` where the disk lacks room for all of them.
    """
    specs = {name: config.view(name) for name in encoders}
    count, pictures = len(pool.store), _digest(pool.store)
    names = [f"draw {k} of strength {strength if k else 0} of {pictures}" for k in range(draws)]
    ids = [str(row) for row in range(count)]
    caches = [FeatureCache(folder, ids, encoders=encoders, specs=specs, draw=name) for name in names]
    demand_room(caches, option="--work")
    for k, cache in enumerate(caches):
        cache.fill(partial(_views, pool.store, specs, k, strength))
    flipped = [torch.cat([_draw(count, start, k, strength).flipped for start in range(0, count, BATCH)]) for k in range(draws)]
    return PoolCache(caches, torch.stack(flipped), [caption_of(f) if f else "" for f in pool.facts])


def _views(store: PictureStore, specs: Mapping[str, ViewSpec], k: int, strength: float, rows: Tensor) -> dict[str, Tensor]:
    """Draw k of the pictures ``rows``: the same whichever rows are asked for together, and for every encoder."""
    starts = (rows // BATCH * BATCH).unique().tolist()
    whole = torch.cat([torch.arange(start, min(start + BATCH, len(store))) for start in starts])
    views = {
        name: torch.cat([
            random_views(store, torch.arange(s, min(s + BATCH, len(store))), spec, _draw(len(store), s, k, strength))
            for s in starts
        ])
        for name, spec in specs.items()
    }
    # Convolutions round otherwise in another layout of memory, and are twice as fast in this one.
    layout = torch.channels_last
    return {name: view[torch.searchsorted(whole, rows)].contiguous(memory_format=layout) for name, view in views.items()}


def _draw(count: int, start: int, k: int, strength: float) -> Draw:
    augmentation = Augmentation(strength, 0.5) if k else Augmentation(0.0, 0.0)
    return draw(min(BATCH, count - start), augmentation, 7_919 * k + start)


def _digest(store: PictureStore) -> str:
    digest = hashlib.sha256(store.extent.numpy().tobytes())
    for row in store.pixels:
        digest.update(row.numpy().tobytes())
    return digest.hexdigest()[:16]
