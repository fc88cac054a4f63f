"""The batches of the segmenter's training: objects drawn by class, seen in a random view, with what else the picture shows.

Comes in: rows of :mod:`msmedcap.data.segments`, the classes that are learnt, the encoder's view, and (optionally) its features of
every view. Goes out: :class:`SegmentData`, which makes of a batch's number this process's share of that batch
(:class:`~msmedcap.training.segmentation.SegmentBatch`). Picture and masks of a view come from one draw; a mirrored view's
classes have their sides swapped.
"""

from __future__ import annotations

import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from msmedcap.config import UserError, ViewSpec
from msmedcap.data.captions import swap_sides
from msmedcap.data.scans import ScanError
from msmedcap.data.segments import SegmentedPicture
from msmedcap.data.store import Augmentation, Draw, draw, random_masks
from msmedcap.data.views import ViewFrame, make_view
from msmedcap.training.features import FeatureCache
from msmedcap.training.features.cache import BAD
from msmedcap.training.processes import place, share
from msmedcap.training.segmentation import UNNAMED, SegmentBatch
from msmedcap.training.task_data import changed

log = logging.getLogger(__name__)

# Fewer pixels of the view are no object to ask for, nor is their class then said to be there or not.
SMALLEST = 16
REMEMBERED = 2**30  # bytes of masks kept in memory
THREADS, AHEAD = 4, 2


def classes_of(rows: Sequence[SegmentedPicture], order: Sequence[str]) -> tuple[str, ...]:
    """The classes that ``rows`` show, in ``order``."""
    shown = {name for row in rows for name in row.names}
    return tuple(name for name in order if name in shown)


def mirrored(names: Sequence[str]) -> Tensor:
    """For each class the place of its other side's ``[K]``: itself where it has no side, :data:`UNNAMED` where that is no class."""
    number = {name: i for i, name in enumerate(names)}
    return torch.tensor([number.get(swap_sides(name), UNNAMED) for name in names])


@dataclass(frozen=True)
class Seen:
    """One view of one picture: ``masks [n,S,S]`` bool, ``classes [n]``, ``labelled [K]`` bool."""

    masks: Tensor
    classes: Tensor
    labelled: Tensor


