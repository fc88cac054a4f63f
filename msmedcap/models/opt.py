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

from msmedcap.config import Decoding
from msmedcap.models.decoding import Said, decode
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
        return self.token_losses(prefix, captions, max_tokens=max_tokens).mean()

    def token_losses(self, prefix: Tensor, captions: Sequence[str], *, max_tokens: int = 64) -> Tensor:
        """As :meth:`loss`, each token's own, caption after caption: ``[n]``. ``prefix`` may be of another type than OPT."""
        rows = [self.caption_ids(c)[:max_tokens] for c in captions]
        longest = max(len(r) for r in rows)
        ids = torch.full((len(rows), longest), self.tokenizer.pad_token_id, device=prefix.device)
        real = torch.zeros_like(ids, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row, device=prefix.device)
            real[i, : len(row)] = True
        inputs = torch.cat([prefix.to(self.model.dtype), self.embed(ids).to(self.model.dtype)], dim=1)
        mask = torch.cat([real.new_ones(prefix.shape[:2]), real], dim=1).long()
        hidden = self.model.model.decoder(inputs_embeds=inputs, attention_mask=mask)[0]
        # The state before a token predicts it: the last prefix slot predicts the first caption token.
        states = hidden[:, prefix.shape[1] - 1 : -1][real]
        return nn.functional.cross_entropy(self.model.lm_head(states).float(), ids[real], reduction="none")

    def caption_ids(self, caption: str) -> list[int]:
        """A caption's tokens as they follow a prompt: a leading space, the text, the newline."""
        return self.tokenizer(f" {caption.strip()}", add_special_tokens=False).input_ids + [self.newline]

    def generate(
        self, prefixes: Sequence[Tensor], decoding: Decoding, *, on_tokens: OnTokens | None = None
    ) -> list[str]:
        """One caption for each prefix ``[L_i,D_llm]``, decoded as one batch (lengths may differ).

        ``on_tokens`` is called with all texts after every step, the last time with the complete ones; what it raises ends the
        decoding. Greedy texts grow; with beams a text is that of the best beam so far, which may change.
        """
        return [self.text(said) for said in self.say(prefixes, decoding, on_tokens=on_tokens)]

    def say(
        self, prefixes: Sequence[Tensor], decoding: Decoding, *, on_tokens: OnTokens | None = None
    ) -> list[Said]:
        """As :meth:`generate`: each caption's token ids and their log-probabilities, in place of its text."""

        def show(steps: list[Said]) -> None:
            if on_tokens is not None:
                on_tokens([self.text(said) for said in steps])

        on_step = None if on_tokens is None else show
        return decode(self.model, prefixes, decoding, newline=self.newline, on_step=on_step)

    def text(self, said: Said) -> str:
        """A caption's tokens as text, without the newline that ends it."""
        ids = said.ids[:-1] if said.ids[-1] == self.newline else said.ids
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()
