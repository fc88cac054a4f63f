"""Arrays to pictures on the page: the scan, a map over it, the map list, the colour bar. Goes out: HTML with PNGs inside.

Pictures travel inside the page (``data:`` addresses), never as files: a file in the server's cache could be fetched by every
visitor who learns its address. PNG keeps every grey value as it is. A place on the picture is sent back as two fractions
of its width and height, so the size on the screen does not matter.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from msmedcap.demo.encoding import COLOUR_MAPS, MAP_SIDE, SCAN_SIDE, THUMB_SIDE, lookup, picture_uri

if TYPE_CHECKING:
    from msmedcap.data.scans import Scan
    from msmedcap.explain.maps import Map

STATIC = Path(__file__).parent / "static"
SCRIPT_PARTS = (
    "geometry",
    "pixels",
    "overlay",
    "prompts",
    "tools",
    "toolbar",
    "keys",
)  # in the order they need each other
_GROUPS = {
    "sam_similarity": "SAM features",
    "sam_norm": "SAM features",
    "sam_pca": "SAM features",
    "attention": "Q-Former",
    "word": "Word",
}

# A click, or the arrow keys and Enter, choose a place on the picture; the event carries fractions of its width and height.
PICK_PLACE = """
const send = (frame, x, y) => trigger('point', {x: Math.min(Math.max(x, 0), 1), y: Math.min(Math.max(y, 0), 1)});
element.addEventListener('click', (event) => {
  const frame = event.target.closest('.mm-frame');
  if (!frame) return;
  const box = frame.getBoundingClientRect();
  send(frame, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
});
const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
element.addEventListener('keydown', (event) => {
  const frame = event.target.closest('.mm-frame');
  if (!frame) return;
  const aim = frame.querySelector('.mm-aim');
  let x = parseFloat(aim.dataset.x ?? '0.5'), y = parseFloat(aim.dataset.y ?? '0.5');
  if (event.key in steps) {
    const size = event.shiftKey ? 0.1 : 0.02;
    x = Math.min(Math.max(x + size * steps[event.key][0], 0), 1);
    y = Math.min(Math.max(y + size * steps[event.key][1], 0), 1);
    aim.dataset.x = x; aim.dataset.y = y;
    aim.style.left = 100 * x + '%'; aim.style.top = 100 * y + '%'; aim.style.display = 'block';
  } else if (event.key === 'Enter' || event.key === ' ') send(frame, x, y);
  else return;
  event.preventDefault();
});
"""
# One of a list of buttons; the event carries its number.
PICK_ITEM = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-index]');
  if (button) trigger('pick', {index: Number(button.dataset.index)});
});
"""
SET_OPACITY = "(percent) => { document.documentElement.style.setProperty('--mm-opacity', percent / 100); }"


def viewer_component(**settings: Any) -> gr.HTML:
    """The picture area: canvas and lines of our own, no build step, nothing fetched.

       Maintained viewers were looked at first. OpenSeadragon shows tiles and has no values to window; cornerstone3D windows
       values, but brings a WebGL engine and a bundler for single pictures, and neither draws prompts, outlines, a map with a
       threshold and a before/after slider under one keyboard.
    Its value is a :func:`msmedcap.demo.viewer_state.viewer_state`, or None while nothing is open.

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
    parts = [(STATIC / f"viewer_{name}.js").read_text(encoding="utf-8") for name in SCRIPT_PARTS]
    main = [(STATIC / name).read_text(encoding="utf-8") for name in ("viewer.js", "viewer_more.js")]
    script = "\n".join([f"const COLOURS = {json.dumps(colours)};", *parts, *main])
    style = Path(__file__).with_name("viewer.css").read_text(encoding="utf-8")
    return (STATIC / "viewer.html").read_text(encoding="utf-8"), style, script


def coloured(item: Map, colours: str) -> np.ndarray:
    """A map as ``[H,W,3] uint8``: its grey values looked up in ``colours``; a map that has colours of its own stays as it is."""
    image = item.image()
    return image if image.ndim == 3 else lookup(colours)[image]


def scan_figure(scan: Scan, picture: np.ndarray, *, view: str, point: tuple[float, float] | None = None) -> str:
    """The scan as displayed. ``picture [H,W,3] uint8``; ``point`` (x, y) in its pixels is marked with a cross."""
    facts = escape(" · ".join(_facts(scan)))
    return (
        f'<figure class="mm-figure"><div class="mm-stage">{_frame(scan, picture, f"The scan, {view}", "", point)}</div>'
        f'<figcaption><strong>Scan</strong> <span class="mm-facts">{facts}</span>'
        f'<span class="mm-view">{escape(view)}</span></figcaption></figure>'
    )


def map_figure(
    scan: Scan,
    picture: np.ndarray,
    item: Map | None,
    *,
    colours: str,
    point: tuple[float, float] | None = None,
    note: str = "",
) -> str:
    """One map over the scan with its colour bar, or ``note`` where there is none yet; same frame as :func:`scan_figure`."""
    if item is None:
        return (
            f'<figure class="mm-figure"><div class="mm-stage">{_frame(scan, picture, "The scan, dimmed", "mm-dim", None)}'
            f'<p class="mm-note">{escape(note)}</p></div><figcaption><strong>Map</strong></figcaption></figure>'
        )
    over = picture_uri(coloured(item, colours), MAP_SIDE)
    alt = f"{item.title}, drawn over the scan"
    return (
        f'<figure class="mm-figure"><div class="mm-stage">{_frame(scan, picture, alt, "", point, over=over)}</div>'
        f"<figcaption><strong>{escape(item.title)}</strong>{_colour_bar(item, colours)}</figcaption></figure>"
    )


def map_list(maps: Sequence[Map], shown: int, *, colours: str) -> str:
    """Every map as a small button, grouped by what it comes from; ``shown`` is the pressed one. Empty text for no maps."""
    groups: dict[str, list[str]] = {}
    for index, item in enumerate(maps):
        group = _GROUPS.get(item.kind, "Maps")
        if item.branch and not item.kind.startswith("sam_"):
            group += f", {item.branch.upper()} branch"
        groups.setdefault(group, []).append(
            f'<button type="button" data-index="{index}" aria-pressed="{str(index == shown).lower()}" title="{escape(item.title)}">'
            f'<img alt="" src="{picture_uri(coloured(item, colours), THUMB_SIDE)}"><span>{escape(_short(item))}</span></button>'
        )
    return "".join(
        f'<div class="mm-group" role="group" aria-label="{escape(name)}"><h3>{escape(name)}</h3>'
        f'<div class="mm-thumbs">{"".join(buttons)}</div></div>'
        for name, buttons in groups.items()
    )


def example_list(examples: Sequence[tuple[str, np.ndarray]]) -> str:
    """Example scans as buttons: (title, picture ``[H,W,3] uint8``)."""
    buttons = "".join(
        f'<button type="button" data-index="{index}"><img alt="" src="{picture_uri(picture, THUMB_SIDE)}">'
        f"<span>{escape(title)}</span></button>"
        for index, (title, picture) in enumerate(examples)
    )
    return f'<div class="mm-thumbs mm-examples" role="group" aria-label="Examples">{buttons}</div>' if buttons else ""


def _frame(
    scan: Scan, picture: np.ndarray, alt: str, kind: str, point: tuple[float, float] | None, *, over: str = ""
) -> str:
    height, width = picture.shape[:2]
    row, column = scan.spacing or (1.0, 1.0)  # pixels are not always square
    ratio = (width * column) / (height * row)
    images = f'<img class="mm-base" alt="{escape(alt)}" src="{picture_uri(picture, SCAN_SIDE)}" draggable="false">'
    if over:
        images += f'<img class="mm-over" alt="" src="{over}" draggable="false">'
    if point is not None:
        place = f"left:{100 * point[0] / width:.2f}%;top:{100 * point[1] / height:.2f}%"
        images += f'<span class="mm-cross" style="{place}"></span>'
    label = "Choose a place to compare SAM features with: click, or arrow keys and Enter"
    return (
        f'<div class="mm-frame {kind}" style="--ratio:{ratio:.4f}" tabindex="0" role="group" aria-label="{label}">'
        f'{images}<span class="mm-aim"></span></div>'
    )


def _facts(scan: Scan) -> list[str]:
    words = [
        scan.facts[name]
        for name in ("Modality", "BodyPartExamined", "Laterality", "ViewPosition")
        if scan.facts.get(name)
    ]
    words = [scan.kind, *words, f"{scan.width} × {scan.height}"]
    if scan.spacing:
        words.append(f"{scan.spacing[0]:.2g} mm/pixel")
    return words


def _colour_bar(item: Map, colours: str) -> str:
    if item.image().ndim == 3:
        return '<span class="mm-bar-note">first three principal components as red, green, blue</span>'
    stops = ",".join(f"rgb({r} {g} {b})" for r, g, b in lookup(colours)[::15].tolist())
    low, high = (f"{value:.3g}" for value in item.range)
    return (
        f'<span class="mm-bar" role="img" aria-label="Colour scale from {low} to {high}"><span>{low}</span>'
        f'<i style="background:linear-gradient(90deg,{stops})"></i><span>{high}</span></span>'
    )


def _short(item: Map) -> str:
    if item.kind == "attention":
        return f"Layer {item.layer}"
    return {
        "sam_norm": "Strength",
        "sam_pca": "PCA colours",
        "sam_similarity": "Like the place",
        "word": item.word or "",
    }.get(item.kind, item.kind)
