"""Which classes cannot be in a picture: those of another part of the body than the classes that are.

A data set labels some structures and says nothing of the others; a chest film, for one, has no mask of the brain. If that said
nothing, too, a class labelled only where it always is would be found everywhere. Comes in: the classes a set labels. Goes out: the
classes that lie elsewhere. A part borders on the next one down the body, and what borders may be in the picture.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

# From the head down; a class may reach over several parts.
PARTS = ("head", "neck", "chest", "abdomen", "pelvis", "leg")
# Pictures of these show nothing else.
ALONE = ("breast", "skin", "eye", "bowel wall")

_FIRST_TO_LAST: dict[tuple[str, str], tuple[str, ...]] = {
    ("head", "head"): (
        "brain", "ventricles", "brainstem", "cerebellum", "hippocampus", "face", "hemorrhage", "infarct", "brain tumor",
    ),
    ("neck", "neck"): ("thyroid gland",),
    ("neck", "chest"): ("trachea", "esophagus"),
    ("neck", "pelvis"): ("cord", "discs", "vertebrae", "spine", "disc herniation"),
    ("chest", "chest"): (
        "Left Lung", "Right Lung", "Cardiomediastinum", "Airways", "Ground Glass Opacities", "Consolidation", "Pleural Effusion",
        "Pneumothorax", "Endotracheal Tube", "Central Venous Line", "Monitoring Probes", "Nasogastric Tube", "Tubings",
        "lung upper lobe left", "lung upper lobe right", "lung middle lobe right", "lung lower lobe left",
        "lung lower lobe right", "heart", "heart atrium left", "heart atrium right", "heart ventricle left",
        "heart ventricle right", "heart myocardium", "pulmonary artery", "lung tumor", "nodule", "scapula left", "scapula right",
        "clavicle left", "clavicle right", "humerus left", "humerus right", "vertebrae T9", "rib left 9", "rib right 9", "rib",
    ),
    ("chest", "abdomen"): ("aorta", "inferior vena cava", "liver", "spleen", "stomach"),
    ("abdomen", "abdomen"): (
        "portal vein and splenic vein", "kidney left", "kidney right", "adrenal gland left", "adrenal gland right", "gallbladder",
        "pancreas", "duodenum", "liver tumor", "kidney tumor", "pancreas tumor",
    ),
    ("abdomen", "pelvis"): ("small bowel", "colon", "colon tumor", "stone", "iliopsoas left", "iliopsoas right"),
    ("chest", "pelvis"): ("autochthon left", "autochthon right"),
    ("pelvis", "pelvis"): (
        "iliac artery left", "iliac artery right", "iliac vena left", "iliac vena right", "rectum", "bladder", "prostate",
        "uterus", "hip left", "hip right", "hip bones", "sacrum", "gluteus maximus left", "gluteus maximus right",
        "gluteus medius left", "gluteus medius right",
    ),
    ("pelvis", "leg"): ("femur left", "femur right", "femur"),
    ("leg", "leg"): ("tibia", "fibula", "patella", "menisci", "tear", "effusion"),
}
_IN_CHAIN = {
    name: (PARTS.index(first), PARTS.index(last)) for (first, last), names in _FIRST_TO_LAST.items() for name in names
}
_IN_ALONE = {
    "benign breast tumor": "breast", "malignant breast tumor": "breast", "gland": "breast", "skin lesion": "skin",
    "optic disc": "eye", "optic cup": "eye", "polyp": "bowel wall",
}  # fmt: skip


def absent(labelled: Iterable[str], classes: Collection[str]) -> set[str]:
    """Those of ``classes`` that cannot be where the classes ``labelled`` are; none where these are found anywhere (a cyst)."""
    labelled = set(labelled)
    spans = [_IN_CHAIN[name] for name in labelled if name in _IN_CHAIN]
    alone = {_IN_ALONE[name] for name in labelled if name in _IN_ALONE}
    if not spans and not alone:
        return set()
    found = {name for name in classes if name in _IN_ALONE and _IN_ALONE[name] not in alone}
    for name in set(classes) & set(_IN_CHAIN):
        first, last = _IN_CHAIN[name]
        if not any(first <= high + 1 and last >= low - 1 for low, high in spans):
            found.add(name)
    return found - labelled
