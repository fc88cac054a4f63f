"""The page's colours and fonts for gradio's own components; ``style.css`` holds the same colours for ours.

Fonts are the system's: nothing is fetched from elsewhere. Text on its ground reaches WCAG AA in light and dark.
"""

from __future__ import annotations

import gradio as gr

_LIGHT = {
    "button_primary_background_fill": "#0b6472",
    "button_primary_background_fill_hover": "#084e59",
    "button_primary_text_color": "#ffffff",
    "slider_color": "#0b6472",
    "block_label_text_color": "#536070",
    "block_title_text_color": "#536070",
    "body_text_color_subdued": "#536070",
    "block_background_fill": "#ffffff",
    "block_border_color": "#d5dce4",
    "block_border_width": "0px",
    "input_background_fill": "#ffffff",
    "input_border_color": "#8c9aa9",
    "input_border_width": "1px",
    "input_placeholder_color": "#536070",
    "checkbox_background_color_selected": "#0b6472",
}
_DARK = {
    "button_primary_background_fill": "#66c5d4",
    "button_primary_background_fill_hover": "#8ad5e1",
    "button_primary_text_color": "#0d1217",
    "slider_color": "#66c5d4",
    "block_label_text_color": "#a2b0be",
    "block_title_text_color": "#a2b0be",
    "body_text_color_subdued": "#a2b0be",
    "block_background_fill": "#151c23",
    "block_border_color": "#2b3743",
    "block_border_width": "0px",
    "input_background_fill": "#0d1217",
    "input_border_color": "#5b6a79",
    "input_placeholder_color": "#a2b0be",
    "checkbox_background_color_selected": "#2f97a8",
}


def theme() -> gr.themes.Base:
    """Gradio's plain theme in the page's colours."""
    plain = gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_sm,
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    )
    return plain.set(**_LIGHT, **{f"{name}_dark": value for name, value in _DARK.items()})
