"""Image files: every mode of PNG, JPEG, TIFF, BMP, WebP and GIF comes out as it went in, to the pixel; windows too."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msmedcap.data.scans import PRESETS, Scan, ScanError, Window, bundled_examples, find_scans, open_scan

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (23, 31), dtype=np.uint8)
RGB = RNG.integers(0, 256, (23, 31, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 4096, (23, 31)).astype(np.uint16)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png16(pixels: np.ndarray, colour_type: int) -> bytes:
    """A 16-bit PNG of ``pixels`` [H,W,C], which Pillow can read but not write."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def grey3(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_8_bit_greys_are_shown_as_they_are(kind: str) -> None:
    scan = open_scan(saved(Image.fromarray(GREY), kind))
    assert (scan.kind, scan.frames, scan.height, scan.width, scan.colour) == (kind, 1, 23, 31, False)
    assert scan.spacing is None and scan.facts == {}
    assert scan.values().dtype == np.float32 and np.array_equal(scan.values(), GREY)
    assert np.array_equal(scan.picture(), grey3(GREY))
    assert scan.default_window == "full range" == next(iter(scan.windows))
    assert scan.resolve_window(None) == ("full range", Window(255, 127.5))
    assert any("names or dates" in warning for warning in scan.warnings)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_colours_are_shown_as_they_are(kind: str, options: dict[str, Any]) -> None:
    scan = open_scan(saved(Image.fromarray(RGB), kind, **options))
    assert scan.colour and scan.kind == kind
    assert scan.values().dtype == np.uint8 and np.array_equal(scan.values(), RGB)
    assert np.array_equal(scan.picture(), RGB)


def test_a_jpeg_is_what_pillow_decodes() -> None:
    data = saved(Image.fromarray(RGB), "JPEG")
    assert np.array_equal(open_scan(data).picture(), np.array(Image.open(io.BytesIO(data))))


def test_a_grey_picture_stored_in_colour_is_grey() -> None:
    scan = open_scan(saved(Image.fromarray(grey3(GREY)), "PNG"))
    assert not scan.colour and np.array_equal(scan.values(), GREY)


def test_two_levels_become_black_and_white() -> None:
    bits = GREY > 127
    assert np.array_equal(open_scan(saved(Image.fromarray(bits), "PNG")).picture(), grey3(bits * np.uint8(255)))


@pytest.mark.parametrize(("share", "heard"), [(0.0, False), (0.1, False), (0.4, True), (1.0, True)])
def test_a_picture_that_is_mostly_in_colour_is_no_scan_these_models_know(share: float, heard: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 1), dtype=np.uint8).repeat(3, axis=2)
    pixels[: int(300 * share)] = (200, 40, 40)
    pixels[0, 0] = (255, 0, 0)  # a mark
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    assert any("in colour" in warning for warning in open_scan(file.getvalue()).warnings) is heard


