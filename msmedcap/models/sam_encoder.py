"""SAM's image encoder (the ViT of Segment Anything), written for speed; parameters are named and shaped as published.

Comes in: normalised pictures ``[B,3,S,S]``. Goes out: the feature map ``[B,out,S/patch,S/patch]``. A published state dict
loads strictly, and outputs and gradients are the published encoder's. What makes it faster:

- scores are made a few megabytes at a time and stay in cache; ``[heads,N,N]`` (400 MB and more at 1024 px) never exists;
- on large grids the relative-position bias is laid down first and the matrix product accumulates onto it; on small ones
  (windows), and on an accelerator, it is part of the product, as extra query and key channels;
- rows of windows go through a layer one strip at a time, in memory that stays in cache and need not be asked for anew;
- the padding of windows is not projected: its query, key and value are the bias of that projection, and its output is dropped;
- the patch embedding and the neck work on contiguous channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from msmedcap.config import SamConfig
from msmedcap.models.stem import ConvStem

# Scores each processor core makes at once: 2 MiB in 16 bits. More leaves its caches, less costs calls.
CHUNK = 2**20
# From this side of the grid on, adding the bias row by row is cheaper than widening the product by twice the side.
WIDE = 32
# Tokens per processor core that go through a layer together where rows of windows can go one by one.
STRIP = 1024


class SamImageEncoder(nn.Module):
    """``[B,3,S,S] → [B,out,S/patch,S/patch]`` for the one picture side ``S`` of ``config``; raises ``ValueError`` on others."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        grid = config.image_size // config.patch
        self.image_size = config.image_size
        self.patch_embed: nn.Module = (
            GridStem(config.hidden, config.patch) if config.stem == "conv" else PatchEmbed(config.hidden, config.patch)
        )
        self.pos_embed = nn.Parameter(torch.empty(1, grid, grid, config.hidden))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.ModuleList(
            Block(config.hidden, config.heads, grid=grid, window=0 if layer in config.global_layers else config.window)
            for layer in range(config.layers)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(config.hidden, config.out, 1, bias=False),
            LayerNorm2d(config.out),
            nn.Conv2d(config.out, config.out, 3, padding=1, bias=False),
            LayerNorm2d(config.out),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        if pictures.shape[-2:] != (self.image_size, self.image_size):
            got, side = "x".join(map(str, pictures.shape[-2:])), self.image_size
            raise ValueError(f"this SAM encoder takes pictures of {side}x{side}, not {got}")
        x = self.patch_embed(pictures) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))


class PatchEmbed(nn.Module):
    """One linear map per patch, ``[B,3,S,S] → [B,h,w,D]``; the weight is kept as the strided convolution it stands for."""

    def __init__(self, hidden: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(3, hidden, patch, stride=patch)

    def forward(self, pictures: Tensor) -> Tensor:
        patches = pictures.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))
        return F.linear(patches.permute(0, 2, 4, 1, 3, 5).flatten(3), self.proj.weight.flatten(1), self.proj.bias)


class GridStem(nn.Module):
    """A convolutional stem with the patch embedding's result, ``[B,3,S,S] → [B,h,w,D]``."""

    def __init__(self, hidden: int, patch: int) -> None:
        super().__init__()
        self.stem = ConvStem(hidden, patch)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.stem(pictures).permute(0, 2, 3, 1)


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of ``[B,C,h,w]``; without a copy where the channels lie contiguous in memory."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, eps=1e-6)
        return x.permute(0, 3, 1, 2)


