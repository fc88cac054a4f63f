"""Many files at once: slices of a series in their order, ZIP archives that cannot harm, everything else as it would be alone."""

from __future__ import annotations

import gc
import io
import logging
import os
import random
import struct
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from msmedcap.data.scans import Collector, Found, ScanError, Window, archive, open_scan, open_scans, series, write_dicom

SECRET = "ZZSECRETZZ"
CORONAL = (1, 0, 0, 0, 0, -1)


def bundled(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), f"pydicom does not bundle {name}"
    return Path(path).read_bytes()


def slice_of(tmp_path: Path, value: float, *, height: float = 0, name: str = "a", **settings) -> bytes:
    """A CT slice whose corner pixel tells it from the others, at ``height`` mm."""
    values = np.zeros((12, 16), np.float32)
    values[0, 0], values[3:9, 4:12] = value, 60
    given = {"modality": "CT", "body_part": "CHEST", "spacing": (0.8, 0.7), "window": Window(400, 40), "intercept": -1024}
    path = tmp_path / "slice"
    write_dicom(path, values, **{**given, "position": (-10, -20, height), "series": name, **settings})
    return path.read_bytes()


def corners(found: Found) -> list[float]:
    assert found.scan is not None
    return [float(found.scan.values(frame)[0, 0]) for frame in range(found.scan.frames)]


