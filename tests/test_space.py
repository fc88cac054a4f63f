"""The dry run of a Space: the repository as it stands, requirements.txt's packages alone, and the environment that Spaces give.

A clean copy of what a push would carry starts in a directory of its own, on two cores, with no home to write to, and with a
``sys.path`` that holds nothing but what requirements.txt asks for. It must answer, caption a scan, and leave nothing behind.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import yaml
from gradio_client import Client, handle_file
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
MEMORY, CORES = 16 * 2**30, 2
START_SECONDS = 600  # Spaces wait for 30 minutes; a machine busy with other work is slower than they are
FRONT = yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---", 2)[1])


def _required() -> dict[str, importlib.metadata.Distribution]:
    """The distributions that installing requirements.txt brings here, by their normalised names."""
    found: dict[str, importlib.metadata.Distribution] = {}
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    waiting = [(Requirement(line), "") for line in lines if line.strip() and not line.startswith("#")]
    done: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted, extra = waiting.pop()
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if (wanted.marker and not wanted.marker.evaluate({"extra": extra})) or (name, frozenset(wanted.extras)) in done:
            continue
        done.add((name, frozenset(wanted.extras)))
        found[name] = importlib.metadata.distribution(name)
        for line in found[name].requires or []:
            waiting += [(Requirement(line), chosen) for chosen in ("", *wanted.extras)]
    return found


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """A folder of links to those distributions' files: what a Space's site-packages would hold."""
    folder = tmp_path_factory.mktemp("packages")
    for name, distribution in _required().items():
        tops = {Path(str(file)).parts[0] for file in distribution.files or [] if not str(file).startswith("..")}
        assert tops, f"{name} lists no files"
        for top in tops:
            link, real = folder / top, Path(str(distribution.locate_file(top)))
            if not link.exists() and real.exists() and top != "__pycache__":
                link.symlink_to(real)
    return folder


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """What a push of the repository as it stands would carry."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        pytest.skip("this is no git checkout, so what a push would carry is not known")
    folder = tmp_path_factory.mktemp("space")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


@dataclass
class Space:
    """A running page; ``peak`` is its largest resident memory so far in bytes."""

    process: subprocess.Popen
    url: str
    temporary: Path
    seconds: float
    errors: Path
    peak: int = 0
    done: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self.done.wait(0.2):
            try:
                status = Path(f"/proc/{self.process.pid}/status").read_text()
            except OSError:
                return
            self.peak = max(self.peak, 1024 * int((re.search(r"VmHWM:\s+(\d+)", status) or [0, 0])[1]))


def _environment(packages: Path, temporary: Path, port: int) -> dict[str, str]:
    """As Spaces set it; the home cannot be written to, not even by root, and nothing says where caches may lie."""
    return {
        "PATH": os.defpath,
        "HOME": "/proc/home",
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(packages),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "SYSTEM": "spaces",
        "SPACE_ID": "anna/msmedcap",
        "SPACE_HOST": "anna-msmedcap.hf.space",
        "SPACE_AUTHOR_NAME": "anna",
        "SPACE_REPO_NAME": "msmedcap",
        "SPACE_TITLE": "MSMedCap",
        "CPU_CORES": str(CORES),
        "MEMORY": "16Gi",
        "GRADIO_SERVER_NAME": "0.0.0.0",
        "GRADIO_SERVER_PORT": str(port),
        "HF_HUB_OFFLINE": "1",  # the dry run asks nobody
    }


@pytest.fixture(scope="module")
def space(copy, packages, tmp_path_factory) -> Iterator[Space]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temporary = tmp_path_factory.mktemp("tmp")
    errors = tmp_path_factory.mktemp("log") / "stderr"
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    start = time.monotonic()
    with errors.open("wb") as log:
        # -S and -s leave out every package but those of PYTHONPATH.
        process = subprocess.Popen(
            [sys.executable, "-S", "-s", FRONT["app_file"]], cwd=copy, env=_environment(packages, temporary, port),
            stdout=subprocess.PIPE, stderr=log, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )  # fmt: skip
    running = Space(process, f"http://127.0.0.1:{port}", temporary, 0.0, errors)
    watcher = threading.Thread(target=running.watch, daemon=True)
    watcher.start()
    try:
        while True:
            assert process.poll() is None, f"the Space did not start: {errors.read_text()[-3000:]}"
            assert time.monotonic() - start < START_SECONDS, "the Space did not answer in time"
            try:
                if httpx.get(f"{running.url}/health", timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.5)
        running.seconds = time.monotonic() - start
        yield running
    finally:
        running.done.set()
        process.terminate()
        process.wait(30)


