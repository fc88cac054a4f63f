"""The owner's corner of the tab "Review": log in with the owner's secret, read the results, download the files.

Comes in: a store of studies. Goes out: components, built inside the tab, below the readers' canvas. Downloads are made in the
browser from what the server answers, so that no file of a study lies where another visitor could fetch it.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from msmedcap.demo.frontend import static_text
from msmedcap.demo.review.ledger import Ledger
from msmedcap.demo.store import ReviewStore


class ResultsPanel:
    """The owner's canvas, folded away until it is wanted."""

    def __init__(self, store: ReviewStore) -> None:
        ledger = Ledger(store)

        def results(asked: Any) -> dict[str, Any]:
            return ledger.answer(asked)

        with gr.Accordion("For the study's owner: results and files", open=False, elem_id="mm-owner"):
            gr.HTML(
                '<div class="mm-owner"></div>',
                js_on_load=static_text("results.js"),
                server_functions=[results],
                apply_default_css=False,
                elem_id="mm-owner-view",
            )
