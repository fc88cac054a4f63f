"""The commands that train."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from msmedcap.commands.output import DONE, Output
from msmedcap.config import UserError

DATA_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"


def run_train(args: argparse.Namespace, out: Output) -> int:
    """Run one training of a stage, or list the presets there are."""
    if args.list:
        from msmedcap.training.presets import PRESETS, describe

        for name, config in PRESETS.items():
            if args.task in (None, config.task):
                out.result(f"{name}: {describe(config)}", {"name": name, "task": config.task, "what": describe(config)})
        return DONE
    if args.task is None or args.config is None:
        raise UserError("Name a task and a training, such as: train alignment --config demo-alignment-clip (train --list has all).")
    if args.load_8bit or args.offload:
        raise UserError("A training reads the language model whole; leave out --load-8bit and --offload.")
    from msmedcap.training import train
    from msmedcap.training.processes import place

    sets = [*([f"models={args.models}"] if args.models else ()), *args.set]
    folders = {"out": args.out or "", "out_models": args.out_models or ""}
    outcome = train.run(args.task, args.config, sets, **folders, device=args.device, estimate=args.estimate)
    if outcome is not None and place()[0] == 0:
        losses = ", ".join(f"{name} {value:.4g}" for name, value in outcome.val.items())
        told = f"{outcome.steps} steps; the outcome is in {outcome.weights}" + (f"; on other pictures: {losses}" if losses else "")
        out.result(f"{told}.", dataclasses.asdict(outcome))
    return DONE


def run_demo_weights(args: argparse.Namespace, out: Output) -> int:
    """Train the demo weights, on the data folder named, else the one beside the checkout, else on phantoms alone."""
    if args.data is not None and not args.data.is_dir():
        raise UserError(f"The data folder {args.data} does not exist; name one that holds medpix, cxr_labels and so on.")
    if args.models != "demo" or args.device not in (None, "cpu") or args.load_8bit:
        raise UserError("demo-weights makes the demo models on the CPU; leave out --models, --device and --load-8bit.")
    from msmedcap.evaluation.segmentation import fit_presence
    from msmedcap.evaluation.unlike import fit_unlike
    from msmedcap.training import recipe, segmenting

    data = args.data or (DATA_BESIDE if DATA_BESIDE.is_dir() else None)
    out.note(f"Training on {data or 'made scans alone'}.")
    recipe.build(data, args.out, args.work, rows=args.rows)
    segmenting.demo_segmenter(data, args.out, args.work)
    fit_presence(args.out, data)
    fit_unlike(args.out, data, work=args.work)
    out.result(f"The weights are in {args.out}.", {"out": str(args.out)})
    return DONE
