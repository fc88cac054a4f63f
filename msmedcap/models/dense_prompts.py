"""Points and a box as a map that SAM's mask input takes: the decoder is told densely where the prompt is.

Ours (``SegmenterConfig.dense_prompts``), as interactive segmenters lay disks over the picture (Sofiiuk et al. 2022): SAM tells its
decoder of a prompt by tokens alone, whose geometry takes far more training than the demo scale has. SAM's architecture stays
as it is: the map goes where an earlier answer's logits go, added to them where there is one.

Comes in: prompts in continuous pixels of SAM's view. Goes out: a map like mask logits, above 0 where the object is asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEVEL = 4.0  # of a box; a disk counts double, so that a point beside the object shows in its box, too
RADIUS = 1 / 32  # of a disk, as a share of the view's side


def prompt_map(
    points: Tensor | None, labels: Tensor | None, boxes: Tensor | None, *, image_side: int, side: int
) -> Tensor:
    """The map ``[R,1,side,side]`` of R prompts on a view of ``image_side`` pixels.

    ``points [R,P,2]`` x, y with ``labels [R,P]`` (1 object, 0 background, -1 none) and ``boxes [R,4]`` x0, y0, x1, y1, or None.
    :data:`LEVEL` in the box and less that outside, in proportion where its edge cuts a cell; twice that in disks around points,
    negative for background. Where nothing is known there are zeros. Raises ``ValueError`` where there is neither a point nor a box.
    """
    given = next((t for t in (points, boxes) if t is not None), None)
    if given is None:
        raise ValueError("a prompt needs a point or a box")
    cell = image_side / side
    edges = torch.arange(side, device=given.device, dtype=torch.float32)
    made = torch.zeros(len(given), side, side, device=given.device)
    if boxes is not None:
        low, high = (boxes.float() / cell).unflatten(1, (2, 2)).unbind(1)  # [R,2] x, y
        covered = (torch.minimum(edges + 1, high[..., None]) - torch.maximum(edges, low[..., None])).clamp(0, 1)
        made += LEVEL * (2 * covered[:, 1, :, None] * covered[:, 0, None, :] - 1)
    if points is not None and labels is not None:
        x, y = (points.float() / cell).unbind(-1)  # [R,P]
        away = torch.hypot((edges + 0.5 - x[..., None])[..., None, :], (edges + 0.5 - y[..., None])[..., :, None])
        disks = (RADIUS * side + 0.5 - away).clamp(0, 1)  # [R,P,side,side], with a soft rim
        for label, sign in ((1, 1.0), (0, -1.0)):
            made += sign * 2 * LEVEL * (disks * (labels == label)[..., None, None]).amax(1)
    return made[:, None]
