"""A page that holds the review alone, served until it is killed: ``python review_server.py URL PORT`` prints its address."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gradio as gr

from msmedcap.demo.review.panel import ReviewPanel
from msmedcap.demo.theme import theme


def review_page(url: str) -> gr.Blocks:
    with gr.Blocks(title="Review", analytics_enabled=False, fill_width=True) as blocks, gr.Tabs(), gr.Tab("Review"):
        ReviewPanel(url)
    return blocks


def options(port: int) -> dict[str, Any]:
    demo = Path(__file__).parents[2] / "msmedcap" / "demo"
    return {
        "server_name": "127.0.0.1",
        "server_port": port,
        "prevent_thread_lock": True,
        "quiet": True,
        "run_history": False,
        "ssr_mode": False,
        "theme": theme(),
        "css_paths": [demo / "style.css", demo / "review.css"],
    }


if __name__ == "__main__":
    page = review_page(sys.argv[1])
    _, address, _ = page.launch(**options(int(sys.argv[2])))
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
    page.block_thread()
