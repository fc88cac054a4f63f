"""Metrics that read both texts with a language model: BERTScore, BARTScore and BLEURT, on ``transformers``, any model id.

Comes in: for each case its references and one candidate. Goes out: :class:`~msmedcap.evaluation.metric.Scores`, the score of
each case and their mean. The published models are the defaults. They are found in a local folder, in the hub's cache or on the
hub; ``ID@REVISION`` fixes a version. ``cache`` names a file that keeps every number under a hash of metric, model, settings and
both texts: a run that was cut off goes on there, and another system's captions are all that is new. How long a run will take
is measured on its first batches and logged.

What ImageCLEFmedical Caption computes (2025): ``bertscore(..., model=IMAGECLEF_BERT, idf=True)`` and
``bleurt(..., model=BLEURT_MODEL)`` on texts prepared as the task does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msmedcap.config import UserError
from msmedcap.evaluation.metric import Scores, mean_of
from msmedcap.evaluation.neural.metrics import BARTSCORE, BERTSCORE, BLEURT, METRICS

if TYPE_CHECKING:
    from msmedcap.evaluation.neural.scoring import Scorer

__all__ = [
    "BARTSCORE", "BART_MODEL", "BERTSCORE", "BERT_MODEL", "BLEURT", "BLEURT_MODEL", "IMAGECLEF_BERT", "METRICS",
    "bartscore", "bertscore", "bleurt",
]  # fmt: skip

BERT_MODEL = "distilbert-base-uncased"  # the paper's authors' notebook
IMAGECLEF_BERT = "microsoft/deberta-xlarge-mnli"
BART_MODEL = "facebook/bart-large-cnn"
BLEURT_MODEL = "lucadiliello/BLEURT-20-D12"

log = logging.getLogger(__name__)

References = Sequence[Sequence[str]]


def bertscore(
    references: References,
    candidates: Sequence[str],
    *,
    model: str | Path = BERT_MODEL,
    idf: bool = False,
    layer: int | None = None,
    rescale: bool = False,
    device: str | None = None,
    dtype: str = "float32",
    batch: int = 64,
    cache: Path | None = None,
    progress: bool = True,
    notes: list[str] | None = None,
) -> Scores:
    """BERTScore F1 of each candidate, the best over its references; higher is better, at most 1.

    ``layer`` (from 1) is by default the one published for ``model``. ``idf`` weights tokens by their rarity in all ``references``.
    ``rescale`` subtracts the published baseline: the order stays, unrelated texts score about 0. A case with an empty text
    scores 0 (before rescaling). What should stand beside the score (the model, texts that were cut, empty texts) is logged and
    added to ``notes``. Raises :class:`UserError` for a model that cannot be loaded, saying what to download.
    """
    from msmedcap.evaluation.neural.bertscorer import BertScorer
    from msmedcap.evaluation.neural.checkpoint import find
    from msmedcap.evaluation.neural.layers import baseline_of, layer_of

    _check(references, candidates)
    read = layer_of(model, layer)
    baseline = baseline_of(model, read)[2] if rescale else 0.0
    checkpoint = find(model)
    idf_of = [text for case in references for text in case] if idf else None
    scorer = BertScorer(checkpoint, layer=read, idf_of=idf_of, device=device, dtype=dtype)
    pairs, numbers = _run([scorer], references, candidates, batch=batch, cache=cache, progress=progress, notes=notes)
    settings = f"layer {read}, {'idf' if idf else 'no idf'}{', rescaled' if rescale else ''}, {dtype}"
    _note(notes, f"BERTScore: F1, {checkpoint.name} ({checkpoint.digest[:12]}), {settings}.")
    return _scores((numbers[0][:, 2] - baseline) / (1 - baseline), pairs, np.max)


def bartscore(
    references: References,
    candidates: Sequence[str],
    *,
    model: str | Path = BART_MODEL,
    direction: str = "references->candidates",
    device: str | None = None,
    dtype: str = "float32",
    batch: int = 32,
    cache: Path | None = None,
    progress: bool = True,
    notes: list[str] | None = None,
) -> Scores:
    """BARTScore of each candidate, the mean over its references (the authors' rule): a mean log-probability, higher is better.

    ``direction``: ``references->candidates``, ``candidates->references``, or ``F``, the mean of the two. An empty candidate is
    scored as its two special tokens, which can be likely: such cases are counted in ``notes``. Otherwise as :func:`bertscore`.
    """
    from msmedcap.evaluation.neural.bartscorer import PRECISION, RECALL, BartScorer, F
    from msmedcap.evaluation.neural.checkpoint import find

    _check(references, candidates)
    checkpoint = find(model)
    ways = (PRECISION, RECALL) if direction == F else (direction,)
    scorers = [BartScorer(checkpoint, direction=way, device=device, dtype=dtype) for way in ways]
    pairs, numbers = _run(scorers, references, candidates, batch=batch, cache=cache, progress=progress, notes=notes)
    _note(notes, f"BARTScore: {direction}, {checkpoint.name} ({checkpoint.digest[:12]}), {dtype}.")
    return _scores(np.mean([number[:, 0] for number in numbers], axis=0), pairs, np.mean)


def bleurt(
    references: References,
    candidates: Sequence[str],
    *,
    model: str | Path = BLEURT_MODEL,
    device: str | None = None,
    dtype: str = "float32",
    batch: int = 64,
    cache: Path | None = None,
    progress: bool = True,
    notes: list[str] | None = None,
) -> Scores:
    """BLEURT of each candidate, the best over its references; higher is better, about 0 to 1. Otherwise as :func:`bertscore`."""
    from msmedcap.evaluation.neural.bleurtscorer import BleurtScorer
    from msmedcap.evaluation.neural.checkpoint import find

    _check(references, candidates)
    checkpoint = find(model)
    scorer = BleurtScorer(checkpoint, device=device, dtype=dtype)
    pairs, numbers = _run([scorer], references, candidates, batch=batch, cache=cache, progress=progress, notes=notes)
    _note(notes, f"BLEURT: {checkpoint.name} ({checkpoint.digest[:12]}), {dtype}.")
    return _scores(numbers[0][:, 0], pairs, np.max)


def _check(references: References, candidates: Sequence[str]) -> None:
    if len(references) != len(candidates):
        raise UserError(
            f"There are {len(references)} cases with references but {len(candidates)} candidates; give one each."
        )
    if not candidates:
        raise UserError("There are no captions to score.")
    for index, case in enumerate(references):
        if isinstance(case, str) or not case:
            raise UserError(
                f"Case {index} has no list of references; a metric needs at least one reference for each case."
            )


def _run(
    scorers: Sequence[Scorer],
    references: References,
    candidates: Sequence[str],
    *,
    batch: int,
    cache: Path | None,
    progress: bool,
    notes: list[str] | None,
) -> tuple[list[int], list[np.ndarray]]:
    """The case of each pair, and each scorer's numbers [pairs, width]."""
    from msmedcap.evaluation.neural.scoring import run
    from msmedcap.evaluation.neural.store import Store

    cases = [index for index, case in enumerate(references) for _ in case]
    pairs = [(text, candidates[index]) for index, case in enumerate(references) for text in case]
    store = Store(cache)
    numbers = []
    try:
        for scorer in scorers:
            done = run(scorer, pairs, store=store, batch=batch, progress=progress)
            numbers.append(done.numbers)
    finally:
        store.close()
    if done.cut:
        _note(
            notes,
            f"{scorer.name}: {done.cut} of {len(pairs)} pairs have a text longer than the model reads, which was cut.",
        )
    if done.empty:
        _note(notes, f"{scorer.name}: {done.empty} of {len(pairs)} pairs have an empty text; their scores mean little.")
    return cases, numbers


def _note(notes: list[str] | None, sentence: str) -> None:
    log.info(sentence)
    if notes is not None:
        notes.append(sentence)


def _scores(values: np.ndarray, cases: Sequence[int], over: Callable[[np.ndarray], Any]) -> Scores:
    """One score per case: ``over`` the values of its pairs, which stand together."""
    starts = np.flatnonzero(np.r_[True, np.diff(cases) != 0])
    return mean_of(np.array([over(part) for part in np.split(values, starts[1:])], dtype=np.float64))
