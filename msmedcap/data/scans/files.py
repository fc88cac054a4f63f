"""Files and folders of scans: which there are, and their bytes."""

from __future__ import annotations

import os
from pathlib import Path

from msmedcap.data.scans.errors import ScanError
from msmedcap.data.scans.limits import check_bytes


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


def read_file(path: Path) -> bytes:
    """The content of a file; raises :class:`ScanError` where it is missing, a folder, empty, too large or not to be read."""
    try:
        if path.is_dir():
            raise ScanError("This is a folder; choose one of the files in it.")
        if not path.is_file():
            raise ScanError("This file does not exist or is no ordinary file; check the spelling.")
        check_bytes(path.stat().st_size)
        return path.read_bytes()
    except OSError:
        raise ScanError("This file cannot be read; check that you may open it.") from None
