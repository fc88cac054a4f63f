"""The command line: ``python -m msmedcap caption | explain | segment | evaluate | convert | push | pull | demo-weights``.

Comes in: file names and flags. Goes out: results on stdout (with ``--json`` one JSON object per line and nothing
else); progress, warnings and errors on stderr. Exit status 0: all done; 1: some scans were skipped, each with a line
that says why; 2: nothing could be done, with one line that says what to do. ``MSMEDCAP_DEBUG=1`` shows the traceback of
what was not foreseen. What the commands do is :mod:`msmedcap.commands`.

    python -m msmedcap caption SCAN --json
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from msmedcap import commands
from msmedcap.config import UserError, parse_point
from msmedcap.data.prompts import parse_box, parse_click
from msmedcap.demo.review import command as review
from msmedcap.systems import PRESETS, SAM_SIZES, SYSTEMS

T = TypeVar("T")
# argparse takes a value that begins with a minus sign for a flag, unless it is one plain number.
_COORDINATES, _MINUS = frozenset(("--point", "--box", "--window")), re.compile(r"-\.?\d")
DESCRIPTION = "Captions of medical scans. Research demonstration, not for clinical use."


class _Parser(argparse.ArgumentParser):
    """argparse with one line per mistake; its own ``error`` prints the whole usage first."""

    def error(self, message: str) -> NoReturn:
        self.exit(commands.FAILED, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser(prog="python -m msmedcap", description=DESCRIPTION)
    choices = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    caption = _command(choices, "caption", commands.run_caption, "write the captions of the three systems")
    caption.add_argument("scans", nargs="+", metavar="SCAN", help="a DICOM, PNG, JPEG ... file, or a folder of them")
    caption.add_argument("--systems", type=_names, metavar="A,B", help=f"some of {','.join(SYSTEMS)} (default: all)")
    caption.add_argument("--preset", choices=PRESETS, default="fast", help="greedy, or the authors' beams")
    caption.add_argument("--prompt", metavar="TEXT", help="what the caption continues (default: the preset's prompt)")
    _scan_flags(caption)

    explain = _command(choices, "explain", commands.run_explain, "draw where a system looked, as PNGs")
    explain.add_argument("scan", metavar="SCAN", help="a DICOM, PNG, JPEG ... file")
    explain.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder for the PNGs and maps.json")
    explain.add_argument("--system", default="MSMedCap", metavar="NAME", help="whose maps (default: %(default)s)")
    explain.add_argument("--point", type=_place(parse_point), metavar="X,Y", help="also SAM's similarity to this pixel")
    said = "also where it looked for the Nth word (from 0) of its caption"
    explain.add_argument("--word", type=_word, metavar="N", help=said)
    ways = "gradient, sensitivity, attention, rollout, occlusion or masking (default: the page's)"
    explain.add_argument("--method", metavar="NAME", help=f"how the word's maps are made: {ways}")
    _scan_flags(explain)

    _segment(choices)
    _training(choices)
    _measuring(choices)
    _model_folders(choices)
    _data_sets(choices)
    return top


def _segment(choices: Any) -> None:
    """The command that segments."""
    segment = _command(choices, "segment", commands.run_segment, "the mask and the name of what is prompted in a scan")
    segment.add_argument("scan", metavar="SCAN", help="a DICOM, PNG, JPEG ... file")
    place = "a place on the structure, or with ,0 beside it, in the picture's pixels (repeatable)"
    segment.add_argument("--point", type=_place(parse_click), action="append", metavar="X,Y[,0|1]", help=place)
    segment.add_argument("--box", type=_place(parse_box), metavar="X0,Y0,X1,Y1", help="a box around the structure")
    segment.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder for the masks and segment.json")
    further = "also name the classes of this JSON file that are new to the segmenter"
    segment.add_argument("--classes", type=Path, metavar="FILE", help=further)
    segment.add_argument("--dicom-seg", action="store_true", help="also write DICOM-SEG, and the anonymous image it is about")
    _scan_flags(segment)


def _training(choices: Any) -> None:
    """The commands that make weights."""
    study = _command(choices, "study", review.run_study, "make a blinded reader study, add readers, print its results")
    review.add_study_options(study)

    demo = _command(choices, "demo-weights", commands.run_demo_weights, "rebuild the shipped weights (resumable)")
    beside = "a folder of data sets (default: ../shared/data beside the checkout, else made phantoms alone)"
    demo.add_argument("--data", type=Path, metavar="DIR", help=beside)
    demo.add_argument("--out", type=Path, default=Path("checkpoints/demo"), metavar="DIR", help="default: %(default)s")
    demo.add_argument("--work", type=Path, default=Path("runs/demo"), metavar="DIR", help="default: %(default)s")
    demo.add_argument("--rows", type=Path, metavar="DIR", help="also train Table 1's rows, into this model folder")

    train = _command(choices, "train", commands.run_train, "train one stage of the paper (resumable; also by several processes)")
    tasks = ("alignment", "captioning", "segmentation")
    train.add_argument("task", nargs="?", choices=tasks, help="stage 1 of a branch, stage 2 of a system, SEG-SAM")
    train.set_defaults(models=None)
    train.add_argument("--config", metavar="FILE|NAME", help="a JSON file, or the name of a preset")
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as loop.lr=1e-4 (repeatable)")
    train.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default: the preset's)")
    train.add_argument("--out-models", type=Path, metavar="DIR", help="after captioning, a whole model folder besides")
    train.add_argument("--estimate", action="store_true", help="say how much there is to do, and stop")
    train.add_argument("--list", action="store_true", help="the presets there are")


def _measuring(choices: Any) -> None:
    """The commands that measure and show what was measured."""
    evaluate = _command(choices, "evaluate", commands.run_evaluate, "caption data and score the captions (resumable)")
    evaluate.add_argument("--data", type=_dataset, action="append", metavar="NAME=PATH", help="to caption (repeatable)")
    evaluate.add_argument("--split", metavar="SPLIT", help="such as dev or test")
    evaluate.add_argument("--captions", type=Path, nargs="+", metavar="FILE", help="score these instead, without a model")
    evaluate.add_argument("--out", type=Path, required=True, metavar="DIR", help="for captions, scores.json, scores.md")
    evaluate.add_argument("--systems", type=_names, metavar="A,B", help="some of the folder's systems (default: all)")
    evaluate.add_argument("--preset", choices=PRESETS, default="fast", help="greedy, or the authors' beams")
    evaluate.add_argument("--selection", default="", metavar="NAME", help="a named selection, such as paper-roco-test")
    evaluate.add_argument("--clean", action="store_true", help="take figure labels and the like out of the references")
    evaluate.add_argument("--limit", type=_count, metavar="N", help="only the first N cases of each data set")
    kinds = "some of facts,clinical,BLEU,METEOR,ROUGE-L,CIDEr,ROUGE-1 (default: all that Java lets run)"
    evaluate.add_argument("--metrics", type=_names, metavar="A,B", help=kinds)
    models = "some of bertscore,bartscore,bleurt,imageclef-bertscore,imageclef-bleurt, each also as NAME=MODEL"
    evaluate.add_argument("--neural", type=_names, default=(), metavar="A,B", help=models)

    table = _command(choices, "table1", commands.run_table1, "write Table 1, the paper's rows beside ours")
    table.add_argument("--scores", type=Path, nargs="+", required=True, metavar="FILE", help="scores.json of evaluate")
    table.add_argument("--out", type=Path, required=True, metavar="DIR", help="for table1.md, .csv, .tex, .png and .pdf")
    table.add_argument("--data", metavar="NAME", help="the data set (default: the one of most cases)")
    table.add_argument("--split", metavar="SPLIT", help="its split")
    table.add_argument("--general", default="", metavar="TEXT", help="what the general pictures (G) were")

    figure = _command(choices, "figure4", commands.run_figure4, "draw Fig. 4: scans, true captions, the systems' captions")
    figure.add_argument(
        "--data", type=_dataset, action="append", required=True, metavar="NAME=PATH",
        help="the captions' data set; without --captions, where to look for the paper's own cases (repeatable)",
    )
    figure.add_argument("--captions", type=Path, metavar="FILE", help="a captions file of evaluate")
    figure.add_argument("--out", type=Path, required=True, metavar="DIR", help="for figure4.png, .pdf and .md")
    figure.add_argument("--ids", type=_names, default=(), metavar="A,B", help="these cases of the captions file")
    rules = "or the most telling: best and worst for MSMedCap beside BLIP2, or drawn at random (default: %(default)s)"
    figure.add_argument("--rule", choices=("both", "best", "failures", "random"), default="both", help=rules)
    figure.add_argument("--count", type=_count, default=3, metavar="N", help="cases of each kind (default: %(default)s)")
    figure.add_argument("--columns", type=_count, default=3, metavar="N", help="scans side by side (default: %(default)s)")
    figure.add_argument("--systems", type=_names, metavar="A,B", help="whose captions (default: the paper's three)")
    figure.add_argument("--preset", choices=PRESETS, default="fast", help="how the paper's cases are captioned")


def _model_folders(choices: Any) -> None:
    """The commands that make, publish and fetch model folders."""
    convert = _command(choices, "convert", commands.run_convert, "turn public checkpoints into a model folder")
    convert.add_argument("kind", choices=("hub", "lavis", "sam"), help="BLIP-2 of the hub, a LAVIS .pth, SAM's weights")
    convert.add_argument("source", metavar="SRC", help="a hub id such as Salesforce/blip2-opt-2.7b, a folder or a file")
    into = "the model folder; call convert again with the same folder to add parts"
    convert.add_argument("--out", type=Path, required=True, metavar="DIR", help=into)
    convert.add_argument("--sam-size", choices=tuple(SAM_SIZES), help="which SAM the weights belong to")

    push = _command(choices, "push", commands.run_push, "publish a model folder on the hub (or copy it to a mirror)")
    push.add_argument("folder", type=Path, metavar="DIR", help="a model folder")
    push.add_argument("repo", metavar="REPO", help="user/name on the hub, or a folder")
    push.add_argument("--private", action="store_true", help="make a new repository private")

    pull = _command(choices, "pull", commands.run_pull, "fetch a model folder, checked by hash (resumable)")
    pull.add_argument("repo", metavar="REPO", help="user/name[@revision] on the hub, or a folder")
    pull.add_argument("--out", type=Path, required=True, metavar="DIR", help="the model folder to make")


def _data_sets(choices: Any) -> None:
    """The commands that fetch and pack data sets."""
    download = _command(choices, "download", commands.run_download, "fetch a public data set from its home (resumable)")
    download.add_argument("dataset", nargs="?", metavar="DATASET", help="which one (without: list them)")
    download.add_argument("--out", type=Path, metavar="DIR", help="the folder for the data (needed with DATASET)")
    download.add_argument("--url", default="", metavar="LINK", help="the link you were sent, for a set to be requested")

    shards = _command(choices, "shards", commands.run_shards, "write a data set as WebDataset shards (resumable)")
    shards.add_argument("--data", type=_dataset, metavar="NAME=PATH", help="not needed with --check")
    shards.add_argument("--split", default="train", metavar="SPLIT")
    shards.add_argument("--out", type=Path, required=True, metavar="DIR")
    shards.add_argument("--size", type=int, default=1000, metavar="N", help="samples per shard (default: %(default)s)")
    shards.add_argument("--anonymous", action="store_true", help="numbers instead of ids and groups")
    shards.add_argument("--check", action="store_true", help="check shards that are there against their hashes")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    top = parser()
    words = sys.argv[1:] if argv is None else argv
    args = top.parse_args(_joined(words))
    args.typed = shlex.join(["python", "-m", "msmedcap", *words])
    _check_systems(top, args)
    debug = os.environ.get("MSMEDCAP_DEBUG") == "1"
    _quieten(debug)
    stdout = sys.stdout
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name that is no text must not end the command
            stream.reconfigure(errors="backslashreplace")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            status: int = args.run(args, commands.Output(stdout, args.json))
        stdout.flush()
        return status
    except BrokenPipeError:
        # The reader went away (``| head``): what is left in the buffer must not fail again at exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        return commands.SKIPPED
    except KeyboardInterrupt:
        commands.Output.note("Interrupted.")
        return 130
    except Exception as error:
        if debug:
            raise
        commands.Output.note(commands.sentence(error))
        return commands.FAILED


def _command(choices: Any, name: str, run: Callable[..., int], summary: str) -> argparse.ArgumentParser:
    """A subcommand with the flags that every command has."""
    command: argparse.ArgumentParser = choices.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
    )
    command.set_defaults(run=run)
    command.add_argument("--models", default="demo", metavar="demo|full|PATH", help="which weights (default: demo)")
    command.add_argument("--device", help="cpu, cuda, cuda:1 (default: cuda if there is one)")
    command.add_argument("--load-8bit", action="store_true", help="load the language model in 8 bit")
    command.add_argument("--offload", action="store_true", help="keep what does not fit on the device in main memory")
    command.add_argument("--json", action="store_true", help="one JSON object per line on stdout, nothing else")
    return command


def _scan_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--window", metavar="NAME|W,L", help="a preset such as lung, or width,level")
    command.add_argument("--frame", type=_frame, default=0, metavar="N", help="of a multi-frame scan, counted from 0")
    command.add_argument("--allow-burned-in", action="store_true", help="take pictures with text burned in")


def _joined(words: Sequence[str]) -> list[str]:
    """The command line with coordinates below zero tied to their flags (``--point=-1,5``), so that our own checks see them."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in _COORDINATES and _MINUS.match(word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} holds no name; write one or several as A,B, or leave the flag out")
    return names


def _check_systems(top: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse a wrong name before anything is loaded; what other folders hold they know themselves."""
    names = [*(getattr(args, "systems", None) or ()), getattr(args, "system", None)]
    for name in filter(None, names if args.models in ("demo", "full") else ()):
        if name not in SYSTEMS:
            top.error(f"there is no system {name!r} here; choose from {', '.join(SYSTEMS)}")


def _place(parse: Callable[[str], T]) -> Callable[[str], T]:
    """``parse`` as argparse wants it: what is wrong with a flag's text is the flag's mistake."""

    def parsed(text: str) -> T:
        try:
            return parse(text)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


def _frame(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a frame; frames are counted from 0")
    return int(text)


def _word(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a word's place; words are counted from 0")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def _dataset(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH, such as medpix=data/medpix")
    return name, Path(path)


def _quieten(debug: bool) -> None:
    """Keep the libraries off stderr; our own progress and warnings stay."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that wait for each other by spinning take ten times as long as soon as anything else runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING if debug else logging.ERROR, format="%(message)s")
    logging.getLogger("msmedcap").setLevel(logging.INFO)
    if not debug:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        warnings.filterwarnings("ignore")


if __name__ == "__main__":
    sys.exit(main())
