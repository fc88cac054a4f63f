"""The tab "Review": where a reader logs in and judges case after case.

Comes in: a store of studies. Goes out: components, built inside a ``gr.Tab``. All of it is one canvas of our own; it asks the
:class:`~msmedcap.demo.review.desk.Desk`, for a save must be answered before it is shown as saved, which the page's events do not
promise. The browser keeps a login for as long as its tab is open, and what was not acknowledged yet; nothing else.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from msmedcap.demo.frontend import static_text
from msmedcap.demo.review.desk import Desk
from msmedcap.demo.review.results_panel import ResultsPanel
from msmedcap.demo.serving.logs import Journal
from msmedcap.demo.store import ReviewStore


class ReviewPanel:
    """The readers' canvas, and below it the owner's results; ``reviews`` is the address of the studies' database."""

    def __init__(self, reviews: str, journal: Journal) -> None:
        """Raises :class:`~msmedcap.config.UserError` where the database cannot be opened."""
        self.store = ReviewStore(reviews)
        desk = Desk(self.store)

        def review(asked: Any) -> dict[str, Any]:
            if not (isinstance(asked, dict) and asked.get("do") == "save"):
                return desk.answer(asked)
            with journal.event("rated") as happening:
                told = desk.answer(asked)
                happening.outcome = "error" if "error" in told else "ok"
            return told

        gr.HTML(
            '<div class="mm-review"><p class="mm-small">Opening the review…</p></div>',
            js_on_load=static_text("review_form.js", "review.js"),
            server_functions=[review],
            apply_default_css=False,
            elem_id="mm-review",
        )
        ResultsPanel(self.store)
