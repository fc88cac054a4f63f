"""The page for programs: ``/segment`` for ``gradio_client``, with the file as first argument.

It answers what the command ``segment`` prints, from a predictor of its own for every call, with files named relative to each
other: nothing of a call is kept, and the visitor's file name is neither used nor sent back.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from msmedcap.data.prompts import parse_box, parse_clicks
from msmedcap.demo.panels import WAITING
from msmedcap.demo.serving.logs import BY_PROGRAM, Journal
from msmedcap.demo.serving.turns import Turns
from msmedcap.demo.serving.uploads import UPLOADS
from msmedcap.demo.session import sentence

if TYPE_CHECKING:
    from msmedcap.predictor import Predictor

_ABOUT = (
    "The mask and the name of what is prompted in a scan, as the segment command prints them, and all its files. points: X,Y or"
    " X,Y,0 (a place beside it), several parted by ;. box: X0,Y0,X1,Y1. All in the picture's pixels."
)


class SegmentEndpoint:
    """The call on ``models``, each in its turn; ``allow_burned_in`` as in ``Predictor.set_scan``."""

    def __init__(self, models: Predictor, turns: Turns, journal: Journal, *, allow_burned_in: bool = False) -> None:
        self._models, self._turns, self._journal, self._allow_burned_in = models, turns, journal, allow_burned_in

    def add(self) -> None:
        """Put the call, and invisible inputs for it, into the ``gr.Blocks`` being built."""
        with gr.Group(visible=False):
            file = gr.File(label="file", type="filepath")
            points, box = gr.Textbox("", label="points"), gr.Textbox("", label="box")
            dicom_seg = gr.Checkbox(False, label="dicom_seg")
            window, frame = gr.Textbox("", label="window"), gr.Number(0, label="frame", precision=0)
            button, answer = gr.Button("call"), gr.JSON(label="answer")
            files = gr.File(label="files", file_count="multiple")
        button.click(
            self.segment,
            [file, points, box, dicom_seg, window, frame],
            [answer, files],
            api_name="segment",
            api_description=_ABOUT,
            **WAITING,
        )

    def segment(
        self,
        file: str,
        points: str = "",
        box: str = "",
        dicom_seg: bool = False,
        window: str = "",
        frame: int = 0,
    ) -> Iterator[tuple[dict[str, Any], list[str]]]:
        """The command's record, and every file it writes; a mistake raises ``gr.Error`` with one sentence."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                data = UPLOADS.take(file)
                clicks, corners = parse_clicks(points), parse_box(box) if box.strip() else None
                predictor = self._models.fresh()
                predictor.set_scan(data, window=window or None, frame=int(frame), allow_burned_in=self._allow_burned_in)
                with self._turns.turn(), self._journal.event("segmented", None, **BY_PROGRAM):
                    found = predictor.segment(clicks, corners)
                (record,) = predictor.write_masks([found], Path(folder), dicom_seg=bool(dicom_seg))
            except Exception as error:
                raise gr.Error(sentence(error, "segmenting the scan"), print_exception=False) from None
            # gradio copies what is yielded before it resumes here, so our own folder is gone when the call is over.
            yield record, [str(path) for path in sorted(Path(folder).iterdir())]
