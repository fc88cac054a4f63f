"""BLEURT (Sellam, Das and Parikh, ACL 2020; BLEURT-20: Pu et al., EMNLP 2021): a model trained to rate a candidate as people do.

Comes in: pairs of reference and candidate. Goes out: one number each, about 0 to 1. The model reads
``[CLS] reference [SEP] candidate [SEP]`` (segments 0 and 1), and a linear head on its pooled first token is the score. Three
published forms load, none with code of its own repository:

- ``Elron/bleurt-*``: a ``BertForSequenceClassification`` as it stands;
- ``lucadiliello/bleurt-*``: the same under other names;
- ``lucadiliello/BLEURT-20*``: word embeddings narrower than the model, with a projection after them: a
  ``RemBertForSequenceClassification`` under other names, and a SentencePiece vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

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

Joined = tuple[list[int], list[int], bool]
POSITIONS = 512  # what a BLEURT reads where its files do not say


def join(reference: Sequence[int], candidate: Sequence[int], *, limit: int, cls: int, sep: int) -> Joined:
    """The ids and segments of a pair in at most ``limit`` tokens, and whether it was cut.

    The longer text loses its last token until both fit, the candidate where they are equally long.
    """
    excess = max(0, len(reference) + len(candidate) + 3 - limit)
    kept, other = len(reference), len(candidate)
    for _ in range(excess):
        if kept > other:
            kept -= 1
        else:
            other -= 1
    ids = [cls, *reference[:kept], sep, *candidate[:other], sep]
    return ids, [0] * (kept + 2) + [1] * (other + 1), excess > 0


@dataclass(frozen=True)
class Vocabulary:
    """How one BLEURT splits a text: its ids without special tokens, and the special ones."""

    ids: Callable[[str], list[int]]
    cls: int
    sep: int
    pad: int
    limit: int


@dataclass(frozen=True)
class Rater:
    """A BLEURT model with its vocabulary."""

    model: Any
    vocabulary: Vocabulary

    @torch.inference_mode()
    def __call__(self, pairs: Sequence[Pair]) -> list[Value]:
        """The head's value for each pair."""
        words = self.vocabulary
        joined = [
            join(words.ids(reference), words.ids(candidate), limit=words.limit, cls=words.cls, sep=words.sep)
            for reference, candidate in pairs
        ]
        ids, mask = pad([one[0] for one in joined], words.pad, self.model.device)
        segments, _ = pad([one[1] for one in joined], 0, self.model.device)
        ratings = self.model(input_ids=ids, attention_mask=mask.long(), token_type_ids=segments).logits[:, 0]
        return [Value((rating,), one[2]) for rating, one in zip(ratings.double().tolist(), joined, strict=True)]


class BleurtScorer:
    """BLEURT of one model; an empty text is rated like any other."""

    name = "BLEURT"

    def __init__(self, checkpoint: Checkpoint, *, device: str | None = None, dtype: str = "float32") -> None:
        self._opening = (open_rater, checkpoint, pick_device(device), check_dtype(dtype))
        self.key = f"BLEURT 1 {checkpoint.digest} {dtype}"

    def __call__(self, pairs: Sequence[Pair]) -> list[Value]:
        """One number for each pair; the model is opened when the first is asked for."""
        return opened(*self._opening)(pairs)


def open_rater(checkpoint: Checkpoint, device: str, dtype: str) -> Rater:
    """The BLEURT in ``checkpoint``. :class:`UserError` for a model of another kind."""
    from transformers import BertConfig, BertForSequenceClassification, RemBertConfig, RemBertForSequenceClassification

    said = checkpoint.config()
    kind, narrow = said.get("model_type"), said.get("embedding_size")
    if kind not in ("bert", "bleurt"):
        raise UserError(f"{checkpoint.name} is a {kind} model, no BLEURT; name one such as lucadiliello/BLEURT-20-D12.")
    fields = {key: value for key, value in said.items() if key not in ("model_type", "architectures", "embedding_size")}
    fields["num_labels"] = 1
    if kind == "bleurt" and narrow is not None:
        cls, config = RemBertForSequenceClassification, RemBertConfig(**fields, input_embedding_size=narrow)
        renamed = {
            r"^bleurt\.encoder\.embedding_projection\.": "rembert.encoder.embedding_hidden_mapping_in.",
            r"^bleurt\.": "rembert.",
        }
    else:
        cls, config = BertForSequenceClassification, BertConfig(**fields)
        renamed = {r"^bleurt\.": "bert."} if kind == "bleurt" else {}
    model = load(cls, checkpoint, config=config, dtype=dtype, device=device, renamed=renamed)
    return Rater(model, _vocabulary(checkpoint, config))


def _vocabulary(checkpoint: Checkpoint, config: Any) -> Vocabulary:
    pieces = sorted(checkpoint.folder.glob("*.model"))
    if pieces:
        return _sentencepiece(checkpoint.name, pieces[0], int(config.max_position_embeddings or POSITIONS))
    from transformers import BertTokenizer

    tokenizer = load_tokenizer(BertTokenizer, checkpoint)

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])

    return Vocabulary(
        ids, tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id, longest(tokenizer, config)
    )


def _sentencepiece(name: str, file: Path, limit: int) -> Vocabulary:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise UserError(
            f"{name} needs the package sentencepiece; install it with `pip install sentencepiece`."
        ) from None
    try:
        pieces = SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError):
        raise UserError(f"{file} is no SentencePiece model; download {name} again.") from None
    cls, sep, filler = (pieces.piece_to_id(piece) for piece in ("[CLS]", "[SEP]", "[PAD]"))
    if pieces.unk_id() in (cls, sep):
        raise UserError(f"{file} has no [CLS] and [SEP]; it is not the vocabulary of a BLEURT.")
    # Padding is masked, so that any id serves where the vocabulary has no piece for it.
    return Vocabulary(
        lambda text: list(pieces.encode(text)), cls, sep, filler if filler != pieces.unk_id() else 0, limit
    )
