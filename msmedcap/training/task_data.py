"""The batches of a training: drawn, opened ahead by a few threads, and seen as each encoder sees them.

Comes in: a :class:`~msmedcap.training.mixture.Mixture` and the views wanted. Goes out: :class:`Batches`, a function of the batch's
number: this process's share of it, the same pictures, captions and random changes however many processes share it and wherever a
run goes on. With a feature cache the frozen encoders have seen every picture once and the batches hold their features.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn

from msmedcap.config import ViewSpec
from msmedcap.data.captions import swap_sides
from msmedcap.data.store import Augmentation, Draw, draw
from msmedcap.data.views import make_view
from msmedcap.training.features import FeatureCache
from msmedcap.training.features.cache import BAD
from msmedcap.training.mixture import Mixture
from msmedcap.training.processes import share

THREADS, AHEAD = 4, 2


@dataclass(frozen=True)
class Batch:
    """A process's share of a batch: ``inputs`` by view, each ``[b,3,S,S]`` (or the encoder's features), and b captions."""

    inputs: dict[str, Tensor]
    captions: list[str]


class Batches:
    """The first ``count`` batches of ``size`` pictures of ``mixture``, over all processes; call it with a batch's number.

    Of several captions one is drawn at every visit. ``augment`` (0 to 1) is how far pictures are changed at random; half of them
    are then mirrored, with the sides in their captions swapped. ``features`` takes the place of views. Use it as a context, which
    ends its threads.
    """

    def __init__(
        self,
        mixture: Mixture,
        specs: Mapping[str, ViewSpec],
        *,
        size: int,
        count: int,
        seed: int = 0,
        augment: float = 0.0,
        features: FeatureCache | None = None,
        threads: int = THREADS,
    ) -> None:
        if augment and features is not None:
            raise ValueError("A cache knows each picture as it is.")
        self.mixture, self.specs, self.size, self.count = mixture, specs, size, count
        self.seed, self.augment, self.features = seed, augment, features
        self._known = set(features.good_rows().tolist()) if features is not None else set()
        self._readers = ThreadPoolExecutor(threads, thread_name_prefix="pictures")
        self._makers = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._waiting: dict[int, Future[Batch]] = {}

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for pool in (self._makers, self._readers):
            pool.shutdown(wait=True, cancel_futures=True)

    def __call__(self, number: int) -> Batch:
        """This process's share of batch ``number``; the next ones are made meanwhile."""
        wanted = [number, *range(number + 1, min(number + 1 + AHEAD, self.count))]
        self._waiting = {k: self._waiting.get(k) or self._makers.submit(self._make, k) for k in wanted}
        return self._waiting.pop(number).result()

    @property
    def bad(self) -> int:
        """How many pictures could not be read so far."""
        return len(self.features.bad_rows()) if self.features is not None else self.mixture.skipped.count

    def _make(self, number: int) -> Batch:
        mine = share(self.size)
        first = number * self.size + mine.start
        rows = self.mixture.rows(first, mine.stop - mine.start).tolist()
        places = range(first, first + len(rows))
        if self.features is not None:
            return self._remembered(places, rows)
        made = list(self._readers.map(self._one, places, rows))
        views = {name: torch.stack([views[name] for views, _ in made]) for name in self.specs}
        return Batch(views, [caption for _, caption in made])

    def _one(self, place: int, row: int) -> tuple[dict[str, Tensor], str]:
        """The views and the caption of the draw numbered ``place``."""
        picture = self.mixture.open(row)
        pixels, caption = picture.pixels, self._said(place, picture.captions)
        if self.augment:
            drawn = draw(1, Augmentation(self.augment, 0.5), random.Random(f"{self.seed} change {place}").getrandbits(31))
            pixels = changed(pixels, drawn)
            caption = swap_sides(caption) if bool(drawn.flipped[0]) else caption
        return views_of(pixels, self.specs), caption

    def _remembered(self, places: Sequence[int], rows: Sequence[int]) -> Batch:
        assert self.features is not None
        good = [self.mixture.good(row, self._known.__contains__) for row in rows]
        captions = [self._said(place, self.mixture.case(row).references) for place, row in zip(places, good, strict=True)]
        return Batch(self.features.batch(torch.tensor(good), only=tuple(self.specs)), captions)

    def _said(self, place: int, captions: Sequence[str]) -> str:
        return captions[random.Random(f"{self.seed} caption {place}").randrange(len(captions))]


def views_of(pixels: np.ndarray, specs: Mapping[str, ViewSpec]) -> dict[str, Tensor]:
    """Each encoder's view ``[3,S,S]`` of a picture uint8 ``[H,W,3]``."""
    return {name: make_view(pixels, spec) for name, spec in specs.items()}


def changed(pixels: np.ndarray, drawn: Draw) -> np.ndarray:
    """A picture uint8 ``[H,W,3]`` as the one random draw ``drawn`` turns, shifts, mirrors and shades it; same size."""
    height, width = pixels.shape[:2]
    centre, half = np.array([width, height]) / 2, max(width, height) / 2
    turn, shift = drawn.affine[0, :, :2].double().numpy(), drawn.affine[0, :, 2].double().numpy()
    offset = centre - turn @ centre + shift * half
    affine = (*turn[0], offset[0], *turn[1], offset[1])
    image = Image.fromarray(pixels)
    if bool(drawn.blur[0]):
        image = image.filter(ImageFilter.BoxBlur(1))
    image = image.transform((width, height), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    values = (np.asarray(image, np.float32) / 255) ** float(drawn.gamma[0]) * float(drawn.gain[0]) + float(drawn.shift[0])
    noise = np.random.default_rng(drawn.seed).standard_normal((height, width, 1), np.float32)
    values = (values + noise * float(drawn.noise[0])).clip(0, 1) * 255
    return (values + 0.5).astype(np.uint8)


def remember(
    mixture: Mixture, encoders: Mapping[str, nn.Module], specs: Mapping[str, ViewSpec], folder: Path, *, threads: int = THREADS
) -> FeatureCache:
    """The features of every picture of ``mixture``, each encoded once: what lacks in ``folder`` is made by all processes together.

    Raises :class:`~msmedcap.config.UserError` where the disk lacks room.
    """
    ids = [f"{case.image} {case.id} {case.box}" for cases in mixture.cases for case in cases]
    cache = FeatureCache(folder, ids, encoders=encoders, specs=specs)

    with ThreadPoolExecutor(threads) as readers:

        def one(row: int) -> dict[str, Tensor] | None:
            picture = mixture.read(row)
            return None if picture is None else views_of(picture.pixels, specs)

        def views(rows: Tensor) -> dict[str, Tensor]:
            made = list(readers.map(one, rows.tolist()))
            empty = {name: torch.zeros(3, spec.size, spec.size) for name, spec in specs.items()}
            found = {name: torch.stack([(view or empty)[name] for view in made]) for name in specs}
            return {**found, BAD: torch.tensor([view is None for view in made])}

        cache.fill(views, option="--set cache=DIR")
    return cache
