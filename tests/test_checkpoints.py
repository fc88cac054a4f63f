"""Model folders: what was saved is what is loaded, and nothing else is."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from msmedcap import checkpoints, memory
from msmedcap.checkpoints import INDEX, WEIGHTS, Frozen, load, load_into, read_weights, save_weights
from msmedcap.config import Decoding, UserError, to_json
from msmedcap.models import weights
from msmedcap.models.clip import ClipEncoder
from msmedcap.models.weights import owned_bytes
from msmedcap.systems import SYSTEMS
from tests import sizes

CPU = torch.device("cpu")
SYSTEM = "MSMedCap"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sizes.write_folder(tmp_path_factory.mktemp("models"))


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    return Path(shutil.copytree(written, tmp_path / "models"))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(folder: Path, *words: str) -> None:
    """Loading raises one sentence with all of ``words`` in it."""
    with pytest.raises(UserError) as raised:
        load(str(folder), device=CPU)
    told = str(raised.value)
    assert "\n" not in told and told.endswith(".")
    for word in words:
        assert word in told


def test_a_folder_loads_as_it_was_built(written: Path) -> None:
    models = load(str(written), device=CPU)
    assert models.config == sizes.config()
    assert tuple(models.captioners) == tuple(SYSTEMS) and models.missing == {}
    built = sizes.frozen()
    for found, wanted in ((models.frozen.clip, built.clip), (models.frozen.sam, built.sam), (models.frozen.prompts, built.prompts)):
        for key, value in wanted.state_dict().items():
            assert torch.equal(found.state_dict()[key], value.half().float() if value.is_floating_point() else value), key
        assert not found.training and not any(p.requires_grad for p in found.parameters())
    for seed, name in enumerate(SYSTEMS):
        found, wanted = models.captioners[name], sizes.captioner(name, built, seed=seed)
        assert not found.training
        for key, value in wanted.state_dict().items():
            assert torch.equal(found.state_dict()[key], value.half().float()), key


def test_captions_are_the_same_after_another_round_trip(written: Path, tmp_path: Path) -> None:
    models = load(str(written), device=CPU)
    captioner, decoding = models.captioners[SYSTEM], Decoding(prompt="The scan shows:", max_new_tokens=8)
    features = captioner.encode(sizes.views(4))
    said = captioner.generate(features, decoding)
    checkpoints.save_system(captioner, SYSTEM, tmp_path / SYSTEM)
    again = checkpoints.load_system(tmp_path / SYSTEM, models.config, models.frozen).eval()
    assert again.generate(features, decoding) == said
    for key, value in captioner.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_frozen_parts_are_loaded_once_and_shared(written: Path) -> None:
    models = load(str(written), device=CPU)
    for captioner in models.captioners.values():
        assert captioner.opt is models.frozen.opt
        for name, branch in captioner.named_branches():
            assert branch.encoder is models.frozen.encoder(name)


def test_weights_on_disk_are_16_bit_and_only_what_was_trained(written: Path) -> None:
    for name, branches in SYSTEMS.items():
        state = load_file(written / "systems" / name / WEIGHTS)
        assert {v.dtype for v in state.values()} == {torch.float16}
        assert {k.split(".")[1] for k in state} == set(branches)
        assert not any("encoder.image" in k or "vision" in k or "decoder" in k for k in state)


class Wide(nn.Module):
    """26 MB in 16 bit, in many tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(1024, 1024, bias=False) for _ in range(13))


def test_shards_stay_below_nine_megabytes(tmp_path: Path) -> None:
    wide = sizes.randomise(Wide(), 0)
    save_weights(wide.state_dict(), tmp_path)
    files = list(tmp_path.iterdir())
    assert len([f for f in files if f.suffix == ".safetensors"]) >= 3
    assert all(f.stat().st_size < 9_000_000 for f in files)
    again = Wide()
    load_into(again, tmp_path)
    for key, value in wide.state_dict().items():
        assert torch.equal(again.state_dict()[key], value.half().float())


