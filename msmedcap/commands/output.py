"""What all commands share: where results go, what a failure says, and the models that the flags name."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from msmedcap.config import UserError

if TYPE_CHECKING:
    from msmedcap.predictor import Predictor

DONE, SKIPPED, FAILED = 0, 1, 2


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


def sentence(error: Exception) -> str:
    """One line for the user: our own errors say it already, others name themselves."""
    from msmedcap.data.scans import ScanError

    if isinstance(error, (UserError, ScanError)):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}."
    said = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {said} (run with MSMEDCAP_DEBUG=1 for the traceback)"


def check_folder(out: Path) -> None:
    """Raises :class:`UserError` where ``--out`` cannot be a folder because there is a file; makes nothing."""
    there = next((path for path in (out, *out.parents) if path.exists()), None)
    if there is not None and not there.is_dir():
        raise UserError(f"{there} is a file; name a folder with --out.")


def load_predictor(args: argparse.Namespace) -> Predictor:
    """The models that the flags name, loaded."""
    from msmedcap import predictor

    return predictor.load(args.models, device=args.device, load_8bit=args.load_8bit, offload=args.offload)
