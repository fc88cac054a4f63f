"""What hiding a square costs: how far a token's log-probability falls when one branch no longer sees that square.

Comes in: a captioner, a picture and a caption's tokens. Goes out: per branch a grid ``[T,h,w]`` over the whole view of drops in
nats (1 nat: the token becomes 2.7 times less likely). One branch is hidden from at a time, so that the maps say which branch needed
what, and none of it is negative. Two ways, at most :data:`SIDE` squares a side:

- ``occlusion``: the square is blurred in the encoder's view and the encoder looks again. What is even already stays as it was.
- ``masking``: the square's tokens become the mean token. No encoder runs; but tokens may tell of their neighbours.

Or from all branches at once (:meth:`Hiding.together`), in the picture itself: what one branch misses another may still see, so
only this says what the system needed of a place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from msmedcap.config import ViewSpec
from msmedcap.data.sizes import within
from msmedcap.data.views import ViewFrame, make_view
from msmedcap.explain import together
from msmedcap.models.branch import Branch
from msmedcap.models.captioner import Captioner
from msmedcap.models.clip import ClipEncoder
from msmedcap.models.spoken import spoken

SIDE = 8
BATCH = 16
DRAWN = 64
"""Values a side of a map of :meth:`Hiding.together`, whose places are soft."""
_LONGEST = 640  # of the picture whose places are hidden: the encoders look at less


class Hiding:
    """One picture's ``tokens[branch] [1,N,D_enc]`` and ``views[branch] [3,S,S]``, to hide squares of."""

    def __init__(
        self,
        captioner: Captioner,
        tokens: Mapping[str, Tensor],
        *,
        views: Mapping[str, Tensor],
        frames: Mapping[str, ViewFrame],
        prompt: str,
        ids: Sequence[int],
    ) -> None:
        self._captioner, self._tokens, self._views, self._frames = captioner, tokens, views, frames
        self._prompt, self._ids = prompt, tuple(ids)

    @torch.no_grad()
    def drops(self, branch: str, *, method: str) -> Tensor:
        """``[T,h,w]`` for ``occlusion`` or ``masking`` of ``branch``, whose tokens must have places; 0 in the view's padding."""
        own = dict(self._captioner.named_branches())[branch]
        side = grid_side(own, self._tokens[branch].shape[1])
        cells = min(SIDE, side)
        frame = self._frames[branch]
        # A square that lies in the padding hides nothing.
        rows, columns = (-(-cells * length // frame.size) for length in (frame.height, frame.width))
        squares = [(row, column) for row in range(rows) for column in range(columns)]
        reads = {name: other.read(self._tokens[name]) for name, other in self._captioner.named_branches()}
        whole = self._log_probs(reads)
        drops = torch.zeros(len(self._ids), cells, cells)
        blurred = _blurred(self._views[branch], frame, cells) if method == "occlusion" else None
        for start in range(0, len(squares), BATCH):
            some = squares[start : start + BATCH]
            if blurred is not None:
                changed = self._looked_again(own, branch, blurred, some, cells)
            else:
                changed = _masked(own, self._tokens[branch], some, cells, side)
            others = {name: read.expand(len(some), -1, -1) for name, read in reads.items()}
            fallen = (whole - self._log_probs({**others, branch: own.read(changed)})).clamp(min=0)
            for (row, column), values in zip(some, fallen, strict=True):
                drops[:, row, column] = values
        return drops

    @torch.no_grad()
    def together(self, picture: np.ndarray, specs: Mapping[str, ViewSpec]) -> Tensor:
        """``[T,h,w]`` over all of ``picture`` (uint8 ``[H,W,3]``) seen through ``specs[branch]``; negative where hiding helps."""
        height, width = within(picture.shape[:2], _LONGEST)
        small = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))
        branches = dict(self._captioner.named_branches())

        def log_probs(pictures: np.ndarray) -> np.ndarray:
            reads = {}
            for name, own in branches.items():
                views = torch.stack([make_view(each, specs[name]) for each in pictures])
                reads[name] = own.read(self._encoded(own, name, views))
            return self._log_probs(reads).numpy()

        drawn = together.spread(together.drops(log_probs, small), DRAWN, DRAWN)
        return torch.from_numpy(drawn).movedim(-1, 0).contiguous()

    def _looked_again(
        self, own: Branch, branch: str, blurred: Tensor, squares: Sequence[tuple[int, int]], cells: int
    ) -> Tensor:
        view = self._views[branch]
        ends = [round(i * view.shape[-1] / cells) for i in range(cells + 1)]
        pixels = view.expand(len(squares), -1, -1, -1).clone()
        for picture, (row, column) in zip(pixels, squares, strict=True):
            y, x = slice(ends[row], ends[row + 1]), slice(ends[column], ends[column + 1])
            picture[:, y, x] = blurred[:, y, x]
        return self._encoded(own, branch, pixels)

    def _encoded(self, own: Branch, branch: str, views: Tensor) -> Tensor:
        weight, known = next(own.encoder.parameters()), self._tokens[branch]
        return own.encode(views.to(known.device, weight.dtype)).to(known.dtype)

    def _log_probs(self, reads: Mapping[str, Tensor]) -> Tensor:
        """``[B,T]`` on the CPU, from what the branches read ``[B,Q,D_llm]``."""
        prefix = self._captioner.joined(reads, self._prompt)
        return spoken(self._captioner.opt, prefix, self._ids).log_probs.float().cpu()


def grid_side(branch: Branch, count: int) -> int:
    """The side of the grid that ``count`` tokens of ``branch`` lie on (CLIP's CLS token does not)."""
    return round((count - isinstance(branch.encoder, ClipEncoder)) ** 0.5)


def _masked(own: Branch, tokens: Tensor, squares: Sequence[tuple[int, int]], cells: int, side: int) -> Tensor:
    """``tokens [1,N,D]`` once for each of ``squares``, with its tokens replaced by the mean of all that have a place."""
    changed = tokens.repeat(len(squares), 1, 1)
    placed = changed[:, 1:] if isinstance(own.encoder, ClipEncoder) else changed
    grid = placed.unflatten(1, (side, side))
    mean = tokens[0, -side * side :].mean(0)
    ends = [round(i * side / cells) for i in range(cells + 1)]
    for own_grid, (row, column) in zip(grid, squares, strict=True):
        own_grid[ends[row] : ends[row + 1], ends[column] : ends[column + 1]] = mean
    return changed


def _blurred(view: Tensor, frame: ViewFrame, cells: int) -> Tensor:
    """``view [3,S,S]`` without what is smaller than a square; padding gives nothing to it."""
    sigma = view.shape[-1] / cells
    reach = int(2 * sigma)
    bell = torch.exp(-((torch.arange(-reach, reach + 1) / sigma) ** 2) / 2)
    inside = torch.zeros(1, *view.shape[-2:])
    inside[:, : frame.height, : frame.width] = 1
    stack = torch.cat([view.float().cpu() * inside, inside])[:, None]
    stack = F.conv2d(F.conv2d(stack, bell.view(1, 1, -1, 1), padding=(reach, 0)), bell.view(1, 1, 1, -1), padding=(0, reach))
    return stack[:3, 0] / stack[3, 0].clamp(min=1e-6)
