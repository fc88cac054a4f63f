"""Views match what the published encoders were given, and everything finds its way back to the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything.utils.transforms import ResizeLongestSide

from msmedcap.config import UserError, ViewSpec
from msmedcap.data.views import ViewFrame, make_view

CLIP_MEAN, CLIP_STD = (122.7709383, 116.7460125, 104.0937362), (68.5005327, 66.6321579, 70.3231630)
SAM_MEAN, SAM_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SQUASH = ViewSpec("clip", 224, "squash", CLIP_MEAN, CLIP_STD)
LETTERBOX = ViewSpec("sam", 1024, "letterbox", SAM_MEAN, SAM_STD)
SIZES = [(97, 61), (61, 97), (64, 64), (301, 450), (1200, 777), (1, 9)]


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smaller(spec: ViewSpec, size: int) -> ViewSpec:
    return ViewSpec(spec.name, size, spec.fit, spec.mean, spec.std, spec.grey)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("size", [224, 364])
def test_squash_is_the_hub_processing_of_blip(height: int, width: int, size: int) -> None:
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    processor = BlipImageProcessorPil(size={"height": size, "width": size})
    picture = scene(height, width)
    wanted = processor(picture, input_data_format="channels_last", return_tensors="pt").pixel_values[0]
    view = make_view(picture, smaller(SQUASH, size))
    assert view.shape == (3, size, size) and view.dtype == torch.float32
    torch.testing.assert_close(view, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_letterbox_is_sams_own_preprocessing(height: int, width: int) -> None:
    picture = scene(height, width)
    resized = ResizeLongestSide(1024).apply_image(picture)
    mean, std = torch.tensor(SAM_MEAN)[:, None, None], torch.tensor(SAM_STD)[:, None, None]
    pixels = (torch.from_numpy(resized).permute(2, 0, 1) - mean) / std
    wanted = torch.nn.functional.pad(pixels, (0, 1024 - pixels.shape[2], 0, 1024 - pixels.shape[1]))
    torch.testing.assert_close(make_view(picture, LETTERBOX), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("target", [64, 256, 1024])
def test_letterbox_size_is_sams_rule(height: int, width: int, target: int) -> None:
    frame = ViewFrame(smaller(LETTERBOX, target), height, width)
    assert (frame.height, frame.width) == ResizeLongestSide.get_preprocess_shape(height, width, target)


def test_a_very_thin_picture_keeps_one_row() -> None:
    view = make_view(np.full((1, 5000, 3), 255, np.uint8), smaller(LETTERBOX, 64))
    assert (view[:, 0] > 0).all() and (view[:, 1:] == 0).all()


@pytest.mark.parametrize("fit", ["squash", "letterbox"])
def test_denormalised_view_of_its_own_size_is_the_picture(fit: str) -> None:
    picture = scene(80, 80)
    view = make_view(picture, ViewSpec("v", 80, fit, SAM_MEAN, SAM_STD))
    back = view * torch.tensor(SAM_STD)[:, None, None] + torch.tensor(SAM_MEAN)[:, None, None]
    assert np.array_equal(back.permute(1, 2, 0).round().numpy().astype(np.uint8), picture)


def test_grey_copies_the_luma_before_normalising() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[...] = (200, 100, 50)
    view = make_view(picture, ViewSpec("v", 8, "squash", (0, 0, 0), (1, 1, 1), grey=True))
    assert (view == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)).all()


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_other_pictures_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        make_view(wrong, SQUASH)


def test_an_unknown_fit_is_refused() -> None:
    with pytest.raises(UserError, match="crop"):
        ViewFrame(ViewSpec("v", 8, "crop", (0, 0, 0), (1, 1, 1)), 4, 4)


@pytest.mark.parametrize("spec", [SQUASH, LETTERBOX], ids=["squash", "letterbox"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_pixel_centre_goes_there_and_back(spec: ViewSpec, height: int, width: int) -> None:
    rows, columns = np.mgrid[:height, :width]
    centres = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    frame = ViewFrame(spec, height, width)
    there = frame.points_to_view(centres)
    assert (there > 0).all() and (there[:, 0] < frame.width).all() and (there[:, 1] < frame.height).all()
    back = frame.points_to_picture(there)
    np.testing.assert_allclose(back, centres, atol=1e-3)
    assert np.array_equal(np.floor(back), np.floor(centres))


def test_points_and_boxes_are_sams() -> None:
    height, width = 301, 450
    points = np.array([[0.0, 0.0], [450, 301], [123.4, 56.7]])
    boxes = np.array([[10.0, 20, 110, 220], [0, 0, 450, 301]])
    frame, sams = ViewFrame(LETTERBOX, height, width), ResizeLongestSide(1024)
    np.testing.assert_allclose(frame.points_to_view(points), sams.apply_coords(points, (height, width)), rtol=1e-6)
    np.testing.assert_allclose(frame.boxes_to_view(boxes), sams.apply_boxes(boxes, (height, width)), rtol=1e-6)
    np.testing.assert_allclose(frame.boxes_to_picture(frame.boxes_to_view(boxes)), boxes, atol=1e-3)


def test_no_points_stay_no_points() -> None:
    assert ViewFrame(SQUASH, 4, 8).points_to_view(np.zeros((0, 2))).shape == (0, 2)


@pytest.mark.parametrize("spec", [SQUASH, LETTERBOX], ids=["squash", "letterbox"])
@pytest.mark.parametrize(("height", "width"), [(97, 61), (61, 97), (150, 224)])
def test_masks_come_back_to_the_pixel_from_a_larger_view(spec: ViewSpec, height: int, width: int) -> None:
    masks = np.random.default_rng(1).random((2, height, width)) < 0.5
    frame = ViewFrame(spec, height, width)
    view = frame.masks_to_view(masks)
    assert view.shape == (2, spec.size, spec.size) and view.dtype == bool
    assert not view[:, frame.height :].any() and not view[:, :, frame.width :].any()
    assert np.array_equal(frame.masks_to_picture(view), masks)


def test_a_mask_from_a_smaller_view_is_off_by_less_than_a_view_pixel() -> None:
    mask = np.zeros((600, 900), bool)
    mask[150:420, 300:750] = True
    frame = ViewFrame(smaller(LETTERBOX, 64), 600, 900)
    rows, columns = np.nonzero(frame.masks_to_picture(frame.masks_to_view(mask)))
    assert (
        np.abs(np.array([rows.min(), rows.max() + 1, columns.min(), columns.max() + 1]) - (150, 420, 300, 750)).max()
        <= 900 / 64
    )


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="frame needs"):
        ViewFrame(SQUASH, 4, 8).masks_to_view(np.zeros((8, 4), bool))


@pytest.mark.parametrize("spec", [SQUASH, smaller(LETTERBOX, 256)], ids=["squash", "letterbox"])
@pytest.mark.parametrize(("height", "width"), [(120, 200), (200, 120), (40, 30), (512, 512)])
@pytest.mark.parametrize("tokens", [7, 16, 32])
def test_a_bright_square_comes_back_at_its_place(spec: ViewSpec, height: int, width: int, tokens: int) -> None:
    side = max(4, int(2 * max(height, width) / tokens))
    top, left = int(height * 0.55), int(width * 0.2)
    picture = np.zeros((height, width, 3), np.uint8)
    picture[top : top + side, left : left + side] = 255
    view = make_view(picture, ViewSpec("v", spec.size, spec.fit, (0, 0, 0), (1, 1, 1)))
    grid = torch.nn.functional.adaptive_avg_pool2d(view[None, :1], tokens)[0, 0].numpy()
    heat = ViewFrame(spec, height, width).heatmap_to_picture(grid)
    assert heat.shape == (height, width) and heat.dtype == np.float32
    rows, columns = np.mgrid[:height, :width] + 0.5
    middle = np.array([(heat * rows).sum(), (heat * columns).sum()]) / heat.sum()
    # What the square covers inside the picture, and one token measured in picture pixels.
    wanted = np.array([(top + min(top + side, height)) / 2, (left + min(left + side, width)) / 2])
    token = np.array([height, width]) / tokens if spec.fit == "squash" else np.full(2, max(height, width) / tokens)
    assert (np.abs(middle - wanted) <= token).all()
    peak = np.array(np.unravel_index(heat.argmax(), heat.shape)) + 0.5
    assert (np.abs(peak - wanted) <= token + side / 2).all()


def test_a_heatmap_of_the_picture_itself_is_the_picture() -> None:
    grid = np.random.default_rng(2).random((12, 12), dtype=np.float32)
    heat = ViewFrame(ViewSpec("v", 48, "squash", (0, 0, 0), (1, 1, 1)), 12, 12).heatmap_to_picture(grid)
    np.testing.assert_allclose(heat, grid, rtol=1e-6)


def test_heatmaps_are_bilinear_and_leave_the_padding_out() -> None:
    grid = np.random.default_rng(3).random((8, 8)).astype(np.float32)
    frame = ViewFrame(smaller(LETTERBOX, 64), 32, 64)
    whole = torch.nn.functional.interpolate(
        torch.from_numpy(grid)[None, None], (64, 64), mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(frame.heatmap_to_picture(grid), whole[0, 0, :32].numpy(), atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(97, 61), (61, 97), (64, 64), (5, 300), (1, 9)])
@pytest.mark.parametrize("shift", [-9.0, -1.5, 0.0, 9.0])
def test_logits_are_the_mask_where_their_heatmap_is_above_0(height: int, width: int, shift: float) -> None:
    frame = ViewFrame(smaller(LETTERBOX, 64), height, width)
    for seed in range(4):
        grid = (np.random.default_rng(seed).standard_normal((16, 16)) + shift).astype(np.float32)
        heat, mask = frame.heatmap_to_picture(grid), frame.logits_to_picture(grid)
        assert mask.shape == (height, width) and mask.dtype == bool
        sure = np.abs(heat) > 1e-5
        assert (mask == (heat > 0))[sure].all()
        assert mask.any() == (heat > 0).any()


def test_logits_in_the_padding_are_no_mask() -> None:
    grid = np.full((16, 16), -1, np.float32)
    grid[12:, :] = 5
    assert not ViewFrame(smaller(LETTERBOX, 64), 32, 64).logits_to_picture(grid).any()
