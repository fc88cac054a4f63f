"""Everything the demo weights are trained on, in memory: pictures, what is said of them, and their masks.

Comes in: the data folder (or None: made scans alone) and how many phantoms and scenes to make. Goes out: a :class:`Pool`.
Pictures that evaluation uses, and near-duplicates of them in any set, are left out here and nowhere else.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from msmedcap.config import UserError
from msmedcap.data.captions import plain_caption
from msmedcap.data.groups import MAX_DISTANCE, hamming, perceptual_hash
from msmedcap.data.masks import read_cxr_seg, read_mask, read_sa_med2d
from msmedcap.data.phantoms import phantoms
from msmedcap.data.scans import open_scan
from msmedcap.data.scenes import make_scene
from msmedcap.data.sets import FACT_SETS, READERS, Case
from msmedcap.data.store import PictureStore

log = logging.getLogger(__name__)

MASK_SIDE = 160
# How often each source is drawn, relative to the others; within a source, rarer facts are drawn more often.
SOURCE_SHARES = {"medpix": 0.52, "cxr_labels": 0.15, "cxr_seg": 0.03, "busi": 0.12, "phantoms": 0.14, "scenes": 0.04}


@dataclass(frozen=True)
class Pool:
    """P pictures with ``facts`` (or ``{"scene": caption}``), ``sources`` and draw ``weights [P]``; K masks on some of them.

    ``masks [K,160,160] uint8`` are laid out as the store's squares; ``mask_rows [K]`` says which picture each lies on.
    """

    store: PictureStore
    facts: list[dict[str, str]]
    sources: list[str]
    weights: Tensor
    masks: Tensor
    mask_rows: Tensor

    def rows(self, step: int, count: int, *, seed: int, kinds: str = "GM") -> Tensor:
        """The pictures of step ``step``, drawn by weight: ``[count]``.

        ``kinds``: ``"G"`` general scenes alone, ``"M"`` scans alone, ``"GM"`` both; raises :class:`UserError` where there are none.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        weights = self.weights
        if kinds != "GM":
            scenes = torch.tensor([source == "scenes" for source in self.sources])
            weights = weights * (scenes if kinds == "G" else ~scenes)
        if not weights.any():
            raise UserError(f"There are no pictures of kind {kinds} to train on; make scenes for G and scans for M.")
        return torch.multinomial(weights, count, replacement=True, generator=generator)

    def mask_draw(self, step: int, count: int, *, each: int, seed: int) -> Tensor:
        """The masks of step ``step``: ``[count, each]`` indices into ``masks``, the masks of a row all on one picture.

        A mask is drawn by the root of its area: drawn uniformly, specks of a few pixels would be half of all there is to learn.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_033 + step)
        area = self.mask_weights
        first = torch.multinomial(area, count, replacement=True, generator=generator)
        rows = []
        for mask in first.tolist():
            own = self.masks_of[int(self.mask_rows[mask])]
            others = torch.multinomial(area[own], each, replacement=True, generator=generator)[1:]
            rows.append(torch.cat([torch.tensor([mask]), own[others]]))
        return torch.stack(rows)

    @cached_property
    def mask_weights(self) -> Tensor:
        """The root of every mask's area ``[K]``."""
        return self.masks.flatten(1).sum(1, dtype=torch.float32).sqrt()

    @cached_property
    def masks_of(self) -> dict[int, Tensor]:
        """The masks on each picture that has any, by picture."""
        order = self.mask_rows.argsort(stable=True)
        rows, counts = self.mask_rows[order].unique_consecutive(return_counts=True)
        return dict(zip(rows.tolist(), order.split(counts.tolist()), strict=True))

    def scans(self) -> list[int]:
        """The pictures that are scans (made or real), i.e. all but the general scenes."""
        return [i for i, source in enumerate(self.sources) if source != "scenes"]


def caption_of(facts: Mapping[str, str]) -> str:
    """The target caption of a pool row; a general scene carries its own."""
    return facts["scene"] if "scene" in facts else plain_caption(facts)


def read_cases(data: Path | None) -> dict[str, list[Case]]:
    """All caption sets under ``data`` by split, training free of near-duplicates of the held-out pictures."""
    splits: dict[str, list[Case]] = {"train": [], "val": [], "held out": []}
    for name in FACT_SETS:
        if data is None or not (data / name).is_dir():
            log.warning("no %s here: training goes on without it", name)
            continue
        for split, cases in READERS[name](data / name).items():
            splits[split if split in ("train", "val") else "held out"] += cases
    if not splits["train"]:
        return splits
    kept = far_from(_files(splits["train"]), _files(splits["val"] + splits["held out"]))
    splits["train"] = [c for c, keep in zip(splits["train"], kept, strict=True) if keep]
    return splits


def _files(cases: Iterable[Case]) -> list[Path]:
    """Where the pictures of ``cases`` lie; those of the sets named here are all files of their own."""
    return [case.image for case in cases if isinstance(case.image, Path)]


