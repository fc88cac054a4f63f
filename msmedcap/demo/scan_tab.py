"""The tab "Scan": what happens when something is opened, pressed or pointed at. First the picture, then maps, then captions.

Comes in: a predictor (real or fake) and the examples. Goes out: the tab's components with their events attached; it is the
:class:`~msmedcap.demo.panels.Seam` that panels are attached to. What stands where is :mod:`msmedcap.demo.screen`; what a
visitor opened lives in :mod:`msmedcap.demo.session`; whose turn it is at the models in :mod:`msmedcap.demo.serving.turns`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from msmedcap.demo.panels import LAST, OWN, WAITING, Updates
from msmedcap.demo.screen import MANUAL, Screen
from msmedcap.demo.serving.logs import Journal
from msmedcap.demo.serving.turns import Cancelled, Ticket, Turns, place_words
from msmedcap.demo.session import Session, Store, sentence
from msmedcap.demo.words.chosen import spell

if TYPE_CHECKING:
    from msmedcap.predictor import Predictor

_FORGOTTEN = "There is no open scan; it was forgotten after a long pause. Please open it again."
# What was asked for is answered on its own side tab; the focus stays where it is.
_TURN_TO = """() => { for (const tab of document.querySelectorAll('#mm-side [role=tab]'))
  if (tab.textContent.trim() === '%s' && tab.getAttribute('aria-selected') !== 'true') tab.click(); }"""
_STOPPED = "Stopped. Press “Caption this view” to write the captions."


class ScanTab:
    """The tab's components and events; build it inside ``gr.Blocks``. One a server, no visitor's state but in ``store``."""

    def __init__(
        self,
        models: Predictor,
        store: Store,
        turns: Turns,
        journal: Journal,
        *,
        examples: Sequence[bytes],
        pictures: Sequence[tuple[str, np.ndarray]],
    ) -> None:
        self._store, self.turns, self.journal, self._examples = store, turns, journal, examples
        self.screen = Screen(models, pictures)
        self.viewer, self.status, self.everything = self.screen.viewer, self.screen.status, self.screen.everything
        self._wire()

    def session(self, request: gr.Request) -> Session:
        """The session of the visitor who asks."""
        return self._store.get(request.session_hash or "")

    def redraw(self, session: Session) -> Updates:
        """The picture area as ``session`` is now."""
        return self.screen.picture(session)

    def say(self, text: str) -> Updates:
        """The status line."""
        return self.screen.say(text)

    def refuse(self, session: Session, text: str) -> Updates:
        """The status line says why what the visitor asked for was not done; what older work has to say leaves it there."""
        session.mistakes += 1
        return self.screen.say(text, error=True)

    def teller(self, session: Session) -> Callable[[str], Updates]:
        """:meth:`say` for work that begins now, which falls silent where something asked for since was refused."""
        return self._since(session, session.mistakes)

    def _since(self, session: Session, mistakes: int) -> Callable[[str], Updates]:
        return lambda text: self.say(text) if session.mistakes == mistakes else {self.status: gr.skip()}

    def show(self, session: Session) -> Updates:
        """Everything of the tab for the scan that ``session`` has just opened; outputs: ``everything``."""
        if session.scan is None:
            return self.screen.nothing()
        session.waiting, session.asked = session.reading is None, session.mistakes
        said = "Drawing the maps…" if session.waiting or not session.maps else "The captions are written."
        return {**self.screen.view(session, busy=session.waiting), **self.say(said)}

    def then_caption(self, shown: Any) -> None:
        """After the event ``shown`` come the maps of the open view, then its captions, each in its turn at the models."""
        on = self.screen
        drawn = shown.then(self._draw, on.system, on.on_maps, **OWN, **WAITING)
        on.tray.refresh_after(shown)
        written = drawn.then(self._caption, [on.preset, on.prompt], [*on.on_captions, on.stop], **OWN, **WAITING)
        on.tray.refresh_after(written)

    def _wire(self) -> None:
        on = self.screen
        for shown in (
            on.examples.pick(self._open_example, None, on.everything, **OWN),
            on.again.click(self._again, None, on.on_captions, **OWN),
            on.viewer.again(self._again, None, on.on_captions, **OWN),
        ):
            self.then_caption(shown)
        on.window.input(self._choose_window, on.window, on.everything, **LAST)
        for number in (on.width, on.level):
            number.input(self._set_window, [on.width, on.level], on.everything, **LAST)
        on.viewer.window(self._drag_window, None, on.everything, **LAST)
        on.viewer.frame(self._turn_to, None, on.everything, **LAST)
        on.viewer.full(self._full, None, on.viewer, **LAST)
        on.viewer.missing(self._missing, None, on.viewer, **LAST)
        on.viewer.place(self._place, on.system, on.on_maps, **LAST, **WAITING)
        on.system.input(self._redraw, on.system, on.on_maps, **LAST, **WAITING)
        on.maps.pick(self._choose, None, on.on_maps, **LAST)
        for event, tab in ((on.viewer.prompt, "Structures"), (on.cards.word, "Words"), (on.viewer.place, "Maps")):
            event(None, None, None, js=_TURN_TO % tab, **OWN)
        on.stop.click(self._stop, None, on.stop, **OWN)
        on.structures.wire(self)
        on.words.wire(self, cards=on.cards, draw=on.map, drawn=on.on_maps)
        on.tray.wire(self, preset=on.preset, prompt=on.prompt)

    def _open_example(self, event: gr.EventData, request: gr.Request) -> Updates:
        """Only decodes."""
        session = self.session(request)
        try:
            with self.journal.event("opened", request.session_hash, **{"from": "example"}):
                session.open(self._examples[int(event.index)])
        except Exception as error:
            return self.refuse(session, sentence(error, "opening the example"))
        return self.show(session)

    def _change(self, request: gr.Request, *, window: str | None = None, frame: int | None = None) -> Updates:
        """Another window or frame: only the picture changes; the captions stay and say what they were written for."""
        on, session = self.screen, self.session(request)
        predictor, scan = session.predictor, session.scan
        if predictor is None or scan is None:
            return {**on.nothing(), **self.refuse(session, _FORGOTTEN)}
        chosen = predictor.window if window is None else window
        marked = session.segments.current is not None
        place = predictor.frame if frame is None else min(max(frame, 0), scan.frames - 1)
        try:
            session.open(scan, window=chosen, frame=place)
        except Exception as error:
            return self.refuse(session, sentence(error, "changing the view"))
        said = "The picture changed. Press “Caption this view”, or C on the picture, for its maps and captions."
        if marked:
            said += " Places that were marked and not kept are gone."
        return {**on.view(session, busy=False), **on.say(said)}

    def _choose_window(self, window: str, request: gr.Request) -> Updates:
        return self._change(request, window=None if window == MANUAL else window)

    def _set_window(self, width: float | None, level: float | None, request: gr.Request) -> Updates:
        if not width or level is None:
            return self.refuse(self.session(request), "Give a width above zero and a level.")
        return self._change(request, window=f"{width:g},{level:g}")

    def _drag_window(self, event: gr.EventData, request: gr.Request) -> Updates:
        """A window dragged on the picture, or one of its presets by name."""
        name = getattr(event, "name", None)
        return self._change(request, window=str(name) if name else f"{float(event.width):g},{float(event.level):g}")

    def _turn_to(self, event: gr.EventData, request: gr.Request) -> Updates:
        return self._change(request, frame=int(event.index))

    def _full(self, request: gr.Request) -> Updates:
        return self.screen.picture(self.session(request), full=True)

    def _missing(self, request: gr.Request) -> Updates:
        session = self.session(request)
        session.sent.forget()
        return self.screen.picture(session)

    def _again(self, request: gr.Request) -> Updates:
        on, session = self.screen, self.session(request)
        if session.scan is None:
            return self.refuse(session, _FORGOTTEN)
        session.waiting, session.asked = True, session.mistakes
        return {**on.captions(session, busy=True), **on.say("Drawing the maps…")}

    def _draw(self, system: str, request: gr.Request) -> Iterator[Updates]:
        """The maps of a view that has none yet."""
        on, session = self.screen, self.session(request)
        if session.scan is None or (session.maps and not session.waiting):
            yield {on.status: gr.skip()}  # the file was refused, or an open scan is looked at again: all stays as it is
            return
        # A file that was refused meanwhile leads here as well, and may come first: the view that waits is drawn all the same.
        tell = self._since(session, session.asked)
        yield from self._maps(request, system, "Writing the captions…" if session.waiting else f"Maps of {system}.", tell)

    def _redraw(self, system: str, request: gr.Request) -> Iterator[Updates]:
        tell = self.teller(self.session(request))
        yield from self._maps(request, system, f"Attention maps of {system}.", tell)

    def _place(self, system: str, event: gr.EventData, request: gr.Request) -> Iterator[Updates]:
        session = self.session(request)
        session.compare((float(event.x), float(event.y)))
        said = "The map shows where SAM's features are like those of the marked place."
        yield from self._maps(request, system, said, self.teller(session))

    def _maps(
        self, request: gr.Request, system: str, said: str, tell: Callable[[str], Updates]
    ) -> Iterator[Updates]:
        on, session = self.screen, self.session(request)
        if session.scan is None:
            yield self.refuse(session, _FORGOTTEN)
            return
        try:
            with self.turns.ticket(request.session_hash or "") as ticket:
                for ahead in ticket.wait():
                    yield tell(place_words(ahead))
                with self.journal.event("mapped", request.session_hash):
                    session.draw(system)
        except Cancelled:
            yield tell(_STOPPED)
        except Exception as error:
            yield self.refuse(session, sentence(error, "drawing the maps"))
        else:
            yield {**on.map(session), **tell(said)}

    def _choose(self, event: gr.EventData, request: gr.Request) -> Updates:
        session = self.session(request)
        session.choose(int(event.index))
        return self.screen.map(session)

    def _caption(self, preset: str, prompt: str, request: gr.Request) -> Iterator[Updates]:
        on, session = self.screen, self.session(request)
        if session.scan is None or not session.waiting:
            yield {on.status: gr.skip()}
            return
        session.waiting, tell = False, self._since(session, session.asked)
        yield {**on.captions(session, busy=True), on.stop: gr.Button("Stop", visible=True)}
        with self.journal.event("captioned", request.session_hash, preset=preset) as told:
            try:
                with self.turns.ticket(request.session_hash or "") as ticket:
                    for ahead in ticket.wait():
                        yield tell(place_words(ahead))
                    yield tell("Writing the captions…")
                    yield from self._write(session, ticket, preset, prompt)
            except Cancelled:
                told.cancelled()
                session.forget_reading()
                last = {**on.captions(session), **tell(_STOPPED)}
            else:
                told.outcome = "error" if session.reading is not None and session.reading.failed else "ok"
                last = self._closing(session, tell)
        yield {**last, on.stop: gr.Button(visible=False)}

    def _closing(self, session: Session, tell: Callable[[str], Updates]) -> Updates:
        """The closing sentence and the warnings, once the captions are done."""
        reading, predictor = session.reading, session.predictor
        if predictor is None or reading is None or not reading.done:
            return {self.status: gr.skip()}
        said = "The captions are written."
        if not reading.written:
            said = next(iter(reading.failed.values()), "No system had anything to write.")
        elif reading.failed:
            said = "Not every system could write its caption; see the cards."
        closing = self.refuse(session, said) if reading.failed else tell(said)
        return {**closing, **self.screen.warned(predictor.warnings)}

    def _write(self, session: Session, ticket: Ticket, preset: str, prompt: str) -> Iterator[Updates]:
        """The captions as they grow, then what is known of their words; raises :class:`Cancelled` where the visitor stops it."""
        with contextlib.closing(session.captions(preset=preset, prompt=prompt or None)) as growing:
            for _ in growing:
                if ticket.cancelled:
                    raise Cancelled
                yield self.screen.captions(session)
        spell(session)
        yield self.screen.captions(session)

    def _stop(self, request: gr.Request) -> Updates:
        self.turns.cancel(request.session_hash or "")
        return {self.screen.stop: gr.Button(visible=False)}
