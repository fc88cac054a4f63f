"""A page that holds the review alone, served until it is killed: ``python review_server.py URL PORT`` prints its address."""

from __future__ import annotations

import sys

import gradio as gr
from serving import serve_blocks

from msmedcap.demo.review.panel import ReviewPanel
from msmedcap.demo.serving.logs import Journal


def review_page(url: str) -> gr.Blocks:
    with gr.Blocks(title="Review", analytics_enabled=False, fill_width=True) as blocks, gr.Tabs(), gr.Tab("Review"):
        ReviewPanel(url, Journal())
    return blocks


if __name__ == "__main__":
    page = review_page(sys.argv[1])
    sys.stdout.write(f"{serve_blocks(page, port=int(sys.argv[2]))}\n")
    sys.stdout.flush()
    page.block_thread()
