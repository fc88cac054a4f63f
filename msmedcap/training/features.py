"""Frozen encoders run once: cached features of a few random views of every picture, for stages 1 and 2.

Comes in: a pool and the frozen encoders. Goes out: :class:`FeatureCache`; one file for each encoder and draw, so that
a stopped run goes on with the next. Both encoders see the same draw of a picture; a mirrored draw swaps its caption's sides.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from msmedcap.config import ModelsConfig, ViewSpec
from msmedcap.data.captions import swap_sides
from msmedcap.data.store import Augmentation, Draw, draw, random_views
from msmedcap.training.pool import Pool, caption_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureCache:
    """``features[name][k]`` is encoder ``name``'s output for draw k of every picture ``[P,…]`` bf16; ``flipped [draws,P]``."""

    features: Mapping[str, list[Tensor]]
    flipped: Tensor
    captions: list[str]

    def batch(self, rows: Tensor, *, seed: int) -> tuple[dict[str, Tensor], list[str]]:
        """Features fp32 by encoder and captions of the pictures ``rows [B]``, all from one of the draws (``seed`` picks it)."""
        k = seed % len(self.flipped)
        texts = [
            swap_sides(self.captions[row]) if flip else self.captions[row]
            for row, flip in zip(rows.tolist(), self.flipped[k][rows].tolist(), strict=True)
        ]
        return {name: draws[k][rows].float() for name, draws in self.features.items()}, texts


def cache_features(
    pool: Pool, encoders: Mapping[str, nn.Module], config: ModelsConfig, folder: Path, *, draws: int, strength: float
) -> FeatureCache:
    """Encode ``draws`` random views of every picture of ``pool`` (the first is the plain one), reading back what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    views = draws * len(pool.store)
    features: dict[str, list[Tensor]] = {}
    for name, encoder in encoders.items():
        row = math.prod(_shape(encoder, config.view(name).size))
        log.info("feature cache of %s: %d views, %.1f GB in %s", name, views, views * row * 2 / 1e9, folder)
        features[name] = [_cached(pool, encoder, config.view(name), folder, k, strength) for k in range(draws)]
    flipped = torch.stack([torch.cat([c.flipped for _, c in _draws(pool, k, strength)]) for k in range(draws)])
    return FeatureCache(features, flipped, [caption_of(f) if f else "" for f in pool.facts])


def _draws(pool: Pool, k: int, strength: float) -> Iterator[tuple[Tensor, Draw]]:
    """Draw k of every picture, in parts: the same for every encoder, whenever it runs."""
    for part in torch.arange(len(pool.store)).split(32):
        augmentation = Augmentation(strength, 0.5) if k else Augmentation(0.0, 0.0)
        yield part, draw(len(part), augmentation, 7_919 * k + int(part[0]))


@torch.inference_mode()
def _cached(pool: Pool, encoder: nn.Module, spec: ViewSpec, folder: Path, k: int, strength: float) -> Tensor:
    file = folder / f"{spec.name}-{k}.safetensors"
    if not file.is_file():
        parts = []
        drawn = list(_draws(pool, k, strength))
        for rows, chosen in tqdm(drawn, desc=f"{spec.name} features, draw {k + 1}", mininterval=2):
            with torch.autocast("cpu", torch.bfloat16):
                parts.append(encoder(random_views(pool.store, rows, spec, chosen)).bfloat16().contiguous())
        # Renamed once complete: a file that is there can be trusted.
        save_file({"features": torch.cat(parts)}, file.with_suffix(".new"))
        file.with_suffix(".new").rename(file)
    return load_file(file)["features"]


def _shape(encoder: nn.Module, size: int) -> tuple[int, ...]:
    with torch.inference_mode():
        return tuple(encoder(torch.zeros(1, 3, size, size)).shape)
