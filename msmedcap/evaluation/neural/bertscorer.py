"""BERTScore (Zhang et al., ICLR 2020): how well the tokens of two texts find each other in a language model's space.

Comes in: pairs of reference and candidate. Goes out: precision, recall and F1 of each pair. Every candidate token is matched
with the most similar reference token (cosine of the contextual embeddings of one layer): their weighted mean is the
precision; the other way round it is the recall. The weights are 1, and 0 for the two special tokens, or with idf
``log((M + 1) / (m + 1))`` of a token that stands in m of the M references. As in the authors' package, bert-score 0.3.13:
a text is stripped, layers above the read one are dropped, and a pair with an empty text scores 0. One deliberate
difference: there, padding counts as a token of similarity 0, so that a token unlike every other one scores 0 in a batch
and less than 0 alone; here padding counts nowhere.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msmedcap.config import UserError
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

Frequencies = tuple[Mapping[int, float], float]
# Tokenizers that read a word's leading space; the authors put one before the first word of these (not of DeBERTa's).
SPACED = ("RobertaTokenizer", "GPT2Tokenizer", "BartTokenizer")


def greedy_match(candidate: Tensor, reference: Tensor, candidate_weights: Tensor, reference_weights: Tensor, *,
                 candidate_mask: Tensor, reference_mask: Tensor) -> Tensor:  # fmt: skip
    """Precision, recall and F1 [B, 3] of embeddings [B, C, D] and [B, R, D], weights and masks (True: a token) [B, C] and [B, R].

    A side whose weights are all 0 scores 0, and so does its F1.
    """
    candidate = torch.nn.functional.normalize(candidate.float(), dim=-1)
    reference = torch.nn.functional.normalize(reference.float(), dim=-1)
    likeness = candidate @ reference.transpose(1, 2)
    likeness = likeness.masked_fill(~(candidate_mask[:, :, None] & reference_mask[:, None, :]), -math.inf)
    precision = _mean(likeness.amax(dim=2), candidate_weights * candidate_mask)
    recall = _mean(likeness.amax(dim=1), reference_weights * reference_mask)
    f1 = torch.where(precision + recall == 0, 0, 2 * precision * recall / (precision + recall))
    return torch.stack([precision, recall, f1], dim=1)


def inverse_frequencies(documents: Iterable[Iterable[int]]) -> Frequencies:
    """The weight ``log((M + 1) / (m + 1))`` of each token id of M ``documents``, and that of an id in none of them (m = 0)."""
    counts: Counter[int] = Counter()
    total = 0
    for document in documents:
        counts.update(set(document))
        total += 1
    return {token: math.log((total + 1) / (count + 1)) for token, count in counts.items()}, math.log(total + 1)


@dataclass(frozen=True)
class Encoder:
    """A model cut off above the layer read, with its tokenizer and the most tokens it takes."""

    model: Any
    tokenizer: Any
    limit: int

    def tokens(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Token ids of ``texts``, special ones included, and which texts were cut to the limit."""
        space = " " if isinstance_named(self.tokenizer, SPACED) else ""
        stripped = [space + text.strip() for text in texts]
        # The cut is looked for in what was asked to be cut, one token later: the library does not say where it cut.
        whole = self.tokenizer(stripped, truncation=True, max_length=self.limit + 1)["input_ids"]
        cut = [len(ids) > self.limit for ids in whole]
        if not any(cut):
            return whole, cut
        return self.tokenizer(stripped, truncation=True, max_length=self.limit)["input_ids"], cut

    @torch.inference_mode()
    def embed(self, ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Embeddings [B, N, D] of the layer read and the mask [B, N] of the tokens."""
        padded, mask = pad(ids, self.tokenizer.pad_token_id or 0, self.model.device)
        return self.model(input_ids=padded, attention_mask=mask.long()).last_hidden_state, mask


class BertScorer:
    """BERTScore of one model. ``idf_of``: all the references, which weight the tokens by their rarity; None weights them alike."""

    name = "BERTScore"

    def __init__(self, checkpoint: Checkpoint, *, layer: int, idf_of: Sequence[str] | None = None, device: str | None = None,
                 dtype: str = "float32") -> None:  # fmt: skip
        self._opening = (open_encoder, checkpoint, layer, pick_device(device), check_dtype(dtype))
        self._frequencies = None if idf_of is None else frequencies_of(self.encoder, idf_of)
        weighting = "alike" if self._frequencies is None else _digest(*self._frequencies)
        self.key = f"BERTScore 1 {checkpoint.digest} layer {layer} {dtype} {weighting}"

    @property
    def encoder(self) -> Encoder:
        """The model, opened when it is first asked for: a run whose scores are all kept needs none (but for idf)."""
        return opened(*self._opening)

    def __call__(self, pairs: Sequence[Pair]) -> list[Value]:
        """Precision, recall and F1 of each pair; 0 where a text is empty."""
        full = [pair for pair in pairs if pair[0].strip() and pair[1].strip()]
        found = dict(zip(full, self._values(full), strict=True)) if full else {}
        return [found.get(pair, Value((0.0, 0.0, 0.0), cut=False)) for pair in pairs]

    def _values(self, pairs: Sequence[Pair]) -> list[Value]:
        texts = sorted({text for pair in pairs for text in pair})
        place = {text: i for i, text in enumerate(texts)}
        ids, cut = self.encoder.tokens(texts)
        embeddings, mask = self.encoder.embed(ids)
        weights = self._weights(ids, mask)
        references, candidates = ([place[pair[side]] for pair in pairs] for side in (0, 1))
        with torch.inference_mode():
            scores = greedy_match(
                embeddings[candidates], embeddings[references], weights[candidates], weights[references],
                candidate_mask=mask[candidates], reference_mask=mask[references],
            )  # fmt: skip
        return [
            Value(tuple(row), cut=cut[reference] or cut[candidate])
            for row, reference, candidate in zip(scores.double().tolist(), references, candidates, strict=True)
        ]

    def _weights(self, ids: Sequence[Sequence[int]], mask: Tensor) -> Tensor:
        special = {self.encoder.tokenizer.cls_token_id, self.encoder.tokenizer.sep_token_id}
        weights = torch.zeros(mask.shape)
        for row, tokens in enumerate(ids):
            if self._frequencies is None:
                values = [float(token not in special) for token in tokens]
            else:
                known, unseen = self._frequencies
                values = [known.get(token, unseen) for token in tokens]
            weights[row, : len(tokens)] = torch.tensor(values)
        return weights.to(mask.device)


def open_encoder(checkpoint: Checkpoint, layer: int, device: str, dtype: str) -> Encoder:
    """The encoder of ``checkpoint`` up to ``layer`` (counted from 1).

    Raises :class:`UserError` for a layer that the model does not have.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{checkpoint.name} is of no kind that BERTScore can read ({reason})") from error
    name = "num_hidden_layers"
    if config.is_encoder_decoder:
        name = "encoder_layers" if hasattr(config, "encoder_layers") else "num_layers"
    if not 1 <= layer <= getattr(config, name):
        raise UserError(f"{checkpoint.name} has {getattr(config, name)} layers; layer {layer} is not among them.")
    setattr(config, name, layer)
    model = load(AutoModel, checkpoint, config=config, dtype=dtype, device=device, head=("pooler.",))
    tokenizer = load_tokenizer(AutoTokenizer, checkpoint)
    encoder = model.get_encoder() if config.is_encoder_decoder else model
    return Encoder(encoder, tokenizer, longest(tokenizer, config))


def frequencies_of(encoder: Encoder, references: Sequence[str]) -> Frequencies:
    """The idf weights of all ``references``, each counted as often as it stands there, as the authors do."""
    return inverse_frequencies(
        tokens
        for start in range(0, len(references), 1000)
        for tokens in encoder.tokens(references[start : start + 1000])[0]
    )


def pad(ids: Sequence[Sequence[int]], filler: int, device: Any) -> tuple[Tensor, Tensor]:
    """Token ids of unlike lengths as one tensor [B, N], ``filler`` at the right, and the mask [B, N] of what is no filler."""
    width = max(len(tokens) for tokens in ids)
    padded = torch.full((len(ids), width), filler)
    mask = torch.zeros(len(ids), width, dtype=torch.bool)
    for row, tokens in enumerate(ids):
        padded[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        mask[row, : len(tokens)] = True
    return padded.to(device), mask.to(device)


def isinstance_named(value: Any, names: Sequence[str]) -> bool:
    """Whether a class of ``value`` is called one of ``names`` (the library makes several classes of one tokenizer)."""
    return any(cls.__name__.removesuffix("Fast") in names for cls in type(value).__mro__)


def _mean(best: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum(dim=1)
    # The best of a filler is minus infinity, and 0 times that is no number.
    summed = (best.masked_fill(weights == 0, 0) * weights).sum(dim=1)
    return torch.where(total == 0, 0, summed / total)


def _digest(known: Mapping[int, float], unseen: float) -> str:
    return hashlib.sha256(repr((sorted(known.items()), unseen)).encode()).hexdigest()[:16]
