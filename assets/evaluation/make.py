"""The made scans of the page's tab "Cases": captions them, or writes them as a data set that any command takes.

    .venv/bin/python assets/evaluation/make.py [--models demo]    # writes made-scans.jsonl beside itself: when weights change
    .venv/bin/python assets/evaluation/make.py --scans DIR        # writes DIR/*.dcm and DIR/cases.jsonl: --data table=DIR
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from msmedcap import load
from msmedcap.data.phantoms import combinations
from msmedcap.demo.cases.shipped_run import SHIPPED, phantom_scan, write_shipped_run


def main() -> None:
    """Write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="demo")
    parser.add_argument("--scans", type=Path, metavar="DIR")
    args = parser.parse_args()
    if args.scans:
        write_scans(args.scans)
    else:
        write_shipped_run(load(args.models, device="cpu"), SHIPPED)


def write_scans(folder: Path) -> None:
    """The scans as DICOM files and, in ``cases.jsonl``, what is true of them, all in the split ``test``."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "cases.jsonl").open("w", encoding="utf-8") as cases:
        for number in range(len(combinations())):
            data, caption, facts = phantom_scan(number)
            name = f"phantom-{number}"
            (folder / f"{name}.dcm").write_bytes(data)
            row = {"image": f"{name}.dcm", "caption": caption, "split": "test", "id": name, "group": name, "facts": dict(facts)}
            cases.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
