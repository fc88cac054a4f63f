"""Text as token ids: the tokenizers of OPT and of the Q-Former's text half, trained here at demo scale.

The demo tokenizer is OPT's in kind (byte-level pairs, ``</s>`` begins a text, ``<pad>`` is 1); a newline, which ends a caption, is
one token. Comes in: texts. Goes out: a tokenizer, and ids ``[B,T]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

Tokenizer: TypeAlias = PreTrainedTokenizerBase


def train_tokenizer(texts: Iterable[str], vocab: int) -> Tokenizer:
    """A byte-level pair tokenizer of at most ``vocab`` entries with OPT's special tokens at OPT's places."""
    tokenizer = FastTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="</s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def load_tokenizer(source: str | Path) -> Tokenizer:
    """The tokenizer in a folder, or a hub id's."""
    return AutoTokenizer.from_pretrained(str(source))


def load_text_tokenizer(source: str | Path) -> Tokenizer:
    """The tokenizer of a Q-Former's text half in a folder, or a hub id's; a BERT's gets BLIP-2's [DEC], its last word."""
    tokenizer = load_tokenizer(source)
    if tokenizer.cls_token_id is not None and "[DEC]" not in tokenizer.get_vocab():
        tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    return tokenizer


def padded(texts: Sequence[str], tokenizer: Tokenizer, length: int) -> Tensor:
    """Texts as ids ``[B,T]``, T the longest but at most ``length``: first token, text, last token, right-padded.

    First and last are a BERT tokenizer's [CLS] and [SEP], another's begin and end; what is too long loses its last words.
    """
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    first = tokenizer.bos_token_id if first is None else first
    last = tokenizer.eos_token_id if last is None else last
    rows = [tokenizer(t, add_special_tokens=False, verbose=False).input_ids[: length - 2] for t in texts]
    ids = torch.full((len(rows), max(map(len, rows)) + 2), tokenizer.pad_token_id)
    for i, row in enumerate(rows):
        ids[i, : len(row) + 2] = torch.tensor([first, *row, last])
    return ids
