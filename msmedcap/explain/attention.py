"""The Q-Former's raw cross-attention as maps: where the queries looked, whatever is then said.

The Q-Former never sees the caption while it is generated, so these maps are the same for every word.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from msmedcap.data.views import Heatmap, ViewFrame
from msmedcap.explain.maps import Map
from msmedcap.models.branch import Branch
from msmedcap.models.qformer import QFormerAttention
from msmedcap.models.sam import SamEncoder

Places = Callable[[Tensor], Tensor]


def places_of(branch: Branch) -> Places | None:
    """How values per token ``[...,N]`` become grids ``[...,h,w]`` over the whole view; None where tokens have no place."""
    encoder = branch.encoder
    if not isinstance(encoder, SamEncoder):
        return lambda values: encoder.places(values.cpu())
    if branch.config.tokens != "positions":
        return None
    side = encoder.config.image_size // encoder.config.patch
    return lambda values: values.cpu().unflatten(-1, (side, side))


def attention_maps(attention: QFormerAttention, *, branch: str, places: Places, frame: ViewFrame) -> list[Map]:
    """One map for each layer with cross-attention, the mean over heads and queries.

    ``attention.weights[i] [1,heads,Q,N]``; ``places`` turns values per token ``[N]`` into a grid over the whole view (a CLS token
    has no place). Values are relative to even attention: 1 is what every place would get if all got the same.
    """
    maps = []
    for layer, weights in zip(attention.layers, attention.weights, strict=True):
        grid = places(weights[0].float().mean((0, 1)))
        heatmap = Heatmap(frame, (grid / grid.sum() * grid.numel()).numpy())
        maps.append(Map("attention", branch, layer, None, (0.0, float(heatmap.draw().max())), heatmap))
    return maps
