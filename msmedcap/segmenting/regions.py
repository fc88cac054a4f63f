"""SEG-SAM at work on one scan: points and a box in the picture's pixels → a mask, its name, and what else is there.

Comes in: SAM's features of the scan (the predictor's: the encoder ran once for captions, maps and masks) and prompts. Goes out:
:class:`Segmentation`, everything in the scan's own frame. The segmenter of a models folder (``segmenter/``,
:mod:`msmedcap.segmenters`) is loaded when it is first wanted and shared by all visitors; the text token is computed once a scan.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from msmedcap import checkpoints, segmenters
from msmedcap.checkpoints import Models
from msmedcap.config import UserError
from msmedcap.data.outlines import outlines
from msmedcap.data.prompts import Prompt
from msmedcap.data.scans import Scan
from msmedcap.data.views import ViewFrame
from msmedcap.explain.maps import Map
from msmedcap.models.segmenter import Prediction, Segmenter

PRESENT = 0.5
"""The chance from which a class is told to be present besides the prompted object, where no validation found a better one."""
# Modalities that project the body: their spacing is measured on the detector.
_PROJECTIONS = {"BI", "CR", "DX", "IO", "MG", "PX", "RF", "RG", "XA"}
AT_DETECTOR = "X-ray spacing is at the detector; the body lies nearer to the tube, so its true areas are smaller."
NO_SPACING = "The file gives no pixel spacing, so the area is known in pixels only."


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The answer to one prompt, in the frame of the picture ``[H,W]``.

    ``label`` is the class of the prompted object and ``score`` its probability among all classes, both None where the mask is
    empty; ``iou`` is the binary mask's own estimate of its quality. ``binary`` and ``semantic`` are bool ``[H,W]``; ``present``
    holds the classes elsewhere in the picture, the likeliest first, or is None where that was not measured on such scans.
    ``area_mm2`` of the binary mask is None where the spacing is unknown, and ``area_note`` says what to know about it. Without
    the semantic-aware decoder ``label``, ``score`` and ``semantic`` are None and ``present`` is empty.
    """

    label: str | None
    score: float | None
    iou: float
    binary: np.ndarray
    semantic: np.ndarray | None
    present: tuple[tuple[str, float], ...] | None
    area_px: int
    area_mm2: float | None
    area_note: str
    prompt: Prompt
    logits: np.ndarray = field(repr=False)
    """Of the binary mask on SAM's view, float32 ``[4h,4w]``: what a further round begins with."""
    scan_id: str = field(repr=False)

    def outlines(self, which: str = "binary") -> list[np.ndarray]:
        """The ``binary`` or ``semantic`` mask's borders: polygons ``[N,2]`` (x, y) along pixel edges, holes the other way round."""
        mask = self.binary if which == "binary" else self.semantic
        return [] if mask is None else outlines(mask)


@dataclass(frozen=True, eq=False)
class HotSpot:
    """The hottest place of a map, ``point`` (x, y) in the picture with the map's ``value`` there, and the structure it lies in."""

    point: tuple[float, float]
    value: float
    structure: Segmentation


class SharedSegmenter:
    """The segmenter of a models folder, loaded on first use; safe to ask from several threads."""

    def __init__(self, shared: Models, models: str) -> None:
        """``models`` is the name or folder that ``shared`` was loaded from."""
        self._shared, self._models = shared, models
        self._segmenter: Segmenter | None = None
        self._lock = threading.Lock()

    @property
    def absent(self) -> str | None:
        """Why there is no segmenter and which command makes it; None where there is one. Loads nothing."""
        if self._segmenter is not None:
            return None
        if not self._shared.frozen.has("sam"):
            return self._shared.frozen.absent["sam"]
        folder = checkpoints.folder_of(self._models) / segmenters.FOLDER
        if (folder / "config.json").is_file():
            return None
        return checkpoints.absent_part(self._models, segmenters.FOLDER, self._shared.config)

    def get(self) -> Segmenter:
        """The segmenter; raises :class:`UserError` with :attr:`absent`, or where its files are damaged."""
        with self._lock:
            if self._segmenter is None:
                if (why := self.absent) is not None:
                    raise UserError(why)
                folder = checkpoints.folder_of(self._models) / segmenters.FOLDER
                self._segmenter = segmenters.load_segmenter(folder, self._shared.config.sam, device=self._shared.device)
            return self._segmenter


