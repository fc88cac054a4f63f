"""Captions as they are written: what is known of them at each moment, and the words for a view and for what went wrong.

Comes in: a predictor with a scan. Goes out: growing :class:`Reading` objects, the same for the scan on show and for many in a row.
No gradio here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from msmedcap.config import UserError
from msmedcap.data.scans import ScanError

if TYPE_CHECKING:
    from msmedcap.predictor import Predictor

log = logging.getLogger(__name__)


def sentence(error: Exception, doing: str) -> str:
    """What a visitor reads of ``error``: our own sentences as they are, anything else hidden, logged and named by ``doing``."""
    if isinstance(error, (ScanError, UserError)):
        return str(error)
    log.error("failed", exc_info=error, extra={"doing": doing})
    return f"Something went wrong while {doing}. Please try again; if it happens again, try another file."


@dataclass(frozen=True)
class Reading:
    """The captions as far as they are written: ``texts`` by system, for the ``view`` they describe.

    ``failed`` says, by system, why there is no caption. ``seconds`` is empty until ``done``.
    """

    view: str
    texts: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    done: bool = False

    @property
    def written(self) -> bool:
        """Whether there is a caption, of one system at least."""
        return any(self.texts.values())


def view_of(predictor: Predictor | None) -> str:
    """The window and frame a predictor's scan is shown with, in a reader's words; empty without a scan."""
    if predictor is None or predictor.scan is None:
        return ""
    words = [] if predictor.scan.colour else [window_words(predictor.window)]
    if predictor.scan.frames > 1:
        words.append(f"frame {predictor.frame + 1} of {predictor.scan.frames}")
    return ", ".join(words) or "as stored"


def window_words(window: str) -> str:
    """A window in words: a preset's name as it is, ``"W,L"`` as width and level."""
    if window == "file":
        return "the file's own window"
    width, comma, level = window.partition(",")
    return f"width {width.strip()}, level {level.strip()}" if comma else f"{window} window"


def write_captions(
    predictor: Predictor, *, preset: str, prompt: str | None, wanted: Callable[[], bool]
) -> Iterator[Reading]:
    """The captions of the predictor's scan as they grow; stops early, without a word, once nobody has them ``wanted``."""
    reading = Reading(view_of(predictor))
    try:
        for texts in predictor.stream(preset=preset, prompt=prompt):
            if not wanted():
                return
            reading = replace(reading, texts=dict(texts))
            yield reading
        failed = {
            s: "This system wrote no caption for this view." for s in predictor.systems if not reading.texts.get(s)
        }
    except Exception as error:  # the page lives on whatever a model does; sentence() logs what is not ours
        said = sentence(error, "writing the captions")
        failed = dict.fromkeys(predictor.systems, said)
    if wanted():
        yield replace(reading, failed=failed, seconds=dict(predictor.seconds), done=True)