class Mlp(nn.Module):
    """``[...,D] → [...,D]`` through four times the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, 4 * width)
        self.lin2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(F.gelu(self.lin1(x)))


class Block(nn.Module):
    """A transformer layer on the token grid ``[B,h,w,D]``, attending within windows of side ``window`` or, at 0, everywhere."""

    def __init__(self, width: int, heads: int, *, grid: int, window: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, side=window or grid)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        if self.window:
            return _in_strips(lambda strip: self._mix(self._look(strip)), x, self.window)
        return _in_strips(self._mix, self._look(x), 1)

    def _look(self, x: Tensor) -> Tensor:
        return x + self.attn(self.norm1(x))

    def _mix(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm2(x))


def _in_strips(layer: Callable[[Tensor], Tensor], x: Tensor, rows: int) -> Tensor:
    """``layer(x)`` for ``x [B,h,w,D]`` whose strips of ``rows`` rows do not see each other, some :data:`STRIP` tokens at a time.

    What a strip passes through is small enough to stay in cache and in memory that the process already holds.
    """
    _, height, width, _ = x.shape
    step = rows * max(1, round(STRIP * torch.get_num_threads() / (rows * width)))
    if torch.is_grad_enabled() or x.is_cuda or step >= height:
        return layer(x)
    out = torch.empty_like(x)
    for picture, to in zip(x.split(1), out.split(1), strict=True):
        for strip, place in zip(picture.split(step, 1), to.split(step, 1), strict=True):
            place.copy_(layer(strip))
    return out


class Attention(nn.Module):
    """Multi-head attention with decomposed relative positions in squares of ``side``, ``[B,h,w,D] → [B,h,w,D]``.

    A grid that ``side`` does not divide is padded at the right and bottom with tokens of zeros, which are attended to.
    """

    def __init__(self, width: int, heads: int, *, side: int) -> None:
        super().__init__()
        self.heads, self.side = heads, side
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, width // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, width // heads))

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        rows, columns = -(-height // self.side), -(-width // self.side)
        qkv = self._pad(self.qkv(x), rows * self.side, columns * self.side)
        qkv = qkv.view(batch, rows, self.side, columns, self.side, 3, self.heads, -1).permute(5, 0, 1, 3, 6, 2, 4, 7)
        q, k, v = qkv.flatten(5, 6).flatten(1, 4)  # each [squares and heads, tokens of a square, d]
        out = attend(q, k, v, *self._relative(q))
        out = out.view(batch, rows, columns, self.heads, self.side, self.side, -1).permute(0, 1, 4, 2, 5, 3, 6)
        out = out.reshape(batch, rows * self.side, columns * self.side, -1)
        return self.proj(out[:, :height, :width])

    def _pad(self, qkv: Tensor, height: int, width: int) -> Tensor:
        """``qkv [B,h,w,3D]`` padded to ``height`` and ``width`` by what the projection makes of zeros: its bias."""
        batch, h, w, channels = qkv.shape
        if (h, w) == (height, width):
            return qkv
        padded = qkv.new_empty(batch, height, width, channels)
        padded[:, :h, :w] = qkv
        padded[:, :h, w:] = self.qkv.bias.to(qkv.dtype)
        padded[:, h:] = self.qkv.bias.to(qkv.dtype)
        return padded

    def _relative(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """What each query ``[G,N,d]`` adds to the score of every key row, and of every key column: twice ``[G,side,side,side]``."""
        side, count = self.side, len(q)
        tables = torch.cat([self.rel_pos_h.flip(0), self.rel_pos_w.flip(0)]).to(q.dtype)
        products = F.linear(q.flatten(0, 1), tables)
        # A query has its products with all of a table now, from the furthest key before it to the furthest behind. In row i
        # it wants `side` of them from number `side - 1 - i` on: a row stride one short of the real one takes that step back.
        wide = products.shape[1]
        shape, square, row = (count, side, side, side), side * side * wide, side * wide
        rel_h = products.as_strided(shape, (square, row - 1, wide, 1), side - 1)
        rel_w = products.as_strided(shape, (square, row, wide - 1, 1), 3 * side - 2)
        return rel_h, rel_w


def attend(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """``softmax(q kᵀ / √d + bias) v`` on squares of ``N = side²`` tokens, all ``[G,N,d]``.

    The bias of the query at row i and column j for a key is ``rel_h[:, i, j]`` at the key's row plus ``rel_w[:, i, j]`` at its
    column, both ``[G,side,side,side]``.
    """
    scale, side = q.shape[2] ** -0.5, rel_h.shape[3]
    if not q.is_cuda and side >= WIDE:
        return cast(Tensor, _ByRows.apply(q, k, v, rel_h, rel_w))
    # One query channel per key row and column, in which the keys of that row and column hold a one.
    eye = torch.eye(side, dtype=k.dtype, device=k.device)
    places = torch.cat([eye.repeat_interleave(side, 0), eye.repeat(side, 1)], 1).expand(len(k), -1, -1)
    q = torch.cat([q.unflatten(1, (side, side)), rel_h, rel_w], 3).flatten(1, 2)
    k = torch.cat([k * scale, places], 2)
    return _fused(q, k, v) if q.is_cuda else _by_squares(q, k, v)


def _fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q kᵀ) v`` by the accelerator's own kernel, which wants one width, a multiple of 8, for all three."""
    width, own = -(-q.shape[2] // 8) * 8, v.shape[2]
    q, k, v = (F.pad(t, (0, width - t.shape[2]))[None] for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)[0, :, :, :own]


def _by_squares(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q kᵀ) v``, as many squares at once as :data:`CHUNK` allows."""
    tokens = q.shape[1]
    count = max(1, CHUNK * torch.get_num_threads() // tokens**2)
    parts = list(zip(q.split(count), k.mT.split(count), v.split(count), strict=True))
    if torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v)):
        return torch.cat([torch.bmm(a, b).softmax(2) @ c for a, b, c in parts])
    out, buffer = torch.empty_like(v), q.new_empty(min(count, len(q)), tokens, tokens)
    for (a, b, c), to in zip(parts, out.split(count), strict=True):
        scores = torch.bmm(a, b, out=buffer[: len(a)])
        torch.bmm(torch.softmax(scores, 2, out=scores), c, out=to)
    return out


class _ByRows(torch.autograd.Function):
    """:func:`attend`, square by square and as many of the grid's rows at once as :data:`CHUNK` allows, forwards and backwards.

    The backward pass makes the scores again: kept, they would fill the memory.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
        out = torch.empty_like(v)
        parts, buffer = _parts(q, rel_h)
        for square, rows, tokens in parts:
            chances = _chances(q[square, tokens], k[square], rel_h[square, rows], rel_w[square, rows], buffer)
            torch.mm(chances, v[square], out=out[square, tokens])
        ctx.save_for_backward(q, k, v, rel_h, rel_w, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, ...]:
        q, k, v, rel_h, rel_w, out = ctx.saved_tensors
        scale, side = q.shape[2] ** -0.5, rel_h.shape[3]
        to_q, to_h, to_w = torch.empty_like(q), rel_h.new_empty(rel_h.shape), rel_w.new_empty(rel_w.shape)
        to_k, to_v = (torch.zeros_like(t, dtype=torch.float32) for t in (k, v))  # sums over parts, whatever the dtype
        parts, buffer = _parts(q, rel_h)
        second = torch.empty_like(buffer)
        for square, rows, tokens in parts:
            own, given = q[square, tokens], slope[square, tokens].contiguous()
            chances = _chances(own, k[square], rel_h[square, rows], rel_w[square, rows], buffer)
            to_v[square] += chances.mT @ given
            scores = torch.mm(given, v[square].mT, out=second[: len(own)])
            # Through the softmax: what a score would gain, less what its row gains as a whole.
            scores.sub_((given * out[square, tokens]).sum(1, keepdim=True)).mul_(chances)
            to_q[square, tokens] = (scores @ k[square]).mul_(scale)
            to_k[square].add_(scores.mT @ own, alpha=scale)
            grid = scores.view(-1, side, side, side)
            torch.sum(grid, 3, out=to_h[square, rows])
            torch.sum(grid, 2, out=to_w[square, rows])
        return to_q, to_k.to(k.dtype), to_v.to(v.dtype), to_h, to_w


def _parts(q: Tensor, rel: Tensor) -> tuple[list[tuple[int, slice, slice]], Tensor]:
    """Every part as its square, its rows of the grid and these rows' tokens; and room for one part's scores."""
    side, tokens = rel.shape[3], q.shape[1]
    rows = min(side, max(1, CHUNK * torch.get_num_threads() // (side * tokens)))
    starts = [(square, row) for square in range(len(q)) for row in range(0, side, rows)]
    parts = [(square, slice(row, row + rows), slice(row * side, (row + rows) * side)) for square, row in starts]
    return parts, q.new_empty(rows * side, tokens)


def _chances(q: Tensor, k: Tensor, rel_h: Tensor, rel_w: Tensor, buffer: Tensor) -> Tensor:
    """The attention ``[n,N]`` of ``n`` queries, in ``buffer``; ``q [n,d]``, ``k [N,d]``, ``rel_h, rel_w [n / side,side,side]``."""
    scores, side = buffer[: len(q)], rel_h.shape[2]
    torch.add(rel_h[..., None], rel_w[..., None, :], out=scores.view(-1, side, side, side))
    scores.addmm_(q, k.mT, alpha=q.shape[1] ** -0.5)
    return torch.softmax(scores, 1, out=scores)
