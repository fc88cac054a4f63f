"""Only pixels, geometry, windows and allow-listed facts get out: no patient tag, no comment, no path, no trace in errors."""

from __future__ import annotations

import gc
import io
import logging
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames

from msmedcap.data.scans import Scan, ScanError, open_scan, write_dicom

SECRET = "ZZSECRETZZ"
STORED = np.random.default_rng(0).integers(0, 4096, (40, 30)).astype(np.uint16)


def secrets(scan: Scan) -> list[Any]:
    """Everything reachable from ``scan`` (attributes, slots, closures, containers) whose text or bytes hold the secret."""
    stack: list[Any] = [scan]
    seen: set[int] = set()
    found = []
    while stack:
        thing = stack.pop()
        if id(thing) in seen or isinstance(thing, (type, types.ModuleType, logging.Logger)):
            continue
        seen.add(id(thing))
        text = (
            thing
            if isinstance(thing, (bytes, bytearray))
            else thing.tobytes()
            if isinstance(thing, np.ndarray)
            else None
        )
        if text is not None and SECRET.encode() in text:
            found.append(thing)
        if isinstance(thing, (str, Path)) and SECRET.lower() in str(thing).lower():
            found.append(thing)
        # Functions reach every module through their globals; what they close over is reached through their cells.
        stack += list(thing.__closure__ or ()) if isinstance(thing, types.FunctionType) else gc.get_referents(thing)
    return found


def with_patient(path: Path) -> Dataset:
    """A picture whose every free text, private element and sequence names the patient."""
    write_dicom(path, STORED, modality="CT", body_part="CHEST", spacing=(1, 1), window=None)
    dataset = dcmread(path)
    for name in (
        "PatientName", "PatientID", "PatientComments", "InstitutionName", "StudyDescription", "SeriesDescription",
        "AccessionNumber", "ImageComments", "ProtocolName", "StationName", "OperatorsName", "DeviceSerialNumber",
        "ReferringPhysicianName",
    ):  # fmt: skip
        setattr(dataset, name, SECRET)
    dataset.WindowWidth, dataset.WindowCenter = [400, 100], [40, 50]
    dataset.WindowCenterWidthExplanation = [SECRET, SECRET]
    dataset.RescaleType = SECRET
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom minds such values, other writers do not.
        dataset.Laterality, dataset.ViewPosition = SECRET.lower(), f"^{SECRET}^"
    dataset.PatientOrientation = ["L", SECRET]
    dataset.private_block(0x0009, SECRET, create=True).add_new(1, "LO", SECRET)
    dataset.private_block(0x0029, SECRET, create=True).add_new(1, "OB", SECRET.encode())
    other = Dataset()
    other.PatientID = SECRET
    dataset.OtherPatientIDsSequence = [other]
    dataset.preamble = SECRET.encode().ljust(128, b"\0")
    return dataset


