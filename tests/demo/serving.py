"""A part of the page served alone on a free port, dressed as the whole page is."""

from __future__ import annotations

import socket
from pathlib import Path

import gradio as gr

from msmedcap.demo import cards
from msmedcap.demo.theme import theme

DEMO = Path(cards.__file__).parent


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def serve_blocks(blocks: gr.Blocks, *styles: str, port: int | None = None) -> str:
    """Serves ``blocks`` with the page's style and the files ``styles`` of its package; returns the address."""
    _, url, _ = blocks.launch(
        server_name="127.0.0.1",
        server_port=port or free_port(),
        theme=theme(),
        css_paths=[DEMO / name for name in ("style.css", *styles)],
        run_history=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
    )
    return url
