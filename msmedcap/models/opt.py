"""The frozen language model of Eq. 6: OPT with its tokenizer, on ``transformers``; 8-bit weights through bitsandbytes.

Comes in: prefixes ``[L,D_llm]`` (the branches' reads and the prompt's embeddings). Goes out: a loss, or captions. A caption
is trained with a trailing newline and decoding stops there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import OPTConfig, OPTForCausalLM
from transformers import logging as transformers_logging
from transformers.generation import BaseStreamer, LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from msmedcap.config import Decoding, UserError
from msmedcap.models.frozen import freeze
from msmedcap.models.tokens import Tokenizer, load_tokenizer

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


def load_opt(source: str | Path, *, dtype: torch.dtype, device: torch.device, load_8bit: bool = False) -> Opt:
    """OPT from a folder or hub id, in ``dtype`` on ``device``; ``load_8bit`` quantises its linear layers with bitsandbytes.

    Raises :class:`UserError` when a file is missing or damaged, or a weight is missing or left over.
    """
    options: dict[str, object] = {"dtype": dtype, "use_safetensors": True, "ignore_mismatched_sizes": True}
    if load_8bit:
        from transformers import BitsAndBytesConfig

        options |= {"quantization_config": BitsAndBytesConfig(load_in_8bit=True), "device_map": {"": device}}
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():  # transformers would assume OPT-125m
        raise UserError(f"The language model {source} has no config.json; copy or download it again.")
    transformers_logging.disable_progress_bar()  # one file a second is no progress to watch; the commands show their own
    try:
        model, report = OPTForCausalLM.from_pretrained(str(source), output_loading_info=True, **options)
        tokenizer = load_tokenizer(source)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"The language model {source} cannot be loaded ({reason}); copy or download it again.") from error
    # transformers would fill a missing weight with random numbers and go on.
    wrong = [key for key, *_ in report["mismatched_keys"]]
    problems = {"lacks": report["missing_keys"], "has unknown": report["unexpected_keys"], "has wrong shapes for": wrong}
    if told := "; ".join(f"{what} {sorted(keys)}" for what, keys in problems.items() if keys):
        raise UserError(f"The language model {source} does not fit this version: it {told}.")
    return Opt(model if load_8bit else model.to(device), tokenizer)


def build_opt(vocab: int, *, hidden: int, layers: int, heads: int, positions: int = 256) -> OptModel:
    """A random OPT of OPT-125m's construction (pre-norm, tied embeddings) at the given size, to be pre-trained."""
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=vocab,
            hidden_size=hidden,
            ffn_dim=4 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            word_embed_proj_dim=hidden,
            max_position_embeddings=positions,
            dropout=0.0,
            bos_token_id=2,
            eos_token_id=2,
            pad_token_id=1,
        )
    )
