"""What a training of the segmenter has beyond what all trainings have, and the trainings of it by name. No torch.

Comes in: the part ``segments`` of a :class:`~msmedcap.training.config.TrainConfig`. Goes out: :class:`SegmentTraining`.
"""

from __future__ import annotations

from dataclasses import dataclass

from msmedcap.config import SegmentationOptions, UserError


@dataclass(frozen=True)
class SegmentTraining:
    """How SEG-SAM is trained; where nothing else is said, the choice is ours.

    - ``each``: prompted objects of a picture; SAM has up to 64 of one picture.
    - ``draws``: random views of each picture, the first the plain one; with a cache, all are encoded once. Made scans have one: a
      further phantom is a better further view. ``strength``: how far views go, as :class:`~msmedcap.data.store.Augmentation` has
      it; half are mirrored, their sides swapped.
    - ``balance``: how much rarer classes are drawn more often, 0 (as they come) to 1 (all alike).
    - ``classes``: a file of classes ("": the shipped one); those are learnt that a training picture shows.
    - ``semantics``, ``text``, ``tokens``, ``text_encoder``, ``dense_prompts``: as in :class:`~msmedcap.config.SegmenterConfig`.
    - ``encoder``: train SAM's encoder as well (without a cache); what was trained on the encoder as it was needs training anew.
    - ``start``: a segmenter's folder to begin with ("": SAM's prompt half, the rest drawn).
    - ``options``: prompts and the losses' weights.
    """

    each: int = 4
    draws: int = 16
    strength: float = 0.7
    balance: float = 0.6
    classes: str = ""
    semantics: bool = True
    text: bool = True
    tokens: int = 24
    text_encoder: str = "opt"
    dense_prompts: bool = False
    encoder: bool = False
    start: str = ""
    options: SegmentationOptions = SegmentationOptions()

    def __post_init__(self) -> None:
        if self.each < 1 or self.draws < 1:
            raise UserError(f"each ({self.each}) and draws ({self.draws}) must be at least 1.")
        if not 0 <= self.balance <= 1 or not 0 <= self.strength <= 1:
            raise UserError(f"balance ({self.balance}) and strength ({self.strength}) must be from 0 to 1.")
