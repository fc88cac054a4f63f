"""Which layer of a model BERTScore reads, and the baseline its rescaling subtracts.

Both were chosen by the metric's authors: the layer whose scores follow human judgement best on WMT16, the baseline as the
mean score of a million unrelated English pairs. Source: Zhang et al., "BERTScore: Evaluating Text Generation with BERT", ICLR
2020, and the table ``model2layers`` and the files ``rescale_baseline/en`` of their package bert-score 0.3.13.
"""

from __future__ import annotations

from pathlib import Path

from msmedcap.config import UserError

LAYERS = {
    "distilbert-base-uncased": 5,
    "distilroberta-base": 5,
    "bert-base-uncased": 9,
    "bert-large-uncased": 18,
    "bert-base-multilingual-cased": 9,
    "roberta-base": 10,
    "roberta-large": 17,
    "roberta-large-mnli": 19,
    "xlm-roberta-base": 9,
    "xlm-roberta-large": 17,
    "allenai/scibert_scivocab_uncased": 8,
    "allenai/scibert_scivocab_cased": 9,
    "google/electra-base-discriminator": 9,
    "google/electra-large-discriminator": 14,
    "microsoft/deberta-base-mnli": 9,
    "microsoft/deberta-large-mnli": 18,
    "microsoft/deberta-xlarge-mnli": 40,
    "microsoft/deberta-v3-base": 9,
    "microsoft/deberta-v3-large": 12,
    "facebook/bart-base": 6,
    "facebook/bart-large": 10,
    "facebook/bart-large-cnn": 10,
}

# Precision, recall, F1.
BASELINES = {
    ("distilbert-base-uncased", 5): (0.6666034, 0.66660464, 0.66620487),
    ("roberta-large", 17): (0.83150584, 0.8314941, 0.83122575),
    ("microsoft/deberta-xlarge-mnli", 40): (0.5169066, 0.5170288, 0.5150192),
}


def published(model: str | Path) -> str | None:
    """The table's name for ``model``: an id with or without its owner, or a folder called like one; None if there is none."""
    name = str(model).partition("@")[0].rstrip("/")
    last = name.rpartition("/")[2]
    for known in LAYERS:
        if name == known or last == known.rpartition("/")[2]:
            return known
    return None


def layer_of(model: str | Path, layer: int | None) -> int:
    """``layer``, or the published one; raises :class:`UserError` for a model without one."""
    if layer is not None:
        return layer
    known = published(model)
    if known is None:
        raise UserError(f"BERTScore's authors give no layer for {model}; say which to read (layer), counted from 1.")
    return LAYERS[known]


def baseline_of(model: str | Path, layer: int) -> tuple[float, float, float]:
    """The published baseline of precision, recall and F1; raises :class:`UserError` where there is none."""
    baseline = BASELINES.get((published(model) or "", layer))
    if baseline is None:
        known = ", ".join(f"{name} (layer {number})" for name, number in BASELINES)
        raise UserError(f"There is no baseline for {model} at layer {layer}, only for {known}; leave rescaling off.")
    return baseline
