"""``python -m benchmarks``: one command, one table. Every ratio comes from one run in which both sides alternate.

    python -m benchmarks                      everything at true size (about 40 minutes on two cores, 16 GB of memory)
    python -m benchmarks --only demo_scale    one group
    python -m benchmarks --quick              everything at test size, to see that it runs
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import logging
import os
import sys
from pathlib import Path

GROUPS = ("machine", "pipelines", "decoding", "sam_encoder", "stage1", "eight_bit", "demo_scale", "caption_metrics")


def main() -> int:
    """Measure, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed and memory against the peers, as ratios.")
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="GROUP", help=f"some of {', '.join(GROUPS)}")
    parser.add_argument("--device", default=None, help="cpu or cuda (default: cuda if there is one)")
    parser.add_argument("--quick", action="store_true", help="test size: shows that everything runs, says nothing of speed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON lines")
    args = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(level=logging.ERROR)
    import torch

    from benchmarks import machine

    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    size = "test size" if args.quick else "true size"
    print(f"{datetime.date.today()} · {machine.described(device)} · {size}\n", flush=True)
    print(heading(), flush=True)
    for name in args.only or GROUPS:
        for row in importlib.import_module(f"benchmarks.{name}").rows(device=device, quick=args.quick):
            print(line(row), flush=True)
            if args.json:
                with args.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({**vars(row), "ratio": row.ratio}) + "\n")
    return 0


def heading() -> str:
    """The Markdown table's two first lines."""
    return "| group | what | ours | peer | ours / peer | goal | note |\n|---|---|---|---|---|---|---|"


def line(row: object) -> str:
    """One row as Markdown."""
    from benchmarks.timing import Row

    assert isinstance(row, Row)
    peer = "" if row.peer is None else f"{row.peer:.3g} {row.unit}"
    ratio = "" if row.ratio is None else f"**{row.ratio:.2f}**"
    return f"| {row.group} | {row.what} | {row.ours:.3g} {row.unit} | {peer} | {ratio} | {row.goal} | {row.note} |"


if __name__ == "__main__":
    sys.exit(main())
