"""Published checkpoints into model folders: BLIP-2's and SAM's from the hub, segment-anything's ``.pth``, LAVIS' ``.pth``.

Several conversions may fill one folder. Names inside it: ``clip/`` (:class:`~msmedcap.models.clip.ClipEncoder`), ``sam/``
(:class:`~msmedcap.models.sam.SamEncoder`), ``sam_prompts/`` (:class:`~msmedcap.models.sam.SamPrompts`), ``opt/`` (``transformers``'
OPT), ``systems/NAME/`` (:class:`~msmedcap.models.captioner.Captioner`: ``branches.clip.norm.weight`` …) and ``alignment/NAME/``
(stage 1's ``AlignmentTask`` without the projection to a language model: ``branch.norm.*``, ``branch.qformer.*``,
``vision_proj.*``, ``text_proj.*``, ``itm_head.*``, ``itg_head.*``, ``temp``; ``config.json`` is the
:class:`~msmedcap.config.BranchConfig`).
"""

from __future__ import annotations

from pathlib import Path

from msmedcap.config import UserError
from msmedcap.convert.hub import convert_hub
from msmedcap.convert.lavis import convert_lavis
from msmedcap.convert.ledger import Ledger
from msmedcap.convert.sam import convert_sam

__all__ = ["KINDS", "Ledger", "convert", "convert_hub", "convert_lavis", "convert_sam"]

KINDS = ("hub", "sam", "lavis")


def convert(kind: str, source: str, out: Path, *, sam_size: str | None = None) -> Ledger:
    """Convert ``source`` of ``kind`` (:data:`KINDS`) into the model folder ``out``; the ledger says what went where.

    ``sam_size`` (``b``, ``l`` or ``h``) is for ``sam`` and ``lavis``. Raises :class:`UserError`.
    """
    if kind == "hub":
        if sam_size is not None:
            raise UserError("BLIP-2 from the hub has no SAM in it; leave the SAM size out.")
        return convert_hub(source, out)
    if kind == "sam":
        return convert_sam(source, out, size=sam_size)
    if kind == "lavis":
        return convert_lavis(Path(source).expanduser(), out, sam_size=sam_size)
    raise UserError(f"There is no conversion {kind!r}; choose from {', '.join(KINDS)}.")