def test_what_lay_there_before_is_replaced(tmp_path: Path) -> None:
    save_weights(Wide().state_dict(), tmp_path)
    small = nn.Linear(2, 2)
    save_weights(small.state_dict(), tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == [WEIGHTS]
    assert read_weights(tmp_path).keys() == small.state_dict().keys()


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    save_weights(Wide().state_dict(), tmp_path)
    sorted(tmp_path.glob("*.safetensors"))[1].unlink()
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        load_into(Wide(), tmp_path)


def test_whole_numbers_are_kept_as_they_are(tmp_path: Path) -> None:
    norm = nn.BatchNorm2d(3)
    norm.num_batches_tracked.fill_(100_001)  # not a number 16-bit floats know
    save_weights(norm.state_dict(), tmp_path)
    again = nn.BatchNorm2d(3)
    load_into(again, tmp_path)
    assert int(again.num_batches_tracked) == 100_001


KEY = "branches.clip.qformer.query_tokens"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("unknown", "has unknown ['branches.clip.extra']"),
        ("missing", f"lacks ['{KEY}']"),
        ("shape", f"has wrong shapes for ['{KEY}']"),
    ],
)
def test_every_key_must_fit(folder: Path, change: str, told: str) -> None:
    file = folder / "systems" / SYSTEM / WEIGHTS
    state = load_file(file)
    if change == "unknown":
        state["branches.clip.extra"] = torch.zeros(2)
    elif change == "missing":
        del state[KEY]
    else:
        state[KEY] = state[KEY][:, :1].clone()
    save_file(state, file)
    refused(folder, told, str(file.parent))


