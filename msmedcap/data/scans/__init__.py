"""Scans: a file or its bytes in; pixels, geometry, windows and a few allow-listed facts out.

:func:`open_scan` tells the kind from the bytes, never from the name; the :class:`Scan` it gives holds no path and no patient tag.
Everything a reader can do wrong raises :class:`ScanError` with one sentence.
"""

from __future__ import annotations

from pathlib import Path

from msmedcap.data.scans.bundled import bundled_examples
from msmedcap.data.scans.dicom import BURNED_IN, open_dicom
from msmedcap.data.scans.errors import NoPictureError, ScanError
from msmedcap.data.scans.files import find_scans, read_file
from msmedcap.data.scans.limits import check_bytes
from msmedcap.data.scans.raster import open_raster
from msmedcap.data.scans.scan import Scan
from msmedcap.data.scans.series import Collector, Found, open_scans
from msmedcap.data.scans.sniff import refusal, sniff
from msmedcap.data.scans.windows import PRESETS, Window
from msmedcap.data.scans.write import write_dicom

__all__ = [
    "BURNED_IN", "PRESETS", "Collector", "Found", "Scan", "ScanError", "Window", "bundled_examples", "find_scans", "open_scan",
    "open_scans", "write_dicom",
]


def open_scan(source: str | Path | bytes, *, allow_burned_in: bool = False) -> Scan:
    """The scan in a file or in its bytes.

    ``allow_burned_in`` opens a picture marked as having burned-in annotation, with a warning. Raises :class:`ScanError`
    where there is nothing to show: missing, empty, damaged, too large, another kind of file, one flat grey.
    """
    data = read_file(Path(source)) if isinstance(source, (str, Path)) else bytes(source)
    check_bytes(len(data))
    kind = sniff(data)
    if kind in ("DICOM", ""):
        scan = open_dicom(data, allow_burned_in=allow_burned_in, sure=kind == "DICOM")
        if scan is None:
            raise NoPictureError(refusal(data))
    else:
        scan = open_raster(data, kind)
    if scan.frames == 1:
        scan.picture()  # Refuses one flat grey now; of a stack only the flat frames are refused, when asked for.
    return scan
