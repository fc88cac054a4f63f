"""ZeroGPU: nothing happens off it; on it every piece of model work goes through a pickle, a process and back, and is the same.

The stand-in for ``spaces`` forks and pickles as the library does; the hardware itself is not at hand.
"""

from __future__ import annotations

import inspect
import multiprocessing
import pickle
import sys
import types
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from fake import FakePredictor

import msmedcap
from msmedcap.config import UserError
from msmedcap.demo.serving import zero_gpu
from msmedcap.demo.serving.zero_gpu import OnGpu, on_gpu, prepare
from msmedcap.predictor import Predictor

ON = {"SPACES_ZERO_GPU": "true"}
EXAMPLE = Path(__file__).parents[2] / "assets" / "examples" / "cr-chest.dcm"


def _elsewhere(task, args) -> list:
    """All that ``task`` returns or yields in a forked process, an unexpected error as its class alone."""
    fork = multiprocessing.get_context("fork")
    (hears, says), sent = fork.Pipe(duplex=False), pickle.dumps(args)

    def run() -> None:
        torch.set_num_threads(1)  # a pool of threads does not survive a fork
        try:
            found = task(*pickle.loads(sent))
            says.send_bytes(pickle.dumps(list(found) if inspect.isgenerator(found) else [found]))
        except Exception as error:
            says.send_bytes(pickle.dumps(type(error).__name__))

    process = fork.Process(target=run)
    process.start()
    says.close()  # or the end of a process that died unheard would never come
    try:
        assert hears.poll(400), "the task at the GPU never answered"
        found = pickle.loads(hears.recv_bytes())
    finally:
        process.kill()
        process.join(60)
    if isinstance(found, str):
        raise gr.Error(f"<b>{found}</b>", print_exception=False)
    return found


@pytest.fixture
def spaces(monkeypatch):
    """The stand-in, and the durations that were asked for."""
    durations: list = []

    def gpu(*, duration):
        def decorate(task):
            def streamed(*args):
                durations.append(duration(*args) if callable(duration) else duration)
                yield from _elsewhere(task, args)

            return streamed if inspect.isgeneratorfunction(task) else lambda *args: list(streamed(*args))[0]

        return decorate

    module = types.ModuleType("spaces")
    module.GPU = gpu
    module.__spec__ = types.SimpleNamespace(name="spaces")
    monkeypatch.setitem(sys.modules, "spaces", module)
    return durations


def test_off_zero_gpu_nothing_changes():
    models = FakePredictor()
    assert on_gpu(models, {}) is models and not prepare({})
    assert on_gpu(models, {"SPACES_ZERO_GPU": "0"}) is models


def test_without_the_library_nothing_changes(monkeypatch):
    monkeypatch.setattr(zero_gpu.importlib.util, "find_spec", lambda name: None)
    models = FakePredictor()
    assert on_gpu(models, ON) is models


def test_captions_and_maps_come_back_as_they_would_be_here(spaces, ct_file):
    here = FakePredictor().set_scan(ct_file, window="lung")
    away = on_gpu(FakePredictor(), ON)
    assert isinstance(away, OnGpu) and away.systems == here.systems and away.models == "fake"
    away = away.fresh().set_scan(ct_file, window="lung")
    assert away.window == "lung" and (away.picture == here.picture).all()
    steps = list(away.stream())
    assert steps == list(here.stream()) and away.captions(systems=["BLIP2"]) == here.captions(systems=["BLIP2"])
    assert away.seconds["encode"] == 0.25 and away.warnings == here.warnings
    for got, expected in zip(away.maps(point=(3.0, 4.0)), here.maps(point=(3.0, 4.0)), strict=True):
        assert got.kind == expected.kind and np.array_equal(got.values, expected.values)
    list(away.stream(preset="paper"))
    assert spaces == [30, 30, 20, 120]


