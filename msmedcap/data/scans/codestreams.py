"""Encoded frames (JPEG, JPEG-LS, JPEG 2000): what they are, how large they say they are, and cleared of everything but pixels.

In and out: one frame's bytes. Comments and application blocks can carry names and dates; the few that decoders need stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pydicom.uid import (
    JPEG2000,
    UID,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSNearLossless,
)

_JP2 = b"\0\0\0\x0cjP"
_COMMENT = 0xFE
_J2K_COMMENT, _J2K_SIZE = 0x64, 0x51
_SCAN, _J2K_TILE = 0xDA, 0x90
# All application blocks but those of the JPEG-LS (0xE8) and Adobe (0xEE) colour transforms.
_DROPPED = {_COMMENT, *range(0xE0, 0xF0)} - {0xE8, 0xEE}
_ADOBE, _LOSSLESS, _TABLES = 0xEE, 0xC3, 0xC4
_END, _SLACK = b"\xff\xd9", 16  # Some writers pad after the end.
_FRAME_STARTS = {0xF7, *range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_BARE = {0x01, *range(0xD0, 0xD9)}


def syntax_of(frame: bytes) -> UID | None:
    """The transfer syntax a frame shows by its first bytes, or None."""
    if frame.startswith(b"\xff\x4f\xff\x51"):
        return JPEG2000
    by_marker = {0xC0: JPEGBaseline8Bit, 0xC1: JPEGExtended12Bit, 0xC3: JPEGLosslessSV1, 0xF7: JPEGLSNearLossless}
    return next((by_marker[marker] for marker, _, _ in _segments(frame) if marker in by_marker), None)


class Header(NamedTuple):
    """What a frame's own header says of its pixels; ``bits`` is per sample."""

    height: int
    width: int
    samples: int
    bits: int


def header_of(frame: bytes) -> Header | None:
    """The header of a frame; None where it has none (RLE), or breaks off before the coded data begins."""
    segments = {marker: (start, stop - start) for marker, start, stop in _segments(frame)}
    if _J2K_TILE in segments and segments.get(_J2K_SIZE, (0, 0))[1] > 40:
        start, _ = segments[_J2K_SIZE]
        x1, y1, x0, y0 = (int.from_bytes(frame[start + 6 + 4 * i : start + 10 + 4 * i], "big") for i in range(4))
        return Header(y1 - y0, x1 - x0, frame[start + 39], (frame[start + 40] & 0x7F) + 1)
    starts = [segments[marker] for marker in _FRAME_STARTS & segments.keys()]
    if _SCAN in segments and len(starts) == 1 and starts[0][1] > 9:
        start, _ = starts[0]
        height, width = (int.from_bytes(frame[start + at : start + at + 2], "big") for at in (5, 7))
        return Header(height, width, frame[start + 9], frame[start + 4])
    return None


def is_sound_lossless(frame: bytes) -> bool:
    """Whether a JPEG Lossless frame has what its only decoder takes for granted, and ends where it should.

    GDCM ends the whole program over a frame without tables or with an Adobe colour transform, and fills up one cut short.
    """
    segments = {marker: start for marker, start, _ in _segments(frame)}
    plain = _ADOBE not in segments or frame[segments[_ADOBE] + 15] == 0
    return plain and {_LOSSLESS, _TABLES, _SCAN} <= segments.keys() and _END in frame[-_SLACK:]


def scrubbed(frame: bytes) -> bytes:
    """``frame`` without comments and application blocks; the pixels it decodes to are the same."""
    if frame.startswith(_JP2) and (box := frame.find(b"jp2c")) > 0:
        frame = frame[box + 4 :]  # The container around a codestream is not DICOM's, and its boxes are free text.
    j2k = frame.startswith(b"\xff\x4f")
    kept, end = [], 0
    for marker, start, stop in _segments(frame):
        if marker == _J2K_COMMENT if j2k else marker in _DROPPED:
            kept.append(frame[end:start])
            end = stop
    return b"".join([*kept, frame[end:]])


def _segments(frame: bytes) -> Iterator[tuple[int, int, int]]:
    """The header's marker segments as (marker, start, stop), up to that of the first coded data; none for other bytes."""
    if not frame.startswith((b"\xff\xd8", b"\xff\x4f")):
        return
    last = _J2K_TILE if frame[1] == 0x4F else _SCAN
    position = 2
    while position + 4 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF or marker in _BARE:
            position += 1 if marker == 0xFF else 2
            continue
        stop = position + 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
        if stop > len(frame):
            return
        yield marker, position, stop
        if marker == last:
            return
        position = stop
