"""The panel "Words": the chosen word's map on the picture, how it is made and of which branch, and what is known of the word.

Comes in: the cards' event ``word`` {system, word} and the choosers. Goes out: components (attributes of :class:`WordsPanel`) and
updates for them. What was chosen is :class:`msmedcap.demo.words.chosen.Words`, the session's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from msmedcap.demo.panels import LAST, OWN, WAITING, Seam, Updates
from msmedcap.demo.serving.turns import Cancelled, place_words
from msmedcap.demo.session import Session, sentence
from msmedcap.demo.words.chosen import branches, look_for, show_word, word_card
from msmedcap.explain.words import METHOD, METHODS

if TYPE_CHECKING:
    from msmedcap.explain.maps import Map

_METHODS = [(f"{told[0].upper()}{told[1:]}", name) for name, told in METHODS.items()]
_TINT = "(on) => { document.documentElement.classList.toggle('mm-tinted', on); }"


class WordsPanel:
    """The panel's components; build it inside ``gr.Blocks``. ``measured``: by system and method, how its maps fare, in a sentence.

    Put :attr:`shown` among the outputs of every event that changes the view, and :meth:`update` into its updates.
    """

    def __init__(self, measured: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self._measured = dict(measured or {})
        with gr.Row(elem_classes="mm-controls"):
            self.branch = gr.Radio([], label="Branch", min_width=120, visible=False, elem_id="mm-word-branch")
            self.method = gr.Dropdown(_METHODS, value=METHOD, label="Map made by", min_width=170, elem_id="mm-word-method")
        self.tint = gr.Checkbox(False, label="Tint words the model was unsure of", elem_id="mm-word-tint")
        self.card = gr.HTML(self._card(None), apply_default_css=False, elem_id="mm-word")
        self.shown = [self.branch, self.card]

    def wire(
        self, seam: Seam, *, cards: gr.HTML, draw: Callable[[Session], Updates], drawn: Sequence[Any]
    ) -> None:
        """Attach the events to the page: ``cards`` is the captions' component, ``draw`` shows a session's maps in ``drawn``."""
        self._seam, self._draw = seam, draw
        outputs = list(dict.fromkeys([seam.status, *drawn, *self.shown]))
        cards.word(self._choose, [self.method, self.branch], outputs, **LAST, **WAITING)
        for control in (self.method, self.branch):
            control.input(self._again, [self.method, self.branch], outputs, **LAST, **WAITING)
        self.tint.input(None, [self.tint], None, js=_TINT, **OWN)

    def update(self, session: Session) -> Updates:
        """The panel as ``session`` is now."""
        names = branches(session)
        item = session.maps[session.shown] if session.maps else None
        shown = item if item is not None and item.kind == "word" else None
        shown = shown or next((found for found in session.maps if found.kind == "word"), None)
        chosen = shown.branch if shown is not None else None
        choices = [(name.upper(), name) for name in names]
        return {
            self.branch: gr.Radio(choices, value=chosen, visible=len(names) > 1),
            self.card: self._card(session, shown),
        }

    def _card(self, session: Session | None, shown: Map | None = None) -> str:
        """``shown`` is the chosen word's map, where there is one yet."""
        words = session.words if session is not None else None
        system = words.chosen[0] if words is not None and words.chosen is not None else ""
        return word_card(words, measured=self._measured.get(system, {}), shown=shown)

    def _choose(
        self, event: gr.EventData, method: str, branch: str | None, request: gr.Request
    ) -> Iterator[Updates]:
        yield from self._show(request, str(event.system), int(event.word), method, branch)

    def _again(self, method: str, branch: str | None, request: gr.Request) -> Iterator[Updates]:
        """The chosen word by another method, or of another branch."""
        chosen = self._seam.session(request).words.chosen
        if chosen is None:
            yield {self._seam.status: gr.skip()}
            return
        yield from self._show(request, *chosen, method, branch)

    def _show(
        self, request: gr.Request, system: str, place: int, method: str, branch: str | None
    ) -> Iterator[Updates]:
        seam, session = self._seam, self._seam.session(request)
        words, tell = session.words, seam.teller(session)
        before = words.chosen, words.method
        try:
            with seam.turns.ticket(request.session_hash or "") as ticket:
                for ahead in ticket.wait():
                    yield tell(place_words(ahead))
                looking = look_for(session, system, place, method=method)
                if looking:
                    yield {**tell(looking), self.card: self._card(session)}
                said = show_word(session, system, place, method=method, branch=branch)
        except Cancelled:
            yield tell("Stopped.")
        except Exception as error:
            words.chosen, words.method = before
            yield {**seam.refuse(session, sentence(error, "drawing the word's map")), **self.update(session)}
        else:
            yield {**self._draw(session), **tell(said), **self.update(session)}
