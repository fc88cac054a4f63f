"""DICOM: every kind of pixel, scale, window and layout, against pydicom's own files and files made here."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import (
    MPEG2MPML,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from msmedcap.data.scans import PRESETS, ScanError, Window, open_scan, write_dicom

STORED = np.random.default_rng(0).integers(0, 4096, (20, 30)).astype(np.uint16)
RGB = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def bundled(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), f"pydicom does not bundle {name}"
    return Path(path)


def made(pixels: np.ndarray = STORED, syntax: str = ExplicitVRLittleEndian, **tags: Any) -> Dataset:
    """A small DICOM picture with ``tags`` set last; None removes one."""
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = CTImageStorage, generate_uid(), "MR"
    dataset.Rows, dataset.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        dataset.PlanarConfiguration = 0
    elif pixels.ndim == 3:
        dataset.NumberOfFrames = pixels.shape[0]
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(pixels.dtype.kind == "i")
    dataset.add_new("PixelData", "OW", pixels.tobytes())
    for name, value in tags.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    return dataset


def bytes_of(dataset: Dataset, **options: Any) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True, **options)
    return buffer.getvalue()


def item(**tags: Any) -> Dataset:
    dataset = Dataset()
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def linear(values: np.ndarray, width: float, level: float) -> np.ndarray:
    """PS3.3 C.11.2.1.2.1, written out."""
    share = (values.astype(float) - (level - 0.5)) / (width - 1) + 0.5
    return np.clip(share, 0, 1) * 255


def test_a_ct_is_in_hounsfield_units_and_starts_in_soft_tissue() -> None:
    path = bundled("CT_small.dcm")
    scan = open_scan(path)
    wanted = pixel_array(path).astype(np.float32) - 1024
    assert (scan.kind, scan.frames, scan.height, scan.width, scan.colour) == ("DICOM", 1, 128, 128, False)
    assert np.array_equal(scan.values(), wanted)
    assert scan.spacing == (0.661468, 0.661468)
    assert scan.facts == {"Modality": "CT"} and scan.warnings == ()
    assert list(scan.windows) == [*PRESETS, "percentile", "full range"] and scan.default_window == "soft tissue"
    for name in PRESETS:
        assert (
            np.abs(scan.picture(name)[..., 0] - linear(wanted, PRESETS[name].width, PRESETS[name].level)).max() <= 0.51
        )
    assert np.array_equal(scan.picture(), scan.picture("400,40"))


def test_the_files_own_window_comes_first() -> None:
    scan = open_scan(bundled("MR_small.dcm"))
    assert list(scan.windows) == ["file", "percentile", "full range"]
    assert scan.resolve_window(None) == ("file", Window(1600, 600))
    values = scan.values()
    assert np.abs(scan.picture()[..., 0] - linear(values, 1600, 600)).max() <= 0.51
    assert np.array_equal(scan.picture(), scan.picture("1600,600"))
    with pytest.raises(ScanError, match='"lung" is in Hounsfield units and needs a CT'):
        scan.picture("lung")


def test_a_ct_with_a_window_of_its_own_keeps_the_presets() -> None:
    scan = open_scan(bytes_of(made(Modality="CT", WindowWidth=300, WindowCenter=2000)))
    assert list(scan.windows) == ["file", *PRESETS, "percentile", "full range"]


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_padded.dcm", "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_expb.dcm",
    ],
)  # fmt: skip
def test_every_lossless_syntax_gives_the_same_pixels(name: str) -> None:
    plain, other = open_scan(bundled("MR_small.dcm")), open_scan(bundled(name))
    assert np.array_equal(other.values(), plain.values())
    assert np.array_equal(other.picture(), plain.picture())


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm",
        "SC_ybr_full_422_uncompressed.dcm", "SC_rgb_rle.dcm", "SC_rgb_jpeg_gdcm.dcm",
        "SC_rgb_gdcm_KY.dcm", "SC_rgb_small_odd.dcm", "SC_rgb_small_odd_big_endian.dcm",
        "ExplVR_BigEnd.dcm", "examples_rgb_color.dcm", "SC_rgb_jls_lossy_sample.dcm",
        "examples_jpeg2k.dcm",
    ],
)  # fmt: skip
def test_colours_are_pydicoms_rgb(name: str) -> None:
    path = bundled(name)
    scan = open_scan(path)
    wanted = pixel_array(path)
    assert scan.colour and scan.values().dtype == np.uint8
    assert np.array_equal(scan.values(), wanted) and np.array_equal(scan.picture(), wanted)


@pytest.mark.parametrize("name", ["SC_rgb_rle_16bit.dcm", "SC_rgb_rle_32bit.dcm", "SC_rgb_rle_16bit_2frame.dcm"])
def test_deep_colours_become_8_bit(name: str) -> None:
    assert np.array_equal(open_scan(bundled(name)).values(), open_scan(bundled("SC_rgb_rle.dcm")).values())


def test_a_palette_becomes_its_colours() -> None:
    scan = open_scan(bundled("examples_palette.dcm"))
    dataset = dcmread(bundled("examples_palette.dcm"))
    stored = pixel_array(dataset)
    red = np.frombuffer(dataset.RedPaletteColorLookupTableData, "<u2")
    first = dataset.RedPaletteColorLookupTableDescriptor[1]
    wanted = red[np.clip(stored.astype(int) - first, 0, len(red) - 1)] / 257
    assert scan.colour and np.abs(scan.values()[..., 0] - wanted).max() <= 1


def test_frames_are_read_one_at_a_time() -> None:
    path = bundled("examples_ybr_color.dcm")
    scan = open_scan(path)
    assert scan.frames == 30
    for frame in (29, 0, 17):
        assert np.array_equal(scan.values(frame), pixel_array(path, index=frame))
    with pytest.raises(ScanError, match="30 frames"):
        scan.values(30)


def test_threads_read_the_same_scan_without_mixing_frames() -> None:
    path = bundled("examples_ybr_color.dcm")
    scan, wanted = open_scan(path), pixel_array(path)
    order = np.random.default_rng(0).integers(0, 30, 48).tolist()
    with ThreadPoolExecutor(8) as pool:
        for frame, values in zip(order, pool.map(scan.values, order), strict=True):
            assert np.array_equal(values, wanted[frame])


def test_monochrome1_is_inverted_for_display_only() -> None:
    two = open_scan(bytes_of(made(WindowWidth=1000, WindowCenter=2000)))
    one = open_scan(bytes_of(made(WindowWidth=1000, WindowCenter=2000, PhotometricInterpretation="MONOCHROME1")))
    assert np.array_equal(one.values(), STORED) and np.array_equal(two.values(), STORED)
    assert np.array_equal(one.picture(), 255 - two.picture())


def test_the_three_curves_are_dicoms() -> None:
    values = STORED.astype(float)
    wanted = {
        "LINEAR": linear(values, 1000, 2000),
        "LINEAR_EXACT": np.clip((values - 2000) / 1000 + 0.5, 0, 1) * 255,
        "SIGMOID": 255 / (1 + np.exp(-4 * (values - 2000) / 1000)),
    }
    for curve, greys in wanted.items():
        scan = open_scan(bytes_of(made(WindowWidth=1000, WindowCenter=2000, VOILUTFunction=curve)))
        assert np.abs(scan.picture("file")[..., 0] - greys).max() <= 0.51, curve


def test_a_window_of_one_value_is_a_threshold() -> None:
    scan = open_scan(bytes_of(made(WindowWidth=1, WindowCenter=2000)))
    assert np.array_equal(scan.picture()[..., 0], np.where(STORED >= 2000, 255, 0))


@pytest.mark.parametrize(("width", "level"), [(0, 40), (-5, 40), ("", ""), (None, 40)])
def test_an_impossible_window_is_ignored(width: Any, level: Any) -> None:
    dataset = made(WindowCenter=level)
    if width is not None:
        dataset.WindowWidth = width
    scan = open_scan(bytes_of(dataset))
    assert list(scan.windows) == ["percentile", "full range"]


def test_several_windows_carry_known_words_only() -> None:
    dataset = made(WindowWidth=[400, 0, 1500, 80], WindowCenter=[40, 1, -600, 35])
    dataset.WindowCenterWidthExplanation = ["ABDOMEN", "BAD", "LUNG", "DOE JOHN"]
    scan = open_scan(bytes_of(dataset))
    assert list(scan.windows)[:3] == ["file", "file 2 (lung)", "file 3"]
    assert scan.resolve_window("file 2") == ("file 2 (lung)", Window(1500, -600))
    assert scan.resolve_window("file 3") == ("file 3", Window(80, 35))


@pytest.mark.parametrize("as_bytes", [True, False])
def test_a_voi_table_is_a_window_of_its_own(as_bytes: bool) -> None:
    table = (np.linspace(0, 1, 4096) ** 2 * 1023).astype(np.uint16)
    lut = item(LUTDescriptor=[4096, 0, 10])
    lut.add_new("LUTData", "OW" if as_bytes else "US", table.tobytes() if as_bytes else table.tolist())
    scan = open_scan(bytes_of(made(VOILUTSequence=[lut])))
    assert scan.default_window == "file LUT" and scan.resolve_window(None) == ("file LUT", None)
    assert np.abs(scan.picture()[..., 0] - table[STORED] / 1023 * 255).max() <= 0.51


def test_a_modality_table_gives_the_values() -> None:
    table = np.arange(4096, dtype=np.uint16)[::-1].copy()
    lut = item(LUTDescriptor=[4096, 0, 16], ModalityLUTType="OD")
    lut.add_new("LUTData", "US", table.tolist())
    assert np.array_equal(open_scan(bytes_of(made(ModalityLUTSequence=[lut]))).values(), table[STORED])


def test_slope_and_intercept_give_the_values() -> None:
    scan = open_scan(bytes_of(made(RescaleSlope=0.5, RescaleIntercept=-100)))
    assert np.array_equal(scan.values(), STORED * 0.5 - 100)


def test_signed_pixels_stay_signed() -> None:
    signed = STORED.astype(np.int16) - 2000
    assert np.array_equal(open_scan(bytes_of(made(signed))).values(), signed)


def test_padding_does_not_count_in_the_measured_windows() -> None:
    padded = STORED.astype(np.int16)
    padded[:5] = -2000
    scan = open_scan(bytes_of(made(padded, PixelPaddingValue=-2000)))
    low, high = np.percentile(padded[5:], (0.5, 99.5))
    assert scan.windows["percentile"].width == pytest.approx(high - low)
    assert scan.windows["full range"].level == pytest.approx((int(padded[5:].min()) + int(padded[5:].max())) / 2)


def test_a_range_of_padding_does_not_count_either() -> None:
    padded = STORED.astype(np.int16)
    padded[:5], padded[5] = -2000, -1990
    scan = open_scan(bytes_of(made(padded, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1990)))
    assert scan.windows["full range"].width == pytest.approx(int(padded[6:].max()) - int(padded[6:].min()))


def test_overlays_in_the_spare_bits_are_taken_off() -> None:
    overlaid = STORED | (np.uint16(1) << 12)
    dataset = made(overlaid, BitsStored=12, HighBit=11)
    dataset.add_new((0x6000, 0x0102), "US", 12)
    assert np.array_equal(open_scan(bytes_of(dataset)).values(), STORED)


def test_8_bit_greys_are_shown_as_they_are() -> None:
    grey = (STORED // 16).astype(np.uint8)
    scan = open_scan(bytes_of(made(grey, Modality="US")))
    assert scan.default_window == "full range" and np.array_equal(scan.picture()[..., 0], grey)


def test_float_pixels_are_read_and_repaired() -> None:
    floats = STORED.astype(np.float32) / 3
    floats[0, :2] = np.nan, np.inf
    dataset = made(STORED, PixelData=None, BitsAllocated=32, BitsStored=32, HighBit=31)
    dataset.add_new("FloatPixelData", "OF", floats.tobytes())
    scan = open_scan(bytes_of(dataset))
    assert np.array_equal(scan.values()[1:], floats[1:]) and scan.values()[0, 0] == np.nanmin(floats)
    assert any("2 pixels held no number" in warning for warning in scan.warnings)


def enhanced() -> Dataset:
    """Three frames; scale and spacing shared but for the last frame's, windows per frame."""
    dataset = made(np.stack([STORED, STORED + 1, STORED + 2]))
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.7, 0.8])],
        PixelValueTransformationSequence=[item(RescaleSlope=2, RescaleIntercept=-10, RescaleType="US")],
    )
    frames = [item(FrameVOILUTSequence=[item(WindowWidth=100 * (i + 1), WindowCenter=4000 + i)]) for i in range(3)]
    frames[2].PixelValueTransformationSequence = [item(RescaleSlope=3, RescaleIntercept=5, RescaleType="US")]
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], frames
    return dataset


