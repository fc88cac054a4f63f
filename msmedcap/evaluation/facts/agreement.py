"""How far the lexicon agrees with real data that says the same in another way.

Comes in: the folder of data sets. Goes out: a Markdown table. Four witnesses, none of them made with this lexicon: MedPix' own
record of modality, plane and place against what its authors' captions say; the labels and mask classes of the chest and breast
sets; ROCO's UMLS concepts (found in its captions by another program); and sentences labelled by hand.

    python -m msmedcap.evaluation.facts.agreement DATA [--sentences FILE] [--roco-states FILE]
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msmedcap.data.captions import find_finding, find_side, plain_caption
from msmedcap.data.sets import Case, read_dataset
from msmedcap.evaluation.facts.claims import STATES, Claims, Key, claims
from msmedcap.evaluation.facts.comparison import compare, known
from msmedcap.evaluation.facts.lexicon import lexicon

# What a radiologist reads in each class of the chest masks.
MASK_CLASSES: Mapping[str, tuple[str, str, str]] = {
    "Airways": ("part", "lung", ""),
    "Cardiomediastinum": ("part", "mediastinum", ""),
    "Central Venous Line": ("device", "central venous line", ""),
    "Consolidation": ("finding", "consolidation", ""),
    "Endotracheal Tube": ("device", "endotracheal tube", ""),
    "Ground Glass Opacities": ("finding", "ground-glass opacity", ""),
    "Left Lung": ("part", "lung", "left"),
    "Monitoring Probes": ("device", "tubing", ""),
    "Nasogastric Tube": ("device", "nasogastric tube", ""),
    "Pleural Effusion": ("finding", "pleural effusion", ""),
    "Pneumothorax": ("finding", "pneumothorax", ""),
    "Right Lung": ("part", "lung", "right"),
    "Tubings": ("device", "tubing", ""),
}
MASK_FINDINGS: Mapping[str, tuple[str, ...]] = {
    "COVID-19": ("COVID-19",),
    "COVID-19, ARDS": ("ARDS", "COVID-19"),
    "ARDS": ("ARDS",),
    "SARS": ("SARS",),
    "Pneumocystis": ("pneumocystis",),
}
# Concepts of the UMLS that ROCO's files tag, and the lexicon's word for each.
CONCEPTS: Mapping[str, tuple[str, str]] = {
    "C0040405": ("modality", "CT"),
    "C1306645": ("modality", "X-ray"),
    "C0041618": ("modality", "ultrasound"),
    "C0002978": ("modality", "angiography"),
    "C0817096": ("part", "chest"),
    "C0006104": ("part", "brain"),
    "C0022646": ("part", "kidney"),
    "C0030274": ("part", "pancreas"),
    "C0006141": ("part", "breast"),
    "C0005682": ("part", "bladder"),
    "C0024109": ("part", "lung"),
    "C0023884": ("part", "liver"),
    "C0013687": ("finding", "effusion"),
    "C0016658": ("finding", "fracture"),
    "C0221198": ("finding", "lesion"),
    "C0006663": ("finding", "calcification"),
    "C0000833": ("finding", "abscess"),
    "C0013604": ("finding", "edema"),
    "C0019080": ("finding", "hemorrhage"),
    "C0521530": ("finding", "consolidation"),
    "C0018944": ("finding", "hematoma"),
    "C0021308": ("finding", "infarct"),
    "C0032326": ("finding", "pneumothorax"),
    "C0012737": ("finding", "dissection"),
    "C1261287": ("finding", "stenosis"),
    "C0010709": ("finding", "cyst"),
    "C0087086": ("finding", "thrombus"),
    "C0497156": ("finding", "lymphadenopathy"),
    "C0003962": ("finding", "ascites"),
    "C0032285": ("finding", "pneumonia"),
    "C0020295": ("finding", "hydronephrosis"),
    "C0018800": ("finding", "cardiomegaly"),
    "C0004144": ("finding", "atelectasis"),
    "C0006267": ("finding", "bronchiectasis"),
    "C0333641": ("finding", "atrophy"),
    "C0002940": ("finding", "aneurysm"),
    "C0020255": ("finding", "hydrocephalus"),
    "C0038257": ("device", "stent"),
    "C0027551": ("device", "needle"),
}


@dataclass(frozen=True)
class Agreement:
    """One row: of ``n`` texts whose ``fact`` the ``witness`` knows, ``said`` claim some value of it, ``right`` the same."""

    data: str
    fact: str
    witness: str
    n: int
    said: int
    right: int


def measure(data: Path) -> list[Agreement]:
    """All rows that the data sets below ``data`` allow; a set that is absent gives none."""
    rows: list[Agreement] = []
    if (data / "medpix").is_dir():
        cases = [case for split in ("train", "val", "dev") for case in read_dataset("medpix", data / "medpix", split)]
        rows += _medpix([case for case in cases if case.text])
    for name in ("cxr_labels", "busi"):
        if (data / name).is_dir():
            folders = sorted(path for path in (data / name).iterdir() if path.is_dir())
            rows.append(_labels(name, folders))
    if (data / "cxr_seg").is_dir():
        rows += _masks(data / "cxr_seg" / "masks.csv")
    roco = data / "roco_text" / "data" / "validation" / "radiology"
    if roco.is_dir():
        rows += _concepts(roco)
    return rows


def measure_states(
    labelled: Iterable[tuple[str, Mapping[str, Mapping[str, str]]]], *, states: Sequence[str] = STATES
) -> dict[str, float]:
    """States and sides of hand-labelled texts: (text, state → {finding or device: side}), of those ``states`` only.

    Gives precision and recall of (finding, state), the share of texts read without any error, and the share of sides read
    right among the findings read right.
    """
    right = said = true = whole = sides = n = 0
    for text, label in labelled:
        want = {(value, state): side for state in states for value, side in label.get(state, {}).items()}
        found = claims(text)
        got = {(value, state): "" for (_, value), state in found.states.items() if state in states}
        got |= {(c.value, c.state): c.side for c in found if c.side and (c.value, c.state) in got}
        both = want.keys() & got.keys()
        right, said, true, n = right + len(both), said + len(got), true + len(want), n + 1
        whole += want.keys() == got.keys()
        sides += sum(want[key] == got[key] for key in both)
    shares = {
        "precision": (right, said),
        "recall": (right, true),
        "texts without error": (whole, n),
        "sides right": (sides, right),
    }
    return {"texts": n, "claims": true} | {
        name: part / whole if whole else 0.0 for name, (part, whole) in shares.items()
    }


def table(rows: Sequence[Agreement]) -> str:
    """The rows in Markdown: coverage is said/n, precision right/said, recall right/n."""
    lines = ["| texts | fact | against | n | coverage | precision | recall |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        shares = (_percent(row.said, row.n), _percent(row.right, row.said), _percent(row.right, row.n))
        lines.append(f"| {row.data} | {row.fact} | {row.witness} | {row.n} | {' | '.join(shares)} |")
    return "\n".join(lines) + "\n"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _medpix(cases: Sequence[Case]) -> Iterator[Agreement]:
    read = [(case, claims(case.text)) for case in cases]
    witness = {"modality": "its record", "plane": "its record", "part": "its record, as region"}
    for fact in ("modality", "plane", "part"):
        known_cases = [(_value(fact, case.facts[fact]), found) for case, found in read if case.facts.get(fact)]
        counted = [(truth, _said(fact, found)) for truth, found in known_cases]
        yield Agreement(
            "MedPix captions",
            fact,
            witness[fact],
            len(counted),
            sum(bool(said) for _, said in counted),
            sum(truth in said for truth, said in counted),
        )
    found_words = [(find_finding(case.text), found) for case, found in read]
    named = [(value, found.keys["finding"]) for value, found in found_words if value]
    yield Agreement(
        "MedPix captions",
        "finding",
        "the target captions' finding words",
        len(named),
        sum(bool(said) for _, said in named),
        sum(value in said for value, said in named),
    )
    sides = [(find_side(case.text), found.keys["side"]) for case, found in read if find_side(case.text)]
    yield Agreement(
        "MedPix captions",
        "side",
        "the one side named",
        len(sides),
        sum(bool(said) for _, said in sides),
        sum(bool(said) and {pair[1] for pair in said} == {side} for side, said in sides),
    )


def _value(fact: str, value: str) -> Key:
    """The lexicon's word for a record's value: of a part, its region."""
    found = claims(plain_caption({fact: value})).keys[fact]
    if fact == "part":
        found &= lexicon().regions
    return min(found, key=str)


def _said(fact: str, found: Claims) -> frozenset[Key]:
    return (found.keys["part"] | found.implied_parts) & lexicon().regions if fact == "part" else found.keys[fact]


def _labels(name: str, folders: Sequence[Path]) -> Agreement:
    n = said = right = 0
    for folder in folders:
        words = folder.name.replace("_", " ")
        count = sum(1 for path in folder.iterdir() if path.is_file())
        label = {"covid19": "COVID-19"}.get(words, words)
        found = claims(words)
        judged = compare(known({"label": label}), found)
        true = judged["finding"].supported | judged["absent"].supported
        wrong = judged["finding"].omitted | judged["absent"].omitted - {"mass"}
        n, said, right = n + count, said + count * bool(len(found)), right + count * bool(true and not wrong - {"mass"})
    return Agreement(f"{name} label words", "label", "the folder's label", n, said, right)


def _masks(file: Path) -> Iterator[Agreement]:
    with file.open(encoding="utf-8", newline="") as opened:
        masks = list(csv.DictReader(opened))
    read = [(MASK_CLASSES.get(row["class"]), claims(row["class"])) for row in masks]
    exact = [({(c.kind, c.value, c.side) for c in found}, truth) for truth, found in read]
    yield Agreement(
        "cxr_seg class words",
        "finding, device, part, side",
        "the 13 mask classes",
        len(read),
        sum(bool(len(found)) for _, found in read),
        sum(truth in said and all(kind == "part" for kind, _, _ in said - {truth}) for said, truth in exact),
    )
    words = {row["image"]: row["finding"] for row in masks}
    told = [(set(MASK_FINDINGS.get(text, ())), claims(text)) for text in words.values()]
    told = [(truth, found) for truth, found in told if truth]
    yield Agreement(
        "cxr_seg finding column",
        "finding",
        "its words, read by hand",
        len(told),
        sum(bool(len(found)) for _, found in told),
        sum({c.value for c in found if c.kind == "finding"} == truth for truth, found in told),
    )


def _concepts(folder: Path) -> Iterator[Agreement]:
    texts = dict(_tabbed(folder / "captions.txt"))
    tags = {id: frozenset(row.split("\t")) for id, row in _tabbed(folder / "cuis.txt")}
    read = {id: claims(text) for id, text in texts.items()}
    for kind in ("modality", "part", "finding", "device"):
        n = said = right = 0
        for concept, (of, value) in CONCEPTS.items():
            if of != kind:
                continue
            for id in (id for id, row in tags.items() if concept in row and id in read):
                found = read[id]
                values = {c.value for c in found if c.kind == kind}
                above = {a for v in values for a in lexicon().ancestors(kind, v)}
                n, said, right = n + 1, said + bool(values), right + (value in values | above)
        count = sum(of == kind for of, _ in CONCEPTS.values())
        yield Agreement("ROCO captions", kind, f"{count} UMLS concepts tagged", n, said, right)


def _tabbed(file: Path) -> Iterator[tuple[str, str]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            id, _, rest = line.rstrip("\n").partition("\t")
            yield id, rest.strip()


def _labelled(file: Path, texts: Mapping[str, str]) -> Iterator[tuple[str, Mapping[str, Mapping[str, str]]]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield row["text"] if "text" in row else texts[row["id"]], row


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables of the data sets below the folder given."""
    parser = argparse.ArgumentParser(description="Measure the clinical lexicon on real data.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--sentences", type=Path, help="hand-labelled sentences, JSONL")
    parser.add_argument("--roco-states", type=Path, help="hand-labelled captions of ROCO by id, JSONL")
    options = parser.parse_args(arguments)
    sys.stdout.write(f"Lexicon {lexicon().version}\n\n{table(measure(options.data))}")
    roco = options.data / "roco_text" / "data" / "validation" / "radiology" / "captions.txt"
    for file, states in ((options.sentences, STATES), (options.roco_states, STATES[1:])):
        if file is not None:
            found = measure_states(_labelled(file, dict(_tabbed(roco)) if roco.is_file() else {}), states=states)
            told = ", ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in found.items())
            sys.stdout.write(f"\n{file.name}: {told}\n")


if __name__ == "__main__":
    main()
