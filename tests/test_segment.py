"""Masks from the predictor: in the scan's own frame, one encoder pass with captions and maps, rounds that build on each other."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from msmedcap import segmenters
from msmedcap.config import UserError
from msmedcap.data.scans import Window, write_dicom
from msmedcap.data.views import ViewFrame, make_view
from msmedcap.explain.maps import Map
from msmedcap.models.segmenter import Prediction, Segmenter
from msmedcap.predictor import Predictor, load
from msmedcap.segmenting import hottest, structure_record
from msmedcap.segmenting.regions import AT_DETECTOR, NO_SPACING
from tests import segmenting, sizes
from tests.sizes import HEIGHT, WIDTH, png


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = sizes.write_folder(tmp_path_factory.mktemp("models"))
    segmenters.save_segmenter(segmenting.segmenter(), made / segmenters.FOLDER)
    return made


@pytest.fixture
def passes(shared: Predictor) -> Iterator[Counter[str]]:
    counts: Counter[str] = Counter()
    sam = shared._shared.frozen.sam
    segmenter = shared._segmenter.get()
    hooks = [
        sam.register_forward_pre_hook(lambda *_: counts.update(["sam"])),
        segmenter.summary.register_forward_pre_hook(lambda *_: counts.update(["text"])),  # type: ignore[union-attr]
    ]
    yield counts
    for hook in hooks:
        hook.remove()


def expected(predictor: Predictor, points: list[tuple[float, float, int]]) -> tuple[Segmenter, Prediction, ViewFrame]:
    """The answer by the models alone: the view made, encoded and prompted in the view's frame."""
    spec = predictor._shared.config.view("sam")
    frame = ViewFrame(spec, *predictor.picture.shape[:2])  # type: ignore[union-attr]
    with torch.inference_mode():
        features = predictor._shared.frozen.sam(make_view(predictor.picture, spec)[None])  # type: ignore[arg-type]
    xy = torch.from_numpy(frame.points_to_view([p[:2] for p in points]))
    segmenter = predictor._segmenter.get()
    return segmenter, segmenter.predict(features, xy, torch.tensor([p[2] for p in points])), frame


def test_the_answer_is_the_models_in_the_pictures_frame(predictor: Predictor) -> None:
    points = [(12.5, 40.0, 1), (60.0, 9.5, 0)]
    found = predictor.segment(points)
    segmenter, said, frame = expected(predictor, points)
    assert found.binary.shape == found.semantic.shape == (HEIGHT, WIDTH) and found.binary.dtype == bool
    assert (found.binary == (frame.heatmap_to_picture(said.binary[0].numpy()) > 0)).all()
    assert (found.semantic == (frame.heatmap_to_picture(said.semantic[0].numpy()) > 0)).all()
    best = int(said.classes[0].argmax())
    assert (found.label, found.score) == (segmenter.names[best], pytest.approx(float(said.classes[0, best]), abs=1e-6))
    assert found.iou == pytest.approx(float(said.iou[0]), abs=1e-6)
    assert found.area_px == found.binary.sum()


