"""The web page: flags → predictor → page → launch.

    python app.py                                # the shipped models on http://127.0.0.1:7860
    python app.py --models full --load-8bit      # a folder made by python -m msmedcap convert
    python app.py --hash-password                # asks for a password, prints what an --auth file holds after "user:"

Every flag is also an environment variable, MSMEDCAP_MODELS, MSMEDCAP_PORT and so on; a flag wins. What a hosting service
sets (PORT, GRADIO_SERVER_PORT, GRADIO_SERVER_NAME) is honoured where neither is given. Prints its address when the page answers.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from msmedcap.config import UserError
from msmedcap.demo.serving import logs
from msmedcap.demo.serving.accounts import hash_password


class _Parser(argparse.ArgumentParser):
    """argparse with one line per mistake; its own ``error`` prints the whole usage first."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parse(argv: Sequence[str] | None = None, env: Mapping[str, str] = os.environ) -> argparse.Namespace:
    """The settings from flags, then environment variables, then defaults; a wrong value ends the program with one line."""
    parser = _Parser(prog="app.py", description="The MSMedCap page. Research demonstration, not for clinical use.")
    settings = _Settings(parser, env)
    _add_models(settings)
    _add_serving(settings)
    _add_content(settings)
    parser.add_argument(
        "--hash-password", action="store_true", help="ask for a password, print its hash for an --auth file, and stop"
    )
    args = parser.parse_args(argv)
    if args.allow is None:
        args.allow = [name.strip() for name in (settings.first("MSMEDCAP_ALLOW") or "").split(",") if name.strip()]
    if args.data is None:
        args.data = _data_sets(parser, settings.first("MSMEDCAP_DATA") or "")
    return args


class _Settings:
    """Flags whose defaults come from environment variables."""

    def __init__(self, parser: argparse.ArgumentParser, env: Mapping[str, str]) -> None:
        self.add, self._env = parser.add_argument, env

    def first(self, *names: str, default: str | None = None) -> str | None:
        """The first of the variables that is set."""
        return next((self._env[name] for name in names if self._env.get(name)), default)

    def switch(self, flag: str, help: str) -> None:
        """A flag without a value; its variable says 1, true, yes or on."""
        name = "MSMEDCAP_" + flag.removeprefix("--").replace("-", "_").upper()
        on = self._env.get(name, "").strip().lower() in ("1", "true", "yes", "on")
        self.add(flag, action="store_true", default=on, help=help)


def _add_models(settings: _Settings) -> None:
    add, first = settings.add, settings.first
    models = first("MSMEDCAP_MODELS", default="demo")
    add("--models", default=models, help="demo, full or a folder (default: %(default)s)")
    add("--device", default=first("MSMEDCAP_DEVICE"), help="cpu, cuda, … (default: the best there is)")
    settings.switch("--load-8bit", "load the language model in 8 bit")


def _add_serving(settings: _Settings) -> None:
    """Where the page is, who may enter, how much they may bring, and what is written down."""
    add, first = settings.add, settings.first
    host = first("MSMEDCAP_HOST", "GRADIO_SERVER_NAME", default="127.0.0.1")
    add("--host", default=host, help="address to listen on (default: %(default)s)")
    port = first("MSMEDCAP_PORT", "PORT", "GRADIO_SERVER_PORT", default="7860")
    add("--port", type=_port, default=port, help="default: %(default)s")
    who = "who may enter: lines user:scrypt$…, or accounts of Hugging Face on a Space (default: everyone)"
    add("--auth", default=first("MSMEDCAP_AUTH"), metavar="FILE|oauth", help=who)
    names = "with --auth oauth, a user or organisation that may enter (repeatable; default: every account)"
    add("--allow", action="append", metavar="NAME", help=names)
    most = first("MSMEDCAP_MAX_UPLOAD_MB", default="512")
    add(
        "--max-upload-mb",
        type=_positive,
        default=most,
        metavar="N",
        help="largest file taken (default: %(default)s MB)",
    )
    level, form = first("MSMEDCAP_LOG_LEVEL", default="info"), first("MSMEDCAP_LOG_FORMAT", default="text")
    told = f"{', '.join(logs.LEVELS)} (default: %(default)s)"
    add("--log-level", type=_one_of(logs.LEVELS), default=level, metavar="LEVEL", help=told)
    add(
        "--log-format",
        type=_one_of(logs.FORMATS),
        default=form,
        metavar="FORMAT",
        help="text or json (default: %(default)s)",
    )


