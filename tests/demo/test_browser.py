"""The page as a reader meets it: drop a scan, read three captions, look at maps, point and ask. Runs in Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import click_at, colours, drop, map_title, opened, wait_for_captions, wait_for_map
from fake import FakePredictor

pytestmark = pytest.mark.slow
CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "demo"


@pytest.fixture(scope="module")
def predictor():
    """The shipped models where they are, else a fake; everything below must hold for both."""
    if (CHECKPOINT / "config.json").is_file():
        import msmedcap

        return msmedcap.load("demo", device="cpu")
    return FakePredictor(slow=0.02)


@pytest.fixture(scope="module")
def served(serve, predictor):
    with serve(predictor) as page:
        yield page


@pytest.fixture
def visit(come, served):
    """A function that opens the page as a new visitor; fails the test if the page's own code fails."""

    def visit(**settings):
        page = come(served.url, **settings)
        page.wait_for_selector("#mm-captions .mm-card")
        return page

    return visit


PLACES = [(64.5, 48.5), (5.5, 5.5), (100.5, 70.5)]


def test_a_scan_is_dropped_then_captions_and_maps_are_read(visit, served, predictor, ct_file):
    page = visit()
    drop(page, ct_file)
    opened(page)
    expected = predictor.fresh().set_scan(ct_file)
    assert (colours(page, *PLACES) == [expected.picture[int(y), int(x)] for x, y in PLACES]).all(), (
        "the scan alone at first"
    )
    captions = wait_for_captions(page)
    assert captions == list(expected.captions().values()) and len(captions) == 3 and all(captions)

    assert page.locator("#mm-maps button").count() == 1 + len(expected.maps())
    assert page.locator("#mm-maps button[aria-pressed=true]").inner_text() == "Scan alone"
    plain = colours(page, *PLACES)
    page.locator("#mm-maps .mm-group", has_text="Q-Former").first.locator("button").first.click()
    wait_for_map(page, "attention")
    assert (colours(page, *PLACES) != plain).any()
    page.locator("#mm-maps button").first.click()
    wait_for_map(page, "No map")
    assert (colours(page, *PLACES) == plain).all()
    assert "PATIENT" not in page.content() and served.kept() == []


def test_another_window_changes_the_picture_and_the_captions_only_on_request(visit, ct_file):
    page = visit()
    drop(page, ct_file)
    wait_for_captions(page)
    before = opened(page)
    page.locator("#mm-width input").fill("3000")
    page.locator("#mm-width input").press("Enter")
    page.wait_for_selector(".mm-cards.mm-stale")
    page.wait_for_function("old => document.querySelector('.mm-viewer').dataset.view !== old", arg=before)
    assert "width 3000" in page.locator(".mm-written").inner_text()
    page.click("#mm-again")
    page.wait_for_function("document.querySelector('.mm-written').textContent.startsWith('Written for: width 3000')")
    page.wait_for_function("document.querySelectorAll('#mm-maps button').length > 1")


def test_a_preset_by_its_key_and_captions_again_by_theirs(visit, ct_file):
    page = visit()
    drop(page, ct_file)
    wait_for_captions(page)
    page.focus(".mm-v-stage")
    page.keyboard.press("3")
    page.wait_for_selector(".mm-cards.mm-stale")
    page.focus(".mm-v-stage")
    page.keyboard.press("c")
    page.wait_for_function("!document.querySelector('.mm-cards.mm-stale')")
    wait_for_captions(page)


def test_a_place_is_compared_by_mouse_and_by_keyboard(visit, ct_file):
    page = visit()
    drop(page, ct_file)
    wait_for_captions(page)
    opened(page)
    page.click(".mm-v-bar [data-name=place]")
    click_at(page, 32.0, 72.0)
    wait_for_map(page, "likeness to the chosen point")
    page.wait_for_selector(".mm-v-svg .mm-v-place-mark")
    mark = page.locator(".mm-v-svg .mm-v-place-mark").get_attribute("transform")
    page.focus(".mm-v-stage")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "old => document.querySelector('.mm-v-place-mark').getAttribute('transform') !== old", arg=mark
    )