def changed(data: bytes, **tags) -> bytes:
    dataset = dcmread(io.BytesIO(data))
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def zipped(*files: bytes, names: tuple[str, ...] = (), method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as packed:
        for number, data in enumerate(files):
            packed.writestr(names[number] if names else f"IM{number:04d}", data)
    return buffer.getvalue()


def png(value: int = 200) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.array([[0, value], [value, 30]], np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def secrets(thing: object) -> list[Any]:
    """Everything reachable from ``thing`` whose text or bytes hold the secret."""
    stack, seen, found = [thing], set(), []
    while stack:
        thing = stack.pop()
        if id(thing) in seen or isinstance(thing, (type, types.ModuleType, types.FunctionType, logging.Logger)):
            continue
        seen.add(id(thing))
        text = thing.tobytes() if isinstance(thing, np.ndarray) else thing
        if isinstance(text, (bytes, bytearray)) and SECRET.encode() in text or isinstance(text, str) and SECRET in text:
            found.append(thing)
        stack += gc.get_referents(thing)
    return found


def errors(*sources: bytes) -> list[str]:
    return [found.error for found in open_scans(sources)]


def test_slices_in_any_order_become_one_scan_from_low_to_high(tmp_path):
    slices = [slice_of(tmp_path, 100 + 7 * n, height=2.5 * n, instance=50 - n) for n in range(8)]
    shuffled = random.Random(3).sample(slices, len(slices))
    (found,) = open_scans(shuffled)
    assert corners(found) == [100 + 7 * n for n in range(8)] and found.files == 8
    scan = found.scan
    assert (scan.kind, scan.frames, scan.spacing, scan.between) == ("DICOM", 8, (0.8, 0.7), 2.5)
    assert scan.facts == {"Modality": "CT", "BodyPartExamined": "CHEST"} and scan.default_window == "file"
    assert list(scan.windows) == list(open_scan(slices[0]).windows)
    assert (scan.picture("lung", 5) == open_scan(slices[5]).picture("lung")).all()


def test_the_order_follows_the_normal_not_an_axis(tmp_path):
    tilted = (1, 0, 0, 0, 0.8, 0.6)  # its normal is (0, -0.6, 0.8): y falls as the stack rises
    slices = [
        slice_of(tmp_path, 100 + n, orientation=tilted, position=(3 * n, -6 * n, 8 * n), instance=1) for n in (2, 0, 3, 1)
    ]
    (found,) = open_scans(slices)
    assert corners(found) == [100, 101, 102, 103]
    assert found.scan.between == pytest.approx(0.6 * 6 + 0.8 * 8)


def test_files_without_a_place_go_by_their_numbers(tmp_path):
    slices = [
        changed(slice_of(tmp_path, 100 + n, instance=n), ImagePositionPatient=None) for n in (10, 2, 1)
    ]  # "10" comes after "2": numbers, not texts
    (found,) = open_scans(slices)
    assert corners(found) == [101, 102, 110] and found.scan.between is None
    assert any("ordered by their numbers" in note for note in found.scan.warnings)


def test_a_localizer_of_another_orientation_is_a_scan_of_its_own(tmp_path):
    slices = [slice_of(tmp_path, 100 + n, height=n) for n in range(3)]
    localizer = slice_of(tmp_path, 900, orientation=CORONAL)
    larger = changed(slice_of(tmp_path, 0, height=9), PixelSpacing=[1.6, 1.4])
    found = open_scans([localizer, *slices, larger])
    assert [item.scan.frames for item in found] == [1, 3, 1] and corners(found[0]) == [900]


def test_series_do_not_mix_and_scans_come_in_the_order_of_their_first_file(tmp_path):
    one, two = ([slice_of(tmp_path, 100 * m + n, height=n, name=str(m)) for n in range(2)] for m in (1, 2))
    found = open_scans([two[1], png(), one[0], two[0], one[1]])
    assert [item.scan.kind for item in found] == ["DICOM", "PNG", "DICOM"]
    assert corners(found[0]) == [200, 201] and corners(found[2]) == [100, 101]


def test_two_views_of_a_chest_are_two_scans(tmp_path):
    views = [
        slice_of(tmp_path, 500 + n, modality="DX", intercept=0, series="chest", instance=n + 1) for n in range(2)
    ]
    assert [item.scan.frames for item in open_scans(views)] == [1, 1]


def test_the_same_slice_twice_counts_once(tmp_path):
    slices = [slice_of(tmp_path, 100 + n, height=n) for n in range(3)]
    (found,) = open_scans([*slices, slices[1]])
    assert corners(found) == [100, 101, 102] and found.files == 4
    (alone,) = open_scans([slices[0], slices[0]])
    assert alone.scan.frames == 1


def test_uneven_steps_and_repeated_places_are_said(tmp_path):
    gap = open_scans([slice_of(tmp_path, n + 1, height=h) for n, h in enumerate((0, 1, 2, 5))])[0].scan
    assert gap.between is None and any("1 to 3 mm apart" in note for note in gap.warnings)
    echoes = [slice_of(tmp_path, 10 * h + i, height=h, instance=i, modality="MR", intercept=0) for h in (1, 2) for i in (1, 2)]
    (found,) = open_scans(echoes[::-1])
    assert corners(found) == [11, 12, 21, 22] and any("same place" in note for note in found.scan.warnings)


def test_each_slice_keeps_its_own_scale_and_window(tmp_path):
    low = slice_of(tmp_path, 100, height=0)
    high = slice_of(tmp_path, 100, height=1, intercept=-500, window=Window(80, 30))
    (found,) = open_scans([high, low])
    assert corners(found) == [100, 100]
    assert found.scan.resolve_window("file", 0)[1] == Window(400, 40)
    assert found.scan.resolve_window("file", 1)[1] == Window(80, 30)


def test_a_file_of_many_frames_stays_itself():
    found = open_scans([bundled("rtdose.dcm"), bundled("CT_small.dcm"), bundled("MR_small.dcm")])
    assert [(item.scan.frames, item.scan.facts.get("Modality")) for item in found] == [(15, "RTDOSE"), (1, "CT"), (1, "MR")]


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "examples_palette.dcm", "JPEG2000.dcm", "MR_small_RLE.dcm"])
def test_one_file_among_many_is_what_it_is_alone(name):
    alone, (found, _) = open_scan(bundled(name)), open_scans([bundled(name), png()])
    assert (found.scan.picture() == alone.picture()).all() and found.scan.warnings == alone.warnings
    assert (found.scan.windows, found.scan.facts, found.scan.spacing) == (alone.windows, alone.facts, alone.spacing)


def test_a_real_series_is_found_in_its_folder_beside_what_is_no_picture(tmp_path):
    real = bundled("CT_small.dcm")
    x, y, z = dcmread(io.BytesIO(real)).ImagePositionPatient
    for n in (2, 0, 1):
        moved = changed(real, ImagePositionPatient=[x, y, z + 5 * n], SOPInstanceUID=generate_uid())
        (tmp_path / f"{9 - n}").write_bytes(moved)
    (tmp_path / "README").write_text("words")
    (tmp_path / ".hidden").write_bytes(real)
    collector = Collector()
    collector.add_folder(tmp_path)
    (found,) = collector.found()
    assert (found.scan.frames, found.files, collector.left_out) == (3, 3, 1) and found.scan.between == pytest.approx(5)
    assert (found.scan.values(2) == open_scan(real).values()).all()
    with pytest.raises(ScanError):
        open_scans([tmp_path / "nothing"])


