"""Random views: the plain draw is the encoder's own view, both encoders see one geometry, masks and sides follow."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from msmedcap import systems
from msmedcap.config import ViewSpec
from msmedcap.data.store import SIDE, Augmentation, Draw, PictureStore, draw, random_masks, random_views
from msmedcap.data.views import ViewFrame, make_view

SPECS = {spec.name: spec for spec in systems.demo().views}
PLAIN = Augmentation(0.0, 0.0)
SHAPES = [(200, 340), (340, 200), (256, 256), (90, 130), (700, 500)]


def smooth(height: int, width: int) -> np.ndarray:
    """A picture without fine detail, so that two ways to resample it agree."""
    y, x = np.mgrid[:height, :width]
    grey = 128 + 60 * np.sin(2.5 * np.pi * x / width + 0.4) + 50 * np.cos(1.7 * np.pi * y / height)
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def square(height: int, width: int, y: float, x: float, share: float = 0.1) -> np.ndarray:
    """Black, with a white square around (x, y), both given as shares of the picture."""
    picture = np.zeros((height, width, 3), np.uint8)
    half = share * min(height, width) / 2
    rows = slice(round(y * height - half), round(y * height + half))
    picture[rows, round(x * width - half) : round(x * width + half)] = 255
    return picture


def luma(view: torch.Tensor, spec: ViewSpec) -> torch.Tensor:
    """A view [...,3,S,S] as grey between 0 and 1, padding included."""
    return (view[..., 0, :, :] * spec.std[0] + spec.mean[0]) / 255


def bright_centre(view: torch.Tensor, spec: ViewSpec) -> np.ndarray:
    grey = luma(view, spec)
    y, x = torch.nonzero(grey > 0.5 * (grey[view[0] != 0].max()), as_tuple=True)
    inside = view[0, y, x] != 0
    return np.array([(x[inside] + 0.5).mean(), (y[inside] + 0.5).mean()])


def flip_only(count: int, seed: int = 0) -> Draw:
    return draw(count, Augmentation(0.0, 1.0), seed)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_the_plain_draw_is_the_encoders_own_view(name: str, height: int, width: int) -> None:
    spec, picture = SPECS[name], smooth(height, width)
    store = PictureStore.of([picture])
    found = random_views(store, torch.tensor([0]), spec, draw(1, PLAIN, 0))[0]
    wanted = make_view(picture, spec)
    frame = ViewFrame(spec, height, width)
    inner = (slice(None), slice(2, frame.height - 2), slice(2, frame.width - 2))
    assert found.shape == wanted.shape
    assert (found - wanted)[inner].abs().max() < 6 / spec.std[0]  # six grey levels of 256
    assert (found - wanted)[inner].abs().mean() < 1.5 / spec.std[0]
    # The padding is exact zero in both; its border may lie one pixel apart.
    beyond = torch.zeros(spec.size, spec.size, dtype=torch.bool)
    beyond[frame.height + 1 :] = True
    beyond[:, frame.width + 1 :] = True
    assert not found[:, beyond].any() and not wanted[:, beyond].any()


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(("height", "width"), [(200, 340), (340, 200)])
def test_a_bright_square_lies_where_the_view_puts_it(name: str, height: int, width: int) -> None:
    spec = SPECS[name]
    store = PictureStore.of([square(height, width, 0.3, 0.7)])
    found = random_views(store, torch.tensor([0]), spec, draw(1, PLAIN, 0))[0]
    (wanted,) = ViewFrame(spec, height, width).points_to_view([[0.7 * width, 0.3 * height]])
    np.testing.assert_allclose(bright_centre(found, spec), wanted, atol=0.7)


@pytest.mark.parametrize("name", SPECS)
def test_a_mirrored_draw_is_the_mirrored_picture(name: str) -> None:
    spec, picture = SPECS[name], smooth(200, 340)
    chosen = flip_only(1)
    assert chosen.flipped.tolist() == [True]
    found = random_views(PictureStore.of([picture]), torch.tensor([0]), spec, chosen)
    wanted = random_views(PictureStore.of([picture[:, ::-1].copy()]), torch.tensor([0]), spec, draw(1, PLAIN, 0))
    inner = (..., slice(2, 140), slice(2, -2))
    assert (found - wanted)[inner].abs().max() < 6 / spec.std[0]


@pytest.mark.parametrize("seed", range(6))
def test_both_encoders_see_the_same_draw(seed: int) -> None:
    height, width = 220, 340
    store = PictureStore.of([square(height, width, 0.5, 0.45)])
    chosen = draw(1, Augmentation(1.0, 0.5), seed)
    chosen = dataclasses.replace(chosen, noise=torch.zeros(1), gamma=torch.ones(1), gain=torch.ones(1), shift=torch.zeros(1))
    places = []
    for spec in SPECS.values():
        view = random_views(store, torch.tensor([0]), spec, chosen)[0]
        places.append(ViewFrame(spec, height, width).points_to_picture([bright_centre(view, spec)])[0])
    np.testing.assert_allclose(places[0], places[1], atol=3.0)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("seed", range(6))
def test_masks_follow_their_views(name: str, seed: int) -> None:
    spec = SPECS[name]
    picture = square(220, 340, 0.45, 0.6, share=0.4)
    store = PictureStore.of([picture])
    chosen = draw(1, Augmentation(1.0, 0.5), seed)
    chosen = dataclasses.replace(chosen, noise=torch.zeros(1), gamma=torch.ones(1), gain=torch.ones(1), shift=torch.zeros(1))
    view = random_views(store, torch.tensor([0]), spec, chosen)
    coarse = torch.nn.functional.avg_pool2d(store.pixels[:, None].float() / 255, 2) > 0.5
    mask = random_masks(coarse, store.extent, spec, chosen)
    assert mask.shape == (1, 1, spec.size, spec.size) and mask.dtype == torch.bool
    bright = (luma(view, spec)[0] > 0.5) & (view[0, 0] != 0)
    overlap = (mask[0, 0] & bright).sum() / (mask[0, 0] | bright).sum()
    assert bright.sum() > 100 and overlap > 0.9


def test_mask_of_a_letterboxed_view_stays_off_the_padding() -> None:
    store = PictureStore.of([square(100, 320, 0.5, 0.5)])
    mask = random_masks(torch.ones(1, 1, 160, 160), store.extent, SPECS["sam"], draw(1, PLAIN, 0))
    assert mask[0, 0, :80].all() and not mask[0, 0, 81:].any()


def test_a_draw_is_a_function_of_its_seed() -> None:
    store = PictureStore.of([smooth(100, 150), smooth(150, 100)])
    rows = torch.tensor([1, 0, 1])
    one, again, other = (random_views(store, rows, SPECS["clip"], draw(3, Augmentation(), s)) for s in (5, 5, 6))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert not torch.equal(one[0], one[2])  # the same picture twice in a batch is drawn twice


def test_half_of_all_draws_are_mirrored_when_asked() -> None:
    assert 0.4 < draw(1000, Augmentation(1.0, 0.5), 0).flipped.float().mean() < 0.6
    assert not draw(1000, Augmentation(1.0, 0.0), 0).flipped.any()


@pytest.mark.parametrize("name", SPECS)
def test_a_view_is_never_brighter_than_white_nor_darker_than_black(name: str) -> None:
    spec = SPECS[name]
    store = PictureStore.of([smooth(300, 200)] * 16)
    views = random_views(store, torch.arange(16), spec, draw(16, Augmentation(), 3))
    low, high = ((v - torch.tensor(spec.mean)) / torch.tensor(spec.std) for v in (0.0, 255.0))
    assert (views >= low.view(1, 3, 1, 1) - 1e-4).all() and (views <= high.view(1, 3, 1, 1) + 1e-4).all()


def test_the_store_keeps_the_longest_side_and_the_shares() -> None:
    store = PictureStore.of([smooth(640, 320), smooth(80, 160)])
    assert store.pixels.shape == (2, SIDE, SIDE) and store.pixels.dtype == torch.uint8 and len(store) == 2
    torch.testing.assert_close(store.extent, torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
    assert store.pixels[0, :, : SIDE // 2].any() and not store.pixels[0, :, SIDE // 2 :].any()
    joined = PictureStore.join([store, PictureStore.of([smooth(50, 50)])])
    assert len(joined) == 3 and torch.equal(joined.pixels[:2], store.pixels)


def test_colour_is_stored_as_luma() -> None:
    picture = np.zeros((320, 320, 3), np.uint8)
    picture[..., 0], picture[..., 1] = 255, 100
    assert int(PictureStore.of([picture]).pixels[0, 5, 5]) == pytest.approx(0.299 * 255 + 0.587 * 100, abs=1)
    grey = np.full((320, 320), 77, np.uint8)
    assert int(PictureStore.of([grey]).pixels[0, 5, 5]) == 77
