"""Real scans that come with pydicom, for the page's examples: anonymous, small, already on the disk."""

from __future__ import annotations

from pathlib import Path

from pydicom.data import get_testdata_file

_FILES = (
    ("CT of the spine, real", "CT_small.dcm"),
    ("MR of the abdomen, real", "examples_overlay.dcm"),
    ("Ultrasound of the heart, real", "examples_ybr_color.dcm"),
)


def bundled_examples() -> list[tuple[str, bytes]]:
    """(title, file content) of each; one that this pydicom does not carry is left out, nothing is downloaded."""
    found = [(title, get_testdata_file(name, download=False)) for title, name in _FILES]
    return [(title, Path(str(path)).read_bytes()) for title, path in found if path]
