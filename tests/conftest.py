"""What every test may ask for, and what no test may do: reach the network or report usage."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets (MSMEDCAP_DATA, else shared/data beside the checkout); skips where there is none."""
    folder = Path(os.environ.get("MSMEDCAP_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "medpix").is_dir():
        pytest.skip(f"the real scans are not at {folder}; set MSMEDCAP_DATA to the folder that holds medpix/")
    return folder
