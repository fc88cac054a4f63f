"""What a visitor of the page waits for at demo scale, and what many scans cost: upload to pixels, maps and captions; batches.

Comes in: the shipped weights, real scans where they lie beside the checkout (else the bundled examples). Goes out: rows. The page
is the real one in a process of its own, spoken to as a browser does; cold starts are new processes.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import torch

from benchmarks.timing import Row, pair, resident
from msmedcap.predictor import Predictor, load

GROUP = "demo scale"
ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "assets" / "examples" / "cr-chest.dcm"
REAL = ROOT.parent / "shared" / "data" / "medpix" / "train" / "images"
READY_SECONDS = 300


def rows(*, device: torch.device, quick: bool) -> list[Row]:
    """Cold start, page and batches; ``quick`` takes each once and a handful of scans."""
    return [*cold_start(device, times=1 if quick else 3), *page(device, visits=1 if quick else 5), *batches(device, quick=quick)]


def cold_start(device: torch.device, *, times: int) -> list[Row]:
    """The caption command in a new process, from its start to its end."""
    command = [sys.executable, "-m", "msmedcap", "caption", str(EXAMPLE), "--json", "--device", str(device)]
    wall, before = [], _children()
    for _ in range(times):
        start = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=_environment())
        wall.append(time.perf_counter() - start)
        assert len(json.loads(done.stdout)["captions"]) == 3
    note = f"{(_children() - before) / times:.1f} s of processor time"
    return [Row(GROUP, "cold start to the first captions (command)", statistics.median(wall), goal="< 20 s", note=note)]


def page(device: torch.device, *, visits: int) -> list[Row]:
    """From the first byte of an upload to what the page shows, and the memory of the page's process."""
    with _served(device) as (address, process, ready):
        seen = [_visit(address, file) for file in itertools.islice(itertools.cycle(_scans(visits)), visits)]
        memory = sum(p.memory_info().rss for p in [process, *process.children(recursive=True)]) / 2**30
    middle = {name: statistics.median(getattr(one, name) for one in seen) for name in ("pixels", "maps", "word", "captions")}
    note = f"median of {visits} scans, longest {{:.2f}} s"
    waits = (
        ("pixels", "upload to first pixels", "< 0.3 s"),
        ("maps", "upload to maps", "< 1 s"),
        ("word", "upload to the first words", ""),
        ("captions", "upload to three captions", "< 3 s"),
    )
    return [
        Row(GROUP, "page: start to its address", ready, note="shipped weights, examples drawn"),
        *(
            Row(GROUP, f"page: {what}", middle[name], goal=goal, note=note.format(max(getattr(one, name) for one in seen)))
            for name, what, goal in waits
        ),
        Row(GROUP, "page: memory", memory, unit="GiB", goal="< 2 GiB", note=f"resident after {visits} scans"),
    ]


def batches(device: torch.device, *, quick: bool) -> list[Row]:
    """Many scans as batches against one by one, how the cost grows, and how many cores it keeps busy."""
    few, many = (6, 12) if quick else (200, 1000)
    predictor = load("demo", device=str(device))
    files = _scans(many)
    beside = pair(
        GROUP,
        f"{few} scans, batches against one by one",
        lambda: _together(predictor, files[:few]),
        lambda: _one_by_one(predictor, files[:few]),
        rounds=1 if quick else 3,
    )
    before, start, spent, wanted = resident(), time.perf_counter(), time.process_time(), _wanted()
    # Asked while the workers live: what a thread used is gone with it.
    wanted = max(_wanted() for _ in predictor.caption_many(files)) - wanted
    wall, spent = time.perf_counter() - start, time.process_time() - spent
    grown = resident() - before
    cores = f"{wanted / wall:.2f} of {os.cpu_count()} wanted, the rest went to other programs"
    return [
        beside,
        Row(GROUP, f"a scan of {many} against one of {few}", wall / many, beside.ours / few, goal="≤ 1.1"),
        Row(GROUP, f"{many} scans: scans in a second", many / wall, few / (beside.peer or 1), unit="/s", note="peer: one by one"),
        Row(GROUP, f"{many} scans: cores busy", spent / wall, unit="cores", note=cores),
        Row(GROUP, f"{many} scans: memory added", grown, unit="GiB"),
    ]


