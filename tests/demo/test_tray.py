"""The tray: scans keep their views and captions, captioning many is captioning each, and an export says how it was made."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fake import FakePredictor
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file

import msmedcap
from msmedcap.config import UserError
from msmedcap.data.scans import Found, ScanError, Window, open_scans, write_dicom
from msmedcap.demo.session import Session
from msmedcap.demo.tray import cards as tray_cards
from msmedcap.demo.tray import export as tray_export
from msmedcap.demo.tray.tray import CAPTIONED, FAILED, MOST_WRITTEN, WAITING, Tray

SECRET = "ZZSECRETZZ"
CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "demo"


def bundled(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), f"pydicom does not bundle {name}"
    return Path(path).read_bytes()


def slices(tmp_path: Path, count: int, *, flat: tuple[int, ...] = ()) -> list[bytes]:
    files = []
    for n in range(count):
        values = np.full((24, 32), -1000, np.float32)
        values[6:18, 8 : 12 + n] = 0 if n in flat else 40 + n
        if n in flat:
            values[:] = -1000
        path = tmp_path / f"{n}"
        write_dicom(
            path, values, modality="CT", body_part="CHEST", spacing=(1, 1), window=Window(400, 40), intercept=-1024,
            position=(0, 0, 3 * n), series="s", instance=n + 1,
        )  # fmt: skip
        dataset = dcmread(path)
        dataset.PatientName = dataset.PatientID = dataset.SeriesDescription = SECRET
        dataset.save_as(path)
        files.append(path.read_bytes())
    return files


@pytest.fixture
def session() -> Session:
    """Three scans and a file that is none, nothing captioned yet, the first one open."""
    session = Session(FakePredictor())
    files = [bundled("CT_small.dcm"), b"%PDF-1.7", bundled("MR_small.dcm"), bundled("examples_rgb_color.dcm")]
    entries = session.tray.add(open_scans(files))
    session.turn_to(entries[0].id)
    return session


def walk(session: Session, *, preset: str = "fast", prompt: str | None = None) -> None:
    session.keep_view()
    session.tray.start(preset=preset, prompt=prompt)
    walker = session.tray.walker()
    while session.tray.walk is not None:
        list(session.caption_next(walker))


def texts(session: Session) -> dict[str, dict[str, str]]:
    return {e.id: dict(e.written[-1].reading.texts) for e in session.tray.entries if e.written}


def test_scans_are_numbered_and_a_bad_file_has_its_row(session):
    entries = session.tray.entries
    assert [entry.id for entry in entries] == ["scan-01", "scan-02", "scan-03", "scan-04"]
    assert [entry.state for entry in entries] == [WAITING, FAILED, WAITING, WAITING] and "PDF" in entries[1].said
    with pytest.raises(ScanError, match="PDF"):
        session.turn_to("scan-02")
    assert session.tray.current == "scan-01" and session.scan is entries[0].scan


def test_numbers_are_not_given_twice(session):
    session.remove("scan-04")
    (entry,) = session.tray.add(open_scans([bundled("MR_small_RLE.dcm")]))
    assert entry.id == "scan-05"
    with pytest.raises(UserError, match="no longer"):
        session.turn_to("scan-04")


def test_each_scan_keeps_its_view_its_place_and_its_captions(session):
    session.open(session.scan, window="lung")
    session.point = (3.0, 4.0)
    list(session.captions())
    first = session.reading
    session.turn_to("scan-03")
    assert session.reading is None and session.point is None and session.view == "the file's own window"
    list(session.captions())
    session.turn_to("scan-01")
    assert (session.view, session.point, session.reading) == ("lung window", (3.0, 4.0), first)
    assert session.maps == [] and session.tray.get("scan-03").state == CAPTIONED


def test_a_new_file_joins_the_tray_and_the_same_one_again_is_the_same_scan(session, ct_file, png_file):
    session.open(ct_file.read_bytes())
    session.open(session.scan, window="bone")
    list(session.captions())
    session.open(png_file.read_bytes())
    assert len(session.tray) == 6 and session.tray.current == "scan-06"
    session.open(ct_file.read_bytes())
    assert len(session.tray) == 6 and session.tray.current == "scan-05"
    assert session.view == "the file's own window" and session.reading is None  # as of a file just sent
    assert len(session.tray.open.written) == 1


def test_half_a_caption_is_not_kept(session):
    captions = session.captions()
    next(captions)
    session.turn_to("scan-03")
    assert list(captions) == [] and session.tray.get("scan-01").written == []
    session.turn_to("scan-01")
    assert session.reading is None


def test_taking_away_the_open_scan_leaves_none_open(session):
    session.remove("scan-03")
    assert session.scan is not None
    session.remove("scan-01")
    session.remove("scan-01")
    assert session.scan is None and session.view == "" and len(session.tray) == 2


def test_a_series_opens_at_its_middle_slice_and_flat_slices_are_passed_by(tmp_path):
    session = Session(FakePredictor())
    (entry,) = session.tray.add(open_scans(slices(tmp_path, 9, flat=(0, 4))))
    assert entry.frame in (3, 5) and entry.thumbnail.startswith("data:image/png")
    session.turn_to(entry.id)
    assert session.view.endswith(f"frame {entry.frame + 1} of 9") and "9 slices" in tray_cards.scan_list(session.tray)


def test_captioning_all_is_captioning_each(session):
    walk(session)
    batch = texts(session)
    assert set(batch) == {"scan-01", "scan-03", "scan-04"}
    for entry in session.tray.entries:
        if entry.scan is not None:
            alone = FakePredictor().set_scan(entry.scan, window=entry.window, frame=entry.frame)
            assert batch[entry.id] == alone.captions()
    assert session.reading.texts == batch["scan-01"]  # the open one's stand on the page, too


@pytest.mark.slow
@pytest.mark.skipif(not (CHECKPOINT / "config.json").is_file(), reason="the shipped models are not here")
def test_captioning_all_is_captioning_each_with_the_shipped_models():
    models = msmedcap.load("demo", device="cpu")
    files = [bundled("CT_small.dcm"), bundled("MR_small.dcm")]
    session = Session(models)
    session.tray.add(open_scans(files))
    walk(session)
    assert list(texts(session).values()) == [models.fresh().set_scan(data).captions() for data in files]


def test_only_what_waits_is_captioned_and_another_view_waits_again(session):
    walk(session)
    session.tray.start(preset="fast", prompt=None)
    assert session.tray.walk is None
    session.open(session.scan, window="lung")
    session.keep_view()
    session.tray.start(preset="fast", prompt=None)
    assert session.tray.walk.total == 1
    session.tray.start(preset="paper", prompt=None)
    assert session.tray.walk.total == 3


def test_cancel_stops_at_the_next_word_and_keeps_what_is_done(session):
    session.tray.start(preset="fast", prompt=None)
    walker = session.tray.walker()
    list(session.caption_next(walker))
    assert (session.tray.walk.done, session.tray.walk.total, session.tray.walk.entry) == (1, 3, "scan-03")
    second = session.caption_next(walker)
    next(second)
    session.tray.stop()
    assert len(list(second)) == 0 and session.tray.walk is None
    assert [entry.state for entry in session.tray.entries] == [CAPTIONED, FAILED, WAITING, WAITING]


def test_who_walks_in_anothers_place_walks_alone(session):
    session.tray.start(preset="fast", prompt=None)
    old = session.tray.walker()
    steps = session.caption_next(old)
    next(steps)
    new = session.tray.walker()
    assert len(list(steps)) == 0 and list(session.caption_next(old)) == []
    assert session.tray.walk.done == 0
    list(session.caption_next(new))
    assert session.tray.walk.done == 1


def test_a_scan_that_is_removed_while_it_is_read_is_gone(session):
    session.tray.start(preset="fast", prompt=None)
    walker = session.tray.walker()
    steps = session.caption_next(walker)
    next(steps)
    session.remove("scan-01")
    list(steps)
    assert (session.tray.walk.done, session.tray.walk.total, session.tray.walk.entry) == (0, 2, "scan-03")


def test_a_crash_is_a_sentence_in_its_row_and_the_next_one_comes():
    session = Session(FakePredictor(crash="/secret/path"))
    session.tray.add(open_scans([bundled("CT_small.dcm"), bundled("MR_small.dcm")]))
    walk(session)
    assert [entry.state for entry in session.tray.entries] == [FAILED, FAILED]
    assert "went wrong" in session.tray.entries[0].said and "secret" not in tray_cards.scan_list(session.tray)
    assert "secret" not in tray_cards.results(session.tray, FakePredictor().systems)


def test_a_full_tray_is_one_sentence_and_takes_nothing():
    found = open_scans([bundled("CT_small.dcm"), bundled("MR_small.dcm")])
    for tray, said in ((Tray(most_scans=1), "1 scans at most"), (Tray(most_bytes=1 << 15), "MB at most")):
        with pytest.raises(UserError, match=said):
            tray.add(found)
        assert len(tray) == 0
        tray.add([Found(None, "This is no scan.")])


def test_scans_are_held_small():
    ramp = np.linspace(0, 255, 600 * 800).reshape(600, 800).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([ramp] * 2 + [255 - ramp])).save(buffer, "PNG")
    tray = Tray()
    (entry,) = tray.add(open_scans([buffer.getvalue()]))
    assert tray.nbytes < 600 * 800 and len(entry.thumbnail) < 40_000


def test_captions_of_many_views_do_not_pile_up(session):
    for width in range(MOST_WRITTEN + 5):
        session.open(session.scan, window=f"{width + 10},40")
        list(session.captions())
    kept = session.tray.open.written
    assert len(kept) == MOST_WRITTEN and kept[-1].window == f"{MOST_WRITTEN + 14},40"


def made(session: Session) -> tray_export.MadeWith:
    return tray_export.made_with("/home/someone/models/fake", FakePredictor().systems)


def test_the_csv_says_what_each_caption_was_written_for(session):
    session.open(session.scan, window="500,50")
    list(session.captions(prompt="=HYPERLINK(evil)"))
    walk(session)
    rows = list(csv.DictReader(io.StringIO(tray_export.as_csv(session.tray, made(session)).decode("utf-8-sig"))))
    assert [row["scan"] for row in rows] == ["scan-01", "scan-01", "scan-03", "scan-04"]
    assert (rows[0]["window"], rows[0]["window_width"], rows[0]["window_level"]) == ("500,50", "500.0", "50.0")
    assert rows[0]["prompt"] == "'=HYPERLINK(evil)" and rows[3]["window"] == ""  # colours have no window
    assert rows[1]["MSMedCap"] == texts(session)["scan-01"]["MSMedCap"] and rows[0]["modality"] == "CT"


def test_an_archive_proves_what_it_holds_and_names_nobody(tmp_path):
    session = Session(FakePredictor())
    named = dcmread(io.BytesIO(bundled("MR_small.dcm")))
    named.PatientName = SECRET
    buffer = io.BytesIO()
    named.save_as(buffer)
    session.tray.add(open_scans([*slices(tmp_path, 5), buffer.getvalue(), b"junk"]))
    walk(session)
    data = tray_export.as_zip(session.tray, made(session))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(files.pop("manifest.json"))
    assert {name: hashlib.sha256(content).hexdigest() for name, content in files.items()} == {
        name: entry["sha256"] for name, entry in manifest["files"].items()
    }
    assert [scan["scan"] for scan in manifest["scans"]] == ["scan-01", "scan-02"]
    first = manifest["scans"][0]
    assert (first["frames"], first["between_slices_mm"], first["panels"]) == (5, 3.0, ["panels/scan-01-1.png"])
    assert first["views"][0]["window"] == {"name": "file", "width": 400, "level": 40} and first["views"][0]["frame"] == 2
    assert manifest["made_with"]["msmedcap"] == msmedcap.__version__ and manifest["made_with"]["models"] == "fake"
    for content in [data, json.dumps(manifest).encode(), *files.values()]:
        assert SECRET.encode() not in content and b"someone" not in content and str(tmp_path).encode() not in content
    panel = Image.open(io.BytesIO(files["panels/scan-01-1.png"]))
    assert panel.text == {} and panel.width > 900


def test_a_panel_shows_the_picture_that_was_captioned(session):
    walk(session)
    with zipfile.ZipFile(io.BytesIO(tray_export.as_zip(session.tray, made(session)))) as archive:
        panel = np.asarray(Image.open(io.BytesIO(archive.read("panels/scan-01-1.png"))).convert("L"), np.float64)
    picture = Image.fromarray(session.scan.picture()).convert("L").resize((480, 480), Image.Resampling.LANCZOS)
    shown = np.asarray(picture, np.float64)
    height = next(y for y in range(100) if np.corrcoef(panel[y : y + 480, 24:504].ravel(), shown.ravel())[0, 1] > 0.999)
    assert abs(panel[height : height + 480, 24:504] - shown).mean() < 2


@pytest.mark.skipif(not (CHECKPOINT / "config.json").is_file(), reason="the shipped models are not here")
def test_the_shipped_models_are_named_with_their_weights_and_decodings():
    record = tray_export.made_with("demo", ("MSMedCap",)).record()
    assert len(record["weights"]) == 16 and record["decodings"]["paper"]["beams"] == 15 and record["models"] == "demo"


def test_nothing_to_export_is_one_sentence(session):
    for make in (tray_export.as_csv, tray_export.as_json, tray_export.as_zip):
        with pytest.raises(UserError, match="caption a scan first"):
            make(session.tray, made(session))


def test_words_in_the_list_are_escaped(session):
    entry = session.tray.entries[1]
    entry.error = "<img src=x onerror=alert(1)>"
    assert "<img src=x" not in tray_cards.scan_list(session.tray) and tray_cards.results(session.tray, ("A",)) == ""
    assert 'role="option"' in tray_cards.scan_list(session.tray) and "No scans yet" in tray_cards.scan_list(Tray())