def test_the_words_of_the_captions_go_along(spaces, ct_file):
    here, away = FakePredictor().set_scan(ct_file), on_gpu(FakePredictor(), ON).fresh().set_scan(ct_file)
    texts = list(here.stream())[-1]
    assert list(away.stream())[-1] == texts
    assert [w.text for w in away.words(system="BLIP2")] == [w.text for w in here.words(system="BLIP2")]
    for got, expected in zip(away.word_maps(1, system="BLIP2"), here.word_maps(1, system="BLIP2"), strict=True):
        assert got.word == expected.word and np.array_equal(got.values, expected.values)
    away.adopt({"BLIP2": "other words"})
    assert [w.text.strip() for w in away.words(system="BLIP2")] == ["other", "words"]


def test_all_that_explain_answers_is_one_turn_at_the_gpu(spaces, ct_file):
    here, away = FakePredictor().set_scan(ct_file), on_gpu(FakePredictor(), ON).fresh().set_scan(ct_file)
    assert here.captions() == away.captions()
    spaces.clear()
    asked = {"system": "BLIP2", "point": (3.0, 4.0), "word": 1}
    maps, structures = away.explain(**asked)
    expected, lying = here.explain(**asked)
    assert [m.file for m in maps] == [m.file for m in expected] and structures == lying and len(structures) > 1
    assert all(np.array_equal(got.values, there.values) for got, there in zip(maps, expected, strict=True))
    assert spaces == [zero_gpu.SECONDS["explain"]]
    with pytest.raises(UserError, match="name the word, too"):
        away.explain(method="rollout")


def test_visitors_stay_apart(spaces, ct_file, png_file):
    models = on_gpu(FakePredictor(), ON)
    one, two = models.fresh().set_scan(ct_file), models.fresh().set_scan(png_file)
    assert one.captions() == FakePredictor().set_scan(ct_file).captions()
    assert two.captions() == FakePredictor().set_scan(png_file).captions()


def test_mistakes_are_said_and_failures_are_told(spaces, png_file):
    away = on_gpu(FakePredictor(), ON)
    with pytest.raises(UserError, match="No scan"):
        away.captions()
    away = away.fresh().set_scan(png_file)
    with pytest.raises(UserError, match="There is no system GPT"):
        away.captions(systems=["GPT"])
    with pytest.raises(UserError, match="preset"):
        away.captions(preset="slow")
    with pytest.raises(UserError, match="There is no system GPT"):
        away.maps(system="GPT")
    broken = on_gpu(FakePredictor(crash="the words of the error"), ON).fresh().set_scan(png_file)
    with pytest.raises(UserError, match="The GPU did not answer: RuntimeError$"):
        broken.captions()


def _alike(mask: np.ndarray, other: np.ndarray) -> bool:
    """The same but for a few pixels: one thread rounds otherwise than two."""
    return float((mask & other).sum() / (mask | other).sum()) > 0.99


@pytest.mark.slow
def test_a_mask_is_refined_over_two_calls(spaces, tmp_path):
    models = msmedcap.load("demo", device="cpu")
    away = on_gpu(models, ON).fresh().set_scan(EXAMPLE)
    first = away.segment([(60.0, 90.0)])
    second = away.segment([(60.0, 90.0), (80.0, 100.0, 0)], earlier=first)
    here = models.fresh().set_scan(EXAMPLE)
    expected = here.segment([(60.0, 90.0)])
    assert first.label == expected.label and _alike(first.binary, expected.binary)
    refined = here.segment([(60.0, 90.0), (80.0, 100.0, 0)], earlier=expected)
    assert second.label == refined.label and _alike(second.binary, refined.binary)
    assert len(away.write_masks([first, second], tmp_path)) == 2
    with pytest.raises(UserError, match="another scan"):
        away.fresh().set_scan(EXAMPLE).segment([(60.0, 90.0)], earlier=first)
    (strength,) = (m for m in here.maps() if m.kind == "sam_norm")
    assert away.hot_spot(strength).structure.label == here.hot_spot(strength).structure.label


@pytest.mark.parametrize(
    "name", ["set_scan", "captions", "stream", "words", "word_maps", "adopt", "maps", "explain", "segment", "write_masks"]
)
def test_it_is_asked_as_the_predictor_is(name):
    def asked(kind) -> list:
        return [(one.name, one.kind, one.default) for one in inspect.signature(getattr(kind, name)).parameters.values()]

    assert asked(OnGpu) == asked(Predictor)
