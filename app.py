"""The web page: flags → predictor → page → launch.

    python app.py                                # the shipped models on http://127.0.0.1:7860
    python app.py --models full --load-8bit      # a folder made by python -m msmedcap convert
    python app.py --hash-password                # asks for a password, prints what an --auth file holds after "user:"

Every flag is also an environment variable, MSMEDCAP_MODELS, MSMEDCAP_PORT and so on; a flag wins. What a hosting service
sets (PORT, GRADIO_SERVER_PORT, GRADIO_SERVER_NAME) is honoured where neither is given. Prints its address when the page answers.
"""

from __future__ import annotations

import argparse
import getpass
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from msmedcap.config import UserError
from msmedcap.demo.accounts import checker, hash_password, read_accounts


class _Parser(argparse.ArgumentParser):
    """argparse with one line per mistake; its own ``error`` prints the whole usage first."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parse(argv: Sequence[str] | None = None, env: Mapping[str, str] = os.environ) -> argparse.Namespace:
    """The settings from flags, then environment variables, then defaults; a wrong value ends the program with one line."""

    def first(*names: str, default: str | None = None) -> str | None:
        return next((env[name] for name in names if env.get(name)), default)

    def on(name: str) -> bool:
        return env.get(name, "").strip().lower() in ("1", "true", "yes", "on")

    parser = _Parser(prog="app.py", description="The MSMedCap page. Research demonstration, not for clinical use.")
    add = parser.add_argument
    models = first("MSMEDCAP_MODELS", default="demo")
    add("--models", default=models, help="demo, full or a folder (default: %(default)s)")
    add("--device", default=first("MSMEDCAP_DEVICE"), help="cpu, cuda, … (default: the best there is)")
    add("--load-8bit", action="store_true", default=on("MSMEDCAP_LOAD_8BIT"), help="load the language model in 8 bit")
    add(
        "--host",
        default=first("MSMEDCAP_HOST", "GRADIO_SERVER_NAME", default="127.0.0.1"),
        help="address to listen on (default: %(default)s)",
    )
    add(
        "--port",
        type=_port,
        default=first("MSMEDCAP_PORT", "PORT", "GRADIO_SERVER_PORT", default="7860"),
        help="default: %(default)s",
    )
    add(
        "--auth",
        type=Path,
        default=first("MSMEDCAP_AUTH"),
        metavar="FILE",
        help="who may enter: lines user:scrypt$… (default: everyone)",
    )
    add(
        "--allow-burned-in",
        action="store_true",
        default=on("MSMEDCAP_ALLOW_BURNED_IN"),
        help="show pictures marked as having text burned in, with a warning",
    )
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
    add("--hash-password", action="store_true", help="ask for a password, print its hash for an --auth file, and stop")
    args = parser.parse_args(argv)
    if args.data is None:
        args.data = _data_sets(parser, first("MSMEDCAP_DATA", default="") or "")
    return args


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
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
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
    auth = checker(read_accounts(args.auth)) if args.auth else None
    from msmedcap.demo.page import build_page, launch_options
    from msmedcap.predictor import load

    page = build_page(
        load(args.models, device=args.device, load_8bit=args.load_8bit),
        allow_burned_in=args.allow_burned_in,
        runs=args.runs,
        data=dict(args.data),
    )
    try:
        _, address, _ = page.launch(**launch_options(host=args.host, port=args.port, auth=auth))
    except OSError:
        raise UserError(
            f"The page cannot listen on {args.host}:{args.port}; choose another --port or --host."
        ) from None
    sys.stdout.write(f"MSMedCap is ready at {address}\n")
    sys.stdout.flush()
    page.block_thread()


def _port(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a number from 1 to 65535")
    return int(text)


def _data_set(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH, such as medpix=data/medpix")
    return name, Path(path)


if __name__ == "__main__":
    sys.exit(main())
