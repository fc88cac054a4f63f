"""What the encoders' features of the training data look like, and from which distance on a scan is told to be unlike them.

Comes in: a models folder, the data folder. Goes out: the two files beside the weights. Features are of training pictures (which the
distance is measured to), of pictures split off them by patient (which set the limit) and of pictures held back from everything (on
which the false alarms are counted).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from msmedcap import checkpoints
from msmedcap.captioning import Features
from msmedcap.data.phantoms import phantoms
from msmedcap.data.scans import ScanError
from msmedcap.data.sets import Case, open_case
from msmedcap.data.views import make_view
from msmedcap.evaluation.unlike.strange import strange_pictures
from msmedcap.explain.unlike import FACTS, Known, Limit, Unlike, pooled
from msmedcap.training.pool import read_cases

log = logging.getLogger(__name__)

SHARE = 0.95
"""The share of scans of the kinds the models know that no warning is meant to reach."""
MOST = {"medpix": 360, "cxr_labels": 120, "busi": 110, "cxr_seg": 60, "phantoms": 60}
"""How many training pictures of each source are looked at; of pictures split off and held back, a third as many."""
KEPT = 500
_SEEDS = {"train": 0, "val": 71, "held out": 72}  # the training's phantoms, and others
_BATCH = 16


def fit_unlike(
    models: Path, data: Path | None, *, work: Path | None = None, photos: Sequence[np.ndarray] = ()
) -> Unlike:
    """Fit the check for the models folder ``models`` and write it there; returns it.

    Without ``data`` made scans stand for all. ``work`` keeps the features, so that a second call does not look again; ``photos``
    (uint8 ``[H,W,3]``) are among what it is tried on. Takes about four minutes on one core at demo size.
    """
    features = _features(models, data, work, photos)
    views = sorted({name.split("/")[0] for name in features})
    known = {view: _known(features, view) for view in views}
    sizes = {view: int(features[f"{view}/size"]) for view in views}
    limits: dict[str, Limit] = {}
    for chosen in [(view,) for view in views] + ([tuple(views)] if len(views) > 1 else []):
        limits["+".join(chosen)] = _limit(Unlike(known, sizes, limits), features, chosen)
    found = Unlike(known, sizes, limits)
    found.save(models)
    facts = json.loads((models / FACTS).read_text(encoding="utf-8"))
    facts["measured"] = measure(found, features, views)
    (models / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return found


def measure(found: Unlike, features: Mapping[str, Tensor], views: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """By encoders, then kind of picture: how many, the share that alarms and, for strange ones, the area under the ROC curve."""
    told: dict[str, dict[str, dict[str, float]]] = {}
    for chosen in [(view,) for view in views] + ([tuple(views)] if len(views) > 1 else []):
        name = "+".join(chosen)
        kinds = {key.split("/", 1)[1] for key in features if key.startswith(f"{views[0]}/held out/")}
        kinds |= {key.split("/", 1)[1] for key in features if key.startswith(f"{views[0]}/strange/")}
        usual = _distances(found, features, chosen, "held out")
        limit = found.limits[name]
        own: dict[str, dict[str, float]] = {"held out": {"pictures": len(usual), "alarms": _alarms(usual, limit)}}
        for kind in sorted(kinds):
            values = _distances(found, features, chosen, kind)
            own[kind] = {"pictures": len(values), "alarms": _alarms(values, limit)}
            if kind.startswith("strange/"):
                above = (values[:, None] > usual[None]).double() + 0.5 * (values[:, None] == usual[None]).double()
                own[kind]["auc"] = round(float(above.mean()), 4)
        told[name] = own
    return told


def _alarms(distances: Tensor, limit: Limit) -> float:
    return round(float((distances > limit.limit).double().mean()), 4)


def _known(features: Mapping[str, Tensor], view: str) -> Known:
    train = _of(features, view, "train")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    return Known.fit(train, keep=order[:KEPT])


def _limit(sofar: Unlike, features: Mapping[str, Tensor], views: Sequence[str]) -> Limit:
    raw = len(views) == 1
    values = {
        group: sofar.known[views[0]].distance(_of(features, views[0], group)) if raw else _distances(sofar, features, views, group)
        for group in ("val", "held out")
    }
    typical = float(values["val"].median())
    limit = float(torch.quantile(values["val"], SHARE)) / (typical if raw else 1)
    heard = float((values["held out"] / (typical if raw else 1) > limit).double().mean())
    return Limit(round(typical, 5), round(limit, 4), SHARE, round(heard, 4), len(values["held out"]))


def _distances(found: Unlike, features: Mapping[str, Tensor], views: Sequence[str], group: str) -> Tensor:
    return found.distance({view: _of(features, view, group) for view in views})[1]


def _of(features: Mapping[str, Tensor], view: str, group: str) -> Tensor:
    """All rows of a group (``train``, ``val``, ``held out`` and their sources, ``strange/…``): ``[n,F]``."""
    own = [values for name, values in features.items() if name == f"{view}/{group}" or name.startswith(f"{view}/{group}/")]
    return torch.cat(own)


def _features(models: Path, data: Path | None, work: Path | None, photos: Sequence[np.ndarray]) -> dict[str, Tensor]:
    file = work / "unlike-features.safetensors" if work else None
    if file is not None and file.is_file():
        return load_file(file)
    shared = checkpoints.load(str(models), device=torch.device("cpu"))
    views = [view.name for view in shared.config.views if shared.frozen.has(view.name)]
    found: dict[str, Tensor] = {f"{view}/size": torch.tensor(shared.config.view(view).size) for view in views}

    def look(name: str, pictures: Iterable[np.ndarray]) -> None:
        rows: dict[str, list[Tensor]] = defaultdict(list)
        for batch in _batches(tqdm(pictures, desc=name, mininterval=5)):
            seen = Features(shared, lambda spec, batch=batch: torch.stack([make_view(p, spec) for p in batch]))  # type: ignore[misc]
            for view in views:
                rows[view].append(pooled(seen(view)).cpu())
        found.update({f"{view}/{name}": torch.cat(values) for view, values in rows.items()})

    scans: list[np.ndarray] = []
    for group, cases in read_cases(data).items():
        share = 1 if group == "train" else 1 / 3
        for source, most in MOST.items():
            count = round(most * share)
            pictures = _phantoms(group, count) if source == "phantoms" else _opened(_some(cases, source, count))
            if group == "held out":
                scans += (kept := list(pictures))
                pictures = iter(kept)
            look(f"{group}/{source}", pictures)
    order = np.random.default_rng(0).permutation(len(scans)).tolist()
    for kind, strange in strange_pictures([scans[i] for i in order], photos).items():
        look(f"strange/{kind}", strange)
    found = {name: values for name, values in found.items() if values.numel()}
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(found, file)
    return found


def _some(cases: Sequence[Case], source: str, count: int) -> list[Case]:
    """``count`` cases of ``source``, the same whenever and wherever they are drawn."""
    own = [case for case in cases if case.source == source]
    return sorted(own, key=lambda case: hashlib.sha256(case.id.encode()).digest())[:count]


def _opened(cases: Iterable[Case]) -> Iterable[np.ndarray]:
    for case in cases:
        try:
            yield open_case(case).picture()
        except ScanError as error:
            log.warning("%s is left out: %s", case.id, error)


def _phantoms(group: str, count: int) -> Iterable[np.ndarray]:
    return (np.repeat(p.picture[..., None], 3, axis=2) for p in phantoms(count, seed=_SEEDS[group]))


def _batches(pictures: Iterable[np.ndarray]) -> Iterable[list[np.ndarray]]:
    batch: list[np.ndarray] = []
    for picture in pictures:
        batch.append(picture)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
