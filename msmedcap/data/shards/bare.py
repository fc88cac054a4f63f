"""A picture's file without what it says of anyone: JPEG and PNG lose their metadata, everything else becomes a PNG of what is seen.

Comes in: the bytes of any scan. Goes out: bytes that hold pixels only. The pixels of a JPEG or PNG are untouched: its segments
are copied, not encoded again, and the result is compared with the original before it is taken.
"""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image

from msmedcap.data.scans import Scan, ScanError, open_scan

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_APP0, _APP14, _APP15, _COMMENT, _START_OF_SCAN, _END = 0xE0, 0xEE, 0xEF, 0xFE, 0xDA, 0xD9
# Sizes of a JFIF segment without a thumbnail and of Adobe's colour segment: neither has room for anything else.
_BARE_APP = {_APP0: (b"JFIF\0", 16), _APP14: (b"Adobe", 14)}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def bare_picture(data: bytes) -> tuple[str, bytes, str]:
    """``"jpg"`` or ``"png"``, the picture's bytes without metadata, and the kind it was before ("DICOM", "PNG", ...).

    A DICOM (its first frame), a TIFF and so on become an 8-bit PNG in their default window; so does a JPEG or PNG whose
    metadata turns the picture. Raises :class:`ScanError` for what cannot be shown.
    """
    scan = open_scan(data)
    bare = {"JPEG": _bare_jpeg, "PNG": _bare_png}.get(scan.kind, _nothing)(data)
    if bare and scan.frames == 1 and _same_pixels(scan, bare):
        return ("jpg" if scan.kind == "JPEG" else "png"), bare, scan.kind
    return "png", _as_png(scan.picture()), scan.kind


def _nothing(data: bytes) -> bytes:
    return b""


def _same_pixels(scan: Scan, bare: bytes) -> bool:
    try:
        other = open_scan(bare)
    except ScanError:
        return False
    return np.array_equal(scan.values(), other.values())


def _as_png(picture: np.ndarray) -> bytes:
    grey = bool((picture == picture[..., :1]).all())
    file = io.BytesIO()
    Image.fromarray(picture[..., 0] if grey else picture).save(file, "PNG")
    return file.getvalue()


def _bare_jpeg(data: bytes) -> bytes:
    """The JPEG up to its end marker without APPn and comment segments, or nothing where its segments make no sense."""
    out, at = bytearray(data[:2]), 2
    while at + 2 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF:
            return b""
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker == _END:
            return bytes(out) + data[at : at + 2]
        elif marker in _STANDALONE:
            out += data[at : at + 2]
            at += 2
        else:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            if end < at + 4 or end > len(data):
                return b""
            if marker == _START_OF_SCAN:
                following = _NEXT_MARKER.search(data, end)
                end = following.start() if following else len(data)
            if _stays(marker, data[at + 2 : end]):
                out += data[at:end]
            at = end
    return b""


def _stays(marker: int, segment: bytes) -> bool:
    if marker in _BARE_APP:
        magic, size = _BARE_APP[marker]
        return segment.startswith(magic, 2) and len(segment) == size
    return not (_APP0 <= marker <= _APP15 or marker == _COMMENT)


def _bare_png(data: bytes) -> bytes:
    """The PNG's chunks that make its pixels, or nothing where it breaks off."""
    out, at = bytearray(_PNG_MAGIC), len(_PNG_MAGIC)
    while at + 12 <= len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            return b""
        if kind in _PNG_KEPT:
            out += data[at:end]
        if kind == b"IEND":
            return bytes(out)
        at = end
    return b""
