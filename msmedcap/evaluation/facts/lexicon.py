"""The words of the clinical lexicon (``lexicon.json``) as an automaton over tokens, so that 50,000 captions take seconds.

Comes in: the phrases of the file, a text. Goes out: the text's sentences as :class:`Token` lists, and at each place of a
sentence the longest phrase that starts there. Phrases are plain words: ``a|b`` is a choice, ``stem*`` any ending; hyphens,
case, British spelling and plurals do not matter.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import product
from typing import Any, NamedTuple

FILE = "lexicon.json"
_TOKEN = re.compile(r"\b(?:w/o|r/o)\b|\bw/|\d+(?:[.,]\d+)+|[^\W_]+(?:['’]s\b)?|\n|[^\w\s]")
_SHORT = {"w/o": "without", "w/": "with", "r/o": "exclude"}
_ABBREVIATIONS = frozenset(("fig", "figs", "vs", "dr", "approx", "ca", "no", "e", "g", "i", "cf", "al", "st"))
_ENDS = frozenset(".!?;\n")
_CACHE_LIMIT = 200_000


class Token(NamedTuple):
    """A word (lower case, American spelling) or punctuation mark and its place in the text."""

    word: str
    start: int
    end: int


class Meaning(NamedTuple):
    """What a phrase says: ``role`` is a kind of claim, "cue", "side" or "skip"; ``state`` is "present" or "absent"."""

    role: str
    value: str
    state: str = "present"


class Match(NamedTuple):
    """The phrase that starts at a token: how many tokens it takes, and all it says."""

    length: int
    meanings: tuple[Meaning, ...]


@dataclass(slots=True)
class _Node:
    next: dict[str, _Node] = field(default_factory=dict)
    meanings: list[Meaning] = field(default_factory=list)


class Lexicon:
    """The compiled lexicon; ``version`` stands in every table made with it."""

    def __init__(self, words: Mapping[str, Any]) -> None:
        """Compile ``words``, the content of the file; raises KeyError where a part of it is missing."""
        self.version: str = words["version"]
        self.values: dict[str, tuple[str, ...]] = {kind: tuple(values) for kind, values in words["kinds"].items()}
        self.parts: dict[tuple[str, str], tuple[str, ...]] = {}
        self.exclusive: tuple[frozenset[str], ...] = tuple(map(frozenset, words["exclusive"]))
        self._parents: dict[tuple[str, str], tuple[str, ...]] = {}
        self._spelling = tuple(words["spelling"].items())
        self._root = _Node()
        self._exact: set[str] = set()
        self._stems: set[str] = set()
        self._symbols: dict[str, tuple[tuple[str, int], ...]] = {}
        self._named: dict[tuple[str, ...], tuple[Meaning, ...]] = {}
        for kind, values in words["kinds"].items():
            for value, entry in values.items():
                self._parents[kind, value] = tuple(entry.get("is_a", ()))
                self.parts[kind, value] = tuple(entry.get("part", ()))
                self._add(entry["say"], Meaning(kind, value))
                self._add(entry.get("absent", ()), Meaning(kind, value, "absent"))
        for side, phrases in words["sides"].items():
            self._add(phrases, Meaning("side", side))
        for side, phrases in words["lobes"].items():
            self._add(phrases, Meaning("side", side))
            self._add(phrases, Meaning("part", "lung"))
        for name, phrases in words["cues"].items():
            self._add(phrases, Meaning("cue", name))
        self._add(words["not_claims"], Meaning("skip", ""))
        self._ancestors = {key: frozenset(self._climb(*key)) for key in self._parents}
        self.umbrellas = frozenset(v for v in self.values["finding"] if v.endswith("abnormality")) - {
            "signal abnormality"
        }
        self.regions = frozenset(v for v in self.values["part"] if not self._parents["part", v])

    def ancestors(self, kind: str, value: str) -> frozenset[str]:
        """All that a claim of ``value`` claims with it ("COVID-19" says "pneumonia"), itself left out."""
        return self._ancestors.get((kind, value), frozenset())

    def sentences(self, text: str) -> Iterator[list[Token]]:
        """The sentences of ``text``, each its tokens without the mark that ends it."""
        lowered = text.lower()
        if len(lowered) != len(text):  # a few capitals grow when lowered and would move every place behind them
            lowered = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
        sentence: list[Token] = []
        for found in _TOKEN.finditer(lowered):
            word, start, end = found[0], found.start(), found.end()
            if word in ("-", "–", "‐", "‑", "'", "’", '"'):
                continue
            if word in _ENDS and not self._inside(word, lowered, end, sentence):
                if sentence:
                    yield sentence
                sentence = []
            else:
                sentence.append(Token(_SHORT.get(word, word), start, end))
        if sentence:
            yield sentence

    def match(self, sentence: Sequence[Token], at: int) -> Match | None:
        """The longest phrase that starts at token ``at``; None where none does."""
        best = 0
        ends: list[tuple[int, _Node]] = []
        stack = [(self._root, at, 0)]
        while stack:
            node, place, weight = stack.pop()
            if node.meanings and place - at >= best:
                if place - at > best:
                    best, ends = place - at, []
                ends.append((weight, node))
            if place < len(sentence):
                for symbol, gain in self._read(sentence[place].word):
                    if (child := node.next.get(symbol)) is not None:
                        stack.append((child, place + 1, weight + gain))
        return Match(best, _closest(ends)) if best else None

    def named(self, words: Sequence[Token]) -> tuple[Meaning, ...]:
        """The modalities and body parts that the words of a phrase name: "frontal X-ray", "renal stone"."""
        key = tuple(token.word for token in words)
        known = self._named.get(key)
        if known is None:
            if len(self._named) >= _CACHE_LIMIT:
                self._named.clear()
            found: list[Meaning] = []
            for at in range(len(words)):
                for to in range(at + 1, len(words) + 1):
                    match = self.match(words[at:to], 0)
                    if match is not None and match.length == to - at:
                        found += [m for m in match.meanings if m.role in ("modality", "part")]
            known = self._named[key] = tuple(dict.fromkeys(found))
        return known

    def _read(self, word: str) -> tuple[tuple[str, int], ...]:
        known = self._symbols.get(word)
        if known is None:
            if len(self._symbols) >= _CACHE_LIMIT:  # numbers and misspellings would grow it without end
                self._symbols.clear()
            known = self._symbols[word] = self._look_up(word)
        return known

    def _look_up(self, word: str) -> tuple[tuple[str, int], ...]:
        word = re.sub(r"['’]s$", "", self._spell(word))
        found: list[tuple[str, int]] = []
        for form in _singulars(word):
            if form in self._exact:
                found.append((form, 100))
                break
        found += [(word[:n] + "*", n) for n in range(2, len(word) + 1) if word[:n] + "*" in self._stems]
        return tuple(found)

    def _spell(self, word: str) -> str:
        for british, american in self._spelling:
            if british in word:
                word = word.replace(british, american)
        return word

    def _add(self, phrases: Sequence[str], meaning: Meaning) -> None:
        for phrase in phrases:
            for words in product(*(word.split("|") for word in phrase.split())):
                node = self._root
                for word in words:
                    symbol = self._spell(word)
                    (self._stems if symbol.endswith("*") else self._exact).add(symbol)
                    node = node.next.setdefault(symbol, _Node())
                if meaning not in node.meanings:
                    node.meanings.append(meaning)

    def _climb(self, kind: str, value: str) -> Iterator[str]:
        for parent in self._parents[kind, value]:
            yield parent
            yield from self._climb(kind, parent)

    @staticmethod
    def _inside(word: str, text: str, end: int, sentence: Sequence[Token]) -> bool:
        """Whether a full stop is inside a sentence: in a number, or after an abbreviation."""
        if word != ".":
            return False
        if end < len(text) and not text[end].isspace():
            before = sentence[-1].word if sentence else ""
            return not (text[end].isalpha() and (len(before) > 2 or not before.isalnum()))  # "… shown.CT", not "e.g."
        return bool(sentence) and sentence[-1].word in _ABBREVIATIONS


@functools.cache
def lexicon() -> Lexicon:
    """The lexicon that the package ships, compiled once."""
    return Lexicon(json.loads(resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")))


def _closest(ends: Sequence[tuple[int, _Node]]) -> tuple[Meaning, ...]:
    """Of phrases of one length the one with the most letters given counts, for each role by itself."""
    if len(ends) == 1:
        return tuple(ends[0][1].meanings)
    best: dict[str, int] = {}
    for weight, node in ends:
        for meaning in node.meanings:
            best[meaning.role] = max(weight, best.get(meaning.role, 0))
    kept = [m for weight, node in ends for m in node.meanings if weight == best[m.role]]
    return tuple(dict.fromkeys(kept))


def _singulars(word: str) -> Iterator[str]:
    yield word
    if len(word) > 3 and word.endswith("s"):
        yield word[:-1]
        if word.endswith("es"):
            yield word[:-2]
        if word.endswith("ies"):
            yield word[:-3] + "y"
