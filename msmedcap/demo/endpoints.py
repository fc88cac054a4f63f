"""The page for programs: ``/caption``, ``/explain`` and ``/segment`` for ``gradio_client``, with the file as first argument.

They answer what the commands of the same names print, from a predictor of their own for every call: nothing of a call is
kept, and the visitor's file name is neither used nor sent back.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from msmedcap.config import parse_point
from msmedcap.data.prompts import parse_box, parse_clicks
from msmedcap.demo.panels import WAITING
from msmedcap.demo.serving.logs import BY_PROGRAM, Journal
from msmedcap.demo.serving.turns import Turns
from msmedcap.demo.serving.uploads import UPLOADS
from msmedcap.demo.session import sentence
from msmedcap.explain.maps import write_maps

if TYPE_CHECKING:
    from msmedcap.predictor import Predictor

_MAPS = (
    "Maps of a scan, as the explain command prints them, and 8-bit PNGs of the picture's size. point: X,Y. word: the Nth word"
    " (from 0) of the system's caption, and method: how its maps are made."
)
_MASKS = (
    "The mask and the name of what is prompted in a scan, as the segment command prints them, and all its files. points: X,Y or"
    " X,Y,0 (a place beside it), several parted by ;. box: X0,Y0,X1,Y1. All in the picture's pixels."
)


class Endpoints:
    """The calls on ``models``, each in its turn; ``allow_burned_in`` as in ``Predictor.set_scan``."""

    def __init__(self, models: Predictor, turns: Turns, journal: Journal, *, allow_burned_in: bool = False) -> None:
        self._models, self._turns, self._journal, self._allow_burned_in = models, turns, journal, allow_burned_in

    def add(self) -> None:
        """Put the calls, and invisible inputs for them, into the ``gr.Blocks`` being built."""
        with gr.Group(visible=False):
            file = gr.File(label="file", type="filepath")
            systems, preset = gr.Textbox("", label="systems"), gr.Textbox("fast", label="preset")
            window, frame = gr.Textbox("", label="window"), gr.Number(0, label="frame", precision=0)
            prompt, system = gr.Textbox("", label="prompt"), gr.Textbox("MSMedCap", label="system")
            point, button = gr.Textbox("", label="point"), gr.Button("call")
            word, method = gr.Number(None, label="word", precision=0), gr.Textbox("", label="method")
            points, box = gr.Textbox("", label="points"), gr.Textbox("", label="box")
            dicom_seg = gr.Checkbox(False, label="dicom_seg")
            answer, maps = gr.JSON(label="answer"), gr.JSON(label="maps")
            files = gr.File(label="files", file_count="multiple")
        button.click(
            self.caption,
            [file, systems, preset, window, frame, prompt],
            answer,
            api_name="caption",
            api_description="Captions of a scan, as the caption command prints them. systems: A,B; empty for all.",
            **WAITING,
        )
        button.click(
            self.explain,
            [file, system, point, word, method, window, frame],
            [maps, files],
            api_name="explain",
            api_description=_MAPS,
            **WAITING,
        )
        button.click(
            self.segment,
            [file, points, box, dicom_seg, window, frame],
            [answer, files],
            api_name="segment",
            api_description=_MASKS,
            **WAITING,
        )

    def caption(
        self, file: str, systems: str = "", preset: str = "fast", window: str = "", frame: int = 0, prompt: str = ""
    ) -> dict[str, Any]:
        """``{"scan": "upload", "captions", "seconds", "warnings"}``; a mistake raises ``gr.Error`` with one sentence."""
        chosen = [name.strip() for name in systems.split(",") if name.strip()] or None
        with _one_sentence("writing the captions"):
            predictor = self._looking_at(file, window, frame)
            with self._turns.turn(), self._journal.event("captioned", None, **BY_PROGRAM):
                captions = predictor.captions(systems=chosen, preset=preset, prompt=prompt or None)
        return {
            "scan": "upload",
            "captions": captions,
            "seconds": dict(predictor.seconds),
            "warnings": list(predictor.warnings),
        }

    def explain(
        self,
        file: str,
        system: str = "MSMedCap",
        point: str = "",
        word: int | None = None,
        method: str = "",
        window: str = "",
        frame: int = 0,
    ) -> Iterator[tuple[list[dict[str, Any]], list[str]]]:
        """The maps' list and their PNG files, in the same order; a mistake raises ``gr.Error`` with one sentence."""
        with tempfile.TemporaryDirectory() as folder:
            with _one_sentence("drawing the maps"):
                predictor = self._looking_at(file, window, frame)
                place = parse_point(point) if point.strip() else None
                nth = None if word is None else int(word)
                way = method.strip() or None
                with self._turns.turn(), self._journal.event("mapped", None, **BY_PROGRAM):
                    maps, structures = predictor.explain(system=system, point=place, word=nth, method=way)
                items = write_maps(maps, Path(folder), structures=structures)
            # gradio copies what is yielded before it resumes here, so our own folder is gone when the call is over.
            yield items, [str(Path(folder) / item["file"]) for item in items]

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
            with _one_sentence("segmenting the scan"):
                predictor = self._looking_at(file, window, frame)
                clicks, corners = parse_clicks(points), parse_box(box) if box.strip() else None
                with self._turns.turn(), self._journal.event("segmented", None, **BY_PROGRAM):
                    found = predictor.segment(clicks, corners)
                (record,) = predictor.write_masks([found], Path(folder), dicom_seg=bool(dicom_seg))
            yield record, [str(path) for path in sorted(Path(folder).iterdir())]

    def _looking_at(self, file: str, window: str, frame: int) -> Predictor:
        """A predictor of this call's own, with the file it was handed."""
        predictor = self._models.fresh()
        data = UPLOADS.take(file)
        return predictor.set_scan(data, window=window or None, frame=int(frame), allow_burned_in=self._allow_burned_in)


@contextmanager
def _one_sentence(doing: str) -> Iterator[None]:
    """Whatever goes wrong while ``doing`` leaves as ``gr.Error`` with one sentence, and no more of it."""
    try:
        yield
    except Exception as error:
        raise gr.Error(sentence(error, doing), print_exception=False) from None
