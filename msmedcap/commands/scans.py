"""The commands that read scans."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msmedcap.commands.output import DONE, FAILED, SKIPPED, Output, check_folder, load_predictor, sentence
from msmedcap.config import UserError

if TYPE_CHECKING:
    from msmedcap.predictor import Predictor


def run_caption(args: argparse.Namespace, out: Output) -> int:
    """Caption every scan; a scan that cannot be read is reported and skipped."""
    from tqdm import tqdm

    files, skipped = _find(args.scans)
    if not files:
        return FAILED
    items = load_predictor(args).caption_many(
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
        with skipping(name, also_refused=bool(written or skipped)) as outcome:
            if item.error is not None:
                raise told_of_archive(item.error, files[item.index][1])
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
    """Write the maps of one scan and their list, and where the models can segment, what lies at each one's hottest place."""
    if args.method and args.word is None:
        raise UserError("--method says how the maps of a word are made; name the word with --word N.")
    scan = one_scan("explain", args.scan)
    if scan is None:
        return FAILED
    name, path = scan
    check_folder(args.out)
    predictor = load_predictor(args)
    from msmedcap.explain.maps import write_maps

    with skipping(name) as outcome:
        set_scan(predictor, path, args)
        maps, structures = predictor.explain(system=args.system, point=args.point, word=args.word, method=args.method)
    if outcome:
        return FAILED
    for item in write_maps(maps, args.out, structures=structures):
        low, high = item["range"]
        out.result(f"{args.out / item['file']}  grey 0-255 is {low:.4g} to {high:.4g}", item)
    if not out.json:
        for note in predictor.warnings:
            out.note(f"{name}: {note}")
    return DONE


def set_scan(predictor: Predictor, path: Path, args: argparse.Namespace) -> None:
    """Open the scan in the file ``path`` as the flags say."""
    try:
        predictor.set_scan(path, window=args.window, frame=args.frame, allow_burned_in=args.allow_burned_in)
    except ValueError as error:
        raise told_of_archive(error, path) from None


def told_of_archive(error: Exception, path: Path) -> Exception:
    """``error``, or what to say instead where the file is no picture because it is a ZIP archive.

    The page opens those; what is wrong with one is said in the same sentence here.
    """
    from msmedcap.data.scans import ScanError, open_scans
    from msmedcap.data.scans.archive import is_zip
    from msmedcap.data.scans.errors import NoPictureError

    if not isinstance(error, NoPictureError):
        return error
    with path.open("rb") as file:
        if not is_zip(file.read(4)):
            return error
    found = open_scans([path])
    if any(one.scan is not None for one in found):
        return ScanError("This is a ZIP archive with scans in it; unpack it and name the folder, or open it on the page.")
    return ScanError(found[0].error)


def one_scan(command: str, argument: str) -> tuple[str, Path] | None:
    """The name and path of the one scan that ``argument`` leads to; None where it led nowhere, which was reported."""
    files, _ = _find([argument])
    if len(files) > 1:
        raise UserError(f"{command} takes one scan, and {argument} holds {len(files)}; name one of them.")
    return files[0] if files else None


def _find(arguments: Sequence[str]) -> tuple[list[tuple[str, Path]], int]:
    """Every scan's name as reached from its argument and its path; how many arguments led nowhere (each reported)."""
    from msmedcap.data.scans import find_scans

    files: list[tuple[str, Path]] = []
    lost = 0
    for argument in arguments:
        root = Path(argument)
        with skipping(argument) as outcome:
            for path in find_scans(root):
                files.append((os.path.join(argument, path.relative_to(root)) if root.is_dir() else argument, path))
        lost += bool(outcome)
    return files, lost


@contextlib.contextmanager
def skipping(name: str, *, also_refused: bool = False) -> Iterator[list[Exception]]:
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
