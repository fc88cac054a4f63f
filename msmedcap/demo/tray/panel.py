"""The tray on the page: many scans at once, captioned together, compared in a table, and taken home in one file.

Comes in: files a visitor sends, clicks. Goes out: the components (attributes of :class:`TrayPanel`) and updates for them. What is
in a tray is :mod:`msmedcap.demo.tray.tray`. Captioning takes its turn at the models for each scan anew, so that other visitors
come in between; a download is made in the browser from what it is sent, so that nothing of it stays on the server.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from msmedcap.data.scans import Collector
from msmedcap.demo.frontend import static_text
from msmedcap.demo.panels import OWN, WAITING, Seam, Updates
from msmedcap.demo.reading import sentence
from msmedcap.demo.serving.turns import Cancelled, place_words
from msmedcap.demo.serving.uploads import UPLOADS
from msmedcap.demo.session import Session
from msmedcap.demo.tray import cards as tray_cards
from msmedcap.demo.tray import export as tray_export
from msmedcap.demo.tray.tray import Entry, Tray

if TYPE_CHECKING:
    from msmedcap.predictor import Predictor

_TYPES = {"csv": "text/csv", "json": "application/json", "zip": "application/zip"}
_MAKERS = {"csv": tray_export.as_csv, "json": tray_export.as_json, "zip": tray_export.as_zip}
_TOLD_EVERY = 8  # files read between two words about it


class TrayPanel:
    """The tray's components; build it inside ``gr.Blocks``. ``files`` is the page's own field for files, where it has one."""

    def __init__(self, models: Predictor, *, files: gr.File | None = None) -> None:
        self._systems = tuple(models.systems)
        self._made_with = functools.cache(lambda: tray_export.made_with(models.models, models.systems))
        self._seam: Seam
        self.files = files or gr.File(
            label="Scans", show_label=False, file_count="multiple", type="filepath", height=116, elem_id="mm-tray-files"
        )
        js = static_text("tray.js")
        empty = Tray()
        self.list = gr.HTML(tray_cards.scan_list(empty), apply_default_css=False, js_on_load=js, elem_id="mm-tray")
        with gr.Row(elem_classes="mm-tray-bar"):
            self.all = gr.Button("Caption all", size="md", scale=0, min_width=130, visible=False, elem_id="mm-tray-all")
            self.cancel = gr.Button("Cancel", size="md", scale=0, min_width=110, visible=False, elem_id="mm-tray-cancel")
            self.progress = gr.HTML(apply_default_css=False, elem_id="mm-tray-progress")
        self.results = gr.HTML(apply_default_css=False, elem_id="mm-tray-results")
        with gr.Row(elem_classes="mm-tray-bar", visible=False) as self.exports:
            self._downloads = {
                kind: gr.Button(f"Download {kind.upper()}", size="md", scale=0, min_width=150, elem_id=f"mm-tray-{kind}")
                for kind in _TYPES
            }
        save = static_text("save.js")
        self._file = gr.HTML(None, html_template="<span></span>", apply_default_css=False, js_on_load=save)
        self.outputs = [self.list, self.all, self.cancel, self.progress, self.results, self.exports]

    def wire(self, seam: Seam, *, preset: gr.components.Component, prompt: gr.components.Component) -> None:
        """Attach the events; ``preset`` and ``prompt`` are the page's, for captions of all scans as for those of one."""
        self._seam = seam
        self._everything = once([*self.outputs, *seam.everything, seam.status])
        reading = {**OWN, "concurrency_limit": None}
        seam.then_caption(self.files.upload(self._add, self.files, [self.files, *self._everything], **reading))
        seam.then_caption(self.list.open_scan(self._open, None, self._everything, **OWN))
        self.list.remove_scan(self._remove, None, self._everything, **OWN)
        started = self.all.click(self._start, [preset, prompt], self._everything, trigger_mode="once", **OWN)
        self.walk_after(started)
        self.cancel.click(self._cancel, None, self._everything, **OWN)
        for kind, button in self._downloads.items():
            made = button.click(self._exporter(kind), None, [self._file, seam.status], **OWN)
            # The browser has the file now; it is not to wait here for the visitor to leave.
            made.then(lambda: None, None, self._file, **OWN)

    def walk_after(self, event: Any) -> None:
        """Once ``event`` is over, go on captioning where a walk through the tray is under way."""
        event.then(self._walk, None, self._everything, **OWN, **WAITING)

    def refresh_after(self, event: Any) -> None:
        """Once ``event`` is over, show the tray as it is: for what the rest of the page opens and captions."""
        event.then(self._refresh, None, self.outputs, **OWN)

    def show(self, session: Session, *, note: str = "") -> Updates:
        """The tray as it is now; outputs: ``outputs``."""
        tray = session.tray
        walk = tray.walk
        some = any(entry.scan is not None for entry in tray.entries)
        return {
            self.list: tray_cards.scan_list(tray, reading=walk.entry if walk else ""),
            self.all: gr.Button("Caption all", visible=some and walk is None),
            self.cancel: gr.Button("Cancel", visible=walk is not None),
            self.progress: tray_cards.progress(tray, note=note),
            self.results: tray_cards.results(tray, self._systems),
            self.exports: gr.Row(visible=any(entry.written for entry in tray.entries)),
        }

    def _refresh(self, request: gr.Request) -> Updates:
        session = self._seam.session(request)
        return self.show(session) if len(session.tray) else {self.list: gr.skip()}

    def _add(self, files: Sequence[str] | str | None, request: gr.Request) -> Iterator[Updates]:
        """Read every file, which is gone from the disk then; what can be shown joins the tray, and the first of it is opened."""
        seam, session = self._seam, self._seam.session(request)
        paths = [files] if isinstance(files, str) else list(files or [])
        collector = Collector(allow_burned_in=session.allow_burned_in, most_bytes=session.tray.room)
        said, added = "", []
        for number, path in enumerate(paths, start=1):
            if len(paths) > 1 and number % _TOLD_EVERY == 1:
                yield seam.say(f"Reading file {number} of {len(paths)}…")
            try:
                data = UPLOADS.take(path)  # also of those that are not wanted any more: none may stay on the disk
                if not said:
                    collector.add(data)
            except Exception as error:
                said = sentence(error, "reading the files")
        try:
            added = [] if said else session.tray.add(collector.found())
            first = next((entry for entry in added if entry.scan is not None), None)
            if first is not None:
                session.turn_to(first.id)
        except Exception as error:
            said = sentence(error, "opening the files")
        shown = {self.files: None, **self.show(session)}
        if any(entry.scan is not None for entry in added) and not said:
            shown |= seam.show(session)
            if len(paths) > 1 or len(added) > 1:
                shown |= seam.say(_opened(added, collector.left_out))
        else:
            said = said or next((entry.error for entry in added if entry.error), "No file was sent.")
            still = " The scan before it is still open." if session.scan is not None else ""
            shown |= seam.refuse(session, said + still)
        yield shown

    def _open(self, event: gr.EventData, request: gr.Request) -> Updates:
        seam, session = self._seam, self._seam.session(request)
        try:
            session.turn_to(str(event.id))
        except Exception as error:
            return {**self.show(session), **seam.refuse(session, sentence(error, "opening the scan"))}
        return {**self.show(session), **seam.show(session)}

    def _remove(self, event: gr.EventData, request: gr.Request) -> Updates:
        seam, session = self._seam, self._seam.session(request)
        shown, id = session.tray.current, str(event.id)
        session.remove(id)
        page = seam.show(session) if shown == id else {}
        return {**page, **self.show(session), **seam.say(f"{id} was removed.")}

    def _start(self, preset: str, prompt: str, request: gr.Request) -> Updates:
        session = self._seam.session(request)
        session.keep_view()
        session.tray.start(preset=preset, prompt=prompt or None)
        said = "" if session.tray.walk else "Every scan has its captions."
        return {**self.show(session), **(self._seam.say(said) if said else {})}

    def _cancel(self, request: gr.Request) -> Updates:
        session = self._seam.session(request)
        session.tray.stop()
        return {**self.show(session), **self._seam.say("Stopped. Captions written so far are kept.")}

    def _walk(self, request: gr.Request) -> Iterator[Updates]:
        """Caption scan after scan, each in a turn of its own, until all are done or it is cancelled."""
        seam, session = self._seam, self._seam.session(request)
        tray, captioned, tell = session.tray, 0, seam.teller(session)
        walker = tray.walker()
        yield {seam.status: gr.skip()}  # a generator that yields nothing empties its outputs
        while (walk := tray.walk) is not None:
            yield self.show(session)
            try:
                # Not the page's own name: leaving a page gives up its places, and a walk outlives its page's reload.
                with seam.turns.ticket(f"tray of {request.session_hash}") as ticket:
                    for ahead in ticket.wait():
                        if tray.walk != walk:
                            raise Cancelled
                        yield self.show(session, note=place_words(ahead))
                    for _ in session.caption_next(walker):
                        pass
            except Cancelled:
                continue  # its scan was removed, or all of it stopped, while it waited
            if tray.walk == walk:
                return  # the same visitor's page was loaded again and walks on
            captioned += 1
            page = seam.show(session) if tray.current == walk.entry and session.reading is not None else {}
            yield {**page, **self.show(session)}
        if captioned:
            yield {**self.show(session), **tell("All scans have been captioned." if not _left(tray) else "Stopped.")}

    def _exporter(self, kind: str) -> Callable[[gr.Request], Updates]:
        def export(request: gr.Request) -> Updates:
            session = self._seam.session(request)
            try:
                data = _MAKERS[kind](session.tray, self._made_with())
            except Exception as error:
                return self._seam.refuse(session, sentence(error, "making the file"))
            uri = f"data:{_TYPES[kind]};base64,{base64.b64encode(data).decode()}"
            file = {"name": f"msmedcap-captions.{kind}", "uri": uri}
            return {self._file: file, **self._seam.say(f"The {kind.upper()} file is in your downloads.")}

        return export


def _left(tray: Tray) -> bool:
    return any(entry.state == "waiting" for entry in tray.entries)


def _opened(added: Sequence[Entry], left_out: int) -> str:
    scans = sum(entry.scan is not None for entry in added)
    failed = len(added) - scans
    words = [f"{scans} scans were added to the tray." if scans != 1 else "One scan was added to the tray."]
    if failed:
        words.append("One file could not be opened." if failed == 1 else f"{failed} files could not be opened.")
    if left_out:
        words.append("One file is no picture." if left_out == 1 else f"{left_out} files are no pictures.")
    return " ".join(words)


def once(components: Sequence[Any]) -> list[Any]:
    """Each component once, in their order."""
    return list({id(component): component for component in components}.values())