@dataclass
class SegmentData:
    """The pictures of ``parts`` (data sets: how often each is drawn beside the others, and its rows), within each by class.

    ``draws`` views of each but of made scans (see :class:`~msmedcap.training.segment_config.SegmentTraining`); ``features`` of
    :meth:`views`, where they are known. Raises :class:`UserError` for no rows.
    """

    parts: Sequence[tuple[float, Sequence[SegmentedPicture]]]
    names: Sequence[str]
    spec: ViewSpec
    draws: int = 1
    strength: float = 0.7
    balance: float = 0.6
    seed: int = 0
    features: FeatureCache | None = None
    skipped: set[str] = field(default_factory=set)
    _masks: OrderedDict[int, tuple[np.ndarray, tuple[float, float]]] = field(default_factory=OrderedDict, repr=False)
    _bytes: int = 0

    def __post_init__(self) -> None:
        self.rows = [row for _, rows in self.parts for row in rows]
        if not self.rows:
            raise UserError("There are no pictures with masks to train on.")
        number = {name: i for i, name in enumerate(self.names)}
        self.kinds = [[UNNAMED if s.name is None else number.get(s.name, UNNAMED) for s in row.segments] for row in self.rows]
        self.labelled = torch.tensor([[name in row.labelled for name in self.names] for row in self.rows])
        self.mirror = mirrored(self.names)
        counts = [1 if row.source == "phantoms" else self.draws for row in self.rows]
        self.first = torch.tensor([0, *counts]).cumsum(0)
        self._known: set[int] | None = None
        self._owner = torch.arange(len(self.rows)).repeat_interleave(torch.tensor([len(k) for k in self.kinds]))
        self._reached = self._object_weights().cumsum(0)

    @property
    def samples(self) -> list[tuple[int, int]]:
        """Row and number of every view."""
        views = self.first.diff().tolist()
        return [(row, k) for row, count in enumerate(views) for k in range(count)]

    @property
    def ids(self) -> list[str]:
        """A name for every view that says what is seen."""
        more = f" {self.strength} {self.seed}"
        return [f"{r.source} {r.id} {k}{more if k else ''}" for row, k in self.samples for r in (self.rows[row],)]

    def views(self, samples: Tensor) -> dict[str, Tensor]:
        """What the encoder sees ``[b,3,S,S]`` of the views numbered ``samples [b]``, and which could not be read."""
        every = self.samples
        with ThreadPoolExecutor(THREADS) as readers:
            made = list(readers.map(lambda i: self.view(*every[i]), samples.tolist()))
        empty = torch.zeros(3, self.spec.size, self.spec.size)
        return {
            "sam": torch.stack([empty if view is None else view for view in made]),
            BAD: torch.tensor([view is None for view in made]),
        }

    def view(self, row: int, k: int) -> Tensor | None:
        """View ``k`` of a picture ``[3,S,S]``; None (once with a warning) where it cannot be read."""
        try:
            pixels = self.rows[row].pixels()
        except (ScanError, OSError) as error:
            self._skip(row, error)
            return None
        if k:
            image, most = Image.fromarray(pixels), 2 * self.spec.size
            if max(image.size) > most:  # turned by bilinear sampling, a large picture would alias
                scale = most / max(image.size)
                width, height = (max(1, round(side * scale)) for side in image.size)
                pixels = np.asarray(image.resize((width, height), Image.Resampling.BOX))
            pixels = changed(pixels, self.drawn(row, k))
        return make_view(pixels, self.spec)

    def drawn(self, row: int, k: int) -> Draw:
        """The random change of view ``k``; none of view 0."""
        chosen = Augmentation(self.strength, 0.5) if k else Augmentation(0.0, 0.0)
        own = self.rows[row]
        return draw(1, chosen, random.Random(f"{self.seed} {own.source} {own.id} {k}").getrandbits(31))

    def seen(self, row: int, k: int) -> Seen:
        """The masks and classes of view ``k``; raises :class:`UserError` where a mask cannot be read."""
        packed, extent = self._packed(row)
        side = self.spec.size
        masks = torch.from_numpy(np.unpackbits(packed, axis=1, count=side * side)).view(-1, side, side)
        classes, labelled = torch.tensor(self.kinds[row]), self.labelled[row]
        if not k:
            return Seen(masks.bool(), classes, labelled)
        chosen = self.drawn(row, k)
        masks = random_masks(masks[None], torch.tensor([extent]), self.spec, chosen)[0]
        if bool(chosen.flipped[0]):
            classes = torch.where(classes == UNNAMED, UNNAMED, self.mirror[classes])
            labelled = labelled[self.mirror] & (self.mirror != UNNAMED)
        return Seen(masks, classes, labelled)

    def batch(self, number: int, size: int, *, each: int) -> SegmentBatch:
        """This process's share of batch ``number`` of ``size`` pictures, ``each`` prompted objects of each.

        ``features`` are the encoder's where they are known, else its views ``[b,3,S,S]``.
        """
        mine, found = share(size), []
        samples: list[int] = []
        views: list[Tensor] = []
        for position in range(number * size + mine.start, number * size + mine.stop):
            generator = torch.Generator().manual_seed(random.Random(f"{self.seed} place {position}").getrandbits(62))
            sample, seen, view = self._one(generator)
            samples.append(sample)
            views += [] if view is None else [view]
            found.append((seen, self._asked(seen, each, generator)))
        classes = torch.cat([seen.classes[asked] for seen, asked in found])
        counts, known = zip(*(self._present(seen) for seen, _ in found), strict=True)
        if self.features is not None:
            features = self.features.batch(torch.tensor(samples))["sam"]
        else:
            features = torch.stack(views)
        picture = torch.arange(len(found)).repeat_interleave(each)
        masks = torch.cat([seen.masks[asked] for seen, asked in found])
        index, processes = place()  # no two processes draw the same prompts
        own = number * processes + index
        return SegmentBatch(features, masks, picture, classes, torch.stack(counts), torch.stack(known), own)

    def _one(self, generator: torch.Generator) -> tuple[int, Seen, Tensor | None]:
        """A view that can be read: its number, what it shows, and (without features) what the encoder sees."""
        for _ in range(100):
            chance = torch.rand((), generator=generator, dtype=torch.float64) * self._reached[-1]
            row = int(self._owner[torch.searchsorted(self._reached, chance).clamp(max=len(self._owner) - 1)])
            k = int(torch.randint(int(self.first[row + 1] - self.first[row]), (), generator=generator))
            sample = int(self.first[row]) + k
            view = self.view(row, k) if self.features is None else None
            if view is None and (self.features is None or not self._good(sample)):
                continue
            try:
                return sample, self.seen(row, k), view
            except UserError as error:
                self._skip(row, error)
        raise UserError(f"100 pictures in a row cannot be read, such as {sorted(self.skipped)[0]}; is the data where it was?")

    def _good(self, sample: int) -> bool:
        if self._known is None:
            assert self.features is not None
            self._known = set(self.features.good_rows().tolist())
        return sample in self._known

    def _asked(self, seen: Seen, each: int, generator: torch.Generator) -> Tensor:
        """Which ``each`` objects of a picture are asked for: of those to be seen, all before any twice."""
        fit = (seen.masks.flatten(1).sum(1) >= SMALLEST).nonzero()[:, 0]
        if not len(fit):
            fit = torch.arange(len(seen.masks))
        order = [fit[torch.randperm(len(fit), generator=generator)] for _ in range(-(-each // len(fit)))]
        return torch.cat(order)[:each]

    def _present(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """How many objects of each class are to be seen ``[K]``, and of which classes that is known ``[K]``."""
        area = seen.masks.flatten(1).sum(1)
        named = seen.classes != UNNAMED
        count = torch.bincount(seen.classes[named & (area >= SMALLEST)], minlength=len(self.names))
        specks = seen.classes[named & (area > 0) & (area < SMALLEST)]
        known = seen.labelled.clone()
        known[specks[count[specks] == 0]] = False
        return count, known

    def _object_weights(self) -> Tensor:
        """How often each object is the one a picture is drawn for."""
        kinds = torch.tensor([kind for own in self.kinds for kind in own]) + 1
        count = torch.bincount(kinds, minlength=len(self.names) + 1).clamp(min=1)
        rare = count.double() ** -self.balance
        each, start = rare[kinds], 0
        for weight, rows in self.parts:
            end = start + sum(len(row.segments) for row in rows)
            each[start:end] *= weight / each[start:end].sum()
            start = end
        return each

    def _packed(self, row: int) -> tuple[np.ndarray, tuple[float, float]]:
        """The masks of a picture as its plain view has them, a bit a pixel, and the picture's share of the view (height, width)."""
        if row in self._masks:
            return self._masks[row]
        masks = self.rows[row].masks()
        frame = ViewFrame(self.spec, *masks.shape[1:])
        packed = np.packbits(frame.masks_to_view(masks).reshape(len(masks), -1), axis=1)
        made = packed, (frame.height / frame.size, frame.width / frame.size)
        self._masks[row] = made
        self._bytes += packed.nbytes
        while self._bytes > REMEMBERED:
            self._bytes -= self._masks.popitem(last=False)[1][0].nbytes
        return made

    def _skip(self, row: int, error: Exception) -> None:
        own = self.rows[row]
        if own.id not in self.skipped:
            self.skipped.add(own.id)
            log.warning("%s %s is left out: %s", own.source, own.id, error)


class Ahead:
    """``make(k)`` for every k below ``count``, the next ones made meanwhile; use it as a context, which ends its thread."""

    def __init__(self, make: Callable[[int], SegmentBatch], count: int) -> None:
        self.make, self.count = make, count
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._waiting: dict[int, Future[SegmentBatch]] = {}

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)

    def __call__(self, number: int) -> SegmentBatch:
        """Batch ``number``."""
        wanted = [number, *range(number + 1, min(number + 1 + AHEAD, self.count))]
        self._waiting = {k: self._waiting.get(k) or self._worker.submit(self.make, k) for k in wanted}
        return self._waiting.pop(number).result()


def fill(data: SegmentData, cache: FeatureCache) -> None:
    """Encode every view of ``data`` that ``cache`` lacks, and take the features from there."""
    cache.fill(data.views, option="--set cache=DIR")
    data.features = cache


