"""N-grams of many sentences as sorted integer arrays: what BLEU matches and what CIDEr weighs, one length of n-gram at a time.

Comes in: tokenised references and candidates. Goes out: per length, how many n-grams of each candidate its references hold
(clipped), and CIDEr's similarity of each candidate to its references. The COCO toolkit does the same with dictionaries of
tuples, which take gigabytes for 50,000 cases; here a word is a number and an n-gram the pair (its first n - 1 words, last word).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from msmedcap.evaluation.metric import Array

LONGEST = 4
SIGMA = 6.0  # of CIDEr's penalty on a difference of length


@dataclass(frozen=True)
class Bags:
    """The distinct n-grams of each sentence: ``sentence``, ``gram`` and ``count`` ``[M]``, in the order they first occur."""

    sentence: Array
    gram: Array
    count: Array


@dataclass(frozen=True)
class Table:
    """N-grams of one length: those of the references' sentences and those of the candidates; ``grams``: how many there are."""

    grams: int
    references: Bags
    candidates: Bags


def tables(references: Sequence[str], candidates: Sequence[str]) -> Iterator[Table]:
    """The n-grams of tokenised ``references`` and ``candidates`` for n of 1, 2, 3, 4."""
    words, lengths = _numbered([*references, *candidates])
    vocabulary = int(words.max()) + 1 if len(words) else 1
    owner = np.repeat(np.arange(len(lengths)), lengths)
    left = np.cumsum(lengths)[owner] - np.arange(len(words))  # words from here to the sentence's end
    start, gram, grams = np.arange(len(words)), words, vocabulary
    for n in range(1, LONGEST + 1):
        if n > 1:
            whole = left[start] >= n
            start = start[whole]
            known, gram = np.unique(gram[whole] * vocabulary + words[start + n - 1], return_inverse=True)
            grams = max(len(known), 1)
        split = np.searchsorted(owner[start], len(references))
        sentence = owner[start]
        yield Table(
            grams,
            _bags(sentence[:split], gram[:split], grams),
            _bags(sentence[split:] - len(references), gram[split:], grams),
        )


def clipped_matches(table: Table, case_of: Array, cases: int) -> Array:
    """How many n-grams ``[N]`` of each candidate are in its references, each at most as often as in one of them."""
    key, place = np.unique(case_of[table.references.sentence] * table.grams + table.references.gram, return_inverse=True)
    most = np.zeros(len(key), dtype=np.int64)
    np.maximum.at(most, place, table.references.count)
    ours = table.candidates
    held = _looked_up(key, most, ours.sentence * table.grams + ours.gram)
    return np.bincount(ours.sentence, np.minimum(held, ours.count), cases).astype(np.int64)


def cider_similarity(table: Table, case_of: Array, cases: int) -> Array:
    """CIDEr-D's cosine ``[R]`` of each reference sentence and its candidate, clipped, before the penalty on length.

    An n-gram weighs its count times ``log N - log df``, df being the number of cases whose references hold it.
    """
    theirs, ours = table.references, table.candidates
    documents = np.unique(case_of[theirs.sentence] * table.grams + theirs.gram) % table.grams
    rarity = np.log(float(cases)) - np.log(np.maximum(1.0, np.bincount(documents, minlength=table.grams)))
    weight, our_weight = theirs.count * rarity[theirs.gram], ours.count * rarity[ours.gram]
    norm = np.sqrt(np.bincount(theirs.sentence, weight**2, len(case_of)))
    our_norm = np.sqrt(np.bincount(ours.sentence, our_weight**2, cases))[case_of]

    sentence, entry = _paired(np.bincount(ours.sentence, minlength=cases), case_of)
    key = theirs.sentence * table.grams + theirs.gram
    order = np.argsort(key)
    held = _looked_up(key[order], weight[order], sentence * table.grams + ours.gram[entry])
    dot = np.bincount(sentence, np.minimum(our_weight[entry], held) * held, len(case_of)).astype(np.float64)  # int if empty
    both = (norm != 0) & (our_norm != 0)
    return np.divide(dot, norm * our_norm, out=dot, where=both)


def length_penalty(references: Array, candidates: Array) -> Array:
    """CIDEr-D's Gaussian of the difference in length; lengths ``[R]`` in words, counted as the toolkit does: in pairs of words."""
    difference = np.maximum(references - 1, 0) - np.maximum(candidates - 1, 0)
    return np.e ** (-(difference.astype(np.float64) ** 2) / (2 * SIGMA**2))


def lengths_of(sentences: Sequence[str]) -> Array:
    """How many words each tokenised sentence has, int64 ``[S]``."""
    return np.array([len(sentence.split()) for sentence in sentences], dtype=np.int64)


def _numbered(sentences: Sequence[str]) -> tuple[Array, Array]:
    """All words as numbers, one sentence after the other, and how many each sentence has."""
    numbers: dict[str, int] = {}
    words, lengths = array("q"), array("q")
    for sentence in sentences:
        before = len(words)
        words.extend(numbers.setdefault(word, len(numbers)) for word in sentence.split())
        lengths.append(len(words) - before)
    return np.array(words, dtype=np.int64), np.array(lengths, dtype=np.int64)


def _bags(sentence: Array, gram: Array, grams: int) -> Bags:
    key, first, count = np.unique(sentence * grams + gram, return_index=True, return_counts=True)
    order = np.argsort(first)
    return Bags(key[order] // grams, key[order] % grams, count[order])


def _looked_up(keys: Array, values: Array, wanted: Array) -> Array:
    """``values`` of ``wanted`` among the sorted ``keys``; 0 where it is not there."""
    if not len(keys):
        return np.zeros(len(wanted), dtype=values.dtype)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)


def _paired(sizes: Array, case_of: Array) -> tuple[Array, Array]:
    """Every reference sentence with every entry of its case's candidate: the sentences and the entries' places."""
    starts = np.cumsum(sizes) - sizes
    each = sizes[case_of]
    sentence = np.repeat(np.arange(len(case_of)), each)
    within = np.arange(len(sentence)) - np.repeat(np.cumsum(each) - each, each)
    return sentence, np.repeat(starts[case_of], each) + within
