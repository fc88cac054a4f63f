"""What a panel of the page needs of the page: the picture, the status line, the visitor's session. Settings that events share.

A panel builds its components in the ``gr.Blocks`` being made and attaches its events to a :class:`Seam`; so it is tested without
the rest of the page, and the page knows of it no more than its name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import gradio as gr

from msmedcap.demo.serving.logs import Journal
from msmedcap.demo.serving.turns import Turns
from msmedcap.demo.session import Session

Updates = dict[Any, Any]
# The page's own events: not offered to programs. Progress is said in our own status line: with no component to show gradio's on,
# the browser need not copy every output's value (and, of a column, those of all within it) at each turn of each event.
OWN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "show_progress_on": []}
LAST: dict[str, Any] = {**OWN, "trigger_mode": "always_last"}
# Events that run a model wait for their turn in demo.serving.turns, where the visitor can see the place in the line and leave it.
WAITING: dict[str, Any] = {"concurrency_limit": None}
# The same for those that have nothing to show while they wait.
MODEL_LOCK: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}


class Seam(Protocol):
    """The page, as its panels see it."""

    viewer: gr.HTML
    status: gr.HTML
    turns: Turns
    journal: Journal
    everything: list[Any]

    def session(self, request: gr.Request) -> Session:
        """The session of the visitor who asks."""

    def redraw(self, session: Session) -> Updates:
        """The picture area as ``session`` is now; ``viewer`` must be among the event's outputs."""

    def show(self, session: Session) -> Updates:
        """Everything for the scan that ``session`` has just opened; ``everything`` must be the event's outputs."""

    def then_caption(self, shown: Any) -> None:
        """After the event ``shown`` come the maps of the open view, then its captions where there are none."""

    def say(self, text: str) -> Updates:
        """The status line; ``status`` must be among the event's outputs."""

    def refuse(self, session: Session, text: str) -> Updates:
        """The status line says why what the visitor asked for was not done. It stays until the next thing is asked for."""

    def teller(self, session: Session) -> Callable[[str], Updates]:
        """:meth:`say` for work that begins now: what it has to say does not take the place of a refusal that came after it."""
