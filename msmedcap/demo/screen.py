"""What is on the page: the components from top to bottom, and what they show of a visitor's session.

Comes in: the systems there are weights for, the examples' pictures, later a session. Goes out: components (attributes of
:class:`Screen`) and updates for them. What happens when something is pressed is :mod:`msmedcap.demo.page`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np

from msmedcap.demo import cards, case_cards, viewer
from msmedcap.demo.session import Session
from msmedcap.systems import PRESETS

MANUAL = "manual"
Updates = dict[Any, Any]
HEADER = (
    '<header class="mm-header"><div><h1>MSMedCap</h1><p>Three systems read the same scan, side by side.</p></div>'
    '<p class="mm-disclaimer">Research demonstration, not for clinical use</p></header>'
)
_ABOUT_MAPS = (
    '<p class="mm-small">Maps show where the model looked, not why. Raw Q-Former maps do not depend on the words. '
    "Choose a place on the scan to see which regions have similar SAM features.</p>"
)
_DECODING = [
    ("Fast: greedy, words appear as they are found", PRESETS[0]),
    ("Paper: the authors' beam search, slower", PRESETS[1]),
]


def _html(value: str = "", **settings: Any) -> gr.HTML:
    return gr.HTML(value, apply_default_css=False, **settings)


class Screen:
    """The components; build it inside ``gr.Blocks``. ``examples``: (title, picture ``[H,W,3] uint8``)."""

    def __init__(self, systems: Sequence[str], examples: Sequence[tuple[str, np.ndarray]]) -> None:
        self._systems = tuple(systems)
        self._opening(examples)
        self.status = _html(cards.status_line("Open a scan or pick an example to begin."))
        self.warnings = _html()
        with gr.Column(visible=False) as self.workspace:
            with gr.Row(equal_height=False):
                with gr.Column(scale=4, min_width=300):
                    self._scan()
                with gr.Column(scale=4, min_width=300):
                    self._map()
                with gr.Column(scale=1, min_width=216, elem_classes="mm-rail"):
                    self.maps = _html(js_on_load=viewer.PICK_ITEM, elem_id="mm-maps")
            _html(_ABOUT_MAPS)
        self._captions()
        self.on_maps = [self.status, self.map_view, self.maps]
        self.on_captions = [self.status, self.warnings, self.cards, self.case]
        self.controls = [self.window, self.width, self.level, self.frame]
        self.everything = [
            self.workspace,
            self.again,
            self.scan_view,
            *self.on_maps,
            *self.on_captions[1:],
            *self.controls,
        ]

    def _opening(self, examples: Sequence[tuple[str, np.ndarray]]) -> None:
        with gr.Row(elem_classes="mm-open"):
            with gr.Column(scale=2, min_width=280):
                _html('<h2 class="mm-label">Open a scan: DICOM, PNG, JPEG, TIFF</h2>')
                self.file = gr.File(label="Scan", show_label=False, type="filepath", height=116, elem_id="mm-file")
            with gr.Column(scale=3, min_width=280, visible=bool(examples)):
                _html('<h2 class="mm-label">Or try an example</h2>')
                pictures = viewer.example_list(examples)
                self.examples = _html(pictures, js_on_load=viewer.PICK_ITEM, elem_id="mm-examples")

    def _scan(self) -> None:
        self.scan_view = _html(js_on_load=viewer.PICK_PLACE, elem_id="mm-scan")
        with gr.Row(elem_classes="mm-controls"):
            self.window = gr.Dropdown([], label="Window", scale=2, min_width=130, interactive=True, elem_id="mm-window")
            self.width = gr.Number(label="Width", minimum=0, min_width=80, interactive=True, elem_id="mm-width")
            self.level = gr.Number(label="Level", min_width=80, interactive=True, elem_id="mm-level")
        with gr.Row(elem_classes="mm-controls"):
            self.frame = gr.Slider(1, 2, 1, step=1, label="Frame", visible=False, interactive=True, elem_id="mm-frame")

    def _map(self) -> None:
        self.map_view = _html(js_on_load=viewer.PICK_PLACE, elem_id="mm-map")
        colours, systems = list(viewer.COLOUR_MAPS), list(self._systems)
        with gr.Row(elem_classes="mm-controls"):
            self.opacity = gr.Slider(0, 100, 55, step=1, label="Map opacity", min_width=100, elem_id="mm-opacity")
            self.colours = gr.Dropdown(colours, value=colours[0], label="Colours", min_width=100, elem_id="mm-colours")
            self.system = gr.Dropdown(
                systems, value=systems[0], label="Attention of", min_width=118, elem_id="mm-system"
            )

    def _captions(self) -> None:
        with gr.Row(elem_classes="mm-caption-bar"):
            _html('<h2 class="mm-title">Captions</h2>', min_width=120)
            self.again = gr.Button(
                "Caption this view",
                variant="primary",
                size="md",
                scale=0,
                min_width=190,
                visible=False,
                elem_id="mm-again",
            )
        self.cards = _html(cards.caption_cards(None, systems=self._systems, view=""), elem_id="mm-captions")
        self.case = _html(js_on_load=case_cards.LEAVE_CASE, elem_id="mm-case")
        with gr.Accordion("Advanced", open=False), gr.Row():
            self.preset = gr.Radio(_DECODING, value=PRESETS[0], label="Decoding", min_width=280)
            hint = "Empty: the prompt the models were trained with"
            self.prompt = gr.Textbox(label="Prompt", placeholder=hint, max_length=300, min_width=280)

    def say(self, text: str, *, error: bool = False) -> Updates:
        """The status line."""
        return {self.status: cards.status_line(text, error=error)}

    def nothing(self) -> Updates:
        """No scan is open."""
        return {
            self.workspace: gr.Column(visible=False),
            self.again: gr.Button(visible=False),
            **dict.fromkeys((self.scan_view, self.map_view, self.maps, self.warnings, self.case), ""),
            self.cards: cards.caption_cards(None, systems=self._systems, view=""),
        }

    def view(self, session: Session, *, waiting: str, busy: bool) -> Updates:
        """A scan, or another view of it, without maps yet; ``waiting`` stands in their place. ``busy``: captions follow."""
        predictor, scan = session.predictor, session.scan
        if predictor is None or scan is None or predictor.picture is None:
            return self.nothing()
        return {
            self.workspace: gr.Column(visible=True),
            self.again: gr.Button(visible=True),
            self.warnings: cards.warning_list(predictor.warnings),
            **self.scan(session),
            self.map_view: viewer.map_figure(scan, predictor.picture, None, colours="", note=waiting),
            self.maps: "",
            **self.captions(session, busy=busy),
            **self._control_updates(session),
        }

    def scan(self, session: Session) -> Updates:
        """The scan with the chosen place."""
        predictor, scan = session.predictor, session.scan
        if predictor is None or scan is None or predictor.picture is None:
            return {}
        return {self.scan_view: viewer.scan_figure(scan, predictor.picture, view=session.view, point=session.point)}

    def map(self, session: Session, colours: str) -> Updates:
        """The map on show and the list of all of them; no update while there are none."""
        predictor, scan = session.predictor, session.scan
        if predictor is None or scan is None or predictor.picture is None or not session.maps:
            return {self.maps: gr.skip()}
        item = session.maps[session.shown]
        point = session.point if item.kind == "sam_similarity" else None
        return {
            self.map_view: viewer.map_figure(scan, predictor.picture, item, colours=colours, point=point),
            self.maps: viewer.map_list(session.maps, session.shown, colours=colours),
        }

    def captions(self, session: Session, *, busy: bool = False) -> Updates:
        """The three cards; ``busy`` before the first word."""
        reading = None if busy else session.reading
        return {
            self.cards: cards.caption_cards(reading, systems=self._systems, view=session.view, busy=busy),
            self.case: case_cards.case_panel(session.case, reading),
        }

    def captions_written(self, session: Session) -> Updates:
        """The closing sentence and the warnings, once the captions are done."""
        if session.predictor is None or session.reading is None or not session.reading.done:
            return {self.status: gr.skip()}
        failed = bool(session.reading.failed)
        said = "Not every system could write its caption; see the cards." if failed else "The captions are written."
        return {**self.say(said, error=failed), self.warnings: cards.warning_list(session.predictor.warnings)}

    def _control_updates(self, session: Session) -> Updates:
        predictor, scan = session.predictor, session.scan
        assert predictor is not None and scan is not None
        name, window = scan.resolve_window(predictor.window, predictor.frame)
        grey, several = not scan.colour, scan.frames > 1
        choices = dict.fromkeys([*scan.windows, name if "," not in name else MANUAL, MANUAL])
        return {
            self.window: gr.Dropdown(
                choices=list(choices), value=MANUAL if "," in name else name, interactive=grey, visible=grey
            ),
            self.width: gr.Number(window and round(window.width, 3), visible=grey),
            self.level: gr.Number(window and round(window.level, 3), visible=grey),
            self.frame: gr.Slider(
                maximum=max(scan.frames, 2),
                value=predictor.frame + 1,
                visible=several,
                label=f"Frame, of {scan.frames}",
            ),
        }
