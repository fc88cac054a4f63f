"""The page's example scans: six phantoms written as real DICOM files with an index of titles and true captions.

``write_examples(Path("assets/examples"))`` makes them anew; the files depend on the code alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msmedcap.data.phantoms import chest_ct, heads, joints_mr, ultrasound, xray
from msmedcap.data.phantoms.phantom import Phantom
from msmedcap.data.scans import write_dicom

DICOM_MODALITY = {"CT": "CT", "MRI": "MR", "X-ray": "DX", "ultrasound": "US"}
_AXIAL, _SAGITTAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
_CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
_ORIENTATION = {"axial": _AXIAL, "coronal": _CORONAL, "sagittal": _SAGITTAL, "": _AXIAL}


@dataclass(frozen=True)
class _Example:
    file: str
    title: str
    make: Callable[..., Phantom]
    modality: str
    plane: str
    finding: str
    seed: int


_EXAMPLES = (
    _Example("ct-head.dcm", "CT, head", heads.make, "CT", "axial", "hemorrhage", 11),
    _Example("ct-chest.dcm", "CT, chest", chest_ct.make, "CT", "axial", "nodule", 13),
    _Example("mr-head.dcm", "MRI, head", heads.make, "MRI", "axial", "mass", 16),
    _Example("mr-spine.dcm", "MRI, spine", joints_mr.make_spine, "MRI", "sagittal", "disc herniation", 8),
    _Example("cr-chest.dcm", "X-ray, chest", xray.make, "X-ray", "", "pneumonia", 56),
    _Example("us-breast.dcm", "Ultrasound, breast", ultrasound.make, "ultrasound", "", "malignant", 19),
)


def save_dicom(phantom: Phantom, path: Path) -> None:
    """Write a phantom as an anonymous DICOM file; 8-bit where its modality is (ultrasound), 16-bit else (CT: 12 bits used)."""
    modality = DICOM_MODALITY[phantom.facts["modality"]]
    values = phantom.values.astype(np.uint8) if modality == "US" else phantom.values
    write_dicom(
        path,
        values,
        modality=modality,
        body_part={"musculoskeletal system": "KNEE"}.get(phantom.facts["part"], phantom.facts["part"].upper()),
        spacing=phantom.spacing,
        window=phantom.window,
        intercept=-1024 if modality == "CT" else 0,
        view_position="PA" if phantom.facts["view"] == "frontal" else "",
        orientation=_ORIENTATION[phantom.facts["plane"]],
    )


def write_examples(folder: Path) -> None:
    """Write the six example scans and ``index.json`` (a list of file, title and true caption) into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    index = []
    for example in _EXAMPLES:
        rng = np.random.default_rng([example.seed, 0xE0])
        phantom = example.make(rng, 320, modality=example.modality, plane=example.plane, finding=example.finding)
        save_dicom(phantom, folder / example.file)
        index.append({"file": example.file, "title": example.title, "caption": phantom.caption})
    (folder / "index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
