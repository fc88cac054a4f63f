"""Pushing: what leaves, as what commit, and what is refused before anything does."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path

import httpx
import pytest
import torch
import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, RepositoryNotFoundError

from msmedcap import checkpoints
from msmedcap.config import UserError
from msmedcap.hub import manifest, pull, push
from msmedcap.hub.card import card
from msmedcap.hub.folder import check, model_files
from tests import sizes
from tests.hub.server import COMMIT, REPO, Hub, Uploads

METHODS = ("create_repo", "model_info", "create_branch", "create_commit")


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "repository")


def refused(folder: Path, repo: str, client: Uploads, *words: str, **options: object) -> None:
    """Pushing raises one sentence with all of ``words`` in it and sends nothing."""
    with pytest.raises(UserError) as raised:
        push(folder, repo, client=client, **options)  # type: ignore[arg-type]
    told = str(raised.value)
    assert "\n" not in told and told.endswith(".")
    for word in words:
        assert word in told, told
    assert "create_commit" not in client.calls


@pytest.mark.parametrize("name", METHODS)
def test_what_the_stand_in_takes_the_real_client_takes(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (Uploads, HfApi))
    for key, parameter in ours.items():
        assert key in theirs, f"HfApi.{name} has no {key}"
        assert parameter.kind == theirs[key].kind and parameter.default == theirs[key].default, key
    assert {k for k, p in theirs.items() if p.default is p.empty} <= set(ours)


def test_a_push_is_one_commit_of_everything_and_its_manifest(folder: Path, uploads: Uploads) -> None:
    address = push(folder, REPO, client=uploads)
    assert address == f"https://hub.invalid/{REPO}/commit/{COMMIT}" and type(address) is str
    (commit,) = uploads.commits
    assert commit["added"] == [*sorted(model_files(folder)), "manifest.json"] and commit["deleted"] == []
    assert "README.md" in commit["added"] and commit["message"] == "Push test" and commit["revision"] is None
    for name in commit["added"]:
        assert (uploads.folder / name).read_bytes() == (folder / name).read_bytes()


def test_a_pushed_folder_pulled_from_the_hub_has_equal_weights(
    folder: Path, uploads: Uploads, hub: Hub, tmp_path: Path
) -> None:
    push(folder, REPO, client=uploads, message="for everyone")
    hub.folder = uploads.folder
    out = pull(REPO, tmp_path / "out", client=hub.api)
    assert manifest(out) == manifest(folder) and check(out) == sizes.config()
    found, wanted = (checkpoints.load(str(f), device=torch.device("cpu")) for f in (out, folder))
    assert set(found.captioners) == set(wanted.captioners) and len(found.captioners) == 3
    for name, captioner in wanted.captioners.items():
        for key, value in captioner.state_dict().items():
            assert torch.equal(found.captioners[name].state_dict()[key], value), (name, key)
    for part in ("clip", "sam", "prompts"):
        for key, value in getattr(wanted.frozen, part).state_dict().items():
            assert torch.equal(getattr(found.frozen, part).state_dict()[key], value), (part, key)


def test_a_mirror_on_a_disk_is_pushed_to_and_pulled_from(folder: Path, tmp_path: Path) -> None:
    address = push(folder, str(tmp_path / "my stick"))
    assert address == (tmp_path / "my stick").as_uri()
    out = pull(address, tmp_path / "out")
    assert manifest(out) == manifest(folder)
    with pytest.raises(UserError, match="the hub's"):
        push(folder, str(tmp_path / "stick"), private=True)


def test_nothing_is_published_by_a_slip(
    folder: Path, uploads: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stick" / "models").mkdir(parents=True)
    for repo in ("mirror", "stick/models", "a/b/c"):
        refused(folder, repo, uploads, f"./{repo}")
    assert uploads.calls == [] and not (folder / "manifest.json").exists()


def test_the_shipped_weights_go_out_and_come_back(root: Path, tmp_path: Path) -> None:
    shipped = root / "checkpoints" / "demo"
    if not (shipped / "config.json").is_file():
        pytest.skip("the demo weights are not in this checkout")
    own = Path(shutil.copytree(shipped, tmp_path / "demo"))
    text = (own / "README.md").read_text()
    push(own, str(tmp_path / "mirror"))
    out = pull(str(tmp_path / "mirror"), tmp_path / "out")
    assert (out / "README.md").read_text() == text, "a card that is there is kept"
    for name, path in model_files(shipped).items():
        assert (out / name).read_bytes() == path.read_bytes(), name


def test_weights_the_folder_no_longer_has_are_taken_off(folder: Path, uploads: Uploads) -> None:
    push(folder, REPO, client=uploads)
    (uploads.folder / "picture.png").write_bytes(b"")
    (uploads.folder / "clip" / "model-00002-of-00002.safetensors").write_bytes(b"")
    (uploads.folder / "clip" / "model.safetensors.index.json").write_bytes(b"")
    push(folder, REPO, client=uploads)
    wanted = ["clip/model-00002-of-00002.safetensors", "clip/model.safetensors.index.json"]
    assert uploads.commits[1]["deleted"] == wanted and (uploads.folder / "picture.png").exists()


def test_a_repository_of_something_else_is_left_alone(folder: Path, uploads: Uploads) -> None:
    uploads.folder.mkdir()
    (uploads.folder / "model.safetensors").write_bytes(b"")
    refused(folder, REPO, uploads, "another model", "new repository")


def test_private_stays_private(folder: Path, uploads: Uploads) -> None:
    push(folder, REPO, private=True, client=uploads)
    assert uploads.private
    uploads.private, uploads.calls = False, []
    refused(folder, REPO, uploads, "public", private=True)


def test_a_revision_is_a_branch(folder: Path, uploads: Uploads) -> None:
    push(folder, f"{REPO}@v2", client=uploads)
    assert "create_branch v2" in uploads.calls and uploads.commits[0]["revision"] == "v2"
    uploads.calls.clear()
    push(folder, REPO, revision="main", client=uploads)
    assert not any(call.startswith("create_branch") for call in uploads.calls)


def test_nothing_is_asked_of_the_hub_for_a_folder_that_may_not_leave(folder: Path, uploads: Uploads) -> None:
    (folder / "clip" / "old.pth").write_bytes(b"")
    refused(folder, REPO, uploads, "clip/old.pth", "code")
    (folder / "clip" / "old.pth").unlink()
    (folder / "sam" / "model.safetensors").unlink()
    refused(folder, REPO, uploads, "not whole", "sam/")
    assert uploads.calls == []


def response(status: int) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("POST", "https://hub.invalid/api/repos/create"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LocalTokenNotFoundError("no token"), "not logged in"),
        (HfHubHTTPError("401", response=response(401)), "hf auth login"),
        (HfHubHTTPError("403", response=response(403)), "may not write"),
        (RepositoryNotFoundError("404", response=response(404)), "no repository someone/models"),
        (ConnectionError("refused"), "cannot be reached"),
        (ValueError("Invalid metadata in README.md.\n- license is wrong"), "front matter of README.md"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(folder: Path, tmp_path: Path, error: Exception, words: str) -> None:
    refused(folder, REPO, Uploads(tmp_path / "r", error=error), words)


def test_the_card_says_what_is_in_the_folder_how_to_run_it_and_what_for(folder: Path) -> None:
    (folder / "training.json").write_text('{"pictures": {"phantoms": 1500}}')
    text = card(folder, check(folder), REPO)
    _, front, body = text.split("---\n", 2)
    fields = yaml.safe_load(front)
    assert fields["pipeline_tag"] == "image-to-text" and fields["library_name"] == "msmedcap" and fields["license"] == "other"
    assert "medical-imaging" in fields["tags"]
    assert "not for clinical use" in body and f"python -m msmedcap pull {REPO} --out models/models" in body
    assert "python -m msmedcap caption SCAN.dcm --models models/models" in body
    for name in sizes.config().systems:
        assert f"| {name} |" in body
    assert "CLIP (4 queries) and SAM (4 queries)" in body and "frozen" in body
    assert "| phantoms | 1,500 |" in body and "OPT-175B licence" in body
    count = sum(v.numel() for v in sizes.frozen().clip.state_dict().values())
    assert f"| `clip/` | CLIP-style vision transformer, 2 layers of width 32, 32 px; frozen | {count / 1e6:,.2f} |" in body
    assert str(folder) not in text


def test_the_card_says_which_systems_are_not_there(folder: Path) -> None:
    (folder / "systems" / "MSMedCap" / "config.json").unlink()
    assert "| MSMedCap | CLIP (4 queries) and SAM (4 queries) | not in this folder |" in card(folder, check(folder), REPO)


def test_the_card_says_what_the_segmenter_names(folder: Path) -> None:
    assert "What it segments" not in card(folder, check(folder), REPO)
    shipped = Path(__file__).parents[2] / "checkpoints" / "demo" / "segmenter"
    shutil.copytree(shipped, folder / "segmenter")
    text = card(folder, check(folder), REPO)
    names = json.loads((shipped / "config.json").read_text())["classes"]
    assert f"{len(names)} classes: Left Lung, Right Lung, " in text and "python -m msmedcap segment SCAN.dcm" in text
    assert "| `segmenter/` | SEG-SAM" in text
