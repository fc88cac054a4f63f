"""Words that point: how sure, what else, and maps that lie where they should and depend on the word."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch

from msmedcap import checkpoints
from msmedcap.config import UserError
from msmedcap.data.views import ViewFrame, make_view
from msmedcap.explain import occlusion, relevance
from msmedcap.explain.words import METHOD, METHODS, QUICK, TOGETHER, TOP, TOP_NATS, CaptionWords
from msmedcap.models.captioner import Captioner
from tests import sizes

CAPTION = "Axial CT of the chest. Nodule on the right."
PROMPT = "The scan shows:"
OF_BRANCHES = [method for method in METHODS if method != TOGETHER]
RELATIVE = ("gradient", "sensitivity", "attention", "rollout")


@cache
def captioner(name: str = "MSMedCap") -> Captioner:
    return sizes.captioner(name, sizes.frozen())


def picture(height: int = 40, width: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def made(
    shown: np.ndarray,
    *,
    model: Captioner | None = None,
    caption: str = CAPTION,
    tokens: dict[str, torch.Tensor] | None = None,
) -> CaptionWords:
    model = model or captioner()
    specs = {name: sizes.config().view(name) for name, _ in model.named_branches()}
    tokens = tokens or model.encode({name: make_view(shown, spec)[None] for name, spec in specs.items()})
    return CaptionWords(model, tokens, caption=caption, prompt=PROMPT, picture=shown, specs=specs)


def test_every_word_says_where_it_stands_and_how_likely_it_was() -> None:
    found = made(picture()).words
    assert [word.text for word in found] == CAPTION.split() and all(CAPTION[w.start : w.end] == w.text for w in found)
    model = captioner()
    with torch.no_grad():
        features = model.encode({name: make_view(picture(), sizes.config().view(name))[None] for name in ("clip", "sam")})
        losses = model.opt.token_losses(model.prefix(features, PROMPT), [CAPTION])[:-1]  # without the newline
    assert np.prod([word.probability for word in found]) == pytest.approx(float((-losses.sum()).exp()), rel=1e-3)
    for word in found:
        shares = [share for _, share in word.alternatives]
        assert len(shares) == 5 and shares == sorted(shares, reverse=True) and 0 < sum(shares) < 1
        assert all(text for text, _ in word.alternatives)


@pytest.mark.parametrize("method", OF_BRANCHES)
def test_maps_are_of_the_picture_s_size_none_negative_and_on_the_fixed_scale(method: str) -> None:
    words = made(picture())
    for place, text in enumerate(CAPTION.split()):
        maps = words.maps(place, method)
        assert [found.branch for found in maps] == ["clip", "sam"]
        for found in maps:
            assert (found.kind, found.layer, found.word, found.place, found.method) == ("word", None, text, place, method)
            assert found.values.shape == (40, 64) and found.values.dtype == np.float32
            assert found.values.min() >= 0 and np.isfinite(found.values).all()
            assert found.range == (0.0, TOP if method in RELATIVE else TOP_NATS)


@pytest.mark.parametrize("method", RELATIVE)
def test_the_mean_over_the_view_is_one(method: str) -> None:
    # CLIP's view is squashed: the picture is all of it, and its 4 x 4 places divide the picture's pixels evenly.
    square = made(picture(64, 64))
    for place in range(3):
        (clip, _) = square.maps(place, method)
        assert clip.values.mean() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("method", RELATIVE)
@pytest.mark.parametrize(("height", "width"), [(30, 60), (60, 30)])
def test_a_place_that_is_unlike_all_others_is_the_one_that_differs(method: str, height: int, width: int) -> None:
    shown = picture(height, width)
    branches = dict(captioner().named_branches())
    # CLIP: row 1, column 2 of 4 x 4, behind CLS. SAM: row 1, column 2 of 8 x 8, within the picture either way.
    tokens = {"clip": torch.zeros(1, 17, branches["clip"].encoder.width), "sam": torch.zeros(1, 64, 32)}
    noise = torch.Generator().manual_seed(3)
    for name, place in (("clip", 1 + 4 + 2), ("sam", 8 + 2)):
        tokens[name][0, place] = 3 * torch.randn(tokens[name].shape[-1], generator=noise)
    for found in made(shown, tokens=tokens).maps(5, method):
        frame = ViewFrame(sizes.config().view(found.branch or ""), height, width)
        ((x, y),) = frame.points_to_picture([[2.5 * 8, 1.5 * 8]])
        differs = np.abs(found.values - np.median(found.values))
        row, column = np.unravel_index(differs.argmax(), differs.shape)
        step = 8 * width / frame.width, 8 * height / frame.height
        assert differs.max() > 1e-3
        assert abs(column + 0.5 - x) <= step[0] / 2 and abs(row + 0.5 - y) <= step[1] / 2
        far = (np.abs(np.arange(width) + 0.5 - x) > step[0])[None] | (np.abs(np.arange(height) + 0.5 - y) > step[1])[:, None]
        assert differs[far].max() < 1e-4


def test_hiding_what_is_even_changes_nothing_and_hiding_the_square_does() -> None:
    shown = np.full((32, 64, 3), 90, np.uint8)
    shown[4:12, 54:62] = 250
    words = made(shown)
    peaks: dict[str, float] = {"clip": 0, "sam": 0}
    for place in range(len(CAPTION.split())):
        for found in words.maps(place, "occlusion"):
            # The blur reaches 32 pixels at most: the leftmost squares, 16 pixels wide, are as they were.
            assert found.values[:, :8].max() < 1e-5
            peaks[found.branch or ""] = max(peaks[found.branch or ""], float(found.values[:, 24:].max()))
    assert min(peaks.values()) > 1e-4


def test_what_is_hidden_from_all_branches_is_hidden_from_the_picture() -> None:
    shown = np.full((32, 64, 3), 90, np.uint8)
    shown[4:12, 54:62] = 250
    words = made(shown)
    values = []
    for place, text in enumerate(CAPTION.split()):
        (found,) = words.maps(place, TOGETHER)
        assert (found.kind, found.branch, found.layer, found.word, found.place) == ("word", None, None, text, place)
        assert found.values.shape == (32, 64) and found.range == (0.0, TOP_NATS) and "all branches" in found.title
        values.append(found.values)
    strength = np.abs(values).max(0)
    # The blurred picture is another one near the square alone: hiding a place far from it changes nothing.
    assert strength[:, 40:].max() > 1e-4 and strength[:, :20].max() < 0.05 * strength.max()


def test_hiding_from_all_is_no_sum_of_hiding_from_each() -> None:
    """The word's log-probability on a picture without the place, all branches looking at that."""
    shown, model = picture(48, 48), captioner()
    drops = occlusion.together.drops(lambda pictures: _log_probs(model, pictures), shown)
    wanted = occlusion.together.spread(drops, occlusion.DRAWN, occlusion.DRAWN)
    words = made(shown)
    own = list(words._spelling.tokens[4])
    found = words.maps(4, TOGETHER)[0].source.grids  # type: ignore[union-attr]
    np.testing.assert_allclose(found, wanted[..., own].mean(-1), atol=1e-4)
    assert np.abs(found).max() > 1e-3


