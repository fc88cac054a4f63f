"""BARTScore: the mean log-probability worked by hand from logits, its directions, and what must not matter."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import BartForConditionalGeneration, BartTokenizer

from msmedcap.config import UserError
from msmedcap.evaluation import neural
from msmedcap.evaluation.neural.bartscorer import mean_log_probability
from tests.evaluation import neural_models
from tests.evaluation.neural_models import CANDIDATES, REFERENCES

FIRST = [case[:1] for case in REFERENCES]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return neural_models.bart(tmp_path_factory.mktemp("models") / "bart")


def test_the_mean_by_hand() -> None:
    # Row 0: probabilities 1/4 and 3/4 of the targets; row 1: 1/2, then a filler that does not count.
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, math.log(3)]], [[5.0, 5.0], [9.0, 0.0]]])
    targets = torch.tensor([[0, 1], [1, 1]])
    mask = torch.tensor([[True, True], [True, False]])
    expected = [(math.log(1 / 4) + math.log(3 / 4)) / 2, math.log(1 / 2)]
    assert mean_log_probability(logits, targets, mask).tolist() == pytest.approx(expected)


def test_each_token_after_those_before_it(model: Path) -> None:
    """The library's own decoder, one token at a time: start token, then the target's ids, special ones included."""
    bart, tokenizer = BartForConditionalGeneration.from_pretrained(model).eval(), BartTokenizer.from_pretrained(model)
    source, target = tokenizer("axial ct", return_tensors="pt")["input_ids"], tokenizer("a brain")["input_ids"]
    assert target[0] == 0 and target[-1] == 2
    total, said = 0.0, [2]
    with torch.no_grad():
        for token in target:
            logits = bart(input_ids=source, decoder_input_ids=torch.tensor([said])).logits[0, -1]
            total += float(logits.log_softmax(0)[token])
            said.append(token)
    scores = neural.bartscore([["axial ct"]], ["a brain"], model=model, progress=False)
    assert scores.corpus == pytest.approx(total / len(target), abs=1e-5)


def test_the_directions(model: Path) -> None:
    def score(direction: str, references: list[list[str]], candidates: list[str]) -> list[float]:
        return list(neural.bartscore(references, candidates, model=model, direction=direction, progress=False).per_case)

    there = score("references->candidates", FIRST, CANDIDATES)
    back = score("candidates->references", FIRST, CANDIDATES)
    turned = score("references->candidates", [[text] for text in CANDIDATES], [case[0] for case in FIRST])
    assert back == pytest.approx(turned, abs=1e-5)
    assert score("F", FIRST, CANDIDATES) == pytest.approx([(a + b) / 2 for a, b in zip(there, back, strict=True)])
    assert max(abs(a - b) for a, b in zip(there, back, strict=True)) > 0.05 and max(there) < 0


def test_batch_equals_singles_and_order_does_not_matter(model: Path) -> None:
    singles = [
        neural.bartscore([refs], [cand], model=model, progress=False).corpus
        for refs, cand in zip(REFERENCES, CANDIDATES, strict=True)
    ]
    together = neural.bartscore(REFERENCES, CANDIDATES, model=model, batch=4, progress=False)
    backwards = neural.bartscore(REFERENCES[::-1], CANDIDATES[::-1], model=model, progress=False)
    assert together.per_case == pytest.approx(singles, abs=1e-5)
    assert backwards.per_case[::-1] == pytest.approx(singles, abs=1e-5)
    assert len({round(score, 3) for score in singles}) == len(singles)


def test_the_mean_over_references(model: Path) -> None:
    alone = [neural.bartscore([[text]], [CANDIDATES[2]], model=model, progress=False).corpus for text in REFERENCES[2]]
    both = neural.bartscore([REFERENCES[2]], [CANDIDATES[2]], model=model, progress=False)
    assert both.corpus == pytest.approx(sum(alone) / 2)


def test_both_directions_are_kept_apart_and_shared_with_f(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "scores"
    fresh = neural.bartscore(FIRST, CANDIDATES, model=model, direction="F", progress=False)
    for direction in ("references->candidates", "candidates->references"):
        neural.bartscore(FIRST, CANDIDATES, model=model, direction=direction, cache=cache, progress=False)
    kept = neural.bartscore(FIRST, CANDIDATES, model=model, direction="F", cache=cache, progress=False)
    assert kept.per_case == pytest.approx(fresh.per_case, abs=1e-6)


def test_long_and_empty_texts_are_told(model: Path) -> None:
    notes: list[str] = []
    scores = neural.bartscore([["ct " * 100], ["ct"]], ["ct", ""], model=model, progress=False, notes=notes)
    assert scores.per_case.shape == (2,) and scores.per_case.max() < 0
    assert any("1 of 2 pairs have a text longer" in note for note in notes)
    assert any("1 of 2 pairs have an empty text" in note for note in notes)
    assert notes[-1].startswith("BARTScore: references->candidates, ")


def test_another_kind_of_model_or_direction_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs an encoder-decoder such as facebook/bart-large-cnn"):
        neural.bartscore(FIRST, CANDIDATES, model=neural_models.distilbert(tmp_path / "distilbert"), progress=False)
    with pytest.raises(UserError, match="references->candidates, candidates->references, F"):
        neural.bartscore(FIRST, CANDIDATES, model=model, direction="up", progress=False)
