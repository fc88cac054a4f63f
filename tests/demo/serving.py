"""A part of the page served alone on a free port, dressed as the whole page is."""

from __future__ import annotations

import socket

import gradio as gr

from msmedcap.demo.frontend import STYLES
from msmedcap.demo.theme import theme


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def serve_blocks(blocks: gr.Blocks, *, port: int | None = None) -> str:
    """Serves ``blocks`` with the page's styles; returns the address."""
    _, url, _ = blocks.launch(
        server_name="127.0.0.1",
        server_port=port or free_port(),
        theme=theme(),
        css_paths=list(STYLES),
        run_history=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
    )
    return url
