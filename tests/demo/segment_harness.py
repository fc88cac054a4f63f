"""A page of the panel of structures alone: a stand-in for the picture area that shows its value as text and sends prompts."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from typing import Any

import gradio as gr

from msmedcap.demo import cards
from msmedcap.demo.panels import Updates
from msmedcap.demo.serving.logs import Journal
from msmedcap.demo.serving.turns import Turns
from msmedcap.demo.structures.panel import SegmentPanel
from msmedcap.demo.structures.segments import Segments

PROMPT = """
window.prompt_ = (points, box) => trigger('prompt', {points: points, box: box});
"""


class Page:
    """Implements ``Seam`` for visitors whose scan is set already; ``visitors`` are their sessions by key.

    ``drawn`` says whether the view has its maps, so that its scan is encoded.
    """

    def __init__(self, models: Any, scan: Any, *, texts: dict[str, str] | None = None, drawn: bool = True) -> None:
        self._models, self._scan, self._texts, self._drawn = models, scan, texts or {}, drawn
        self.visitors: dict[str, Any] = {}
        self.turns, self.journal, self.everything = Turns(), Journal(), []
        with gr.Blocks(analytics_enabled=False) as self.blocks:
            self.viewer = gr.HTML(html_template="<pre id='shown'>${value}</pre>", js_on_load=PROMPT)
            self.status = gr.HTML(cards.status_line("Ready."), apply_default_css=False)
            self.panel = SegmentPanel(models)
            self.panel.wire(self)

    def session(self, request: gr.Request) -> Any:
        key = request.session_hash or ""
        if key not in self.visitors:
            self.visitors[key] = self._new()
        return self.visitors[key]

    def redraw(self, session: Any) -> Updates:
        segments = session.segments
        value = {"points": segments.points, "box": segments.box, "outlines": segments.outlines()}
        return {self.viewer: json.dumps(value)}

    def say(self, text: str) -> Updates:
        return {self.status: cards.status_line(text)}

    def refuse(self, _: Any, text: str) -> Updates:
        return {self.status: cards.status_line(text, error=True)}

    def teller(self, _: Any) -> Callable[[str], Updates]:
        return self.say

    def _new(self) -> Any:
        predictor = self._models.fresh().set_scan(self._scan)
        maps = predictor.maps() if self._drawn else []
        shown = next((i for i, one in enumerate(maps) if one.kind == "attention"), 0)
        reading = types.SimpleNamespace(view="here", texts=self._texts)
        return types.SimpleNamespace(
            predictor=predictor, segments=Segments(predictor), maps=maps, shown=shown, reading=reading, view="here"
        )
