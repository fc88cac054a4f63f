"""The study command: make a study, list those there are, let one more read, print the results, write the files.

Comes in: the parsed arguments of the command line. Goes out: a study in the database, and, once, the secrets of its readers and
owner; tables; files.

    python -m msmedcap study make SCANS --readers anna,ben --second-stage      # or a captions file of evaluate
    python app.py --reviews sqlite:///reviews.sqlite
    python -m msmedcap study results KEY
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from msmedcap.config import UserError
from msmedcap.systems import PRESETS, SYSTEMS

if TYPE_CHECKING:
    from msmedcap.demo.cases.library import Library
    from msmedcap.demo.review.making import Made, Plan
    from msmedcap.demo.store import NewCase, ReviewStore
    from msmedcap.predictor import Predictor

ACTIONS = ("make", "list", "reader", "results", "export")
DATABASE = "sqlite:///reviews.sqlite"


class Output(Protocol):
    """Where results and remarks go."""

    def result(self, text: str, *records: dict[str, Any]) -> None:
        """Print ``text``, or with ``--json`` each record."""

    def note(self, text: str) -> None:
        """Print a line on stderr."""


def add_study_options(command: argparse.ArgumentParser) -> None:
    """What the study command takes, besides what every command does."""
    add = command.add_argument
    add("action", choices=ACTIONS, help="what to do")
    what = (
        "make: a folder of scans, or captions of evaluate (default: made scans); results, export, reader: a study's key"
    )
    add("what", nargs="?", metavar="SOURCE|STUDY", help=what)
    url = os.environ.get("MSMEDCAP_REVIEWS") or DATABASE
    add("--reviews", default=url, metavar="URL", help="sqlite:///FILE or postgresql://… (default: %(default)s)")
    add("--title", default="Blinded review", metavar="TEXT", help="what readers see (default: %(default)s)")
    add("--readers", type=_names, default=(), metavar="A,B", help="who reads; each is given a secret")
    add("--accounts", type=Path, metavar="FILE", help="readers with secrets of their own: lines user:scrypt$…")
    add("--systems", dest="study_systems", type=_names, default=(), metavar="A,B", help="2 to 5 systems (default: all)")
    add(
        "--data",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="where a run's pictures lie (repeatable)",
    )
    add("--run", metavar="NAME", help="which of several captions files in a folder")
    add("--cases", type=int, metavar="N", help="draw so many of the cases (default: all)")
    add("--seed", type=int, metavar="N", help="draws cases, orders and letters (default: a secret one)")
    add("--repeats", type=float, default=0.1, metavar="SHARE", help="of cases shown twice (default: %(default)s)")
    add("--second-stage", action="store_true", help="after all cases show them again with maps")
    add("--preset", choices=PRESETS, help="how scans are captioned (default: fast)")
    add("--window", metavar="NAME|W,L", help="of scans: a preset such as lung, or width,level")
    add("--allow-burned-in", action="store_true", help="take pictures with text burned in")
    add("--out", type=Path, metavar="DIR", help="results, export: where files go")


def run_study(args: argparse.Namespace, out: Output) -> int:
    """Do what ``args.action`` says; returns the exit status."""
    from msmedcap.demo.store import ReviewStore, database_file

    needs = {"results": "the study's key", "export": "the study's key", "reader": "the study's key"}
    if args.action in needs and not args.what:
        raise UserError(f"study {args.action} needs {needs[args.action]}; study list shows it.")
    if args.action == "make":
        return _make(args, out)
    file = database_file(args.reviews)
    if file is not None and not file.is_file():
        raise UserError(f"There is no database {file}; check --reviews, or make a study there with study make.")
    do: dict[str, Callable[[ReviewStore, argparse.Namespace, Output], int]]
    do = {"list": _list, "reader": _reader, "results": _results, "export": _export}
    with closing(ReviewStore(args.reviews)) as store:
        return do[args.action](store, args, out)


def _make(args: argparse.Namespace, out: Output) -> int:
    from msmedcap.demo.review.making import Plan, make_study
    from msmedcap.demo.store import ReviewStore

    given: dict[str, str | None] = dict.fromkeys(args.readers)
    if args.accounts:
        from msmedcap.demo.serving.accounts import read_accounts

        given |= read_accounts(args.accounts)
    seed = {} if args.seed is None else {"seed": args.seed}
    plan = Plan(args.title, given, repeats=args.repeats, second_stage=args.second_stage, **seed)
    lost: list[str] = []

    def skipped(name: str, error: Exception) -> None:
        lost.append(name)
        out.note(f"{name}: {error}")

    systems, cases, made_with = _cases(args, plan, skipped)
    from tqdm import tqdm

    with closing(ReviewStore(args.reviews)) as store:  # before the captions: an address that is wrong is said at once
        kept = list(tqdm(cases, "cases", unit="case", disable=None, file=sys.stderr))
        made = make_study(plan, kept, systems, made_with={**made_with, "command": args.typed})
        key = store.create(made.study)
    _tell(out, key, made, args.reviews, lost)
    return 1 if lost else 0


def _tell(out: Output, key: str, made: Made, url: str, lost: list[str]) -> None:
    study = made.study
    shown = len(study.readers[0].slots)
    lines = [f"Study {key}: {len(study.cases)} cases, {len(study.systems)} systems; each reader sees {shown}."]
    lines += [f"  {name:<12} {secret}" for name, secret in made.secrets.items()]
    lines.append("These secrets are shown once; the results open with that of “owner”.")
    lines.append(f"Serve it with: python app.py --reviews {url} (the tabs Cases and Figure 4, which name systems, stay away)")
    record = {"study": key, "cases": len(study.cases), "systems": list(study.systems), "showings": shown}
    out.result("\n".join(lines), {**record, "secrets": dict(made.secrets), "skipped": lost})


def _cases(
    args: argparse.Namespace, plan: Plan, skipped: Callable[[str, Exception], None]
) -> tuple[tuple[str, ...], Iterator[NewCase], Mapping[str, Any]]:
    """The systems, their cases, and what made the captions."""
    from msmedcap.demo.review.making import cases_of_run, cases_of_scans

    if args.cases is not None and args.cases < 1:
        raise UserError("A study has at least one case; give --cases a number above 0.")
    run = _run(args)
    burned = {"skipped": skipped, "allow_burned_in": args.allow_burned_in}
    if run is None:
        from msmedcap.data.scans import find_scans

        root = Path(args.what)
        files = [(str(path.relative_to(root)) if root.is_dir() else path.name, path) for path in find_scans(root)]
        predictor = _predictor(args)
        systems = args.study_systems or predictor.systems
        _known(systems, predictor.systems)
        written = {"preset": args.preset or "fast", "window": args.window}
        drawn = {"maps": plan.second_stage, "limit": args.cases, "seed": plan.seed}
        cases = cases_of_scans(files, predictor, systems, **drawn, **written, **burned)
        return systems, cases, {"models": args.models, **written}
    if args.preset or args.window:
        raise UserError("--preset and --window are for a folder of scans; the captions of a run are there already.")
    library, name = run
    opened = library.run(name, None)
    systems = args.study_systems or opened.systems
    _known(systems, opened.systems)
    drawer = None
    if plan.second_stage:
        _known(systems, tuple(SYSTEMS))
        drawer = _predictor(args)
        _known(systems, drawer.systems)
    cases = cases_of_run(library, name, systems, limit=args.cases, seed=plan.seed, predictor=drawer, **burned)
    return systems, cases, {**opened.made_with, "run": name}


def _run(args: argparse.Namespace) -> tuple[Library, str] | None:
    """The run that the source is, and its name; None for scans."""
    from msmedcap.demo.cases.library import library
    from msmedcap.demo.cases.runs import find_runs

    if not args.what:
        made = library(None, {})
        if not made.names:
            raise UserError("Name a folder of scans, or a captions file of evaluate.")
        return made, made.names[0]
    path, data = Path(args.what), dict(args.data)
    if path.suffix == ".jsonl":
        if not path.is_file():
            raise UserError(f"There is no captions file {path}.")
        return library(path.parent, data), path.stem
    if not path.is_dir() or not [*path.glob("*.jsonl"), *path.glob("*/*.jsonl")]:
        return None
    names = list(find_runs(path))
    if args.run not in names and (args.run or len(names) > 1):
        raise UserError(f"Name one of the captions files with --run: {', '.join(names)}.")
    return library(path, data), args.run or names[0]


def _known(systems: tuple[str, ...], there: tuple[str, ...]) -> None:
    for name in systems:
        if name not in there:
            raise UserError(f"There is no system {name!r} here; choose from {', '.join(there)}.")


def _predictor(args: argparse.Namespace) -> Predictor:
    from msmedcap.predictor import load

    return load(args.models, device=args.device, load_8bit=args.load_8bit, offload=args.offload)


def _list(store: ReviewStore, args: argparse.Namespace, out: Output) -> int:
    studies = store.studies()
    if not studies:
        out.note(f"There is no study in {args.reviews}.")
    for study in studies:
        readers = [row["name"] for row in store.readers(study["id"])]
        cases = len(store.cases(study["id"]))
        record = {"study": study["key"], "title": study["title"], "created": study["created"], "cases": cases}
        said = f"{study['key']}  {study['created'][:10]}  {study['title']}: {cases} cases, readers {', '.join(readers)}"
        out.result(said, {**record, "readers": readers, "systems": store.systems(study["id"])})
    return 0


def _reader(store: ReviewStore, args: argparse.Namespace, out: Output) -> int:
    """One reader more, who sees what the next number of the design sees."""
    from msmedcap.demo.review.making import Plan, new_reader, new_secret
    from msmedcap.demo.serving.accounts import hash_password

    if len(args.readers) != 1:
        raise UserError("Name the one new reader with --readers NAME.")
    study = store.study(args.what)
    (name,), secret = args.readers, new_secret()
    plan = Plan(
        study["title"],
        {name: None},
        repeats=study["repeats"],
        second_stage=study["second_stage"],
        seed=int(study["seed"]),
    )
    counts = {"cases": len(store.cases(study["id"])), "systems": len(store.systems(study["id"]))}
    reader = new_reader(name, hash_password(secret), len(store.readers(study["id"])), plan, **counts)
    store.add_reader(study["id"], reader)
    out.result(f"  {name:<12} {secret}", {"study": study["key"], "reader": name, "secret": secret})
    return 0


def _results(store: ReviewStore, args: argparse.Namespace, out: Output) -> int:
    from msmedcap.demo.review import results, tables
    from msmedcap.demo.review.rated import read_rated

    document = results.results(read_rated(store, args.what))
    text = tables.markdown(document, command=args.typed)
    if args.out:
        from msmedcap.evaluation.reader_charts import charts

        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "results.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        (args.out / "results.md").write_text(text, encoding="utf-8")
        for name, chart in charts(document).items():
            (args.out / f"{name}.svg").write_text(chart, encoding="utf-8")
    out.result(text, document)
    return 0


def _export(store: ReviewStore, args: argparse.Namespace, out: Output) -> int:
    from msmedcap.demo.review import exports
    from msmedcap.demo.review.rated import read_rated

    if args.out is None:
        raise UserError("Name the folder for the files with --out DIR.")
    rated = read_rated(store, args.what)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, write in exports.FILES.items():
        file = args.out / name
        file.write_text(write(rated), encoding="utf-8")
        out.result(str(file), {"file": str(file), "blinded": name != exports.KEY})
    file = args.out / "study.zip"
    file.write_bytes(exports.study_zip(rated))
    out.result(str(file), {"file": str(file), "blinded": True})
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _pair(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH, such as medpix=data/medpix")
    return name, Path(path)
