"""The semantic-aware decoder, the scores of classes, and the text module that makes their vectors and the text token."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast, CLIPConfig, CLIPModel

from msmedcap.config import SegmenterConfig, UserError
from msmedcap.models.segmenter import Prompts
from msmedcap.models.semantics import PRIOR, ClassScore
from msmedcap.models.text import ClassTexts, TextSummary, read_with_hub, read_with_opt
from tests import segmenting, sizes

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "liver", "spleen", "left", "lung", "dark", "a", "bright"]


def test_a_score_is_the_cosine_times_a_scale() -> None:
    score = ClassScore()
    said, classes = torch.randn(4, 8), torch.randn(3, 8)
    found = score(said, classes)
    wanted = torch.nn.functional.cosine_similarity(said[:, None], classes[None], dim=-1) * score.log_scale.exp()
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(score(said * 7, classes * 0.1), found)
    with torch.no_grad():
        score.log_scale.fill_(50)
    assert score(said, classes).abs().max() <= 100.01


def test_what_is_elsewhere_begins_as_unlikely() -> None:
    score = ClassScore(prior=PRIOR)
    assert torch.allclose(score(torch.zeros(1, 8), torch.randn(5, 8)).sigmoid(), torch.tensor(PRIOR))


@torch.no_grad()
def test_the_semantic_mask_is_another_decoders() -> None:
    segmenter, features = segmenting.segmenter(), segmenting.features(1)
    prompts = Prompts(boxes=torch.tensor([[4.0, 4.0, 40.0, 30.0]]))
    before = segmenter(features, prompts)
    for value in segmenter.prompts.decoder.parameters():
        value.add_(0.1)
    after = segmenter(features, prompts)
    assert torch.equal(before.semantic, after.semantic) and torch.equal(before.named, after.named)  # type: ignore[arg-type]
    assert not torch.allclose(before.binary, after.binary, atol=1e-3)


@torch.no_grad()
def test_the_text_token_begins_at_zero_and_is_the_pictures_not_the_prompts() -> None:
    fresh = segmenting.untrained(sizes.frozen().prompts)
    features = segmenting.features(2)
    token = fresh.text_token(features)
    assert token is not None and token.shape == (2, 1, features.shape[1]) and not token.any()
    segmenter = segmenting.segmenter()
    token = segmenter.text_token(features)
    assert token is not None and (token[0] - token[1]).abs().max() > 1e-3
    alone = segmenter.text_token(features[1:])
    torch.testing.assert_close(alone, token[1:], atol=1e-5, rtol=1e-4)
    prompts = Prompts(boxes=torch.tensor([[4.0, 4.0, 40.0, 30.0]]), picture=torch.tensor([1]))
    torch.testing.assert_close(segmenter(features, prompts).binary, segmenter(features, prompts, token=token).binary)
    assert not torch.allclose(
        segmenter(features, prompts, token=token + 1).binary, segmenter(features, prompts, token=token).binary, atol=1e-3
    )


@torch.no_grad()
def test_the_summary_looks_at_where_and_at_the_classes_in_any_order() -> None:
    summary = sizes.randomise(TextSummary(8, 2), 0)
    classes, features, place = torch.randn(5, 8), torch.randn(2, 8, 3, 3), torch.randn(1, 8, 3, 3)
    token = summary(classes, features, place)
    torch.testing.assert_close(summary(classes.flip(0), features, place), token, atol=1e-5, rtol=1e-4)
    # Places and features moved together are the same picture to attention; features moved alone are another.
    moved = features.flip(-1), place.flip(-1)
    torch.testing.assert_close(summary(classes, *moved), token, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(summary(classes, moved[0], place), token, atol=1e-4)


def test_texts_are_standardised_by_the_classes_of_the_training_alone() -> None:
    said = segmenting.texts(6)
    module = ClassTexts(said, known=4, width=8)
    torch.testing.assert_close(module.get_buffer("mean"), said[:4].mean(0))
    before = module()
    module.texts = module.extended(100 * torch.ones(1, *said.shape[1:]))
    torch.testing.assert_close(module()[:6], before)
    one = ClassTexts(said[:1], known=1, width=8)
    assert bool(one().isfinite().all())


@pytest.mark.parametrize(
    ("change", "says"),
    [({"summarised": 3}, "summarised"), ({"summarised": 0}, "summarised"), ({"classes": ("a", "a")}, "each once"),
     ({"classes": ()}, "at least one"), ({"tokens": 0}, "tokens")],
)
def test_a_config_that_cannot_be_is_refused(change: dict[str, object], says: str) -> None:
    given = {"classes": ("a", "b"), "summarised": 2, **change}
    with pytest.raises(UserError, match=says):
        SegmenterConfig(**given)  # type: ignore[arg-type]


def test_reading_with_the_language_model_does_not_depend_on_the_company() -> None:
    opt = sizes.opt()
    texts = ["Axial CT of the head.", "No findings.", "Sagittal T2-weighted MRI of the spine. Disc herniation."]
    together = read_with_opt(opt, texts)
    assert together.shape == (3, opt.model.config.hidden_size) and together.dtype == torch.float32
    for i, text in enumerate(texts):
        torch.testing.assert_close(read_with_opt(opt, [text])[0], together[i], atol=1e-5, rtol=1e-4)
    ids = torch.tensor([[opt.tokenizer.bos_token_id, *opt.tokenizer(texts[0], add_special_tokens=False).input_ids]])
    with torch.no_grad():
        states = opt.model.model.decoder(input_ids=ids).last_hidden_state[0, 1:]
    torch.testing.assert_close(together[0], states.mean(0), atol=1e-5, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-2


@pytest.fixture(params=["bert", "clip"])
def hub_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A text encoder as a hub keeps it, at test size: a BERT, or a CLIP with its text half."""
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    BertTokenizerFast(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    small = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    torch.manual_seed(0)
    if request.param == "bert":
        model = BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **small))
    else:
        text = dict(small, vocab_size=len(WORDS), max_position_embeddings=32, eos_token_id=3, bos_token_id=2, pad_token_id=0)
        vision = dict(small, image_size=16, patch_size=8)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
    sizes.randomise(model, 2, scale=0.3).save_pretrained(tmp_path)
    return tmp_path


