"""A page that is loaded again shows what it showed before. Comes in: the token a tab kept. Goes out: the visitor's session, shown.

The token lies in the tab's ``sessionStorage``: it goes with the tab, so the next reader at the same computer does not find the
scans of the one before. Who may come back, and for how long, is :mod:`msmedcap.demo.visitors`.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from msmedcap.demo.panels import OWN, Seam, Updates
from msmedcap.demo.session import Store
from msmedcap.demo.tray_panel import TrayPanel, once

_NAME = "msmedcap-visitor"
# Storage may be forbidden: the page works then, and forgets on reload.
_KEPT = f"() => {{ try {{ return [sessionStorage.getItem('{_NAME}') ?? '']; }} catch {{ return ['']; }} }}"
_KEEP = f"(token) => {{ try {{ sessionStorage.setItem('{_NAME}', token); }} catch {{ }} return []; }}"


class Restoring:
    """Ties pages to visitors; build it inside ``gr.Blocks``, after the components it fills."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._token = gr.Textbox(visible=False)

    def wire(self, blocks: gr.Blocks, seam: Seam, tray: TrayPanel) -> None:
        """Attach the events of a page that is loaded; captioning that was under way goes on."""
        self._seam, self._tray = seam, tray
        # What a load event fills before it is on the screen loses what it was made with: it fills the token alone.
        arrived = blocks.load(self._arrive, self._token, self._token, js=_KEPT, **OWN)
        arrived.then(None, self._token, None, js=_KEEP, **OWN)
        shown = arrived.then(self._show, None, once([*tray.outputs, *seam.everything, seam.status]), **OWN)
        seam.then_caption(shown)
        tray.walk_after(shown)

    def _arrive(self, token: Any, request: gr.Request) -> str:
        session, kept = self._store.arrive(request.session_hash or "", token, login=request.username or "")
        session.sent.forget()  # this page has nothing of what the one before was sent
        return kept

    def _show(self, request: gr.Request) -> Updates:
        session = self._seam.session(request)
        if not len(session.tray):
            return {self._seam.status: gr.skip()}
        page = self._seam.show(session) if session.scan is not None else {}
        return {**self._tray.show(session), **page}
