"""The plan that loading makes first: its numbers against modules that are loaded, its refusals, and whose limits it heeds."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from msmedcap import memory, systems
from msmedcap.checkpoints import load
from msmedcap.config import UserError
from msmedcap.memory import Choice, Facts, plan
from msmedcap.models.clip import ClipEncoder
from msmedcap.models.sam import SamEncoder, SamPrompts
from msmedcap.models.weights import empty
from tests import sizes

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
GB = 1_000_000_000


@pytest.fixture(scope="module")
def full() -> Facts:
    """The published scale, from shapes alone."""
    config = systems.full()
    opt = OPTConfig(
        vocab_size=50272, hidden_size=2560, ffn_dim=10240, num_hidden_layers=32, num_attention_heads=32, word_embed_proj_dim=2560
    )
    parts = {
        "clip": empty(lambda: ClipEncoder(config.clip)).state_dict(),
        "sam": empty(lambda: SamEncoder(config.sam)).state_dict(),
        "sam_prompts": empty(lambda: SamPrompts(config.sam)).state_dict(),
        "opt": dict(empty(lambda: OPTForCausalLM(opt)).named_parameters()),
    }
    shapes = {part: {name: tuple(value.shape) for name, value in state.items()} for part, state in parts.items()}
    shapes |= {f"systems/{name}": {"weights": (100_000_000,)} for name in systems.SYSTEMS}
    return Facts("checkpoints/full", config, shapes)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What is free on each kind of device, for a test to change."""
    free = {"cuda": 80 * GB, "cpu": 24 * GB}
    monkeypatch.setattr(memory, "free_bytes", lambda device: free[device.type])
    return free


def placed(found: memory.Plan) -> dict[str, tuple[str, str]]:
    return {item.part: (item.device, item.dtype) for item in found.items}


def test_the_published_scale_on_a_gpu(full: Facts, room: dict[str, int]) -> None:
    found = plan(full, Choice(CUDA))
    assert found.fits and found.layout is None
    found.check()
    assert placed(found) == {
        "clip": ("cuda:0", "bf16"),
        "sam": ("cuda:0", "bf16"),
        "opt": ("cuda:0", "bf16"),
        "sam_prompts": ("cuda:0", "fp32"),
        **{f"systems/{name}": ("cuda:0", "fp32") for name in systems.SYSTEMS},
        "working memory (fast)": ("cuda:0", ""),
    }
    # ViT-g 0.99, SAM ViT-H 0.64 and OPT 2.65 thousand million weights at two bytes, three systems at four.
    assert found.needs["cuda:0"] == pytest.approx(2 * (0.986 + 0.637 + 2.652) * GB + 3 * 0.4 * GB, rel=0.1)
    table = found.table()
    assert "cuda:0: " in table and "of 80.0 GB free" in table and table.count("\n") == len(found.items) + 2
    assert "The preset paper works in" in table


def test_8_bit_halves_the_decoder_alone(full: Facts, room: dict[str, int]) -> None:
    shapes = full.parts["opt"]
    whole, eight = (memory.opt_bytes(shapes, torch.bfloat16, load_8bit=on) for on in (False, True))
    tables = 2 * 2560 * (50272 + 2050)
    assert eight - tables == pytest.approx((whole - tables) / 2, rel=0.01)
    saved = plan(full, Choice(CUDA)).needs["cuda:0"] - plan(full, Choice(CUDA, load_8bit=True)).needs["cuda:0"]
    assert saved == whole - eight


def test_a_cpu_runs_small_models_in_fp32_and_large_ones_in_bf16(full: Facts, room: dict[str, int]) -> None:
    assert plan(full, Choice(CPU)).dtype == torch.bfloat16
    small = dataclasses.replace(full, parts={**full.parts, "clip": {}, "sam": {}, "opt": sizes_of_small_opt()})
    assert plan(small, Choice(CPU)).dtype == torch.float32
    assert plan(small, Choice(CUDA)).dtype == torch.bfloat16


def sizes_of_small_opt() -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in sizes.opt().model.named_parameters()}


def test_the_head_that_is_packed_on_a_cpu_is_counted(full: Facts, room: dict[str, int]) -> None:
    copies = {i.part: i.bytes for i in plan(full, Choice(CPU)).items if "copy" in i.part}
    assert copies == {"working copy (head)": 2 * 50272 * 2560}
    assert not [i for i in plan(full, Choice(CUDA)).items if "copy" in i.part]


def test_what_does_not_fit_is_refused_with_the_options_that_do(full: Facts, room: dict[str, int]) -> None:
    room["cuda"] = 9 * GB
    found = plan(full, Choice(CUDA))
    assert not found.fits
    with pytest.raises(UserError) as raised:
        found.check()
    told = str(raised.value)
    assert "\n" not in told and told.endswith(".") and "GB on cuda:0, where 9.0 GB are free" in told
    assert "--load-8bit would need" in told and "--offload would need" in told and "on cuda:0 and" in told
    assert "--device cpu would need" in told and "of 24.0 GB on cpu" in told
    assert "nothing would fit" not in told
    for option in (Choice(CUDA, load_8bit=True), Choice(CUDA, offload=True), Choice(CPU)):
        assert plan(full, option).fits
    # A smaller SAM alone saves 1 GB of 10.5: it would not fit, and is not offered.
    assert "convert sam" not in told


