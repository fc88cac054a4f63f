"""Our SAM image encoder is the published one: outputs, gradients, state dicts, in every width of number; and stays small."""

from __future__ import annotations

import copy

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.sam_encoder import published
from msmedcap import systems
from msmedcap.config import SamConfig
from msmedcap.models import sam_encoder
from msmedcap.models.sam_encoder import SamImageEncoder
from tests import sizes

# Windows that divide the grid and that do not; a grid wide enough for the bias to be laid down under the product.
CONFIGS = {
    "divided": SamConfig(hidden=32, layers=2, heads=2, global_layers=(1,), window=4, image_size=32, patch=4, out=16),
    "padded": SamConfig(hidden=32, layers=2, heads=2, global_layers=(1,), window=3, image_size=32, patch=4, out=16),
    "wide": SamConfig(hidden=24, layers=2, heads=3, global_layers=(1,), window=7, image_size=64, patch=2, out=16),
    "wide windows": SamConfig(hidden=24, layers=2, heads=3, global_layers=(1,), window=33, image_size=80, patch=2, out=16),
    "stem": SamConfig(hidden=32, layers=2, heads=2, global_layers=(1,), window=4, image_size=64, patch=8, out=16, stem="conv"),
}


def pair(config: SamConfig) -> tuple[SamImageEncoder, ImageEncoderViT]:
    """Ours and the published encoder with the same random weights, each its own copy."""
    ours = sizes.randomise(SamImageEncoder(config), 0)
    return ours, published(config, copy.deepcopy(ours))


def pictures(config: SamConfig, count: int = 2) -> Tensor:
    return torch.randn(count, 3, config.image_size, config.image_size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["as shipped", "in small pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything at once, as small grids go; and cut up as large ones are, with a remainder at each end."""
    if request.param == "in small pieces":
        monkeypatch.setattr(sam_encoder, "CHUNK", 3 * 32 * 32**2 // torch.get_num_threads())
        monkeypatch.setattr(sam_encoder, "STRIP", 1)
    return str(request.param)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_output_is_the_published_one(name: str, pieces: str) -> None:
    ours, theirs = pair(CONFIGS[name])
    x = pictures(CONFIGS[name])
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_are_the_published_ones(name: str, pieces: str) -> None:
    ours, theirs = pair(CONFIGS[name])
    x = pictures(CONFIGS[name])
    ours_x, theirs_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    weight = torch.randn(ours(x).shape, generator=torch.Generator().manual_seed(2))
    (ours(ours_x) * weight).sum().backward()
    (theirs(theirs_x) * weight).sum().backward()
    wanted = {key: p.grad for key, p in theirs.named_parameters()} | {"picture": theirs_x.grad}
    got = {key: p.grad for key, p in ours.named_parameters()} | {"picture": ours_x.grad}
    assert got.keys() == wanted.keys()
    for key, gradient in wanted.items():
        assert gradient is not None and gradient.abs().max() > 0, key
        torch.testing.assert_close(got[key], gradient, atol=1e-4 * gradient.abs().max().item(), rtol=1e-3)


@pytest.mark.parametrize("size", systems.SAM_SIZES)
def test_parameters_are_named_and_shaped_as_published(size: str) -> None:
    config = systems.SAM_SIZES[size]
    with torch.device("meta"):
        ours = SamImageEncoder(config)
    theirs = published(config, ours)  # a strict load
    assert [(k, v.shape) for k, v in ours.state_dict().items()] == [(k, ours.state_dict()[k].shape) for k in theirs.state_dict()]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["padded", "wide"])
@torch.no_grad()
def test_sixteen_bits_lose_no_more_than_the_published_encoder(name: str, dtype: torch.dtype) -> None:
    ours, theirs = pair(CONFIGS[name])
    x = pictures(CONFIGS[name], 4)
    truth = theirs(x)
    error = [(m.to(dtype)(x.to(dtype)).float() - truth).square().mean().sqrt().item() for m in (ours, theirs)]
    assert error[0] <= 1.05 * error[1]
    assert 0 < error[0] < 0.2


@torch.no_grad()
def test_a_batch_is_its_pictures(pieces: str) -> None:
    ours, _ = pair(CONFIGS["wide"])
    x = pictures(CONFIGS["wide"], 3)
    torch.testing.assert_close(ours(x), torch.cat([ours(one) for one in x.split(1)]), atol=1e-5, rtol=1e-5)


def test_autocast_gives_the_published_features() -> None:
    ours, theirs = pair(CONFIGS["wide"])
    x = pictures(CONFIGS["wide"])
    with torch.no_grad():
        truth = theirs(x)
    for recorded in (True, False):
        with torch.set_grad_enabled(recorded), torch.autocast("cpu", dtype=torch.bfloat16):
            error = (ours(x).float() - truth).detach().square().mean().sqrt()
        assert 0 < error < 0.1


@torch.no_grad()
def test_other_picture_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="takes pictures of 32x32, not 48x32"):
        SamImageEncoder(CONFIGS["padded"])(torch.zeros(1, 3, 48, 32))


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return result


@pytest.mark.parametrize("recorded", [True, False])
def test_the_scores_of_a_large_grid_never_exist_at_once(recorded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIGS["wide"]
    monkeypatch.setattr(sam_encoder, "CHUNK", 2**17 // torch.get_num_threads())
    ours, theirs = pair(config)
    scores = config.heads * 32**4
    for model, fits in ((theirs, False), (ours, True)):
        with torch.set_grad_enabled(recorded), Largest() as largest:
            out = model(pictures(config, 1))
            if recorded:
                out.sum().backward()
        assert (largest.elements < scores / 8) is fits


@torch.no_grad()
def test_window_padding_is_not_projected(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIGS["padded"]
    rows: list[int] = []
    linear = F.linear

    def counted(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if weight.shape == (3 * config.hidden, config.hidden):
            rows.append(x.numel() // config.hidden)
        return linear(x, weight, bias)

    ours, theirs = pair(config)
    monkeypatch.setattr(F, "linear", counted)
    ours(pictures(config, 1))
    assert rows == [64, 64]
    rows.clear()
    theirs(pictures(config, 1))
    assert rows == [81, 64]


@torch.no_grad()
def test_the_fused_kernel_computes_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(6, 25, width, generator=generator) for width in (18, 18, 12))
    wanted = (q @ k.mT).softmax(2) @ v
    torch.testing.assert_close(sam_encoder._fused(q, k, v), wanted)
    torch.testing.assert_close(sam_encoder._by_squares(q, k, v), wanted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CONFIGS)
def test_cuda_computes_the_same(name: str) -> None:
    ours, theirs = pair(CONFIGS[name])
    x = pictures(CONFIGS[name])
    torch.testing.assert_close(ours.cuda()(x.cuda()).cpu(), theirs(x), atol=1e-4, rtol=1e-4)
    ours(x.cuda()).sum().backward()
    theirs(x).sum().backward()
    for (key, mine), published_one in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        scale = published_one.grad.abs().max().item()
        torch.testing.assert_close(mine.grad.cpu(), published_one.grad, atol=1e-3 * scale + 1e-5, rtol=1e-2, msg=key)
