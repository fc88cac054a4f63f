"""The predictor's words: of the caption last written, no matter by which preset, in 8 bit too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from msmedcap.config import UserError
from msmedcap.explain.words import METHODS
from msmedcap.models.packed import pack
from msmedcap.predictor import Predictor, load
from tests.sizes import HEIGHT, WIDTH, png

CAPTION = "Axial CT of the chest. Nodule on the right."


def test_words_are_those_of_the_caption_and_write_it_where_there_is_none(predictor: Predictor) -> None:
    words = predictor.words(system="BLIP2")
    caption = predictor.captions(systems=["BLIP2"])["BLIP2"]
    assert (
        words and [caption[word.start : word.end] for word in words] == [word.text for word in words] == caption.split()
    )


def test_another_caption_has_other_words(predictor: Predictor) -> None:
    predictor.captions()
    predictor.adopt({"MSMedCap": CAPTION})
    kept = predictor._caption_words("MSMedCap")
    predictor.adopt({"MSMedCap": CAPTION})
    assert predictor._caption_words("MSMedCap") is kept, "the same caption's maps are kept"
    first = predictor.word_maps(2)
    predictor.adopt({"MSMedCap": "Sagittal MRI of the spine."})
    assert [word.text for word in predictor.words()] == ["Sagittal", "MRI", "of", "the", "spine."]
    assert first[0].word == "of" and predictor.word_maps(1)[0].word == "MRI"
    predictor.set_scan(png(1))
    predictor.adopt({"MSMedCap": CAPTION})
    assert np.abs(predictor.word_maps(2)[0].values - first[0].values).max() > 1e-6


def test_the_maps_are_of_the_view_that_the_preset_looks_through(predictor: Predictor) -> None:
    predictor.adopt({"BLIP2": CAPTION}, preset="paper")  # CLIP at 48 pixels: 6 x 6 places
    for method in METHODS:
        (found,) = predictor.word_maps(3, system="BLIP2", method=method)
        assert found.values.shape == (HEIGHT, WIDTH)
    assert predictor._caption_words("BLIP2")._grids["attention"]["clip"].shape[1:] == (6, 6)


def test_mistakes_are_named(predictor: Predictor) -> None:
    predictor.adopt({"MSMedCap": CAPTION})
    with pytest.raises(UserError, match="There is no word 9: the caption has 9 words"):
        predictor.word_maps(9)
    with pytest.raises(UserError, match="GPT"):
        predictor.words(system="GPT")
    with pytest.raises(UserError, match="set_scan"):
        predictor.fresh().words()


def test_in_8_bit_words_have_maps_of_gradients_or_it_is_said_that_there_are_none(models_folder: Path) -> None:
    pytest.importorskip("bitsandbytes")
    predictor = load(str(models_folder), device="cpu", load_8bit=True).set_scan(png())
    predictor.adopt({"MSMedCap": CAPTION})
    whole = load(str(models_folder), device="cpu").set_scan(png())
    whole.adopt({"MSMedCap": CAPTION})
    assert [w.probability for w in predictor.words()] == pytest.approx([w.probability for w in whole.words()], rel=0.3)
    for eight, full in zip(
        predictor.word_maps(5, method="gradient"), whole.word_maps(5, method="gradient"), strict=True
    ):
        assert eight.method in ("gradient", "attention")
        assert (eight.method == "attention") == any("gives no gradients" in told for told in predictor.warnings)
        if eight.method == "gradient":
            assert np.corrcoef(eight.values.ravel(), full.values.ravel())[0, 1] > 0.8
    assert predictor.word_maps(5, method="attention")[0].method == "attention"


def test_packed_layers_in_bf16_let_the_gradient_through(models_folder: Path) -> None:
    predictor = load(str(models_folder), device="cpu")
    predictor._shared.frozen.opt.model.to(torch.bfloat16)
    if not pack(predictor._shared.frozen.opt.model):
        pytest.skip("this processor packs no bf16 layers")
    predictor.set_scan(png()).adopt({"MSMedCap": CAPTION})
    maps = predictor.word_maps(2, method="gradient")
    assert [found.method for found in maps] == ["gradient", "gradient"]
    assert predictor.scan is not None and predictor.warnings == list(predictor.scan.warnings)
