"""The commands that make, publish and fetch model folders, and those that fetch and pack data sets."""

from __future__ import annotations

import argparse

from msmedcap.commands.output import DONE, Output
from msmedcap.config import UserError


def run_convert(args: argparse.Namespace, out: Output) -> int:
    """Convert public checkpoints and print what went where, a line for each group of weights."""
    from msmedcap.convert import convert

    ledger = convert(args.kind, args.source, args.out, sam_size=args.sam_size)
    out.result(ledger.table(), *ledger.rows())
    return DONE


def run_push(args: argparse.Namespace, out: Output) -> int:
    """Publish a model folder and print where it lies."""
    from msmedcap import hub

    where = hub.push(args.folder, args.repo, private=args.private)
    out.result(where, {"pushed": where})
    return DONE


def run_pull(args: argparse.Namespace, out: Output) -> int:
    """Fetch a model folder, every file checked by its hash."""
    from msmedcap import hub

    folder = hub.pull(args.repo, args.out)
    out.result(f"The models are in {folder}; use them with: --models {folder}", {"pulled": str(folder)})
    return DONE


def run_download(args: argparse.Namespace, out: Output) -> int:
    """Fetch a public data set from its home, or list those there are."""
    from msmedcap.data.download import SOURCES, download

    if not args.dataset:
        for name, source in SOURCES.items():
            told = {"name": name, "title": source.title, "home": source.home, "terms": source.terms, "by_hand": source.by_hand}
            out.result(f"{name}: {source.title} ({source.terms}). {source.by_hand or source.home}", told)
        return DONE
    if args.out is None:
        raise UserError("Name the folder for the data with --out DIR.")
    folder = download(args.dataset, args.out, url=args.url)
    out.result(f"The data are in {folder}.", {"dataset": args.dataset, "out": str(folder)})
    return DONE


def run_shards(args: argparse.Namespace, out: Output) -> int:
    """Write a data set as WebDataset shards, or check shards against their hashes."""
    from msmedcap.data.shards import check_shards, write_shards

    if args.check:
        if wrong := check_shards(args.out):
            raise UserError(f"{' '.join(wrong)} Write the shards again: whole ones are kept.")
        out.result(f"Every shard in {args.out} is as it was written.", {"checked": str(args.out)})
        return DONE
    if args.data is None:
        raise UserError("Name the data set with --data NAME=PATH.")
    name, path = args.data
    from msmedcap.data.sets import read_dataset

    write_shards(read_dataset(name, path, args.split), args.out, size=args.size, anonymous=args.anonymous)
    out.result(f"The shards are in {args.out}.", {"dataset": name, "split": args.split, "out": str(args.out)})
    return DONE
