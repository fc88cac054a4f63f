"""Bad input: whatever is thrown at the door, one sentence comes back, quickly and without a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import threading
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import DeflatedExplicitVRLittleEndian

from msmedcap.data.scans import ScanError, limits, open_scan, write_dicom

NOISE = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype(np.uint16)


def image(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((NOISE // 16).astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def dicom(tmp_path: Path, values: np.ndarray = NOISE) -> Path:
    path = tmp_path / "scan"
    write_dicom(path, values, modality="MR", body_part="HEAD", spacing=None, window=None)
    return path


def refused(source: str | Path | bytes) -> str:
    with pytest.raises(ScanError) as caught:
        open_scan(source)
    text = str(caught.value)
    assert text[0].isupper() and "\n" not in text and len(text) < 240
    assert text.endswith(".") or "pip install" in text
    return text


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
        (b"\n\n%PDF-1.4 late", "a PDF document"),
        (b"PK\x03\x04" + b"\0" * 40, "ZIP archive"),
        (b"\x1f\x8b\x08" + b"\0" * 40, "gzip archive"),
        (b"hello, I am a report\n", "text file"),
        (b"<svg xmlns='x'></svg>", "SVG drawing"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 40, "HEIC"),
        (b"\0\0\0\x18ftypisom" + b"\0" * 40, "a video"),
        (b"\x5c\x01\0\0" + b"\0" * 340 + b"n+1\0", "NIfTI"),
        (b"NRRD0004\n", "NRRD"),
        (bytes(range(256)) * 8, "not a picture this program knows"),
        (b"\0", "not a picture this program knows"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "not a picture this program knows"),
        (b"\0" * 4096, "not a picture this program knows"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, says: str) -> None:
    assert says in refused(data)


@pytest.mark.parametrize("name", ["holiday.png", "report.dcm", "scan.jpg"])
def test_a_pdf_is_a_pdf_whatever_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"%PDF-1.7\n1 0 obj")
    assert "PDF" in refused(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF"])
@pytest.mark.parametrize("kept", [0.05, 0.3, 0.6, 0.9])
def test_truncated_images_are_refused(kind: str, kept: float) -> None:
    data = image(kind)
    assert "damaged or cut short" in refused(data[: max(12, int(len(data) * kept))])


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.999])
def test_truncated_dicom_is_refused(tmp_path: Path, kept: float) -> None:
    data = dicom(tmp_path).read_bytes()
    assert "damaged or cut short" in refused(data[: int(len(data) * kept)])


@pytest.mark.parametrize(
    "name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "SC_rgb_jpeg_dcmtk.dcm", "examples_ybr_color.dcm"]
)
def test_truncated_compressed_dicom_is_refused(name: str) -> None:
    data = Path(str(get_testdata_file(name, download=False))).read_bytes()
    assert "damaged or cut short" in refused(data[: len(data) // 2])


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_give_a_scan_or_a_sentence(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "CT_small.dcm", "JPEG2000.dcm", "examples_palette.dcm"]
    sources = [Path(str(get_testdata_file(name, download=False))).read_bytes() for name in names]
    sources += [image(kind) for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")]
    for source in sources:
        data = bytearray(source)
        for place in rng.integers(0, min(len(data), 2000), 8):
            data[place] = rng.integers(0, 256)
        # Anything but a scan or a ScanError fails the test.
        with contextlib.suppress(ScanError):
            scan = open_scan(bytes(data))
            assert scan.picture().shape == (scan.height, scan.width, 3)


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packed = zlib.compress(b"\0" * 100_000)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("width", "height"), [(40_000, 40_000), (12_000, 12_000), (9_000, 8_000), (2**31 - 1, 2**31 - 1)]
)
def test_a_huge_header_is_refused_before_decoding(width: int, height: int, recwarn: pytest.WarningsRecorder) -> None:
    tracemalloc.start()
    text = refused(png_header(width, height))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "pixels" in text and peak < 16 << 20
    assert not len(recwarn)


def test_a_huge_16_bit_colour_png_is_refused_before_decoding() -> None:
    data = bytearray(png_header(40_000, 1_000))
    data[24:26] = b"\x10\x02"
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    assert "damaged" in refused(bytes(data))
    data[16:20] = struct.pack(">I", 400_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    assert "pixels" in refused(bytes(data))


@pytest.mark.parametrize(
    ("rows", "columns", "frames", "says"),
    [
        (40_000, 40_000, 1, "40000 x 40000 pixels"),
        (64, 64, 2**30, "frames"),
        (0, 64, 1, "no pixels"),
        (64, 64, -3, "no pixels"),
    ],
)
def test_a_dicom_header_beyond_reason_is_refused(
    tmp_path: Path, rows: int, columns: int, frames: int, says: str
) -> None:
    dataset = dcmread(dicom(tmp_path))
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = rows, columns, frames
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    assert says in refused(buffer.getvalue())


def test_a_frame_of_another_size_than_its_header_says_is_refused() -> None:
    dataset = dcmread(str(get_testdata_file("MR_small_jp2klossless.dcm", download=False)))
    frame = bytearray(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    frame[8:16] = struct.pack(">II", 60_000, 60_000)
    dataset.PixelData = encapsulate([bytes(frame)])
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    assert "another size" in refused(buffer.getvalue())


@pytest.mark.parametrize(
    ("place", "value"),
    [(17, 1), (37, 0), (38, 0xC5), (19, 0xC0), (-1, 0)],
    ids=["Adobe transform", "no table", "another marker", "not lossless", "no end"],
)
def test_a_lossless_frame_that_would_end_the_program_never_reaches_its_decoder(place: int, value: int) -> None:
    dataset = dcmread(str(get_testdata_file("SC_rgb_jpeg_gdcm.dcm", download=False)))
    frame = bytearray(next(generate_frames(dataset.PixelData, number_of_frames=1)).rstrip(b"\0"))
    frame[place] = value
    dataset.PixelData = encapsulate([bytes(frame)])
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    assert "damaged or cut short" in refused(buffer.getvalue())


def test_a_deflated_bomb_is_refused_while_it_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = dcmread(dicom(tmp_path, np.tile(NOISE, (8, 8))))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    assert open_scan(buffer.getvalue()).height == 512
    monkeypatch.setattr("msmedcap.data.scans.dicom.MAX_FILE_BYTES", 1 << 18)
    assert "unpacks to more than" in refused(buffer.getvalue())


def test_a_file_too_large_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(limits.MAX_FILE_BYTES + 1)
    assert "larger than 1 GiB" in refused(path)


def test_too_many_pages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [Image.fromarray(NOISE) for _ in range(3)]
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    monkeypatch.setattr(limits, "MAX_STORED_PIXELS", NOISE.size * 2)
    assert "3 frames" in refused(buffer.getvalue())


@pytest.mark.parametrize("level", [0, 7, 255])
def test_one_flat_grey_is_refused(tmp_path: Path, level: int) -> None:
    flat = np.full((32, 48), level, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(flat).save(buffer, "PNG")
    assert "one flat grey" in refused(buffer.getvalue())
    assert "one flat grey" in refused(dicom(tmp_path, flat))
    colours = np.broadcast_to(np.array([level, 10, 20], np.uint8), (32, 48, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(colours)).save(buffer, "PNG")
    assert "nothing to describe" in refused(buffer.getvalue())


def test_pixels_that_are_all_nan_are_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(buffer, "TIFF")
    assert "all are NaN or infinite" in refused(buffer.getvalue())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rtplan.dcm", "holds no picture (RT Plan Storage)"),
        ("test-SR.dcm", "holds no picture (Comprehensive SR Storage)"),
        ("waveform_ecg.dcm", "holds no picture"),
        ("ExplVR_LitEndNoMeta.dcm", "holds no picture (RT Ion Plan Storage)"),
        ("MR_truncated.dcm", "damaged or cut short"),
        ("no_meta.dcm", "not a picture"),
    ],
)
def test_dicom_without_a_picture_says_what_it_is(name: str, says: str) -> None:
    assert says in refused(str(get_testdata_file(name, download=False)))


def test_places_without_a_file_are_named(tmp_path: Path) -> None:
    assert "folder" in refused(tmp_path)
    assert "does not exist" in refused(tmp_path / "absent.png")
    assert "no ordinary file" in refused("/dev/zero")
    assert "does not exist" in refused("a\0b")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(refused(pipe)), daemon=True)
    thread.start()
    thread.join(5)
    assert found and "no ordinary file" in found[0]