def test_present_are_the_likely_classes_in_order(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    predict = Segmenter.predict

    def told(self: Segmenter, *args: object, **kwargs: object) -> Prediction:
        return dataclasses.replace(predict(self, *args, **kwargs), present=torch.tensor([[0.6, 0.1, 0.9, 0.49, 0.5]]))

    monkeypatch.setattr(Segmenter, "predict", told)
    found = predictor.segment([(5, 5)]).present
    assert [name for name, _ in found] == ["liver", "Left Lung", "nodule"]
    assert [score for _, score in found] == pytest.approx([0.9, 0.6, 0.5])


def test_only_what_was_measured_is_said_to_be_present(shared: Predictor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    predict, segmenter = Segmenter.predict, shared._segmenter.get()

    def told(self: Segmenter, *args: object, **kwargs: object) -> Prediction:
        return dataclasses.replace(predict(self, *args, **kwargs), present=torch.tensor([[0.6, 0.1, 0.9, 0.49, 0.3]]))

    monkeypatch.setattr(Segmenter, "predict", told)
    measured = dataclasses.replace(segmenter.config, present_from={"Left Lung": 0.7, "nodule": 0.25}, present_in=("DX",))
    monkeypatch.setattr(segmenter, "config", measured)
    found = {}
    for modality in ("DX", "MR"):
        values = np.random.default_rng(0).uniform(0, 255, (HEIGHT, WIDTH)).astype(np.float32)
        write_dicom(tmp_path / modality, values, modality=modality, body_part="CHEST", spacing=None, window=Window(255, 128))
        found[modality] = shared.fresh().set_scan(tmp_path / modality).segment([(5, 5)]).present
    assert [name for name, _ in found["DX"]] == ["nodule"] and found["MR"] is None
    assert [name for name, _ in shared.fresh().set_scan(png()).segment([(5, 5)]).present] == ["nodule"]


def test_an_empty_mask_has_no_name(predictor: Predictor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    predict = Segmenter.predict

    def empty(self: Segmenter, *args: object, **kwargs: object) -> Prediction:
        said = predict(self, *args, **kwargs)
        return dataclasses.replace(said, binary=torch.full_like(said.binary, -9.0))

    monkeypatch.setattr(Segmenter, "predict", empty)
    found = predictor.segment([(5, 5)])
    assert (found.label, found.score, found.area_px) == (None, None, 0) and found.semantic is not None
    with pytest.raises(UserError, match="empty"):
        predictor.write_masks([found], tmp_path / "out", dicom_seg=True)
    assert not (tmp_path / "out").exists()


def test_masks_of_one_frame_belong_to_every_window_of_it(shared: Predictor, tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(-900, 300, (HEIGHT, WIDTH)).astype(np.float32)
    write_dicom(tmp_path / "ct", values, modality="CT", body_part="CHEST", spacing=(1, 1), window=Window(400, 40), intercept=-1024)
    one = shared.fresh().set_scan(tmp_path / "ct")
    found = one.segment([(5, 5)])
    other = shared.fresh().set_scan(one.scan, window="lung")
    assert len(other.write_masks([found], tmp_path / "out")) == 1
    with pytest.raises(UserError, match="another scan"):
        shared.fresh().set_scan(tmp_path / "ct").write_masks([found], tmp_path / "out")


def test_one_encoder_pass_and_one_text_token_for_all(predictor: Predictor, passes: Counter[str]) -> None:
    predictor.captions()
    first = predictor.segment([(5, 5)])
    predictor.segment(box=(5, 5, 40, 30))
    predictor.segment([(5, 5), (9, 9, 0)], earlier=first)
    predictor.hot_spot(predictor.maps()[-1])
    assert passes == {"sam": 1, "text": 1}
    predictor.set_scan(png(1)).segment([(5, 5)])
    assert passes == {"sam": 2, "text": 2}


def test_without_captions_the_first_prompt_encodes(predictor: Predictor, passes: Counter[str]) -> None:
    predictor.prepare_segmenting()
    assert passes == {"sam": 1, "text": 1}
    predictor.segment([(5, 5)])
    predictor.captions()
    assert passes == {"sam": 1, "text": 1}


def logits_are(monkeypatch: pytest.MonkeyPatch, place: tuple[slice, slice]) -> list[dict[str, torch.Tensor]]:
    """Masks that are positive at ``place`` of the view's mask grid alone; what was asked is kept."""
    asked: list[dict[str, torch.Tensor]] = []
    predict = Segmenter.predict

    def said(self: Segmenter, *args: object, **kwargs: torch.Tensor) -> Prediction:
        asked.append(kwargs)
        answer = predict(self, *args, **kwargs)
        logits = torch.full_like(answer.binary, -1)
        logits[:, place[0], place[1]] = 1
        return dataclasses.replace(answer, binary=logits, semantic=logits)

    monkeypatch.setattr(Segmenter, "predict", said)
    return asked


@pytest.mark.parametrize(("height", "width"), [(50, 80), (80, 50), (64, 64), (10, 300), (301, 37)])
def test_prompts_go_to_the_view_and_masks_come_back(
    shared: Predictor, monkeypatch: pytest.MonkeyPatch, height: int, width: int
) -> None:
    """A mask over the picture's left half, in the view, is the left half of a picture of any shape."""
    spec = shared._shared.config.view("sam")
    frame = ViewFrame(spec, height, width)
    grid = 4 * spec.size // shared._shared.config.sam.patch
    edge = round(frame.width / 2 * grid / spec.size)
    asked = logits_are(monkeypatch, (slice(None), slice(0, edge)))
    found = shared.fresh().set_scan(png(0, height, width)).segment([(width / 4, height / 2)], (0, 0, width / 2, height))
    view = [frame.width / 4, frame.height / 2]
    assert asked[0]["points"].flatten().tolist() == pytest.approx(view, abs=1e-4)
    assert asked[0]["boxes"].tolist() == pytest.approx([0, 0, frame.width / 2, frame.height], abs=1e-4)
    assert found.binary.shape == (height, width)
    border = edge * spec.size / grid * width / frame.width
    wanted = np.broadcast_to(np.arange(width) + 0.5 < border, (height, width))
    unsure = np.abs(np.arange(width) + 0.5 - border) < 1  # the pixel on the border may fall on either side
    assert (found.binary == wanted)[:, ~unsure].all()


def test_area_is_in_the_scans_own_millimetres(tmp_path: Path, shared: Predictor) -> None:
    values = np.random.default_rng(3).integers(0, 200, (HEIGHT, WIDTH)).astype(np.uint8)
    kinds = {"CT": "", "DX": AT_DETECTOR}
    for modality, note in kinds.items():
        file = tmp_path / f"{modality}.dcm"
        write_dicom(file, values, modality=modality, body_part="CHEST", spacing=(0.5, 1.5), window=Window(200, 100))
        found = shared.fresh().set_scan(file).segment([(20, 20)])
        assert 0 < found.area_px < HEIGHT * WIDTH
        assert found.area_mm2 == pytest.approx(found.area_px * 0.75)
        assert found.area_note == note
    unknown = shared.fresh().set_scan(png()).segment([(20, 20)])
    assert (unknown.area_mm2, unknown.area_note) == (None, NO_SPACING)


def test_a_round_feeds_the_earlier_mask_back(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    first = predictor.segment([(10, 10)])
    asked: list[torch.Tensor | None] = []
    predict = Segmenter.predict

    def spy(self: Segmenter, *args: object, **kwargs: torch.Tensor) -> Prediction:
        asked.append(kwargs["masks"])
        return predict(self, *args, **kwargs)

    monkeypatch.setattr(Segmenter, "predict", spy)
    clicks = [(10, 10), (40, 30, 0)]
    again, refined = predictor.segment(clicks), predictor.segment(clicks, earlier=first)
    assert asked[0] is None and (asked[1].numpy()[0, 0] == first.logits).all()  # type: ignore[union-attr]
    assert np.abs(refined.logits - again.logits).max() > 1e-3
    same = predictor.segment(clicks, earlier=first)
    assert (same.logits == refined.logits).all()  # nothing is remembered between calls


def test_a_mask_of_another_scan_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    first = predictor.segment([(10, 10)])
    predictor.set_scan(png(1))
    with pytest.raises(UserError, match="another scan"):
        predictor.segment([(10, 10)], earlier=first)
    with pytest.raises(UserError, match="another scan"):
        predictor.write_masks([first], tmp_path)
    with pytest.raises(UserError, match="no mask to write"):
        predictor.write_masks([], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("points", "box", "said"),
    [([], None, "neither"), ([(81, 1)], None, "80 x 50"), ([], (3, 3, 3, 9), "no area"), ([(1, 1, 0)], None, "beside")],
)
def test_a_wrong_prompt_is_refused_before_anything_runs(
    predictor: Predictor, passes: Counter[str], points: list, box: tuple | None, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        predictor.segment(points, box)
    assert not passes


def test_without_a_scan_there_is_nothing_to_segment(shared: Predictor) -> None:
    for ask in (lambda: shared.fresh().segment([(1, 1)]), shared.fresh().prepare_segmenting):
        with pytest.raises(UserError, match="No scan is set"):
            ask()


def test_visitors_share_the_segmenter_and_nothing_else(shared: Predictor, models_folder: Path) -> None:
    one, other = shared.fresh().set_scan(png(0)), shared.fresh().set_scan(png(1))
    alone = load(str(models_folder), device="cpu").set_scan(png(1)).segment([(9, 9)])
    one.segment([(9, 9)])
    found = other.segment([(9, 9)])
    assert one._segmenter.get() is other._segmenter.get()
    assert (found.logits == alone.logits).all() and found.label == alone.label


def test_the_plan_counts_the_segmenter(shared: Predictor) -> None:
    (item,) = (item for item in shared._shared.plan.items if item.part == "segmenter")  # type: ignore[union-attr]
    weights = shared._segmenter.get().state_dict().values()
    assert (item.dtype, item.bytes) == ("fp32", 4 * sum(value.numel() for value in weights))


def test_a_folder_without_segmenter_says_which_command_makes_it(tmp_path: Path) -> None:
    bare = load(str(sizes.write_folder(tmp_path / "m")), device="cpu").set_scan(png())
    assert "python -m msmedcap" in (bare.segmenter_absent or "")
    with pytest.raises(UserError, match="lacks the folder segmenter; make it with: python -m msmedcap"):
        bare.segment([(3, 3)])
    segmenters.save_segmenter(segmenting.segmenter(), tmp_path / "m" / segmenters.FOLDER)
    assert bare.segmenter_absent is None
    assert bare.segment([(3, 3)]).label in segmenting.NAMES


def test_without_semantics_a_mask_has_no_name(tmp_path: Path) -> None:
    made = sizes.write_folder(tmp_path / "m")
    segmenters.save_segmenter(segmenting.segmenter(semantics=False, text=False), made / segmenters.FOLDER)
    found = load(str(made), device="cpu").set_scan(png()).segment([(3, 3)])
    assert (found.label, found.score, found.semantic, found.present) == (None, None, None, ())
    assert found.binary.shape == (HEIGHT, WIDTH)


def test_the_hottest_place_is_the_peaks_middle() -> None:
    values = np.zeros((20, 30), np.float32)
    values[4:7, 10:15] = 2
    assert hottest(values) == (12.5, 5.5)
    values[15, 3] = 3
    assert hottest(values) == (3.5, 15.5)
    with pytest.raises(UserError, match="colours"):
        hottest(np.zeros((4, 4, 3), np.uint8))


def test_a_map_says_what_lies_at_its_hottest_place(predictor: Predictor) -> None:
    values = np.zeros((HEIGHT, WIDTH), np.float32)
    values[30, 61] = 0.7
    made = Map("attention", "clip", 2, None, (0.0, 0.7), values)
    spot = predictor.hot_spot(made)
    assert spot.point == (61.5, 30.5) and spot.value == pytest.approx(0.7)
    direct = predictor.segment([(61.5, 30.5)])
    assert (spot.structure.label, spot.structure.score) == (direct.label, direct.score)
    assert (spot.structure.binary == direct.binary).all()
    record = structure_record(spot)
    assert (record["point"], record["label"], record["area_px"]) == ([61.5, 30.5], direct.label, int(direct.binary.sum()))
    assert json.loads(json.dumps(record)) == record


def test_answers_are_written_and_numbered(predictor: Predictor, tmp_path: Path) -> None:
    answers = [predictor.segment([(10, 10)]), predictor.segment(box=(30, 5, 70, 45))]
    records = predictor.write_masks(answers, tmp_path, dicom_seg=True)
    for record, answer in zip(records, answers, strict=True):
        assert set(record) == {"label", "score", "binary_mask", "semantic_mask", "present"}
        assert (np.asarray(Image.open(tmp_path / record["binary_mask"])) == answer.binary * 255).all()
        assert (np.asarray(Image.open(tmp_path / record["semantic_mask"])) == answer.semantic * 255).all()
    facts = json.loads((tmp_path / "segment.json").read_text())
    assert (facts["width"], facts["height"], facts["spacing_mm"]) == (WIDTH, HEIGHT, None)
    assert [row["area_px"] for row in facts["segments"]] == [answer.area_px for answer in answers]
    assert facts["segments"][1]["prompt"] == {"points": [], "box": [30, 5, 70, 45]}
    index = np.asarray(Image.open(tmp_path / facts["index_map"]))
    assert ((index == 2) == answers[1].binary).all() and (index[answers[0].binary] > 0).all()
    named = {facts["dicom_image"], facts["dicom_seg"], "segment.json", "index.png"}
    named |= {record[key] for record in records for key in ("binary_mask", "semantic_mask")}
    assert {file.name for file in tmp_path.iterdir()} == named


def test_outlines_are_those_of_each_mask(predictor: Predictor) -> None:
    found = predictor.segment([(10, 10)])
    for which in ("binary", "semantic"):
        corners = np.concatenate(found.outlines(which))
        ys, xs = np.nonzero(getattr(found, which))
        assert corners.min(0).tolist() == [xs.min(), ys.min()]
        assert corners.max(0).tolist() == [xs.max() + 1, ys.max() + 1]
