"""The SAM parts are ``segment_anything``'s: same features, same masks, same scores; and tokens fold back to features."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor

from msmedcap.data.views import ViewFrame, make_view
from msmedcap.models.sam import SamEncoder, SamPrompts, to_tokens
from tests import sizes
from tests.models.published import ASKED, CONFIG, PICTURE, SPEC, halves


@pytest.fixture(scope="module")
def parts() -> tuple[SamPredictor, SamEncoder, SamPrompts]:
    return halves()


@torch.no_grad()
def test_features_are_segment_anythings(parts: tuple[SamPredictor, SamEncoder, SamPrompts]) -> None:
    predictor, encoder, _ = parts
    wanted = predictor.get_image_embedding()
    found = encoder(make_view(PICTURE, SPEC)[None])
    assert wanted.std() > 0.1
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize(("points", "labels", "box"), ASKED.values(), ids=ASKED)
@torch.no_grad()
def test_masks_and_scores_are_segment_anythings(
    parts: tuple[SamPredictor, SamEncoder, SamPrompts],
    points: list[list[float]] | None,
    labels: list[int] | None,
    box: list[float] | None,
    multimask: bool,
) -> None:
    predictor, encoder, prompts = parts
    _, wanted_scores, wanted_logits = predictor.predict(
        point_coords=None if points is None else np.array(points),
        point_labels=None if labels is None else np.array(labels),
        box=None if box is None else np.array(box),
        multimask_output=multimask,
    )
    frame = ViewFrame(SPEC, *PICTURE.shape[:2])
    clicks = None
    if points is not None:
        clicks = torch.from_numpy(frame.points_to_view(points))[None], torch.tensor(labels)[None]
    boxes = None if box is None else torch.from_numpy(frame.boxes_to_view([box]))
    logits, scores = prompts(encoder(make_view(PICTURE, SPEC)[None]), points=clicks, boxes=boxes, multimask=multimask)
    assert logits.shape == (1, 3 if multimask else 1, CONFIG.image_size // 2, CONFIG.image_size // 2)
    np.testing.assert_allclose(logits[0].numpy(), wanted_logits, atol=1e-4)
    np.testing.assert_allclose(scores[0].numpy(), wanted_scores, atol=1e-5)


@torch.no_grad()
def test_a_batch_of_prompts_equals_its_singles() -> None:
    parts = sizes.frozen()
    features = parts.sam(sizes.views(3)["sam"])
    boxes = torch.tensor([[3.0, 4.0, 30.0, 20.0], [0.0, 0.0, 63.0, 63.0], [40.0, 8.0, 50.0, 60.0]])
    points = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(0)) * 64, torch.tensor([[1, 0], [1, 1], [0, 1]])
    together = parts.prompts(features, points=points, boxes=boxes, multimask=True)
    for i in range(3):
        one = slice(i, i + 1)
        alone = parts.prompts(features[one], points=(points[0][one], points[1][one]), boxes=boxes[one], multimask=True)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[one], b, atol=1e-5, rtol=1e-5)


def test_what_a_token_is() -> None:
    features = torch.arange(2 * 5 * 3 * 4, dtype=torch.float32).view(2, 5, 3, 4)
    assert torch.equal(to_tokens(features, "positions")[1, 1 * 4 + 2], features[1, :, 1, 2])  # row 1, column 2
    assert torch.equal(to_tokens(features, "channels")[1, 3], features[1, 3].flatten())
    with pytest.raises(ValueError, match="'rows'"):
        to_tokens(features, "rows")


@pytest.mark.parametrize("stem", ["patch", "conv"])
@pytest.mark.parametrize("reading", ["positions", "channels"])
@torch.no_grad()
def test_token_width_is_the_tokens_width(stem: str, reading: str) -> None:
    encoder = SamEncoder(dataclasses.replace(CONFIG, stem=stem, out=16)).eval()
    tokens = to_tokens(encoder(torch.zeros(1, 3, CONFIG.image_size, CONFIG.image_size)), reading)
    assert tokens.shape[-1] == encoder.token_width(reading)
