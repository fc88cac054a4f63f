"""OPT from disk: in 8 bit, with layers on the disk, and without a word from the libraries."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from msmedcap.config import Decoding, UserError
from msmedcap.models.opt import Opt
from msmedcap.models.opt_loading import build_opt, load_opt, source_shapes
from msmedcap.models.weights import owned_bytes
from tests import sizes

CPU = torch.device("cpu")
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = [CPU, pytest.param(torch.device("cuda"), marks=on_cuda)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OPT wide enough that its tables do not outweigh its layers."""
    folder = tmp_path_factory.mktemp("opt")
    tokenizer = sizes.tokenizer()
    model = sizes.randomise(build_opt(len(tokenizer), hidden=256, layers=2, heads=4, positions=64), 1, scale=0.08)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def prefixes(opt: Opt) -> torch.Tensor:
    drawn = torch.randn(3, 5, opt.width, generator=torch.Generator().manual_seed(2))
    return drawn.to(opt.model.device, opt.model.dtype)


@pytest.mark.parametrize("device", DEVICES)
def test_8_bit_is_for_the_decoders_matrices_alone(folder: Path, device: torch.device) -> None:
    whole, eight = (load_opt(folder, dtype=torch.bfloat16, device=device, load_8bit=on) for on in (False, True))
    kinds = {name: m.weight.dtype for name, m in eight.model.named_modules() if isinstance(m, (nn.Linear, nn.Embedding))}
    assert {kind for name, kind in kinds.items() if ".layers." in name} == {torch.int8}
    assert {kind for name, kind in kinds.items() if ".layers." not in name} == {torch.bfloat16}
    assert eight.model.lm_head.weight is eight.model.get_input_embeddings().weight
    assert not any(p.is_meta or p.requires_grad for p in eight.parameters())
    layers = [opt.model.model.decoder.layers for opt in (whole, eight)]
    assert owned_bytes(layers[1]) < 0.52 * owned_bytes(layers[0])


@pytest.mark.parametrize("device", DEVICES)
@torch.no_grad()
def test_8_bit_is_close_to_the_whole(folder: Path, device: torch.device) -> None:
    whole, eight = (load_opt(folder, dtype=torch.float32, device=device, load_8bit=on) for on in (False, True))
    wanted, found = (opt.model(inputs_embeds=prefixes(opt)).logits.float() for opt in (whole, eight))
    assert 0 < (found - wanted).norm() / wanted.norm() < 0.05
    assert (found.argmax(-1) == wanted.argmax(-1)).float().mean() > 0.8
    captions = list(sizes.CAPTIONS[:3])
    torch.testing.assert_close(eight.loss(prefixes(eight), captions), whole.loss(prefixes(whole), captions), rtol=0.02, atol=0)
    # The weights are still one copy after use.
    assert owned_bytes(eight) == owned_bytes(load_opt(folder, dtype=torch.float32, device=device, load_8bit=True))


def test_8_bit_is_silent(folder: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.DEBUG):
        opt = load_opt(folder, dtype=torch.float32, device=CPU, load_8bit=True)
        assert len(opt.generate(list(prefixes(opt)), Decoding(max_new_tokens=4))) == 3
    assert not [record for record in caplog.records if record.name.startswith("bitsandbytes")]
    assert "cast" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("beams", [1, 3])
def test_layers_may_lie_on_the_disk(folder: Path, beams: int) -> None:
    decoding = Decoding(beams=beams, max_new_tokens=6)
    shapes = source_shapes(folder)
    layout: dict[str, str | int] = {name.rpartition(".")[0]: "cpu" for name in shapes if ".layers." not in name}
    layout |= {"lm_head": "cpu", "model.decoder.layers.0": "cpu", "model.decoder.layers.1": "disk"}
    whole = load_opt(folder, dtype=torch.float32, device=CPU)
    apart = load_opt(folder, dtype=torch.float32, device=CPU, device_map=layout)
    assert {p.is_meta for p in apart.model.model.decoder.layers[1].parameters()} == {True}
    assert apart.model.device == CPU
    for _ in range(2):
        assert apart.generate(list(prefixes(apart)), decoding) == whole.generate(list(prefixes(whole)), decoding)
    assert {p.is_meta for p in apart.model.model.decoder.layers[1].parameters()} == {True}
    with pytest.raises(UserError, match="one of"):
        load_opt(folder, dtype=torch.float32, device=CPU, load_8bit=True, device_map=layout)


def test_shapes_are_those_of_the_weights(folder: Path) -> None:
    opt = load_opt(folder, dtype=torch.float32, device=CPU)
    assert source_shapes(folder) == {name: tuple(value.shape) for name, value in opt.model.named_parameters()}
    assert "lm_head.weight" not in source_shapes(folder)
    (folder.parent / "none").mkdir(exist_ok=True)
    with pytest.raises(UserError, match="none"):
        source_shapes(folder.parent / "none")


def test_a_head_of_its_own_may_stand_beside_the_table_it_is_tied_to(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(folder / "model.safetensors")
    state["lm_head.weight"] = state["model.decoder.embed_tokens.weight"].clone()
    save_file(state, tmp_path / "model.safetensors")
    again = load_opt(tmp_path, dtype=torch.float32, device=CPU)
    assert again.model.lm_head.weight is again.model.get_input_embeddings().weight
    # What says another thing than the table is no head of this model.
    save_file(state | {"lm_head.weight": state["lm_head.weight"] + 1}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="lm_head.weight"):
        load_opt(tmp_path, dtype=torch.float32, device=CPU)
