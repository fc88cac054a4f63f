"""A visitor's prompts and answers: in the scan's frame, refined and undone a step at a time, exported with nothing of a patient."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from fake import FakePredictor
from PIL import Image

from msmedcap.config import UserError
from msmedcap.data.scans import Window, write_dicom
from msmedcap.demo.structures.segments import (
    COLOURS,
    MOST_KEPT,
    VIEW_SIDE,
    Segments,
    area_words,
    mentions,
    told,
    told_hottest,
)
from msmedcap.explain.maps import Map

HEIGHT, WIDTH = 60, 100


def png(height: int = HEIGHT, width: int = WIDTH) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def predictor() -> FakePredictor:
    return FakePredictor().set_scan(png())


@pytest.fixture
def segments(predictor: FakePredictor) -> Segments:
    return Segments(predictor)


def inside(polygons: list[list[list[float]]], height: int, width: int) -> np.ndarray:
    """The pixels whose centres lie inside polygons, by the even-odd rule."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    odd = np.zeros((height, width), bool)
    for polygon in polygons:
        for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            if y0 != y1:
                odd ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
    return odd


def files_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as pack:
        return {name: pack.read(name) for name in pack.namelist()}


def test_a_point_is_answered_with_its_mask(segments: Segments) -> None:
    segments.ask([[30.5, 20.5, 1]])
    assert segments.points == ((30.5, 20.5, 1),) and segments.box is None
    assert segments.current is not None and segments.current.binary[20, 30]
    solid, dashed = segments.outlines()
    assert (solid["dash"], dashed["dash"]) == (False, True) and solid["colour"] == dashed["colour"] == COLOURS[0]
    assert solid["name"] == "1 Right Lung"
    assert (inside(solid["polygons"], HEIGHT, WIDTH) == segments.current.binary).all()
    assert (inside(dashed["polygons"], HEIGHT, WIDTH) == segments.current.semantic).all()


def test_switches_choose_the_outlines(segments: Segments) -> None:
    segments.ask([[30, 20, 1]])
    segments.solid = False
    assert [line["dash"] for line in segments.outlines()] == [True]
    segments.dashed = False
    assert segments.outlines() == []


def test_further_points_refine_and_anything_else_begins_anew(segments: Segments) -> None:
    segments.ask([[30, 20, 1]])
    assert segments.rows()[0].iou == 0.8
    segments.add(35, 22, 0)
    assert segments.points == ((30, 20, 1), (35, 22, 0)) and segments.rows()[0].iou == 0.95
    segments.set_box([10, 10, 40, 40])
    assert segments.rows()[0].iou == 0.8
    segments.add(12, 12)
    assert segments.rows()[0].iou == 0.95
    segments.remove(0)
    assert segments.points == ((35, 22, 0), (12, 12, 1)) and segments.rows()[0].iou == 0.8


def test_undo_goes_back_step_by_step_to_the_same_answers(segments: Segments) -> None:
    seen = []
    for change in (
        lambda: segments.add(30, 20),
        lambda: segments.add(40, 30),
        lambda: segments.set_box((5, 5, 50, 50)),
        segments.clear,
    ):
        change()
        seen.append((segments.points, segments.box, segments.rows(), segments.outlines()))
    assert seen[-1] == ((), None, [], [])
    for before in reversed(seen[:-1]):
        segments.undo()
        assert (segments.points, segments.box, segments.rows(), segments.outlines()) == before
    segments.undo()
    assert (segments.points, segments.rows()) == ((), [])
    with pytest.raises(UserError, match="nothing to undo"):
        segments.undo()


def test_the_viewers_own_undo_is_one(segments: Segments) -> None:
    segments.ask([[30, 20, 1]])
    segments.ask([[30, 20, 1], [40, 20, 1]])
    segments.ask([[30, 20, 1]])
    segments.undo()
    assert segments.points == ()


def test_a_place_beside_waits_for_one_on_the_structure(segments: Segments) -> None:
    segments.ask([[30, 20, 0]])
    assert segments.points == ((30, 20, 0),) and segments.current is None and segments.outlines() == []
    segments.add(10, 10)
    assert segments.current is not None and segments.rows()[0].iou == 0.8


@pytest.mark.parametrize(
    ("points", "box", "said"),
    [
        ([[101, 3, 1]], None, "100 x 60"),
        ([[101, 3, 0]], None, "100 x 60"),
        ([], [3, 3, 3, 9], "no area"),
        ([], [3, 3, 300, 9], "outside"),
        ([[1, 1, 7]], None, "1,1,7"),
    ],
)
def test_what_cannot_be_asked_changes_nothing(segments: Segments, points: list, box: list | None, said: str) -> None:
    segments.ask([[30, 20, 1]])
    before = (segments.points, segments.box, segments.rows())
    with pytest.raises(UserError, match=said):
        segments.ask(points, box)
    assert (segments.points, segments.box, segments.rows()) == before


