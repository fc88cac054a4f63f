"""Broken captions are told apart from dull ones."""

from __future__ import annotations

import pytest

from msmedcap.models.quality import degenerate
from tests import sizes

GOOD = (
    *sizes.CAPTIONS,
    "No.",
    "Normal chest.",
    "a photo of a chest x - ray showing a left pleural effusion",
    "CT scan of the chest showing a large mass in the right upper lobe (arrow) with hilar lymphadenopathy (arrowheads).",
    "Nodule on the right. Nodule on the left. Mass on the left. Mass on the right.",
    "Left, right; left, right.",
    "Axial T1, T2 and T1 post contrast images at the level of L4, L5 and S1: 3 x 3 x 3 cm mass, 12 mm, 12 mm and 13 mm nodules.",
    "2 mm, 3 mm, 4 mm, 5 mm and 6 mm slices; 10 mm, 20 mm and 30 mm windows",
    "pneumonoultramicroscopicsilicovolcanoconiosis, pseudopseudohypoparathyroidism",
    "very very very large mass",
    "Ödem beider Lungenflügel — keine Ergüsse",
    "the ------------------------ line above",
)


@pytest.mark.parametrize("text", GOOD)
def test_a_caption_is_left_alone(text: str) -> None:
    assert degenerate(text) is None
    assert degenerate(text, sizes.tokenizer()(text, add_special_tokens=False).input_ids) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "an empty caption"),
        (" \n\t ", "an empty caption"),
        (". . .", "no words"),
        ("!!!!!!!!!!!!!!", "no words"),
        ("\ufffd\ufffda\ufffd", "characters that are no text"),
        ("lung \x00\x01\x02\x03\x04", "characters that are no text"),
        ("aaaaaaaaaaaaaaaaaaaa", "the letter 'a'"),
        ("the the the", "one word or token 3 times"),
        ("CT of the the the the the the lung with some more words", "one word or token 6 times"),
        ("left lung, left lung, left lung, left lung", "the same 2 words 4 times"),
        ("a cat. a cat. a cat.", "the same 2 words 3 times"),
        ("A scan. " + "There is a mass in the left lung. " * 5, "the same 8 words 5 times"),
        ("0" * 40, "one letter 40 times"),
        ("hahahahahahahahahahahahahahaha", "the same 2 letters 15 times"),
    ],
)
def test_a_broken_one_is_named(text: str, told: str) -> None:
    reason = degenerate(text)
    assert reason is not None and reason.startswith(told)


def test_tokens_tell_what_the_text_hides() -> None:
    # Token 0, what the largest of numbers that are none comes to, decodes to nothing or to any one string.
    assert degenerate("x", [0] * 20) == "one word or token 20 times in a row"
    assert degenerate("abcabcabc", [5, 6, 7] * 4) == "the same 3 tokens 4 times in a row"
    assert degenerate("A mass in the left lung", [5, 6, 7, 8, 9]) is None


def test_one_repeat_inside_a_long_caption_is_let_pass() -> None:
    text = "CT of the chest with a mass, a mass, a mass in the upper lobe and an effusion below it on the same side of the body."
    assert degenerate(text) is None
