"""What the maps are measured on: pictures with a caption, one word of it, and the mask of what that word is about.

Comes in: a seed, or the chest set's folder. Goes out: :class:`Case` rows. The word of a finding is the first of its sentence
("Hemorrhage on the left.", "Findings of pneumonia."): there the model decides whether something is found; what follows may
follow from the words alone. Where the model says otherwise, the true caption is put into its mouth (teacher-forced).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msmedcap.data.captions import finding_sentence
from msmedcap.data.masks import read_cxr_seg, read_mask
from msmedcap.data.phantoms import make_phantom
from msmedcap.data.scans import open_scan
from msmedcap.data.sets import READERS, split_of

NOTHING = ("", "no findings", "normal")
OPACITIES = ("Ground Glass Opacities", "Consolidation", "Pleural Effusion")
LUNGS = ("Left Lung", "Right Lung")
HALVES = {"choice": 0.4, "report": 0.6}


@dataclass(frozen=True)
class Case:
    """A ``picture`` (uint8 ``[H,W,3]``) whose ``caption`` has at ``start`` a word about what lies under ``mask`` (bool ``[H,W]``).

    ``set`` names the table it counts in, ``kind`` what it shows; cases of a ``group`` are drawn together. ``half`` is
    ``choice`` or ``report``.
    """

    id: str
    set: str
    kind: str
    picture: np.ndarray
    caption: str
    start: int
    mask: np.ndarray
    group: str
    half: str


def phantom_cases(count: int, *, seed: int) -> Iterator[Case]:
    """``count`` made scans with a finding, as :func:`~msmedcap.data.phantoms.make_phantom` draws them from ``seed`` on."""
    made = 0
    for i in range(100 * count):
        if made == count:
            return
        phantom = make_phantom(seed * 1_000_003 + i)
        if phantom.facts["finding"] in NOTHING or "lesion" not in phantom.masks:
            continue
        made += 1
        id = f"phantom {seed}-{i}"
        yield Case(
            id,
            "phantoms",
            f"{phantom.facts['modality']} {phantom.facts['part']}: {phantom.facts['finding']}",
            np.repeat(phantom.picture[..., None], 3, axis=2),
            phantom.caption,
            len(phantom.caption) - len(finding_sentence(phantom.facts)),
            phantom.masks["lesion"],
            id,
            split_of(id, HALVES),
        )


def chest_cases(folder: Path) -> Iterator[Case]:
    """The real chest films that no model was trained on (splits val and test): the finding's word with the opacities, and
    "chest" with both lungs; all of them in the half that is reported. Raises ``UserError`` without ``masks.csv``.
    """
    known = {case.image: case for split in ("val", "test") for case in READERS["cxr_seg"](folder)[split]}
    for row in read_cxr_seg(folder):
        case = known.get(row.image)
        if case is None:
            continue
        picture = open_scan(row.image).picture()
        finding = finding_sentence(case.facts)
        places = {"chest": case.caption.find("chest")}
        if case.facts.get("label", "") not in NOTHING:
            places["finding"] = len(case.caption) - len(finding)
        for word, classes in (("finding", OPACITIES), ("chest", LUNGS)):
            found = [read_mask(file) for name, file in row.masks if name in classes]
            if found and places.get(word, -1) >= 0:
                mask = np.any(found, axis=0)
                told = f"chest X-rays, {'opacities' if word == 'finding' else 'lungs'}"
                id = f"{row.id} {word}"
                yield Case(id, told, told, picture, case.caption, places[word], mask, case.group, "report")
