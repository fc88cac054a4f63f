"""The page for programs: the commands' answers, one sentence for a mistake, nothing kept, no visitor's answer for another."""

from __future__ import annotations

import concurrent.futures
import re
from pathlib import Path

import numpy as np
import pytest
from fake import FakePredictor
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image


@pytest.fixture(scope="module")
def page(serve):
    with serve(FakePredictor(slow=0.01)) as served:
        yield served


@pytest.fixture(scope="module")
def client(page):
    return Client(page.url, verbose=False)


def test_only_the_documented_calls_are_public(client):
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/caption", "/explain", "/segment"}
    assert client.view_api(return_format="dict")["unnamed_endpoints"] == {}


def test_caption_answers_like_the_command(client, ct_file):
    answer = client.predict(handle_file(ct_file), api_name="/caption")
    expected = FakePredictor().set_scan(ct_file)
    assert answer["captions"] == expected.captions()
    assert set(answer) == {"scan", "captions", "seconds", "warnings"} and set(answer["seconds"]) == {"encode", "decode"}
    assert answer["scan"] == "upload" and "PATIENT" not in str(answer)
    assert answer["warnings"] == expected.warnings


def test_what_programs_ask_is_written_down_without_who(client, ct_file, caplog):
    with caplog.at_level("INFO", "msmedcap.events"):
        client.predict(handle_file(ct_file), api_name="/caption")
        client.predict(handle_file(ct_file), "20,30", api_name="/segment")
        client.predict(handle_file(ct_file), api_name="/explain")
    found = [record.fields for record in caplog.records if record.name == "msmedcap.events"]
    assert [fields["event"] for fields in found] == ["captioned", "segmented", "mapped"]
    assert all(set(fields) == {"event", "from", "seconds", "outcome"} and fields["from"] == "program" for fields in found)


def test_caption_takes_the_commands_options(client, ct_file):
    answer = client.predict(handle_file(ct_file), systems="BLIP2", window="lung", preset="paper", api_name="/caption")
    assert list(answer["captions"]) == ["BLIP2"] and "lung" in answer["captions"]["BLIP2"]


def test_explain_gives_pictures_of_the_scans_size(client, ct_file):
    items, files = client.predict(handle_file(ct_file), point="20.5,30.5", api_name="/explain")
    assert len(items) == len(files) and {item["kind"] for item in items} == {
        "sam_similarity",
        "sam_norm",
        "sam_pca",
        "attention",
    }
    expected = FakePredictor().set_scan(ct_file).maps(point=(20.5, 30.5))
    for item, file, made in zip(items, files, expected, strict=True):
        keys = {"file", "kind", "branch", "layer", "word", "range"} | ({"structure"} if item["kind"] == "attention" else set())
        assert set(item) == keys and file.endswith(item["file"])
        image = Image.open(file)
        assert image.size == (128, 96) and image.mode == ("RGB" if item["kind"] == "sam_pca" else "L")
        assert (np.asarray(image) == made.image()).all() and item["range"] == list(made.range)
    assert len({item["file"] for item in items}) == len(items)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"window": "nonsense", "api_name": "/caption"}, "window"),
        ({"frame": 7, "api_name": "/caption"}, "frame"),
        ({"systems": "GPT", "api_name": "/caption"}, "There is no system GPT"),
        ({"preset": "slow", "api_name": "/caption"}, "preset"),
        ({"point": "here", "api_name": "/explain"}, "X,Y"),
        ({"system": "GPT", "api_name": "/explain"}, "There is no system GPT"),
        ({"window": "nonsense", "api_name": "/explain"}, "window"),
        ({"frame": 7, "api_name": "/explain"}, "frame"),
        ({"method": "rollout", "api_name": "/explain"}, "name the word, too"),
    ],
)
def test_a_mistake_is_one_sentence(client, ct_file, call, said):
    with pytest.raises(AppError, match=said) as raised:
        client.predict(handle_file(ct_file), **call)
    assert "Traceback" not in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_that_is_no_scan_is_one_sentence(client, tmp_path):
    path = tmp_path / "letter.dcm"
    path.write_bytes(b"%PDF-1.7 dear doctor")
    with pytest.raises(AppError, match="PDF"):
        client.predict(handle_file(path), api_name="/caption")


def test_uploads_are_gone_after_the_call(page, client, ct_file, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    client.predict(handle_file(ct_file), api_name="/caption")
    with pytest.raises(AppError):
        client.predict(handle_file(bad), api_name="/caption")
    answers = (".png", ".json")  # of calls before, kept for a while to be fetched
    assert [path for path in page.kept() if path.suffix not in answers or path.name == "bad.png"] == []


def test_a_stranger_cannot_read_files_of_the_server(client):
    with pytest.raises(Exception, match="(?i)not|cannot|error|invalid"):
        client.predict({"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}, api_name="/caption")


def test_visitors_at_once_wait_for_the_models_and_get_their_own_answers(page, tmp_path):
    def ask(level: int) -> tuple[str, str]:
        path = tmp_path / f"{level}.png"
        pixels = np.full((32, 32), level, np.uint8)
        pixels[:16] = 0
        Image.fromarray(pixels).save(path)
        client = Client(page.url, verbose=False)
        maps = client.submit(handle_file(path), api_name="/explain")
        answer = client.predict(handle_file(path), api_name="/caption")
        assert all(np.asarray(Image.open(file)).shape[:2] == (32, 32) for file in maps.result()[1])
        return answer["captions"]["MSMedCap"], FakePredictor().set_scan(path).captions()["MSMedCap"]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        pairs = list(pool.map(ask, [40, 90, 140, 250]))
    assert all(got == expected for got, expected in pairs) and len({got for got, _ in pairs}) == 4


def test_the_readmes_client_runs(page, ct_file, capsys):
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", text, re.S) if "gradio_client" in b)
    found: dict = {}
    exec(block.replace("http://127.0.0.1:7860", page.url).replace('"scan.dcm"', repr(str(ct_file))), found)
    assert "'captions'" in capsys.readouterr().out and len(found["maps"]) == len(found["files"]) > 0
