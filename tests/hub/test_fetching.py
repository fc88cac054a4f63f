"""Pulling: resumed at the byte, refused by hash, nothing written where or what it must not, whole or not there."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import HfApi

from msmedcap import checkpoints
from msmedcap.config import UserError
from msmedcap.hub import fetching, manifest, pull
from msmedcap.hub import folder as folders
from tests.hub.server import COMMIT, REPO, Hub

WEIGHTS = "clip/model.safetensors"


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(repo: str, out: Path, *words: str, **options: Any) -> None:
    """Pulling raises one sentence with all of ``words`` in it and leaves no model folder."""
    with pytest.raises(UserError) as raised:
        pull(repo, out, **options)
    told = str(raised.value)
    assert "\n" not in told and told.endswith(".")
    for word in words:
        assert word in told, told
    assert not (out / "config.json").exists()


def flip(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


# From the hub


def test_a_pulled_folder_is_the_one_that_is_there(
    hub: Hub, mirror: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = pull(REPO, tmp_path / "out", client=hub.api)
    assert out == tmp_path / "out" and files(out) == files(mirror)
    assert capsys.readouterr().out == ""
    assert all(token == "Bearer hf_test" for token in hub.tokens)
    assert sum(hub.sent.values()) == sum(map(len, files(mirror).values()))


def test_a_connection_that_breaks_is_taken_up_at_the_byte(hub: Hub, mirror: Path, tmp_path: Path) -> None:
    size = (mirror / WEIGHTS).stat().st_size
    hub.cut[WEIGHTS] = size // 3
    pull(REPO, tmp_path / "out", client=hub.api)
    assert hub.sent[WEIGHTS] == size
    third = size // 3
    wanted = [None, f"bytes={third}-", f"bytes={2 * third}-"] + ([f"bytes={3 * third}-"] if size % 3 else [])
    assert [r for name, r in hub.ranges if name == WEIGHTS] == wanted


def test_an_interrupted_pull_goes_on_where_it_stopped(hub: Hub, mirror: Path, tmp_path: Path) -> None:
    out, size = tmp_path / "out", (mirror / WEIGHTS).stat().st_size
    hub.cut[WEIGHTS], hub.dies_at = 1000, WEIGHTS
    refused(REPO, out, "out of order", "503", client=hub.api)
    assert (out / ".partial" / WEIGHTS).stat().st_size == 1000 == hub.sent[WEIGHTS]
    before = dict(hub.sent)
    hub.status, hub.cut, hub.dies_at = 0, {}, ""
    pull(REPO, out, client=hub.api)
    assert files(out) == files(mirror)
    assert hub.sent[WEIGHTS] == size
    for name in before:
        if name not in (WEIGHTS, "manifest.json"):
            assert hub.sent[name] == before[name], f"{name} was sent twice"


def test_what_is_there_and_right_is_not_sent_again(hub: Hub, mirror: Path, tmp_path: Path) -> None:
    out = pull(REPO, tmp_path / "out", client=hub.api)
    hub.sent.clear()
    pull(REPO, out, client=hub.api)
    assert set(hub.sent) == {"manifest.json"}
    flip(out / WEIGHTS)
    hub.sent.clear()
    pull(REPO, out, client=hub.api)
    assert set(hub.sent) == {"manifest.json", WEIGHTS} and files(out) == files(mirror)


def test_a_server_that_ignores_ranges_costs_bytes_and_not_the_file(hub: Hub, mirror: Path, tmp_path: Path) -> None:
    staged = tmp_path / "out" / ".partial" / WEIGHTS
    staged.parent.mkdir(parents=True)
    staged.write_bytes((mirror / WEIGHTS).read_bytes()[:777])
    hub.ignore_ranges = True
    assert files(pull(REPO, tmp_path / "out", client=hub.api)) == files(mirror)
    assert [r for name, r in hub.ranges if name == WEIGHTS] == ["bytes=777-"]


def test_a_start_that_belongs_to_other_bytes_is_dropped(hub: Hub, mirror: Path, tmp_path: Path) -> None:
    staged = tmp_path / "out" / ".partial" / WEIGHTS
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"older weights" * 10)
    assert files(pull(REPO, tmp_path / "out", client=hub.api)) == files(mirror)
    assert [r for name, r in hub.ranges if name == WEIGHTS] == ["bytes=130-", None]


def test_damage_on_the_way_is_refused_and_the_next_pull_gets_the_file_again(
    hub: Hub, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "out", files(mirror)
    rows = hub.siblings()
    monkeypatch.setattr(hub, "siblings", lambda: rows)
    flip(mirror / WEIGHTS)
    refused(REPO, out, WEIGHTS, "damaged", client=hub.api)
    assert not (out / ".partial" / WEIGHTS).exists()
    flip(mirror / WEIGHTS)
    assert files(pull(REPO, out, client=hub.api)) == whole
    assert hub.sent[WEIGHTS] == 2 * len(whole[WEIGHTS])


def test_a_file_that_was_changed_after_its_manifest_is_refused_before_it_is_sent(hub: Hub, mirror: Path, tmp_path: Path) -> None:
    flip(mirror / WEIGHTS)
    refused(REPO, tmp_path / "out", WEIGHTS, "manifest.json", client=hub.api)
    assert WEIGHTS not in hub.sent


@pytest.mark.parametrize("name", [WEIGHTS, "systems/BLIP2/config.json"])
def test_without_a_manifest_the_hubs_own_hashes_count(
    hub: Hub, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    listed = manifest(mirror)
    (mirror / "manifest.json").unlink()
    rows = hub.siblings()
    assert {"lfs" in r for r in rows if r["rfilename"] == name} == {name == WEIGHTS}
    monkeypatch.setattr(hub, "siblings", lambda: rows)
    flip(mirror / name)
    refused(REPO, tmp_path / "out", name, "damaged", client=hub.api)
    flip(mirror / name)
    out = pull(REPO, tmp_path / "out", client=hub.api)
    assert json.loads((out / "manifest.json").read_text()) == listed


def test_a_card_edited_on_the_hubs_page_does_not_stop_a_pull(hub: Hub, mirror: Path, tmp_path: Path) -> None:
    (mirror / "README.md").write_text("# first\n")
    folders.write_manifest(mirror, manifest(mirror))
    (mirror / "README.md").write_text("# edited\n")
    out = pull(REPO, tmp_path / "out", client=hub.api)
    assert (out / "README.md").read_text() == "# edited\n"
    said = json.loads((out / "manifest.json").read_text())["README.md"]
    assert said["sha256"] == hashlib.sha256(b"# edited\n").hexdigest()


def test_a_revision_is_pulled_at_its_commit(hub: Hub, tmp_path: Path) -> None:
    pull(f"{REPO}@v1", tmp_path / "one", client=hub.api)
    pull(REPO, tmp_path / "two", revision="v1", client=hub.api)
    assert hub.asked.count(f"/api/models/{REPO}/revision/v1") == 2
    assert all(f"/resolve/{COMMIT}/" in path for path in hub.asked if "/resolve/" in path)
    refused(f"{REPO}@v1", tmp_path / "three", "once", revision="v2", client=hub.api)
    refused(f"{REPO}@v9", tmp_path / "three", "no such revision", client=hub.api)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "", "hf auth login"),
        (403, "", "may not read"),
        (403, "GatedRepo", "terms"),
        (404, "RepoNotFound", "no repository someone/models"),
        (429, "", "patience"),
        (500, "", "out of order"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(hub: Hub, tmp_path: Path, status: int, code: str, words: str) -> None:
    hub.status, hub.error_code = status, code
    refused(REPO, tmp_path / "out", words, client=hub.api)


def test_no_network_is_one_sentence(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(REPO, tmp_path / "out", "cannot be reached", "pull again", client=HfApi(endpoint="http://127.0.0.1:9"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused(REPO, tmp_path / "out", "HF_HUB_OFFLINE", client=hub.api)
    refused("no//repository", tmp_path / "out", "USER/NAME", client=hub.api)


@pytest.mark.parametrize(
    "name",
    ["../evil.json", "/etc/evil.json", "clip/../../evil.json", "clip\\..\\evil.json", "C:/evil.json", "clip//evil.json", "a\n.txt"],
)
@pytest.mark.parametrize("where", ["listing", "manifest"])
def test_a_name_that_leaves_the_folder_is_refused(hub: Hub, mirror: Path, tmp_path: Path, where: str, name: str) -> None:
    claimed = json.loads((mirror / "manifest.json").read_text())
    (mirror / "manifest.json").unlink()
    if where == "manifest":
        claimed[name] = {"sha256": "0" * 64, "bytes": 4}
        (mirror / "manifest.json").write_text(json.dumps(claimed))
    hub.listing = [{"rfilename": name, "size": 4, "blobId": "0" * 40}]
    refused(REPO, tmp_path / "deep" / "out", "would not stay in the folder", client=hub.api)
    assert not (tmp_path / "deep").exists() and not hub.sent.keys() - {"manifest.json"}


def test_a_pickle_is_never_taken(hub: Hub, mirror: Path, tmp_path: Path) -> None:
    (mirror / "clip" / "pytorch_model.bin").write_bytes(b"pickle")
    out = pull(REPO, tmp_path / "out", client=hub.api)
    assert not list(out.rglob("*.bin")) and "clip/pytorch_model.bin" not in hub.sent
    claimed = json.loads((mirror / "manifest.json").read_text())
    claimed["clip/pytorch_model.bin"] = {"sha256": hashlib.sha256(b"pickle").hexdigest(), "bytes": 6}
    (mirror / "manifest.json").write_text(json.dumps(claimed))
    refused(REPO, tmp_path / "new", "clip/pytorch_model.bin", "code", client=hub.api)


def test_another_kind_of_repository_is_told_from_a_model_folder(hub: Hub, mirror: Path, tmp_path: Path) -> None:
    (mirror / "manifest.json").unlink()
    (mirror / "config.json").write_text('{"architectures": ["Blip2ForConditionalGeneration"]}')
    refused(REPO, tmp_path / "out", "not a model folder", "convert", client=hub.api)
    assert set(hub.sent) == {"config.json"} and files(tmp_path / "out") == {}
    (mirror / "config.json").unlink()
    refused(REPO, tmp_path / "out", "no config.json", client=hub.api)


# From a folder


@pytest.mark.parametrize("written_as", ["{}", "file://{}", "./models"])
def test_a_mirror_is_pulled_without_a_network(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written_as: str
) -> None:
    monkeypatch.chdir(tmp_path)
    out = pull(written_as.format(mirror), tmp_path / "a" / "b", client=SimpleNamespace())  # a client that can do nothing
    assert files(out) == files(mirror)
    found, wanted = (checkpoints.load(str(f), device=torch.device("cpu")) for f in (out, mirror))
    for name, captioner in wanted.captioners.items():
        for key, value in captioner.state_dict().items():
            assert torch.equal(found.captioners[name].state_dict()[key], value), (name, key)
    for key, value in wanted.frozen.opt.model.state_dict().items():
        assert torch.equal(found.frozen.opt.model.state_dict()[key], value), key


def test_a_relative_folder_that_exists_is_taken_for_itself(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").mkdir()
    mirror.rename("disk/models")
    pull("disk/models", Path("out"))
    assert files(Path("out")) == files(Path("disk/models"))
    refused("disk/models", tmp_path / "other", "no revision", revision="v1")


@pytest.mark.parametrize("name", [WEIGHTS, "systems/MSMedCap/config.json", "opt/tokenizer.json"])
def test_a_damaged_mirror_is_refused_by_hash(mirror: Path, tmp_path: Path, name: str) -> None:
    flip(mirror / name)
    refused(str(mirror), tmp_path / "out", name, "damaged")
    assert not (tmp_path / "out" / ".partial" / name).exists()
    flip(mirror / name)
    assert files(pull(str(mirror), tmp_path / "out")) == files(mirror)


def test_a_cut_mirror_is_refused(mirror: Path, tmp_path: Path) -> None:
    content = (mirror / WEIGHTS).read_bytes()
    (mirror / WEIGHTS).write_bytes(content[:-5])
    refused(str(mirror), tmp_path / "out", WEIGHTS, "damaged")
    (mirror / WEIGHTS).unlink()
    refused(str(mirror), tmp_path / "out", WEIGHTS, "lacks")


def test_a_mirror_without_a_manifest_gets_one(folder: Path, tmp_path: Path) -> None:
    out = pull(str(folder), tmp_path / "out")
    assert json.loads((out / "manifest.json").read_text()) == manifest(folder)
    assert {n: c for n, c in files(out).items() if n != "manifest.json"} == files(folder)


@pytest.mark.parametrize("inside", ["file", "folder"])
def test_links_are_refused_on_both_sides(mirror: Path, tmp_path: Path, inside: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out = tmp_path / "out"
    out.mkdir()
    os.symlink(elsewhere, out / "clip")
    refused(str(mirror), out, "link", "clip")
    assert not list(elsewhere.iterdir())
    target = mirror / WEIGHTS if inside == "file" else mirror / "clip"
    target.rename(tmp_path / "moved")
    os.symlink(tmp_path / "moved", target)
    refused(str(mirror), tmp_path / "new", "link", "cp -rL")


def test_a_staging_folder_that_leads_elsewhere_is_refused(mirror: Path, tmp_path: Path) -> None:
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    (out / ".partial").mkdir(parents=True)
    os.symlink(elsewhere, out / ".partial" / "clip")
    refused(str(mirror), out, "link")
    shutil.rmtree(out / ".partial")
    os.symlink(elsewhere, out / ".partial")
    refused(str(mirror), out, "link")
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("claims", ["[]", '{"config.json": 3}', '{"config.json": {"sha256": "x", "bytes": 1}}', "{", "\x00"])
def test_a_damaged_manifest_is_refused(mirror: Path, tmp_path: Path, claims: str) -> None:
    (mirror / "manifest.json").write_text(claims)
    refused(str(mirror), tmp_path / "out", "manifest.json", "damaged")


def test_names_that_some_disks_take_for_one_are_refused(mirror: Path, tmp_path: Path) -> None:
    claimed = json.loads((mirror / "manifest.json").read_text())
    for more in ("Config.json", "config.json/x.txt"):
        (mirror / "manifest.json").write_text(json.dumps(claimed | {more: claimed["config.json"]}))
        refused(str(mirror), tmp_path / "out", more, "config.json")


# Into a folder


def test_no_model_folder_shows_until_the_last_file_is_there(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, moves, real = tmp_path / "out", [], os.replace

    def watch(source: Any, target: Any) -> None:
        if Path(target).name == "config.json" and Path(target).parent == out:
            assert files(mirror).keys() - {"config.json"} == {n for n in files(out) if not n.startswith(".partial")}
        moves.append(Path(target).relative_to(out).as_posix())
        assert moves.count("config.json") or not (out / "config.json").exists()
        real(source, target)

    monkeypatch.setattr(os, "replace", watch)
    pull(str(mirror), out)
    assert moves[-1] == "config.json" and WEIGHTS in moves


def test_a_stop_while_files_move_leaves_no_model_folder_and_the_next_pull_mends_it(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = pull(str(mirror), tmp_path / "out")
    flip(mirror / WEIGHTS)
    folders.write_manifest(mirror, manifest(mirror))
    real = os.replace

    def stop(source: Any, target: Any) -> None:
        if Path(target) == out / WEIGHTS:
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            pull(str(mirror), out)
    assert not (out / "config.json").exists()
    pull(str(mirror), out)
    assert files(out) == files(mirror)


def test_a_newer_version_takes_the_place_of_the_older_one(mirror: Path, tmp_path: Path) -> None:
    out = pull(str(mirror), tmp_path / "out")
    (out / "notes.txt").write_text("mine")
    (mirror / "clip" / "model.safetensors").rename(mirror / "clip" / "model-00001-of-00001.safetensors")
    (mirror / "opt" / "generation_config.json").unlink(missing_ok=True)
    folders.write_manifest(mirror, manifest(mirror))
    pull(str(mirror), out)
    assert files(out) == files(mirror) | {"notes.txt": b"mine"}


def test_what_no_pull_put_there_is_not_overwritten(mirror: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "clip").mkdir(parents=True)
    (out / WEIGHTS).write_bytes(b"my own weights")
    refused(str(mirror), out, WEIGHTS, "no pull put there")
    assert (out / WEIGHTS).read_bytes() == b"my own weights"
    (out / WEIGHTS).unlink()
    (out / "clip" / "model.safetensors.index.json").write_text("{}")  # the loader would read this one first
    refused(str(mirror), out, "index.json")


def test_a_full_disk_is_one_sentence_with_numbers(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(fetching.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        refused(str(mirror), out, "GB more", "0.00 GB free")
    real = folders.read

    def full(path: Path, start: int = 0, *, bar: Any = None) -> Any:
        yield from real(path, start, bar=bar)
        if path.name == "model.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("msmedcap.hub.sources.read", full)
        refused(str(mirror), out, "disk is full", "kept")
    assert (out / ".partial" / WEIGHTS).is_file()
    assert files(pull(str(mirror), out)) == files(mirror)


def test_where_not_to_pull(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        pull(str(mirror), tmp_path / "file")
    with pytest.raises(UserError, match="another one to pull into"):
        pull(str(mirror), mirror)
    with pytest.raises(UserError, match="another one to pull into"):
        pull(str(mirror), mirror / "clip" / "copy")
    refused(str(tmp_path / "nowhere"), tmp_path / "out", "no folder")
    refused("file://server/models", tmp_path / "out", "mount")