def test_functional_groups_speak_for_their_frame() -> None:
    scan = open_scan(bytes_of(enhanced()))
    assert scan.frames == 3 and scan.spacing == (0.7, 0.8)
    assert np.array_equal(scan.values(0), STORED * 2.0 - 10)
    assert np.array_equal(scan.values(1), (STORED + 1) * 2.0 - 10)
    assert np.array_equal(scan.values(2), (STORED + 2) * 3.0 + 5)
    for frame in range(3):
        assert scan.resolve_window("file", frame) == ("file", Window(100 * (frame + 1), 4000 + frame))
        wanted = linear(scan.values(frame), 100 * (frame + 1), 4000 + frame)
        assert np.abs(scan.picture(frame=frame)[..., 0] - wanted).max() <= 0.51


def test_hounsfield_units_are_known_by_their_name_too() -> None:
    dataset = enhanced()
    dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0].RescaleType = "HU"
    assert "lung" in open_scan(bytes_of(dataset)).windows


def test_measured_windows_are_the_stacks() -> None:
    stack = np.stack([np.zeros_like(STORED), STORED, STORED * 2])
    scan = open_scan(bytes_of(made(stack)))
    assert scan.windows["full range"].width == int(STORED.max()) * 2
    with pytest.raises(ScanError, match="Frame 0 is one flat grey.*choose another frame"):
        scan.picture()
    assert scan.picture(frame=1).any()


