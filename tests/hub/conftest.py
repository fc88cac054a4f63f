"""A model folder at test size, a copy of it to break, and a hub on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from msmedcap.hub import folder as folders
from msmedcap.hub import manifest, sources
from tests import sizes
from tests.hub.server import Hub


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sizes.write_folder(tmp_path_factory.mktemp("hub") / "models")


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A model folder without card or manifest."""
    return Path(shutil.copytree(written, tmp_path / "models"))


@pytest.fixture
def mirror(folder: Path) -> Path:
    """A model folder with its manifest."""
    folders.write_manifest(folder, manifest(folder))
    return folder


@pytest.fixture
def hub(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A server on this machine that holds ``mirror``; reached although the tests are kept off the network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sources, "PAUSE", 0.0)
    server = Hub(mirror)
    yield server
    server.close()
