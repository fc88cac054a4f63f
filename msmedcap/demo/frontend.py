"""What the page gives the browser beside gradio's own: scripts, styles and templates, the files of ``static/``."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).with_name("static")
# In the order they are applied. The picture area's own style is scoped to it by gradio.
STYLES = tuple(
    _FOLDER / f"{name}.css" for name in ("style", "explorer", "segment", "words", "tray", "review")
)


def static_text(*names: str) -> str:
    """The files ``names``, one after the other."""
    return "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in names)
