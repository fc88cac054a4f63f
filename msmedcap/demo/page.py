"""The page: its tabs, and the settings it is served with.

Comes in: a predictor (real or fake). Goes out: a ``gr.Blocks`` and the settings to launch it with. What happens on the first
tab is :mod:`msmedcap.demo.scan_tab`; what a visitor opened lives in :mod:`msmedcap.demo.session`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from starlette.middleware import Middleware

from msmedcap.config import UserError
from msmedcap.data.scans import bundled_examples, open_scan
from msmedcap.demo.cases import cards as case_cards
from msmedcap.demo.cases.explorer import Explorer
from msmedcap.demo.cases.figure import FigureTab
from msmedcap.demo.cases.library import Library, library
from msmedcap.demo.cases.runs import Run
from msmedcap.demo.endpoints import Endpoints
from msmedcap.demo.frontend import STYLES
from msmedcap.demo.panels import OWN, Updates
from msmedcap.demo.restoring import Restoring
from msmedcap.demo.review.panel import ReviewPanel
from msmedcap.demo.scan_tab import ScanTab
from msmedcap.demo.screen import HEADER
from msmedcap.demo.serving.health import Health
from msmedcap.demo.serving.limits import Shut, UploadLimit, cleaning
from msmedcap.demo.serving.logs import Journal
from msmedcap.demo.serving.signin import SignIn
from msmedcap.demo.serving.turns import Turns
from msmedcap.demo.serving.uploads import CountUploads
from msmedcap.demo.session import Store, sentence
from msmedcap.demo.theme import theme

if TYPE_CHECKING:
    from msmedcap.predictor import Predictor

SCAN, CASES, FIGURE, REVIEW = "scan", "cases", "figure", "review"
MAX_UPLOAD_MB = 512
EXAMPLES = Path(__file__).parents[2] / "assets" / "examples"


def build_page(
    predictor: Predictor,
    *,
    allow_burned_in: bool = False,
    examples: Path = EXAMPLES,
    runs: Path | None = None,
    data: Mapping[str, Path] | None = None,
    sign_in: SignIn | None = None,
    reviews: str | None = None,
) -> Page:
    """The page on ``predictor``; ``examples`` is a folder with an ``index.json`` (a list of file and title).

    After the made scans of that folder come the real ones that pydicom carries. ``runs`` is a folder of captions files for
    the tabs "Cases" and "Figure 4", ``data`` the folders of the data sets they are of, by name: pictures of cases come
    from there and from nowhere else. ``sign_in`` is who may enter, ``reviews`` the database of the tab "Review", which
    takes the place of the tabs of evaluations: readers are blinded.

    Raises :class:`UserError` where the predictor has no system to show, ``runs`` holds no captions file, or ``reviews`` cannot be
    opened.
    """
    if not predictor.systems:
        raise UserError(
            "These models hold no system's weights; make the shipped ones with python -m msmedcap demo-weights."
        )
    shown = read_examples(examples) + bundled_examples()
    return Page(
        predictor,
        allow_burned_in=allow_burned_in,
        examples=shown,
        library=library(runs, data or {}),
        sign_in=sign_in or SignIn(),
        reviews=reviews,
    )


def read_examples(folder: Path) -> list[tuple[str, bytes]]:
    """(title, file content) of the scans listed in ``folder/index.json``; empty where there is no such file."""
    index = folder / "index.json"
    if not index.is_file():
        return []
    items = json.loads(index.read_text(encoding="utf-8"))
    return [(item["title"], (folder / item["file"]).read_bytes()) for item in items]


class Page:
    """The tabs and what leads from one to another; one instance a server, no visitor's state but in the store.

    ``blocks`` is gradio's, ``health`` what ``/health`` answers.
    """

    def __init__(
        self,
        models: Predictor,
        *,
        allow_burned_in: bool,
        examples: list[tuple[str, bytes]],
        library: Library,
        sign_in: SignIn,
        reviews: str | None,
    ) -> None:
        self._sign_in, self._store, self._turns = sign_in, Store(models, allow_burned_in=allow_burned_in), Turns()
        store, turns, journal = self._store, self._turns, Journal()
        self.health = Health(
            models=models.models,
            systems=models.systems,
            sessions=lambda: len(store),
            waiting=lambda: turns.waiting,
            running=lambda: turns.running,
        )
        pictures = [(title, open_scan(data).picture()) for title, data in examples]
        with gr.Blocks(
            title="MSMedCap", analytics_enabled=False, delete_cache=(600, 1800), fill_width=True
        ) as self.blocks:
            with gr.Row(elem_classes="mm-top"):
                gr.HTML(HEADER, apply_default_css=False)
                sign_in.button()
            with gr.Tabs(selected=SCAN, elem_id="mm-tabs") as self._tabs:
                with gr.Tab("Scan", id=SCAN):
                    self._scan = ScanTab(
                        models, store, turns, journal, examples=[data for _, data in examples], pictures=pictures
                    )
                if reviews:
                    # Readers are blinded: a study's cases must not lie on the next tab under the systems' names.
                    with gr.Tab("Review", id=REVIEW):
                        ReviewPanel(reviews, journal)
                else:
                    self._cases(library, allow_burned_in=allow_burned_in)
            Endpoints(models, turns, journal, allow_burned_in=allow_burned_in).add()
            Restoring(store).wire(self.blocks, self._scan, self._scan.screen.tray)
            self.blocks.unload(self._leave)
        self.blocks.queue(api_open=False, max_size=128)

    def launch(self, *, host: str, port: int, max_upload_mb: int = MAX_UPLOAD_MB) -> str:
        """Serve the page, from a thread of its own, and return its address; raises ``OSError`` where it cannot listen."""
        settings = self.launch_options(host=host, port=port, max_upload_mb=max_upload_mb)
        _, address, _ = self.blocks.launch(**settings)
        return str(address)

    def launch_options(self, *, host: str, port: int, max_upload_mb: int = MAX_UPLOAD_MB) -> dict[str, Any]:
        """What ``Blocks.launch`` is called with: where to listen, who may enter, and nothing kept of a visitor."""
        return {
            "server_name": host,
            "server_port": port,
            "auth": self._sign_in.password,
            "run_history": False,
            "max_file_size": max_upload_mb * 1024**2,
            "enable_monitoring": False,
            "show_error": False,
            "share": False,
            "ssr_mode": False,
            "footer_links": ["api"],
            "theme": theme(),
            "css_paths": list(STYLES),
            "app_kwargs": {
                "middleware": [
                    Middleware(Shut),
                    *self._sign_in.middleware(),
                    Middleware(UploadLimit, most=max_upload_mb * 1024**2),
                    Middleware(CountUploads),
                ],
                "routes": [self.health.route()],
                "lifespan": cleaning,
            },
            # Whoever waits for the models holds a thread meanwhile.
            "max_threads": 256,
            "quiet": True,
            "prevent_thread_lock": True,
        }

    def _cases(self, library: Library, *, allow_burned_in: bool) -> None:
        """The tabs of evaluations; a case of a run opens in the main tab as an upload does."""
        with gr.Tab("Cases", id=CASES) as tab:
            explorer = self._explorer = Explorer(library, allow_burned_in=allow_burned_in)
        with gr.Tab("Figure 4", id=FIGURE) as figure:
            FigureTab(library, explorer, allow_burned_in=allow_burned_in).wire(figure)
        scan = self._scan
        explorer.wire(tab)
        opening = [self._tabs, explorer.said, *scan.everything]
        shown = explorer.table.show_case(self._open_case, [explorer.run, explorer.own], opening, **OWN)
        shown.then(None, None, None, js=case_cards.SHOW_SCAN, **OWN)
        scan.then_caption(shown)
        back = scan.screen.case.leave(lambda: gr.Tabs(selected=CASES), None, self._tabs, **OWN)
        back.then(None, None, None, js=case_cards.SHOW_CASES, **OWN)

    def _leave(self, request: gr.Request) -> None:
        self._turns.cancel(request.session_hash or "")
        self._store.leave(request.session_hash or "")

    def _open_case(self, event: gr.EventData, run: str, own: Run | None, request: gr.Request) -> Updates:
        """A case of a run; what keeps it from opening is said where it was chosen."""
        explorer, session = self._explorer, self._scan.session(request)
        try:
            chosen, data = explorer.chosen(event, run, own)
            session.open(data)
        except Exception as error:
            return explorer.say(sentence(error, "opening the case"), error=True)
        session.case = chosen
        return {self._tabs: gr.Tabs(selected=SCAN), **self._scan.show(session)}
