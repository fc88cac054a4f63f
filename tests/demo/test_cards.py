"""The words on the page: every system has its card, and says so when it has no caption."""

from __future__ import annotations

import re

from msmedcap.demo.cards import caption_cards, status_line, warning_list
from msmedcap.demo.session import Reading
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