def _log_probs(model: Captioner, pictures: np.ndarray) -> np.ndarray:
    specs = {name: sizes.config().view(name) for name in ("clip", "sam")}
    rows = []
    for one in pictures:
        features = model.encode({name: make_view(one, spec)[None] for name, spec in specs.items()})
        with torch.no_grad():
            rows.append(-model.opt.token_losses(model.prefix(features, PROMPT), [CAPTION])[:-1].numpy())
    return np.stack(rows)


def test_masking_says_what_the_language_model_loses() -> None:
    shown, model = picture(60, 60), captioner()
    words = made(shown)
    specs = {name: sizes.config().view(name) for name in ("clip", "sam")}
    features = model.encode({name: make_view(shown, spec)[None] for name, spec in specs.items()})
    changed = {name: value.clone() for name, value in features.items()}
    changed["clip"][0, 1 + 4 * 2 + 1] = features["clip"][0, 1:].mean(0)
    with torch.no_grad():
        before, after = (-model.opt.token_losses(model.prefix(f, PROMPT), [CAPTION]) for f in (features, changed))
    drops = (before - after).clamp(min=0)[:-1]
    tokens = words._spelling.tokens
    for place, own in enumerate(tokens):
        (clip, _) = words.maps(place, "masking")
        # The square is 15 pixels wide; this is the one in its middle.
        assert clip.values[37, 22] == pytest.approx(float(drops[list(own)].mean()), abs=2e-5)


