"""The page as a reader meets it: click into a lung and read its name, correct it, take the masks home. Runs in Chromium."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from chromium import drop, wait_for_captions
from PIL import Image

from msmedcap.data.phantoms import make_phantom
from msmedcap.data.phantoms.examples import save_dicom

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "demo"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHECKPOINT / "segmenter" / "config.json").is_file(), reason="needs the shipped models with their segmenter"
    ),
]
REAL = Path(__file__).parents[3] / "shared" / "data" / "cxr_seg"
LUNGS = ("Left Lung", "Right Lung")


@pytest.fixture(scope="module")
def predictor():
    import msmedcap

    return msmedcap.load("demo", device="cpu")


@pytest.fixture(scope="module")
def served(serve, predictor):
    with serve(predictor) as page:
        yield page


@pytest.fixture
def visit(come, served):
    page = come(served.url, size=(1280, 1000), accept_downloads=True)
    page.wait_for_selector("#mm-captions .mm-card")
    return page


def middle(mask: np.ndarray) -> tuple[int, int]:
    """The pixel (x, y) of a mask that is nearest to its middle."""
    rows, columns = np.nonzero(mask)
    nearest = np.argmin((rows - np.median(rows)) ** 2 + (columns - np.median(columns)) ** 2)
    return int(columns[nearest]), int(rows[nearest])


def show(page, scan: Path) -> None:
    drop(page, scan)
    wait_for_captions(page)
    page.get_by_role("tab", name="Structures").click()
    page.wait_for_selector("#mm-segments")


def click_at(page, x: float, y: float, size: tuple[int, int]) -> None:
    """Click the pixel (x, y) of a picture of ``size`` (height, width) that is shown whole in the middle of its area."""
    page.click("#mm-viewer button[data-name=fit]")
    page.click("#mm-viewer button[data-name=on]")
    box, (height, width) = page.locator("#mm-viewer .mm-v-stage").bounding_box(), size
    scale = min(box["width"] / width, box["height"] / height)
    left, top = box["x"] + (box["width"] - scale * width) / 2, box["y"] + (box["height"] - scale * height) / 2
    page.mouse.click(left + scale * (x + 0.5), top + scale * (y + 0.5))


def legend(page) -> list[list[str]]:
    rows = page.locator(".mm-legend tbody tr")
    return [rows.nth(i).locator("th, td").all_inner_texts() for i in range(rows.count())]


def points(page) -> list[str]:
    return page.locator(".mm-chips button[data-point]").all_inner_texts()


def numbers(chip: str) -> tuple[float, float]:
    x, y = chip.lstrip("+−\n ").rstrip("×\n ").split(",")
    return float(x), float(y)


def test_a_lung_is_clicked_and_its_name_is_read(visit, predictor, tmp_path: Path) -> None:
    film = make_phantom(5, modality="X-ray", size=512)
    save_dicom(film, tmp_path / "film")
    show(visit, tmp_path / "film")
    for name in LUNGS:
        x, y = middle(film.masks[name])
        click_at(visit, x, y, film.values.shape)
        visit.wait_for_selector(".mm-legend tbody tr[aria-current]")
        at = numbers(points(visit)[0])
        assert abs(at[0] - x - 0.5) < 3 and abs(at[1] - y - 0.5) < 3  # a screen's pixel is not the scan's
        answer = predictor.fresh().set_scan(tmp_path / "film").segment([at])
        row = legend(visit)[-1]
        assert answer.label in row[0] and row[1] == f"{answer.score:.0%}" and name in row[0]
        assert f"{answer.area_px:,} pixels" in row[3] and "mm²" in row[3]
        assert 2 * (answer.binary & film.masks[name]).sum() > 0.7 * (answer.area_px + film.masks[name].sum())
        shown = visit.locator("path.mm-v-outline").last.get_attribute("data-name")
        assert shown == row[0].splitlines()[0]
        visit.click("#mm-segment-keep")
        visit.wait_for_selector(".mm-legend tbody tr[aria-current]", state="detached")
    assert visit.locator("path.mm-v-outline").count() == 4
    assert "at the detector" in visit.locator("#mm-segments").inner_text()
    with visit.expect_download() as kept:
        visit.click("#mm-segment-save")
    with zipfile.ZipFile(kept.value.path()) as pack:
        index = np.asarray(Image.open(io.BytesIO(pack.read("index.png"))))
        rows = json.loads(pack.read("segment.json"))["segments"]
    for number, name in enumerate(LUNGS, 1):
        x, y = middle(film.masks[name])
        assert index[y, x] == number and rows[number - 1]["label"] == name


def test_another_window_begins_anew(visit, tmp_path: Path) -> None:
    film = make_phantom(5, modality="X-ray", size=512)
    save_dicom(film, tmp_path / "film")
    show(visit, tmp_path / "film")
    click_at(visit, *middle(film.masks["Left Lung"]), film.values.shape)
    visit.wait_for_selector(".mm-legend tbody tr")
    visit.locator("#mm-width input").fill("9000")
    visit.locator("#mm-width input").press("Enter")
    visit.wait_for_selector(".mm-cards.mm-stale")
    visit.wait_for_function("!document.querySelector('path.mm-v-outline, .mm-legend')")
    click_at(visit, *middle(film.masks["Left Lung"]), film.values.shape)  # nothing of this view is encoded yet
    visit.wait_for_selector("path.mm-v-outline")


@pytest.mark.skipif(not (REAL / "masks.csv").is_file(), reason="needs the chest pictures in ../shared/data/cxr_seg")
def test_lungs_of_real_films_have_the_models_names(visit, predictor) -> None:
    from msmedcap.data.classes import load_classes
    from msmedcap.data.segments import read

    right = asked = 0
    for row in read("cxr_seg", str(REAL), load_classes(), split="val")[:2]:
        show(visit, row.image)
        for segment in row.segments:
            if segment.name not in LUNGS:
                continue
            mask = np.asarray(Image.open(segment.mask)) > 0
            if mask.ndim == 3:
                mask = mask.any(-1)
            click_at(visit, *middle(mask), mask.shape)
            visit.wait_for_selector(".mm-legend tbody tr[aria-current]")
            answer = predictor.fresh().set_scan(row.image).segment([numbers(points(visit)[0])])
            assert answer.label in legend(visit)[-1][0]
            asked, right = asked + 1, right + (answer.label == segment.name)
            visit.click("#mm-segment-clear")
            visit.wait_for_selector(".mm-legend", state="detached")
    assert asked >= 2 and right >= asked / 2
