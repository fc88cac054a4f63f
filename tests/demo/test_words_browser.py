"""Words as a reader meets them: one is chosen by a click or the keyboard and its map is on the picture. In Chromium."""

from __future__ import annotations

import threading

import pytest
from chromium import drop, map_title, opened, wait_for_captions, wait_for_map
from fake import FakePredictor

from msmedcap.explain.words import METHOD

pytestmark = pytest.mark.slow
STAGE = """() => { const box = document.querySelector('.mm-v-stage').getBoundingClientRect(); return [box.top, box.bottom]; }"""
WORD = '#mm-captions [data-system="{}"] [data-word="{}"]'


@pytest.fixture(scope="module")
def served(serve, tmp_path_factory):
    with serve(FakePredictor(slow=0.02), examples=tmp_path_factory.mktemp("none")) as page:
        yield page


@pytest.fixture
def page(come, served, ct_file):
    """The page with a CT and its captions."""
    page = come(served.url, size=(1280, 1000))
    page.wait_for_selector("#mm-captions .mm-card")
    drop(page, ct_file)
    opened(page)
    wait_for_captions(page)
    page.wait_for_selector("#mm-captions [data-word][title]")
    return page


@pytest.fixture
def held(monkeypatch):
    """Maps of words are made once this event is set."""
    gate, made = threading.Event(), FakePredictor.word_maps
    monkeypatch.setattr(FakePredictor, "word_maps", lambda *args, **options: (gate.wait(60), made(*args, **options))[1])
    yield gate
    gate.set()


def focused(page) -> str:
    return page.evaluate("document.activeElement.dataset.word ?? document.activeElement.tagName")


def test_a_click_on_a_word_shows_its_map_and_what_is_known_of_it(page):
    page.locator(WORD.format("MSMedCap", 1)).click()
    wait_for_map(page, f"“scan”: CLIP branch, {METHOD}")
    assert page.locator(WORD.format("MSMedCap", 1)).get_attribute("aria-pressed") == "true"
    assert page.locator("#mm-captions [aria-pressed=true]").count() == 1
    page.get_by_role("tab", name="Words").click()
    card = page.locator("#mm-word")
    assert "“scan”, MSMedCap: 50 % sure" in card.inner_text() and "Coronal" in card.inner_text()
    assert "Raw Q-Former maps do not depend on the words" in card.inner_text()

    page.locator("#mm-word-branch").get_by_label("SAM").check()
    wait_for_map(page, f"“scan”: SAM branch, {METHOD}")
    page.locator(WORD.format("BLIP2", 0)).click()
    wait_for_map(page, "“axial”: CLIP branch")
    assert not page.locator("#mm-word-branch").is_visible()  # BLIP2 has one branch


def test_what_is_known_of_a_word_is_told_while_its_map_is_made(page, held):
    page.get_by_role("tab", name="Words").click()
    page.locator(WORD.format("MSMedCap", 1)).click()
    page.wait_for_function("document.querySelector('.mm-status').textContent.startsWith('Looking for where MSMedCap')")
    assert "“scan”; this takes some seconds" in page.locator(".mm-status").inner_text()
    page.wait_for_function("document.querySelector('#mm-word').textContent.includes('“scan”, MSMedCap: 50 % sure')")
    assert map_title(page) == "No map"
    held.set()
    wait_for_map(page, "“scan”: CLIP branch")
    page.wait_for_function("document.querySelector('.mm-status').textContent.startsWith('Where MSMedCap')")


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_on_a_narrow_screen_a_chosen_word_brings_the_picture_into_view(come, served, ct_file, motion):
    page = come(served.url, size=(390, 844), reduced_motion=motion)
    page.wait_for_selector("#mm-captions .mm-card")
    drop(page, ct_file)
    opened(page)
    wait_for_captions(page)
    word = page.locator(WORD.format("SAM-BLIP2", 2))
    word.scroll_into_view_if_needed()
    assert page.evaluate(STAGE)[1] < 0
    word.evaluate("word => word.click()")  # no scrolling of the test's own
    if motion == "no-preference":
        page.wait_for_function(f"({STAGE})()[0] > -2")
    top, bottom = page.evaluate(STAGE)
    assert top > -2 and bottom <= 846 and focused(page) == "2"
    wait_for_map(page, "“mean”")
    page.keyboard.press("ArrowRight")  # whoever goes on by keyboard sees the word again
    page.wait_for_function("document.activeElement.getBoundingClientRect().bottom <= innerHeight + 1")
    assert focused(page) == "3"


def test_the_scan_alone_is_a_button_like_the_others(page):
    widths = page.locator("#mm-maps button").evaluate_all("all => all.map(one => Math.round(one.getBoundingClientRect().width))")
    assert len(set(widths)) == 1 and len(widths) > 3
    assert page.locator("#mm-maps").evaluate("list => getComputedStyle(list).overflowY") == "auto"  # nothing lies over what follows


def test_words_by_keyboard(page):
    stops = page.locator('#mm-captions [data-word][tabindex="0"]')
    assert stops.count() == 3  # one for each card
    stops.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert focused(page) == "2"
    page.keyboard.press("Enter")
    wait_for_map(page, "“mean”")
    assert focused(page) == "2"
    page.keyboard.press("End")
    last = focused(page)
    page.keyboard.press("ArrowRight")
    assert focused(page) == last and int(last) > 4
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    wait_for_map(page, "“axial”")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('[data-system]').dataset.system") == "BLIP2"


def test_a_caption_is_a_sentence_that_can_be_read_and_copied(page):
    card = page.locator('#mm-captions [data-system="MSMedCap"]')
    text = card.locator(".mm-caption").inner_text()
    assert card.locator(".mm-heard").text_content() == text and text.endswith("seen by MSMedCap.")
    page.evaluate("document.getSelection().selectAllChildren(document.querySelector('#mm-captions .mm-caption'))")
    assert page.evaluate("document.getSelection().toString()") == text
    page.locator(WORD.format("MSMedCap", 1)).dispatch_event("click")  # the end of a selection by mouse is no choice
    assert page.locator("#mm-captions [aria-pressed=true]").count() == 0


def test_unsure_words_are_tinted_when_asked(page):
    ground = "word => getComputedStyle(document.querySelector(word)).backgroundColor"
    unsure, sure = (WORD.format("MSMedCap", place) for place in (5, 0))
    assert page.evaluate(ground, unsure) == "rgba(0, 0, 0, 0)"
    page.get_by_role("tab", name="Words").click()
    page.locator("#mm-word-tint").get_by_role("checkbox").check()
    page.wait_for_function(f"({ground})('{unsure.replace(chr(39), '')}') !== 'rgba(0, 0, 0, 0)'")
    assert page.evaluate(ground, unsure) != page.evaluate(ground, sure)
    assert "underline" in page.evaluate(
        "word => getComputedStyle(document.querySelector(word)).textDecorationLine", unsure
    )
