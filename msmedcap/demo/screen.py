"""What is on the tab "Scan": the components from top to bottom, and what they show of a visitor's session.

Comes in: the models, the examples' pictures, later a session. Goes out: components (attributes of :class:`Screen`) and updates
for them. What happens when something is pressed is :mod:`msmedcap.demo.scan_tab`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from msmedcap.demo import cards
from msmedcap.demo.cases import cards as case_cards
from msmedcap.demo.panels import Updates
from msmedcap.demo.session import Session
from msmedcap.demo.structures.panel import SegmentPanel
from msmedcap.demo.tray.panel import TrayPanel
from msmedcap.demo.viewer import area as viewer
from msmedcap.demo.viewer.state import viewer_message, viewer_state
from msmedcap.demo.viewer.thumbnails import ALONE, PICK_ITEM, example_list, map_list
from msmedcap.demo.words.panel import WordsPanel
from msmedcap.evaluation.faithfulness import measured
from msmedcap.systems import PRESETS

if TYPE_CHECKING:
    from msmedcap.predictor import Predictor

MANUAL, AGAIN = "manual", "Caption this view"
HEADER = (
    '<header class="mm-header"><div><h1>MSMedCap</h1><p>Three systems read the same scan, side by side.</p></div>'
    '<p class="mm-disclaimer">Research demonstration, not for clinical use</p></header>'
)
_ABOUT_MAPS = (
    '<p class="mm-small">Maps show where the model looked, not why. Raw Q-Former maps do not depend on the words: choose a '
    "word of a caption for those that do. “Compare” on the picture shows which regions have similar SAM features.</p>"
)
_DECODING = [
    ("Fast: greedy, words appear as they are found", PRESETS[0]),
    ("Paper: the authors' beam search, slower", PRESETS[1]),
]


def _html(value: str = "", **settings: Any) -> gr.HTML:
    return gr.HTML(value, apply_default_css=False, **settings)


class Screen:
    """The components; build it inside ``gr.Blocks``. ``examples``: (title, picture ``[H,W,3] uint8``)."""

    def __init__(self, models: Predictor, examples: Sequence[tuple[str, np.ndarray]]) -> None:
        self._systems = tuple(models.systems)
        self._opening(examples)
        self.status = _html(cards.status_line("Open a scan or pick an example to begin."))
        self.warnings = _html()
        with (
            gr.Column(visible=False, elem_id="mm-workspace") as self.workspace,
            gr.Row(equal_height=False, elem_classes="mm-reading"),
        ):
            with gr.Column(scale=7, min_width=320):
                self._picture()
            with gr.Column(scale=4, min_width=300, elem_classes="mm-side"), gr.Tabs(elem_id="mm-side"):
                with gr.Tab("Maps"):
                    self._maps()
                with gr.Tab("Words"):
                    self.words = WordsPanel({name: measured(models.models, system=name) for name in self._systems})
                with gr.Tab("Structures"):
                    self.structures = SegmentPanel(models)
        self._captions()
        self.tray = TrayPanel(models, files=self.file)
        self.on_maps = [self.status, self.viewer, self.maps]
        self.on_captions = [self.status, self.warnings, self.cards, self.case]
        self.controls = [self.window, self.width, self.level]
        self.everything = [
            self.workspace,
            self.again,
            *self.on_maps,
            *self.on_captions[1:],
            *self.controls,
            *self.structures.shown,
            *self.words.shown,
        ]

    def _opening(self, examples: Sequence[tuple[str, np.ndarray]]) -> None:
        with gr.Row(elem_classes="mm-open"):
            with gr.Column(scale=2, min_width=280):
                _html('<h2 class="mm-label">Open scans: DICOM, PNG, JPEG, TIFF; a series or a ZIP</h2>')
                self.file = gr.File(
                    label="Scans", show_label=False, type="filepath", file_count="multiple", height=96, elem_id="mm-file"
                )
            with gr.Column(scale=3, min_width=280, visible=bool(examples)):
                _html('<h2 class="mm-label">Or try an example</h2>')
                pictures = example_list(examples)
                self.examples = _html(pictures, js_on_load=PICK_ITEM, elem_id="mm-examples")

    def _picture(self) -> None:
        self.viewer = viewer.viewer_component(elem_id="mm-viewer")
        with gr.Row(elem_classes="mm-controls"):
            self.window = gr.Dropdown([], label="Window", scale=2, min_width=130, interactive=True, elem_id="mm-window")
            self.width = gr.Number(label="Width", minimum=0, min_width=80, interactive=True, elem_id="mm-width")
            self.level = gr.Number(label="Level", min_width=80, interactive=True, elem_id="mm-level")

    def _maps(self) -> None:
        systems = list(self._systems)
        with gr.Row(elem_classes="mm-controls"):
            self.system = gr.Dropdown(
                systems, value=systems[0], label="Attention of", min_width=118, elem_id="mm-system"
            )
        self.maps = _html(js_on_load=PICK_ITEM, elem_id="mm-maps")
        _html(_ABOUT_MAPS)

    def _captions(self) -> None:
        with gr.Row(elem_classes="mm-caption-bar"):
            _html('<h2 class="mm-title">Captions</h2>', min_width=120)
            self.stop = gr.Button("Stop", size="md", scale=0, min_width=90, visible=False, elem_id="mm-stop")
            self.again = gr.Button(
                AGAIN,
                variant="primary",
                size="md",
                scale=0,
                min_width=190,
                visible=False,
                elem_id="mm-again",
            )
        empty = cards.caption_cards(None, systems=self._systems, view="")
        self.cards = _html(empty, js_on_load=cards.words_script(), elem_id="mm-captions")
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
            self.viewer: None,
            **dict.fromkeys((self.maps, self.warnings, self.case), ""),
            self.cards: cards.caption_cards(None, systems=self._systems, view=""),
        }

    def view(self, session: Session, *, busy: bool) -> Updates:
        """A scan, or another view of it, with the maps and captions there are. ``busy``: captions follow."""
        predictor = session.predictor
        if predictor is None or predictor.scan is None:
            return self.nothing()
        return {
            self.workspace: gr.Column(visible=True),
            self.again: gr.Button(AGAIN, visible=True),
            **self.warned(predictor.warnings),
            **self.picture(session),
            self.maps: self._map_list(session),
            **self.captions(session, busy=busy),
            **self._control_updates(session),
            **self.structures.update(session),
            **self.words.update(session),
        }

    def picture(self, session: Session, *, full: bool = False) -> Updates:
        """The picture area: the scan with the map on show, prompts, outlines and the chosen place."""
        predictor, scan = session.predictor, session.scan
        if predictor is None or scan is None or predictor.picture is None:
            return {self.viewer: None}
        item = session.maps[session.shown] if session.maps and session.overlay else None
        state = viewer_state(
            scan,
            predictor.picture,
            window=predictor.window,
            frame=predictor.frame,
            sent=session.sent,
            shown=item,
            points=session.segments.points,
            box=session.segments.box,
            outlines=session.segments.outlines(),
            place=session.point if item is not None and item.kind == "sam_similarity" else None,
            full=full,
        )
        return {self.viewer: viewer_message(state)}

    def map(self, session: Session) -> Updates:
        """The map on show and the list of all of them."""
        return {**self.picture(session), self.maps: self._map_list(session)}

    def _map_list(self, session: Session) -> str:
        if session.predictor is None or session.predictor.picture is None:
            return ""
        shown = session.shown if session.overlay else ALONE
        return map_list(session.maps, shown, session.predictor.picture)

    def captions(self, session: Session, *, busy: bool = False) -> Updates:
        """The three cards; ``busy`` before the first word."""
        reading = None if busy else session.reading
        return {
            self.cards: cards.caption_cards(
                reading,
                systems=self._systems,
                view=session.view,
                busy=busy,
                words=None if busy else session.words,
            ),
            self.case: case_cards.case_panel(session.case, reading),
        }

    def warned(self, warnings: Sequence[str]) -> Updates:
        """What is to be known of the scan and its captions."""
        return {self.warnings: cards.warning_list(warnings)}

    def _control_updates(self, session: Session) -> Updates:
        predictor, scan = session.predictor, session.scan
        assert predictor is not None and scan is not None
        name, window = scan.resolve_window(predictor.window, predictor.frame)
        grey = not scan.colour
        choices = dict.fromkeys([*scan.windows, name if "," not in name else MANUAL, MANUAL])
        return {
            self.window: gr.Dropdown(
                choices=list(choices), value=MANUAL if "," in name else name, interactive=grey, visible=grey
            ),
            self.width: gr.Number(window and round(window.width, 3), visible=grey),
            self.level: gr.Number(window and round(window.level, 3), visible=grey),
        }
