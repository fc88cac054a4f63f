"""Encoded frames (JPEG, JPEG-LS, JPEG 2000): what they are, how large they say they are, and cleared of everything but pixels.

In and out: one frame's bytes. Comments and application blocks can carry names and dates; the few that decoders need stay.
"""

from __future__ import annotations

from collections.abc import Iterator

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
_KEPT_BLOCKS = (0xE8, 0xEE)  # the JPEG-LS and Adobe colour transforms
_BARE = {0x01, *range(0xD0, 0xD9)}


def syntax_of(frame: bytes) -> UID | None:
    """The transfer syntax a frame shows by its first bytes, or None."""
    if frame.startswith(b"\xff\x4f\xff\x51"):
        return JPEG2000
    by_marker = {0xC0: JPEGBaseline8Bit, 0xC1: JPEGExtended12Bit, 0xC3: JPEGLosslessSV1, 0xF7: JPEGLSNearLossless}
    return next((by_marker[marker] for marker, _, _ in _segments(frame) if marker in by_marker), None)


def size_of(frame: bytes) -> tuple[int, int] | None:
    """Height and width in the frame's own header, or None where it has none (RLE)."""
    for marker, start, _ in _segments(frame):
        if marker == _J2K_SIZE and frame.startswith(b"\xff\x4f"):
            x1, y1, x0, y0 = (int.from_bytes(frame[start + 6 + 4 * i : start + 10 + 4 * i], "big") for i in range(4))
            return y1 - y0, x1 - x0
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) or marker == 0xF7:
            return int.from_bytes(frame[start + 5 : start + 7], "big"), int.from_bytes(
                frame[start + 7 : start + 9], "big"
            )
    return None


def scrubbed(frame: bytes) -> bytes:
    """``frame`` without comments and application blocks; the pixels it decodes to are the same."""
    if frame.startswith(_JP2) and (box := frame.find(b"jp2c")) > 0:
        frame = frame[box + 4 :]  # The container around a codestream is not DICOM's, and its boxes are free text.
    j2k = frame.startswith(b"\xff\x4f")
    kept, end = [], 0
    for marker, start, stop in _segments(frame):
        blocks = (
            marker == _J2K_COMMENT
            if j2k
            else marker == _COMMENT or (0xE0 <= marker <= 0xEF and marker not in _KEPT_BLOCKS)
        )
        if blocks:
            kept.append(frame[end:start])
            end = stop
    return b"".join([*kept, frame[end:]])


def _segments(frame: bytes) -> Iterator[tuple[int, int, int]]:
    """The header's marker segments as (marker, start, stop), up to the first coded data; none for other bytes."""
    if not frame.startswith((b"\xff\xd8", b"\xff\x4f")):
        return
    last = _J2K_TILE if frame[1] == 0x4F else _SCAN
    position = 2
    while position + 4 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF or marker in _BARE:
            position += 1 if marker == 0xFF else 2
            continue
        if marker == last:
            return
        stop = position + 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
        yield marker, position, stop
        position = stop
