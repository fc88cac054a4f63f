"""The demo scale's patch embedding: a small convolutional network instead of one strided convolution.

A vision transformer of three million weights trained on a few thousand scans learns edges and texture far sooner through
small convolutions. Comes in: ``[B,3,H,W]``. Goes out: ``[B,D,H/patch,W/patch]``, as the patch embedding it stands in for.
"""

from __future__ import annotations

import math

from torch import Tensor, nn


class Residual(nn.Module):
    """``x + f(x)`` with two 3 × 3 convolutions; shape unchanged."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(x + self.body(x))


class ConvStem(nn.Module):
    """Halve the picture ``log2(patch)`` times with 3 × 3 convolutions, doubling the width up to ``hidden``."""

    def __init__(self, hidden: int, patch: int) -> None:
        super().__init__()
        steps = int(math.log2(patch))
        if 2**steps != patch:
            raise ValueError(f"the convolutional stem needs a patch that is a power of two, not {patch}")
        layers: list[nn.Module] = []
        before = 3
        for step in range(steps):
            width = max(8, hidden // 2 ** (steps - 1 - step))
            layers += [
                nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            if 0 < step < steps - 1:
                layers.append(Residual(width))
            before = width
        self.layers = nn.Sequential(*layers)
        self.out = nn.Conv2d(before, hidden, 1)

    @property
    def weight(self) -> Tensor:
        """The last convolution's weight; callers read the dtype to cast pictures to from it."""
        return self.out.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layers(x))
