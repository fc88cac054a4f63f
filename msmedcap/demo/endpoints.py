"""The page for programs: ``/caption`` and ``/explain`` for ``gradio_client``, with the file as first argument.

They answer what the commands of the same names print, from a predictor of their own for every call: nothing of a call is
kept, and the visitor's file name is neither used nor sent back.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from msmedcap.config import parse_point
from msmedcap.demo.panels import WAITING
from msmedcap.demo.serving.logs import BY_PROGRAM, Journal
from msmedcap.demo.serving.turns import Turns
from msmedcap.demo.serving.uploads import UPLOADS
from msmedcap.demo.session import sentence
from msmedcap.explain.maps import write_maps
from msmedcap.predictor import explain

if TYPE_CHECKING:
    from msmedcap.predictor import Predictor

_MAPS = (
    "Maps of a scan, as the explain command prints them, and 8-bit PNGs of the picture's size. point: X,Y. word: the Nth word"
    " (from 0) of the system's caption, and method: how its maps are made."
)


class Endpoints:
    """The two calls on ``models``, each in its turn; ``allow_burned_in`` as in ``Predictor.set_scan``."""

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

    def caption(
        self, file: str, systems: str = "", preset: str = "fast", window: str = "", frame: int = 0, prompt: str = ""
    ) -> dict[str, Any]:
        """``{"scan": "upload", "captions", "seconds", "warnings"}``; a mistake raises ``gr.Error`` with one sentence."""
        try:
            predictor = self._models.fresh()
            predictor.set_scan(
                UPLOADS.take(file), window=window or None, frame=int(frame), allow_burned_in=self._allow_burned_in
            )
            chosen = [name.strip() for name in systems.split(",") if name.strip()] or None
            with self._turns.turn(), self._journal.event("captioned", None, **BY_PROGRAM):
                captions = predictor.captions(systems=chosen, preset=preset, prompt=prompt or None)
        except Exception as error:
            raise gr.Error(sentence(error, "writing the captions"), print_exception=False) from None
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
        try:
            predictor = self._models.fresh()
            predictor.set_scan(
                UPLOADS.take(file), window=window or None, frame=int(frame), allow_burned_in=self._allow_burned_in
            )
            place = parse_point(point) if point.strip() else None
            nth = None if word is None else int(word)
            with self._turns.turn(), self._journal.event("mapped", None, **BY_PROGRAM):
                maps, structures = explain(predictor, system=system, point=place, word=nth, method=method.strip() or None)
        except Exception as error:
            raise gr.Error(sentence(error, "drawing the maps"), print_exception=False) from None
        # gradio copies what is yielded before it resumes here, so our own folder is gone when the call is over.
        with tempfile.TemporaryDirectory() as folder:
            items = write_maps(maps, Path(folder), structures=structures)
            yield items, [str(Path(folder) / item["file"]) for item in items]