def test_one_bad_file_is_reported_and_the_others_go_on(tmp_path):
    good = [slice_of(tmp_path, 100 + n, height=n) for n in range(2)]
    cut = bundled("MR_small.dcm")[:3000]
    found = open_scans([good[0], cut, b"%PDF-1.7 dear doctor", b"", good[1]])
    assert [item.scan.frames if item.scan else 0 for item in found] == [2, 0, 0, 0]
    assert "cut short" in found[1].error and "PDF" in found[2].error and "empty" in found[3].error


def test_a_marked_picture_is_refused_in_its_row(tmp_path):
    marked = changed(slice_of(tmp_path, 1), BurnedInAnnotation="YES")
    assert "burned-in" in errors(marked)[0]
    (found,) = open_scans([marked], allow_burned_in=True)
    assert any("burned-in" in note for note in found.scan.warnings)


def test_slices_are_decoded_when_they_are_looked_at(tmp_path, monkeypatch):
    slices = [slice_of(tmp_path, 100 + n, height=n) for n in range(40)]
    decoded = []
    real = series.DicomFrames._decode
    monkeypatch.setattr(series.DicomFrames, "_decode", lambda self, frame: decoded.append(1) or real(self, frame))
    (found,) = open_scans(slices)
    assert len(decoded) <= 6  # the first, and those that windows are chosen by
    for frame in range(40):
        found.scan.values(frame)
    kept = [one for one in found.scan._pixels._slices if one._last is not None]
    assert len(kept) == 1 and found.scan.nbytes == 40 * 12 * 16 * 2


def test_a_damaged_slice_fails_when_it_is_asked_for_and_alone(tmp_path):
    slices = [changed(slice_of(tmp_path, 100 + n, height=n, modality="MR", intercept=0)) for n in range(8)]
    dataset = dcmread(io.BytesIO(bundled("MR_small_jp2klossless.dcm")))
    series_uid = dataset.SeriesInstanceUID
    dataset.PixelData = dataset.PixelData[:-2000] + bytes(1000) + dataset.PixelData[-1000:]
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    damaged = changed(buffer.getvalue(), SOPInstanceUID=generate_uid())
    sound = bundled("MR_small_jp2klossless.dcm")
    found = open_scans([sound, damaged, *slices])
    assert sum(item.scan is not None for item in found) >= 2 and series_uid  # nothing was raised, the other series is whole
    assert found[-1].scan.frames == 8


def test_no_trace_of_the_patient_is_reachable(tmp_path):
    tags = dict.fromkeys(("PatientName", "PatientID", "SeriesDescription", "InstitutionName"), SECRET)
    slices = [changed(slice_of(tmp_path, n, height=n), **tags, StudyID=SECRET) for n in range(3)]
    assert all(SECRET.encode() in data for data in slices)
    collector = Collector()
    collector.add(zipped(*slices, names=tuple(f"{SECRET}/{n}.dcm" for n in range(3))))
    (found,) = collector.found()
    assert found.scan.frames == 3 and secrets(found.scan) == []
    uid = str(dcmread(io.BytesIO(slices[0])).SeriesInstanceUID)
    assert uid not in repr(vars(found.scan)) + repr([vars(one._clean) for one in found.scan._pixels._slices])


def test_a_zip_is_looked_into(tmp_path):
    slices = [slice_of(tmp_path, 100 + n, height=n) for n in range(4)]
    packed = zipped(
        *slices[::-1], png(), b"read me", b"junk", b"",
        names=("a/3", "a/2", "../../etc/1", "/abs/0", "film.png", "README.TXT", "__MACOSX/._film.png", "a/"),
    )  # fmt: skip
    collector = Collector()
    collector.add(packed)
    found = collector.found()
    assert [item.scan.frames for item in found] == [4, 1] and collector.left_out == 1
    assert not (tmp_path.parent.parent / "etc").exists() and os.listdir(tmp_path) == ["slice"]


