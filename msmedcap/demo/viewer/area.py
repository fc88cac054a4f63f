"""The picture area: one component for the scan, its maps, prompts and outlines, with the tools of reading.

Comes in: a :func:`~msmedcap.demo.viewer.state.viewer_message`. Goes out: a ``gr.HTML`` that draws it on a canvas, and events with
places in the picture's pixels. Windowing, zoom, map colours and rulers happen in the browser, at once (``static/viewer*.js``):
canvas and lines of our own, no build step, nothing fetched. Maintained viewers were looked at first. OpenSeadragon shows tiles and
has no values to window; cornerstone3D windows values, but brings a WebGL engine and a bundler for single pictures, and neither
draws prompts, outlines, a map with a threshold and a before/after slider under one keyboard.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import gradio as gr

from msmedcap.demo.frontend import static_text
from msmedcap.demo.viewer.encoding import COLOUR_MAPS, fading, lookup

# In the order they need each other.
SCRIPT_PARTS = ("geometry", "pixels", "overlay", "prompts", "tools", "toolbar", "keys")


def viewer_component(**settings: Any) -> gr.HTML:
    """The picture area. Its value is a :func:`msmedcap.demo.viewer.state.viewer_message`, or None while nothing is open.

    Events and their data: ``prompt`` {points [[x, y, label]], box [x0, y0, x1, y1] or None}, ``place`` {x, y}, ``window``
    {width, level, name}, ``frame`` {index}, ``again`` {}; ``full`` {view} wants a state with ``full=True``, ``missing``
    {view} one after ``Sent.forget()``. Places are in the picture's pixels. ``settings`` go to ``gr.HTML``.
    """
    template, style, script = _static()
    return gr.HTML(
        settings.pop("value", None),
        html_template=template,
        css_template=style,
        js_on_load=script,
        apply_default_css=False,
        **{"elem_id": "mm-viewer", **settings},
    )


@functools.cache
def _static() -> tuple[str, str, str]:
    """The picture area's HTML, style and script; gradio runs the script as the body of one function."""
    colours = {name: lookup(name).tobytes().hex() for name in COLOUR_MAPS}
    fades = {name: fading(name).tobytes().hex() for name in COLOUR_MAPS}
    parts = [f"viewer_{name}.js" for name in SCRIPT_PARTS]
    script = f"const COLOURS = {json.dumps(colours)}, FADING = {json.dumps(fades)};\n"
    script += static_text(*parts, "viewer.js", "viewer_more.js")
    return static_text("viewer.html"), static_text("viewer.css"), script
