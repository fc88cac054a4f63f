"""Many visitors at once: each opens its own scan, waits for maps and captions, points, segments; is every answer its own?

    python -m benchmarks.visitors --out docs/load.md                  20 visitors for ten minutes, on this machine alone
    python -m benchmarks.visitors --visitors 3 --seconds 30           a short look

Comes in: nothing; the page is started here with the shipped models and asked over the loopback. Goes out: a report of errors,
answers that belong to another scan, waiting times by action, and the server's memory every five seconds. What each scan's answers
must be is asked first, by one visitor alone.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

from benchmarks.pipelines import ROOT
from benchmarks.visitor import Failed, Visitor
from msmedcap.data.scans import Window, open_scan, write_dicom

SAMPLE_SECONDS = 5.0
ROUNDS_A_TAB = 2  # the scan is opened, then captioned again; then the visitor closes the tab and opens another
STOP_EVERY = 7  # rounds between two in which the captions are stopped while they are written or waited for
ACTIONS = ("page", "open", "maps", "captions", "place", "segment")


@dataclass(frozen=True)
class Case:
    """A scan of a visitor's own, and where the visitor points (x, y in its pixels)."""

    data: bytes
    place: tuple[float, float]


@dataclass
class Record:
    """What happened, from all threads; appended to only."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, float]] = field(default_factory=list)  # seconds since the start, MiB
    longest_line: int = 0
    most_sessions: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def timed(self, action: str) -> Iterator[None]:
        """Note how long ``action`` took, if it went well."""
        start = time.monotonic()
        yield
        with self.lock:
            self.seconds[action].append(time.monotonic() - start)

    def check(self, what: str, got: Any, expected: Any, *, number: int) -> None:
        """Note an answer that is not the one of this visitor's scan."""
        with self.lock:
            self.counts["checked"] += 1
            if got != expected:
                self.mixed.append(f"visitor {number}: {what}: {str(got)[:80]} instead of {str(expected)[:80]}")


