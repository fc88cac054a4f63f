"""What "frozen" means here: no gradient, and evaluation mode whatever ``.train()`` says.

The image encoders and OPT stay frozen in both stages (Fig. 2); only Q-Formers, queries, norms and projections learn.
"""

from __future__ import annotations

import types
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def freeze(module: M) -> M:
    """Freeze ``module`` and all below it, in place, and return it; a later ``.train()`` no longer reaches it."""
    module.requires_grad_(False)
    module.eval()
    module.train = types.MethodType(_stay_in_eval, module)  # type: ignore[method-assign]
    return module


def _stay_in_eval(self: nn.Module, mode: bool = True) -> nn.Module:
    return self
