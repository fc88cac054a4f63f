"""Captions as they are written: what a reader is told where no system could write one."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from fake import FakePredictor
from PIL import Image

from msmedcap.demo.reading import Reading, write_captions
from msmedcap.predictor import load
from tests import sizes


def last(predictor, prompt: str | None = None) -> Reading:
    return list(write_captions(predictor, preset="fast", prompt=prompt, wanted=lambda: True))[-1]


@pytest.fixture(scope="module")
def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_a_prompt_that_does_not_fit_is_said_once_for_every_system_and_nothing_is_written(tmp_path: Path, png: bytes) -> None:
    predictor = load(str(sizes.write_folder(tmp_path)), device="cpu").set_scan(png)
    reading = last(predictor, "Ä" * 290)
    assert reading.done and not reading.written and reading.texts == {} and reading.seconds == {}
    (said,) = set(reading.failed.values())
    assert set(reading.failed) == set(predictor.systems)
    assert said.startswith("The prompt is ") and said.endswith(" fit beside the picture and the caption.")


@pytest.mark.parametrize(("broken", "written"), [((), True), (("BLIP2",), True), (FakePredictor().systems, False)])
def test_it_is_written_where_one_system_wrote(png: bytes, broken: tuple[str, ...], written: bool) -> None:
    reading = last(FakePredictor(broken=broken).set_scan(png))
    assert reading.written is written and set(reading.failed) == set(broken)
    assert Reading("").written is False
