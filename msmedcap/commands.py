"""What the commands do, one function for each.

Comes in: the parsed arguments of :mod:`msmedcap.__main__`. Goes out: results through :class:`Output`, files where a
command writes some, and the exit status: :data:`DONE`, :data:`SKIPPED` (some scans could not be read; each was
reported) or :data:`FAILED` (nothing was done). Imports that need PyTorch stand inside the functions: ``--help`` must
not wait for them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from msmedcap.config import UserError

if TYPE_CHECKING:
    from msmedcap.predictor import Predictor

DONE, SKIPPED, FAILED = 0, 1, 2
DATA_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Output:
    """Where results go. Everything else that is printed while a command runs, by any library, lands on stderr."""

    stdout: TextIO
    json: bool

    def result(self, text: str, *records: dict[str, Any]) -> None:
        """Print ``text`` for a reader, or with ``--json`` each of ``records`` as a line."""
        from tqdm import tqdm

        for line in [json.dumps(r) for r in records] if self.json else [text]:
            tqdm.write(line, file=self.stdout)
        self.stdout.flush()

    @staticmethod
    def note(text: str) -> None:
        """Print a line on stderr, clear of a progress bar."""
        from tqdm import tqdm

        tqdm.write(" ".join(text.split()), file=sys.stderr)


def run_caption(args: argparse.Namespace, out: Output) -> int:
    """Caption every scan; a scan that cannot be read is reported and skipped."""
    from tqdm import tqdm

    files, skipped = _find(args.scans)
    if not files:
        return FAILED
    items = _load(args).caption_many(
        (path for _, path in files),
        systems=args.systems,
        preset=args.preset,
        prompt=args.prompt,
        window=args.window,
        frame=args.frame,
        allow_burned_in=args.allow_burned_in,
    )
    quiet = True if len(files) == 1 and args.preset == "fast" else None  # None: a bar where stderr is a terminal
    written = 0
    for item in tqdm(items, total=len(files), desc="captions", unit="scan", disable=quiet, file=sys.stderr):
        name, captions = files[item.index][0], item.captions
        # What is refused on the first scan is an option; later it is that scan, and the others go on.
        with _skipping(name, also_refused=bool(written or skipped)) as outcome:
            if item.error is not None:
                raise item.error
            if not captions:
                raise UserError(" ".join(item.warnings) or "No system captioned this scan.")
        if outcome:
            skipped += 1
            continue
        notes = list(item.warnings)
        seconds = {key: round(float(value), 4) for key, value in item.seconds.items()}
        record = {"scan": name, "captions": captions, "seconds": seconds, "warnings": notes}
        width = max(map(len, captions))
        out.result("\n".join([name, *(f"  {system:<{width}}  {text}" for system, text in captions.items())]), record)
        if not out.json:
            for note in notes:
                out.note(f"{name}: {note}")
        written += 1
    return FAILED if not written else SKIPPED if skipped else DONE


def run_explain(args: argparse.Namespace, out: Output) -> int:
    """Write the maps of one scan and their list."""
    files, _ = _find([args.scan])
    if len(files) > 1:
        raise UserError(f"explain takes one scan, and {args.scan} holds {len(files)}; name one of them.")
    if not files:
        return FAILED
    name, path = files[0]
    predictor = _load(args)
    with _skipping(name) as outcome:
        predictor.set_scan(path, window=args.window, frame=args.frame, allow_burned_in=args.allow_burned_in)
        maps = predictor.maps(system=args.system, point=args.point)
    if outcome:
        return FAILED
    from msmedcap.explain.maps import write_maps

    for item in write_maps(maps, args.out):
        low, high = item["range"]
        out.result(f"{args.out / item['file']}  grey 0-255 is {low:.4g} to {high:.4g}", item)
    if not out.json:
        for note in predictor.warnings:
            out.note(f"{name}: {note}")
    return DONE


def run_demo_weights(args: argparse.Namespace, out: Output) -> int:
    """Train the demo weights, on the data folder named, else the one beside the checkout, else on phantoms alone."""
    if args.data is not None and not args.data.is_dir():
        raise UserError(f"The data folder {args.data} does not exist; name one that holds medpix, cxr_labels and so on.")
    if args.models != "demo" or args.device not in (None, "cpu") or args.load_8bit:
        raise UserError("demo-weights makes the demo models on the CPU; leave out --models, --device and --load-8bit.")
    from msmedcap.training import recipe

    data = args.data or (DATA_BESIDE if DATA_BESIDE.is_dir() else None)
    out.note(f"Training on {data or 'made scans alone'}.")
    recipe.build(data, args.out, args.work, rows=args.rows)
    out.result(f"The weights are in {args.out}.", {"out": str(args.out)})
    return DONE


def run_evaluate(args: argparse.Namespace, out: Output) -> int:
    """Caption and score every data set named, and print the scores of each system on each."""
    from tqdm import tqdm

    from msmedcap.data.sets import read_dataset
    from msmedcap.evaluation import fact_table

    cases = {name: read_dataset(name, path, args.split) for name, path in args.data}
    if len(cases) < len(args.data):
        raise UserError("A data set is named twice; evaluate takes each name once.")
    predictor = _load(args)
    from msmedcap.checkpoints import folder_of

    made_with = {"models": args.models, "weights": fact_table.weights_digest(folder_of(args.models)), "preset": "fast"}
    kept: dict[str, list[dict]] = {}
    for name, found in cases.items():
        file = args.out / f"{name}-{args.split}.jsonl"
        rows = fact_table.caption_cases(predictor, found, file=file, made_with=made_with)
        kept[name] = list(tqdm(rows, total=len(found), desc=name, unit="scan", disable=None, file=sys.stderr))
    if len(kept) > 1:
        kept["+".join(kept)] = [row for rows in kept.values() for row in rows]
    records = [
        {"data": name, "split": args.split, "system": system, **fact_table.score_rows(rows, system)}
        for name, rows in kept.items()
        for system in predictor.systems
    ]
    table = fact_table.table(records, f"Facts stated right, {args.models} weights")
    document = fact_table.finite({"made_with": made_with, "lexicon": fact_table.LEXICON_VERSION, "scores": records})
    (args.out / "scores.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (args.out / "scores.md").write_text(table, encoding="utf-8")
    out.result(table, *document["scores"])
    return DONE


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


def sentence(error: Exception) -> str:
    """One line for the user: our own errors say it already, others name themselves."""
    from msmedcap.data.scans import ScanError

    if isinstance(error, (UserError, ScanError)):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}."
    said = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {said} (run with MSMEDCAP_DEBUG=1 for the traceback)"


def _find(arguments: Sequence[str]) -> tuple[list[tuple[str, Path]], int]:
    """Every scan's name as reached from its argument and its path; how many arguments led nowhere (each reported)."""
    from msmedcap.data.scans import find_scans

    files: list[tuple[str, Path]] = []
    lost = 0
    for argument in arguments:
        root = Path(argument)
        with _skipping(argument) as outcome:
            for path in find_scans(root):
                files.append((os.path.join(argument, path.relative_to(root)) if root.is_dir() else argument, path))
        lost += bool(outcome)
    return files, lost


def _load(args: argparse.Namespace) -> Predictor:
    from msmedcap import predictor

    return predictor.load(args.models, device=args.device, load_8bit=args.load_8bit, offload=args.offload)


@contextlib.contextmanager
def _skipping(name: str, *, also_refused: bool = False) -> Iterator[list[Exception]]:
    """Report what goes wrong with one scan in a line and hand it out; a UserError passes unless ``also_refused``."""
    outcome: list[Exception] = []
    try:
        yield outcome
    except Exception as error:
        refused = isinstance(error, UserError) and not also_refused
        if refused or isinstance(error, BrokenPipeError) or os.environ.get("MSMEDCAP_DEBUG") == "1":
            raise
        said = sentence(error)
        Output.note(said if said.startswith(f"{name}: ") else f"{name}: {said}")
        outcome.append(error)
