"""How unlike the pictures that the models learnt from a scan is, told from what the encoders make of it.

Comes in: the encoders' outputs, which a caption needs anyway. Goes out: a distance, and a sentence where it is larger than that of
nearly all scans of the kinds the models know. A picture's features (the mean of all places and how they vary) are whitened and
compared with those of training pictures kept for this: the distance is the mean to the nearest few. What was learnt lies beside
the weights (``unlike.safetensors``, ``unlike.json``); without these files nothing is checked.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

log = logging.getLogger(__name__)

ARRAYS, FACTS = "unlike.safetensors", "unlike.json"
NEAREST = 5
AXES = 32
PARTS = ("mean", "axes", "spread", "kept")


@dataclass(frozen=True)
class Known:
    """What one encoder's features of training pictures look like: ``mean [F]``, whitening ``axes [F,K]``, ``kept [n,K]``.

    ``spread`` is how far training pictures typically lie off the axes: what no axis tells is one more coordinate.
    """

    mean: Tensor
    axes: Tensor
    spread: Tensor
    kept: Tensor

    def distance(self, features: Tensor) -> Tensor:
        """``features [B,F]`` to ``[B]``: the mean distance to the nearest few training pictures."""
        gaps = torch.cdist(self.whitened(features), self.kept.float())
        return gaps.topk(min(NEAREST, len(self.kept)), dim=1, largest=False).values.mean(1)

    def whitened(self, features: Tensor) -> Tensor:
        """``features [B,F]`` on the axes, each with variance 1 over the training pictures: ``[B,K+1]``."""
        centred = features.float() - self.mean.float()
        found = centred @ self.axes.float()
        # The axes are whitened, not of length 1: project back with lengths of 1 to see what they leave.
        flat = torch.nn.functional.normalize(self.axes.float(), dim=0)
        rest = (centred - (centred @ flat) @ flat.T).norm(dim=1, keepdim=True)
        return torch.cat([found, rest / self.spread.float()], dim=1)

    @staticmethod
    def fit(features: Tensor, *, keep: Tensor, axes: int = AXES) -> Known:
        """Of training pictures' ``features [n,F]``; ``keep`` are the rows that are kept for comparison."""
        mean = features.mean(0)
        centred = features - mean
        _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)
        count = min(axes, int((sizes > 1e-6 * sizes[0]).sum()))
        scales = sizes[:count] / max(1, len(features) - 1) ** 0.5
        flat = directions[:count].T
        rest = (centred - (centred @ flat) @ flat.T).norm(dim=1)
        known = Known(mean, flat / scales, rest.mean().clamp(min=1e-6), torch.empty(0))
        return Known(known.mean, known.axes, known.spread, known.whitened(features[keep]))


@dataclass(frozen=True)
class Limit:
    """Of the distances of pictures split off the training's: the median (``typical``) and the ``limit`` that ``share`` keep.

    ``heard`` is the share of other held-back pictures that are farther (the false alarms measured), of ``pictures``.
    """

    typical: float
    limit: float
    share: float
    heard: float
    pictures: int


@dataclass(frozen=True)
class Unlike:
    """The check for a models folder: what each encoder knows, ``sizes`` of the views it knows it at, and the limits.

    ``limits`` are by encoders, such as ``clip``, ``sam`` and ``clip+sam``: a distance is in units of the encoder's typical one,
    that of several the mean of theirs.
    """

    known: Mapping[str, Known]
    sizes: Mapping[str, int]
    limits: Mapping[str, Limit]

    def distance(self, pooled_by_view: Mapping[str, Tensor]) -> tuple[str, Tensor]:
        """The name of the limit that applies and the distances ``[B]``, 1 being that of a typical scan."""
        views = [view for view in self.known if view in pooled_by_view]
        parts = [self.known[view].distance(pooled_by_view[view]) / self.limits[view].typical for view in views]
        return "+".join(views), torch.stack(parts).mean(0)

    def sentences(self, features: Mapping[str, Tensor]) -> list[str | None]:
        """For each picture of the encoders' outputs ``features`` (all known here), the warning it deserves, if any.

        Nothing for no features.
        """
        if not features:
            return []
        name, distances = self.distance({view: pooled(values).cpu() for view, values in features.items()})
        limit = self.limits[name]
        return [told(float(value), limit) if value > limit.limit else None for value in distances]

    def save(self, folder: Path) -> None:
        """Write both files into ``folder``; what lay there before is replaced."""
        arrays = {
            f"{view}.{part}": getattr(known, part).half().contiguous() for view, known in self.known.items() for part in PARTS
        }
        save_file(arrays, folder / ARRAYS)
        facts = {"sizes": dict(self.sizes), "limits": {name: asdict(limit) for name, limit in self.limits.items()}}
        (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def told(distance: float, limit: Limit) -> str:
    """The sentence for a picture at ``distance``."""
    return (
        f"This picture is unlike those the models learnt from (distance {distance:.1f}; {limit.share:.0%} of scans of the kinds "
        f"they know lie below {limit.limit:.1f}): its captions may be unreliable."
    )


def pooled(features: Tensor) -> Tensor:
    """An encoder's output for B pictures, tokens ``[B,N,D]`` or a feature map ``[B,C,h,w]``, as ``[B,F]``: mean and spread."""
    places = features.float().flatten(2).transpose(1, 2) if features.ndim == 4 else features.float()
    return torch.cat([places.mean(1), places.std(1)], dim=1)


def load(folder: Path) -> Unlike | None:
    """The check that lies in ``folder``, or None: without the files, or where they are damaged (which is logged)."""
    files = (folder / ARRAYS, folder / FACTS)
    if not all(file.is_file() for file in files):
        return None
    return _load(folder, *(file.stat().st_mtime_ns for file in files))


@lru_cache(maxsize=4)
def _load(folder: Path, *_changed: int) -> Unlike | None:
    try:
        arrays, facts = load_file(folder / ARRAYS), json.loads((folder / FACTS).read_text(encoding="utf-8"))
        known = {view: Known(*(arrays[f"{view}.{part}"].float() for part in PARTS)) for view in facts["sizes"]}
        return Unlike(known, facts["sizes"], {name: Limit(**limit) for name, limit in facts["limits"].items()})
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be used, so no scan is checked against the training data: %s", folder / ARRAYS, error)
        return None
