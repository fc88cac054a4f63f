"""BLEU-1..4, METEOR, ROUGE-L and CIDEr of captions: the COCO caption toolkit's numbers, in memory that does not grow with n-grams.

Comes in: for each case its references and one candidate caption. Goes out: :class:`~msmedcap.evaluation.metric.Scores`, each
case's own score and the corpus' value, with counts that make corpus BLEU and METEOR of a resample exact. Texts are tokenised and
METEOR is computed by the toolkit's Java programs (:mod:`~msmedcap.evaluation.coco_toolkit`). A case without a reference is scored
against an empty one, as an empty candidate is scored: neither stops a run. All are higher the better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from msmedcap.config import UserError
from msmedcap.evaluation import ngram_tables
from msmedcap.evaluation.coco_toolkit import meteor_counts, tokenise
from msmedcap.evaluation.metric import Array, Metric, Scores, mean_of

GROUPS = ("BLEU", "METEOR", "ROUGE-L", "CIDEr")
LONGEST = ngram_tables.LONGEST

_OVERLAP = (
    'It counts shared words, not meaning: "No pleural effusion." for the reference "Pleural effusion." has a ROUGE-L of 0.83; '
    "read the clinical facts beside it."
)
_BLEU = Metric(
    "BLEU", "BLEU", True, 3,
    "K. Papineni, S. Roukos, T. Ward and W.-J. Zhu, BLEU: a Method for Automatic Evaluation of Machine Translation, ACL 2002.",
    _OVERLAP,
    "Geometric mean over the lengths 1 to n of the share of the candidates' n-grams that their references hold, over the whole "
    "corpus, times exp(1 - r/c) where the candidates are shorter (c words) than their closest references (r words).",
)  # fmt: skip
METRICS = (
    *(
        Metric(f"{_BLEU.name}-{n}", f"{_BLEU.column}-{n}", True, _BLEU.scale, _BLEU.source, _BLEU.misleads, _BLEU.definition)
        for n in range(1, LONGEST + 1)
    ),
    Metric(
        "METEOR", "METEOR", True, 3,
        "M. Denkowski and A. Lavie, Meteor Universal: Language Specific Translation Evaluation for Any Target Language, WMT 2014 "
        "(version 1.5).",
        _OVERLAP,
        "Weighted harmonic mean of precision and recall over words that match exactly, by stem, synonym or paraphrase, lowered "
        "where the matches stand in many separate chunks; of the corpus' summed counts.",
    ),
    Metric(
        "ROUGE-L", "ROUGE-L", True, 2,
        "C.-Y. Lin, ROUGE: A Package for Automatic Evaluation of Summaries, ACL workshop 2004; beta 1.2.",
        _OVERLAP,
        "F-measure of the longest common subsequence of words, recall weighing beta squared; mean over the cases.",
    ),
    Metric(
        "CIDEr", "CIDEr", True, 3,
        "R. Vedantam, C. L. Zitnick and D. Parikh, CIDEr: Consensus-based Image Description Evaluation, CVPR 2015; CIDEr-D.",
        "CIDEr weighs words by their rarity in the references that are scored: its numbers compare only on one and the same set.",
        "Ten times the mean over n of 1 to 4 of the cosine of the n-gram counts, weighed by rarity in all references, times a "
        "Gaussian of the difference in length; mean over the references of a case, then over the cases.",
    ),
)  # fmt: skip


def score(
    references: Sequence[Sequence[str]], candidates: Sequence[str], *, metrics: Sequence[str] = GROUPS
) -> dict[str, Scores]:
    """Scores of one candidate per case by the names of :data:`METRICS`; ``metrics`` are some of :data:`GROUPS`.

    Raises :class:`UserError` where Java or the toolkit is missing, for an unknown metric, for no cases, and where there are not as
    many candidates as cases.
    """
    return score_systems(references, {"": candidates}, metrics=metrics)[""]


def score_systems(
    references: Sequence[Sequence[str]], candidates: Mapping[str, Sequence[str]], *, metrics: Sequence[str] = GROUPS
) -> dict[str, dict[str, Scores]]:
    """As :func:`score` for each system's candidates, but the references are tokenised once and METEOR, slow to start, runs once."""
    wanted = [metric.replace("_", "-") for metric in metrics]
    for name in wanted:
        if name not in GROUPS:
            raise UserError(f"There is no metric {name!r} here; choose from {', '.join(GROUPS)}.")
    for texts in candidates.values():
        if len(texts) != len(references) or not texts:
            raise UserError(f"There are {len(references)} cases with references but {len(texts)} candidates; give one each.")
    truths, systems = _tokenised(references, candidates)
    found: dict[str, dict[str, Scores]] = {name: {} for name in systems}
    for name, texts in systems.items():
        if {"BLEU", "CIDEr"} & set(wanted):
            counts, cider = _counted(truths, texts)
            if "BLEU" in wanted:
                found[name] |= {f"BLEU-{n}": _summed(counts, partial(bleu, n=n)) for n in range(1, LONGEST + 1)}
            if "CIDEr" in wanted:
                found[name]["CIDEr"] = mean_of(cider)
        if "ROUGE-L" in wanted:
            found[name]["ROUGE-L"] = mean_of(np.array([rouge_l(*pair) for pair in zip(truths, texts, strict=True)]))
    if "METEOR" in wanted:
        everyone = meteor_counts(truths * len(systems), [text for texts in systems.values() for text in texts])
        for name, counts in zip(systems, np.split(everyone, len(systems)), strict=True):
            found[name]["METEOR"] = _summed(counts, meteor)
    order = [metric.name for metric in METRICS]
    return {name: {key: scores[key] for key in order if key in scores} for name, scores in found.items()}


