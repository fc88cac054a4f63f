"""The tray as a reader meets it: several files, one of them bad; open, caption all, cancel, take home, load again. In Chromium."""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
import zipfile
from pathlib import Path

import pytest
from chromium import wait_for_captions
from fake import FakePredictor
from pydicom import dcmread
from pydicom.data import get_testdata_file

pytestmark = pytest.mark.slow
SECRET = "ZZSECRETZZ"


@pytest.fixture(scope="module")
def served(serve, tmp_path_factory):
    with serve(FakePredictor(slow=0.15), examples=tmp_path_factory.mktemp("none")) as page:
        yield page


@pytest.fixture
def visit(come, served):
    """A function that opens the page as a new visitor."""

    def visit(width: int = 1280, **settings):
        page = come(served.url, size=(width, 900), **settings)
        page.wait_for_function("sessionStorage.getItem('msmedcap-visitor')")
        page.wait_for_selector("#mm-tray .mm-none")
        return page

    return visit


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """A CT, a file that is no scan, and an MR; both scans name their patient."""
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / name for name in (f"{SECRET}-1.dcm", "letter.dcm", f"{SECRET}-2.dcm")]
    for path, name in ((paths[0], "CT_small.dcm"), (paths[2], "MR_small.dcm")):
        dataset = dcmread(get_testdata_file(name))
        dataset.PatientName = dataset.PatientID = SECRET
        dataset.save_as(path)
    paths[1].write_bytes(b"%PDF-1.7 dear doctor")
    return paths


def send(page, files: list[Path]) -> None:
    page.set_input_files("#mm-file input[type=file]", files)
    page.wait_for_selector("#mm-tray li")


def states(page) -> dict[str, str]:
    return {
        item.get_attribute("data-id"): item.get_attribute("data-state") for item in page.locator("#mm-tray li").all()
    }


def wait_for_state(page, scan: str, state: str) -> None:
    page.wait_for_selector(f"#mm-tray li[data-id={scan}][data-state={state}]")


def shown(page) -> str | None:
    return page.locator('#mm-tray li[aria-selected="true"]').get_attribute("data-id")


def rows(page) -> list[list[str]]:
    return [row.locator("th, td").all_inner_texts() for row in page.locator("#mm-tray-results tbody tr").all()]


def wait_for_rows(page, count: int) -> None:
    page.wait_for_function("n => document.querySelectorAll('#mm-tray-results tbody tr').length === n", arg=count)


def download(page, kind: str) -> bytes:
    with page.expect_download() as kept:
        page.click(f"#mm-tray-{kind}")
    assert kept.value.suggested_filename == f"msmedcap-captions.{kind}"
    return kept.value.path().read_bytes()


def test_several_files_are_sent_captioned_taken_home_and_there_after_a_reload(visit, served, files):
    page = visit()
    send(page, files)
    assert list(states(page)) == ["scan-01", "scan-02", "scan-03"] and shown(page) == "scan-01"
    assert states(page)["scan-02"] == "failed" and "PDF" in page.locator("#mm-tray li").nth(1).inner_text()
    wait_for_state(page, "scan-01", "captioned")

    page.locator("#mm-tray li").nth(2).click()
    page.wait_for_selector('#mm-tray li[data-id=scan-03][aria-selected="true"]')
    page.locator("#mm-tray li").first.click()
    page.wait_for_selector('#mm-tray li[data-id=scan-01][aria-selected="true"]')
    first = page.locator("#mm-captions .mm-caption").all_inner_texts()
    assert len(first) == 3 and all(
        "MSMedCap" in t or "BLIP2" in t for t in first
    )  # the captions came back with the scan

    page.get_by_role("button", name="Caption all").click()
    wait_for_rows(page, 2)
    page.wait_for_selector("#mm-tray-all:visible")
    table = rows(page)
    assert [row[0] for row in table] == ["scan-01", "scan-03"] and table[0][2:] == first
    assert len({*table[0][2:], *table[1][2:]}) == 6

    data = download(page, "zip")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(contents["manifest.json"])
    for name, entry in manifest["files"].items():
        assert hashlib.sha256(contents[name]).hexdigest() == entry["sha256"]
    assert {s["scan"]: s["views"][0]["captions"]["BLIP2"] for s in manifest["scans"]} == {r[0]: r[3] for r in table}
    assert not any(SECRET.encode() in part for part in (data, *contents.values()))
    assert json.loads(download(page, "json"))["scans"][1]["scan"] == "scan-03"
    assert download(page, "csv").decode("utf-8-sig").count("\r\n") == 3

    page.reload()
    wait_for_rows(page, 2)
    assert rows(page) == table and shown(page) == "scan-01" and states(page)["scan-03"] == "captioned"
    page.wait_for_selector(".mm-written:has-text('Written for')")
    assert page.locator("#mm-captions .mm-caption").all_inner_texts() == first
    page.wait_for_selector("#mm-maps button")
    assert page.get_by_role("button", name="Caption all").is_visible()
    assert SECRET not in page.content() and served.kept() == []

    stranger = visit()
    assert stranger.locator("#mm-tray li").count() == 0
    token = page.evaluate("sessionStorage.getItem('msmedcap-visitor')")
    other = stranger.evaluate("sessionStorage.getItem('msmedcap-visitor')")
    assert token != other and token not in page.url and token not in page.content()