def test_a_palette_becomes_its_colours() -> None:
    image = Image.fromarray(RGB).quantize(16)
    assert np.array_equal(open_scan(saved(image, "PNG")).values(), np.array(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_alpha_is_composited_on_black(mode: str) -> None:
    if mode == "P":
        image = Image.fromarray(GREY // 16)
        image.putpalette(list(range(0, 96, 2)))
        data = saved(image, "PNG", transparency=bytes([0, 128] + [255] * 14))
        rgba = np.array(Image.open(io.BytesIO(data)).convert("RGBA")).astype(int)
        wanted = (rgba[..., :3] * rgba[..., 3:] + 127) // 255
    else:
        alpha = RNG.integers(0, 256, (23, 31), dtype=np.uint8)
        colours = RGB if mode == "RGBA" else GREY[..., None]
        data = saved(Image.fromarray(np.concatenate([colours, alpha[..., None]], axis=2)), "PNG")
        wanted = (colours.astype(int) * alpha[..., None] + 127) // 255
    shown = open_scan(data).picture()
    assert np.array_equal(shown, np.broadcast_to(wanted, shown.shape))


def test_a_transparent_grey_is_black() -> None:
    key = int(GREY[3, 4])
    shown = open_scan(saved(Image.fromarray(GREY), "PNG", transparency=key)).values()
    assert np.array_equal(shown, np.where(key == GREY, 0, GREY))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_greys_keep_their_range(kind: str) -> None:
    scan = open_scan(saved(Image.fromarray(DEEP), kind))
    assert np.array_equal(scan.values(), DEEP)
    assert list(scan.windows) == ["percentile", "full range"]
    low, high = np.percentile(DEEP, (0.5, 99.5))
    width, level = high - low, (low + high) / 2
    assert (scan.windows["percentile"].width, scan.windows["percentile"].level) == pytest.approx((width, level))
    full = scan.picture("full range")
    assert full.min() == 0 and full.max() == 255
    wanted = (DEEP.astype(float) - DEEP.min()) / (int(DEEP.max()) - int(DEEP.min())) * 255
    assert np.abs(full[..., 0] - wanted).max() <= 0.51


def test_a_big_endian_tiff_keeps_its_values() -> None:
    image = Image.frombytes("I;16B", (31, 23), DEEP.astype(">u2").tobytes())
    assert np.array_equal(open_scan(saved(image, "TIFF")).values(), DEEP)


def test_a_tiff_whose_zero_is_white_is_inverted_for_display() -> None:
    data = bytearray(saved(Image.fromarray(DEEP), "TIFF"))
    entry = data.index(struct.pack("<HHI", 262, 3, 1))
    data[entry + 8 : entry + 10] = b"\0\0"
    black, white = open_scan(saved(Image.fromarray(DEEP), "TIFF")), open_scan(bytes(data))
    assert np.array_equal(white.values(), DEEP)
    assert np.array_equal(white.picture(), 255 - black.picture())


def test_signed_and_float_tiffs_keep_their_values() -> None:
    signed = DEEP.astype(np.int32) - 1000
    assert np.array_equal(open_scan(saved(Image.fromarray(signed), "TIFF")).values(), signed)
    floats = DEEP.astype(np.float32) / 7
    assert np.array_equal(open_scan(saved(Image.fromarray(floats), "TIFF")).values(), floats)


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_a_16_bit_png_of_any_kind_keeps_its_greys(colour_type: int, channels: int) -> None:
    pixels = np.repeat(DEEP[..., None], channels, axis=2)
    if colour_type in (4, 6):
        pixels[..., -1] = 65535
    scan = open_scan(png16(pixels, colour_type))
    assert not scan.colour and np.array_equal(scan.values(), DEEP)


def test_a_16_bit_colour_png_becomes_8_bit_colours() -> None:
    scan = open_scan(png16(RGB.astype(np.uint16) * 257, 2))
    assert np.array_equal(scan.values(), RGB)


def test_16_bit_alpha_is_composited_on_black() -> None:
    pixels = np.stack([DEEP, np.full_like(DEEP, 32768)], axis=2)
    assert np.abs(open_scan(png16(pixels, 4)).values() - DEEP / 2).max() <= 0.51


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    scan = open_scan(saved(Image.fromarray(GREY), "PNG", exif=exif))
    turned = {
        1: GREY, 2: GREY[:, ::-1], 3: GREY[::-1, ::-1], 4: GREY[::-1],
        5: GREY.T, 6: np.rot90(GREY, -1), 7: GREY[::-1, ::-1].T, 8: np.rot90(GREY),
    }[orientation]  # fmt: skip
    assert (scan.height, scan.width) == turned.shape
    assert np.array_equal(scan.values(), turned)


def test_exif_orientation_of_a_jpeg_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = open_scan(saved(Image.fromarray(GREY), "JPEG")).values()
    assert np.array_equal(open_scan(saved(Image.fromarray(GREY), "JPEG", exif=exif)).values(), np.rot90(plain, -1))


def test_pages_are_frames() -> None:
    pages = [DEEP, DEEP + 1, DEEP * 2]
    images = [Image.fromarray(page) for page in pages]
    scan = open_scan(saved(images[0], "TIFF", save_all=True, append_images=images[1:]))
    assert scan.frames == 3
    for frame, page in enumerate(pages):
        assert np.array_equal(scan.values(frame), page)
    with pytest.raises(ScanError, match="3 frames, numbered from 0; there is no frame 3"):
        scan.values(3)
    with pytest.raises(ScanError, match="no frame -1"):
        scan.picture(frame=-1)


def test_pages_of_another_size_are_left_out_with_a_word() -> None:
    thumbnail = Image.fromarray(GREY[:5, :5])
    scan = open_scan(saved(Image.fromarray(GREY), "TIFF", save_all=True, append_images=[thumbnail]))
    assert scan.frames == 1 and any("others were left out" in warning for warning in scan.warnings)


def test_a_gif_has_frames() -> None:
    images = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    scan = open_scan(saved(images[0], "GIF", save_all=True, append_images=images[1:]))
    assert scan.frames == 2 and np.array_equal(scan.values(1), 255 - GREY)


def test_pixels_without_a_number_are_shown_lowest_with_a_word() -> None:
    floats = DEEP.astype(np.float32)
    floats[0, :3] = np.nan, np.inf, -np.inf
    scan = open_scan(saved(Image.fromarray(floats), "TIFF"))
    assert any(warning.startswith("3 pixels held no number") for warning in scan.warnings)
    values = scan.values()
    assert (values[0, :3] == floats[np.isfinite(floats)].min()).all() and np.array_equal(values[1:], floats[1:])


def test_the_name_of_a_file_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "scan.dcm"
    path.write_bytes(saved(Image.fromarray(GREY), "PNG"))
    assert open_scan(path).kind == "PNG"
    assert np.array_equal(open_scan(str(path)).values(), open_scan(bytearray(path.read_bytes())).values())  # type: ignore[arg-type]


@pytest.fixture
def deep() -> Scan:
    return open_scan(saved(Image.fromarray(DEEP), "PNG"))


@pytest.mark.parametrize("text", ["800,1000", " 800 , 1000 ", "800/1000", "800 1000", "8e2,1e3", "800;1000.0"])
def test_a_manual_window_is_read_from_text(deep: Scan, text: str) -> None:
    assert deep.resolve_window(text) == ("800,1000", Window(800, 1000))
    wanted = np.clip((DEEP.astype(float) - 600) / 800, 0, 1) * 255
    shown = deep.picture(text)
    assert np.abs(shown[..., 0] - wanted).max() <= 0.51
    assert np.array_equal(shown, deep.picture(Window(800, 1000)))


def test_a_negative_level_is_read() -> None:
    scan = open_scan(saved(Image.fromarray(DEEP.astype(np.int32) - 2000), "TIFF"))
    assert scan.resolve_window("1500,-600") == ("1500,-600", Window(1500, -600))


def test_window_names_forgive_case_and_underscores(deep: Scan) -> None:
    assert deep.resolve_window("Full_Range")[0] == "full range"


@pytest.mark.parametrize("window", ["0,40", "-5,40", Window(0, 1), Window(float("nan"), 1), Window(10, float("inf"))])
def test_a_window_without_width_is_refused(deep: Scan, window: str | Window) -> None:
    with pytest.raises(ScanError, match="width above zero"):
        deep.picture(window)


def test_unknown_windows_are_refused_with_the_known_ones(deep: Scan) -> None:
    with pytest.raises(ScanError, match='"xray" is not known here; use one of percentile, full range, or width,level'):
        deep.picture("xray")
    with pytest.raises(ScanError, match="Hounsfield"):
        deep.picture("lung")


def test_the_presets_are_the_usual_ones() -> None:
    assert {
        "soft tissue": Window(400, 40), "lung": Window(1500, -600), "bone": Window(2500, 480),
        "brain": Window(80, 40), "liver": Window(150, 90), "mediastinum": Window(500, 50),
    } == PRESETS  # fmt: skip


def test_what_a_scan_gives_is_the_callers_own() -> None:
    for data in (saved(Image.fromarray(GREY), "PNG"), saved(Image.fromarray(RGB), "PNG")):
        scan = open_scan(data)
        before = scan.values()
        scan.values()[:] = 0
        scan.picture()[:] = 0
        assert np.array_equal(scan.values(), before)


def test_find_scans_lists_files_in_order_without_the_hidden(tmp_path: Path) -> None:
    for name in ("b.png", "a/z", "a/.hidden", ".git/c", "a.dcm"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    assert find_scans(tmp_path) == [tmp_path / "a" / "z", tmp_path / "a.dcm", tmp_path / "b.png"]
    assert find_scans(tmp_path / "b.png") == [tmp_path / "b.png"]
    with pytest.raises(ScanError, match="holds no files"):
        find_scans(tmp_path / "empty")
    with pytest.raises(ScanError, match="no file or folder"):
        find_scans(tmp_path / "absent")


def test_the_bundled_examples_are_real_scans_that_open() -> None:
    opened = {title: open_scan(data) for title, data in bundled_examples()}
    assert {scan.facts["Modality"] for scan in opened.values()} == {"CT", "MR", "US"}
    assert max(scan.frames for scan in opened.values()) == 30
