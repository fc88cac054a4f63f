"""The pixels of a DICOM file as a dataset that can be decoded and holds nothing else.

In: the file's dataset. Out: a fresh one with the image pixel module only, its encoded frames cleared of comments and application
blocks, and checked against the header: length, size, and a decoder for the transfer syntax.
"""

from __future__ import annotations

import math
from itertools import islice

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from msmedcap.data.scans import codestreams
from msmedcap.data.scans.dicom_tags import number, value_of
from msmedcap.data.scans.errors import ScanError
from msmedcap.data.scans.limits import check_size

_DAMAGED = "This DICOM file is damaged or cut short; export or download it again."
_IMAGE_PIXEL = ("SamplesPerPixel", "PlanarConfiguration", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit")
_PALETTES = tuple(
    f"{prefix}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for prefix, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
)
_COLOURS = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_422", "YBR_PARTIAL_420"}


def decodable(dataset: Dataset) -> tuple[Dataset, int]:
    """A dataset with nothing but what decoding ``dataset``'s pixels needs, and its number of frames.

    Raises :class:`ScanError` where the pixels are too many, too few, or in a syntax no installed package decodes.
    """
    try:
        clean, count = _image_pixel(dataset)
        check_size(clean.Rows, clean.Columns, frames=count)
        clean.file_meta = FileMetaDataset()
        clean.file_meta.TransferSyntaxUID = _syntax(dataset)
        _demand_decoder(clean.file_meta.TransferSyntaxUID, clean.BitsStored)
        _copy_pixels(dataset, clean, count)
    except ScanError:
        raise
    except Exception:  # Wrong types and lengths in a damaged file surface as any error.
        raise ScanError(_DAMAGED) from None
    return clean, count


def _image_pixel(dataset: Dataset) -> tuple[Dataset, int]:
    clean = Dataset()
    for name in _IMAGE_PIXEL:
        if isinstance(value := value_of(dataset, name), int):
            setattr(clean, name, int(value))
    samples = clean.get("SamplesPerPixel", 1)
    photometric = str(value_of(dataset, "PhotometricInterpretation") or "").strip().upper()
    if samples not in (1, 3):
        raise ScanError(f"This DICOM picture has {samples} samples per pixel; export it as greys or RGB.")
    if not (
        photometric in _COLOURS if samples == 3 else photometric in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    ):
        photometric = "RGB" if samples == 3 else "MONOCHROME2"
    clean.SamplesPerPixel, clean.PhotometricInterpretation = samples, photometric
    if samples == 3 and "PlanarConfiguration" not in clean:
        clean.PlanarConfiguration = 0
    for name in _PALETTES if photometric == "PALETTE COLOR" else ():
        if name in dataset:
            clean.add_new(name, dataset[name].VR, dataset[name].value)
    clean.BitsAllocated = clean.get("BitsAllocated") or 16
    if not 1 <= clean.get("BitsStored", 0) <= clean.BitsAllocated:
        clean.BitsStored = clean.BitsAllocated
    clean.HighBit = clean.BitsStored - 1
    clean.PixelRepresentation = 1 if value_of(dataset, "PixelRepresentation") == 1 else 0
    frames = number(value_of(dataset, "NumberOfFrames"))
    clean.NumberOfFrames = 1 if math.isnan(frames) or frames == 0 else int(frames)
    return clean, int(clean.NumberOfFrames)


def _syntax(dataset: Dataset) -> UID:
    """The transfer syntax the file states, else the one its encoding shows."""
    stated = UID(str(getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID") or ""))
    encapsulated = "PixelData" in dataset and dataset["PixelData"].is_undefined_length
    if stated and (not stated.is_transfer_syntax or stated.is_encapsulated == encapsulated):
        return stated
    if encapsulated:
        guess = codestreams.syntax_of(next(iter(generate_frames(dataset.PixelData, number_of_frames=1))))
        return guess or stated or JPEGBaseline8Bit
    implicit, little = dataset.original_encoding
    if little is False:
        return ExplicitVRBigEndian
    return ImplicitVRLittleEndian if implicit in (True, None) else ExplicitVRLittleEndian


def _demand_decoder(syntax: UID, bits: int) -> None:
    """Raises :class:`ScanError` where no installed package decodes ``syntax``."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        if "MPEG" in syntax.name or "HEVC" in syntax.name:
            raise ScanError("This DICOM file is a video; export a frame of it as DICOM or PNG.") from None
        name = syntax.name if syntax.name != str(syntax) else "an unknown one"
        raise ScanError(
            f"This DICOM file's compression ({name}) is not supported; export it uncompressed (Explicit VR Little Endian)."
        ) from None
    deep = syntax == JPEGExtended12Bit and bits > 8
    if not decoder.is_available or (deep and "pylibjpeg" not in decoder.available_plugins):
        package = "pylibjpeg pylibjpeg-libjpeg" if deep else _package(syntax)
        raise ScanError(f"Decoding {syntax.name} needs another package; run: pip install {package}")


def _package(syntax: UID) -> str:
    if syntax in JPEGLSTransferSyntaxes:
        return "pyjpegls"
    if syntax in JPEGTransferSyntaxes:
        return "python-gdcm"
    return "pylibjpeg pylibjpeg-openjpeg"


def _copy_pixels(dataset: Dataset, clean: Dataset, count: int) -> None:
    if clean.file_meta.TransferSyntaxUID.is_encapsulated:
        frames = _encoded_frames(dataset, clean, count)
        clean.PixelData = encapsulate(frames, has_bot=sum(map(len, frames)) < 1 << 31)
        clean["PixelData"].VR = "OB"
        clean["PixelData"].is_undefined_length = True
        return
    name = next(name for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if name in dataset)
    bits = count * clean.Rows * clean.Columns * clean.SamplesPerPixel * clean.BitsAllocated
    if "422" in clean.PhotometricInterpretation:
        bits = bits * 2 // 3  # Two of three samples are stored.
    needed = (bits + 7) // 8
    pixels = dataset[name].value
    if pixels is None or len(pixels) < needed:
        raise ScanError(_DAMAGED)
    clean.add_new(name, dataset[name].VR, pixels[: needed + needed % 2])


def _encoded_frames(dataset: Dataset, clean: Dataset, count: int) -> list[bytes]:
    """The encoded frames, cleared of text; what each says of its size must be what the checked header says."""
    extended = None
    if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
        extended = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    found = generate_frames(dataset.PixelData, number_of_frames=count, extended_offsets=extended)
    frames = [codestreams.scrubbed(frame) for frame in islice(found, count)]
    if len(frames) < count or not all(frames):
        raise ScanError(_DAMAGED)
    syntax = clean.file_meta.TransferSyntaxUID
    for frame in frames if syntax != RLELossless else []:
        # Some decoders end the whole program over a frame that contradicts its file.
        header = codestreams.header_of(frame)
        sound = syntax not in (JPEGLossless, JPEGLosslessSV1) or codestreams.is_sound_lossless(frame)
        if header is None or header.bits > clean.BitsAllocated or not sound:
            raise ScanError(_DAMAGED)
        if header[:3] != (clean.Rows, clean.Columns, clean.SamplesPerPixel):
            raise ScanError("This DICOM file is damaged: its frames have another size than it says; export it again.")
    return frames
