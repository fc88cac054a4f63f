"""Whoever asks, the models are worked by one thread; answers and errors are those of the predictor itself."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake import FakePredictor

from msmedcap.config import UserError
from msmedcap.demo.serving.one_thread import one_thread


class _Noting(FakePredictor):
    """Notes the threads its work is done in."""

    threads: set[str] = set()

    def fresh(self):
        other = _Noting(systems=self.systems)
        other._models = self._models
        return other

    def stream(self, **options):
        for texts in super().stream(**options):
            self.threads.add(threading.current_thread().name)
            yield texts

    def maps(self, **options):
        self.threads.add(threading.current_thread().name)
        return super().maps(**options)


@pytest.fixture
def models():
    _Noting.threads = set()
    return one_thread(_Noting())


def test_the_answers_are_the_predictors(models, ct_file):
    here, asked = FakePredictor().set_scan(ct_file), models.fresh().set_scan(ct_file)
    assert list(asked.stream()) == list(here.stream()) and asked.captions(systems=["BLIP2"]) == here.captions(systems=["BLIP2"])
    assert asked.window == here.window and (asked.picture == here.picture).all() and asked.systems == here.systems
    assert [m.kind for m in asked.maps(point=(1.0, 2.0))] == [m.kind for m in here.maps(point=(1.0, 2.0))]
    assert asked.seconds["encode"] == 0.25 and asked.warnings == here.warnings


def test_one_thread_does_all_the_work(models, ct_file, png_file):
    def visit(file):
        asked = models.fresh().set_scan(file)
        list(asked.stream())
        asked.maps()
        return asked.captions()

    with ThreadPoolExecutor(6) as pool:
        # Never two at once: the fake models raise where they are used so.
        found = list(pool.map(lambda file: visit(file) if file else None, [ct_file]))
        found += list(pool.map(lambda _: models.fresh().set_scan(png_file).maps(), range(8)))
    assert found[0] == FakePredictor().set_scan(ct_file).captions()
    assert len(_Noting.threads) == 1 and next(iter(_Noting.threads)).startswith("models")


def test_a_dropped_stream_frees_the_models(models, ct_file):
    asked = models.fresh().set_scan(ct_file)
    steps = asked.stream()
    next(steps)
    with pytest.raises(RuntimeError, match="two use the models"):
        models.fresh().set_scan(ct_file).maps()
    steps.close()
    assert models.fresh().set_scan(ct_file).maps()


def test_mistakes_pass_through(models, ct_file):
    asked = models.fresh().set_scan(ct_file)
    with pytest.raises(UserError, match="There is no system GPT"):
        asked.maps(system="GPT")
    with pytest.raises(UserError, match="preset"):
        list(asked.stream(preset="slow"))
    with pytest.raises(AttributeError, match="nonsense"):
        asked.nonsense()
