"""The samples of shards at random: where in its tar each picture lies, found by the headers, its words read at once.

Comes in: a folder of shards. Goes out: cases, each with the :class:`Span` that reads its picture. Streaming
(:func:`msmedcap.data.shards.read_shards`) is for disks that cannot be read here and there; this is for those that can.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from msmedcap.data.scans import ScanError
from msmedcap.data.sets import Case
from msmedcap.data.shards.read import PICTURES, _Bad, _bytes, _Counter, _Found, _record, _samples, _shards, _text

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Span:
    """A picture inside a tar: ``size`` bytes from ``offset`` on."""

    file: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """The picture's bytes; raises :class:`ScanError` where the shard cannot be read."""
        try:
            with self.file.open("rb") as file:
                file.seek(self.offset)
                return file.read(self.size)
        except OSError:
            raise ScanError("The shard is missing or cannot be read.") from None


def stored_cases(source: str | Path) -> list[tuple[Case, Span]]:
    """Every sample of the shards ``source`` (a folder or a pattern) with its picture's place; what is damaged is left out.

    Raises :class:`~msmedcap.config.UserError` where there are no shards.
    """
    found, bad = [], _Counter(None)
    for shard, expected in _shards(source).items():
        for one in _samples(shard, expected, bad):
            try:
                found.append(_case(one))
            except (_Bad, OSError) as error:
                bad(f"{shard.name}, sample {one.key}: {error}")
    if bad.count:
        log.warning("%d samples or members of the shards were skipped. %s", bad.count, " ".join(bad.first))
    return found


def _case(one: _Found) -> tuple[Case, Span]:
    suffix = next((suffix for suffix in PICTURES if suffix in one.spans), None)
    if suffix is None:
        raise _Bad("it has no picture.")
    record = _record(_bytes(one, "json") if "json" in one.spans else b"{}")
    captions = record.get("captions") or [_text(_bytes(one, "txt") if "txt" in one.spans else b"")]
    if not (isinstance(captions, list) and all(isinstance(text, str) for text in captions) and captions[0]):
        raise _Bad("it has no caption.")
    name = str(record.get("id", one.key))
    case = Case(
        name, one.shard, {}, captions[0], str(record.get("group", name)), one.shard.parent.name, captions=tuple(captions)
    )
    return case, Span(one.shard, *one.spans[suffix])
