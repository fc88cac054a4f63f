"""Masks as files: PNG, one index map for several, and DICOM Segmentation (``highdicom``) without a trace of the patient.

An opened scan holds no identifier of the file it came from, and a new file must not lead back to it. DICOM-SEG, which has to
name the image it segments, is therefore written beside an image made for it: the picture as displayed, as an anonymous Secondary
Capture, for every kind of scan. Both have new UIDs and empty patient and study attributes; pixels and spacing are all they share
with the scan, so a viewer lays the masks over this image and not over the original series.
Comes in: the picture, named masks of its size, the spacing. Goes out: the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from msmedcap.config import UserError

MOST_SEGMENTS = 255
"""As many as the index map's bytes can tell apart."""
IMAGE, SEGMENTS = "image.dcm", "segmentation.dcm"
_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
    "ReferringPhysicianName", "Manufacturer", "PatientOrientation",
)  # fmt: skip
_SCHEME = "99MSMEDCAP"
_SIDES = {"left": Code("7771000", "SCT", "Left"), "right": Code("24028007", "SCT", "Right")}
_ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
_CATEGORIES = {"finding": _ABNORMAL, "device": codes.SCT.PhysicalObject, "tissue": codes.SCT.Tissue}


@dataclass(frozen=True)
class Segment:
    """A named mask ``[H,W] bool``; ``kind`` is the class's (:data:`msmedcap.data.classes.KINDS`)."""

    label: str
    mask: np.ndarray
    kind: str = "organ"


def write_mask(path: Path, mask: np.ndarray) -> None:
    """``mask [H,W] bool`` as an 8-bit PNG of its size, 0 and 255."""
    Image.fromarray(mask.astype(np.uint8) * 255).save(path, "PNG")


def write_index(path: Path, masks: Sequence[np.ndarray]) -> None:
    """Masks ``[H,W] bool`` as one 8-bit PNG: 0 where none is, ``i + 1`` in the mask ``i``; where masks overlap, the last shows.

    Raises :class:`UserError` for more masks than a byte can tell apart.
    """
    if len(masks) > MOST_SEGMENTS:
        raise UserError(f"An index map holds at most {MOST_SEGMENTS} masks, and there are {len(masks)}.")
    index = np.zeros(masks[0].shape, dtype=np.uint8)
    for number, mask in enumerate(masks, 1):
        index[mask] = number
    Image.fromarray(index).save(path, "PNG")


def write_dicom_seg(
    folder: Path,
    picture: np.ndarray,
    segments: Sequence[Segment],
    *,
    spacing: tuple[float, float] | None,
    burned_in: bool = False,
) -> tuple[Path, Path]:
    """Write ``image.dcm`` (the picture) and ``segmentation.dcm`` (its segments) into ``folder``; returns both paths.

    ``picture`` uint8 ``[H,W,3]`` as displayed; ``spacing`` mm per pixel (row, column). Masks may overlap; an empty one has no
    frame and is left out. ``burned_in`` says so of the image where the scan was marked so. Raises :class:`UserError` where
    every mask is empty.
    """
    kept = [segment for segment in segments if segment.mask.any()]
    if not kept:
        raise UserError("The mask is empty, so there is nothing to write as DICOM-SEG; prompt again.")
    image = _image(picture, spacing, burned_in)
    paths = folder / IMAGE, folder / SEGMENTS
    image.save_as(paths[0], enforce_file_format=True)
    _segmentation(image, kept).save_as(paths[1])
    return paths


def _image(picture: np.ndarray, spacing: tuple[float, float] | None, burned_in: bool) -> Dataset:
    """The picture as a Secondary Capture of nobody."""
    grey = bool((picture == picture[..., :1]).all())
    pixels = np.ascontiguousarray(picture[..., 0] if grey else picture)
    dataset = Dataset()
    for name in _EMPTY:
        setattr(dataset, name, "")
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        setattr(dataset, name, generate_uid())
    dataset.Modality, dataset.ConversionType, dataset.ImageType = "OT", "WSD", ["DERIVED", "SECONDARY"]
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    if burned_in:
        dataset.BurnedInAnnotation = "YES"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if grey else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if grey else "RGB"
    if not grey:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    if spacing is not None:
        dataset.PixelSpacing = [float(value) for value in spacing]
    data = pixels.tobytes()
    dataset.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _segmentation(image: Dataset, segments: Sequence[Segment]) -> Dataset:
    import highdicom as hd  # a second of imports that nobody needs who only opens scans

    from msmedcap import __version__

    algorithm = hd.AlgorithmIdentificationSequence(
        name="SEG-SAM", family=codes.DCM.ArtificialIntelligence, version=__version__
    )
    descriptions = [_description(hd, number, segment, algorithm) for number, segment in enumerate(segments, 1)]
    made: Dataset = hd.seg.Segmentation(
        source_images=[image],
        pixel_array=np.stack([segment.mask for segment in segments], axis=-1)[None].astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="MSMedCap",
        manufacturer_model_name="SEG-SAM",
        software_versions=__version__,
        device_serial_number="0",
        series_description="SEG-SAM masks, research only",
    )
    # A picture has no slice thickness, and highdicom reads no pixel measures without one; the image beside has the spacing.
    made.SharedFunctionalGroupsSequence[0].pop("PixelMeasuresSequence", None)
    return made


def _description(hd: Any, number: int, segment: Segment, algorithm: Any) -> Any:
    """The segment's name in DICOM's codes where they have one; sides are modifiers there."""
    words = segment.label.replace("_", " ").split()
    sides = [side for side in _SIDES if side in (word.lower() for word in words)]
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.label[:64],
        segmented_property_category=_CATEGORIES.get(segment.kind, codes.SCT.AnatomicalStructure),
        segmented_property_type=_code(segment.label, [word for word in words if word.lower() not in _SIDES]),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=algorithm,
    )
    if len(sides) == 1:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [hd.sr.CodedConcept(*_SIDES[sides[0]][:3])]
    return description


def _code(label: str, words: Sequence[str]) -> Code:
    """SNOMED CT's code for a structure that is called exactly so, else one of our own."""
    try:
        return getattr(codes.SCT, "".join(word.capitalize() for word in words))
    except AttributeError:
        return Code("-".join(label.upper().split())[:64], _SCHEME, label[:64])
