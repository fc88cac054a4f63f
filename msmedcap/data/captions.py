"""Pictures with what is said of them: the caption datasets, and the plain sentence a fact sheet becomes.

Comes in: a dataset's folder in its published layout. Goes out: :class:`Case` rows with the facts a radiologist states first
(modality, plane or view, body part), then the finding, in one fixed order of words (:func:`plain_caption`). Splits are by
patient, or by near-duplicate group where patients are unknown (:mod:`msmedcap.data.groups`).
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msmedcap.config import UserError
from msmedcap.data.groups import near_duplicate_groups

LABELS = ("no findings", "pneumonia", "COVID-19", "benign", "malignant", "normal")
_PARTS = {
    "Head": "head",
    "Thorax": "chest",
    "Abdomen": "abdomen",
    "Spine and Muscles": "musculoskeletal system",
    "Reproductive and Urinary System": "pelvis",
}
_PLANES = {"axial": "axial", "transverse": "axial", "coronal": "coronal", "sagittal": "sagittal"}
_SEQUENCES = (
    ("FLAIR", "FLAIR"),
    ("DWI", "diffusion-weighted"),
    ("ADC", "diffusion-weighted"),
    ("T1W", "T1-weighted"),
    ("T2", "T2-weighted"),
    ("PDW", "proton density"),
    ("Angiography/Venography", "angiographic"),
)
# What a caption's words say was found, most telling first; the target captions of the demo weights are made with it.
_FINDINGS: tuple[tuple[str, str], ...] = (
    ("fracture", r"fractur"),
    ("dissection", r"\bdissection"),
    ("aneurysm", r"aneurysm"),
    ("vascular malformation", r"malformation|\bavm\b|cavernoma|hemangioma"),
    ("hemorrhage", r"h(a)?emorrhag|h(a)?ematoma|\bbleed"),
    ("infarct", r"infarct|isch(a)?emi|\bstroke"),
    ("thrombus", r"thromb|embol"),
    ("abscess", r"abscess|empyema"),
    ("disc herniation", r"herniat\w+ (of the )?(nucleus|dis[ck])|dis[ck] (herniat|protru|extru)"),
    ("hernia", r"\bhernia"),
    ("stone", r"\bstones?\b|calcul[iu]|lithiasis"),
    ("hydronephrosis", r"hydronephro|hydroureter"),
    ("hydrocephalus", r"hydrocephal|ventriculomegaly"),
    ("obstruction", r"obstruct|intussuscep|volvulus|ileus"),
    ("pneumothorax", r"pneumothora"),
    ("effusion", r"effusion"),
    ("consolidation", r"consolidat|airspace|ground.glass|infiltrat"),
    ("tear", r"\btears?\b|\btorn\b|rupture"),
    ("mass", r"\bmass(es)?\b|tumou?r|neoplas|carcinom|sarcom|gliom|blastoma|meningiom|lymphom|metasta|adenoma|schwannom|\bgist\b"),
    ("nodule", r"nodul"),
    ("cyst", r"\bcyst"),
    ("inflammation", r"inflam|appendicitis|diverticulitis|colitis|pancreatitis|\w+itis\b"),
    ("fluid collection", r"fluid collection|collection"),
    ("edema", r"(o)?edema"),
    ("atrophy", r"atroph"),
    ("stenosis", r"steno[st]"),
    ("lesion", r"lesion|enhanc|signal (abnormal|intens)|hyperintens|hypointens|hypodens|hyperdens"),
)
_FINDING_RES = tuple((name, re.compile(pattern, re.I)) for name, pattern in _FINDINGS)
_NEGATED = re.compile(r"\b(no|without|negative for|absence of|rule out|no evidence of)\b[^.;,]*", re.I)
_SIDE = re.compile(r"\b(left|right)\b|\b([LR])(UL|LL|ML)\b")
_SWAP = re.compile(r"\b(left|right)|\b([LR])(UL|LL|ML)\b", re.I)


@dataclass(frozen=True)
class Case:
    """One picture and what is known of it.

    ``facts`` may hold ``modality`` (CT, MRI, X-ray, ultrasound), ``plane`` or ``view``, ``part``, ``sequence``, ``finding``,
    ``side`` and ``label`` (one of :data:`LABELS`); a key that is absent is unknown. ``group`` is the patient or near-duplicate
    group splits keep together.
    """

    id: str
    image: Path
    facts: Mapping[str, str]
    caption: str
    group: str
    source: str
    text: str = field(default="", repr=False)


def plain_caption(facts: Mapping[str, str]) -> str:
    """The sentence(s) for ``facts``: what a radiologist states first, then the finding; unknown facts are left out."""
    words = [facts.get("plane") or facts.get("view") or "", facts.get("sequence", ""), facts.get("modality", "scan")]
    lead = " ".join(w for w in words if w)
    if part := facts.get("part"):
        lead += f" of the {'pelvis and urinary tract' if part == 'pelvis' else part}"
    return " ".join(s for s in (lead[:1].upper() + lead[1:] + ".", finding_sentence(facts)) if s)


def finding_sentence(facts: Mapping[str, str]) -> str:
    """The second sentence of :func:`plain_caption`, or an empty string where no finding is known."""
    finding = facts.get("label") or facts.get("finding") or ""
    side = f" on the {facts['side']}" if facts.get("side") in ("left", "right") else ""
    if not finding:
        return ""
    if finding in ("pneumonia", "COVID-19"):
        return f"Findings of {finding}{side}."
    if finding == "normal":
        return "Normal breast tissue." if facts.get("part") == "breast" else "Normal."
    if finding in ("benign", "malignant"):
        return f"{finding.capitalize()} mass{side}."
    if finding == "no findings":
        return "No findings."
    return f"{finding[:1].upper()}{finding[1:]}{side}."


def swap_sides(text: str) -> str:
    """``text`` as it reads after the picture was mirrored: left ↔ right, LUL ↔ RUL, keeping case."""

    def other(match: re.Match[str]) -> str:
        if word := match[1]:
            new = "right" if word.lower() == "left" else "left"
            return new.upper() if word.isupper() else new.capitalize() if word[0].isupper() else new
        letter = {"L": "R", "R": "L", "l": "r", "r": "l"}[match[2]]
        return letter + match[3]

    return _SWAP.sub(other, text)


def find_finding(text: str) -> str:
    """The most telling finding word of :data:`_FINDINGS` that ``text`` affirms, or an empty string."""
    affirmed = _NEGATED.sub(" ", text)
    return next((name for name, pattern in _FINDING_RES if pattern.search(affirmed)), "")


def find_side(text: str) -> str:
    """``"left"`` or ``"right"`` where ``text`` names exactly one side, else an empty string."""
    sides = {m[1] or {"L": "left", "R": "right"}[m[2]] for m in _SIDE.finditer(text)}
    return sides.pop() if len(sides) == 1 else ""


def split_of(group: str, shares: Mapping[str, float]) -> str:
    """The split a group falls in: a hash of its name against cumulative ``shares`` (which sum to 1)."""
    place = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    for name, share in shares.items():
        if place < share:
            return name
        place -= share
    return name


def read_medpix(path: Path) -> dict[str, list[Case]]:
    """MedPix 2.0 (``{train,dev}/descriptions.jsonl``); ``val`` is a tenth of train's patients, ``dev`` the official split."""
    splits: dict[str, list[Case]] = {"train": [], "val": [], "dev": []}
    for folder in ("train", "dev"):
        for line in _lines(path / folder / "descriptions.jsonl"):
            row = json.loads(line)
            image = path / folder / "images" / f"{row['image']}.jpg"
            facts, text = _medpix_facts(row)
            split = split_of(row["U_id"], {"val": 0.1, "train": 0.9}) if folder == "train" else "dev"
            splits[split].append(
                Case(row["image"], image, facts, plain_caption(facts), row["U_id"], "medpix", text)
            )
    return splits


