"""A caption's words as its reader sees them, and which of the language model's tokens spell each.

Comes in: a caption. Goes out: :class:`Spelling`; every token belongs to exactly one word, every word has a token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msmedcap.models.opt import Opt

_MARKS = ".,;:!?…\"'“”‘’()[]{}"


def bare(word: str) -> str:
    """A word as it is quoted to a reader: without the marks of its sentence around it; of marks alone, as it stands."""
    return word.strip(_MARKS) or word


@dataclass(frozen=True)
class Spelling:
    """The caption's tokens ``ids`` (without the newline that ends it) and its words: text between blanks.

    ``spans[w]`` are where word w starts and ends in the caption, ``tokens[w]`` the places of its tokens among ``ids``.
    """

    caption: str
    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    tokens: tuple[tuple[int, ...], ...]

    def text(self, word: int) -> str:
        """Word ``word`` as it stands in the caption, punctuation included."""
        start, end = self.spans[word]
        return self.caption[start:end]


def spell(opt: Opt, caption: str) -> Spelling:
    """The spelling of ``caption`` as it follows a prompt; a caption of blanks alone has no words and no tokens."""
    spans = [found.span() for found in re.finditer(r"\S+", caption)]
    if not spans:
        return Spelling(caption, (), (), ())
    stripped = caption.strip()
    # A token's letters are counted from the blank in front of the caption.
    shift = caption.index(stripped) - 1
    found = opt.tokenizer(f" {stripped}", add_special_tokens=False, return_offsets_mapping=True)
    tokens: list[list[int]] = [[] for _ in spans]
    for place, (_, end) in enumerate(found.offset_mapping):
        # The word of a token's last letter; a token of blanks alone goes to the word it leads to.
        last = end - 1 + shift
        tokens[next(word for word, span in enumerate(spans) if last < span[1])].append(place)
    return Spelling(caption, tuple(found.input_ids), tuple(spans), tuple(map(tuple, tokens)))