def cases(count: int) -> list[Case]:
    """``count`` scans that differ in size, contents and a bright corner; every other one a DICOM file."""
    files = sorted((ROOT / "assets" / "examples").glob("*.dcm"))
    made = []
    for number in range(count):
        picture = open_scan(files[number % len(files)]).picture()[..., 0]
        trim = 2 * (number // len(files)) + number % 5
        picture = picture[trim : picture.shape[0] - trim // 2, trim // 2 : picture.shape[1] - trim].copy()
        picture[2 : 6 + number % 7, 2 : 5 + number % 11] = 255 - number
        height, width = picture.shape
        place = (width * (0.3 + 0.02 * (number % 20)), height * 0.45)
        made.append(Case(_dicom(picture) if number % 2 else _png(picture), place))
    return made


def _png(picture: np.ndarray) -> bytes:
    held = io.BytesIO()
    Image.fromarray(picture).save(held, "PNG")
    return held.getvalue()


def _dicom(picture: np.ndarray) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scan"
        window = Window(256, 128)
        write_dicom(file, picture.astype(np.float32), modality="MR", body_part="", spacing=(0.7, 0.7), window=window)
        return file.read_bytes()


def visit(
    visitor: Visitor, case: Case, record: Record, *, again: bool = False, stop: bool = False, segment: bool = True
) -> dict[str, Any]:
    """One round on an open page: what the page showed of ``case``, by action; without captions where they were stopped.

    ``again``: the scan is open already, and only captioned anew.
    """
    shown: dict[str, Any] = {}
    if again:
        visitor.again()
    else:
        with record.timed("open"):
            visitor.open(case.data)
    shown["picture"] = visitor.picture()
    start, stopping = time.monotonic(), None
    for name in visitor.follow():
        if name in ("draw", "caption"):
            with record.lock:
                record.seconds["maps" if name == "draw" else "captions"].append(time.monotonic() - start)
        if name == "draw" and stop:
            stopping = threading.Timer(0.3, _stop, [visitor])
            stopping.start()
        start = time.monotonic()
    if stopping is not None:
        stopping.join()
    texts = visitor.captions()
    if not stop or _finished(visitor):
        shown["captions"] = texts
    else:
        record.counts["stopped"] += 1
    x, y = case.place
    with record.timed("place"):
        visitor.act("mm-viewer", "place", x=x, y=y)
    shown["map"] = visitor.map()
    if segment:
        with record.timed("segment"):
            visitor.act("mm-viewer", "prompt", points=[[x, y, 1]], box=None)
        shown["outlines"] = visitor.outlines()
    return shown


def _stop(visitor: Visitor) -> None:
    with contextlib.suppress(Failed, httpx.HTTPError):
        visitor.press("mm-stop", "click")


def _finished(visitor: Visitor) -> bool:
    return "Written for" in visitor.value("mm-captions")


def come_and_go(
    number: int, address: str, case: Case, expected: dict[str, Any], record: Record, *, until: float
) -> None:
    """One visitor's ten minutes: tab after tab, round after round, with a moment to look in between."""
    pause, rounds = random.Random(number), 0
    while time.monotonic() < until:
        try:
            with record.timed("page"):
                visitor = Visitor(address, told=lambda said: _note_line(said, record))
            with visitor:
                for turn in range(ROUNDS_A_TAB):
                    rounds += 1
                    stop = (rounds + number) % STOP_EVERY == 0  # from the first round on, not of all at once
                    shown = visit(
                        visitor, case, record, again=turn > 0, stop=stop, segment="outlines" in expected
                    )
                    for what, got in shown.items():
                        record.check(what, got, expected[what], number=number)
                    record.counts["rounds"] += 1
                    time.sleep(pause.uniform(0.5, 3.0))
                    if time.monotonic() > until:
                        return
        except (Failed, httpx.HTTPError, OSError) as error:
            with record.lock:
                record.errors.append(f"visitor {number}: {type(error).__name__}: {error}")
            time.sleep(1.0)


def _note_line(said: str, record: Record) -> None:
    number, _, rest = said.rpartition(":")[2].strip().partition(" ")
    if rest.startswith("ahead") and number.isdigit():
        record.longest_line = max(record.longest_line, int(number))


@contextlib.contextmanager
def page(temporary: Path) -> Iterator[tuple[str, psutil.Process, Path]]:
    """The page in a process of its own: its address, the process, and its log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = temporary / "log"
    command = [sys.executable, "app.py", "--port", str(port), "--log-format", "json"]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, "TMPDIR": str(temporary)}
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise SystemExit(f"the page did not start: {log.read_text()[-2000:]}")
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{address}/health", timeout=5).status_code == 200:
                    break
            time.sleep(0.5)
        yield address, psutil.Process(process.pid), log
    finally:
        process.terminate()
        process.wait(60)


def run(*, visitors: int, seconds: float, segment: bool = True, say: Any = print) -> tuple[Record, dict[str, Any]]:
    """Send ``visitors`` for ``seconds``; what happened, and what was left of it on the server a minute later at most."""
    with tempfile.TemporaryDirectory(prefix="visitors-") as folder, page(Path(folder)) as (address, process, log):
        made, alone = cases(visitors), Record()
        expected = []
        for number, case in enumerate(made):
            with Visitor(address) as visitor:
                expected.append(visit(visitor, case, alone, segment=segment))
            say(f"alone {number + 1}/{visitors}: {expected[-1]['captions'].get('MSMedCap', '')[:70]}")
        record = Record()
        start = time.monotonic()
        threads = [
            threading.Thread(
                target=come_and_go, args=(n, address, case, expected[n], record), kwargs={"until": start + seconds}
            )
            for n, case in enumerate(made)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            record.memory.append((time.monotonic() - start, process.memory_info().rss / 2**20))
            try:
                with record.timed("health"):
                    health = httpx.get(f"{address}/health", timeout=10).raise_for_status().json()
                record.most_sessions = max(record.most_sessions, health["sessions"])
            except httpx.HTTPError as error:
                record.errors.append(f"health: {error!r}")
            time.sleep(SAMPLE_SECONDS)
        after = {"alone": alone, "different": len({str(e) for e in expected}), "took": time.monotonic() - start}
        return record, {**after, **_left(address, Path(folder), log)}


def _left(address: str, folder: Path, log: Path) -> dict[str, Any]:
    """What the server still holds when everybody has gone: who waits, files with content, and errors in its log."""
    end = time.monotonic() + 60
    while (health := httpx.get(f"{address}/health", timeout=10).json())["running_s"] is not None and time.monotonic() < end:
        time.sleep(1)
    files = [p for p in folder.rglob("*") if p.is_file() and p != log and p.stat().st_size]
    troubles = [line for line in log.read_text().splitlines() if '"level": "error"' in line or "Traceback" in line]
    return {"health": health, "files": [p.name for p in files], "log": troubles}


def report(record: Record, after: dict[str, Any], *, visitors: int, seconds: float) -> str:
    """The result as Markdown."""
    rows = []
    for action in (*ACTIONS, "health"):
        took, alone = sorted(record.seconds[action]), after["alone"].seconds.get(action)
        if took:
            one = f"{statistics.median(alone):.2f}" if alone else ""
            rows.append(f"| {action} | {len(took)} | {one} | {_at(took, 0.5):.2f} | {_at(took, 0.95):.2f} | {took[-1]:.2f} |")
    memory = [value for _, value in record.memory]
    quarter = max(1, len(memory) // 4)
    first, last = statistics.median(memory[quarter : 2 * quarter] or memory), statistics.median(memory[-quarter:])
    lines = [
        f"{visitors} visitors for {seconds:.0f} s: {record.counts['rounds']} rounds, {record.counts['stopped']} of them stopped by "
        f"the visitor. **{len(record.errors)} errors, {len(record.mixed)} of {record.counts['checked']} answers of another scan** "
        f"({after['different']} scans of {visitors} have answers of their own). Longest line before the models: "
        f"{record.longest_line + 1}.",
        "",
        "| action | times | one visitor alone, s | p50, s | p95, s | longest, s |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        f"Memory of the server: {memory[0]:.0f} MiB when they came, median {first:.0f} MiB in the second quarter of the time and "
        f"{last:.0f} MiB in the last, at most {max(memory):.0f} MiB; at most {record.most_sessions} sessions were held "
        f"(a closed page's is kept for five minutes, and no more than 48). When they had gone: {after['health']['queue']} waiting, "
        f"{len(after['files'])} files with content, {len(after['log'])} errors in the log.",
    ]
    return "\n".join(lines)


def _at(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]


def main() -> int:
    """Run it and print the report; the exit status is 1 where anything went wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.visitors", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--no-segment", action="store_true", help="for models without a segmenter")
    parser.add_argument("--out", type=Path, help="write the report there, as a page of the docs")
    args = parser.parse_args()
    record, after = run(visitors=args.visitors, seconds=args.seconds, segment=not args.no_segment)
    said = report(record, after, visitors=args.visitors, seconds=args.seconds)
    print(said)
    for line in (*record.errors[:10], *record.mixed[:10], *after["log"][:10]):
        print(line, file=sys.stderr)
    if args.out:
        args.out.write_text(_document(said, args), encoding="utf-8")
    return int(bool(record.errors or record.mixed or after["files"] or after["log"]))


def _document(said: str, args: argparse.Namespace) -> str:
    import torch

    from benchmarks import machine

    where = machine.described(torch.device("cpu"))
    return _PAGE.format(said=said, date=datetime.date.today(), machine=where, visitors=args.visitors, seconds=f"{args.seconds:g}")


_PAGE = """# Many visitors at once

What the page does when {visitors} people use it at the same moment, on one machine that also plays the visitors. Each visitor has
a scan of its own, opens it, waits for maps and captions, compares a place, segments, looks for up to three seconds and asks for
all of it again; then the tab is closed and another one opened. Every seventh round the captions are stopped. Before that one
visitor alone asks what each scan's picture, captions, map and outlines are; every later answer is compared with those.

```sh
python -m benchmarks.visitors --visitors {visitors} --seconds {seconds} --out docs/load.md
```

{date} · {machine}.
The visitors run beside the server, on the same cores; most of each time is waiting for one's turn at the models.

{said}
"""

if __name__ == "__main__":
    sys.exit(main())
