"""A server that is killed in the middle of saving has lost nothing that it acknowledged. A real process, killed with SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from review_study import SECRETS, made_study
from serving import free_port

from msmedcap.demo.review.desk import Desk
from msmedcap.demo.review.rated import read_rated
from msmedcap.demo.store import ReviewStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX systems"),
]
ROOT = Path(__file__).parents[2]
ROUNDS = 2


class Server:
    """A page with the review alone, in a process of its own."""

    def __init__(self, url: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("review_server.py")), url, str(free_port())]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "GRADIO_ANALYTICS_ENABLED": "False"}
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        config = httpx.get(f"{self.address}config", timeout=60).json()
        (self.component,) = (part["id"] for part in config["components"] if part["props"].get("elem_id") == "mm-review")

    def review(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What the browser's ``server.review`` gets; raises httpx.HTTPError where the server is gone."""
        body = {"session_hash": "test", "component_id": self.component, "fn_name": "review", "data": asked}
        answer = httpx.post(f"{self.address}gradio_api/component_server", json=body, timeout=60)
        answer.raise_for_status()
        told: dict[str, Any] = answer.json()
        return told

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def serve():
    """A function that starts a server on the database ``url``; none is left when the test is over."""
    started: list[Server] = []

    def start(url: str) -> Server:
        started.append(Server(url))
        return started[-1]

    yield start
    for server in started:
        server.kill()


class Rater(threading.Thread):
    """Saves as fast as it is answered, and notes what it was told is saved, until the server is gone."""

    def __init__(self, server: Server, study: str, name: str, number: int) -> None:
        super().__init__()
        self._server, self._who = server, {"study": study, "name": name, "secret": SECRETS[name]}
        self._round = number
        self.told: dict[tuple[str, int], dict[str, Any]] = {}
        self.name_ = name

    def run(self) -> None:
        try:
            token = self._server.review({"do": "login", **self._who})["token"]
            case = self._server.review({"do": "case", "token": token, "place": self._round})
            for number in range(100_000):
                answers = {"comment": f"{self._round}/{number}", "A.accuracy": number % 5 + 1}
                row = {"case": case["case"], "visit": case["visit"], "answers": answers, "seconds": 0.0}
                save = f"round-{self._round}-save-{number}"
                told = self._server.review({"do": "save", "token": token, **row, "save": save})
                self.told[self.name_, told["revision"]] = answers
        except httpx.HTTPError:
            return


def test_kill_in_mid_save_loses_nothing_acknowledged(serve, tmp_path):
    url = f"sqlite:///{tmp_path / 'reviews.sqlite'}"
    store = ReviewStore(url)
    study = store.create(made_study().study)
    told: dict[tuple[str, int, int], dict[str, Any]] = {}
    for number in range(ROUNDS):
        server = serve(url)
        raters = [Rater(server, study, name, number) for name in SECRETS]
        for rater in raters:
            rater.start()
        while any(len(rater.told) < 10 + 3 * number for rater in raters):
            assert server.process.poll() is None
            time.sleep(0.05)
        server.kill()  # both are in the middle of something
        for rater in raters:
            rater.join()
            told |= {(name, number, revision): answers for (name, revision), answers in rater.told.items()}
    kept = {(row["reader"], row["place"], row["revision"]): row["answers"] for row in read_rated(store, study).rows}
    lost = [key for key, answers in told.items() if kept.get(key) != answers]
    assert not lost and len(told) >= 2 * (10 + 13)
    # At most the one row that was being written when the server died is more than what was acknowledged.
    assert len(kept) - len(told) <= 2 * ROUNDS
    store.close()


def test_after_the_kill_a_reader_goes_on_with_the_same_login(serve, tmp_path):
    url = f"sqlite:///{tmp_path / 'reviews.sqlite'}"
    study = ReviewStore(url).create(made_study().study)
    server = serve(url)
    login = {"do": "login", "study": study, "name": "anna", "secret": SECRETS["anna"]}
    token = server.review(login)["token"]
    case = server.review({"do": "case", "token": token, "place": 0})
    row = {
        "case": case["case"],
        "visit": case["visit"],
        "answers": {"preference": "A"},
        "seconds": 1.0,
        "save": "x" * 12,
    }
    saved = server.review({"do": "save", "token": token, **row})
    server.kill()
    desk = Desk(ReviewStore(url))  # as another process would
    again = desk.answer({"do": "case", "token": token, "place": 0})
    assert again["answers"] == {"preference": "A"} and again["saved"] == saved["saved"]
    # The browser that did not get the answer sends the row again: it is the same row.
    assert desk.answer({"do": "save", "token": token, **row})["revision"] == saved["revision"]
