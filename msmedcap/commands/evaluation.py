"""The commands that measure."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msmedcap.commands.output import DONE, Output, load_predictor
from msmedcap.config import UserError

if TYPE_CHECKING:
    from msmedcap.data.sets import Case
    from msmedcap.evaluation.run import Captioned


def run_evaluate(args: argparse.Namespace, out: Output) -> int:
    """Caption every data set named (or take captions that are there), score them and print the scores of each system."""
    if bool(args.data) == bool(args.captions):
        raise UserError("Name either the data to caption (--data NAME=PATH --split SPLIT) or captions to score (--captions FILE).")
    if args.data and not args.split:
        raise UserError("Name the split to caption with --split, such as dev or test.")
    from msmedcap.evaluation import captions_file, measures, report, run, scores

    wanted = measures.wanted(args.metrics, args.neural, device=args.device, cache=args.out / "neural.sqlite")
    found: Sequence[Captioned] | None
    if args.captions:
        found = [run.Captioned(captions_file.read(file)) for file in args.captions]
    else:
        found = _caption(args)
    if found is None:  # not the first of several processes
        return DONE
    document = scores.score_files([(item.file, item.ids) for item in found], systems=args.systems, wanted=wanted)
    table = report.write(document, args.out, "Scores", command=args.typed)
    out.result(table, *document["scores"])
    return DONE


def _caption(args: argparse.Namespace) -> Sequence[Captioned] | None:
    from msmedcap.checkpoints import folder_of
    from msmedcap.evaluation import run

    data = [run.DataSet(name, path, args.split, args.selection, args.clean, args.limit) for name, path in args.data]
    name = args.models if args.models in ("demo", "full") else Path(args.models).name
    made_with = {"models": name, "weights": run.weights_digest(folder_of(args.models))}
    args.device = run.own_device(args.device)
    return run.caption_datasets(
        load_predictor(args), data, out=args.out, made_with=made_with, systems=args.systems, preset=args.preset
    )


def run_table1(args: argparse.Namespace, out: Output) -> int:
    """Write Table 1, the paper's rows beside ours, from the scores of ``evaluate``, and print it."""
    from msmedcap.evaluation import table1
    from msmedcap.evaluation.table1 import formats

    general = {"general": args.general} if args.general else {}
    table = table1.rows_from(table1.read(args.scores), data=args.data, split=args.split, **general)
    files = table1.write(args.out, table, command=args.typed)
    out.result(formats.markdown(table, command=args.typed), *({"file": str(file)} for file in files))
    return DONE


def run_figure4(args: argparse.Namespace, out: Output) -> int:
    """Draw Fig. 4 of chosen cases of a captions file, or of the paper's own where the data named hold them."""
    from msmedcap.evaluation import captions_file, figure4

    if args.captions:
        if len(args.data) != 1:
            raise UserError("Name the one data set that the captions are of with --data NAME=PATH.")
        ((_, path),) = args.data
        chosen = {"rule": args.rule, "count": args.count, "ids": args.ids, "systems": args.systems or ()}
        cases, note = figure4.captioned_cases(captions_file.read(args.captions), path, **chosen)
    else:
        cases, note = figure4.paper_cases(dict(args.data), lambda found: _said(args, found))
    files = figure4.draw(cases, args.out, note=note, columns=args.columns, command=args.typed)
    out.result(f"{note}\n" + "\n".join(map(str, files)), *({"file": str(file)} for file in files))
    return DONE


def _said(args: argparse.Namespace, cases: Sequence[Case]) -> list[dict[str, str]]:
    """The captions of ``cases`` by the systems asked for; what cannot be read stops the figure."""
    said = []
    for item in load_predictor(args).caption_many((case.read() for case in cases), systems=args.systems, preset=args.preset):
        if item.error is not None:
            raise item.error
        said.append(item.captions)
    return said