def _gradios(file: Path) -> bool:
    return any(part.startswith("gradio") for part in file.parts)


def test_the_front_matter_is_what_a_space_reads():
    assert FRONT["sdk"] == "gradio" and (ROOT / FRONT["app_file"]).is_file()
    version = re.search(r"^gradio(?:\[.*\])?>=([\d.]+),<(\d+)", (ROOT / "requirements.txt").read_text(), re.M)
    assert version, "requirements.txt must name gradio"
    # The Space installs sdk_version beside requirements.txt, so the two must agree.
    assert FRONT["sdk_version"].startswith(version[1]) and int(FRONT["sdk_version"].split(".")[0]) < int(version[2])
    assert "authlib" in _required(), "signing in on a Space needs gradio[oauth]"


def test_no_file_is_too_large_to_push(copy):
    large = [str(p.relative_to(copy)) for p in copy.rglob("*") if p.is_file() and p.stat().st_size > 10 * 10**6]
    assert not large, "the hub refuses files above 10 MB outside LFS"


@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestRunning:
    def test_it_answers_where_spaces_look_for_it(self, space):
        said = httpx.get(f"{space.url}/health", timeout=30).json()
        assert said["status"] == "ok" and said["models"] == "demo" and len(said["systems"]) == 3
        page = httpx.get(space.url, timeout=30)
        assert page.status_code == 200 and "MSMedCap" in page.text
        listening = subprocess.run(["cat", f"/proc/{space.process.pid}/net/tcp"], capture_output=True, text=True).stdout
        port = int(space.url.rpartition(":")[2])
        assert f"00000000:{port:04X}" in listening, "a Space's server must listen on 0.0.0.0"

    def test_it_captions_a_scan_and_keeps_nothing(self, space, copy):
        client = Client(space.url, verbose=False)
        answer = client.predict(handle_file(copy / "assets/examples/ct-chest.dcm"), api_name="/caption")
        assert set(answer["captions"]) == {"MSMedCap", "BLIP2", "SAM-BLIP2"} and all(answer["captions"].values())
        # gradio leaves an empty file, which the page sweeps later; only what has content could hold anything of a visitor.
        left = [p for p in space.temporary.rglob("*") if p.is_file() and p.stat().st_size and _gradios(p)]
        assert not left
        items, _ = client.predict(handle_file(copy / "assets/examples/ct-chest.dcm"), api_name="/explain")
        (folder,) = space.temporary.glob("gradio*")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {item["file"] for item in items} <= {path.name for path in folder.rglob("*.png")}

    def test_it_stays_within_the_free_hardware(self, space, capsys):
        assert 0 < space.peak < MEMORY
        with capsys.disabled():
            print(f"\nSpace: ready after {space.seconds:.0f} s, peak memory {space.peak / 2**30:.2f} GiB")

    def test_its_log_holds_no_trouble(self, space):
        log = space.errors.read_text()
        assert "Traceback" not in log and "Permission" not in log and "ct-chest" not in log

    def test_signing_in_needs_the_spaces_own_variables(self, copy, packages, tmp_path):
        env = {**_environment(packages, tmp_path, 1), "MSMEDCAP_AUTH": "oauth"}
        done = subprocess.run(
            [sys.executable, "-S", "-s", "app.py"], cwd=copy, env=env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("app.py: ") and "hf_oauth: true" in done.stderr

    def test_it_stops_when_it_is_told(self, space):
        space.process.send_signal(signal.SIGTERM)
        assert space.process.wait(60) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
        assert [path for path in space.temporary.iterdir() if _gradios(path.relative_to(space.temporary))] == []
