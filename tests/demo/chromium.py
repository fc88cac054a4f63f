"""Chromium for the page's tests, and what a reader does on the page: drop a scan, wait, point, read colours."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
AREA = "document.querySelector('.mm-viewer').parentElement.mmViewer"  # the running picture area
DRAWN = """at => { const c = document.querySelector('.mm-v-canvas').getContext('2d');
    return at.map(([x, y]) => [...c.getImageData(x * devicePixelRatio, y * devicePixelRatio, 1, 1).data].slice(0, 3)); }"""
WRITTEN = """() => {
    const cards = [...document.querySelectorAll('#mm-captions .mm-caption')];
    const texts = cards.map(one => one.innerText.replace(/\\s+/g, ' ').trim());
    const written = document.querySelector('.mm-written')?.textContent.startsWith('Written for');
    return written && document.querySelector('#mm-captions [data-word]') ? texts : null; }"""


@contextmanager
def running_browser() -> Iterator[Any]:
    """A started Chromium; skips where the machine has none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs the playwright package")
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("the browser test needs Chromium (Debian: apt install chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def visitors(browser: Any) -> Iterator[Callable[..., Any]]:
    """A function that opens an address as a new visitor; at the end all leave, and it fails if the page's own code failed.

    ``watch`` is given the page before anything is loaded; other settings are the browser context's.
    """
    contexts: list[Any] = []
    faults: list[str] = []

    def come(
        url: str, *, size: tuple[int, int] = (1280, 900), watch: Callable[[Any], None] | None = None, **settings: Any
    ):
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda told: faults.append(told.text) if "picture area" in told.text else None)
        if watch is not None:
            watch(page)
        page.goto(url)
        return page

    yield come
    for context in contexts:
        context.close()
    assert faults == []


def drop(page, path: Path) -> None:
    """Hand the page a file."""
    page.set_input_files("#mm-file input[type=file]", path)


def wait_for_captions(page) -> list[str]:
    """The captions, once they are written and their words can be chosen; read in one go, for the cards may be drawn again."""
    return page.wait_for_function(WRITTEN).json_value()


def opened(page) -> str:
    """The picture area's view once something is drawn in it."""
    page.wait_for_selector(".mm-viewer[data-empty=false]")
    page.wait_for_function("document.querySelector('.mm-viewer').dataset.view")
    return page.locator(".mm-viewer").get_attribute("data-view")


def settle(page) -> None:
    """Until what was set is drawn."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def on_stage(page, x: float, y: float) -> tuple[float, float]:
    """Where the picture's pixel (x, y) lies in its area, as it is zoomed and moved now."""
    return tuple(page.evaluate(f"at => {AREA}.geometry.toStage(at)", [x, y]))


def colours(page, *places: tuple[float, float]) -> np.ndarray:
    """The colours ``[n,3]`` drawn at places (x, y) in the picture's pixels."""
    settle(page)
    return np.array(page.evaluate(DRAWN, [on_stage(page, *place) for place in places]))


def click_at(page, x: float, y: float) -> None:
    """Click the picture's pixel (x, y)."""
    dx, dy = on_stage(page, x, y)
    page.locator(".mm-v-stage").click(position={"x": dx, "y": dy})


def map_title(page) -> str:
    return page.locator(".mm-v-title").inner_text()


def wait_for_map(page, words: str) -> None:
    """Until the picture's map is called something with ``words`` in it."""
    page.wait_for_function("words => document.querySelector('.mm-v-title').textContent.includes(words)", arg=words)