@pytest.mark.parametrize("method", ["gradient", "attention", "masking"])
def test_different_words_have_different_maps(method: str) -> None:
    words = made(picture())
    for first, second in zip(words.maps(0, method), words.maps(5, method), strict=True):
        assert np.abs(first.values - second.values).max() > 1e-6


def test_tokens_done_together_and_one_by_one_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    together = [made(picture()).maps(place) for place in range(3)]
    monkeypatch.setattr(relevance, "BYTES", 1)
    alone = made(picture())
    for place, maps in enumerate(together):
        for one, other in zip(maps, alone.maps(place), strict=True):
            np.testing.assert_allclose(one.values, other.values, rtol=1e-3, atol=1e-4)


def test_the_second_word_costs_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    words = made(picture())
    words.maps(0)
    monkeypatch.setattr("msmedcap.explain.words.looked", lambda *args, **options: pytest.fail("another pass"))
    assert words.maps(3)[0].place == 3


def test_the_gradient_does_not_touch_the_weights() -> None:
    model = captioner()
    made(picture(), model=model).maps(0)
    assert all(weight.grad is None for weight in [*model.parameters(), *model.opt.model.parameters()])


def test_features_made_in_inference_mode_serve() -> None:
    shown = picture()
    with torch.inference_mode():
        tokens = captioner().encode({n: make_view(shown, sizes.config().view(n))[None] for n in ("clip", "sam")})
    assert made(shown, tokens=tokens).maps(0)


def test_channels_have_no_place() -> None:
    parts = sizes.frozen()
    configs = sizes.config().branches
    branches = {"clip": configs["clip"], "sam": dataclasses.replace(configs["sam"], tokens="channels")}
    model = sizes.randomise(checkpoints.build_captioner(branches, parts), 3)
    for method in OF_BRANCHES:
        assert [found.branch for found in made(picture(), model=model).maps(0, method)] == ["clip"]
    assert [found.branch for found in made(picture(), model=model).maps(0, TOGETHER)] == [None]


def test_a_word_there_is_none_of_is_named_in_one_sentence() -> None:
    words = made(picture())
    for place in (-1, 9):
        with pytest.raises(UserError, match=f"There is no word {place}: the caption has 9 words, counted from 0."):
            words.maps(place)
    with pytest.raises(UserError, match="There is no method 'x'; choose from gradient"):
        words.maps(0, "x")
    empty = made(picture(), caption="")
    assert empty.words == ()
    with pytest.raises(UserError, match="the caption is empty"):
        empty.maps(0)


def test_without_gradients_the_attention_stands_in_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*args: object, **options: object) -> None:
        raise RuntimeError("no kernel for this")

    words = made(picture())
    monkeypatch.setattr(relevance, "_differentiated", none)
    maps = words.maps(2, "gradient")
    assert [found.method for found in maps] == ["attention", "attention"]
    np.testing.assert_array_equal(maps[0].values, words.maps(2, "attention")[0].values)
    assert words.maps(3, "gradient")[0].method == words.maps(3, "sensitivity")[0].method == "attention"
    assert len(words.warnings) == 1 and "gives no gradients" in words.warnings[0]


def test_large_encoders_have_a_quick_map_where_none_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    words = made(picture())
    assert {found.method for found in words.maps(2)} == {METHOD}
    monkeypatch.setattr("msmedcap.explain.words.MOST_WEIGHTS", 1)
    assert {found.method for found in made(picture()).maps(2)} == {QUICK}
    with pytest.raises(UserError, match="use the method masking"):
        made(picture()).maps(2, METHOD)
