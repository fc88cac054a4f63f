"""What the picture area is sent: the right pixels, once, and little else."""

from __future__ import annotations

import base64
import io
import json
import time
import zlib

import numpy as np
import pytest
from PIL import Image
from viewer_harness import heat, made_ct, made_photo, made_series, made_table, made_xray, square

from msmedcap.data.scans import Window, open_scan, write_dicom
from msmedcap.demo.viewer import area as viewer
from msmedcap.demo.viewer.encoding import COLOUR_MAPS, fading, lookup, packed_grid, values_grid
from msmedcap.demo.viewer.state import Sent, viewer_message, viewer_state
from msmedcap.explain.maps import Map


def unpacked(grid: dict) -> np.ndarray:
    """What the browser makes of a grid: stored values ``[H,W]``."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(grid["data"])), np.uint8)
    planes = planes.reshape(grid["bytes"], grid["height"], grid["width"]).astype(np.uint16)
    steps = planes[0] if grid["bytes"] == 1 else planes[0] | planes[1] << 8
    return np.cumsum(steps, axis=1).astype(np.uint8 if grid["bytes"] == 1 else np.uint16)


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scans")


@pytest.fixture(scope="module")
def ct(folder):
    return made_ct(folder / "ct")


def state(scan, sent=None, **settings):
    settings = {"window": scan.resolve_window(None)[0], "frame": 0, **settings}
    return viewer_state(scan, scan.picture(settings["window"], settings["frame"]), sent=sent, **settings)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grids_come_back_as_they_were(dtype):
    stored = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (37, 53)).astype(dtype)
    assert (unpacked(packed_grid(stored)) == stored).all()


def test_whole_values_arrive_exactly_and_others_finely():
    rng = np.random.default_rng(1)
    hounsfield = rng.integers(-1024, 3072, (40, 30)).astype(np.float32)
    grid = values_grid(hounsfield, 1280)
    assert (unpacked(grid) * grid["slope"] + grid["intercept"] == hounsfield).all()
    fine = rng.normal(0, 1e-3, (40, 30)).astype(np.float32)
    grid = values_grid(fine, 1280)
    assert np.abs(unpacked(grid) * grid["slope"] + grid["intercept"] - fine).max() < np.ptp(fine) / 65535
    flat = values_grid(np.full((3, 4), 7.5, np.float32), 1280)
    assert (unpacked(flat) * flat["slope"] + flat["intercept"] == 7.5).all()


def test_large_values_shrink_without_new_extremes():
    values = np.zeros((1000, 2000), np.float32)
    values[400:600, 900:1100] = 1000  # a sharper filter would ring below 0 and above 1000
    grid = values_grid(values, 500)
    stored = unpacked(grid)
    assert stored.shape == (250, 500) and stored.min() == 0 and stored.max() == 1000


def test_the_state_is_json_and_in_the_pictures_own_pixels(ct):
    told = state(
        ct,
        points=[(10.5, 20.5, 1)],
        box=(1, 2, 3, 4),
        outlines=[square(50, 60)],
        place=(7, 8),
        tool="box",
        shown=heat(ct),
    )
    assert json.loads(json.dumps(told)) == told
    assert (told["width"], told["height"], told["spacing"]) == (200, 120, [2.0, 1.0])
    assert told["points"] == [[10.5, 20.5, 1]] and told["box"] == [1, 2, 3, 4] and told["place"] == [7, 8]
    assert told["outlines"][0]["polygons"][0][0] == [38, 48] and told["tool"] == "box"
    assert (pixels(told["picture"]) == ct.picture()[..., 0]).all()
    values = unpacked(told["values"]) * told["values"]["slope"] + told["values"]["intercept"]
    assert (values == ct.values()).all() and told["values"]["unit"] == "HU"
    assert [preset["name"] for preset in told["window"]["presets"]] == list(ct.windows)
    assert {"name": "lung", "w": 1500, "l": -600, "table": False} in told["window"]["presets"]
    assert told["map"]["range"] == [2, 10] and (unpacked(told["map"]["grid"]) == heat(ct).image()).all()


def test_a_word_s_map_tells_its_peak_and_that_0_is_nothing(ct):
    values = np.zeros((120, 200), np.float32)
    values[40:60, 30:50] = 0.08
    word = Map("word", "sam", None, "mass.", (0.0, 1.0), values, place=2, method="occlusion")
    told = state(ct, shown=word)["map"]
    assert told["fades"] and told["peak"] == pytest.approx(0.08) and told["title"].startswith("“mass”:")
    assert state(ct, shown=heat(ct))["map"]["peak"] is None
    norm = Map("sam_norm", None, None, None, (0.0, 1.0), values)
    assert not state(ct, shown=norm)["map"]["fades"]


def test_fading_colours_are_clear_at_0_and_opaque_from_a_third_on():
    for name in COLOUR_MAPS:
        opacity = fading(name)[:, 3].astype(int)
        assert opacity[0] == 0 and (opacity[85:] == 255).all() and (np.diff(opacity[:86]) > 0).all()
        assert (fading(name)[255, :3] == lookup(name)[255]).all()
        assert fading(name)[0, :3].sum() > 150  # never black over the scan


def test_pictures_are_sent_once(ct):
    sent, shown = Sent(), heat(ct)
    first = state(ct, sent, shown=shown)
    again = state(ct, sent, shown=shown, outlines=[square(50, 50)])
    assert {"picture", "values"} <= set(first) and "grid" in first["map"]
    assert not {"picture", "values"} & set(again) and "grid" not in again["map"]
    assert (
        again["scan"] == first["scan"] and again["view"] == first["view"] and again["map"]["key"] == first["map"]["key"]
    )
    windowed = state(ct, sent, window="lung", shown=shown)
    assert "picture" in windowed and "values" not in windowed and windowed["view"] != first["view"]
    assert "grid" in state(ct, sent, window="lung", shown=heat(ct))["map"]
    sent.forget()
    everything = state(ct, sent, window="lung", shown=shown)
    assert {"picture", "values"} <= set(everything) and "grid" in everything["map"]
    assert everything["scan"] == first["scan"]  # the browser keeps its zoom


def test_another_scan_starts_afresh(ct, folder):
    sent = Sent()
    first, other = state(ct, sent), state(made_photo(folder / "photo"), sent)
    assert other["scan"] != first["scan"] and "picture" in other
    assert other["window"] is None and other["values_key"] is None and "values" not in other
    assert state(ct)["scan"] != state(ct)["scan"]  # two visitors share no key


def test_frames_bring_their_own_values(folder):
    scan, sent = made_series(folder / "series"), Sent()
    first, second = state(scan, sent), state(scan, sent, frame=3)
    assert first["frames"] == 12 and second["frame"] == 3 and "values" in second
    assert (unpacked(second["values"]) + second["values"]["intercept"] == scan.values(3)).all()
    assert second["values"]["unit"] == "" and second["spacing"] is None
    assert "frame 4 of 12" in second["alt"]


def test_all_of_a_large_picture_comes_when_it_is_asked_for(folder):
    scan, sent = made_xray(folder / "xray"), Sent()
    first = state(scan, sent)
    assert max(pixels(first["picture"]).shape) == 1280 and "full" not in first
    assert first["spacing_note"] == "at the detector"
    full = state(scan, sent, full=True)
    assert (unpacked(full["full"]) * full["full"]["slope"] + full["full"]["intercept"] == scan.values()).all()
    assert "full" in state(scan, sent, full=True)  # whoever asks again lost it
    # Another window is computed in the browser from the same values.
    assert state(scan, sent, window="1000,2000", full=True)["full_key"] == full["full_key"]


def test_low_values_shown_white_are_noticed(folder, ct):
    path = folder / "negative"
    write_dicom(
        path, ct.values(), modality="CT", body_part="CHEST", spacing=None, window=Window(400, 40), intercept=-1024
    )
    import pydicom

    dataset = pydicom.dcmread(path)
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.save_as(path)
    scan = open_scan(path)
    told = state(scan)
    assert told["values"]["invert"] and told["full_key"] == told["values_key"]
    assert not state(ct)["values"]["invert"]
    dark = state(scan, window="1,5000")  # one flat grey: says nothing of which way
    assert dark["values"]["invert"]


def test_a_curve_is_left_to_the_server(folder, ct):
    path, wide = folder / "sigmoid", Window(1500, -300)
    write_dicom(path, ct.values(), modality="CT", body_part="CHEST", spacing=None, window=wide, intercept=-1024)
    import pydicom

    dataset = pydicom.dcmread(path)
    dataset.VOILUTFunction = "SIGMOID"
    dataset.save_as(path)
    told = state(open_scan(path))
    assert told["full_key"] == told["view"]  # its full picture is sent as a picture, not windowed in the browser


def test_a_lookup_table_has_a_name_and_only_a_start_for_a_drag(folder):
    scan = made_table(folder / "table")
    told = state(scan)
    assert told["window"]["name"] == "file LUT" and told["window"]["table"] and told["window"]["w"] == 256
    assert told["full_key"] == told["view"]
    assert not state(scan, window="100,50")["window"]["table"]


def test_a_redraw_with_new_outlines_is_quick(folder):
    scan, sent = made_xray(folder / "xray"), Sent()
    picture, rng = scan.picture(), np.random.default_rng(2)
    window = scan.resolve_window(None)[0]
    viewer_state(scan, picture, window=window, sent=sent, shown=(shown := heat(scan)))
    outlines = [
        {"name": "Heart", "colour": "#E69F00", "dash": True, "polygons": [rng.random((400, 2))]} for _ in range(8)
    ]
    seconds = []
    for _ in range(7):
        start = time.thread_time()
        told = viewer_state(scan, picture, window=window, sent=sent, shown=shown, outlines=outlines)
        seconds.append(time.thread_time() - start)
    assert sorted(seconds)[3] < 0.010  # the middle one: a busy machine slows any
    assert "picture" not in told and len(json.dumps(told)) < 100_000


def test_a_message_is_one_text_and_new_even_where_nothing_is(folder):
    told = state(made_ct(folder / "ct"))
    first, second = viewer_message(told), viewer_message(told)
    assert first != second
    for message in (first, second):
        carried = json.loads(message)
        del carried["turn"]
        assert carried == told


def test_the_component_offers_its_events():
    area = viewer.viewer_component()
    for name in ("prompt", "place", "window", "frame", "again", "full", "missing"):
        assert callable(getattr(area, name))
    # gradio reads these two as templates: nothing in them may look like one
    for text in (area.html_template, area.css_template):
        assert not any(mark in text for mark in ("${", "{{", "`", "\\"))
    assert (
        "http://" not in area.js_on_load.replace("http://www.w3.org/2000/svg", "") and "https://" not in area.js_on_load
    )