def test_a_smaller_sam_is_offered_where_it_is_enough(full: Facts, room: dict[str, int]) -> None:
    room["cuda"] = plan(full, Choice(CUDA)).needs["cuda:0"] - GB // 2
    with pytest.raises(UserError, match="convert sam facebook/sam-vit-base --out checkpoints/full"):
        plan(full, Choice(CUDA)).check()


def test_where_nothing_fits_every_option_tells_its_need(full: Facts, room: dict[str, int]) -> None:
    room.update(cuda=GB, cpu=GB)
    with pytest.raises(UserError, match="nothing would fit here; --load-8bit would need"):
        plan(full, Choice(CUDA)).check()


def test_offloading_fills_the_device_then_the_host_then_the_disk(full: Facts, room: dict[str, int]) -> None:
    for gpu, host, where in ((80, 24, {"cuda:0"}), (8, 24, {"cuda:0", "cpu"}), (8, 1, {"cuda:0", "cpu", "disk"})):
        room.update(cuda=gpu * GB, cpu=host * GB)
        found = plan(full, Choice(CUDA, offload=True))
        assert found.fits, (gpu, host)
        layout = found.layout or {"model.decoder.layers.0": "cuda:0"}
        assert set(layout.values()) == where
        if found.layout:
            layers = [layout[f"model.decoder.layers.{i}"] for i in range(32)]
            assert layers == sorted(layers, key=["cuda:0", "cpu", "disk"].index)
            assert len(layout) == 32 + 4  # tokens, positions, the last norm and the head, which never leave the device
            assert all(device == "cuda:0" for name, device in layout.items() if ".layers." not in name)
            assert found.needs["cuda:0"] > 0.85 * room["cuda"]
    room.update(cuda=GB)
    assert not plan(full, Choice(CUDA, offload=True)).fits


def test_the_estimate_of_working_memory_grows_with_what_is_asked(full: Facts) -> None:
    fast, paper = (memory.working_bytes(full, torch.bfloat16, preset) for preset in ("fast", "paper"))
    # 45 beams of up to 130 positions with keys and values of 32 layers of width 2560.
    assert paper > 45 * 130 * 2 * 32 * 2560 * 2 > fast > 0


def test_the_plan_of_large_models_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sizes.write_folder(tmp_path)
    with caplog.at_level(logging.INFO, logger="msmedcap"):
        load(str(folder), device=CPU)
        assert not caplog.records
        monkeypatch.setattr(memory, "SMALL", 1000)
        models = load(str(folder), device=CPU)
    assert models.plan.table() in caplog.text


def group(folder: Path, limit: str, used: str, stat: str, names: tuple[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip((*names, "memory.stat"), (limit, used, stat), strict=True):
        (folder / name).write_text(text)


V1, V2 = ("memory.limit_in_bytes", "memory.usage_in_bytes"), ("memory.max", "memory.current")


def test_limits_of_control_groups_are_heeded(tmp_path: Path) -> None:
    mine = tmp_path / "cgroup"
    mine.write_text("0::/jobs/one\n")
    group(tmp_path / "jobs" / "one", "max\n", "5\n", "inactive_file 1\n", V2)
    group(tmp_path / "jobs", "1000\n", "400\n", "anon 7\ninactive_file 100\n", V2)
    assert memory.limits(tmp_path, mine) == [700]
    mine.write_text("7:cpu:/\n4:memory:/box\n")
    group(tmp_path / "memory" / "box", "9223372036854771712\n", "400\n", "total_inactive_file 0\n", V1)
    group(tmp_path / "memory", "5000\n", "400\n", "total_inactive_file 50\n", V1)
    assert memory.limits(tmp_path, mine) == [4650]
    mine.write_text("4:memory:/gone\n")  # the host's name for a container's own group
    assert memory.limits(tmp_path, mine) == [4650]
    assert memory.limits(tmp_path, tmp_path / "none") == []


def test_free_memory_is_the_least_of_machine_and_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "limits", lambda: [])
    machine = memory.free_bytes(CPU)
    assert machine > 10_000_000
    monkeypatch.setattr(memory, "limits", lambda: [12_345])
    assert memory.free_bytes(CPU) == 12_345


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_free_memory_of_a_gpu() -> None:
    before = memory.free_bytes(torch.device("cuda"))
    held = torch.empty(100_000_000, dtype=torch.uint8, device="cuda")
    assert 90_000_000 < before - memory.free_bytes(torch.device("cuda")) < 200_000_000
    del held


def test_sizes_are_told_in_words() -> None:
    assert [memory.size(n) for n in (17_360_000_000, 240_000_000, 12_340_000)] == ["17.4 GB", "0.2 GB", "12.3 MB"]
