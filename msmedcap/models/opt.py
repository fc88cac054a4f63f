"""The frozen language model of Eq. 6: OPT with its tokenizer, on ``transformers`` (loaded by :mod:`.opt_loading`).

Comes in: prefixes ``[L,D_llm]`` (the branches' reads and the prompt's embeddings). Goes out: a loss, or captions. A caption
is trained with a trailing newline and decoding stops there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from transformers import OPTForCausalLM
from transformers.generation import BaseStreamer, LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from msmedcap.config import Decoding
from msmedcap.models.frozen import freeze
from msmedcap.models.tokens import Tokenizer

OptModel: TypeAlias = OPTForCausalLM
OnTokens = Callable[[list[str]], None]


class Opt(nn.Module):
    """OPT, frozen, with the three things the captioner needs of it: embeddings, a loss and decoding."""

    def __init__(self, model: OPTForCausalLM, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.model = freeze(model)
        self.tokenizer = tokenizer
        self.newline = tokenizer("\n", add_special_tokens=False).input_ids[-1]

    @property
    def width(self) -> int:
        """The width of a prefix slot."""
        return self.model.config.word_embed_proj_dim

    def prompt_ids(self, prompt: str) -> Tensor:
        """``</s>`` and the prompt's tokens: ``[P]``."""
        ids = [self.tokenizer.bos_token_id, *self.tokenizer(prompt, add_special_tokens=False).input_ids]
        return torch.tensor(ids, device=self.model.device)

    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings ``[...] → [...,D_llm]``."""
        return self.model.get_input_embeddings()(ids)

    def loss(self, prefix: Tensor, captions: Sequence[str], *, max_tokens: int = 64) -> Tensor:
        """Mean cross-entropy of the captions' tokens (and the newline that ends them) after ``prefix [B,L,D_llm]``."""
        rows = [self.caption_ids(c)[:max_tokens] for c in captions]
        longest = max(len(r) for r in rows)
        ids = torch.full((len(rows), longest), self.tokenizer.pad_token_id, device=prefix.device)
        real = torch.zeros_like(ids, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row, device=prefix.device)
            real[i, : len(row)] = True
        text = self.embed(ids).to(prefix.dtype)
        mask = torch.cat([real.new_ones(prefix.shape[:2]), real], dim=1).long()
        hidden = self.model.model.decoder(inputs_embeds=torch.cat([prefix, text], dim=1), attention_mask=mask)[0]
        # The state before a token predicts it: the last prefix slot predicts the first caption token.
        states = hidden[:, prefix.shape[1] - 1 : -1][real]
        return nn.functional.cross_entropy(self.model.lm_head(states).float(), ids[real])

    def caption_ids(self, caption: str) -> list[int]:
        """A caption's tokens as they follow a prompt: a leading space, the text, the newline."""
        return self.tokenizer(f" {caption.strip()}", add_special_tokens=False).input_ids + [self.newline]

    @torch.no_grad()
    def generate(
        self, prefixes: Sequence[Tensor], decoding: Decoding, *, on_tokens: OnTokens | None = None
    ) -> list[str]:
        """One caption for each prefix ``[L_i,D_llm]``, decoded as one batch (left-padded; lengths may differ).

        ``on_tokens`` is called with the growing texts after every step; with beams nothing can be shown before the end.
        """
        longest = max(p.shape[0] for p in prefixes)
        embeds = torch.stack([nn.functional.pad(p, (0, 0, longest - p.shape[0], 0)) for p in prefixes])
        mask = torch.stack([torch.arange(longest, device=p.device) >= longest - p.shape[0] for p in prefixes]).long()
        streamer = _Growing(self._texts, on_tokens) if on_tokens and decoding.beams == 1 else None
        penalties = LogitsProcessorList()
        if decoding.repetition_penalty != 1:
            # generate's own option would spare as many first words as a row has padding: it takes the new tokens for the
            # padded prompt, which with embeddings they do not follow.
            penalties.append(RepetitionPenaltyLogitsProcessor(decoding.repetition_penalty))
        ids = self.model.generate(
            inputs_embeds=embeds.to(self.model.dtype),
            attention_mask=mask,
            do_sample=False,
            num_beams=decoding.beams,
            min_new_tokens=decoding.min_new_tokens,
            max_new_tokens=decoding.max_new_tokens,
            logits_processor=penalties,
            length_penalty=decoding.length_penalty if decoding.beams > 1 else None,
            eos_token_id=self.newline,
            pad_token_id=self.tokenizer.pad_token_id,
            streamer=streamer,
        )
        return self._texts(ids)

    def _texts(self, ids: Tensor) -> list[str]:
        texts = []
        for row in ids.tolist():
            end = row.index(self.newline) if self.newline in row else len(row)
            texts.append(self.tokenizer.decode(row[:end], skip_special_tokens=True).strip())
        return texts


class _Growing(BaseStreamer):
    """Hands the batch's growing texts to a callback after every greedy step."""

    def __init__(self, decode: Callable[[Tensor], list[str]], on_tokens: OnTokens) -> None:
        self.decode, self.on_tokens = decode, on_tokens
        self.columns: list[Tensor] = []

    def put(self, value: Tensor) -> None:
        if value.ndim == 1:  # the first call hands over the (empty) prompt as a matrix
            self.columns.append(value)
            self.on_tokens(self.decode(torch.stack(self.columns, dim=1)))

    def end(self) -> None:
        return None
