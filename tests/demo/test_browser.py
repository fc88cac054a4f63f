"""The page as a reader meets it: drop a scan, read three captions and two maps. Runs in Chromium."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake import FakePredictor
from PIL import Image

pytestmark = pytest.mark.slow
CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "demo"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT = 120_000  # milliseconds; a busy machine


@pytest.fixture(scope="module")
def predictor():
    """The shipped models where they are, else a fake; everything below must hold for both."""
    if (CHECKPOINT / "config.json").is_file():
        import msmedcap

        return msmedcap.load("demo", device="cpu")
    return FakePredictor(slow=0.02)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs the playwright package")
    chromium = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if chromium is None:
        pytest.skip("the browser test needs Chromium (Debian: apt install chromium)")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=chromium, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def served(serve, predictor):
    with serve(predictor) as page:
        yield page


@pytest.fixture
def visit(browser, served):
    """A function that opens the page as a new visitor; fails the test if the page's own code fails."""
    opened, faults = [], []

    def come(**settings):
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **settings)
        opened.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(served.url)
        page.wait_for_selector("#mm-captions .mm-card")
        return page

    yield come
    for context in opened:
        context.close()
    assert faults == []


def drop(page, path: Path) -> None:
    page.set_input_files("#mm-file input[type=file]", path)


def wait_for_captions(page) -> list[str]:
    page.wait_for_function("document.querySelector('.mm-written')?.textContent.startsWith('Written for')")
    return page.locator("#mm-captions .mm-caption").all_inner_texts()


def pixels(page, selector: str) -> np.ndarray:
    uri = page.locator(selector).first.get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))))


def map_title(page) -> str:
    return page.locator("#mm-map figcaption strong").inner_text()


def test_a_scan_is_dropped_and_three_captions_and_two_maps_are_read(visit, served, predictor, ct_file):
    page = visit()
    drop(page, ct_file)
    page.wait_for_selector("#mm-scan .mm-base")
    expected = predictor.fresh().set_scan(ct_file)
    assert (pixels(page, "#mm-scan .mm-base") == expected.picture[..., 0]).all()
    captions = wait_for_captions(page)
    assert captions == list(expected.captions().values()) and len(captions) == 3 and all(captions)

    assert page.locator("#mm-maps button").count() == len(expected.maps())
    first_title, first = map_title(page), pixels(page, "#mm-map .mm-over")
    assert "SAM" in first_title and first.shape == (96, 128, 3)
    page.locator("#mm-maps .mm-group", has_text="Q-Former").first.locator("button").first.click()
    page.wait_for_function(
        "before => document.querySelector('#mm-map figcaption strong').textContent !== before", arg=first_title
    )
    assert "attention" in map_title(page) and page.locator("#mm-map .mm-bar").is_visible()
    assert (pixels(page, "#mm-map .mm-over") != first).any()

    assert "PATIENT" not in page.content() and served.kept() == []


def test_another_window_changes_the_picture_and_the_captions_only_on_request(visit, ct_file):
    page = visit()
    drop(page, ct_file)
    wait_for_captions(page)
    before = pixels(page, "#mm-scan .mm-base")
    page.locator("#mm-width input").fill("3000")
    page.locator("#mm-width input").press("Enter")
    page.wait_for_selector(".mm-cards.mm-stale")
    assert (pixels(page, "#mm-scan .mm-base") != before).any()
    assert "width 3000" in page.locator(".mm-written").inner_text()
    page.click("#mm-again")
    page.wait_for_function("document.querySelector('.mm-written').textContent.startsWith('Written for: width 3000')")
    page.wait_for_selector("#mm-map .mm-over")


def test_a_place_is_chosen_by_mouse_and_by_keyboard(visit, ct_file):
    page = visit()
    drop(page, ct_file)
    wait_for_captions(page)
    frame = page.locator("#mm-scan .mm-frame")
    box = frame.bounding_box()
    frame.click(position={"x": box["width"] / 4, "y": box["height"] * 3 / 4})
    style = page.locator("#mm-scan .mm-cross").get_attribute("style")
    left, top = (float(number) for number in re.findall(r"([\d.]+)%", style))
    assert abs(left - 25) < 1 and abs(top - 75) < 1
    assert page.locator("#mm-map .mm-cross").is_visible()
    frame.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "old => document.querySelector('#mm-scan .mm-cross').getAttribute('style') !== old", arg=style
    )
    assert "left:52.00%;top:50.00%" in page.locator("#mm-scan .mm-cross").get_attribute("style")


def test_a_bad_file_is_said_and_the_next_one_works(visit, ct_file, tmp_path):
    bad = tmp_path / "letter.dcm"
    bad.write_bytes(b"%PDF-1.7 dear doctor")
    page = visit()
    drop(page, bad)
    page.wait_for_selector(".mm-status.mm-error")
    assert "PDF" in page.locator(".mm-status").inner_text()
    drop(page, ct_file)
    assert len(wait_for_captions(page)) == 3


def test_a_bad_file_takes_nothing_off_the_page(visit, ct_file, tmp_path):
    bad = tmp_path / "letter.dcm"
    bad.write_bytes(b"%PDF-1.7 dear doctor")
    page = visit()
    drop(page, ct_file)
    captions = wait_for_captions(page)
    drop(page, bad)
    page.wait_for_selector(".mm-status.mm-error")
    page.wait_for_timeout(1500)  # long enough for maps and captions of nothing to overwrite it
    assert "still open" in page.locator(".mm-status.mm-error").inner_text()
    assert wait_for_captions(page) == captions
    assert page.locator("#mm-scan .mm-base").count() == 1 and page.locator("#mm-map .mm-base").count() == 1


def test_two_visitors_never_mix(visit, ct_file, png_file):
    one, two = visit(), visit()
    drop(one, ct_file)
    drop(two, png_file)
    wait_for_captions(one), wait_for_captions(two)
    assert "DICOM" in one.locator("#mm-scan figcaption").inner_text()
    assert "PNG" in two.locator("#mm-scan figcaption").inner_text()
    one.locator("#mm-maps button").last.click()
    one.wait_for_selector("#mm-maps .mm-group:last-child button:last-child[aria-pressed=true]")
    assert pixels(one, "#mm-map .mm-base").shape == (96, 128)
    assert pixels(two, "#mm-map .mm-base").shape == (40, 60)
    one.reload()
    one.wait_for_selector("#mm-captions .mm-card")
    assert one.locator("#mm-scan .mm-base").count() == 0


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_hangs_over_the_edge(visit, ct_file, width, scheme):
    page = visit(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 850})
    drop(page, ct_file)
    wait_for_captions(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".mm-disclaimer").is_visible()
