"""The facts a caption states, and how often they are right.

``stated`` reads one value per fact for the fact tables; ``claims`` reads all that a caption claims, what it denies or doubts
included; ``compare`` judges claims against a reference or the known facts of a case; ``clinical`` counts over many cases.
"""

from msmedcap.evaluation.facts.claims import KINDS, STATES, Claim, Claims, claims
from msmedcap.evaluation.facts.clinical import METRICS, Clinical, Counts, clinical, clinical_claims, score, scores_of
from msmedcap.evaluation.facts.comparison import Judged, Truth, compare, judge, known, of_claims, told
from msmedcap.evaluation.facts.lexicon import Lexicon, lexicon
from msmedcap.evaluation.facts.stated import (
    FAMILIES,
    LEXICON,
    LEXICON_VERSION,
    PLANES,
    Rate,
    accuracy,
    balanced_accuracy,
    canonical,
    distinct_share,
    family,
    is_empty_or_repeats,
    recalls,
    stated,
    wilson,
)

__all__ = [
    "FAMILIES",
    "KINDS",
    "LEXICON",
    "LEXICON_VERSION",
    "METRICS",
    "PLANES",
    "STATES",
    "Claim",
    "Claims",
    "Clinical",
    "Counts",
    "Judged",
    "Lexicon",
    "Rate",
    "Truth",
    "accuracy",
    "balanced_accuracy",
    "canonical",
    "claims",
    "clinical",
    "clinical_claims",
    "compare",
    "distinct_share",
    "family",
    "is_empty_or_repeats",
    "judge",
    "known",
    "lexicon",
    "of_claims",
    "recalls",
    "score",
    "scores_of",
    "stated",
    "told",
    "wilson",
]