def _together(predictor: Predictor, files: list[Path]) -> None:
    found = sum(item.error is None for item in predictor.caption_many(files))
    assert found == len(files)


def _one_by_one(predictor: Predictor, files: list[Path]) -> None:
    for file in files:
        predictor.set_scan(file).captions()


def _scans(count: int) -> list[Path]:
    """``count`` files: real scans where there are any, else the bundled examples over and over."""
    found = sorted(REAL.iterdir()) if REAL.is_dir() else sorted(EXAMPLE.parent.glob("*.dcm"))
    return list(itertools.islice(itertools.cycle(found), count))


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _wanted() -> float:
    """Seconds this process' living threads computed or waited for a core, which other programs had (Linux; else computed)."""
    total = 0.0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            computed, waited, _ = file.read_text().split()
            total += (int(computed) + int(waited)) / 1e9
    return total or time.process_time()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "GRADIO_ANALYTICS_ENABLED": "False"}


@contextlib.contextmanager
def _served(device: torch.device) -> Iterator[tuple[str, psutil.Process, float]]:
    """The page in a process of its own: its address, the process, and the seconds from its start to its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--port", str(port), "--device", str(device)]
    start = time.perf_counter()
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=_environment())
    try:
        assert server.stdout is not None
        if " ready " not in server.stdout.readline():
            raise RuntimeError("the page did not start")
        yield f"http://127.0.0.1:{port}", psutil.Process(server.pid), time.perf_counter() - start
    finally:
        server.terminate()
        server.wait()


@dataclass(frozen=True)
class _Visit:
    """Seconds from the first byte of the upload to the picture, its maps, the first words and the three captions."""

    pixels: float
    maps: float
    word: float
    captions: float


def _visit(address: str, file: Path) -> _Visit:
    """Open a scan as the page's script does: upload, then the chain of events that follows it."""
    with httpx.Client(base_url=address, timeout=READY_SECONDS) as client:
        config = client.get("/config").json()
        prefix, events = config["api_prefix"], {event["id"]: event for event in config["dependencies"]}
        values = {part["id"]: part["props"].get("value") for part in config["components"]}
        opened = next(e for e in events.values() if [t[1] for t in e["targets"]] == ["upload"])
        drawn = next(e for e in events.values() if e.get("trigger_after") == opened["id"])
        written = next(e for e in events.values() if e.get("trigger_after") == drawn["id"])
        visitor, data = f"visit{time.time_ns()}", file.read_bytes()
        start = time.perf_counter()
        (path,) = client.post(f"{prefix}/upload", files={"files": ("scan", data)}).json()
        sent = [[{"path": path, "orig_name": "scan", "size": len(data), "meta": {"_type": "gradio.FileData"}}]]
        times = []
        for event in (opened, drawn, written):
            inputs = sent if event is opened else [values[part] for part in event["inputs"]]
            steps = list(_steps(client, prefix, event["id"], inputs, visitor))
            times.append([step - start for step in steps])
    # The first two steps of the captions are the empty cards and the word that they are being written.
    return _Visit(times[0][-1], times[1][-1], times[2][min(2, len(times[2]) - 1)], times[2][-1])


def _steps(client: httpx.Client, prefix: str, event: int, data: list[object], visitor: str) -> Iterator[float]:
    """When each of an event's results arrived; raises RuntimeError where it failed."""
    body = {"data": data, "fn_index": event, "session_hash": visitor, "event_data": None, "trigger_id": None}
    client.post(f"{prefix}/queue/join", json=body).raise_for_status()
    with client.stream("GET", f"{prefix}/queue/data", params={"session_hash": visitor}) as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
            kind = message.get("msg")
            if kind in ("process_generating", "process_completed"):
                yield time.perf_counter()
            if kind == "process_completed":
                if not message["success"]:
                    raise RuntimeError(f"the page's event {event} failed")
                return
