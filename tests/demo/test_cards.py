"""The words on the page: every system has its card, and says so when it has no caption."""

from __future__ import annotations

import re

from msmedcap.demo.cards import caption_cards, status_line, warning_list
from msmedcap.demo.session import Reading
from msmedcap.demo.words.chosen import Words
from msmedcap.explain.words import Word
from msmedcap.systems import SYSTEMS

ALL = tuple(SYSTEMS)


def card(html: str, system: str) -> str:
    found = re.search(rf'<article class="mm-card" data-system="{system}".*?</article>', html)
    assert found
    return found[0]


def test_three_captions_stand_side_by_side_and_are_escaped():
    reading = Reading(
        "lung window", {"MSMedCap": "one <b>", "BLIP2": "two", "SAM-BLIP2": "three"}, seconds={"decode": 0.5}, done=True
    )
    html = caption_cards(reading, systems=ALL, view="lung window")
    assert (
        "one &lt;b&gt;" in card(html, "MSMedCap")
        and "two" in card(html, "BLIP2")
        and "three" in card(html, "SAM-BLIP2")
    )
    assert "Written for: lung window, in 0.5 s." in html and "mm-stale" not in html


def test_a_failed_system_says_why_and_the_others_stay():
    reading = Reading("", {"MSMedCap": "one", "BLIP2": ""}, failed={"BLIP2": "No caption."}, done=True)
    html = caption_cards(reading, systems=("MSMedCap", "BLIP2"), view="")
    assert "one" in card(html, "MSMedCap") and "No caption." in card(html, "BLIP2")
    assert "no weights" in card(html, "SAM-BLIP2")


def test_captions_of_another_view_say_so():
    reading = Reading("lung window", {"MSMedCap": "one"}, done=True)
    html = caption_cards(reading, systems=ALL, view="bone window")
    assert "mm-stale" in html and "The scan above now shows: bone window" in html


def test_a_card_is_busy_until_its_caption_is_done():
    growing = caption_cards(Reading("", {"MSMedCap": "a"}), systems=("MSMedCap",), view="")
    assert 'aria-busy="true"' in card(growing, "MSMedCap") and 'aria-busy="false"' in card(growing, "BLIP2")
    assert 'aria-busy="true"' not in caption_cards(None, systems=ALL, view="")


def test_status_and_warnings_are_escaped():
    assert "&lt;" in status_line("<") and 'role="status"' in status_line("")
    assert warning_list([]) == "" and "&lt;" in warning_list(["<"])


DONE = Reading("", {"MSMedCap": "Axial  CT of <b>.", "BLIP2": "Axial CT."}, done=True)


def buttons(html: str) -> list[str]:
    return re.findall(r'<span role="button".*?</span>', html)


def test_the_words_of_a_done_caption_are_buttons_and_the_sentence_is_read_whole():
    shown = card(caption_cards(DONE, systems=ALL, view="", words=Words()), "MSMedCap")
    assert '<p class="mm-heard">Axial  CT of &lt;b&gt;.</p>' in shown
    found = buttons(shown)
    assert [re.sub("<.*?>", "", one) for one in found] == ["Axial", "CT", "of", "&lt;b&gt;."]
    assert [re.search(r'data-word="(\d)"', one)[1] for one in found] == list("0123")
    # The caption's letters are those of the caption, blanks included.
    (caption,) = re.findall(r'<div class="mm-caption".*?>(.*?)</div>', shown)
    assert re.sub("<.*?>", "", caption) == "Axial  CT of &lt;b&gt;."


def test_one_tab_stop_for_each_card_and_one_word_pressed():
    words = Words()
    words.chosen = ("MSMedCap", 2)
    html = caption_cards(DONE, systems=ALL, view="", words=words)
    for system, reached in (("MSMedCap", 2), ("BLIP2", 0)):
        stops = ['tabindex="0"' in one for one in buttons(card(html, system))]
        assert stops == [place == reached for place in range(len(stops))]
    assert [one.count('aria-pressed="true"') for one in buttons(html)] == [0, 0, 1, 0, 0, 0]


def test_words_are_plain_while_captions_are_written_and_for_another_view():
    writing = Reading("", {"MSMedCap": "Axial CT"})
    assert buttons(caption_cards(writing, systems=ALL, view="", words=Words())) == []
    assert buttons(caption_cards(DONE, systems=ALL, view="lung window", words=Words())) == []
    assert buttons(caption_cards(DONE, systems=ALL, view="")) == []


def test_a_word_tells_how_sure_and_what_else():
    words = Words()
    words.told["BLIP2"] = (Word("Axial", 0, 5, 0.9, (("Coronal", 0.06), ('"<', 0.004))), Word("CT.", 6, 9, 0.3, (("CT", 0.3),)))
    html = caption_cards(DONE, systems=ALL, view="", words=words)
    sure, unsure = buttons(card(html, "BLIP2"))
    assert 'style="--p:0.900"' in sure and "mm-unsure" not in sure
    assert 'title="90 % sure; else: Coronal 6 %, &quot;&lt; under 1 %"' in sure
    assert 'class="mm-unsure" style="--p:0.300" title="30 % sure"' in unsure  # the word itself is no other word
    assert "--p" not in card(html, "MSMedCap")