def _medpix_facts(row: dict) -> tuple[dict[str, str], str]:
    description = row["Description"]
    caption = description.get("Caption") or ""
    kind = description.get("Modality") or ""
    facts = {"modality": {"CT": "CT", "MR": "MRI"}[row["Type"]]}
    if facts["modality"] == "MRI":
        facts["sequence"] = next((name for mark, name in _SEQUENCES if mark in kind), "")
    facts["plane"] = _PLANES.get((description.get("Plane") or "").lower(), "")
    facts["part"] = _PARTS.get(row.get("Location Category") or "", "")
    if facts["part"] == "musculoskeletal system" and row.get("Location") == "Spine":
        facts["part"] = "spine"
    # The case's title would name a mass for every slice of the patient, also for those that do not show it.
    facts["finding"] = find_finding(caption)
    facts["side"] = find_side(caption) if facts["finding"] else ""
    return {k: v for k, v in facts.items() if v}, caption


def read_label_folders(path: Path) -> dict[str, list[Case]]:
    """Chest X-rays or breast ultrasound in one folder per label (``cxr_labels``, ``busi``), split by near-duplicate group."""
    meaning = {
        "no_findings": ("chest", "no findings"),
        "pneumonia": ("chest", "pneumonia"),
        "covid19": ("chest", "COVID-19"),
        "benign": ("breast", "benign"),
        "malignant": ("breast", "malignant"),
        "normal": ("breast", "normal"),
    }
    found = []
    for folder in sorted(p for p in path.iterdir() if p.is_dir()):
        if folder.name not in meaning:
            raise UserError(f"{folder} is not a label this reader knows; it knows {', '.join(meaning)}.")
        part, label = meaning[folder.name]
        shared = {"modality": "X-ray", "view": "frontal"} if part == "chest" else {"modality": "ultrasound"}
        found += [(p, {**shared, "part": part, "label": label}) for p in sorted(folder.iterdir()) if p.is_file()]
    return _grouped(path, found)


