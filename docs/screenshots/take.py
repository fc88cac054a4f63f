"""Takes the README's screenshots: the page with an example open and a structure asked for, at three widths, in light and dark.

    .venv/bin/python docs/screenshots/take.py [--models demo] [--example 4]    # writes page-WIDTH-SCHEME.png beside itself

Needs the playwright package and Chromium. Serves the page itself, on a free port.
"""

from __future__ import annotations

import argparse
import shutil
import socket
from pathlib import Path

from playwright.sync_api import sync_playwright

from msmedcap import load
from msmedcap.demo.page import build_page

SIZES = {1440: 900, 1024: 900, 390: 844}
PLACE = 0.17  # how far left of the middle the place is asked about, as a share of the picture's height: a lung
WRITTEN = "document.querySelector('.mm-written')?.textContent.startsWith('Written for')"


def main() -> None:
    """Serve, photograph, stop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="demo")
    parser.add_argument("--example", type=int, default=4, help="which example, counted from 0")
    args = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    page = build_page(load(args.models))
    address = page.launch(host="127.0.0.1", port=port)
    try:
        photograph(address, args.example)
    finally:
        page.blocks.close()


def photograph(address: str, example: int) -> None:
    """Open the example and write one picture for every width and scheme."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for scheme in ("light", "dark"):
            for width, height in SIZES.items():
                tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                tab.goto(address)
                tab.locator("#mm-examples button").nth(example).click()
                tab.wait_for_function(WRITTEN, timeout=300_000)
                tab.wait_for_selector("#mm-captions [data-word]", timeout=300_000)
                tab.click(".mm-v-bar [data-name=on]")
                area = tab.locator(".mm-v-stage")
                box = area.bounding_box()
                area.click(position={"x": box["width"] / 2 - box["height"] * PLACE, "y": box["height"] * 0.45})
                tab.wait_for_selector(".mm-v-outline", timeout=300_000)
                tab.evaluate("window.scrollTo(0, 0)")
                tab.wait_for_timeout(1500)
                tab.screenshot(path=Path(__file__).with_name(f"page-{width}-{scheme}.png"), full_page=True)
                tab.close()
        browser.close()


if __name__ == "__main__":
    main()
