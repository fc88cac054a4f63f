"""Made scans as real DICOM: pixels, geometry and window, and nobody's name.

The identifiers are derived from the pixels, so that the same phantom is the same file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    MRImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

from msmedcap.data.scans.windows import Window

_CLASSES = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "US": UltrasoundImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
}
_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
    "ReferringPhysicianName", "SeriesNumber", "Manufacturer", "PositionReferenceIndicator", "PatientOrientation",
)  # fmt: skip


def write_dicom(
    path: Path,
    values: np.ndarray,
    *,
    modality: str,
    body_part: str,
    spacing: tuple[float, float] | None,
    window: Window | None,
    intercept: float = 0,
    slope: float = 1,
    view_position: str = "",
    laterality: str = "",
    orientation: tuple[float, float, float, float, float, float] = (1, 0, 0, 0, 1, 0),
    position: tuple[float, float, float] = (0, 0, 0),
    series: str = "",
    instance: int = 1,
) -> None:
    """Write ``values`` as an anonymous DICOM file at ``path``.

    ``values`` [H,W] or [F,H,W] greys in the scan's units (stored as ``round((value - intercept) / slope)``), or uint8 [H,W,3]
    colours. ``spacing`` mm per pixel (row, column); ``window`` in the scan's units; ``orientation`` the direction cosines of
    rows and columns, ``position`` the first pixel's place in mm (CT and MR). Files of one ``series`` (a name, not written) belong
    together, ``instance`` numbers them. Raises ``ValueError`` where the values do not fit 16 bits or have another shape.
    """
    colour = values.ndim == 3 and values.shape[2] == 3 and values.dtype == np.uint8
    if values.ndim not in (2, 3) or not values.size:
        raise ValueError(f"A scan is [H,W], [F,H,W] or uint8 [H,W,3], not {list(values.shape)}.")
    pixels = values if colour else _stored(values, slope, intercept)
    frames = pixels.shape[0] if pixels.ndim == 3 and not colour else 1
    dataset = Dataset()
    for name in _EMPTY:
        setattr(dataset, name, "")
    dataset.Modality, dataset.BodyPartExamined = modality, body_part
    dataset.SOPClassUID = _sop_class(modality, frames, colour, pixels.dtype.itemsize)
    made = repr((pixels.shape, modality, body_part, *((series, instance) if series else ())))
    digest = hashlib.sha256(pixels.tobytes() + made.encode()).hexdigest()
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        shared = series and name != "SOPInstanceUID"
        setattr(dataset, name, generate_uid(entropy_srcs=[f"series {series}" if shared else digest, name]))
    dataset.ImageType = ["DERIVED", "PRIMARY"] + (
        ["AXIAL"] if modality == "CT" else ["OTHER"] if modality == "MR" else []
    )
    dataset.InstanceNumber, dataset.BurnedInAnnotation, dataset.LossyImageCompression = instance, "NO", "00"
    dataset.ConversionType = "SYN"
    for name, text in (("ViewPosition", view_position), ("ImageLaterality", laterality)):
        if text:
            setattr(dataset, name, text)
    _describe_pixels(dataset, pixels, frames, colour)
    _describe_values(dataset, colour, slope, intercept, window)
    if spacing is not None:
        name = "ImagerPixelSpacing" if modality in ("DX", "CR") else "PixelSpacing"
        setattr(dataset, name, [float(value) for value in spacing])
    if modality in ("CT", "MR"):
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = list(orientation), [float(v) for v in position]
        for name in ("SliceThickness", "AcquisitionNumber", *(("KVP",) if modality == "CT" else ())):
            setattr(dataset, name, None)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)


def _stored(values: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """``values`` as the integers a file holds: uint8 where they are, else uint16, else int16."""
    if values.dtype == np.uint8 and (slope, intercept) == (1, 0):
        return values
    stored = np.rint((values.astype(np.float64) - intercept) / slope)
    for kind in (np.uint16, np.int16):
        if np.iinfo(kind).min <= stored.min() and stored.max() <= np.iinfo(kind).max:
            return stored.astype(kind)
    raise ValueError(
        f"The stored values {stored.min():g} to {stored.max():g} do not fit 16 bits; choose another slope."
    )


def _sop_class(modality: str, frames: int, colour: bool, width: int) -> UID:
    if frames == 1:
        return _CLASSES.get(modality, SecondaryCaptureImageStorage)
    if modality == "US":
        return UltrasoundMultiFrameImageStorage
    if width == 1:
        return MultiFrameGrayscaleByteSecondaryCaptureImageStorage
    return MultiFrameGrayscaleWordSecondaryCaptureImageStorage


def _describe_pixels(dataset: Dataset, pixels: np.ndarray, frames: int, colour: bool) -> None:
    dataset.Rows, dataset.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 1 if pixels.dtype.kind == "i" else 0
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    dataset.add_new("PixelData", "OB" if bits == 8 else "OW", data + b"\0" * (len(data) % 2))


def _describe_values(dataset: Dataset, colour: bool, slope: float, intercept: float, window: Window | None) -> None:
    if colour:
        return
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    dataset.RescaleType = "HU" if dataset.Modality == "CT" else "US"
    if window is not None:
        dataset.WindowWidth, dataset.WindowCenter = window.width, window.level
