"""The page of SEG-SAM's validation: segmenters of a models folder, and others trained on its encoder, on held-out pictures.

    python -m benchmarks.segmentation --system SEG-SAM=checkpoints/demo/segmenter --system SAM

``--system NAME=DIR`` may be given several times; the same name again is another seed. ``SAM`` stands for the prompt half of the
models folder as it is. The first system is the one whose goals and classes are told.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from pathlib import Path

import torch

from msmedcap import config as configs
from msmedcap.checkpoints import folder_of
from msmedcap.config import ModelsConfig, SegmenterConfig, UserError
from msmedcap.data.classes import load_classes
from msmedcap.data.segments import read
from msmedcap.evaluation.segmentation import judge, write_page
from msmedcap.models.frozen import freeze
from msmedcap.models.sam import SamEncoder, SamPrompts
from msmedcap.models.segmenter import Segmenter
from msmedcap.models.weights import empty, load_into
from msmedcap.segmenters import load_segmenter

AS_IS = "SAM"


def published(folder: Path, models: ModelsConfig) -> Segmenter:
    """The models folder's SAM as it is, without names."""
    prompts = load_into(empty(lambda: SamPrompts(models.sam)), folder / "sam_prompts")
    config = SegmenterConfig(classes=("object",), summarised=1, semantics=False, text=False)
    return Segmenter(config, models.sam, None).start_from(prompts).eval()


def main() -> None:
    """Judge the systems and write the page."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    arguments.add_argument("--models", default="demo")
    arguments.add_argument("--system", action="append", required=True, metavar="NAME=DIR")
    arguments.add_argument("--encoder", type=Path, metavar="DIR", help="the SAM that was trained with them (default: the models')")
    arguments.add_argument("--data", default="cxr_seg=../shared/data/cxr_seg", metavar="SET=PATH")
    arguments.add_argument("--split", default="val")
    arguments.add_argument("--out", type=Path, default=Path("docs/segmentation.md"))
    arguments.add_argument("--raw", type=Path, metavar="FILE", help="every answer as a line of JSON")
    args = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = folder_of(args.models)
    models = configs.read(ModelsConfig, folder / "config.json")
    encoder = freeze(load_into(empty(lambda: SamEncoder(models.sam)), args.encoder or folder / "sam"))
    systems: dict[str, list[Segmenter]] = {}
    for told in args.system:
        name, equals, where = told.partition("=")
        if not equals and name != AS_IS:
            raise UserError(f"{told!r} is not NAME=DIR; only {AS_IS} stands alone.")
        made = load_segmenter(Path(where), models.sam) if equals else published(folder, models)
        systems.setdefault(name, []).append(made)
    name, _, path = args.data.partition("=")
    rows = [row for split in args.split.split("+") for row in read(name, path, load_classes(), split=split)]
    with torch.no_grad():
        results = judge(rows, encoder, models.view("sam"), systems)
    pictures, objects = len({a.picture for a in results.answers}), len({(a.picture, a.number) for a in results.answers})
    about = [
        f"{pictures} pictures of {name} (split {args.split.replace('+', ' and ')}) with {objects} objects of a known class. Each "
        "object is asked for by its box, by a click at its centre-most point and by a click anywhere in it. Means over objects, "
        "95 % intervals by picture group; seeds are averaged first.",
        f"Made by `python -m benchmarks.segmentation {shlex.join(sys.argv[1:])}`.",
    ]
    write_page(results, args.out, main=next(iter(systems)), about=about, raw=args.raw)


if __name__ == "__main__":
    main()
