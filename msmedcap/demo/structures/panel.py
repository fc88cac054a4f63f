"""The panel "Structures": a place or a box on the picture → its mask, its name, and what else is there; files to keep.

Comes in: the viewer's event ``prompt`` {points, box}, buttons, numbers. Goes out: components (attributes of
:class:`SegmentPanel`) and updates for them. A visitor's prompts and answers are
:class:`msmedcap.demo.structures.segments.Segments`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from msmedcap.config import UserError
from msmedcap.data.prompts import parse_box, parse_click
from msmedcap.demo.frontend import static_text
from msmedcap.demo.panels import LAST, OWN, WAITING, Seam, Updates
from msmedcap.demo.serving.turns import Cancelled, place_words
from msmedcap.demo.session import Session, sentence
from msmedcap.demo.structures.cards import segments_card
from msmedcap.demo.structures.segments import BESIDE, Segments, told, told_hottest

if TYPE_CHECKING:
    from msmedcap.predictor import Predictor

FILE = "msmedcap-masks.zip"
_HOW = (
    '<p class="mm-small">Mark a place on the picture or draw a box around a structure: the model outlines and names it. '
    "Further places, on the structure or beside it, correct the outline.</p>"
)
_ABOUT = (
    '<p class="mm-small">Made by SEG-SAM: the solid line is the mask, the dashed one where its naming part sees the structure. '
    "Outlines, names and areas can be wrong. Research, not for clinical use.</p>"
)
Do = Callable[[Segments], str]


def _html(value: str = "", **settings: Any) -> gr.HTML:
    return gr.HTML(value, apply_default_css=False, **settings)


class SegmentPanel:
    """The panel's components; build it inside ``gr.Blocks``. ``models`` says whether there is a segmenter.

    Put :attr:`shown` among the outputs of every event that changes the view, and :meth:`update` into its updates.
    """

    def __init__(self, models: Predictor) -> None:
        self.absent = models.segmenter_absent
        if self.absent is not None:
            _html(f'<p class="mm-small mm-absent">These models cannot segment. {escape(self.absent)}</p>')
        with gr.Column(visible=self.absent is None, elem_classes="mm-segment-panel"):
            _html(_HOW)
            with gr.Row(elem_classes="mm-segment-buttons"):
                self.undo = gr.Button("Undo", size="sm", min_width=70, elem_id="mm-segment-undo")
                self.clear = gr.Button("Clear", size="sm", min_width=70, elem_id="mm-segment-clear")
                self.keep = gr.Button(
                    "Keep, and mark another", size="sm", variant="primary", min_width=170, elem_id="mm-segment-keep"
                )
            self.legend = _html(
                segments_card(Segments()), js_on_load=static_text("segment.js"), elem_id="mm-segments"
            )
            with gr.Row(elem_classes="mm-controls mm-segment-lines"):
                self.solid = gr.Checkbox(True, label="Mask (solid line)", min_width=150, elem_id="mm-segment-solid")
                self.dashed = gr.Checkbox(
                    True, label="Semantic mask (dashed)", min_width=150, elem_id="mm-segment-dashed"
                )
            self.hottest = gr.Button(
                "What lies at the hottest place of the map?", size="sm", elem_id="mm-segment-hottest"
            )
            self._numbers()
            with gr.Row(elem_classes="mm-segment-buttons"):
                self.save = gr.Button("Download masks", size="sm", min_width=130, elem_id="mm-segment-save")
                self.save_dicom = gr.Button("… with DICOM-SEG", size="sm", min_width=130, elem_id="mm-segment-dicom")
            self.file = _html(html_template="<span></span>", js_on_load=static_text("save.js"))
            _html(_ABOUT)
        self.shown = [self.legend]

    def _numbers(self) -> None:
        """The prompt without a pointer, written as for the command line."""
        with gr.Accordion("By numbers", open=False, elem_id="mm-segment-numbers"):
            with gr.Row(elem_classes="mm-controls"):
                hint = "120,80 or, for a place beside it, 120,80,0"
                self.point = gr.Textbox(
                    label="A place: x,y in pixels",
                    placeholder=hint,
                    max_lines=1,
                    min_width=150,
                    elem_id="mm-segment-point",
                )
                self.add = gr.Button("Add the place", size="sm", scale=0, min_width=110, elem_id="mm-segment-add")
            with gr.Row(elem_classes="mm-controls"):
                self.corners = gr.Textbox(
                    label="A box: left,top,right,bottom", placeholder="40,60,200,180", max_lines=1, min_width=150,
                    elem_id="mm-segment-corners",
                )  # fmt: skip
                self.set_box = gr.Button("Set the box", size="sm", scale=0, min_width=110, elem_id="mm-segment-box")

    def wire(self, seam: Seam) -> None:
        """Attach the panel's events to the page; without a segmenter there are none."""
        if self.absent is not None:
            return
        self._seam = seam
        lines, outputs = [self.solid, self.dashed], [seam.viewer, seam.status, *self.shown]
        last, each = {**LAST, **WAITING}, {**OWN, "trigger_mode": "multiple", **WAITING}
        seam.viewer.prompt(self._prompt, lines, outputs, **last)
        self.legend.drop(self._drop, lines, outputs, **each)
        self.legend.unpoint(self._unpoint, lines, outputs, **each)
        self.legend.unbox(self._unbox, lines, outputs, **each)
        self.undo.click(self._undo, lines, outputs, **each)
        self.clear.click(self._clear, lines, outputs, **each)
        self.keep.click(self._keep, lines, outputs, **each)
        self.hottest.click(self._hottest, lines, outputs, **last)
        for control in lines:
            control.input(self._show, lines, outputs, **last)
        gr.on([self.add.click, self.point.submit], self._add, [*lines, self.point], outputs, **each)
        gr.on([self.set_box.click, self.corners.submit], self._set_box, [*lines, self.corners], outputs, **each)
        for button, write in ((self.save, self._save), (self.save_dicom, self._save_dicom)):
            made = button.click(write, None, [self.file, seam.status], **OWN, **WAITING)
            # The browser has the file now; it is not to wait here for the visitor to leave.
            made.then(lambda: None, None, self.file, **OWN)

    def update(self, session: Session) -> Updates:
        """The legend as ``session`` is now, for an event with :attr:`shown` among its outputs."""
        return {self.legend: segments_card(session.segments)}

    def _do(self, request: gr.Request, solid: bool, dashed: bool, do: Do) -> Iterator[Updates]:
        """``do`` what was asked, draw what is so now, and say what came of it.

        Only encoding a scan waits for a turn at the models. Once that is done an answer takes milliseconds and changes nothing
        that a caption is made of: a click does not wait for those that are being written.
        """
        seam = self._seam
        session = seam.session(request)
        tell, segments = seam.teller(session), session.segments
        segments.solid, segments.dashed = solid, dashed
        wrong = False
        try:
            if not (segments.prepared or session.maps):
                with seam.turns.ticket(request.session_hash or "") as ticket:
                    for ahead in ticket.wait():
                        yield tell(place_words(ahead))
                    segments.prepare()
            with segments.lock, seam.journal.event("segmented", request.session_hash):
                said = do(segments)
        except Cancelled:
            said = "Stopped."
        except Exception as error:
            said, wrong = sentence(error, "segmenting"), True
        yield {**seam.redraw(session), **self.update(session), **(seam.refuse(session, said) if wrong else tell(said))}

    def _prompt(self, event: gr.EventData, solid: bool, dashed: bool, request: gr.Request) -> Iterator[Updates]:
        def ask(segments: Segments) -> str:
            segments.ask(event.points, event.box)
            return _state(segments)

        yield from self._do(request, solid, dashed, ask)

    def _drop(self, event: gr.EventData, solid: bool, dashed: bool, request: gr.Request) -> Iterator[Updates]:
        yield from self._do(request, solid, dashed, _then(lambda segments: segments.drop(int(event.key)), "Removed."))

    def _unpoint(self, event: gr.EventData, solid: bool, dashed: bool, request: gr.Request) -> Iterator[Updates]:
        yield from self._do(request, solid, dashed, _then(lambda segments: segments.remove(int(event.index))))

    def _unbox(self, solid: bool, dashed: bool, request: gr.Request) -> Iterator[Updates]:
        yield from self._do(request, solid, dashed, _then(lambda segments: segments.set_box(None)))

    def _undo(self, solid: bool, dashed: bool, request: gr.Request) -> Iterator[Updates]:
        yield from self._do(request, solid, dashed, _then(Segments.undo))

    def _clear(self, solid: bool, dashed: bool, request: gr.Request) -> Iterator[Updates]:
        yield from self._do(request, solid, dashed, _then(Segments.clear))

    def _keep(self, solid: bool, dashed: bool, request: gr.Request) -> Iterator[Updates]:
        yield from self._do(request, solid, dashed, _then(Segments.keep, "Kept. Now mark the next structure."))

    def _show(self, solid: bool, dashed: bool, request: gr.Request) -> Iterator[Updates]:
        yield from self._do(request, solid, dashed, _state)

    def _add(self, solid: bool, dashed: bool, point: str, request: gr.Request) -> Iterator[Updates]:
        yield from self._do(request, solid, dashed, _then(lambda segments: segments.add(*parse_click(point or ""))))

    def _set_box(self, solid: bool, dashed: bool, corners: str, request: gr.Request) -> Iterator[Updates]:
        yield from self._do(request, solid, dashed, _then(lambda segments: segments.set_box(parse_box(corners or ""))))

    def _hottest(self, solid: bool, dashed: bool, request: gr.Request) -> Iterator[Updates]:
        session = self._seam.session(request)

        def ask(segments: Segments) -> str:
            if not session.maps:
                raise UserError("There is no map yet; maps of a view come with its captions.")
            found = session.maps[session.shown]
            reading = session.reading
            captions = reading.texts if reading is not None and reading.view == session.view else {}
            return told_hottest(found, segments.ask_hottest(found), captions)

        yield from self._do(request, solid, dashed, ask)

    def _save(self, request: gr.Request) -> Updates:
        return self._write(request, dicom_seg=False)

    def _save_dicom(self, request: gr.Request) -> Updates:
        return self._write(request, dicom_seg=True)

    def _write(self, request: gr.Request, *, dicom_seg: bool) -> Updates:
        session = self._seam.session(request)
        try:
            with self._seam.journal.event("exported", request.session_hash) as told:
                data = session.segments.export(dicom_seg=dicom_seg)
                told.note(bytes=len(data))
        except Exception as error:
            return self._seam.refuse(session, sentence(error, "writing the masks"))
        uri = "data:application/zip;base64," + base64.b64encode(data).decode()
        return {self.file: {"name": FILE, "uri": uri}, **self._seam.say("The masks are in your downloads.")}


def _then(change: Callable[[Segments], Any], said: str = "") -> Do:
    """``change`` as something to do; says ``said``, or how things are then."""

    def do(segments: Segments) -> str:
        change(segments)
        return said or _state(segments)

    return do


def _state(segments: Segments) -> str:
    """How things are, in one sentence."""
    if segments.current is not None:
        return told(segments.current)
    return BESIDE if segments.points else "Mark a place on a structure, or draw a box around it."
