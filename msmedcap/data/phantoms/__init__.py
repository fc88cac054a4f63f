"""Made scans with known truth: they train the demo encoders beside real scans and test where a heatmap looks.

Comes in: a seed and, where wanted, a modality, a part, a plane and a finding. Goes out: a :class:`Phantom` with its values,
window, picture, exact masks, facts and caption. The same arguments give the same phantom, to the bit, on one machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from msmedcap.data.phantoms import abdomen_ct, chest_ct, heads, joints_mr, ultrasound, xray
from msmedcap.data.phantoms.examples import write_examples
from msmedcap.data.phantoms.phantom import Phantom

__all__ = ["Combination", "Phantom", "combinations", "make_phantom", "phantoms", "write_examples"]


class Combination(NamedTuple):
    """One thing that can be made; ``plane`` is empty for projections and ultrasound."""

    modality: str
    part: str
    plane: str
    finding: str


@dataclass(frozen=True)
class _Kind:
    modality: str
    part: str
    planes: tuple[str, ...]
    findings: tuple[str, ...]
    make: Callable[..., Phantom]


_KINDS = (
    _Kind("CT", "head", ("axial",), heads.FINDINGS, heads.make),
    _Kind("CT", "chest", ("axial", "coronal"), chest_ct.FINDINGS, chest_ct.make),
    _Kind("CT", "abdomen", ("axial", "coronal"), abdomen_ct.FINDINGS, abdomen_ct.make),
    _Kind("CT", "pelvis", ("axial",), abdomen_ct.PELVIS_FINDINGS, abdomen_ct.make_pelvis),
    _Kind("MRI", "head", ("axial", "coronal", "sagittal"), heads.FINDINGS, heads.make),
    _Kind("MRI", "spine", ("sagittal",), joints_mr.SPINE_FINDINGS, joints_mr.make_spine),
    _Kind("MRI", "musculoskeletal system", ("coronal", "sagittal"), joints_mr.KNEE_FINDINGS, joints_mr.make_knee),
    _Kind("X-ray", "chest", ("",), xray.FINDINGS, xray.make),
    _Kind("ultrasound", "breast", ("",), ultrasound.FINDINGS, ultrasound.make),
)


def combinations() -> tuple[Combination, ...]:
    """Everything that can be made, in a fixed order."""
    return tuple(
        Combination(kind.modality, kind.part, plane, finding)
        for kind in _KINDS
        for plane in kind.planes
        for finding in kind.findings
    )


def make_phantom(
    seed: int,
    *,
    modality: str | None = None,
    part: str | None = None,
    plane: str | None = None,
    finding: str | None = None,
    size: int = 320,
) -> Phantom:
    """The phantom of ``seed``, [size,size]; what is not asked for is drawn: first the modality, then part, plane, finding.

    Raises ValueError where nothing that can be made fits, or ``size`` is below 64.
    """
    if size < 64:
        raise ValueError(f"A phantom needs at least 64 pixels a side, not {size}.")
    rng = np.random.default_rng([seed, 0x5CA7])
    left = list(combinations())
    for field, wanted in (("modality", modality), ("part", part), ("plane", plane), ("finding", finding)):
        if wanted is not None:
            left = [combination for combination in left if getattr(combination, field) == wanted]
    if not left:
        raise ValueError(f"There is no phantom with {modality=}, {part=}, {plane=}, {finding=}; see combinations().")
    for field in Combination._fields:
        values = sorted({getattr(combination, field) for combination in left})
        value = values[int(rng.integers(len(values)))]
        left = [combination for combination in left if getattr(combination, field) == value]
    chosen = left[0]
    kind = next(k for k in _KINDS if (k.modality, k.part) == (chosen.modality, chosen.part))
    return kind.make(rng, size, modality=chosen.modality, plane=chosen.plane, finding=chosen.finding)


def phantoms(count: int, *, seed: int, size: int = 320) -> Iterator[Phantom]:
    """``count`` phantoms of every kind in turn, shuffled by ``seed``; phantom i depends on ``seed`` and i alone."""
    every = combinations()
    order = np.random.default_rng([seed, 0x0DE2]).permutation(len(every))
    for i in range(count):
        what = every[int(order[i % len(every)])]
        yield make_phantom(
            seed * 1_000_003 + i, modality=what.modality, part=what.part, plane=what.plane, finding=what.finding, size=size
        )
