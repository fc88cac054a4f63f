"""``/health`` answers whatever goes on, and says nothing of anybody."""

from __future__ import annotations

import json
import threading

from starlette.applications import Starlette
from starlette.testclient import TestClient

import msmedcap
from msmedcap.demo.serving.health import Health
from msmedcap.demo.serving.turns import Turns


def _served(**more):
    turns = Turns()
    settings = dict(
        models="demo", systems=("MSMedCap",), sessions=lambda: 2, waiting=lambda: turns.waiting, running=lambda: turns.running
    )
    health = Health(**{**settings, **more})
    return turns, TestClient(Starlette(routes=[health.route()]))


def test_what_it_says():
    _, client = _served()
    answer = client.get("/health")
    said = answer.json()
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
    assert said.pop("uptime_s") >= 0
    assert said == {
        "status": "ok",
        "version": msmedcap.__version__,
        "models": "demo",
        "systems": ["MSMedCap"],
        "sessions": 2,
        "queue": 0,
        "running_s": None,
    }
    assert client.head("/health").status_code == 200 and client.post("/health").status_code == 405


def test_it_answers_while_a_model_runs_and_counts_who_waits():
    turns, client = _served()
    done = threading.Event()

    def wait() -> None:
        with turns.turn("somebody"):
            done.wait(10)

    with turns.turn("visitor-key"):
        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        while turns.waiting < 1:
            pass
        said = client.get("/health").json()
        assert said["queue"] == 1 and said["running_s"] is not None
        assert "visitor-key" not in json.dumps(said) and "somebody" not in json.dumps(said)
    done.set()
    waiting.join(5)
    assert client.get("/health").json()["running_s"] is None


def test_a_folder_of_the_server_is_not_named():
    _, client = _served(models="/srv/models/private")
    assert client.get("/health").json()["models"] == "folder"
