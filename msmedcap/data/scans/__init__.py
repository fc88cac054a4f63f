"""Scans: a file or its bytes in; pixels, geometry, windows and a few allow-listed facts out.

:func:`open_scan` tells the kind from the bytes, never from the name; the :class:`Scan` it gives holds no path and no patient tag.
Everything a reader can do wrong raises :class:`ScanError` with one sentence.
"""

from __future__ import annotations

import os
from pathlib import Path

from msmedcap.data.scans.bundled import bundled_examples
from msmedcap.data.scans.dicom import BURNED_IN, open_dicom
from msmedcap.data.scans.errors import ScanError
from msmedcap.data.scans.limits import check_bytes
from msmedcap.data.scans.raster import open_raster
from msmedcap.data.scans.scan import Scan
from msmedcap.data.scans.sniff import refusal, sniff
from msmedcap.data.scans.windows import PRESETS, Window
from msmedcap.data.scans.write import write_dicom

__all__ = ["BURNED_IN", "PRESETS", "Scan", "ScanError", "Window", "bundled_examples", "find_scans", "open_scan", "write_dicom"]


def open_scan(source: str | Path | bytes, *, allow_burned_in: bool = False) -> Scan:
    """The scan in a file or in its bytes.

    ``allow_burned_in`` opens a picture marked as having burned-in annotation, with a warning. Raises :class:`ScanError`
    where there is nothing to show: missing, empty, damaged, too large, another kind of file, one flat grey.
    """
    data = _read(Path(source)) if isinstance(source, (str, Path)) else bytes(source)
    check_bytes(len(data))
    kind = sniff(data)
    if kind in ("DICOM", ""):
        scan = open_dicom(data, allow_burned_in=allow_burned_in, sure=kind == "DICOM")
        if scan is None:
            raise ScanError(refusal(data))
    else:
        scan = open_raster(data, kind)
    if scan.frames == 1:
        scan.picture()  # Refuses one flat grey now; of a stack only the flat frames are refused, when asked for.
    return scan


def find_scans(path: Path) -> list[Path]:
    """The files to read for ``path``: itself, or every regular file below a folder that is not hidden, sorted.

    Raises :class:`ScanError` where there is none.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ScanError(f"There is no file or folder {path}; check the spelling.")
    found: list[Path] = []
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    found = sorted(file for file in found if file.is_file())
    if not found:
        raise ScanError(f"The folder {path} holds no files; choose one with scans in it.")
    return found


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ScanError("This is a folder; choose one of the files in it.")
        if not path.is_file():
            raise ScanError("This file does not exist or is no ordinary file; check the spelling.")
        check_bytes(path.stat().st_size)
        return path.read_bytes()
    except OSError:
        raise ScanError("This file cannot be read; check that you may open it.") from None