class Regions:
    """One scan's regions: its features and its text token are computed once, whatever is asked then."""

    def __init__(self, shared: SharedSegmenter, features: Callable[[], Tensor], frame: ViewFrame, scan: Scan, number: int) -> None:
        """``features`` gives SAM's features ``[1,C,h,w]`` of frame ``number``; ``frame`` is where it lies in SAM's view."""
        self._shared, self._features, self._frame = shared, features, frame
        self._spacing, self._note, self._modality = scan.spacing, _note(scan), scan.facts.get("Modality", "")
        self._ready: tuple[Tensor, Tensor | None] | None = None
        self._id = f"{scan.id} {number}"  # masks of one frame stay true in another window

    @torch.inference_mode()
    def prepare(self) -> tuple[Segmenter, Tensor, Tensor | None]:
        """The segmenter, the scan's features in fp32 and its text token; the first call runs the encoder if nobody has."""
        segmenter = self._shared.get()
        if self._ready is None:
            features = self._features().float()
            self._ready = features, segmenter.text_token(features)
        return segmenter, *self._ready

    def segment(self, prompt: Prompt, *, earlier: Segmentation | None = None) -> Segmentation:
        """The answer to ``prompt``; ``earlier`` is the answer to the round before, whose mask SAM then refines.

        Raises :class:`UserError` where there is no segmenter, or ``earlier`` is of another scan.
        """
        self.check_own([] if earlier is None else [earlier])
        segmenter, features, token = self.prepare()
        said = segmenter.predict(
            features, **self._tensors(prompt, features.device), masks=_refined(earlier, features), token=token
        )
        return self._answer(segmenter, said, prompt)

    def check_own(self, found: Sequence[Segmentation]) -> None:
        """Raises :class:`UserError` where one of ``found`` is no answer about this scan."""
        if any(one.scan_id != self._id for one in found):
            raise UserError("The earlier mask is of another scan or frame; begin again with a point or a box.")

    def hot_spot(self, found: Map) -> HotSpot:
        """The hottest place of ``found`` and the structure that a point there prompts; raises :class:`UserError` for colours."""
        x, y = hottest(found.values)
        value = float(found.values[int(y), int(x)])
        return HotSpot((x, y), value, self.segment(Prompt(((x, y, 1),))))

    def _tensors(self, prompt: Prompt, device: torch.device) -> dict[str, Tensor | None]:
        """The prompt in SAM's view, as the segmenter takes it."""
        points = labels = boxes = None
        if prompt.points:
            points = torch.from_numpy(self._frame.points_to_view([p[:2] for p in prompt.points])).to(device)
            labels = torch.tensor([p[2] for p in prompt.points], device=device)
        if prompt.box is not None:
            boxes = torch.from_numpy(self._frame.boxes_to_view(prompt.box)).to(device)
        return {"points": points, "labels": labels, "boxes": boxes}

    def _answer(self, segmenter: Segmenter, said: Prediction, prompt: Prompt) -> Segmentation:
        label = score = semantic = None
        present: tuple[tuple[str, float], ...] | None = ()
        if said.semantic is not None and said.classes is not None and said.present is not None:
            semantic = self._mask(said.semantic[0])
            present = self._present(segmenter, said.present[0].tolist())
        binary = self._mask(said.binary[0])
        area = int(binary.sum())
        if area and said.classes is not None:  # where there is no mask there is nothing to name
            best = int(said.classes[0].argmax())
            label, score = segmenter.names[best], float(said.classes[0, best])
        return Segmentation(
            label=label,
            score=score,
            iou=float(said.iou[0]),
            binary=binary,
            semantic=semantic,
            present=present,
            area_px=area,
            area_mm2=None if self._spacing is None else area * self._spacing[0] * self._spacing[1],
            area_note=self._note,
            prompt=prompt,
            logits=said.binary[0].float().cpu().numpy(),
            scan_id=self._id,
        )

    def _present(self, segmenter: Segmenter, scores: Sequence[float]) -> tuple[tuple[str, float], ...] | None:
        """The classes that are said to be elsewhere, the likeliest first; None where that was not measured on such scans."""
        config = segmenter.config
        if config.present_in and self._modality and self._modality not in config.present_in:
            return None
        least = config.present_from or dict.fromkeys(segmenter.names, PRESENT)
        told = [(n, s) for n, s in zip(segmenter.names, scores, strict=True) if n in least and s >= least[n]]
        return tuple(sorted(told, key=lambda pair: -pair[1]))

    def _mask(self, logits: Tensor) -> np.ndarray:
        """Mask logits over SAM's view as a mask of the picture."""
        return self._frame.logits_to_picture(logits.float().cpu().numpy())


def hottest(values: np.ndarray) -> tuple[float, float]:
    """The centre (x, y) of the pixel with the highest value of a map ``[H,W]``.

    Of several, the one nearest to their middle: maps are flat where a coarse grid ends. Raises :class:`UserError` for colours.
    """
    if values.ndim != 2:
        raise UserError("A map in colours has no hottest place; choose an attention map or the strength map.")
    rows, columns = np.nonzero(values >= values.max())
    nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return float(columns[nearest]) + 0.5, float(rows[nearest]) + 0.5


def _refined(earlier: Segmentation | None, like: Tensor) -> Tensor | None:
    return None if earlier is None else torch.from_numpy(earlier.logits)[None, None].to(like.device)


def _note(scan: Scan) -> str:
    if scan.spacing is None:
        return NO_SPACING
    return AT_DETECTOR if scan.facts.get("Modality") in _PROJECTIONS else ""
