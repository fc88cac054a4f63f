"""BARTScore (Yuan, Neubig and Liu, NeurIPS 2021): how likely a generator finds one text after reading the other.

Comes in: pairs of reference and candidate, and a direction. Goes out: the mean log-probability of the target's tokens given
the source, natural logarithm, at most 0. ``references->candidates`` is the authors' precision (is what the candidate says
likely after the reference?), ``candidates->references`` their recall, ``F`` the mean of the two. As in the authors' code the
target's first and last special tokens count among its tokens, and the decoder starts from the model's own start token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msmedcap.config import UserError
from msmedcap.evaluation.neural.bertscorer import pad
from msmedcap.evaluation.neural.checkpoint import (
    Checkpoint,
    check_dtype,
    load,
    load_tokenizer,
    longest,
    opened,
    pick_device,
)
from msmedcap.evaluation.neural.store import Pair, Value

PRECISION, RECALL, F = "references->candidates", "candidates->references", "F"
DIRECTIONS = (PRECISION, RECALL, F)


def mean_log_probability(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """The mean over each row's tokens (``mask`` [B, N]) of the log-probability of ``targets`` [B, N] under ``logits`` [B, N, V]."""
    chosen = logits.float().log_softmax(dim=-1).gather(2, targets[:, :, None])[:, :, 0]
    return (chosen * mask).sum(dim=1) / mask.sum(dim=1)


@dataclass(frozen=True)
class Generator:
    """An encoder-decoder with its tokenizer and the most tokens it takes on either side."""

    model: Any
    tokenizer: Any
    limit: int

    @torch.inference_mode()
    def __call__(self, sources: Sequence[str], targets: Sequence[str]) -> tuple[list[float], list[bool]]:
        """The score of each target after its source, and whether either text was cut."""
        (read, read_mask, read_cut), (said, said_mask, said_cut) = self._tokens(sources), self._tokens(targets)
        start = self.model.config.decoder_start_token_id
        shifted = torch.cat([torch.full_like(said[:, :1], start), said[:, :-1]], dim=1)
        logits = self.model(
            input_ids=read, attention_mask=read_mask.long(), decoder_input_ids=shifted, use_cache=False
        ).logits
        scores = mean_log_probability(logits, said, said_mask).double().tolist()
        return scores, [a or b for a, b in zip(read_cut, said_cut, strict=True)]

    def _tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, list[bool]]:
        ids = self.tokenizer(list(texts), truncation=True, max_length=self.limit + 1)["input_ids"]
        cut = [len(tokens) > self.limit for tokens in ids]
        if any(cut):
            ids = self.tokenizer(list(texts), truncation=True, max_length=self.limit)["input_ids"]
        return *pad(ids, self.tokenizer.pad_token_id, self.model.device), cut


class BartScorer:
    """BARTScore of one model in one direction: ``references->candidates`` or ``candidates->references``."""

    name = "BARTScore"

    def __init__(
        self, checkpoint: Checkpoint, *, direction: str, device: str | None = None, dtype: str = "float32"
    ) -> None:
        if direction not in (PRECISION, RECALL):
            raise UserError(f"The direction {direction!r} is not known; choose one of {', '.join(DIRECTIONS)}.")
        self._opening = (open_generator, checkpoint, pick_device(device), check_dtype(dtype))
        self._forward = direction == PRECISION
        self.key = f"BARTScore 1 {checkpoint.digest} {direction} {dtype}"

    def __call__(self, pairs: Sequence[Pair]) -> list[Value]:
        """One number for each pair; an empty text is scored like any other. The model is opened when the first is asked for."""
        references, candidates = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        sides = (references, candidates) if self._forward else (candidates, references)
        return [Value((score,), cut) for score, cut in zip(*opened(*self._opening)(*sides), strict=True)]


def open_generator(checkpoint: Checkpoint, device: str, dtype: str) -> Generator:
    """The encoder-decoder of ``checkpoint``. :class:`UserError` for a model of another kind."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{checkpoint.name} is of no kind that BARTScore can read ({reason})") from error
    if not config.is_encoder_decoder:
        raise UserError(
            f"{checkpoint.name} has no decoder; BARTScore needs an encoder-decoder such as facebook/bart-large-cnn."
        )
    model = load(AutoModelForSeq2SeqLM, checkpoint, config=config, dtype=dtype, device=device)
    tokenizer = load_tokenizer(AutoTokenizer, checkpoint)
    return Generator(model, tokenizer, longest(tokenizer, config))
