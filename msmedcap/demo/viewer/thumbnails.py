"""Small pictures to choose by: the maps of a scan, and the examples. Comes in: arrays. Goes out: HTML buttons with PNGs inside."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from msmedcap.data.sizes import within
from msmedcap.demo.viewer.encoding import THUMB_SIDE, fading, lookup, picture_uri
from msmedcap.explain.spelling import bare

if TYPE_CHECKING:
    from msmedcap.explain.maps import Map

ALONE = -1
"""The number of the button that shows the scan without a map."""
# One of a list of buttons; the event carries its number.
PICK_ITEM = """
// One object for every event: gradio's always_last runs a deferred event with the data of the one before.
const told = {};
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-index]');
  if (button) trigger('pick', Object.assign(told, {index: Number(button.dataset.index)}));
});
"""
_GROUPS = {
    "sam_similarity": "SAM features",
    "sam_norm": "SAM features",
    "sam_pca": "SAM features",
    "attention": "Q-Former",
    "word": "Word",
}
_SIDE, _COLOURS, _OPACITY = 176, "inferno", 0.6


def map_list(maps: Sequence[Map], shown: int, picture: np.ndarray) -> str:
    """The scan alone and every map over it as buttons, grouped by what a map comes from; ``shown`` is the pressed one.

    ``picture [H,W,3] uint8`` is what the maps are of. Empty text for no maps.
    """
    if not maps:
        return ""
    small = _small(picture)
    groups = {"Scan": [_button(ALONE, shown, "No map over the scan", "Scan alone", small)]}
    for index, item in enumerate(maps):
        group = _GROUPS.get(item.kind, "Maps")
        if item.branch and not item.kind.startswith("sam_"):
            group += f", {item.branch.upper()} branch"
        over = _over(item, small)
        groups.setdefault(group, []).append(_button(index, shown, item.title, _short(item), over))
    return "".join(
        f'<div class="mm-group" role="group" aria-label="{escape(name)}"><h3>{escape(name)}</h3>'
        f'<div class="mm-thumbs">{"".join(buttons)}</div></div>'
        for name, buttons in groups.items()
    )


def example_list(examples: Sequence[tuple[str, np.ndarray]]) -> str:
    """Example scans as buttons: (title, picture ``[H,W,3] uint8``)."""
    buttons = "".join(
        f'<button type="button" data-index="{index}" title="{escape(title)}">'
        f'<img alt="" src="{picture_uri(picture, THUMB_SIDE)}">'
        f"<span>{escape(title)}</span></button>"
        for index, (title, picture) in enumerate(examples)
    )
    return f'<div class="mm-thumbs mm-examples" role="group" aria-label="Examples">{buttons}</div>' if buttons else ""


def _button(index: int, shown: int, title: str, words: str, pixels: np.ndarray) -> str:
    return (
        f'<button type="button" data-index="{index}" aria-pressed="{str(index == shown).lower()}" title="{escape(title)}">'
        f'<img alt="" src="{picture_uri(pixels, _SIDE)}"><span>{escape(words)}</span></button>'
    )


def _small(picture: np.ndarray) -> np.ndarray:
    """``picture`` with no more than twice a button's pixels a side."""
    height, width = within(picture.shape, 2 * _SIDE)
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))


def _over(item: Map, small: np.ndarray) -> np.ndarray:
    """The map in its colours over the small picture."""
    image = item.image(2 * _SIDE)
    colours = image if image.ndim == 3 else (fading if item.fades else lookup)(_COLOURS)[image]
    opacity = _OPACITY * (colours[..., 3:] / np.float32(255) if colours.shape[-1] == 4 else 1)
    mixed = opacity * colours[..., :3].astype(np.float32) + (1 - opacity) * small
    return mixed.round().astype(np.uint8)


def _short(item: Map) -> str:
    if item.kind == "attention":
        return f"Layer {item.layer}"
    return {
        "sam_norm": "Strength",
        "sam_pca": "PCA colours",
        "sam_similarity": "Like the place",
        "word": f"“{bare(item.word or '')}”",
    }.get(item.kind, item.kind)