def _add_content(settings: _Settings) -> None:
    """What there is to see besides what visitors bring."""
    add, first = settings.add, settings.first
    settings.switch("--allow-burned-in", "show pictures marked as having text burned in, with a warning")
    add(
        "--runs",
        type=Path,
        default=first("MSMEDCAP_RUNS"),
        metavar="DIR",
        help="an --out folder of evaluate, for the tabs Cases and Figure 4 (default: made scans)",
    )
    add(
        "--data",
        type=_data_set,
        action="append",
        metavar="NAME=PATH",
        help="where the pictures of --runs lie; a page opens pictures of cases from here only (repeatable)",
    )
    backup = "where the ratings of --reviews are saved: a folder, or hub:OWNER/NAME (a private data set of the hub)"
    add("--backup", default=first("MSMEDCAP_BACKUP"), metavar="TARGET", help=backup)
    minutes = first("MSMEDCAP_BACKUP_MINUTES", default="10")
    add("--backup-minutes", type=_positive, default=minutes, metavar="N", help="how often (default: %(default)s)")
    add(
        "--reviews",
        default=first("MSMEDCAP_REVIEWS"),
        metavar="URL",
        help="blinded reader studies: sqlite:///FILE or postgresql://… (default: none); python -m msmedcap study makes them",
    )


def _data_sets(parser: argparse.ArgumentParser, text: str) -> list[tuple[str, Path]]:
    """The data sets of the environment variable, parted by commas."""
    try:
        return [_data_set(item) for item in text.split(",") if item]
    except argparse.ArgumentTypeError as error:
        parser.error(f"MSMEDCAP_DATA: {error}")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until interrupted; returns the exit status."""
    args = parse(argv)
    # Threads that wait for each other by spinning take ten times as long as soon as anything else runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logs.configure(args.log_level, args.log_format)
    if args.hash_password:
        sys.stdout.write(hash_password(getpass.getpass("Password: ")) + "\n")
        return 0
    try:
        serve(args)
    except UserError as error:
        sys.stderr.write(f"app.py: {error}\n")
        return 2
    return 0


def serve(args: argparse.Namespace) -> None:
    """Load the models, open the page and wait; raises :class:`UserError` where a setting is wrong or the port is taken."""
    from msmedcap.demo.serving.limits import own_folder

    if args.backup and not args.reviews:
        raise UserError("--backup saves the ratings of reader studies; name their database with --reviews.")
    with own_folder():  # before anything imports gradio
        _serve(args)


def _serve(args: argparse.Namespace) -> None:
    from msmedcap.demo.serving import zero_gpu

    zero_gpu.prepare()  # before anything imports torch
    from msmedcap.demo.page import build_page
    from msmedcap.demo.review.saving import saved
    from msmedcap.demo.serving import signin
    from msmedcap.demo.serving.one_thread import one_thread
    from msmedcap.predictor import load

    who = signin.choose(args.auth, allow=args.allow)
    kept = saved(args.reviews, args.backup, minutes=args.backup_minutes) if args.backup else contextlib.nullcontext()
    with kept, logs.printed():
        page = build_page(
            one_thread(zero_gpu.on_gpu(load(args.models, device=args.device, load_8bit=args.load_8bit))),
            allow_burned_in=args.allow_burned_in,
            runs=args.runs,
            data=dict(args.data),
            sign_in=who,
            reviews=args.reviews,
        )
        try:
            address = page.launch(host=args.host, port=args.port, max_upload_mb=args.max_upload_mb)
        except OSError:
            raise UserError(
                f"The page cannot listen on {args.host}:{args.port}; choose another --port or --host."
            ) from None
        sys.stdout.write(f"MSMedCap is ready at {address}\n")
        sys.stdout.flush()
        try:
            page.blocks.block_thread()
        finally:
            page.blocks.close(verbose=False)


def _port(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a number from 1 to 65535")
    return int(text)


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _one_of(names: Sequence[str]) -> Callable[[str], str]:
    """A type for argparse that also checks what an environment variable gave, which ``choices`` would not."""

    def check(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(names)}")
        return text

    return check


def _data_set(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH, such as medpix=data/medpix")
    return name, Path(path)


if __name__ == "__main__":
    sys.exit(main())