def bytes_of(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    path = tmp_path / f"{SECRET}.dcm"
    with_patient(path).save_as(path)
    assert path.read_bytes().count(SECRET.encode()) >= 18
    return open_scan(path)


def hide_in_list(scan: Scan) -> None:
    scan.warnings = (SECRET,)


def hide_in_closure(scan: Scan) -> None:
    text = [{"name": SECRET}]
    scan.values = lambda frame=0: text  # type: ignore[method-assign,assignment,return-value]


def hide_in_dataset(scan: Scan) -> None:
    scan._pixels._clean.PatientName = SECRET  # type: ignore[attr-defined]


@pytest.mark.parametrize("hide", [hide_in_list, hide_in_closure, hide_in_dataset])
def test_the_search_finds_what_is_hidden(scan: Scan, hide: Any) -> None:
    hide(scan)
    assert secrets(scan)


def test_nothing_of_the_patient_is_reachable_from_a_scan(scan: Scan) -> None:
    assert not secrets(scan)
    assert np.array_equal(scan.values(), STORED)
    scan.picture()
    assert not secrets(scan)


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_facts_are_codes_from_the_list(tmp_path: Path) -> None:
    dataset = with_patient(tmp_path / "x")
    dataset.ViewPosition, dataset.Laterality, dataset.BodyPartExamined = "pa", "L ", "WHOLE BODY"
    assert open_scan(bytes_of(dataset)).facts == {
        "Modality": "CT", "BodyPartExamined": "WHOLE BODY", "Laterality": "L", "ViewPosition": "PA",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["Modality", "BodyPartExamined", "Laterality", "ImageLaterality", "ViewPosition"])
@pytest.mark.parametrize("text", ["DOE", "JANE DOE", "CHEST DOE", "L1", "1950", "", ["L", "DOE"]])
def test_a_fact_that_is_no_code_is_dropped(tmp_path: Path, name: str, text: Any) -> None:
    dataset = with_patient(tmp_path / "x")
    setattr(dataset, name, text)
    assert name not in open_scan(bytes_of(dataset)).facts


@pytest.mark.parametrize("syntax", ["JPEG2000", "JPEG"])
def test_comments_inside_compressed_frames_are_cut_out(syntax: str) -> None:
    name = {"JPEG2000": "MR_small_jp2klossless.dcm", "JPEG": "SC_rgb_jpeg_dcmtk.dcm"}[syntax]
    path = get_testdata_file(name, download=False)
    dataset = dcmread(path)  # type: ignore[arg-type]
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    text = SECRET.encode()
    if syntax == "JPEG":
        comment = b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text
        exif = b"\xff\xe1" + (len(text) + 8).to_bytes(2, "big") + b"Exif\0\0" + text
        marked = frame[:2] + comment + exif + frame[2:]
    else:
        size = 4 + int.from_bytes(frame[4:6], "big")  # SIZ must stay first.
        marked = frame[:size] + b"\xff\x64" + (len(text) + 4).to_bytes(2, "big") + b"\0\1" + text + frame[size:]
    dataset.PixelData = encapsulate([marked])
    data = bytes_of(dataset)
    assert SECRET.encode() in data
    scan = open_scan(data)
    assert not secrets(scan)
    assert np.array_equal(scan.values(), open_scan(path).values())  # type: ignore[arg-type]


def test_bytes_after_the_pixels_are_cut_off(tmp_path: Path) -> None:
    dataset = with_patient(tmp_path / "x")
    dataset.PixelData = dataset.PixelData + SECRET.encode()
    scan = open_scan(bytes_of(dataset))
    assert not secrets(scan) and np.array_equal(scan.values(), STORED)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_comments_of_image_files_stay_behind(tmp_path: Path, kind: str) -> None:
    exif, text = Image.Exif(), PngInfo()
    exif[0x010E] = SECRET
    text.add_text("Comment", SECRET)
    options: dict[str, Any] = {
        "PNG": {"pnginfo": text},
        "JPEG": {"comment": SECRET, "exif": exif},
        "TIFF": {"description": SECRET},
    }[kind]
    path = tmp_path / f"{SECRET}.img"
    Image.fromarray((STORED // 16).astype(np.uint8)).save(path, kind, **options)
    assert SECRET.encode() in path.read_bytes()
    scan = open_scan(path)
    assert not secrets(scan)


@pytest.mark.parametrize("cut", [200, 700, 1200, 1500, 2500])
def test_errors_and_logs_name_nobody(tmp_path: Path, cut: int, caplog: pytest.LogCaptureFixture, recwarn: Any) -> None:
    path = tmp_path / f"{SECRET}.dcm"
    dataset = with_patient(path)
    dataset.save_as(path)
    path.write_bytes(path.read_bytes()[:cut])
    recwarn.clear()  # Writing such a file warns; reading it must not.
    with caplog.at_level(logging.DEBUG), pytest.raises(ScanError) as caught:
        open_scan(path)
    assert SECRET not in str(caught.value) and SECRET not in caplog.text
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert not [warning for warning in recwarn if SECRET in str(warning.message)]


def test_burned_in_annotation_is_refused_unless_allowed(tmp_path: Path) -> None:
    dataset = with_patient(tmp_path / "x")
    dataset.BurnedInAnnotation = "YES"
    with pytest.raises(ScanError, match="allow burned-in annotation"):
        open_scan(bytes_of(dataset))
    allowed = open_scan(bytes_of(dataset), allow_burned_in=True)
    assert any("marked as having burned-in annotation" in warning for warning in allowed.warnings)


@pytest.mark.parametrize(
    ("modality", "marked", "warned"),
    [
        ("US", None, True),
        ("XA", "", True),
        ("OT", None, True),
        ("US", "NO", False),
        ("CT", None, False),
        ("", None, True),
    ],
)
def test_what_cannot_be_excluded_is_said(tmp_path: Path, modality: str, marked: str | None, warned: bool) -> None:
    dataset = with_patient(tmp_path / "x")
    dataset.Modality = modality
    del dataset.BurnedInAnnotation
    if marked is not None:
        dataset.BurnedInAnnotation = marked
    assert any("does not say whether names" in warning for warning in open_scan(bytes_of(dataset)).warnings) is warned


def test_a_screen_capture_of_a_ct_is_warned_of(tmp_path: Path) -> None:
    dataset = with_patient(tmp_path / "x")
    del dataset.BurnedInAnnotation
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    assert open_scan(bytes_of(dataset)).warnings
