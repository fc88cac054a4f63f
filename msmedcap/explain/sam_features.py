"""What SAM's encoder made of the scan: its feature map as colours, as strength, and as likeness to a point.

Comes in: the feature map ``[C,h,w]`` over the whole view and the :class:`~msmedcap.data.views.ViewFrame`. Goes out: maps in the
picture's frame. The view's padding takes no part: it would own the main components of a wide scan.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from msmedcap.data.views import Heatmap, ViewFrame
from msmedcap.explain.maps import Map


def pca_map(features: Tensor, frame: ViewFrame) -> Map:
    """The three main components of the features as red, green and blue, each stretched from its 2nd to its 98th percentile."""
    rows, columns = _on_picture(features, frame)
    tokens = features[:, :rows, :columns].flatten(1).T.double()
    centred = tokens - tokens.mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:3]
    # A component's sign is arbitrary: the largest weight is made positive, so that a scan always gets the same colours.
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    parts = (axes @ (features.flatten(1).double() - tokens.mean(0)[:, None])).view(len(axes), *features.shape[1:])
    grids = np.zeros((3, *features.shape[1:]), np.float32)
    for grid, part in zip(grids, parts, strict=False):  # features of fewer than three channels leave colours out
        low, high = torch.quantile(part[:rows, :columns].flatten(), torch.tensor([0.02, 0.98], dtype=part.dtype)).tolist()
        grid[:] = ((part - low) / max(high - low, 1e-12) * 255).numpy()
    return Map("sam_pca", "sam", None, None, (0.0, 255.0), Heatmap(frame, grids))


def norm_map(features: Tensor, frame: ViewFrame) -> Map:
    """The channel norm of every place's features, measured from the scan's mean feature: how far it stands out.

    Measured from zero all places would be alike: SAM's neck ends in a layer norm, which gives every vector the same length.
    """
    heatmap = Heatmap(frame, _centred(features, frame).norm(dim=0).numpy())
    values = heatmap.draw()
    return Map("sam_norm", "sam", None, None, (float(values.min()), float(values.max())), heatmap)


def similarity_map(features: Tensor, frame: ViewFrame, point: tuple[float, float]) -> Map:
    """The cosine of every place's features with those at ``point`` (x, y in the picture's pixels), in [-1, 1]."""
    x, y = frame.points_to_view([point])[0] / frame.size * 2 - 1
    place = torch.tensor([[[[x, y]]]], dtype=features.dtype)
    # Centred, or all places of one scan would look alike (cosines above 0.9).
    centred = _centred(features, frame)
    here = F.grid_sample(centred[None], place, align_corners=False, padding_mode="border")[0, :, 0, 0]
    cosine = F.cosine_similarity(centred, here[:, None, None], dim=0)
    return Map("sam_similarity", "sam", None, None, (-1.0, 1.0), Heatmap(frame, cosine.numpy()))


def _centred(features: Tensor, frame: ViewFrame) -> Tensor:
    """The features less their mean over the picture (padding not counted)."""
    rows, columns = _on_picture(features, frame)
    return features - features[:, :rows, :columns].mean((1, 2), keepdim=True)


def _on_picture(features: Tensor, frame: ViewFrame) -> tuple[int, int]:
    """How many rows and columns of the feature map lie on the picture (the rest is padding)."""
    rows, columns = features.shape[1:]
    return math.ceil(rows * frame.height / frame.size), math.ceil(columns * frame.width / frame.size)
