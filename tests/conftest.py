"""What every test may ask for, and what no test may do: reach the network or report usage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from msmedcap.predictor import Predictor

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


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models at test size, as a folder; a module that needs more in it has a fixture of this name."""
    from tests import sizes

    return sizes.write_folder(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def shared(models_folder: Path) -> Predictor:
    """Those models, loaded."""
    from msmedcap.predictor import load

    return load(str(models_folder), device="cpu")


@pytest.fixture
def predictor(shared: Predictor) -> Predictor:
    """A visitor's predictor with a scan of noise."""
    from tests import sizes

    return shared.fresh().set_scan(sizes.png())