@pytest.mark.parametrize("part", ["clip", "sam", "sam_prompts", "systems/BLIP2"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "gone"])
def test_a_damaged_or_missing_weight_file_is_one_sentence(folder: Path, part: str, damage: str) -> None:
    file = folder / part / WEIGHTS
    whole = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes({"cut": whole[: len(whole) // 2], "garbage": b"\x80\x04pickle" * 99, "empty": b""}[damage])
    refused(folder, str(folder / part))


def test_a_damaged_index_is_one_sentence(tmp_path: Path) -> None:
    save_weights(Wide().state_dict(), tmp_path)
    for text in ("{", "{}", "[]", '{"weight_map": 3}'):
        (tmp_path / INDEX).write_text(text)
        with pytest.raises(UserError, match=re.escape(str(tmp_path))):
            read_weights(tmp_path)


def test_without_a_language_model_nothing_loads(folder: Path) -> None:
    shutil.rmtree(folder / "opt")
    refused(folder, "opt", "python -m msmedcap demo-weights")


@pytest.mark.parametrize(
    ("part", "kept"), [("clip", ("SAM-BLIP2",)), ("sam", ("BLIP2",)), ("sam_prompts", tuple(SYSTEMS))]
)
def test_a_missing_part_takes_only_what_needs_it(folder: Path, part: str, kept: tuple[str, ...]) -> None:
    shutil.rmtree(folder / part)
    models = load(str(folder), device=CPU)
    assert tuple(models.captioners) == kept and tuple(models.missing) == tuple(n for n in SYSTEMS if n not in kept)
    for name, told in models.missing.items():
        assert name in told and part in told and "python -m msmedcap demo-weights" in told and "\n" not in told
    assert not models.frozen.has(part)
    with pytest.raises(UserError, match="python -m msmedcap demo-weights"):
        _ = models.frozen.prompts if part == "sam_prompts" else models.frozen.encoder(part)


def published(tmp_path: Path) -> Path:
    """What a conversion of BLIP-2 makes, at test size: published stems, no SAM, one system."""
    config = sizes.config()
    config = dataclasses.replace(
        config, clip=dataclasses.replace(config.clip, stem="patch"), sam=dataclasses.replace(config.sam, stem="patch", hidden=768)
    )
    parts = Frozen(sizes.randomise(ClipEncoder(config.clip), 1), None, None, sizes.opt())
    save_weights(parts.clip.state_dict(), tmp_path / "clip")
    parts.opt.model.save_pretrained(tmp_path / "opt")
    parts.opt.tokenizer.save_pretrained(tmp_path / "opt")
    checkpoints.save_system(sizes.captioner("BLIP2", parts), "BLIP2", tmp_path / "systems" / "BLIP2")
    (tmp_path / "config.json").write_text(to_json(config))
    return tmp_path


def test_a_converted_blip2_loads_and_says_what_makes_the_rest(tmp_path: Path) -> None:
    folder = published(tmp_path)
    models = load(str(folder), device=CPU)
    assert tuple(models.captioners) == ("BLIP2",)
    for name in ("MSMedCap", "SAM-BLIP2"):
        wanted = f"python -m msmedcap convert lavis CHECKPOINT.pth --sam-size b --out {folder}"
        assert wanted in models.missing[name]
        save_weights({}, folder / "systems" / name)
        (folder / "systems" / name / "config.json").write_text("{}")
    again = load(str(folder), device=CPU)
    for name in ("MSMedCap", "SAM-BLIP2"):
        assert f"python -m msmedcap convert sam facebook/sam-vit-base --out {folder}" in again.missing[name]
    shutil.rmtree(folder / "opt")
    refused(folder, f"python -m msmedcap convert hub Salesforce/blip2-opt-2.7b --out {folder}")


def test_the_full_models_say_how_they_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path)
    with pytest.raises(UserError, match="convert hub Salesforce/blip2-opt-2.7b --out checkpoints/full"):
        load("full", device=CPU)


def test_large_frozen_parts_run_in_bf16_and_trained_ones_in_fp32(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SMALL", 0)
    models = load(str(written), device=CPU)
    for part in (models.frozen.clip, models.frozen.sam, models.frozen.opt):
        assert {p.dtype for p in part.parameters()} == {torch.bfloat16}
    for part in (models.frozen.prompts, *models.captioners.values()):
        assert {p.dtype for p in part.parameters()} == {torch.float32}
    views = {name: view.bfloat16() for name, view in sizes.views(2).items()}
    captioner = models.captioners[SYSTEM]
    features = {name: tokens.float() for name, tokens in captioner.encode(views).items()}
    assert len(captioner.generate(features, Decoding(prompt="The scan shows:", max_new_tokens=4))) == 2
    grid = models.frozen.sam(views["sam"]).float()
    masks, _ = models.frozen.prompts(grid, boxes=torch.tensor([[1.0, 2.0, 30.0, 40.0]] * 2))
    assert torch.isfinite(masks).all()
    # At another size than the position table's, as the authors' preset has it.
    assert torch.isfinite(models.frozen.clip(torch.zeros(1, 3, 48, 48, dtype=torch.bfloat16))).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_frozen_parts_run_in_bf16(written: Path) -> None:
    models = load(str(written), device=torch.device("cuda"))
    wanted = {models.frozen.clip: torch.bfloat16, models.frozen.opt: torch.bfloat16, models.frozen.prompts: torch.float32}
    for part, dtype in wanted.items():
        assert {(p.dtype, p.device.type) for p in part.parameters()} == {(dtype, "cuda")}
    for captioner in models.captioners.values():
        assert {(p.dtype, p.device.type) for p in captioner.parameters()} == {(torch.float32, "cuda")}


def test_the_plan_is_what_loading_takes(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (memory.SMALL, 0):
        monkeypatch.setattr(memory, "SMALL", limit)
        monkeypatch.setattr(checkpoints, "pack", lambda model: 0)  # packed, a weight no longer shows what it takes
        models = load(str(written), device=CPU)
        frozen = models.frozen
        taken = {"clip": frozen.clip, "sam": frozen.sam, "sam_prompts": frozen.prompts, "opt": frozen.opt}
        taken |= {f"systems/{name}": captioner for name, captioner in models.captioners.items()}
        planned = {item.part: item.bytes for item in models.plan.items if not item.part.startswith("working")}
        assert {name: owned_bytes(part) for name, part in taken.items()} == pytest.approx(planned, rel=1e-3)


def test_what_does_not_fit_is_refused_before_a_weight_is_read(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1_000_000)
    monkeypatch.setattr(weights, "tensor", None)
    refused(written, "1.0 MB are free", "--load-8bit would need")


def test_in_8_bit_the_rest_is_the_same_and_the_16_bit_model_is_at_hand(written: Path) -> None:
    whole = load(str(written), device=CPU)
    assert whole.fallback() is None
    models = load(str(written), device=CPU, load_8bit=True)
    linear = {m.weight.dtype for m in models.frozen.opt.model.model.decoder.layers.modules() if isinstance(m, nn.Linear)}
    assert linear == {torch.int8}
    assert models.frozen.opt.model.lm_head.weight.dtype == torch.float32
    spare = models.fallback()
    assert spare is not None and models.fallback() is spare and spare is not models.frozen.opt
    for key, value in whole.frozen.opt.state_dict().items():
        assert torch.equal(spare.state_dict()[key], value)


def test_without_room_there_is_no_spare(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = load(str(written), device=CPU, load_8bit=True)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    assert models.fallback() is None


def test_offloaded_to_the_disk_it_says_the_same(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load(str(written), device=CPU)
    features = whole.captioners[SYSTEM].encode(sizes.views(3))
    planned = whole.plan.needs["cpu"]
    layer = 4 * sum(p.numel() for p in whole.frozen.opt.model.model.decoder.layers[0].parameters())
    monkeypatch.setattr(memory, "free_bytes", lambda device: planned - layer // 2)
    refused(written, "--offload would need")
    models = load(str(written), device=CPU, offload=True)
    assert "disk" in models.plan.layout.values() and "opt, offloaded" in models.plan.table()
    assert any(p.is_meta for p in models.frozen.opt.parameters())
    decoding = Decoding(prompt="The scan shows:", max_new_tokens=4)
    wanted = whole.captioners[SYSTEM].generate(features, decoding)
    assert models.captioners[SYSTEM].generate(features, decoding) == wanted
    loss = models.captioners[SYSTEM].loss(features, ["A mass."] * 3, "The scan shows:")
    torch.testing.assert_close(loss, whole.captioners[SYSTEM].loss(features, ["A mass."] * 3, "The scan shows:"))


def test_8_bit_is_not_offloaded(written: Path) -> None:
    with pytest.raises(UserError, match="one of --load-8bit and --offload"):
        load(str(written), device=CPU, load_8bit=True, offload=True)


def test_no_folder_and_no_config(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere")
    refused(tmp_path, "config.json")


def test_an_unknown_config_key_is_named(folder: Path) -> None:
    edit_json(folder / "config.json", colour="blue")
    refused(folder, "colour")


def test_an_unknown_key_of_a_systems_config_is_named(folder: Path) -> None:
    edit_json(folder / "systems" / SYSTEM / "config.json", colour="blue")
    refused(folder, "colour")


def test_a_config_that_is_no_json(folder: Path) -> None:
    for junk in (b"{", b"\xff\xfe\x00\x01"):
        (folder / "config.json").write_bytes(junk)
        refused(folder, "config.json")


def test_a_system_with_other_branches_than_its_name_says(folder: Path) -> None:
    shutil.rmtree(folder / "systems" / "BLIP2")
    shutil.copytree(folder / "systems" / SYSTEM, folder / "systems" / "BLIP2")
    edit_json(folder / "systems" / "BLIP2" / "config.json", name="BLIP2")
    refused(folder, "BLIP2", "clip", "sam")


def test_a_system_without_weights_is_told_apart_and_the_others_load(folder: Path) -> None:
    shutil.rmtree(folder / "systems" / "SAM-BLIP2")
    models = load(str(folder), device=CPU)
    assert tuple(models.captioners) == ("MSMedCap", "BLIP2")
    assert "demo-weights" in models.missing["SAM-BLIP2"]