def test_reading_with_a_hub_model_does_not_depend_on_the_company(hub_folder: Path) -> None:
    texts = ["liver dark", "left lung a bright dark spleen", "spleen " * 60]
    together = read_with_hub(str(hub_folder), texts)
    assert together.shape[0] == 3 and together.shape[1] in (12, 16) and together.dtype == torch.float32
    for i, text in enumerate(texts):
        torch.testing.assert_close(read_with_hub(str(hub_folder), [text])[0], together[i], atol=1e-5, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_a_text_encoder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be loaded"):
        read_with_hub(str(tmp_path / "nowhere"), ["liver"])


@torch.no_grad()
def test_the_semantic_mask_follows_the_class_that_is_named() -> None:
    """With the same token, another class gives another mask; an untrained decoder follows none yet."""
    segmenter, features = segmenting.segmenter(), segmenting.features(1)
    prompts = Prompts(boxes=torch.tensor([[4.0, 4.0, 40.0, 30.0]]))
    assert segmenter.semantics is not None
    masks = []
    for name in range(2):
        handle = segmenter.semantics.object_score.register_forward_hook(
            lambda _, __, out, name=name: torch.full_like(out, -50).index_fill_(-1, torch.tensor([name]), 50)
        )
        masks.append(segmenter(features, prompts).semantic)
        handle.remove()
    assert (masks[0] - masks[1]).abs().max() > 1e-2
    fresh = segmenting.untrained(sizes.frozen().prompts).semantics
    assert fresh is not None and not fresh.from_class.weight.any() and not fresh.from_class.bias.any()
