"""The facts a caption states: modality, plane, body part and label, and how often they are right.

A radiologist reads these first, and unlike overlap with a reference sentence they are either right or wrong. Comes in:
the text of a caption. Goes out: one value per fact or None where the caption does not say, and the scores of many. Pure
functions; the words counted are :data:`LEXICON` and its version stands in every table made with it.

Rules: words count whole and in any case; of several values of a fact the one named first in the text counts; a word
inside a negation ("no pneumonia", "without evidence of malignant change") does not count; COVID-19 outranks pneumonia,
because "COVID-19 pneumonia" and "pneumonia due to COVID-19" are one statement.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LEXICON_VERSION = 1

# fact -> value -> patterns, each matched as whole words. What a lookaround excludes names another part of the body
# ("thoracic spine", "femoral head", "head of the pancreas").
LEXICON: dict[str, dict[str, tuple[str, ...]]] = {
    "modality": {
        "CT": (r"ct", r"cect", r"computed tomograph(?:y|ic)", r"cat scan"),
        "MRI": (r"mri?", r"magnetic resonance"),
        "X-ray": (r"x[- ]?rays?", r"radiographs?", r"radiography", r"radiographic", r"cxr"),
        "ultrasound": (
            r"ultrasounds?",
            r"ultrasonograph(?:y|ic)",
            r"ultrasonogram",
            r"sonograms?",
            r"sonograph(?:y|ic)",
        ),
    },
    "plane": {
        "axial": (r"axial", r"transaxial", r"transverse"),
        "coronal": (r"coronal",),
        "sagittal": (r"(?:para|mid)?sagittal",),
    },
    "part": {
        "head": (
            r"(?<!femoral )(?<!humeral )(?<!radial )(?<!pancreatic )head(?! of\b)",
            r"brain",
            r"skull",
            r"(?:intra)?cranial",
        ),
        "chest": (
            r"chest",
            r"thorax",
            r"thoracic(?! (?:spine|spinal|vertebra\w*|dis[ck]s?|cord))",
            r"lungs?",
            r"pulmonary",
        ),
        "abdomen": (r"abdomen", r"abdominal"),
        "musculoskeletal": (
            r"spine",
            r"spinal",
            r"vertebra[el]?",
            r"musculoskeletal",
            r"bones?",
            r"muscles?",
            r"knee",
            r"shoulder",
            r"hip",
            r"elbow",
            r"wrist",
            r"ankle",
        ),
        "pelvis": (r"pelvis", r"pelvic", r"urinary", r"(?:genito)?urinary", r"reproductive"),
        "breast": (r"breasts?",),
    },
    "label": {
        "no findings": (
            r"no (?:\w+ )?(?:findings?|abnormalit(?:y|ies))",
            r"normal (?:chest|lungs?|heart|study|findings)",
            r"unremarkable",
        ),
        "pneumonia": (r"pneumonia",),
        "COVID-19": (r"covid(?:[- ]?19)?", r"sars-cov-2", r"coronavirus"),
        "benign": (r"benign",),
        "malignant": (r"malignant", r"malignancy"),
        "normal": (r"normal(?! (?:chest|lungs?|heart|study|findings))",),
    },
}
# Labels are compared within the question a data set asks, so that a chest caption is never scored on "benign".
FAMILIES: tuple[tuple[str, ...], ...] = (("no findings", "pneumonia", "COVID-19"), ("benign", "malignant", "normal"))
PLANES = ("axial", "coronal", "sagittal")

_PATTERNS = {
    fact: {value: re.compile(rf"\b(?:{'|'.join(words)})\b", re.I) for value, words in values.items()}
    for fact, values in LEXICON.items()
}
_NEGATION = re.compile(
    r"\b(?:no|not|without|negative for|absence of|ruled out|free of)\b(?:(?!\b(?:but|however)\b)[^.;,\n])*", re.I
)


@dataclass(frozen=True)
class Rate:
    """A share of ``n`` captions with its 95 % Wilson interval; NaN where ``n`` is 0."""

    value: float
    low: float
    high: float
    n: int


def stated(fact: str, text: str, *, among: Sequence[str] | None = None) -> str | None:
    """The value of ``fact`` that ``text`` states, of those in ``among`` (default: all); None where it states none.

    ``fact`` is a key of :data:`LEXICON`; raises KeyError for another.
    """
    patterns = _PATTERNS[fact]
    held = _blank_negations(text)
    found: dict[str, int] = {}
    for value in among if among is not None else patterns:
        source = text if value == "no findings" else held
        if match := patterns[value].search(source):
            found[value] = match.start()
    if "COVID-19" in found:
        found.pop("pneumonia", None)
    return min(found, key=lambda value: found[value], default=None)


def canonical(fact: str, value: str) -> str | None:
    """The lexicon's word for a data set's ``value`` of ``fact`` ("MR" is "MRI"); None where the lexicon has none."""
    for name in LEXICON.get(fact, {}):
        if name.lower() == value.strip().lower():
            return name
    return stated(fact, value) if fact in LEXICON else None


def family(label: str) -> tuple[str, ...]:
    """The labels ``label`` is compared with; raises KeyError for a label of no family."""
    for labels in FAMILIES:
        if label in labels:
            return labels
    raise KeyError(label)


def accuracy(truth: Sequence[str], said: Sequence[str | None]) -> Rate:
    """The share of ``said`` that equals ``truth``; a caption that does not say is wrong."""
    hits = sum(t == s for t, s in zip(truth, said, strict=True))
    return wilson(hits, len(truth))


def recalls(truth: Sequence[str], said: Sequence[str | None]) -> dict[str, Rate]:
    """Per value that occurs in ``truth``: the share of its cases whose caption says so."""
    pairs = list(zip(truth, said, strict=True))
    return {
        value: wilson(sum(t == s for t, s in pairs if t == value), sum(t == value for t, _ in pairs))
        for value in sorted(set(truth))
    }


def balanced_accuracy(truth: Sequence[str], said: Sequence[str | None]) -> float:
    """The mean of the recalls over the values that occur in ``truth``; NaN where there is none."""
    rates = recalls(truth, said).values()
    return sum(r.value for r in rates) / len(rates) if rates else math.nan


def wilson(hits: int, n: int, z: float = 1.959964) -> Rate:
    """``hits`` of ``n`` with Wilson's score interval at ``z`` standard deviations (95 % by default)."""
    if n == 0:
        return Rate(math.nan, math.nan, math.nan, 0)
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} hits of {n} is not a share.")
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Rate(share, max(0.0, centre - half), min(1.0, centre + half), n)


def is_empty_or_repeats(caption: str) -> bool:
    """Whether a caption has no words or says one of its sentences twice (case and spacing aside)."""
    sentences = [" ".join(re.findall(r"\w+", s.lower())) for s in re.split(r"[.!?\n]+", caption)]
    sentences = [s for s in sentences if s]
    return not sentences or len(set(sentences)) < len(sentences)


def distinct_share(captions: Iterable[str]) -> float:
    """The share of different texts among ``captions`` (case and spacing aside); NaN where there is none."""
    texts = [" ".join(c.lower().split()) for c in captions]
    return len(set(texts)) / len(texts) if texts else math.nan


def _blank_negations(text: str) -> str:
    """``text`` with the negated stretches replaced by spaces, so that positions stay."""
    return _NEGATION.sub(lambda m: " " * len(m.group()), text)
