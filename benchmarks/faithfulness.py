"""The page of the maps' measures: do the maps of words show where the model looked?

    python -m benchmarks.faithfulness --data ../shared/data/cxr_seg

What was judged is kept line by line in ``--raw``: a run that was stopped goes on where it was, ``--page-only`` writes the page
of what is there. The first system is the one the default method is chosen with.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
from pathlib import Path

import torch

from benchmarks.machine import described
from msmedcap import checkpoints
from msmedcap.evaluation.faithfulness import Plan, Study, about, choose, summary, write_json, write_page
from msmedcap.explain.unlike import FACTS
from msmedcap.explain.words import METHODS, TOGETHER


def main() -> None:
    """Judge what is not judged yet and write the page and its JSON."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    arguments.add_argument("--models", default="demo")
    arguments.add_argument("--systems", default="MSMedCap,BLIP2,SAM-BLIP2")
    arguments.add_argument("--data", type=Path, metavar="DIR", help="the chest X-rays with masks; without it phantoms alone")
    many = "phantoms of the reported half whose finding is seen; the rest in proportion"
    arguments.add_argument("--cases", type=int, default=16, metavar="N", help=many)
    arguments.add_argument("--methods", default=",".join(METHODS), metavar="NAMES", help="some of them")
    arguments.add_argument("--raw", type=Path, default=Path("runs/faithfulness.jsonl"), metavar="FILE")
    arguments.add_argument("--page-only", action="store_true", help="judge nothing, write the page of what is there")
    arguments.add_argument("--note", action="append", default=[], metavar="TEXT", help="a paragraph for the page's top")
    arguments.add_argument("--out", type=Path, default=Path("docs/faithfulness.md"))
    arguments.add_argument("--json", type=Path, metavar="FILE", help="where the numbers go (default: beside the models)")
    args = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    models = checkpoints.load(args.models, device=torch.device("cpu"))
    args.raw.parent.mkdir(parents=True, exist_ok=True)
    study = Study(models, args.methods.split(","), args.raw, Plan.of(args.cases))
    systems = args.systems.split(",")
    for system in () if args.page_only else systems:
        study.phantoms(system)
        if args.data is not None:
            study.chest(system, args.data)
        study.sanity(system)
    default = choose(study.judged, systems[0], among=[method for method in METHODS if method != TOGETHER])
    found = summary(study.judged, study.redrawn, default=default, best=choose(study.judged, systems[0]))
    found["date"] = str(datetime.date.today())
    found["kinds"] = study.kinds()
    write_json(found, args.json or checkpoints.folder_of(args.models) / "faithfulness.json")
    facts = checkpoints.folder_of(args.models) / FACTS
    unlike = json.loads(facts.read_text(encoding="utf-8")) if facts.is_file() else None
    told = [*about(Plan.of(args.cases)), f"{datetime.date.today()} · {described(torch.device('cpu'))}", *args.note]
    write_page(found, args.out, about=told, unlike=unlike)


if __name__ == "__main__":
    main()
