"""From a click on the page to the outline of its structure, in Chromium: how long a reader waits for a mask.

    python -m benchmarks.click_latency            the shipped models; needs the packages for development and Chromium

A scan of each kind is opened, its captions are awaited, then places all over it are clicked, one after the other, each on an empty
prompt. The clock is the browser's: it starts with the pointer's event and stops when the outline is in the document.
``--writing`` clicks while captions are being written over and over, as by other visitors. Comes in: nothing. Goes out: a table
in milliseconds, with the processor time that server and browser took together (what is left of the wait on a machine that does
nothing else) and with the part of the models and of the outlines, measured apart in the same process.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

import msmedcap
from benchmarks import machine
from msmedcap.data.phantoms import make_phantom
from msmedcap.data.phantoms.examples import save_dicom
from msmedcap.data.scans import write_dicom
from msmedcap.demo.page import build_page
from msmedcap.demo.structures.segments import Segments
from msmedcap.predictor import Predictor

GOAL = 200  # milliseconds
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
WAIT = 120_000  # milliseconds
# Notes the time of the next press on the picture and of the next outline that differs from those there are.
WATCH = """() => {
  const stage = document.querySelector('.mm-v-stage');
  const lines = () => [...document.querySelectorAll('path.mm-v-outline')].map((line) => line.getAttribute('d')).join();
  window.taken = new Promise((done) => {
    let start = null;
    const before = lines();
    stage.addEventListener('pointerup', (event) => { start = performance.now(); }, {capture: true, once: true});
    const seen = new MutationObserver(() => {
      if (start === null || !lines() || lines() === before) return;
      seen.disconnect();
      done(performance.now() - start);
    });
    seen.observe(document.querySelector('#mm-viewer'), {subtree: true, childList: true, attributes: true});
  });
}"""


def write_scans(folder: Path) -> dict[str, Path]:
    """A CT slice of 512 x 512 pixels and a radiograph of 3000 rows by 2500 columns, both made."""
    save_dicom(make_phantom(3, modality="CT", part="chest", plane="axial", size=512), folder / "ct.dcm")
    film = make_phantom(3, modality="X-ray", size=512)
    values = np.asarray(Image.fromarray(film.values.astype(np.float32)).resize((2500, 3000), Image.Resampling.BICUBIC))
    write_dicom(
        folder / "dx.dcm", values.round().clip(0, None), modality="DX", body_part="CHEST", spacing=(0.14, 0.14),
        window=film.window, view_position="PA",
    )  # fmt: skip
    return {"CT, 512 x 512": folder / "ct.dcm", "X-ray, 2500 x 3000": folder / "dx.dcm"}


def places(count: int) -> list[tuple[float, float]]:
    """Places all over the middle of a picture, as fractions of its width and height; none twice."""
    golden = (5**0.5 - 1) / 2
    return [(0.25 + 0.5 * (i + 0.5) / count, 0.25 + 0.5 * (i * golden % 1)) for i in range(count)]


def processor_time() -> float:
    """Milliseconds that this process (the server) and its children (the browser) have run."""
    own = psutil.Process()
    total = 0.0
    for process in [own, *own.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            total += used.user + used.system
    return 1000 * total


def in_browser(page: Any, scan: Path, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds from each click to its outline, and those that processors worked meanwhile."""
    page.set_input_files("#mm-file input[type=file]", scan)
    page.wait_for_function("document.querySelector('.mm-written')?.textContent.startsWith('Written for')")
    page.click("#mm-viewer button[data-name=on]")
    times, worked = [], []
    for across, down in places(count):
        box = page.locator("#mm-viewer .mm-v-stage").bounding_box()
        # The picture lies in the middle of its square, so its middle half is where the stage's is.
        side = min(box["width"], box["height"])
        x = box["x"] + box["width"] / 2 + (across - 0.5) * side * 0.8
        y = box["y"] + box["height"] / 2 + (down - 0.5) * side * 0.8
        page.evaluate(WATCH)
        before = processor_time()
        page.mouse.click(x, y)
        times.append(float(page.evaluate("window.taken")))
        worked.append(processor_time() - before)
        page.click("#mm-viewer button[data-name=clear]")
        page.wait_for_function("!document.querySelector('path.mm-v-outline')")
    return times, worked


def in_python(predictor: Predictor, scan: Path, count: int) -> list[float]:
    """Milliseconds of models and outlines alone, for the same places."""
    predictor.set_scan(scan).prepare_segmenting()
    assert predictor.picture is not None
    height, width = predictor.picture.shape[:2]
    segments, times = Segments(predictor), []
    for across, down in places(count):
        segments.clear()
        start = time.perf_counter()
        segments.add(across * width, down * height)
        segments.outlines()
        times.append(1000 * (time.perf_counter() - start))
    return times


@contextlib.contextmanager
def captions_written(predictor: Predictor, scan: Path, wanted: bool) -> Iterator[None]:
    """Captions are written all the while, by a predictor of their own, where ``wanted``."""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            predictor.set_scan(scan).captions()

    thread = threading.Thread(target=write, daemon=True)
    if wanted:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if wanted:
            thread.join()


def row(what: str, times: Sequence[float], worked: Sequence[float], own: Sequence[float]) -> str:
    """One line of the table."""
    ordered = sorted(times)
    late = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return (
        f"| {what} | {statistics.median(times):.0f} | {late:.0f} | {ordered[-1]:.0f} | {statistics.median(worked):.0f} |"
        f" {statistics.median(own):.0f} |"
        f" {sum(t <= GOAL for t in times)} of {len(times)} |"
    )


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.click_latency", description="From a click to its outline."
    )
    parser.add_argument("--models", default="demo")
    parser.add_argument("--clicks", type=int, default=20)
    parser.add_argument("--writing", action="store_true", help="while captions are being written")
    parser.add_argument("--chromium", help="default: the first of chromium, chromium-browser, google-chrome")
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = args.chromium or os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    models = msmedcap.load(args.models, device="cpu")
    print(f"{datetime.date.today()} · {machine.described(torch.device('cpu'))}\n")
    print(
        f"| scan | median, ms | 95th percentile | longest | processor time | models and outlines | within {GOAL} ms |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        os.environ["GRADIO_TEMP_DIR"] = folder
        scans = write_scans(Path(folder))
        demo = build_page(models)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        url = demo.launch(host="127.0.0.1", port=port)
        browser = started.chromium.launch(executable_path=chromium, args=FLAGS)
        for what, scan in scans.items():
            page = browser.new_page(viewport={"width": 1440, "height": 1000})
            page.set_default_timeout(WAIT)
            page.goto(url)
            page.wait_for_selector("#mm-captions .mm-card")
            with captions_written(models.fresh(), scans["CT, 512 x 512"], args.writing):
                times, worked = in_browser(page, scan, args.clicks)
            print(row(what, times, worked, in_python(models.fresh(), scan, args.clicks)), flush=True)
            page.close()
        browser.close()
        demo.blocks.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
