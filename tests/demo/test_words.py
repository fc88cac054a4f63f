"""Words that point: a chosen word's map is on show, of the right caption and view, and what is known of it is told."""

from __future__ import annotations

import numpy as np
import pytest
from fake import FakePredictor

from msmedcap.config import UserError
from msmedcap.demo.session import Session
from msmedcap.demo.words.chosen import (
    ABOUT,
    Words,
    branches,
    faint,
    look_for,
    percent,
    rivals,
    show_word,
    spell,
    word_card,
)
from msmedcap.explain.maps import Map
from msmedcap.explain.words import METHOD, METHODS, Word


@pytest.fixture
def session(ct_file) -> Session:
    """A CT with its maps and captions."""
    made = Session(FakePredictor())
    made.open(ct_file.read_bytes())
    made.draw("MSMedCap")
    list(made.captions())
    return made


def test_spelling_tells_of_every_word_of_every_caption(session):
    spell(session)
    for system, text in session.reading.texts.items():
        assert [word.text for word in session.words.told[system]] == text.split()


def test_a_chosen_word_s_maps_join_the_others_and_one_is_shown(session):
    before = list(session.maps)
    said = show_word(session, "MSMedCap", 1, branch="sam")
    assert session.maps[: len(before)] == before and branches(session) == ["clip", "sam"]
    shown = session.maps[session.shown]
    assert (shown.kind, shown.branch, shown.word, shown.place) == ("word", "sam", "scan,", 1)
    assert said == "Where MSMedCap's SAM branch looked for “scan”."
    assert session.words.chosen == ("MSMedCap", 1) and session.words.word.text == "scan,"

    show_word(session, "BLIP2", 0, branch="sam", method="attention")  # BLIP2 has no SAM branch
    assert [m.kind for m in session.maps].count("word") == 1
    assert session.maps[session.shown].branch == "clip" and session.words.method == "attention"


def test_a_word_is_chosen_and_told_of_before_its_map_is_made(session, monkeypatch):
    monkeypatch.setattr(session.predictor, "word_maps", lambda *args, **options: pytest.fail("no map is wanted yet"))
    said = look_for(session, "MSMedCap", 1)
    assert said == "Looking for where MSMedCap looked for “scan”; this takes some seconds…"
    assert "“scan”</strong>, MSMedCap: 50 % sure" in word_card(session.words, measured={})
    assert "seconds" not in look_for(session, "MSMedCap", 1, method="attention")
    chosen = session.words.chosen
    assert look_for(session, "MSMedCap", 99) == "" and session.words.chosen == chosen
    session.open(session.scan, window="lung")
    assert look_for(session, "MSMedCap", 1) == ""


def word_map(peak: float, method: str) -> Map:
    top = 1.0 if method in ("occlusion", "masking") else 5.0
    return Map("word", "sam", None, "mass.", (0.0, top), np.full((4, 4), peak, np.float32), place=0, method=method)


def test_a_map_that_is_all_but_empty_is_said_to_point_at_nothing():
    said = faint(word_map(0.04, "occlusion"))
    assert said.startswith("Hiding any one place of the picture from the SAM branch lowered")
    assert "at most about 0.04 (4 % less likely)" in said and said.endswith("points at no place.")
    assert "under 1 % less likely" in faint(word_map(0.0, "masking"))
    assert "even 0.25 times" in faint(word_map(0.2, "gradient"))
    assert [faint(word_map(peak, method)) for peak, method in ((0.05, "occlusion"), (0.25, "rollout"))] == ["", ""]


def test_the_card_and_the_status_tell_of_an_empty_map(session, monkeypatch):
    empty = word_map(0.01, "occlusion")
    monkeypatch.setattr(session.predictor, "word_maps", lambda *args, **options: [empty])
    said = show_word(session, "MSMedCap", 1)
    assert said.startswith("Where MSMedCap's SAM branch looked for “mass”. Hiding any one place")
    assert faint(empty) in word_card(session.words, measured={}, shown=empty).replace("&#x27;", "'")
    assert "mm-faint" not in word_card(session.words, measured={}, shown=word_map(0.5, "occlusion"))


def test_other_beginnings_that_read_the_same_are_one_and_the_word_is_none_of_them():
    word = Word("MRI.", 0, 4, 0.5, (("X", 0.2), ("CT", 0.15), ("X", 0.1), ("MRI", 0.004), ("(end)", 0.002)))
    assert rivals(word) == [("X", pytest.approx(0.3)), ("CT", 0.15), ("(end)", 0.002)]


def test_a_word_there_is_none_of_changes_nothing(session, monkeypatch):
    def none(*args, **options):
        raise UserError("There is no word 99.")

    monkeypatch.setattr(session.predictor, "word_maps", none)
    before = list(session.maps)
    with pytest.raises(UserError):
        show_word(session, "MSMedCap", 99)
    assert session.maps == before and session.words.chosen is None


def test_captions_of_another_view_have_no_words_here(session):
    session.open(session.scan, window="lung")
    assert show_word(session, "MSMedCap", 1).startswith("These captions were written for another view")
    spell(session)
    assert session.words.told == {} and all(found.kind != "word" for found in session.maps)


def test_words_are_those_of_the_captions_on_show_however_they_were_written(session, png_file, monkeypatch):
    first = session.tray.current
    list(session.captions(preset="paper", prompt="It shows"))
    session.open(png_file.read_bytes())
    list(session.captions())
    session.turn_to(first)  # with a predictor that wrote nothing
    told = {}
    adopt = session.predictor.adopt
    monkeypatch.setattr(session.predictor, "adopt", lambda texts, **how: (told.update(how), adopt(texts, **how)))
    show_word(session, "BLIP2", 0)
    assert told == {"preset": "paper", "prompt": "It shows"}
    assert session.words.word.text == session.reading.texts["BLIP2"].split()[0]


def test_what_is_known_of_a_word_is_told_and_escaped():
    words = Words()
    assert ABOUT in word_card(None, measured={}) and ABOUT in word_card(words, measured={})
    words.told["BLIP2"] = (Word("<i>", 0, 3, 0.444, (("Coronal", 0.2), ("<b>", 0.1))),)
    words.chosen = ("BLIP2", 0)
    html = word_card(words, measured={words.method: "This map beats random & centre."})
    assert "“&lt;i&gt;”</strong>, BLIP2: 44 % sure" in html and "&lt;b&gt;" in html and "<b>" not in html
    assert "This map beats random &amp; centre." in html and ABOUT in html
    assert "has not been measured" in word_card(words, measured={})


def test_percent_has_no_false_certainty():
    assert [percent(share) for share in (0.0001, 0.014, 0.5, 0.994, 0.9999)] == [
        "under 1 %", "1 %", "50 %", "99 %", "over 99 %"
    ]  # fmt: skip


def test_there_is_a_readable_name_for_every_method():
    assert Words().method == METHOD and METHOD in METHODS and all(METHODS.values())
