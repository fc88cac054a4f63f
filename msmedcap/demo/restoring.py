"""A page that is loaded again shows what it showed before. Comes in: the token a tab kept. Goes out: the visitor's session, shown.

The token lies in the tab's ``sessionStorage``: it goes with the tab, so the next reader at the same computer does not find the
scans of the one before. Who may come back, and for how long, is :mod:`msmedcap.demo.serving.visitors`.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from msmedcap.demo.frontend import static_text
from msmedcap.demo.panels import OWN, Seam, Updates
from msmedcap.demo.session import Store
from msmedcap.demo.tray.panel import TrayPanel, once

_KEPT = "() => { try { return [{token: sessionStorage.getItem('msmedcap-visitor') ?? ''}]; } catch { return [{}]; } }"


class Restoring:
    """Ties pages to visitors; build it inside ``gr.Blocks``, after the components it fills."""

    def __init__(self, store: Store) -> None:
        self._store = store
        script = static_text("visitor.js")
        self._token = gr.HTML(None, html_template="<span></span>", apply_default_css=False, js_on_load=script)

    def wire(self, blocks: gr.Blocks, seam: Seam, tray: TrayPanel) -> None:
        """Attach the events of a page that is loaded; captioning that was under way goes on."""
        self._seam, self._tray = seam, tray
        # Most pages that are loaded have nothing to show again: they get a token, and only who comes back asks for the rest.
        blocks.load(self._arrive, self._token, self._token, js=_KEPT, **OWN)
        self._token.wake(self._wake, None, self._token, **OWN)
        shown = self._token.come_back(self._show, None, once([*tray.outputs, *seam.everything, seam.status]), **OWN)
        seam.then_caption(shown)
        tray.walk_after(shown)

    def _arrive(self, kept: Any, request: gr.Request) -> dict[str, Any]:
        token = kept.get("token") if isinstance(kept, dict) else None
        session, token = self._store.arrive(request.session_hash or "", token, login=request.username or "")
        session.sent.forget()  # this page has nothing of what the one before was sent
        return {"token": token, "back": len(session.tray) > 0}

    def _wake(self, event: gr.EventData, request: gr.Request) -> dict[str, Any]:
        """A page that was asleep or offline may have been given up meanwhile: it says again whose it is."""
        _, token = self._store.arrive(request.session_hash or "", event.token, login=request.username or "")
        return {"token": token, "back": False}

    def _show(self, request: gr.Request) -> Updates:
        session = self._seam.session(request)
        page = self._seam.show(session) if session.scan is not None else {}
        return {**self._tray.show(session), **page}
