"""Pre-training of the demo language model: a small OPT on radiology text.

Comes in: texts and a tokenizer. Goes out: rows of tokens of equal length, and the next-token loss on them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msmedcap.models.opt import OptModel
from msmedcap.models.tokens import Tokenizer


def pack(texts: Iterable[str], tokenizer: Tokenizer, length: int) -> Tensor:
    """Texts as rows ``[R,length]``: each text ``</s> … newline``, one after the other, cut where a row ends."""
    newline = tokenizer("\n", add_special_tokens=False).input_ids[-1]
    stream: list[int] = []
    for text in texts:
        stream += [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False).input_ids, newline]
    rows = len(stream) // length
    return torch.tensor(stream[: rows * length]).view(rows, length)


class LanguageTask(nn.Module):
    """Next-token loss of OPT on rows ``[B,T]``."""

    def __init__(self, model: OptModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        logits = self.model(input_ids=rows[:, :-1], use_cache=False).logits
        return {"loss": F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())}