def read_cxr_seg(path: Path) -> dict[str, list[Case]]:
    """The chest X-rays of the mask set: its ``view`` and ``finding`` columns as facts, split by near-duplicate group."""
    with open(path / "masks.csv", newline="", encoding="utf-8") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    found = []
    for name, row in sorted(rows.items()):
        facts = {"modality": "X-ray", "view": "lateral" if row["view"] == "L" else "frontal", "part": "chest"}
        if "COVID-19" in row["finding"]:
            facts["label"] = "COVID-19"
        elif row["finding"].lower() == "no finding":
            facts["label"] = "no findings"
        elif row["finding"]:
            facts["label"] = "pneumonia"
        found.append((path / "images" / name, facts))
    return _grouped(path, found)


def _grouped(path: Path, found: list[tuple[Path, dict[str, str]]]) -> dict[str, list[Case]]:
    splits: dict[str, list[Case]] = {"train": [], "val": [], "test": []}
    groups = near_duplicate_groups([image for image, _ in found])
    for (image, facts), group in zip(found, groups, strict=True):
        # A group is named by its first member, so that adding pictures elsewhere moves nobody to another split.
        name = found[group][0].relative_to(path).as_posix()
        split = split_of(name, {"test": 0.15, "val": 0.1, "train": 0.75})
        id = image.relative_to(path).as_posix()
        splits[split].append(Case(id, image, facts, plain_caption(facts), name, path.name, ""))
    return splits


READERS: dict[str, Callable[[Path], dict[str, list[Case]]]] = {
    "medpix": read_medpix,
    "cxr_labels": read_label_folders,
    "busi": read_label_folders,
    "cxr_seg": read_cxr_seg,
}


def read_dataset(name: str, path: Path, split: str) -> list[Case]:
    """The cases of ``split`` of the dataset ``name`` at ``path``; raises :class:`UserError` for an unknown name or split."""
    if name not in READERS:
        raise UserError(f"There is no reader for a dataset named {name!r}; there are {', '.join(READERS)}.")
    if not path.is_dir():
        raise UserError(f"The dataset folder {path} does not exist.")
    splits = READERS[name](path)
    if split not in splits:
        raise UserError(f"{name} has no split {split!r}; it has {', '.join(splits)}.")
    return splits[split]


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise UserError(f"{path} is missing; is this the folder of MedPix 2.0 with train/ and dev/ in it?") from None
