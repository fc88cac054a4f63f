"""The panel of structures in Chromium, on a page of its own: prompts, legend, numbers, files, without anything else of the page."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from fake import FakePredictor
from PIL import Image
from segment_harness import Page
from serving import serve_blocks

from msmedcap.demo.structures.cards import segments_card
from msmedcap.demo.structures.segments import Segments

HEIGHT, WIDTH = 60, 100


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_what_is_said_is_escaped() -> None:
    segments = Segments(FakePredictor().set_scan(png()))
    segments.add(80, 20)
    answer = segments.current
    object.__setattr__(answer, "label", "<b>Lung & heart</b>")
    object.__setattr__(answer, "present", (("<i>", 0.5),))
    card = segments_card(segments)
    assert "<b>Lung" not in card and "&lt;b&gt;Lung &amp; heart" in card and "<i>" not in card and "&lt;i&gt;" in card


def test_a_model_without_names_has_a_legend() -> None:
    segments = Segments(FakePredictor().set_scan(png()))
    segments.add(80, 20)
    for name in ("label", "score", "semantic"):
        object.__setattr__(segments.current, name, None)
    card = segments_card(segments)
    assert "No name" in card and "<td>–</td>" in card


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable]:
    running = []
    cache = tmp_path_factory.mktemp("gradio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(cache))

        def start(page: Page) -> str:
            running.append(page.blocks)
            return serve_blocks(page.blocks)

        yield start
        for blocks in running:
            blocks.close()
    assert [path for path in cache.rglob("*") if path.is_file()] == []


@pytest.fixture(scope="module")
def served(serving: Callable) -> Page:
    page = Page(FakePredictor(), png(), texts={"MSMedCap": "The right lung.", "BLIP2": "A scan."})
    page.url = serving(page)  # type: ignore[attr-defined]
    return page


@pytest.fixture
def arrive(come):
    """A function that opens a page of the panel."""

    def arrive(url: str, *, width: int = 700, **settings):
        page = come(url, size=(width, 1000), **settings)
        page.wait_for_function("window.prompt_ !== undefined")
        return page

    return arrive


@pytest.fixture
def visit(arrive, served):
    page = arrive(served.url, accept_downloads=True)
    page.wait_for_selector("#mm-segments .mm-segments")
    return page


def shown(page) -> dict:
    return json.loads(page.locator("#shown").inner_text())


def prompt(page, points: list, box: list | None = None) -> None:
    page.evaluate("([points, box]) => window.prompt_(points, box)", [points, box])


def status(page, part: str) -> str:
    page.wait_for_function("part => document.querySelector('.mm-status').textContent.includes(part)", arg=part)
    return page.locator(".mm-status").inner_text()


def test_a_click_is_named_outlined_and_listed(visit) -> None:
    prompt(visit, [[20, 20, 1]])
    area = FakePredictor().set_scan(png()).segment([(20, 20)]).area_px
    assert status(visit, "Right Lung") == f"Right Lung (90%), {area} pixels."
    row = visit.locator(".mm-legend tbody tr")
    assert row.count() == 1 and "1 Right Lung" in row.inner_text() and "90%" in row.inner_text()
    assert "0.80" in row.text_content() and f"{area} pixels" in row.inner_text()
    assert [line["dash"] for line in shown(visit)["outlines"]] == [False, True]
    assert visit.locator(".mm-present li").all_inner_texts()[0].split() == ["heart", "80%"]
    assert "no pixel spacing" in visit.locator("#mm-segments").inner_text()
    width = visit.locator(".mm-present li i").first.bounding_box()["width"]
    assert visit.locator(".mm-present li i b").first.bounding_box()["width"] == pytest.approx(0.8 * width, abs=2)


def test_what_is_wrong_is_said_and_the_point_vanishes_again(visit) -> None:
    prompt(visit, [[20, 20, 1]])
    status(visit, "Right Lung")
    prompt(visit, [[20, 20, 1], [200, 20, 1]])
    assert "100 x 60" in status(visit, "outside")
    assert visit.locator(".mm-status.mm-error").count() == 1
    assert shown(visit)["points"] == [[20, 20, 1]]


def test_undo_clear_keep_and_remove(visit) -> None:
    prompt(visit, [[20, 20, 1]])
    status(visit, "Right Lung")
    visit.click("#mm-segment-keep")
    status(visit, "Kept")
    assert shown(visit)["points"] == [] and len(shown(visit)["outlines"]) == 2
    prompt(visit, [[80, 20, 1]])
    status(visit, "Left Lung")
    assert visit.locator(".mm-legend tbody tr").count() == 2
    colours = visit.locator(".mm-swatch path:nth-of-type(1)").evaluate_all("a => a.map(p => p.getAttribute('stroke'))")
    assert len(set(colours)) == 2 and colours == [line["colour"] for line in shown(visit)["outlines"]][::2]
    visit.click("#mm-segment-clear")
    status(visit, "Mark a place")
    assert visit.locator(".mm-legend tbody tr").count() == 1
    visit.click("#mm-segment-undo")
    status(visit, "Left Lung")
    assert shown(visit)["points"] == [[80, 20, 1]]
    remove = visit.get_by_role("button", name="Remove 1 Right Lung")
    remove.focus()
    visit.keyboard.press("Enter")
    status(visit, "Removed")
    visit.wait_for_function("document.querySelectorAll('.mm-legend tbody tr').length === 1")
    assert "1 Left Lung" in visit.locator(".mm-legend tbody").inner_text()
    assert visit.evaluate("document.querySelector('#mm-segments').contains(document.activeElement)")


def test_everything_can_be_asked_without_a_pointer(visit) -> None:
    visit.get_by_role("button", name="By numbers").press("Enter")
    visit.click("#mm-segment-add")
    status(visit, "is not a point; write X,Y")
    visit.fill("#mm-segment-point textarea, #mm-segment-point input", "20.5, 30")
    visit.keyboard.press("Enter")
    status(visit, "Right Lung")
    assert shown(visit)["points"] == [[20.5, 30, 1]]
    visit.fill("#mm-segment-point textarea, #mm-segment-point input", "3,4,0")
    visit.click("#mm-segment-add")
    visit.wait_for_selector("[data-point='1']")
    assert shown(visit)["points"] == [[20.5, 30, 1], [3, 4, 0]]
    visit.get_by_role("button", name="Remove the point 3, 4, beside it").press("Enter")
    visit.wait_for_selector("[data-point='1']", state="detached")
    visit.fill("#mm-segment-corners textarea, #mm-segment-corners input", "60,10,90,40")
    visit.click("#mm-segment-box")
    visit.wait_for_selector("[data-box]")
    assert shown(visit)["box"] == [60, 10, 90, 40]
    visit.get_by_role("button", name="Remove the point 20.5, 30").press("Enter")
    assert "900 pixels" in status(visit, "Left Lung")
    visit.get_by_role("button", name=re.compile("Remove the box")).press("Enter")
    status(visit, "Mark a place")
    assert shown(visit) == {"points": [], "box": None, "outlines": []}


def test_switches_hide_outlines(visit) -> None:
    prompt(visit, [[20, 20, 1]])
    status(visit, "Right Lung")
    visit.uncheck("#mm-segment-dashed input")
    visit.wait_for_function("JSON.parse(document.querySelector('#shown').textContent).outlines.length === 1")
    visit.uncheck("#mm-segment-solid input")
    visit.wait_for_function("JSON.parse(document.querySelector('#shown').textContent).outlines.length === 0")
    visit.check("#mm-segment-dashed input")
    visit.wait_for_function("JSON.parse(document.querySelector('#shown').textContent).outlines[0]?.dash")


def test_the_hottest_place_is_asked_for(visit, served) -> None:
    visit.click("#mm-segment-hottest")
    said = status(visit, "hottest place")
    assert re.search(r"the model says: Right Lung, 90%\. The name is in the caption of MSMedCap too\.$", said)
    (point,) = shown(visit)["points"]
    assert f"({point[0]:g}, {point[1]:g})" in said


def download(page, button: str) -> dict[str, bytes]:
    with page.expect_download() as kept:
        page.click(button)
    assert kept.value.suggested_filename == "msmedcap-masks.zip"
    with zipfile.ZipFile(kept.value.path()) as pack:
        return {name: pack.read(name) for name in pack.namelist()}


def test_masks_are_downloaded_and_nothing_stays_on_the_server(visit, served) -> None:
    visit.click("#mm-segment-save")
    status(visit, "no mask to write")
    prompt(visit, [[21, 22.5, 1]])
    status(visit, "Right Lung")
    found = download(visit, "#mm-segment-save")
    assert set(found) == {"binary.png", "semantic.png", "index.png", "segment.json"}
    mask = np.asarray(Image.open(io.BytesIO(found["binary.png"])))
    (session,) = (s for s in served.visitors.values() if s.segments.points == ((21, 22.5, 1),))
    assert (mask == session.segments.current.binary * 255).all()
    again = download(visit, "#mm-segment-save")
    assert again == found
    assert {"image.dcm", "segmentation.dcm"} <= set(download(visit, "#mm-segment-dicom"))


def test_two_visitors_do_not_share(arrive, served, visit) -> None:
    prompt(visit, [[20, 20, 1]])
    status(visit, "Right Lung")
    other = arrive(served.url)
    prompt(other, [], [50, 5, 95, 50])
    status(other, "Left Lung")
    assert other.locator(".mm-legend tbody tr").count() == visit.locator(".mm-legend tbody tr").count() == 1


@pytest.mark.parametrize("width", [340, 900])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_hangs_over_the_edge(arrive, served, width: int, scheme: str) -> None:
    page = arrive(served.url, width=width, color_scheme=scheme)
    prompt(page, [[20.5, 20.25, 1], [60, 10, 0]], [5, 5, 77, 50])
    status(page, "pixels")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_only_the_encoder_waits_for_a_turn(arrive, serving) -> None:
    made = Page(FakePredictor(), png(), drawn=False)
    page = arrive(serving(made))
    with made.turns.ticket("somebody"):
        prompt(page, [[20, 20, 1]])
        status(page, "Waiting for the models: 1 ahead of you")
        assert page.locator(".mm-legend").count() == 0
    status(page, "Right Lung")
    (session,) = made.visitors.values()
    assert session.predictor.prepared == 1
    with made.turns.ticket("somebody"):
        prompt(page, [[80, 20, 1]])
        status(page, "Left Lung")
    page.click("#mm-segment-hottest")
    status(page, "There is no map yet")
    assert session.predictor.prepared == 1


def test_without_a_segmenter_there_is_one_sentence(come, serving) -> None:
    absent = "The folder lacks segmenter; make it with: python -m msmedcap train segmentation"
    page = come(serving(Page(FakePredictor(absent=absent), png())))
    page.wait_for_selector(".mm-absent")
    assert absent in page.locator(".mm-absent").inner_text()
    assert page.locator("#mm-segment-keep").count() == 0 or not page.locator("#mm-segment-keep").is_visible()
