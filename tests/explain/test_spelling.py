"""Words and their tokens: every token has its word, every word its tokens, and their letters are the word's."""

from __future__ import annotations

import pytest

from msmedcap.explain.spelling import bare, spell
from tests import sizes

TEXTS = (
    "Axial CT of the head. Hemorrhage on the left.",
    "Sagittal  T2-weighted MRI,\tof the spine; (disc-herniation)?",
    "  blanks around it  ",
    "één 左肺 naïve — 5 µm ☃",
    "x",
)


@pytest.mark.parametrize("text", TEXTS)
def test_words_cover_the_caption_and_tokens_the_words(text: str) -> None:
    opt = sizes.opt()
    found = spell(opt, text)
    assert [found.text(word) for word in range(len(found.spans))] == text.split()
    assert sorted(place for own in found.tokens for place in own) == list(range(len(found.ids)))
    for word, own in enumerate(found.tokens):
        assert own == tuple(range(own[0], own[-1] + 1))
        assert opt.tokenizer.decode([found.ids[place] for place in own]).strip() == found.text(word)


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokens_are_those_the_caption_is_trained_with(text: str) -> None:
    opt = sizes.opt()
    assert [*spell(opt, text).ids, opt.newline] == opt.caption_ids(text)


def test_a_word_is_quoted_without_the_marks_of_its_sentence() -> None:
    quoted = {"pneumonia.": "pneumonia", "(disc-herniation)?": "disc-herniation", "T2-weighted": "T2-weighted", "5%.": "5%"}
    assert {word: bare(word) for word in quoted} == quoted
    assert bare("...") == "..."  # never nothing


@pytest.mark.parametrize("text", ["", "   "])
def test_a_caption_of_nothing_has_no_words(text: str) -> None:
    found = spell(sizes.opt(), text)
    assert found.spans == found.ids == found.tokens == ()