def test_captioning_is_cancelled_and_goes_on_after_a_reload(visit, files, monkeypatch):
    gate, made = threading.Event(), FakePredictor.stream

    def held(*args, **options):
        gate.wait(120)
        return made(*args, **options)

    page = visit()
    names = ["CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "examples_rgb_color.dcm", "examples_palette.dcm"]
    send(page, [Path(get_testdata_file(name)) for name in names])
    wait_for_state(page, "scan-01", "captioned")
    monkeypatch.setattr(FakePredictor, "stream", held)
    page.get_by_role("button", name="Caption all").click()
    try:
        page.wait_for_selector("#mm-tray-progress :text('Captioning 1 of 4')")
        page.get_by_role("button", name="Cancel").click()
        page.wait_for_selector(".mm-status:has-text('Stopped')")
        before = states(page)
    finally:
        gate.set()
    assert list(before.values()).count("waiting") == 4
    page.wait_for_timeout(3000)  # longer than a scan takes
    assert states(page) == before and page.locator("#mm-tray-progress progress").count() == 0

    page.get_by_role("button", name="Caption all").click()
    page.wait_for_selector("#mm-tray-progress progress")
    page.reload()
    page.wait_for_selector("#mm-tray li")
    wait_for_rows(page, 5)
    page.wait_for_selector("#mm-tray-all:visible")
    assert set(states(page).values()) == {"captioned"}


def test_the_list_works_by_keyboard(visit, files):
    page = visit()
    send(page, files)
    wait_for_state(page, "scan-01", "captioned")
    listbox = page.get_by_role("listbox", name="Scans of this session")
    listbox.focus()
    active = "document.activeElement.getAttribute('aria-activedescendant')"
    assert page.evaluate(active) == "mm-scan-01"
    page.keyboard.press("End")
    assert page.evaluate(active) == "mm-scan-03"
    page.keyboard.press("Enter")
    page.wait_for_selector('#mm-tray li[data-id=scan-03][aria-selected="true"]')
    wait_for_state(page, "scan-03", "captioned")
    page.wait_for_function(f"{active} === 'mm-scan-03'")  # redrawn meanwhile, the focus stayed
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Delete")
    page.wait_for_function("document.querySelectorAll('#mm-tray li').length === 2")
    page.wait_for_function(f"{active} === 'mm-scan-03'")
    page.keyboard.press("Delete")
    page.keyboard.press("Home")
    page.wait_for_function("document.querySelectorAll('#mm-tray li').length === 1")
    assert shown_none(page)


def shown_none(page) -> bool:
    return page.locator('#mm-tray li[aria-selected="true"]').count() == 0


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_hangs_over_the_edge(visit, files, width, scheme):
    page = visit(width, color_scheme=scheme)
    send(page, files)
    wait_for_rows(page, 1)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/tray-{width}-{scheme}.png", full_page=True)


@pytest.mark.parametrize("work", ["maps", "stream"])
def test_a_refusal_stays_whatever_older_work_ends_and_takes_nothing_from_the_open_scan(
    visit, ct_file, tmp_path, monkeypatch, work
):
    gate, made = threading.Event(), getattr(FakePredictor, work)

    def held(*args, **options):
        gate.wait(60)
        return made(*args, **options)

    monkeypatch.setattr(FakePredictor, work, held)
    letter = tmp_path / "letter.dcm"
    letter.write_bytes(b"%PDF-1.7 dear doctor")
    page = visit()
    try:
        send(page, [ct_file])
        doing = "Drawing the maps" if work == "maps" else "Writing the captions"
        page.wait_for_function("doing => document.querySelector('.mm-status').textContent.includes(doing)", arg=doing)
        page.set_input_files("#mm-file input[type=file]", letter)
        page.wait_for_selector(".mm-status.mm-error")
    finally:
        gate.set()
    assert len(wait_for_captions(page)) == 3
    page.wait_for_selector("#mm-maps button")
    wait_for_state(page, "scan-01", "captioned")
    page.wait_for_timeout(500)  # long enough for what else had to be said
    assert "PDF" in page.locator(".mm-status.mm-error").inner_text()

    page.locator("#mm-maps button").last.click()
    page.get_by_label("Attention of").click()
    page.get_by_role("option", name="SAM-BLIP2").click()
    page.wait_for_function("document.querySelector('.mm-status').textContent.includes('maps of SAM-BLIP2')")