def test_without_a_scan_everything_says_so() -> None:
    empty = Segments()
    for ask in (lambda: empty.add(1, 1), lambda: empty.set_box((0, 0, 3, 3)), empty.export):
        with pytest.raises(UserError, match="no open scan"):
            ask()
    assert empty.rows() == [] and empty.outlines() == [] and empty.present() == ()


def test_structures_are_kept_and_dropped_and_keep_their_colours(segments: Segments) -> None:
    with pytest.raises(UserError, match="no mask to keep"):
        segments.keep()
    for x in (10, 30, 90):
        segments.add(x, 20)
        segments.keep()
        assert segments.points == () and segments.current is None
    segments.add(50, 50)
    rows = segments.rows()
    assert [row.number for row in rows] == [1, 2, 3, 4] and [row.asked for row in rows] == [False] * 3 + [True]
    assert [row.colour for row in rows] == list(COLOURS[:4])
    assert [row.name for row in rows] == ["Right Lung", "Right Lung", "Left Lung", "Right Lung"]
    segments.drop(rows[1].key)
    left = segments.rows()
    assert [row.number for row in left] == [1, 2, 3] and [row.colour for row in left] == [COLOURS[i] for i in (0, 2, 3)]
    segments.drop(rows[3].key)
    assert len(segments.rows()) == 2 and segments.points == ()
    segments.drop(rows[3].key)
    assert len(segments.rows()) == 2
    segments.add(50, 50)
    assert segments.rows()[-1].colour == COLOURS[1]


def test_there_is_an_end_to_keeping(segments: Segments) -> None:
    for index in range(MOST_KEPT):
        segments.add(index + 1, 20)
        segments.keep()
    segments.add(50, 20)
    with pytest.raises(UserError, match="remove one"):
        segments.keep()
    assert len(segments.rows()) == MOST_KEPT + 1


def test_colours_are_told_apart_before_they_come_again(segments: Segments) -> None:
    for index in range(len(COLOURS) + 2):
        segments.add(index + 1, 20)
        segments.keep()
    colours = [row.colour for row in segments.rows()]
    assert colours == [*COLOURS, *COLOURS[:2]] and len(set(COLOURS)) == len(COLOURS) == 7


def test_the_export_is_what_was_shown(predictor: FakePredictor, segments: Segments) -> None:
    answers = []
    for x, y in ((20, 20), (22, 20), (80, 40)):
        segments.add(x, y)
        answers.append(segments.current)
        segments.keep()
    segments.set_box((40, 10, 60, 30))
    answers.append(segments.current)
    found = files_of(segments.export())
    names = [f"{n}-{which}.png" for n in (1, 2, 3, 4) for which in ("binary", "semantic")]
    assert list(found) == sorted([*names, "index.png", "segment.json"])
    for number, answer in enumerate(answers, 1):
        for which in ("binary", "semantic"):
            image = np.asarray(Image.open(io.BytesIO(found[f"{number}-{which}.png"])))
            assert image.shape == (HEIGHT, WIDTH) and (image == getattr(answer, which) * 255).all()
    index = np.asarray(Image.open(io.BytesIO(found["index.png"])))
    assert (index == 4).sum() == answers[3].area_px
    rows = json.loads(found["segment.json"])["segments"]
    assert [row["area_px"] for row in rows] == [row.area_px for row in segments.rows()]
    assert rows[3]["prompt"]["box"] == [40, 10, 60, 30]
    segments.clear()
    for row in segments.rows():
        segments.drop(row.key)
    with pytest.raises(UserError, match="no mask to write"):
        segments.export()