def test_a_word_is_chosen_and_its_map_is_shown(visit, ct_file):
    page = visit()
    drop(page, ct_file)
    wait_for_captions(page)
    word = page.locator("#mm-captions [data-word]").nth(1)
    said = word.inner_text().strip()
    word.click()
    wait_for_map(page, f"“{said}”")
    page.get_by_role("tab", name="Words").click()
    assert "sure" in page.locator("#mm-word .mm-word-said").inner_text()


def test_a_bad_file_is_said_and_the_next_one_works(visit, ct_file, tmp_path):
    bad = tmp_path / "letter.dcm"
    bad.write_bytes(b"%PDF-1.7 dear doctor")
    page = visit()
    drop(page, bad)
    page.wait_for_selector(".mm-status.mm-error")
    assert "PDF" in page.locator(".mm-status").first.inner_text()
    drop(page, ct_file)
    assert len(wait_for_captions(page)) == 3


def test_a_bad_file_takes_nothing_off_the_page(visit, ct_file, tmp_path):
    bad = tmp_path / "letter.dcm"
    bad.write_bytes(b"%PDF-1.7 dear doctor")
    page = visit()
    drop(page, ct_file)
    captions, view = wait_for_captions(page), opened(page)
    drop(page, bad)
    page.wait_for_selector(".mm-status.mm-error")
    page.wait_for_timeout(1500)  # long enough for maps and captions of nothing to overwrite it
    assert "still open" in page.locator(".mm-status.mm-error").inner_text()
    assert wait_for_captions(page) == captions and opened(page) == view


def test_two_visitors_never_mix(visit, ct_file, png_file):
    one, two = visit(), visit()
    drop(one, ct_file)
    drop(two, png_file)
    mine, theirs = wait_for_captions(one), wait_for_captions(two)
    assert "128 by 96" in one.locator(".mm-v-canvas").get_attribute("aria-label")
    assert "60 by 40" in two.locator(".mm-v-canvas").get_attribute("aria-label")
    one.locator("#mm-maps button").last.click()
    one.wait_for_selector("#mm-maps .mm-group:last-child button:last-child[aria-pressed=true]")
    assert map_title(two) == "No map"
    one.reload()
    assert wait_for_captions(one) == mine and wait_for_captions(two) == theirs, (
        "a page loaded again shows what it showed"
    )
    assert "128 by 96" in one.locator(".mm-v-canvas").get_attribute("aria-label")


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_hangs_over_the_edge(visit, ct_file, width, scheme):
    page = visit(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 850})
    drop(page, ct_file)
    wait_for_captions(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".mm-disclaimer").is_visible()


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1440, 1000), (1920, 1080)])
def test_a_screen_holds_the_scan_at_first_and_the_captions_beside_it_after_one_scroll(visit, ct_file, width, height):
    page = visit(size=(width, height))
    labels = page.locator("#mm-examples button span")
    assert labels.first.bounding_box()["height"] > 10
    drop(page, ct_file)
    wait_for_captions(page)
    assert labels.first.bounding_box()["height"] <= 1 and labels.first.inner_text()
    tall = {name: page.locator(name).first.bounding_box() for name in ("#mm-file", "#mm-viewer", ".mm-v-stage", "#mm-captions")}
    bottom = {name: box["y"] + box["height"] for name, box in tall.items()}
    assert bottom[".mm-v-stage"] <= height
    assert bottom["#mm-captions"] - tall["#mm-viewer"]["y"] <= max(height, 900)
    drawn = page.locator("#mm-file button").first.bounding_box()
    assert drawn["y"] + drawn["height"] <= bottom["#mm-file"] + 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_shuts_out_a_reader(visit, ct_file, scheme):
    """axe-core finds nothing serious, before and after a scan is open, on every side tab."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the check of accessibility needs axe")

    def faults(page) -> list[str]:
        # Gradio's own upload field nests a button in a button; everything else of the page is checked.
        rules = {"exclude": [["#mm-file"]]}
        found = axe.Axe().run(page, context=rules).response["violations"]
        return [
            f"{f['id']}: {n['html'][:120]}" for f in found if f["impact"] in ("serious", "critical") for n in f["nodes"]
        ]

    page = visit(color_scheme=scheme)
    assert faults(page) == []
    drop(page, ct_file)
    wait_for_captions(page)
    for name in ("Maps", "Words", "Structures"):
        page.get_by_role("tab", name=name).click()
        assert faults(page) == [], name
