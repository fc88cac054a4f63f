"""What the page's tests share: scans on disk, and a page served on a free port with an upload folder of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from chromium import running_browser, visitors
from serving import free_port


@dataclass(frozen=True)
class Served:
    """A running page: where it answers and where gradio keeps its files."""

    url: str
    cache: Path

    def kept(self) -> list[Path]:
        """Files with content that gradio still holds."""
        return [path for path in self.cache.rglob("*") if path.is_file() and path.stat().st_size]


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """A context manager: the page on a predictor, ``with serve(predictor) as page``."""

    @contextmanager
    def running(predictor, *, auth=None, **settings) -> Iterator[Served]:
        from msmedcap.demo.page import build_page
        from msmedcap.demo.serving.signin import SignIn

        cache = tmp_path_factory.mktemp("gradio")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GRADIO_TEMP_DIR", str(cache))
            page = build_page(predictor, sign_in=SignIn(password=auth), **settings)
            url = page.launch(host="127.0.0.1", port=free_port())
            try:
                yield Served(url, cache)
            finally:
                page.blocks.close()

    return running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A started Chromium, a module's own: its event loop would stop tests that start one."""
    with running_browser() as browser:
        yield browser


@pytest.fixture
def come(browser) -> Iterator[Callable]:
    """A function that opens an address as a new visitor (see :func:`chromium.visitors`)."""
    with visitors(browser) as come:
        yield come


def _disc(height: int, width: int, *, inside: float, outside: float) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    values = np.full((height, width), outside, np.float32)
    values[(x - width / 2) ** 2 + (y - height / 2) ** 2 < (min(height, width) / 3) ** 2] = inside
    return values


@pytest.fixture(scope="session")
def ct_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made CT slice of 96 rows by 128 columns, a disc of 60 HU in air, with no telling file name."""
    from msmedcap.data.scans import Window, write_dicom

    path = tmp_path_factory.mktemp("scans") / "PATIENT-NAME"
    write_dicom(
        path,
        _disc(96, 128, inside=60, outside=-1000),
        modality="CT",
        body_part="CHEST",
        spacing=(0.8, 0.8),
        window=Window(400, 40),
        intercept=-1024,
    )
    return path


@pytest.fixture(scope="session")
def png_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grey PNG of 40 rows by 60 columns."""
    path = tmp_path_factory.mktemp("scans") / "film.png"
    Image.fromarray(_disc(40, 60, inside=200, outside=20).astype(np.uint8)).save(path)
    return path
