"""Linear layers whose weights lie in memory as the processor multiplies them: for decoding without an accelerator.

A step of decoding multiplies every weight with a handful of rows. The library behind ``torch.nn.Linear`` copies a bf16 weight into
its own layout at every such call, which costs as much as the product itself, and in fp32 another library is asked that is slow for
few rows; packed once, four rows cost what one did. Comes in: a model on the CPU. Goes out: the same model with the same outputs. No
second copy of a weight is kept, but of one that is an embedding table as well.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEWEST_ROWS = 4  # with fewer in bf16, the library chooses a slower way than with four
ROWS = 16  # what the layout is made for; any number may follow


def pack(model: nn.Module) -> int:
    """Pack the frozen bf16 and fp32 linear layers inside ``model`` in place; returns how many (0 where this processor cannot)."""
    count = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and _fits(child):
                setattr(parent, name, PackedLinear(child))
                count += 1
    return count


def _fits(module: nn.Linear) -> bool:
    if type(module) is not nn.Linear or hasattr(module, "_hf_hook"):  # a hook moves weights; nothing packed can be moved
        return False
    weight = module.weight
    return weight.device.type == "cpu" and not weight.requires_grad and _multiplies(weight.dtype)


def _multiplies(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PackedLinear(nn.Module):
    """A frozen ``nn.Linear`` on the CPU: ``[...,K] → [...,N]``; its input may have a gradient, its weight has none."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)

    @property
    def weight(self) -> Tensor:
        """The weight as ``nn.Linear`` holds it ``[N,K]``, unpacked into a new tensor."""
        return self._packed.to_dense()

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        product: Tensor = _Product.apply(rows, self) if torch.is_grad_enabled() else self.multiplied(rows)
        return product.view(*x.shape[:-1], self.out_features)

    def multiplied(self, rows: Tensor) -> Tensor:
        """``[R,K] → [R,N]``."""
        count = rows.shape[0]
        few = count < FEWEST_ROWS and rows.dtype == torch.bfloat16
        if few:
            rows = F.pad(rows, (0, 0, 0, FEWEST_ROWS - count))
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, self.bias, "none", [], "")
        return product[:count] if few else product

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.weight


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer
        return layer.multiplied(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.layer.weight, None