def test_an_export_tells_neither_when_nor_of_whom(tmp_path: Path) -> None:
    scan = tmp_path / "MUELLER-ANNA.dcm"
    values = np.random.default_rng(0).uniform(-900, 300, (50, 90)).astype(np.float32)
    window = Window(400, 40)
    write_dicom(scan, values, modality="CT", body_part="CHEST", spacing=(0.5, 1.5), window=window, intercept=-1024)
    file = pydicom.dcmread(scan)
    file.PatientName, file.PatientID, file.StudyDate = "Mueller^Anna", "MRN-4711", "20260101"
    file.save_as(scan)
    segments = Segments(FakePredictor().set_scan(scan))
    segments.add(45, 25)
    data = segments.export(dicom_seg=True)
    with zipfile.ZipFile(io.BytesIO(data)) as pack:
        assert {entry.date_time for entry in pack.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    found = files_of(data)
    assert all(
        word not in content for content in found.values() for word in (b"ueller", b"MUELLER", b"MRN-4711", b"20260101")
    )
    import highdicom

    seg = highdicom.seg.segread(io.BytesIO(found["segmentation.dcm"]))
    assert not (seg.PatientName or seg.PatientID or seg.StudyDate)
    mask = seg.get_pixels_by_source_instance([pydicom.dcmread(io.BytesIO(found["image.dcm"])).SOPInstanceUID])
    assert segments.current is not None
    assert (mask[0, ..., 0] == segments.current.binary).all()
    (row,) = segments.rows()
    assert row.area_mm2 == pytest.approx(row.area_px * 0.5 * 1.5)


@pytest.mark.parametrize(("height", "width"), [(1600, 1400), (700, 2600)])
def test_outlines_of_a_large_scan_are_drawn_as_fine_as_the_screen(height: int, width: int) -> None:
    segments = Segments(FakePredictor().set_scan(png(height, width)))
    segments.set_box((100, 200, 1000, 600))
    solid = segments.outlines()[0]["polygons"]
    corners = np.concatenate([np.array(polygon) for polygon in solid])
    pixel = max(height, width) / VIEW_SIDE
    assert np.abs(corners.min(0) - (100, 200)).max() <= pixel and np.abs(corners.max(0) - (1000, 600)).max() <= pixel
    assert segments.rows()[0].area_px == 900 * 400
    (mask,) = (v for k, v in files_of(segments.export()).items() if k == "binary.png")
    assert (np.asarray(Image.open(io.BytesIO(mask))) > 0).sum() == 900 * 400


def hot(x: int, y: int, word: str | None = None) -> Map:
    values = np.zeros((HEIGHT, WIDTH), np.float32)
    values[y, x] = 0.5
    return Map("word" if word else "attention", "clip", 2, word, (0.0, 0.5), values)


def test_the_hottest_place_becomes_the_prompt(segments: Segments) -> None:
    segments.set_box((40, 10, 60, 30))
    found = hot(80, 25)
    spot = segments.ask_hottest(found)
    assert segments.points == ((80.5, 25.5, 1),) and segments.box is None
    assert segments.current is spot.structure
    said = told_hottest(found, spot, {"MSMedCap": "The left lung is clear.", "BLIP2": "The liver."})
    assert "(80.5, 25.5)" in said and "Left Lung, 90%" in said and "MSMedCap" in said and "BLIP2" not in said
    assert "caption" not in told_hottest(found, spot, {"MSMedCap": "A left sided lung.", "BLIP2": ""})
    assert "“opacity”" in told_hottest(hot(80, 25, "opacity"), spot, {})
    segments.undo()
    assert segments.box == (40, 10, 60, 30)
    with pytest.raises(UserError, match="colours"):
        segments.ask_hottest(Map("sam_pca", None, None, None, (0, 255), np.zeros((HEIGHT, WIDTH, 3), np.uint8)))


@pytest.mark.parametrize(
    ("caption", "label", "found"),
    [
        ("Chest film, RIGHT  LUNG clear.", "Right Lung", True),
        ("The right lung's apex", "Right Lung", True),
        ("the lung right of it", "Right Lung", True),  # a synonym of the class
        ("The left lung is clear.", "Right Lung", False),
        ("bright lungs", "Right Lung", False),
        ("hearty", "heart", False),
        ("A thing of mine.", "thing of mine", True),
        ("", "heart", False),
    ],
)
def test_a_name_is_found_as_words(caption: str, label: str, found: bool) -> None:
    assert mentions(caption, label) is found


def test_what_is_said_where_nothing_is_outlined_or_it_is_in_doubt(segments: Segments) -> None:
    found = hot(80, 25)
    spot = segments.ask_hottest(found)
    for change in ({"area_px": 0, "label": None, "score": None}, {"iou": 0.15}, {"iou": 0.9}):
        said = told_hottest(found, replace(spot, structure=replace(spot.structure, **change)), {})
        assert ("outlines nothing" in said) == ("area_px" in change) and ("doubts" in said) == (change.get("iou") == 0.15)
    assert "outlines nothing" in told(replace(spot.structure, area_px=0, label=None, score=None))


def test_kept_structures_go_on_in_another_view(predictor: FakePredictor, segments: Segments) -> None:
    segments.add(80, 20)
    segments.keep()
    later = Segments(predictor, segments.kept)
    later.add(20, 20)
    assert [row.key for row in later.rows()] == [0, 1] and len({row.colour for row in later.rows()}) == 2
    assert later.rows()[0] == segments.rows()[0]
    later.drop(0)
    assert len(segments.kept) == 1 and later.kept == ()


def test_what_is_said_of_an_answer(segments: Segments) -> None:
    segments.set_box((40, 10, 60, 30))
    assert segments.current is not None
    assert told(segments.current) == "Right Lung (90%), 400 pixels."
    assert area_words(12345, 678.4) == ["12,345 pixels", "678 mm²"] and area_words(3, 0.75) == ["3 pixels", "0.8 mm²"]
    assert "no pixel spacing" in segments.note
