"""BLEURT: the three published forms load and give the head's value; joining, cutting, batches and order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import BertForSequenceClassification, BertTokenizer

from msmedcap.config import UserError
from msmedcap.evaluation import neural
from msmedcap.evaluation.neural.bleurtscorer import join
from tests.evaluation import neural_models
from tests.evaluation.neural_models import CANDIDATES, REFERENCES

FIRST = [case[:1] for case in REFERENCES]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sentencepiece", reason="BLEURT-20's vocabulary needs `pip install sentencepiece`")
    return neural_models.port_bleurt(tmp_path_factory.mktemp("models") / "bleurt20", narrow=8)[0]


def test_joining_by_hand() -> None:
    assert join([5, 6], [7], limit=9, cls=1, sep=2) == ([1, 5, 6, 2, 7, 2], [0, 0, 0, 0, 1, 1], False)
    # Seven tokens for four places: the longer loses its end, the candidate where both are equally long.
    assert join([5, 6, 7, 8], [11, 12, 13], limit=7, cls=1, sep=2) == ([1, 5, 6, 2, 11, 12, 2], [0] * 4 + [1] * 3, True)
    assert join([5, 6, 7], [11, 12, 13], limit=6, cls=1, sep=2) == ([1, 5, 6, 2, 11, 2], [0] * 4 + [1] * 2, True)
    assert join([], [], limit=9, cls=1, sep=2) == ([1, 2, 2], [0, 0, 1], False)


def test_a_classifier_as_it_stands(tmp_path: Path) -> None:
    """The form of Elron/bleurt-*, against the library's own tokenizer and head."""
    folder = neural_models.bert_bleurt(tmp_path / "bleurt")
    bert, tokenizer = (
        BertForSequenceClassification.from_pretrained(folder).eval(),
        BertTokenizer.from_pretrained(folder),
    )
    with torch.no_grad():
        heads = [
            float(bert(**tokenizer(refs[0], cand, return_tensors="pt")).logits)
            for refs, cand in zip(FIRST[:4], CANDIDATES[:4], strict=True)
        ]
    scores = neural.bleurt(FIRST[:4], CANDIDATES[:4], model=folder, progress=False)
    assert scores.per_case == pytest.approx(heads, abs=1e-5)
    assert len({round(head, 3) for head in heads}) == 4


@pytest.mark.parametrize("narrow", [8, None])
def test_the_ports_names(tmp_path: Path, narrow: int | None) -> None:
    """The forms of lucadiliello/BLEURT-20* and bleurt-*: every weight finds its place in the library's model."""
    pytest.importorskip("sentencepiece", reason="BLEURT-20's vocabulary needs `pip install sentencepiece`")
    folder, bleurt = neural_models.port_bleurt(tmp_path / "bleurt", narrow=narrow)
    if narrow:
        from sentencepiece import SentencePieceProcessor

        pieces = SentencePieceProcessor(model_file=str(folder / "spm.model"))
        left, right = pieces.encode(REFERENCES[0][0]), pieces.encode(CANDIDATES[0])
    else:
        tokenizer = BertTokenizer.from_pretrained(folder)
        left, right = (tokenizer.encode(text, add_special_tokens=False) for text in (REFERENCES[0][0], CANDIDATES[0]))
    ids = torch.tensor([[2, *left, 3, *right, 3]])  # both vocabularies: [CLS] is 2, [SEP] is 3
    segments = torch.tensor([[0] * (len(left) + 2) + [1] * (len(right) + 1)])
    with torch.no_grad():
        head = float(bleurt(input_ids=ids, token_type_ids=segments).logits)
    assert neural.bleurt(FIRST[:1], CANDIDATES[:1], model=folder, progress=False).corpus == pytest.approx(
        head, abs=1e-5
    )


def test_batch_equals_singles_and_order_does_not_matter(model: Path) -> None:
    singles = [
        neural.bleurt([refs], [cand], model=model, progress=False).corpus
        for refs, cand in zip(REFERENCES, CANDIDATES, strict=True)
    ]
    together = neural.bleurt(REFERENCES, CANDIDATES, model=model, batch=4, progress=False)
    backwards = neural.bleurt(REFERENCES[::-1], CANDIDATES[::-1], model=model, progress=False)
    assert together.per_case == pytest.approx(singles, abs=1e-5)
    assert backwards.per_case[::-1] == pytest.approx(singles, abs=1e-5)
    assert len({round(score, 4) for score in singles}) == len(singles)


def test_the_best_reference_counts(model: Path) -> None:
    alone = [neural.bleurt([[text]], [CANDIDATES[2]], model=model, progress=False).corpus for text in REFERENCES[2]]
    assert neural.bleurt([REFERENCES[2]], [CANDIDATES[2]], model=model, progress=False).corpus == pytest.approx(
        max(alone)
    )


def test_long_and_empty_texts_are_told(model: Path) -> None:
    notes: list[str] = []
    scores = neural.bleurt([["ct of the chest " * 50], ["ct"]], ["ct", ""], model=model, progress=False, notes=notes)
    assert scores.per_case.shape == (2,)
    assert any("1 of 2 pairs have a text longer" in note for note in notes)
    assert any("1 of 2 pairs have an empty text" in note for note in notes)


def test_what_is_no_bleurt_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a distilbert model, no BLEURT"):
        neural.bleurt(FIRST, CANDIDATES, model=neural_models.distilbert(tmp_path / "distilbert"), progress=False)
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(
        UserError, match="lacks 16 weights of RemBertForSequenceClassification, the first is rembert.encoder.layer.2"
    ):
        neural.bleurt(FIRST, CANDIDATES, model=broken, progress=False)
    (broken / "spm.model").write_text("x")
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="is no SentencePiece model"):
        neural.bleurt(FIRST, CANDIDATES, model=broken, progress=False)