def with_index_size(data: bytes, size: int) -> bytes:
    end = data.rindex(b"PK\5\6")
    return data[: end + 12] + struct.pack("<I", size) + data[end + 16 :]


def encrypted(data: bytes) -> bytes:
    packed = bytearray(zipped(data))
    packed[6] |= 1
    packed[packed.rindex(b"PK\1\2") + 8] |= 1
    return bytes(packed)


def oddly_packed(data: bytes) -> bytes:
    packed = bytearray(zipped(data))
    packed[8] = packed[packed.rindex(b"PK\1\2") + 10] = 99  # a method that nobody knows
    return bytes(packed)


BAD_ARCHIVES = {
    "encrypted": (lambda: encrypted(png()), "is encrypted"),
    "nested": (lambda: zipped(png(), zipped(png()), names=("a.png", "inner")), "another archive"),
    "nested gzip": (lambda: zipped(png(), b"\x1f\x8b\x08rest"), "another archive"),
    "cut": (lambda: zipped(png(), png(3))[:-30], "damaged or cut short"),
    "wrong sum": (lambda: zipped(png(), method=0).replace(b"IDAT", b"IDAX"), "damaged or cut short"),
    "long index": (lambda: with_index_size(zipped(png()), 1 << 30), "more than 4,096 files"),
    "many files": (lambda: zipped(*[b"x"] * 5000), "more than 4,096 files"),
    "no scan": (lambda: zipped(b"<xml/>", b"words"), "holds no scan"),
    "empty": (lambda: zipped(), "holds no scan"),
    "document": (lambda: zipped(b"<xml/>", names=("word/document.xml",)), "holds no scan"),
    "odd packing": (lambda: oddly_packed(png()), "unusual way"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ARCHIVES)
def test_a_bad_archive_is_one_sentence_and_the_rest_goes_on(name):
    make, said = BAD_ARCHIVES[name]
    found = open_scans([png(7), make(), png(9)])
    assert [item.scan is not None for item in found] == [True, False, True]
    assert said in found[1].error and found[1].error.count(". ") == 0


def test_what_unpacks_to_too_much_is_stopped_on_the_way(monkeypatch):
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 1 << 21)
    packed = bytearray(zipped(bytes(1 << 23)))
    assert len(packed) < 1 << 14
    central = packed.rindex(b"PK\1\2")
    packed[22:26] = packed[central + 24 : central + 28] = struct.pack("<I", 10)  # the archive lies about its size
    assert any(said in errors(bytes(packed))[0] for said in ("unpacks to more", "damaged"))
    assert "unpacks to more" in errors(zipped(bytes(1 << 23)))[0]


def test_more_than_there_is_room_for_is_refused_and_nothing_of_it_kept(tmp_path):
    slices = [slice_of(tmp_path, 100 + n, height=n) for n in range(4)]
    collector = Collector(most_bytes=3 * 12 * 16 * 2)
    collector.add(slices[0])
    with pytest.raises(ScanError, match="fewer"):
        collector.add(zipped(*slices[1:]))
    collector.add(slices[3])
    with pytest.raises(ScanError, match="fewer"):
        [collector.add(data) for data in slices[1:3]]
    (found,) = collector.found()
    assert corners(found) == [100, 101, 103]


def test_the_same_files_are_known_again_in_any_order(tmp_path):
    slices = [slice_of(tmp_path, 100 + n, height=n) for n in range(3)]
    digests = {open_scans(order)[0].digest for order in (slices, slices[::-1])}
    assert len(digests) == 1 and open_scans(slices[:2])[0].digest not in digests


def test_packed_pictures_are_the_same_pictures_in_less(tmp_path):
    ramp = np.linspace(0, 60000, 200 * 300).reshape(200, 300)
    colours = np.dstack([ramp / 300, 200 - ramp / 400, ramp / 500]).astype(np.uint8)
    for pixels, mode in ((ramp.astype(np.uint16), "PNG"), (colours, "PNG"), (ramp.astype(np.float32), "TIFF")):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, mode)
        scan = open_scan(buffer.getvalue())
        small = scan.packed()
        assert (small.values() == scan.values()).all() and (small.picture() == scan.picture()).all()
        assert small.nbytes < scan.nbytes == pixels.nbytes and small.packed().nbytes == small.nbytes
