"""ROUGE-1 as the ImageCLEFmedical Caption task computes it, with the task's text preparation.

Comes in: for each case its references and one candidate caption. Goes out: :class:`~msmedcap.evaluation.metric.Scores`. The rule is
that of the task's evaluator of 2025: both texts in lower case, every run of digits the word "number", ASCII punctuation removed;
the F-measure of ``rouge_score``'s ROUGE-1 without stemming; the mean over the cases; two empty texts score 1. The task's
BERTScore prepares its texts so too. Needs neither Java nor a model.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from msmedcap.config import UserError
from msmedcap.evaluation.metric import Metric, Scores, mean_of

ROUGE_1 = Metric(
    name="ROUGE-1",
    column="ROUGE-1",
    higher_is_better=True,
    scale=0,
    source="C.-Y. Lin, ROUGE: A Package for Automatic Evaluation of Summaries, ACL workshop 2004; prepared as by the evaluator of "
    "ImageCLEFmedical Caption 2025 (H. Damm et al., CEUR-WS 4038).",
    misleads='It counts shared words, not meaning: "No pleural effusion." for the reference "Pleural effusion." has a ROUGE-1 of '
    "0.80; read the clinical facts beside it.",
    definition="F-measure of the words that candidate and reference share; mean over the cases. Lower case, numbers as one word, "
    "no punctuation, no stemming.",
)
METRICS = (ROUGE_1,)

_NUMBER = re.compile(r"\d+")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_BETWEEN_WORDS = re.compile("[^a-z0-9]+")


def prepare(text: str) -> str:
    """``text`` as the task's metrics read it: "T2-weighted MRI, 5 mm." becomes "tnumberweighted mri number mm"."""
    return _NUMBER.sub("number", text.lower()).translate(_NO_PUNCTUATION)


def rouge1(references: Sequence[Sequence[str]], candidates: Sequence[str]) -> Scores:
    """ROUGE-1 of one candidate per case, higher is better; of several references (the task has one) the best counts.

    A case without a reference is scored against an empty one. Raises :class:`UserError` for no cases, and for another number of
    candidates than of cases.
    """
    if len(candidates) != len(references) or not candidates:
        raise UserError(f"There are {len(references)} cases with references but {len(candidates)} candidates; give one each.")
    pairs = zip(references, candidates, strict=True)
    return mean_of(np.array([max(_f_measure(truth, text) for truth in case or ("",)) for case, text in pairs]))


def _f_measure(reference: str, candidate: str) -> float:
    truth, text = prepare(reference), prepare(candidate)
    if not truth and not text:
        return 1.0
    theirs, ours = _words(truth), _words(text)
    shared = (theirs & ours).total()
    precision, recall = shared / max(ours.total(), 1), shared / max(theirs.total(), 1)
    return 2 * precision * recall / (precision + recall) if shared else 0.0


def _words(text: str) -> Counter[str]:
    return Counter(word for word in _BETWEEN_WORDS.split(text.lower()) if word)
