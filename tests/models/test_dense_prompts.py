"""A prompt's map lies where the prompt is, in pictures of any shape, and reaches the decoders only where it is wanted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from msmedcap.config import ViewSpec
from msmedcap.data.views import ViewFrame
from msmedcap.models.dense_prompts import LEVEL, RADIUS, prompt_map
from msmedcap.models.segmenter import Prompts
from tests import segmenting

IMAGE, SIDE = 256, 64
SPEC = ViewSpec("sam", IMAGE, "letterbox", (0.0,) * 3, (1.0,) * 3)


def mapped(
    points: list[list[float]] | None = None, labels: list[int] | None = None, box: list[float] | None = None
) -> Tensor:
    found = prompt_map(
        None if points is None else torch.tensor([points]),
        None if labels is None else torch.tensor([labels]),
        None if box is None else torch.tensor([box]),
        image_side=IMAGE,
        side=SIDE,
    )
    assert found.shape == (1, 1, SIDE, SIDE)
    return found[0, 0]


def test_a_box_is_filled_and_its_edges_are_shared_by_cells() -> None:
    found = mapped(box=[8.0, 16.0, 30.0, 32.0])
    assert bool((found[4:8, 2:7] == LEVEL).all())
    assert bool((found[4:8, 7] == 0).all())  # half of the cell from 28 to 32
    outside = torch.ones(SIDE, SIDE, dtype=torch.bool)
    outside[4:8, 2:8] = False
    assert bool((found[outside] == -LEVEL).all())


def test_points_are_disks_of_their_sign_and_padding_is_nothing() -> None:
    found = mapped([[42.0, 100.0], [200.0, 60.0], [128.0, 200.0]], [1, 0, -1])
    assert found[25, 10] == 2 * LEVEL and found[15, 50] == -2 * LEVEL and found[50, 32] == 0
    radius = RADIUS * SIDE
    assert (found > 0).sum() == pytest.approx(torch.pi * radius**2, rel=0.5)
    for point, sign in (((42.0, 100.0), 1), ((200.0, 60.0), -1)):
        rows, columns = torch.nonzero(found * sign > 0, as_tuple=True)
        assert 4 * (columns.float().mean() + 0.5) == pytest.approx(point[0], abs=2)
        assert 4 * (rows.float().mean() + 0.5) == pytest.approx(point[1], abs=2)
    again = mapped([[42.0, 100.0], [200.0, 60.0]], [1, 0])
    assert torch.equal(found, again)


def test_a_point_beside_the_object_shows_in_its_box() -> None:
    found = mapped([[40.0, 40.0]], [0], [20.0, 20.0, 100.0, 100.0])
    assert found[10, 10] == -LEVEL and found[20, 20] == LEVEL


@pytest.mark.parametrize(("height", "width"), [(90, 300), (300, 90), (128, 128)])
def test_in_a_picture_of_any_shape_the_map_lies_on_the_structure(height: int, width: int) -> None:
    frame = ViewFrame(SPEC, height, width)
    box = (0.25 * width, 0.5 * height, 0.5 * width, 0.9 * height)
    point = (0.7 * width, 0.3 * height)
    boxed = mapped(box=frame.boxes_to_view([box])[0].tolist())
    clicked = mapped(frame.points_to_view([point]).tolist(), [1])
    inside = frame.heatmap_to_picture(boxed.numpy()) > 0
    wanted = np.zeros((height, width), dtype=bool)
    wanted[round(box[1]) : round(box[3]), round(box[0]) : round(box[2])] = True
    assert (inside & wanted).sum() / (inside | wanted).sum() > 0.85
    rows, columns = np.nonzero(frame.heatmap_to_picture(clicked.numpy()) > 0)
    assert columns.mean() + 0.5 == pytest.approx(point[0], abs=0.02 * max(height, width))
    assert rows.mean() + 0.5 == pytest.approx(point[1], abs=0.02 * max(height, width))


def test_a_batch_of_prompts_is_mapped_as_its_singles() -> None:
    generator = torch.Generator().manual_seed(0)
    points, labels = torch.rand(4, 3, 2, generator=generator) * IMAGE, torch.tensor([[1, 0, -1]] * 4)
    corner = torch.rand(4, 2, generator=generator) * IMAGE / 2
    boxes = torch.cat([corner, corner + 50], 1)
    together = prompt_map(points, labels, boxes, image_side=IMAGE, side=SIDE)
    for i in range(4):
        alone = prompt_map(points[i : i + 1], labels[i : i + 1], boxes[i : i + 1], image_side=IMAGE, side=SIDE)
        assert torch.equal(together[i : i + 1], alone)


def test_no_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="a point or a box"):
        prompt_map(None, None, None, image_side=IMAGE, side=SIDE)


@torch.no_grad()
def test_switched_on_the_map_is_added_to_the_mask_input_and_switched_off_nothing_is() -> None:
    plain, dense = segmenting.segmenter(), segmenting.segmenter(dense=True)
    features = segmenting.features(1)
    box = torch.tensor([[4.0, 6.0, 40.0, 31.0]])
    side = 4 * features.shape[-1]
    where = prompt_map(None, None, box, image_side=segmenting.SIDE, side=side)
    earlier = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(0))
    for given, told in ((None, where), (earlier, where + earlier)):
        found = dense(features, Prompts(boxes=box, masks=given))
        wanted = plain(features, Prompts(boxes=box, masks=told))
        for field in dataclasses.fields(found):
            assert torch.equal(getattr(found, field.name), getattr(wanted, field.name)), field.name
        other = plain(features, Prompts(boxes=box, masks=given))
        assert not torch.allclose(found.binary, other.binary, atol=1e-3)


@torch.no_grad()
def test_a_click_stays_ambiguous_although_it_is_laid_into_the_mask_input() -> None:
    segmenter, features = segmenting.segmenter(dense=True), segmenting.features(1)
    points, labels = torch.tensor([[[20.0, 30.0]]]), torch.ones(1, 1, dtype=torch.long)
    out = segmenter(features, Prompts(points, labels))
    answer = segmenter.predict(features, points, labels)
    assert torch.equal(answer.iou[0], out.iou[0, 1:].max())