def bleu_counts(references: Sequence[Sequence[str]], candidates: Sequence[str]) -> Array:
    """Each case's counts int64 ``[N,9]``, whose sums :func:`bleu` takes: matches (4), n-grams (4), closest reference's length."""
    truths, systems = _tokenised(references, {"": candidates})
    return _counted(truths, systems[""])[0]


def bleu(sums: Array, *, n: int = LONGEST) -> Array:
    """BLEU-n ``[...]`` of sums ``[...,9]`` of :func:`bleu_counts`: of one case, a corpus, or a resample."""
    tiny, small = 1e-15, 1e-9  # the toolkit's, against division by zero
    sums = np.asarray(sums, dtype=np.float64)
    matched, guessed, length = sums[..., :LONGEST], sums[..., LONGEST : 2 * LONGEST], sums[..., 2 * LONGEST]
    precision = np.prod((matched[..., :n] + tiny) / (guessed[..., :n] + small), axis=-1)
    ratio = (guessed[..., 0] + tiny) / (length + small)
    return precision ** (1 / n) * np.exp(np.minimum(0.0, 1 - 1 / ratio))


def meteor(sums: Array) -> Array:
    """METEOR 1.5 for English ``[...]`` of sums ``[...,23]`` of :func:`~msmedcap.evaluation.coco_toolkit.meteor_counts`."""
    alpha, beta, gamma, delta = 0.85, 0.2, 0.6, 0.75
    kinds = np.array([1.0, 0.6, 0.8, 0.6])  # exact, stem, synonym, paraphrase
    sums = np.asarray(sums, dtype=np.float64)
    lengths, function_words = sums[..., 0:2], sums[..., 2:4]  # candidate, reference
    matches = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 2, 2)  # kind; content, function; candidate, reference
    chunks, matched = sums[..., 20], sums[..., 21:23]
    by_kind = (matches * kinds[:, None, None]).sum(-3)
    weighed = delta * by_kind[..., 0, :] + (1 - delta) * by_kind[..., 1, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = weighed / (delta * (lengths - function_words) + (1 - delta) * function_words)
        mean = 1 / ((1 - alpha) / share[..., 0] + alpha / share[..., 1])
        value = mean * (1 - gamma * (chunks / (matched.sum(-1) / 2)) ** beta)
    return np.maximum(np.nan_to_num(value, nan=0.0), 0.0)


def rouge_l(references: Sequence[str], candidate: str) -> float:
    """ROUGE-L of one tokenised candidate; with several references its best precision and its best recall, as the toolkit has it."""
    ours, beta = candidate.split(" "), 1.2
    precisions, recalls = [], []
    for reference in references:
        theirs = reference.split(" ")
        common = longest_common(theirs, ours)
        precisions.append(common / len(ours))
        recalls.append(common / len(theirs))
    precision, recall = max(precisions), max(recalls)
    if not precision or not recall:
        return 0.0
    return ((1 + beta**2) * precision * recall) / (recall + beta**2 * precision)


def longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence, a row of the table as the bits of one number (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for index, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << index
    everything = row = (1 << len(a)) - 1
    for word in b:
        hits = row & places.get(word, 0)
        row = ((row + hits) | (row - hits)) & everything
    return len(a) - row.bit_count()


def _tokenised(
    references: Sequence[Sequence[str]], candidates: Mapping[str, Sequence[str]]
) -> tuple[list[list[str]], dict[str, list[str]]]:
    """The tokens of everything; a case without a reference has an empty one."""
    cases = [list(case) or [""] for case in references]
    tokens = iter(tokenise([text for case in cases for text in case]))
    return [[next(tokens) for _ in case] for case in cases], {name: tokenise(texts) for name, texts in candidates.items()}


def _counted(references: Sequence[Sequence[str]], candidates: Sequence[str]) -> tuple[Array, Array]:
    """BLEU's counts ``[N,9]`` and CIDEr ``[N]`` of tokenised texts."""
    cases = len(candidates)
    case_of = np.repeat(np.arange(cases), [len(case) for case in references])
    sentences = [text for case in references for text in case]
    lengths, ours = ngram_tables.lengths_of(sentences), ngram_tables.lengths_of(candidates)
    penalty = ngram_tables.length_penalty(lengths, ours[case_of])
    counts = np.zeros((cases, 2 * LONGEST + 1), dtype=np.int64)
    cider = np.zeros((cases, LONGEST))
    for n, table in enumerate(ngram_tables.tables(sentences, candidates)):
        counts[:, n] = ngram_tables.clipped_matches(table, case_of, cases)
        counts[:, LONGEST + n] = np.maximum(ours - n, 0)
        cider[:, n] = np.bincount(case_of, ngram_tables.cider_similarity(table, case_of, cases) * penalty, cases)
    # The reference closest in length, the shorter of two: the first of each case in this order.
    order = np.lexsort((lengths, np.abs(lengths - ours[case_of]), case_of))
    counts[:, 2 * LONGEST] = lengths[order[np.searchsorted(case_of, np.arange(cases))]]
    return counts, cider.mean(1) / np.bincount(case_of) * 10.0


def _summed(counts: Array, formula: Callable[[Array], Array]) -> Scores:
    return Scores(float(formula(counts.sum(0))), formula(counts), counts, formula)