def region(unit: int = 3, delta: float = 0.02) -> Dataset:
    units = {f"PhysicalUnits{axis}Direction": unit for axis in "XY"}
    return item(RegionSpatialFormat=1, PhysicalDeltaX=delta, PhysicalDeltaY=delta * 2, **units)


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ({}, None),
        ({"PixelSpacing": [0.5, 0.25]}, (0.5, 0.25)),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, (0.1, 0.2)),
        ({"NominalScannedPixelSpacing": [0.3, 0.4]}, (0.3, 0.4)),
        ({"PixelSpacing": [0.5, 0.25], "ImagerPixelSpacing": [0.1, 0.2]}, (0.5, 0.25)),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.1, 0.2]}, (0.1, 0.2)),
        ({"SequenceOfUltrasoundRegions": [region()]}, (0.4, 0.2)),
        ({"SequenceOfUltrasoundRegions": [region(), region(unit=4)]}, (0.4, 0.2)),
        ({"SequenceOfUltrasoundRegions": [region(), region(delta=0.05)]}, None),
        ({"SequenceOfUltrasoundRegions": [region(unit=4)]}, None),
    ],
)
def test_spacing_in_millimetres(tags: dict[str, Any], wanted: tuple[float, float] | None) -> None:
    found = open_scan(bytes_of(made(**tags))).spacing
    assert found == (None if wanted is None else pytest.approx(wanted))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_missing_preamble_is_no_obstacle(syntax: str) -> None:
    data = bytes_of(made(syntax=syntax))
    dataset = dcmread(io.BytesIO(data))
    bare = io.BytesIO()
    del dataset.file_meta
    dataset.preamble = None
    dataset.save_as(bare, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True, enforce_file_format=False)
    assert bare.getvalue()[128:132] != b"DICM"
    for stripped in (bare.getvalue(), data[132:]):  # Without meta group, and with it but without the magic.
        assert np.array_equal(open_scan(stripped).values(), STORED)


