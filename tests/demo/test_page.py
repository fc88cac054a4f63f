"""The page's promises that need no browser: its words, its settings, and what a stranger's program may call."""

from __future__ import annotations

import json
from pathlib import Path

import gradio as gr
import httpx
import numpy as np
import pytest
from fake import FakePredictor
from gradio_client import Client
from PIL import Image

from msmedcap.config import UserError
from msmedcap.demo.page import build_page, read_examples
from msmedcap.demo.serving.accounts import checker, hash_password


@pytest.fixture(scope="module")
def page(serve, tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(folder / "ramp.png")
    (folder / "index.json").write_text(json.dumps([{"file": "ramp.png", "title": "A ramp"}]))
    with serve(FakePredictor(), examples=folder) as served:
        yield served


@pytest.fixture(scope="module")
def config(page):
    return httpx.get(f"{page.url}config").json()


def test_the_page_says_what_it_is(config):
    text = json.dumps(config)
    assert "Research demonstration, not for clinical use" in text
    assert "where the model looked, not why" in text and "Raw Q-Former maps do not depend on the words" in text
    assert "diagnos" not in text.lower()
    assert "A ramp" in text


def test_nothing_of_a_visitor_is_kept():
    options = build_page(FakePredictor()).launch_options(host="127.0.0.1", port=7860)
    assert options["run_history"] is False and options["enable_monitoring"] is False and options["show_error"] is False
    assert options["max_file_size"] == 512 * 1024**2 and options["share"] is False


def test_the_running_page_keeps_no_history_and_calls_nobody(config):
    assert config["analytics_enabled"] is False and config.get("show_error") is False
    assert not config.get("run_history", False)
    assert "fonts.googleapis" not in json.dumps(config)


def test_only_the_three_calls_are_offered_to_programs(page, config):
    private = [d for d in config["dependencies"] if d["api_visibility"] == "private" and d["backend_fn"]]
    public = [d["api_name"] for d in config["dependencies"] if d["api_visibility"] == "public"]
    assert sorted(public) == ["caption", "explain", "segment"] and len(private) >= 10
    api = httpx.get(f"{page.url}gradio_api/info").json()
    assert set(api["named_endpoints"]) == {"/caption", "/explain", "/segment"}


def test_no_event_makes_the_browser_copy_what_its_components_hold(config):
    # gradio's page reads the state of each component with a progress of its own, and of all within, at every turn of any event
    private = [d for d in config["dependencies"] if d["api_visibility"] == "private" and d["backend_fn"]]
    assert [d["api_name"] for d in private if d["outputs"] and d["show_progress_on"] != []] == []


def test_nobody_passes_the_queue(page):
    answer = httpx.post(f"{page.url}gradio_api/run/caption", json={"data": [None, "", "fast", "", 0, ""]})
    assert answer.status_code == 404


def test_a_closed_page_opens_for_its_readers_only(serve):
    allowed = checker({"anna": hash_password("sesame")})
    with serve(FakePredictor(), auth=allowed) as served:
        assert httpx.get(f"{served.url}config").status_code == 401
        with pytest.raises(Exception, match="(?i)auth|credentials|login"):
            Client(served.url, auth=("anna", "wrong"), verbose=False)
        client = Client(served.url, auth=("anna", "sesame"), verbose=False)
        assert "/caption" in client.view_api(return_format="dict")["named_endpoints"]


def test_examples_are_optional(tmp_path):
    assert read_examples(tmp_path) == []


def test_models_without_a_system_are_one_sentence():
    with pytest.raises(UserError, match="demo-weights"):
        build_page(FakePredictor(systems=()))


def test_a_page_for_blinded_readers_names_no_systems_cases(tmp_path: Path) -> None:
    def tabs(**settings) -> list[str]:
        page = build_page(FakePredictor(), **settings)
        return [block.label for block in page.blocks.blocks.values() if isinstance(block, gr.Tab)]

    url = f"sqlite:///{tmp_path / 'reviews.sqlite'}"
    assert {"Cases", "Figure 4"} <= set(tabs()) and "Review" not in tabs()
    assert "Review" in tabs(reviews=url) and not {"Cases", "Figure 4"} & set(tabs(reviews=url))
