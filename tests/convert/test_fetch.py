"""A hub id brings the files a conversion reads and no others; a path is taken as it is."""

from __future__ import annotations

import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from msmedcap.config import UserError
from msmedcap.convert import convert, fetch
from tests.convert import made


class Hub:
    """Stands in for the hub: one repository, a folder; remembers what was asked for."""

    def __init__(self, repository: Path, cache: Path) -> None:
        self.repository, self.cache = repository, cache
        self.asked: list[str] = []
        self.fails: Exception | None = None

    def snapshot_download(self, name: str, *, allow_patterns: list[str]) -> str:
        if self.fails:
            raise self.fails
        self.asked.append(name)
        self.cache.mkdir(exist_ok=True)
        for file in self.repository.iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, self.cache)
        return str(self.cache)

    def brought(self) -> set[str]:
        return {file.name for file in self.cache.iterdir()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made.blip2(tmp_path / "repository", max_shard_size="100KB")
    for extra in ("README.md", "flax_model.msgpack", "pytorch_model.bin", "preprocessor_config.json"):
        (tmp_path / "repository" / extra).write_bytes(b"x")
    served = Hub(tmp_path / "repository", tmp_path / "cache")
    monkeypatch.setattr(fetch, "snapshot_download", served.snapshot_download)
    return served


def test_only_what_is_read_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    ledger = convert("hub", "Salesforce/blip2-opt-2.7b", tmp_path / "out")
    shards = {file.name for file in hub.repository.glob("model*.safetensors*")}
    assert len(shards) > 3
    small = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert hub.brought() == shards | small
    assert set(hub.asked) == {"Salesforce/blip2-opt-2.7b"}
    assert {row["part"] for row in ledger.rows()} == {"clip", "opt", "BLIP2/clip"}


def test_older_repositories_have_bins_alone(hub: Hub) -> None:
    for file in hub.repository.glob("model*"):
        file.unlink()
    assert fetch.fetch("Salesforce/blip2-opt-2.7b") == hub.cache
    assert "pytorch_model.bin" in hub.brought()


def test_a_repository_without_weights(hub: Hub) -> None:
    for file in [*hub.repository.glob("model*"), hub.repository / "pytorch_model.bin"]:
        file.unlink()
    with pytest.raises(UserError, match="on the hub holds no weights"):
        fetch.fetch("Salesforce/blip2-opt-2.7b")


def test_a_path_is_no_hub_id(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert fetch.fetch("owner/name") == Path("owner/name")
    with pytest.raises(UserError, match="There is no checkpoint at /nowhere/at/all"):
        fetch.fetch("/nowhere/at/all")
    assert not hub.asked


def response(status: int) -> Any:
    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co"))


def test_an_unknown_repository(hub: Hub) -> None:
    hub.fails = RepositoryNotFoundError("404", response=response(404))
    with pytest.raises(UserError, match="neither a folder or file here nor a public repository"):
        fetch.fetch("owner/name")


@pytest.mark.parametrize(
    "error", [ConnectionError("cut off"), httpx.ReadTimeout("cut off"), HfHubHTTPError("cut off", response=response(500))]
)
def test_a_cut_off_download_can_go_on(hub: Hub, error: Exception) -> None:
    hub.fails = error
    with pytest.raises(UserError, match="could not be downloaded .cut off.*; run the same command again to go on"):
        fetch.fetch("owner/name")
    hub.fails = None
    assert fetch.fetch("owner/name") == hub.cache


def test_kinds_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no conversion 'onnx'; choose from hub, sam, lavis"):
        convert("onnx", "x", tmp_path)
    with pytest.raises(UserError, match="has no SAM in it"):
        convert("hub", "x/y", tmp_path, sam_size="b")