@pytest.mark.parametrize("implicit", [True, False])
def test_a_missing_transfer_syntax_is_told_from_the_encoding(implicit: bool) -> None:
    dataset = made()
    del dataset.file_meta.TransferSyntaxUID
    buffer = io.BytesIO()
    dataset.preamble = b"\0" * 128
    dataset.save_as(buffer, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    assert np.array_equal(open_scan(buffer.getvalue()).values(), STORED)


def test_a_missing_transfer_syntax_is_told_from_compressed_frames() -> None:
    path = bundled("MR_small_jp2klossless.dcm")
    dataset = dcmread(path)
    del dataset.file_meta.TransferSyntaxUID
    buffer = io.BytesIO()
    dataset.save_as(buffer, implicit_vr=False, little_endian=True, enforce_file_format=False)
    assert np.array_equal(open_scan(buffer.getvalue()).values(), open_scan(path).values())


def test_a_deflated_file_is_read() -> None:
    data = bytes_of(made(syntax=DeflatedExplicitVRLittleEndian))
    assert np.array_equal(open_scan(data).values(), STORED)


def test_compressed_stacks_are_read_frame_by_frame() -> None:
    dataset = made(np.stack([STORED, STORED[::-1], STORED[:, ::-1]]), BitsStored=12, HighBit=11)
    dataset.compress(RLELossless)
    scan = open_scan(bytes_of(dataset))
    assert np.array_equal(scan.values(2), STORED[:, ::-1]) and np.array_equal(scan.values(1), STORED[::-1])


@pytest.mark.parametrize(
    ("syntax", "package"),
    [
        (JPEG2000Lossless, "pip install pylibjpeg pylibjpeg-openjpeg"),
        (HTJ2KLossless, "pip install pylibjpeg pylibjpeg-openjpeg"),
        (JPEGLSLossless, "pip install pyjpegls"),
        (JPEGLosslessSV1, "pip install python-gdcm"),
        (JPEGBaseline8Bit, "pip install python-gdcm"),
    ],
)
def test_a_missing_decoder_is_named(monkeypatch: pytest.MonkeyPatch, syntax: str, package: str) -> None:
    monkeypatch.setattr(get_decoder(syntax), "_available", {})
    dataset = made(syntax=syntax)
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(ScanError, match=f"{package}$"):
        open_scan(bytes_of(dataset))


def test_12_bit_jpeg_names_the_only_package_that_decodes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    path = bundled("JPGExtended.dcm")
    decoder = get_decoder(dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)
    monkeypatch.setattr(decoder, "_available", {k: v for k, v in decoder._available.items() if k != "pylibjpeg"})
    with pytest.raises(ScanError, match="pip install pylibjpeg pylibjpeg-libjpeg$"):
        open_scan(path)


def test_a_video_is_refused_as_one() -> None:
    dataset = made(syntax=MPEG2MPML)
    dataset.PixelData = encapsulate([b"\0\0\1\xb3"])
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(ScanError, match="is a video"):
        open_scan(bytes_of(dataset))


@pytest.mark.parametrize(("allocated", "dtype"), [(8, np.uint8), (16, np.uint16), (16, np.int16)])
def test_written_scans_read_back_exactly(tmp_path: Path, allocated: int, dtype: type) -> None:
    values = STORED.astype(np.int64) % 200 - (100 if dtype is np.int16 else 0)
    path = tmp_path / "made"
    write_dicom(
        path, values.astype(dtype), modality="MR", body_part="HEAD", spacing=(0.5, 0.75), window=Window(100, 50)
    )
    scan, raw = open_scan(path), dcmread(path)
    assert raw.BitsAllocated == allocated and np.array_equal(scan.values(), values)
    assert scan.spacing == (0.5, 0.75) and scan.warnings == ()
    assert scan.facts == {"Modality": "MR", "BodyPartExamined": "HEAD"}
    assert scan.resolve_window(None) == ("file", Window(100, 50))


def test_written_ct_keeps_its_hounsfield_units(tmp_path: Path) -> None:
    values = STORED.astype(np.float32) - 1024
    path = tmp_path / "ct.dcm"
    write_dicom(path, values, modality="CT", body_part="CHEST", spacing=None, window=None, intercept=-1024)
    scan = open_scan(path)
    assert np.array_equal(scan.values(), values) and scan.default_window == "soft tissue"


def test_written_stacks_colours_and_films(tmp_path: Path) -> None:
    stack = np.stack([STORED, STORED + 1])
    write_dicom(tmp_path / "us", stack, modality="US", body_part="BREAST", spacing=None, window=None)
    assert np.array_equal(open_scan(tmp_path / "us").values(1), STORED + 1)
    write_dicom(tmp_path / "rgb", RGB, modality="US", body_part="BREAST", spacing=None, window=None)
    assert np.array_equal(open_scan(tmp_path / "rgb").values(), RGB)
    film = tmp_path / "dx"
    write_dicom(
        film,
        STORED,
        modality="DX",
        body_part="CHEST",
        spacing=(0.1, 0.1),
        window=None,
        view_position="PA",
        laterality="L",
    )
    scan = open_scan(film)
    assert scan.spacing == (0.1, 0.1)
    assert scan.facts == {"Modality": "DX", "BodyPartExamined": "CHEST", "ImageLaterality": "L", "ViewPosition": "PA"}


def test_the_same_phantom_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_dicom(tmp_path / name, STORED, modality="MR", body_part="HEAD", spacing=None, window=None)
    write_dicom(tmp_path / "c", STORED + 1, modality="MR", body_part="HEAD", spacing=None, window=None)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert dcmread(tmp_path / "a").SOPInstanceUID != dcmread(tmp_path / "c").SOPInstanceUID
    assert dcmread(tmp_path / "a").PatientName == "" and dcmread(tmp_path / "a").BurnedInAnnotation == "NO"


def test_values_beyond_16_bits_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="do not fit 16 bits"):
        write_dicom(tmp_path / "x", STORED * 100.0, modality="MR", body_part="HEAD", spacing=None, window=None)
    with pytest.raises(ValueError, match=r"\[H,W\]"):
        write_dicom(tmp_path / "x", STORED[0], modality="MR", body_part="HEAD", spacing=None, window=None)
