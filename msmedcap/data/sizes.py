"""Sizes of pictures. No torch."""

from __future__ import annotations

from collections.abc import Sequence


def within(shape: Sequence[int], longest: int | None) -> tuple[int, int]:
    """The (height, width) of ``shape [H,W,...]``, made small enough that no side has more than ``longest`` pixels."""
    height, width = shape[:2]
    scale = 1.0 if longest is None else min(1.0, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
