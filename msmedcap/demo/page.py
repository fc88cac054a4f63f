"""The page: drop a scan, see it at once, then its maps, while three captions write themselves side by side.

Comes in: a predictor (real or fake). Goes out: a ``gr.Blocks`` and the settings to launch it with. The first event only
decodes; maps and captions follow under one model lock. What stands where is :mod:`msmedcap.demo.screen`; what a visitor
opened lives in :mod:`msmedcap.demo.session`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from starlette.middleware import Middleware

from msmedcap.config import UserError
from msmedcap.data.scans import bundled_examples, open_scan
from msmedcap.demo import case_cards
from msmedcap.demo.endpoints import MODEL_LOCK, Endpoints
from msmedcap.demo.explorer import Explorer
from msmedcap.demo.figure import FigureTab
from msmedcap.demo.library import Library, library
from msmedcap.demo.runs import Run
from msmedcap.demo.screen import HEADER, MANUAL, Screen, Updates
from msmedcap.demo.session import Point, Session, Store, sentence
from msmedcap.demo.theme import theme
from msmedcap.demo.uploads import UPLOADS, CountUploads
from msmedcap.demo.viewer import SET_OPACITY

if TYPE_CHECKING:
    from msmedcap.predictor import Predictor

SCAN, CASES, FIGURE = "scan", "cases", "figure"
EXAMPLES = Path(__file__).parents[2] / "assets" / "examples"
# The page's own events: not offered to programs. Progress is said in our own status line.
_OWN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_LAST: dict[str, Any] = {**_OWN, "trigger_mode": "always_last"}
_FORGOTTEN = "There is no open scan; it was forgotten after a long pause. Please open it again."


def build_page(
    predictor: Predictor,
    *,
    allow_burned_in: bool = False,
    examples: Path = EXAMPLES,
    runs: Path | None = None,
    data: Mapping[str, Path] | None = None,
) -> gr.Blocks:
    """The page on ``predictor``; ``examples`` is a folder with an ``index.json`` (a list of file and title).

    After the made scans of that folder come the real ones that pydicom carries. ``runs`` is a folder of captions files for
    the tabs "Cases" and "Figure 4", ``data`` the folders of the data sets they are of, by name: pictures of cases come
    from there and from nowhere else.

    Raises :class:`UserError` where the predictor has no system to show, or ``runs`` holds no captions file.
    """
    if not predictor.systems:
        raise UserError(
            "These models hold no system's weights; make the shipped ones with python -m msmedcap demo-weights."
        )
    shown = read_examples(examples) + bundled_examples()
    return _Page(predictor, allow_burned_in=allow_burned_in, examples=shown, library=library(runs, data or {})).blocks


def launch_options(*, host: str, port: int, auth: Callable[[str, str], bool] | None = None) -> dict[str, Any]:
    """What ``Blocks.launch`` is called with: where to listen, who may enter, and nothing kept of a visitor."""
    return {
        "server_name": host,
        "server_port": port,
        "auth": auth,
        "run_history": False,
        "max_file_size": 512 * 1024**2,
        "enable_monitoring": False,
        "show_error": False,
        "share": False,
        "ssr_mode": False,
        "footer_links": ["api"],
        "theme": theme(),
        "css_paths": [Path(__file__).with_name(name) for name in ("style.css", "explorer.css")],
        "app_kwargs": {"middleware": [Middleware(CountUploads)]},
        "quiet": True,
        "prevent_thread_lock": True,
    }


def read_examples(folder: Path) -> list[tuple[str, bytes]]:
    """(title, file content) of the scans listed in ``folder/index.json``; empty where there is no such file."""
    index = folder / "index.json"
    if not index.is_file():
        return []
    items = json.loads(index.read_text(encoding="utf-8"))
    return [(item["title"], (folder / item["file"]).read_bytes()) for item in items]


class _Page:
    """What happens on the page; one instance a server, no visitor's state but in the store."""

    def __init__(
        self, models: Predictor, *, allow_burned_in: bool, examples: list[tuple[str, bytes]], library: Library
    ) -> None:
        self._examples = examples
        self._store = Store(models, allow_burned_in=allow_burned_in)
        pictures = [(title, open_scan(data).picture()) for title, data in examples]
        with gr.Blocks(
            title="MSMedCap", analytics_enabled=False, delete_cache=(600, 1800), fill_width=True
        ) as self.blocks:
            gr.HTML(HEADER, apply_default_css=False)
            with gr.Tabs(selected=SCAN, elem_id="mm-tabs") as self._tabs:
                with gr.Tab("Scan", id=SCAN):
                    self._screen = Screen(models.systems, pictures)
                with gr.Tab("Cases", id=CASES) as cases:
                    self._explorer = Explorer(library, allow_burned_in=allow_burned_in)
                with gr.Tab("Figure 4", id=FIGURE) as figure:
                    FigureTab(library, self._explorer, allow_burned_in=allow_burned_in).wire(figure)
            self._wire()
            self._wire_cases(cases)
            Endpoints(models, allow_burned_in=allow_burned_in).add()
        self.blocks.queue(api_open=False, max_size=128)

    def _wire(self) -> None:
        on = self._screen
        look = [on.system, on.colours]
        for shown in (
            on.file.upload(self._open_file, [on.file], [on.file, *on.everything], **_OWN),
            on.examples.pick(self._open_example, None, [on.file, *on.everything], **_OWN),
            on.again.click(self._again, None, on.on_captions, **_OWN),
        ):
            self._then_caption(shown)
        for control, change in (
            (on.window, self._change),
            (on.frame, self._change),
            (on.width, self._change_manually),
            (on.level, self._change_manually),
        ):
            control.input(change, on.controls, on.everything, **_LAST)
        on.system.input(self._redraw, look, on.on_maps, **_LAST, **MODEL_LOCK)
        for place in (on.scan_view, on.map_view):
            place.point(self._point, look, [on.scan_view, *on.on_maps], **_LAST, **MODEL_LOCK)
        on.maps.pick(self._choose, [on.colours], on.on_maps, **_LAST)
        on.colours.input(self._recolour, [on.colours], on.on_maps, **_LAST)
        on.opacity.input(None, [on.opacity], None, js=SET_OPACITY, **_OWN)
        self.blocks.unload(self._leave)

    def _then_caption(self, shown: Any) -> None:
        """After a picture is ``shown`` come its maps, then its captions, under the one model lock."""
        on = self._screen
        drawn = shown.then(self._draw, [on.system, on.colours], on.on_maps, **_OWN, **MODEL_LOCK)
        drawn.then(self._caption, [on.preset, on.prompt], on.on_captions, **_OWN, **MODEL_LOCK)

    def _wire_cases(self, tab: gr.Tab) -> None:
        """A case of a run opens in the main tab as an upload does."""
        on, explorer = self._screen, self._explorer
        explorer.wire(tab)
        opening = [self._tabs, explorer.said, on.file, *on.everything]
        shown = explorer.table.show_case(self._open_case, [explorer.run, explorer.own], opening, **_OWN)
        shown.then(None, None, None, js=case_cards.SHOW_SCAN, **_OWN)
        self._then_caption(shown)
        back = on.case.leave(lambda: gr.Tabs(selected=CASES), None, self._tabs, **_OWN)
        back.then(None, None, None, js=case_cards.SHOW_CASES, **_OWN)

    def _session(self, request: gr.Request) -> Session:
        return self._store.get(request.session_hash or "")

    def _leave(self, request: gr.Request) -> None:
        self._store.drop(request.session_hash or "")

    def _open_file(self, file: str, request: gr.Request) -> Updates:
        return self._open(lambda: UPLOADS.take(file), request)

    def _open_example(self, event: gr.EventData, request: gr.Request) -> Updates:
        return self._open(lambda: self._examples[int(event.index)][1], request)

    def _open(self, read: Callable[[], bytes], request: gr.Request) -> Updates:
        """Only decodes. The file leaves the upload field as it leaves the server's disk."""
        on, session = self._screen, self._session(request)
        try:
            session.open(read())
        except Exception as error:
            session.waiting = False
            said = sentence(error, "opening the file")
            if session.scan is not None:
                said += " The scan before it is still open."
            return {on.file: None, **on.say(said, error=True)}
        return self._opened(session)

    def _open_case(self, event: gr.EventData, run: str, own: Run | None, request: gr.Request) -> Updates:
        """A case of a run; what keeps it from opening is said where it was chosen."""
        explorer, session = self._explorer, self._session(request)
        try:
            chosen, data = explorer.chosen(event, run, own)
            session.open(data)
        except Exception as error:
            return explorer.say(sentence(error, "opening the case"), error=True)
        session.case = chosen
        return {self._tabs: gr.Tabs(selected=SCAN), **self._opened(session)}

    def _opened(self, session: Session) -> Updates:
        on = self._screen
        session.waiting = True
        return {
            on.file: None,
            **on.view(session, waiting="Drawing the maps…", busy=True),
            **on.say("Drawing the maps…"),
        }

    def _change(self, window: str, width: float, level: float, frame: int, request: gr.Request) -> Updates:
        """Another window or frame: only the picture changes; the captions stay and say what they were written for."""
        on, session = self._screen, self._session(request)
        if session.scan is None:
            return {**on.nothing(), **on.say(_FORGOTTEN, error=True)}
        try:
            chosen = f"{width:g},{level:g}" if window == MANUAL and width and level is not None else window
            session.open(session.scan, window=None if chosen == MANUAL else chosen or None, frame=int(frame) - 1)
        except Exception as error:
            return on.say(sentence(error, "changing the view"), error=True)
        shown = on.view(session, waiting="Maps of this view come with its captions.", busy=False)
        return {**shown, **on.say("The picture changed. Press “Caption this view” for its maps and captions.")}

    def _change_manually(self, window: str, width: float, level: float, frame: int, request: gr.Request) -> Updates:
        if not width or level is None:
            return self._screen.say("Give a width above zero and a level.", error=True)
        return self._change(MANUAL, width, level, frame, request)

    def _again(self, request: gr.Request) -> Updates:
        on, session = self._screen, self._session(request)
        if session.scan is None:
            return on.say(_FORGOTTEN, error=True)
        session.waiting = True
        return {**on.captions(session, busy=True), **on.say("Drawing the maps…")}

    def _draw(self, system: str, colours: str, request: gr.Request) -> Updates:
        session = self._session(request)
        if not session.waiting:  # the file was refused: its sentence stays, and so does all that was on the page
            return {self._screen.status: gr.skip()}
        return self._maps(system, session.point, colours, session, "Writing the captions…")

    def _redraw(self, system: str, colours: str, request: gr.Request) -> Updates:
        session = self._session(request)
        return self._maps(system, session.point, colours, session, f"Attention maps of {system}.")

    def _point(self, system: str, colours: str, event: gr.EventData, request: gr.Request) -> Updates:
        session = self._session(request)
        if session.predictor is None or session.predictor.picture is None:
            return self._screen.say(_FORGOTTEN, error=True)
        height, width = session.predictor.picture.shape[:2]
        point = (float(event.x) * width, float(event.y) * height)
        said = "The map shows where SAM's features are like those of the marked place."
        return {**self._maps(system, point, colours, session, said), **self._screen.scan(session)}

    def _maps(self, system: str, point: Point | None, colours: str, session: Session, said: str) -> Updates:
        on = self._screen
        if session.scan is None:
            return {on.status: gr.skip()}
        try:
            session.draw(system, point)
        except Exception as error:
            return on.say(sentence(error, "drawing the maps"), error=True)
        return {**on.say(said), **on.map(session, colours)}

    def _choose(self, colours: str, event: gr.EventData, request: gr.Request) -> Updates:
        session = self._session(request)
        session.choose(int(event.index))
        return self._screen.map(session, colours)

    def _recolour(self, colours: str, request: gr.Request) -> Updates:
        return self._screen.map(self._session(request), colours)

    def _caption(self, preset: str, prompt: str, request: gr.Request) -> Iterator[Updates]:
        on, session = self._screen, self._session(request)
        if session.scan is None or not session.waiting:
            yield {on.status: gr.skip()}
            return
        session.waiting = False
        yield on.captions(session, busy=True)
        for _ in session.captions(preset=preset, prompt=prompt or None):
            yield on.captions(session)
        yield on.captions_written(session)
