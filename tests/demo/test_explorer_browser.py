"""The tabs "Cases" and "Figure 4" as a reader meets them: filter, open a case, draw and keep a figure. Runs in Chromium."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fake import FakePredictor

pytestmark = pytest.mark.slow
TRUE = "Axial CT of the chest. Nodule on the right."
LEFT = "Axial CT of the chest. Nodule on the left."


@pytest.fixture(scope="module")
def served(serve, ct_file, tmp_path_factory):
    """A page with a run of 24 cases whose pictures are there, in one of which a system errs about the side."""
    data, runs = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("runs")
    shutil.copy(ct_file, data / "scan.dcm")
    rows = [{"made_with": {"models": "fake"}}]
    for number in range(24):
        captions = {"MSMedCap": LEFT if number == 7 else TRUE, "BLIP2": TRUE}
        rows.append({"id": f"case-{number}", "image": "scan.dcm", "references": [TRUE], "captions": captions})
    (runs / "made-dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serve(FakePredictor(), runs=runs, data={"made": data}) as page:
        yield page


@pytest.fixture
def visit(come, served):
    """A function that opens the tab "Cases" as a new visitor."""

    def visit(width: int = 1280, **settings):
        page = come(served.url, size=(width, 900), **settings)
        page.get_by_role("tab", name="Cases").click()
        page.wait_for_selector("table.mm-cases tbody tr")
        return page

    return visit


def rows(page) -> list[str]:
    return page.locator(".mm-cases tbody .mm-open-case").all_text_contents()


def wait_for_rows(page, count: int) -> None:
    page.wait_for_function("n => document.querySelectorAll('.mm-cases tbody tr').length === n", arg=count)


def send(page, file: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Open a captions file…").click()
    chooser.value.set_files(file)


def test_cases_are_filtered_paged_and_searched(visit):
    page = visit()
    assert len(rows(page)) == 20 and "24 of 24 cases" in page.content()
    page.get_by_role("button", name="Next").press("Enter")
    wait_for_rows(page, 4)
    page.get_by_role("button", name="Wrong side 1").press("Enter")
    wait_for_rows(page, 1)
    assert rows(page) == ["Open case case-7"]
    assert page.locator("mark.mm-no").first.inner_text().startswith("left")
    assert page.evaluate("document.activeElement.dataset.kind") == "side"  # the focus stays on the redrawn button
    page.get_by_role("button", name="All cases 24").click()
    page.get_by_label("Search").fill("case-11")  # at once: the search must hold though the click is still under way
    page.wait_for_selector(".mm-status:has-text('1 of 24 cases; 1 to 1'):visible")
    page.wait_for_selector(".mm-open-case:has-text('case-11')")
    page.wait_for_timeout(1000)
    assert rows(page) == ["Open case case-11"]


def test_pictures_come_on_demand_into_places_kept_for_them(visit):
    page = visit()
    page.get_by_label("Show pictures").check()
    page.wait_for_selector(".mm-thumb div")
    before = page.locator(".mm-cases tbody tr").nth(3).bounding_box()
    page.wait_for_selector(".mm-thumb img")
    assert page.locator(".mm-thumb img").count() == 20
    assert page.locator(".mm-cases tbody tr").nth(3).bounding_box() == before


def test_a_case_opens_by_keyboard_and_the_way_back_ends_where_it_began(visit):
    page = visit()
    page.get_by_role("button", name="Open case case-7").press("Enter")
    page.wait_for_selector(".mm-viewer[data-empty=false]")
    page.wait_for_function(
        "document.querySelectorAll('.mm-case h4').length === 2"
    )  # the run's captions, and the new ones
    panel = page.locator(".mm-case")
    assert "case-7" in panel.inner_text() and TRUE in panel.inner_text() and panel.locator("mark.mm-no").count() >= 1
    assert page.locator(".mm-v-canvas").get_attribute("aria-label").startswith("CT")
    page.get_by_role("button", name="Back to the cases").press("Enter")
    page.wait_for_function("document.activeElement.textContent.includes('case-7')")
    page.get_by_role("tab", name="Scan").click()
    page.locator("#mm-examples button").first.click()
    page.wait_for_function("document.querySelector('.mm-case') === null")


def test_a_visitor_brings_captions_but_no_pictures(visit, tmp_path):
    page = visit()
    bad, good = tmp_path / "bad.jsonl", tmp_path / "good.jsonl"
    bad.write_text("{}\n")
    row = {"id": "mine", "source": "made", "image": "../secret", "references": [TRUE], "captions": {"New": LEFT}}
    good.write_text(json.dumps(row) + "\n")
    send(page, bad)
    page.wait_for_selector(".mm-status.mm-error:has-text('Line 1')")
    assert len(rows(page)) == 20
    send(page, good)
    wait_for_rows(page, 1)
    page.get_by_role("button", name="Open case mine").click()
    page.wait_for_selector(".mm-status.mm-error:has-text('not on this server')")


def test_a_figure_is_drawn_and_kept(visit):
    page = visit()
    page.get_by_role("tab", name="Figure 4").click()
    page.wait_for_selector("text=the run chosen in the tab Cases")
    page.get_by_role("button", name="Draw the figure").press("Enter")
    page.wait_for_selector("#mm-figure img")
    assert "case-7" in page.locator("#mm-figure pre").text_content()
    for name, start in (("PNG", b"\x89PNG"), ("PDF", b"%PDF"), ("words", b"# Figure 4")):
        with page.expect_download() as kept:
            page.get_by_role("button", name=f"Download {name}").click()
        assert kept.value.path().read_bytes().startswith(start)


@pytest.mark.parametrize("width", [420, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_hangs_over_the_edge(visit, width, scheme):
    page = visit(width, color_scheme=scheme)
    page.get_by_label("Show pictures").check()
    page.wait_for_selector(".mm-thumb img")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("tab", name="Figure 4").click()
    page.wait_for_selector("text=the run chosen in the tab Cases")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    unnamed = "[...document.querySelectorAll('button, input, textarea')].filter(e => e.checkVisibility() && e.type !== 'file')"
    names = "e => !(e.labels?.length || e.ariaLabel || e.textContent.trim() || e.title || e.getAttribute('aria-labelledby'))"
    assert page.evaluate(f"{unnamed}.filter({names}).map(e => e.outerHTML)") == []