def far_from(pictures: list[Path], others: list[Path]) -> list[bool]:
    """For each picture whether it is no near-duplicate of any of ``others``."""
    bits = [np.stack([perceptual_hash(p) for p in paths]).astype(np.float32) for paths in (pictures, others) if paths]
    return [True] * len(pictures) if len(bits) < 2 else (hamming(*bits).min(1) > MAX_DISTANCE).tolist()


def load_pool(data: Path | None, folder: Path, *, phantom_count: int, scene_count: int, seed: int = 0) -> Pool:
    """The pool, made once and kept in ``folder`` (a second call reads it back)."""
    arrays, words = folder / "pool.safetensors", folder / "pool.json"
    if not words.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        tensors, rows = _make(data, phantom_count, scene_count, seed)
        save_file(tensors, arrays)
        words.write_text(json.dumps(rows))
    tensors, rows = load_file(arrays), json.loads(words.read_text())
    return Pool(
        store=PictureStore(tensors["pixels"], tensors["extent"]),
        facts=rows["facts"],
        sources=rows["sources"],
        weights=draw_weights(rows["facts"], rows["sources"]),
        masks=tensors["masks"],
        mask_rows=tensors["mask_rows"],
    )


def _make(data: Path | None, phantom_count: int, scene_count: int, seed: int) -> tuple[dict[str, Tensor], dict]:
    cases = read_cases(data)["train"]
    pictures: list[PictureStore] = []
    facts: list[dict[str, str]] = []
    sources: list[str] = []
    masks: list[np.ndarray] = []
    mask_rows: list[int] = []
    where: dict[Path, int] = {}
    for case, image in tqdm(zip(cases, _files(cases), strict=True), total=len(cases), desc="reading scans", mininterval=2):
        where[image] = len(pictures)
        pictures.append(_square(open_scan(image).picture()))
        facts.append(dict(case.facts))
        sources.append(case.source)
    for image, mask in _real_masks(data, where):
        if image not in where:
            where[image] = len(pictures)
            pictures.append(_square(open_scan(image).picture()))
            facts.append({})
            sources.append("sa_med2d")
        masks.append(_square_mask(mask))
        mask_rows.append(where[image])
    for phantom in tqdm(phantoms(phantom_count, seed=seed, size=320), total=phantom_count, desc="making scans", mininterval=2):
        for mask in phantom.masks.values():
            if mask.sum() >= 40:
                masks.append(_square_mask(mask))
                mask_rows.append(len(pictures))
        pictures.append(_square(phantom.picture))
        facts.append({k: v for k, v in phantom.facts.items() if v and k != "size"})
        sources.append("phantoms")
    for i in tqdm(range(scene_count), desc="making scenes", mininterval=2):
        picture, caption = make_scene(seed + i)
        pictures.append(_square(picture))
        facts.append({"scene": caption})
        sources.append("scenes")
    stores = PictureStore.join(pictures)
    tensors = {
        "pixels": stores.pixels,
        "extent": stores.extent,
        "masks": torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, MASK_SIDE, MASK_SIDE, dtype=torch.uint8),
        "mask_rows": torch.tensor(mask_rows, dtype=torch.long),
    }
    return tensors, {"facts": facts, "sources": sources}


def _real_masks(data: Path | None, training: Mapping[Path, int]) -> Iterator[tuple[Path, np.ndarray]]:
    if data is None:
        return
    chest = read_cxr_seg(data / "cxr_seg") if (data / "cxr_seg").is_dir() else []
    sample = read_sa_med2d(data / "sa_med2d_sample") if (data / "sa_med2d_sample").is_dir() else []
    for row in [r for r in chest if r.image in training] + sample:
        for _, file in row.masks:
            mask = read_mask(file)
            if mask.sum() >= 40:
                yield row.image, mask


def _square(picture: np.ndarray) -> PictureStore:
    return PictureStore.of([picture])


def _square_mask(mask: np.ndarray) -> np.ndarray:
    scale = MASK_SIDE / max(mask.shape)
    height, width = (max(1, int(side * scale + 0.5)) for side in mask.shape)
    small = Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BOX)
    square = np.zeros((MASK_SIDE, MASK_SIDE), np.uint8)
    square[:height, :width] = np.asarray(small) > 127
    return square


def draw_weights(facts: list[dict[str, str]], sources: list[str]) -> Tensor:
    """How often each picture is drawn: sources by :data:`SOURCE_SHARES`, within them rare plane/part/label more often."""
    rarity = []
    counts: dict[str, Counter[str]] = {}
    for row, source in zip(facts, sources, strict=True):
        for kind in ("plane", "part", "label"):
            counts.setdefault(f"{source}/{kind}", Counter())[row.get(kind, "")] += 1
    for row, source in zip(facts, sources, strict=True):
        shares = [counts[f"{source}/{kind}"][row.get(kind, "")] for kind in ("plane", "part", "label")]
        rarity.append(float(np.prod([n ** -0.35 for n in shares])))
    weights = torch.tensor(rarity)
    names = np.array(sources)
    for source in set(sources):
        rows = torch.from_numpy(names == source)
        weights[rows] *= SOURCE_SHARES.get(source, 0.0) / weights[rows].sum()
    return weights
