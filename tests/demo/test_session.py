"""Sessions: visitors never mix, nothing stays longer than it should, and an old view's captions stop."""

from __future__ import annotations

import time

import numpy as np
import pytest
from fake import FakePredictor

from msmedcap.config import UserError
from msmedcap.data.scans import ScanError, Window, write_dicom
from msmedcap.demo.session import Session, Store, sentence, window_words


def opened(source, **settings) -> Session:
    session = Session(FakePredictor(**settings))
    session.open(source.read_bytes())
    return session


def test_the_shared_predictor_never_holds_a_scan(ct_file):
    models = FakePredictor()
    Session(models).open(ct_file.read_bytes())
    assert models.scan is None


def test_a_new_view_stops_the_captions_of_the_one_before(ct_file):
    session = opened(ct_file)
    captions = session.captions()
    before = next(captions)
    session.open(session.scan, window="lung")
    assert before.view != session.view == "lung window"
    assert list(captions) == [] and session.reading is None


def test_a_failed_file_loses_nothing(ct_file):
    session = opened(ct_file)
    list(session.captions())
    session.compare((5.0, 6.0))
    session.draw("MSMedCap")
    before = (session.predictor, session.view, session.reading, session.maps, session.point)
    with pytest.raises(ScanError):
        session.open(b"not a scan")
    assert (session.predictor, session.view, session.reading, session.maps, session.point) == before


def test_one_system_without_words_leaves_the_others(ct_file):
    *_, last = opened(ct_file, broken=("BLIP2",)).captions()
    assert last.done and set(last.failed) == {"BLIP2"} and last.texts["MSMedCap"].endswith("MSMedCap.")


def test_a_crash_is_a_sentence_without_its_words(ct_file):
    *_, last = opened(ct_file, crash="/secret/path").captions()
    assert last.done and set(last.failed) == {"MSMedCap", "BLIP2", "SAM-BLIP2"}
    assert all("went wrong" in said and "secret" not in said for said in last.failed.values())


def test_our_own_sentences_are_shown():
    assert sentence(UserError("Give a prompt."), "x") == "Give a prompt."
    assert sentence(ScanError("This is a PDF."), "x") == "This is a PDF."


def test_maps_keep_the_choice_and_a_place_shows_its_similarity(ct_file):
    session = opened(ct_file)
    session.draw("MSMedCap")
    assert session.maps[session.shown].kind == "sam_norm" and not session.overlay, "the scan is seen alone at first"
    session.choose(len(session.maps) - 1)
    session.draw("SAM-BLIP2")
    assert (session.maps[session.shown].kind, session.maps[session.shown].branch) == ("attention", "sam") and session.overlay
    session.compare((20.0, 30.0))
    session.draw("SAM-BLIP2")
    assert session.maps[session.shown].kind == "sam_similarity" and session.point == (20.0, 30.0)
    session.choose(99)
    assert session.maps[session.shown].kind == "sam_similarity" and session.overlay
    session.choose(-1)
    assert session.maps[session.shown].kind == "sam_similarity" and not session.overlay


def test_kept_structures_stay_with_their_frame_of_their_scan(png_file, tmp_path):
    values = np.random.default_rng(0).uniform(-900, 300, (2, 60, 100)).astype(np.float32)
    options = {"modality": "CT", "body_part": "CHEST", "spacing": (1, 1), "window": Window(400, 40), "intercept": -1024}
    write_dicom(tmp_path / "ct", values, **options)
    session = Session(FakePredictor())
    session.open((tmp_path / "ct").read_bytes())
    session.segments.add(80, 20)
    session.segments.keep()
    session.open(session.scan, window="lung", frame=session.predictor.frame)
    assert len(session.segments.kept) == 1, "another window shows the same frame"
    session.open(session.scan, frame=1 - session.predictor.frame)
    assert session.segments.kept == ()
    ct, frame = session.tray.current, session.predictor.frame
    session.open(png_file.read_bytes())
    assert session.segments.kept == ()
    session.turn_to(ct)
    assert session.predictor.frame == frame and session.segments.kept == ()
    session.open(session.scan, frame=1 - frame)
    assert len(session.segments.kept) == 1 and session.segments.export()


def test_visitors_have_sessions_of_their_own(ct_file, png_file):
    store = Store(FakePredictor())
    store.get("a").open(ct_file.read_bytes())
    store.get("b").open(png_file.read_bytes())
    assert store.get("a").scan.kind == "DICOM" and store.get("b").scan.kind == "PNG"
    store.drop("a")
    store.drop("a")
    assert store.get("a").scan is None and store.get("b").scan is not None


def test_the_longest_unused_session_gives_way(ct_file):
    store = Store(FakePredictor(), most=2)
    first = store.get("a")
    first.open(ct_file.read_bytes())
    store.get("b").open(ct_file.read_bytes())
    store.get("c")
    assert len(store) == 2 and first.scan is None


def test_an_idle_session_is_forgotten_though_nobody_comes(ct_file):
    store = Store(FakePredictor(), idle=0.2)
    session = store.get("a")
    session.open(ct_file.read_bytes())
    deadline = time.monotonic() + 60
    while session.scan is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(store) == 0 and session.scan is None


def test_a_session_in_use_is_kept(ct_file):
    store = Store(FakePredictor(), idle=600)
    session = store.get("a")
    session.open(ct_file.read_bytes())
    store.sweep()
    assert len(store) == 1 and session.scan is not None


def test_windows_in_words():
    assert window_words("lung") == "lung window" and window_words("file") == "the file's own window"
    assert window_words("400,40") == "width 400, level 40"
