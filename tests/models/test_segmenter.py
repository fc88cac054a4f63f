"""The segmenter begins as ``segment_anything``, answers each prompt by itself, and each of its parts can be left out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from torch import Tensor

from msmedcap.config import UserError
from msmedcap.data.classes import ClassBook, load_classes
from msmedcap.data.views import ViewFrame, make_view
from msmedcap.models.sam import SamPrompts
from msmedcap.models.segmenter import Prediction, Prompts, Segmenter, ambiguous, best_mask
from msmedcap.segmenters import add_new_classes, class_texts, load_segmenter, make_segmenter, save_segmenter
from tests import segmenting, sizes
from tests.models.published import ASKED, PICTURE, SPEC, halves

SIDE = segmenting.SIDE


@pytest.fixture(scope="module")
def sam() -> tuple[SamPredictor, Tensor, SamPrompts]:
    """SAM by its own predictor with PICTURE set, its features by our encoder, and our prompt half with the same weights."""
    predictor, encoder, prompts = halves()
    with torch.no_grad():
        return predictor, encoder(make_view(PICTURE, SPEC)[None]), prompts


def some_points(count: int, each: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count, each), generator=generator)
    return torch.rand(count, each, 2, generator=generator) * SIDE, labels


def assert_alike(a: Prediction, b: Prediction) -> None:
    for field in dataclasses.fields(Prediction):
        one, other = getattr(a, field.name), getattr(b, field.name)
        assert one is not None and (one.numel() == 1 or one.std() > 0)
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("semantics", [True, False])
@pytest.mark.parametrize("refined", [True, False])
@pytest.mark.parametrize(("points", "labels", "box"), ASKED.values(), ids=ASKED)
@torch.no_grad()
def test_before_training_and_without_text_it_is_segment_anything(
    sam: tuple[SamPredictor, Tensor, SamPrompts],
    points: list[list[float]] | None,
    labels: list[int] | None,
    box: list[float] | None,
    refined: bool,
    semantics: bool,
) -> None:
    predictor, features, prompts = sam
    earlier = np.random.default_rng(1).normal(size=(1, SIDE // 2, SIDE // 2)).astype(np.float32) * 4 if refined else None
    asked = dict(
        point_coords=None if points is None else np.array(points),
        point_labels=None if labels is None else np.array(labels),
        box=None if box is None else np.array(box),
        mask_input=earlier,
    )
    single, three = (predictor.predict(**asked, multimask_output=several) for several in (False, True))
    segmenter = segmenting.untrained(prompts, semantics=semantics, text=False)
    frame = ViewFrame(SPEC, *PICTURE.shape[:2])
    # SAM takes indices of pixels, the segmenter continuous coordinates of the view.
    given = Prompts(
        None if points is None else torch.from_numpy(frame.points_to_view(points)).float()[None] + 0.5,
        None if labels is None else torch.tensor(labels)[None],
        None if box is None else torch.from_numpy(frame.boxes_to_view([box])).float() + 0.5,
        None if earlier is None else torch.from_numpy(earlier)[None],
    )
    found = segmenter(features, given)
    np.testing.assert_allclose(found.binary[0, :1].numpy(), single[2], atol=1e-4)
    np.testing.assert_allclose(found.binary[0, 1:].numpy(), three[2], atol=1e-4)
    np.testing.assert_allclose(found.iou[0].numpy(), np.concatenate([single[1], three[1]]), atol=1e-5)
    assert (found.semantic is not None) == semantics
    answer = segmenter.predict(features, given.points, given.labels, given.boxes, masks=given.masks)
    one_click = points is not None and len(points) == 1 and box is None and not refined
    wanted = three[2][three[1].argmax()] if one_click else single[2][0]
    np.testing.assert_allclose(answer.binary[0].numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("dense", [False, True])
@torch.no_grad()
def test_a_batch_of_prompts_on_several_pictures_equals_its_singles(dense: bool, boxed: bool) -> None:
    segmenter, features = segmenting.segmenter(dense=dense), segmenting.features(3)
    points, labels = some_points(5, 2)
    corner = torch.rand(5, 2, generator=torch.Generator().manual_seed(1)) * SIDE / 2
    boxes = torch.cat([corner, corner + 9], 1) if boxed else None
    picture = torch.tensor([2, 0, 1, 0, 2])
    together = segmenter(features, Prompts(points, labels, boxes, picture=picture))
    for i, row in enumerate(picture):
        own = None if boxes is None else boxes[i : i + 1]
        alone = segmenter(features[row : row + 1], Prompts(points[i : i + 1], labels[i : i + 1], own))
        for field in dataclasses.fields(together):
            one, all_of_them = getattr(alone, field.name), getattr(together, field.name)
            assert one.std() > 1e-4, field.name
            torch.testing.assert_close(all_of_them[i : i + 1], one, atol=2e-5, rtol=1e-4)


def test_prompts_are_answered_in_the_order_they_are_asked() -> None:
    segmenter, features = segmenting.segmenter(), segmenting.features(1)
    points, labels = some_points(4, 1)
    labels = torch.ones_like(labels)
    order = torch.tensor([2, 0, 3, 1])
    straight, shuffled = segmenter.predict(features, points, labels), segmenter.predict(features, points[order], labels[order])
    reordered = Prediction(*(getattr(straight, f.name)[order] for f in dataclasses.fields(Prediction)))
    assert_alike(reordered, shuffled)
    assert (straight.binary[0] - straight.binary[1]).abs().max() > 1e-2


def test_the_order_of_a_prompts_points_says_nothing() -> None:
    segmenter, features = segmenting.segmenter(), segmenting.features(1)
    points, labels = some_points(2, 3)
    order = torch.tensor([1, 2, 0])
    assert_alike(
        segmenter.predict(features, points, labels), segmenter.predict(features, points[:, order], labels[:, order])
    )


def test_a_single_prompt_needs_no_batch() -> None:
    segmenter, features = segmenting.segmenter(), segmenting.features(1)
    points, labels = some_points(1, 2)
    box = torch.tensor([[3.0, 5.0, 40.0, 50.0]])
    assert_alike(segmenter.predict(features, points, labels, box), segmenter.predict(features, points[0], labels[0], box[0]))


def test_an_answer_has_the_shapes_and_ranges_it_promises() -> None:
    segmenter, features = segmenting.segmenter(), segmenting.features(1)
    answer = segmenter.predict(features, *some_points(3, 2))
    count = len(segmenting.NAMES)
    assert answer.binary.shape == (3, *(4 * s for s in features.shape[-2:]))
    assert answer.semantic is not None and answer.semantic.shape == answer.binary.shape and answer.iou.shape == (3,)
    assert answer.classes is not None and answer.classes.shape == (3, count)
    torch.testing.assert_close(answer.classes.sum(1), torch.ones(3))
    assert answer.present is not None and answer.present.shape == (3, count)
    assert bool(((answer.present > 0) & (answer.present < 1)).all())


def test_a_prompt_without_point_and_box_is_refused() -> None:
    with pytest.raises(ValueError, match="a point or a box"):
        segmenting.segmenter().predict(segmenting.features(1))
    with pytest.raises(ValueError, match="come together"):
        Prompts(points=torch.zeros(1, 1, 2))


def test_only_a_lone_click_is_answered_with_the_best_of_three() -> None:
    points, labels = torch.zeros(3, 2, 2), torch.tensor([[1, -1], [1, 0], [-1, 1]])
    assert ambiguous(Prompts(points, labels)).tolist() == [True, False, True]
    assert ambiguous(Prompts(points, labels, torch.zeros(3, 4))).tolist() == [False] * 3
    assert ambiguous(Prompts(boxes=torch.zeros(2, 4))).tolist() == [False] * 2
    assert ambiguous(Prompts(points, labels, masks=torch.zeros(3, 1, 8, 8))).tolist() == [False] * 3
    iou = torch.tensor([[0.9, 0.1, 0.5, 0.2], [0.9, 0.1, 0.5, 0.7]])
    assert best_mask(iou, torch.tensor([True, False])).tolist() == [2, 0]
    assert best_mask(iou, torch.tensor([True, True])).tolist() == [2, 3]


@pytest.mark.parametrize("semantics", [True, False])
@pytest.mark.parametrize("text", [True, False])
def test_a_part_that_is_switched_off_has_no_weights(semantics: bool, text: bool) -> None:
    names = [name for name, _ in segmenting.segmenter(semantics=semantics, text=text).named_parameters()]
    parts = {name.split(".")[0] for name in names}
    wanted = {"prompts"} | ({"semantics"} if semantics else set()) | ({"texts", "summary"} if text else set())
    assert parts == wanted | ({"learned"} if semantics and not text else set())


def test_without_the_semantic_decoder_nothing_is_named() -> None:
    answer = segmenting.segmenter(semantics=False).predict(segmenting.features(1), *some_points(1, 2))
    assert answer.semantic is None and answer.classes is None and answer.present is None


def test_the_two_decoders_begin_alike_and_share_no_weight() -> None:
    published = sizes.frozen().prompts
    segmenter = segmenting.untrained(published)
    assert segmenter.semantics is not None
    ours = segmenter.semantics.transformer.state_dict()
    assert all(torch.equal(v, ours[k]) for k, v in published.decoder.transformer.state_dict().items())
    pointers = [p.data_ptr() for m in (published, segmenter) for p in m.parameters()]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.parametrize("semantics", [True, False])
@torch.no_grad()
def test_a_class_that_is_added_changes_nothing_for_the_others(semantics: bool) -> None:
    segmenter, features = segmenting.segmenter(semantics=semantics), segmenting.features(2)
    prompts = Prompts(*some_points(3, 2), picture=torch.tensor([0, 1, 1]))
    before = segmenter(features, prompts)
    segmenter.add_classes(["spleen", "stone"], segmenting.texts(2, seed=5))
    after, count = segmenter(features, prompts), len(segmenting.NAMES)
    assert segmenter.names == (*segmenting.NAMES, "spleen", "stone")
    assert torch.equal(before.binary, after.binary) and torch.equal(before.iou, after.iou)
    if semantics:
        assert before.semantic is not None and after.semantic is not None and torch.equal(before.semantic, after.semantic)
        for one, other in ((before.named, after.named), (before.others, after.others)):
            assert one is not None and other is not None and other.shape[-1] == count + 2
            torch.testing.assert_close(one, other[..., :count], atol=1e-6, rtol=1e-6)
            assert not torch.allclose(other[..., count], other[..., count + 1], atol=1e-3)


def test_classes_that_cannot_be_added_are_refused() -> None:
    with pytest.raises(UserError, match="without class texts"):
        segmenting.segmenter(text=False).add_classes(["spleen"], segmenting.texts(1))
    segmenter = segmenting.segmenter()
    with pytest.raises(UserError, match="each once"):
        segmenter.add_classes(["liver"], segmenting.texts(1))
    with pytest.raises(ValueError, match="texts of a class"):
        segmenter.add_classes(["spleen"], torch.zeros(1, 2, 2))
    assert segmenter.names == segmenting.NAMES


@pytest.mark.parametrize(("semantics", "text"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_folder_gives_back_the_segmenter(tmp_path: Path, semantics: bool, text: bool) -> None:
    segmenter, features = segmenting.segmenter(semantics=semantics, text=text).half().float(), segmenting.features(1)
    if text:
        segmenter.add_classes(["spleen"], segmenting.texts(1, seed=4).half().float())
    save_segmenter(segmenter, tmp_path / "segmenter")
    again = load_segmenter(tmp_path / "segmenter", sizes.config().sam)
    assert again.config == segmenter.config and not again.training
    for (key, one), (_, other) in zip(segmenter.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(one, other), key
    points = some_points(2, 2)
    one, other = segmenter.predict(features, *points), again.predict(features, *points)
    assert torch.equal(one.binary, other.binary)
    assert one.classes is other.classes is None or torch.equal(one.classes, other.classes)  # type: ignore[arg-type]


def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    save_segmenter(segmenting.segmenter(), tmp_path)
    sam = sizes.config().sam
    with pytest.raises(UserError, match="wrong shapes"):
        load_segmenter(tmp_path, dataclasses.replace(sam, decoder_mlp=48))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "semantics": False}))
    with pytest.raises(UserError, match="has unknown .*semantics"):
        load_segmenter(tmp_path, sam)
    (tmp_path / "config.json").write_text(json.dumps({**config, "colour": "red"}))
    with pytest.raises(UserError, match="unknown keys"):
        load_segmenter(tmp_path, sam)
    with pytest.raises(UserError, match="does not exist"):
        load_segmenter(tmp_path / "nowhere", sam)


def test_a_segmenter_is_made_from_the_class_file_and_learns_of_new_classes(tmp_path: Path) -> None:
    book, parts = load_classes(), sizes.frozen()
    few = ClassBook(book.version, book.reviewed, book.classes[:6], book.ignored)
    sam = sizes.config().sam
    made = make_segmenter(few, few.names, sam, parts.prompts, opt=parts.opt, tokens=4).eval()
    assert made.names == few.names and made.config.text_width == parts.opt.model.config.hidden_size
    features, points = segmenting.features(1), some_points(2, 1)
    before = made(features, Prompts(*points))
    more = ClassBook(book.version, book.reviewed, book.classes[:8], book.ignored)
    assert add_new_classes(made, more, opt=parts.opt) == more.names[6:]
    assert add_new_classes(made, more, opt=parts.opt) == ()
    after = made(features, Prompts(*points))
    assert before.named is not None and after.named is not None
    torch.testing.assert_close(before.named, after.named[:, :6], atol=1e-6, rtol=1e-6)
    save_segmenter(made, tmp_path)
    assert load_segmenter(tmp_path, sam).config.summarised == 6
    with pytest.raises(UserError, match="not loaded"):
        class_texts(book.classes[:1], "opt", None)
    with pytest.raises(UserError, match="no class 'left thumb'"):
        make_segmenter(book, ["left thumb"], sam, parts.prompts, opt=parts.opt)


def test_the_same_seed_makes_the_same_segmenter_and_leaves_the_random_numbers_alone() -> None:
    book, parts = load_classes(), sizes.frozen()

    def make(seed: int) -> Segmenter:
        return make_segmenter(book, book.names[:3], sizes.config().sam, parts.prompts, text=False, seed=seed)

    state = torch.get_rng_state()
    one, again, other = make(0), make(0), make(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert one.learned is not None and other.learned is not None and not torch.equal(one.learned, other.learned)
