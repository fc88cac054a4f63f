"""``/health``: whether the server answers and how busy it is, for whoever keeps it running. Nothing of a visitor is in it.

Comes in: functions that count. Goes out: a route for gradio's app; it answers from the event loop, so also while a model runs,
and without signing in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import msmedcap

PATH = "/health"


@dataclass(frozen=True)
class Health:
    """What the server says of itself: ``models`` and ``systems`` as loaded, ``sessions`` and ``waiting`` counted when asked.

    ``running`` gives the seconds that the model has been at the present answer, or None while it rests.
    """

    models: str
    systems: Sequence[str]
    sessions: Callable[[], int]
    waiting: Callable[[], int]
    running: Callable[[], float | None]
    started: float = field(default_factory=time.monotonic)

    def report(self) -> dict[str, Any]:
        """The answer: ``status``, ``version``, ``models``, ``systems``, ``sessions``, ``queue``, ``running_s``, ``uptime_s``."""
        running = self.running()
        return {
            "status": "ok",
            "version": msmedcap.__version__,
            # A folder's name would tell how the server's disk is laid out.
            "models": self.models if self.models in ("demo", "full") else "folder",
            "systems": list(self.systems),
            "sessions": self.sessions(),
            "queue": self.waiting(),
            "running_s": None if running is None else round(running, 1),
            "uptime_s": round(time.monotonic() - self.started, 1),
        }

    def route(self) -> Route:
        """The route to hand to gradio: ``app_kwargs={"routes": [health.route()]}``."""

        async def answer(request: Request) -> JSONResponse:
            return JSONResponse(self.report(), headers={"Cache-Control": "no-store"})

        return Route(PATH, answer, methods=["GET"])  # starlette adds HEAD
