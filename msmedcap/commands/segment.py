"""The command that segments: a prompt on a scan → masks, a name, and files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from msmedcap.commands.output import DONE, FAILED, Output, check_folder, load_predictor
from msmedcap.commands.scans import one_scan, set_scan, skipping
from msmedcap.data.classes import load_classes


def run_segment(args: argparse.Namespace, out: Output) -> int:
    """Segment what is prompted in one scan and write the masks; ``--json`` prints the contract's five keys.

    Files are told by their full path, so that they are found from anywhere; ``segment.json`` names them relative to itself.
    """
    book = None if args.classes is None else load_classes(args.classes)
    scan = one_scan("segment", args.scan)
    if scan is None:
        return FAILED
    name, path = scan
    check_folder(args.out)
    predictor = load_predictor(args)
    if book is not None:
        new = predictor.add_classes(book)
        told = f"Named from their descriptions alone: {', '.join(new)}."
        out.note(told if new else f"{args.classes} holds no class that is new to this segmenter.")
    with skipping(name) as outcome:
        set_scan(predictor, path, args)
        found = predictor.segment(args.point or (), args.box)
    if outcome:
        return FAILED
    (record,) = predictor.write_masks([found], args.out, dicom_seg=args.dicom_seg)
    for key in ("binary_mask", "semantic_mask"):
        if record[key] is not None:
            record[key] = str(Path(args.out, record[key]).absolute())
    out.result(_told(record, found.area_px, found.area_mm2), record)
    if not out.json:
        for note in (*predictor.warnings, found.area_note):
            if note:
                out.note(f"{name}: {note}")
    return DONE


def _told(record: dict[str, Any], pixels: int, square_mm: float | None) -> str:
    """The answer for a reader."""
    label = "no name" if record["label"] is None else f"{record['label']} ({record['score']:.0%})"
    area = f"{pixels} pixels" + ("" if square_mm is None else f", {square_mm:.4g} mm²")
    lines = [f"{label}, {area}"]
    if record["present"]:
        lines.append("also present: " + ", ".join(f"{p['label']} ({p['score']:.0%})" for p in record["present"]))
    lines += [record[key] for key in ("binary_mask", "semantic_mask") if record[key]]
    return "\n".join(lines)
