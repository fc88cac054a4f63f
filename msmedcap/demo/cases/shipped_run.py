"""The run the page shows when it is given none: what the shipped weights say of made scans, one of every kind there is.

Comes in: a predictor, when the run is made (``assets/evaluation/make.py``); later only the committed captions file. Goes out: the
captions file, and the scans behind it, which are no files: each is made again, to the bit, when it is asked for.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msmedcap.checkpoints import folder_of
from msmedcap.data.phantoms import combinations, make_phantom
from msmedcap.data.phantoms.examples import save_dicom
from msmedcap.data.scans import ScanError
from msmedcap.demo.cases.runs import Entry
from msmedcap.evaluation.run import weights_digest

if TYPE_CHECKING:
    from msmedcap.predictor import Predictor

SHIPPED = Path(__file__).parents[3] / "assets" / "evaluation" / "made-scans.jsonl"
NAME = "Made scans, shipped weights"
_SEED = 10**12  # of the run's phantoms; far from those that training draws
_PHANTOM = "phantom-"


@functools.lru_cache(maxsize=64)  # some megabytes; a page of pictures asks for twenty
def phantom_scan(number: int) -> tuple[bytes, str, Mapping[str, str]]:
    """The DICOM file, true caption and facts of the run's phantom ``number``, one for every kind of phantom there is."""
    what = combinations()[number]
    made = make_phantom(_SEED + number, modality=what.modality, part=what.part, plane=what.plane, finding=what.finding)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scan.dcm"
        save_dicom(made, file)
        return file.read_bytes(), made.caption, {name: value for name, value in made.facts.items() if value}


def shipped_picture(entry: Entry) -> bytes:
    """The scan of a case of the shipped run; raises ``ScanError`` where the case is none of its."""
    number = entry.id.removeprefix(_PHANTOM)
    if not entry.id.startswith(_PHANTOM) or not number.isdecimal() or int(number) >= len(combinations()):
        raise ScanError("This case is not among the made scans.")
    return phantom_scan(int(number))[0]


def write_shipped_run(predictor: Predictor, file: Path) -> None:
    """Caption every made scan with ``predictor`` into the captions file ``file``; what was there is replaced."""
    made_with = {"models": predictor.models, "weights": weights_digest(folder_of(predictor.models)), "preset": "fast"}
    lines: list[Mapping[str, object]] = [{"made_with": {**made_with, "data": "phantoms"}}]
    for number in range(len(combinations())):
        data, caption, facts = phantom_scan(number)
        captions = predictor.fresh().set_scan(data).captions()
        name = f"{_PHANTOM}{number}"
        row = {"id": name, "group": name, "source": "phantoms", "image": None, "facts": facts, "references": [caption]}
        lines.append({**row, "captions": captions, "error": None})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
