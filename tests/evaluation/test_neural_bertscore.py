"""BERTScore: greedy matching and idf against cases worked by hand, the authors' package, and what must not matter."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from msmedcap.config import UserError
from msmedcap.evaluation import neural
from msmedcap.evaluation.neural import layers
from msmedcap.evaluation.neural.bertscorer import BertScorer, greedy_match, inverse_frequencies
from msmedcap.evaluation.neural.checkpoint import find
from tests.evaluation import neural_models
from tests.evaluation.neural_models import CANDIDATES, REFERENCES


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return neural_models.distilbert(tmp_path_factory.mktemp("models") / "distilbert")


def _match(candidate: list[list[float]], reference: list[list[float]], cw: list[float], rw: list[float]) -> list[float]:
    scores = greedy_match(
        torch.tensor([candidate]), torch.tensor([reference]), torch.tensor([cw]), torch.tensor([rw]),
        candidate_mask=torch.ones(1, len(cw), dtype=torch.bool), reference_mask=torch.ones(1, len(rw), dtype=torch.bool),
    )  # fmt: skip
    return scores[0].tolist()


def test_greedy_matching_by_hand() -> None:
    # Cosines: the candidate's tokens at 0 and 90 degrees, the reference's at 0, 60 and 90; lengths must not count.
    candidate = [[2.0, 0.0], [0.0, 5.0]]
    reference = [[1.0, 0.0], [0.5, math.sqrt(3) / 2], [0.0, 0.1]]
    precision, recall = 1.0, (1 + math.sqrt(3) / 2 + 1) / 3
    expected = [precision, recall, 2 * precision * recall / (precision + recall)]
    assert _match(candidate, reference, [1, 1], [1, 1, 1]) == pytest.approx(expected)


def test_weights_by_hand() -> None:
    candidate = [[1.0, 0.0], [-1.0, 0.0]]
    reference = [[1.0, 0.0], [0.0, 1.0]]
    # Bests: 1 and 0 for the candidate's tokens, 1 and 0 for the reference's.
    precision, recall = 3 / 4, 1 / 5
    expected = [precision, recall, 2 * precision * recall / (precision + recall)]
    assert _match(candidate, reference, [3, 1], [1, 4]) == pytest.approx(expected)
    assert _match(candidate, reference, [0, 0], [1, 4]) == [0, pytest.approx(0.2), 0]


def test_padding_matches_nothing() -> None:
    """A filler like a token of the other text, or unlike all where all are opposite, changes nothing."""
    candidate = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    reference = torch.tensor([[[-1.0, -0.2], [0.0, 1.0]]])
    ones = torch.ones(1, 2)
    alone = greedy_match(
        candidate[:, :1], reference[:, :1], ones[:, :1], ones[:, :1],
        candidate_mask=torch.tensor([[True]]), reference_mask=torch.tensor([[True]]),
    )  # fmt: skip
    mask = torch.tensor([[True, False]])
    padded = greedy_match(candidate, reference, ones, ones, candidate_mask=mask, reference_mask=mask)
    assert padded.tolist() == [pytest.approx(alone[0].tolist())] and alone[0, 0] < -0.9


def test_inverse_frequencies_by_hand() -> None:
    known, unseen = inverse_frequencies([[1, 2, 2, 3], [1, 3], [1]])
    assert known == pytest.approx({1: math.log(4 / 4), 2: math.log(4 / 2), 3: math.log(4 / 3)})
    assert unseen == pytest.approx(math.log(4))


@pytest.mark.parametrize("idf", [False, True])
@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("kind", ["distilbert", "deberta"])
def test_the_authors_package_agrees(tmp_path: Path, kind: str, layer: int, idf: bool) -> None:
    package = pytest.importorskip("bert_score", reason="the parity test needs `pip install bert-score`")
    folder = getattr(neural_models, kind)(tmp_path / kind, limit=128)
    ours = neural.bertscore(REFERENCES, CANDIDATES, model=folder, layer=layer, idf=idf, progress=False)
    *_, f1 = package.score(
        CANDIDATES,
        REFERENCES,
        model_type=str(folder),
        num_layers=layer,
        idf=idf,
        nthreads=0,
        device="cpu",
        batch_size=1,
    )
    assert ours.per_case == pytest.approx(f1.double().numpy(), abs=2e-6)
    assert ours.corpus == pytest.approx(float(f1.mean()), abs=2e-6)
    assert len({round(score, 3) for score in ours.per_case}) == len(CANDIDATES)


def test_layers_and_baselines_are_the_packages() -> None:
    utils = pytest.importorskip("bert_score.utils", reason="the parity test needs `pip install bert-score`")
    assert {name: utils.model2layers[name] for name in layers.LAYERS} == layers.LAYERS
    folder = Path(utils.__file__).parent / "rescale_baseline" / "en"
    for (name, layer), baseline in layers.BASELINES.items():
        row = (folder / f"{name}.tsv").read_text().splitlines()[1 + layer].split(",")
        assert [float(value) for value in row] == [layer, *baseline]


def test_batch_equals_singles_and_order_does_not_matter(model: Path) -> None:
    scored = [
        neural.bertscore([refs], [cand], model=model, layer=2, progress=False).corpus
        for refs, cand in zip(REFERENCES, CANDIDATES, strict=True)
    ]
    together = neural.bertscore(REFERENCES, CANDIDATES, model=model, layer=2, batch=4, progress=False)
    backwards = neural.bertscore(REFERENCES[::-1], CANDIDATES[::-1], model=model, layer=2, progress=False)
    assert together.per_case == pytest.approx(scored, abs=1e-6)
    assert backwards.per_case[::-1] == pytest.approx(scored, abs=1e-6)
    assert together.per_case.dtype == np.float64 and together.corpus == together.per_case.mean()


def test_the_same_text_scores_one_and_the_best_reference_counts(model: Path) -> None:
    scores = neural.bertscore(
        [["ct of the head", "mri"], ["mri"]], ["mri", "mri"], model=model, layer=2, progress=False
    )
    assert scores.per_case == pytest.approx([1, 1], abs=1e-6)


def test_an_empty_text_scores_zero_and_is_told(model: Path) -> None:
    notes: list[str] = []
    references, candidates = [["ct"], [" "], ["mri"]], ["", "ct", "mri"]
    scores = neural.bertscore(references, candidates, model=model, layer=2, progress=False, notes=notes)
    assert scores.per_case == pytest.approx([0, 0, 1], abs=1e-6)
    assert "BERTScore: 2 of 3 pairs have an empty text; their scores mean little." in notes


def test_a_long_text_is_cut_and_told(model: Path) -> None:
    notes: list[str] = []
    long = "ct of the chest " * 20
    scores = neural.bertscore([[long], ["ct"]], [long + "mri", "ct"], model=model, layer=2, progress=False, notes=notes)
    assert scores.per_case == pytest.approx([1, 1], abs=1e-6)  # what differs lies behind the cut
    assert any("1 of 2 pairs have a text longer than the model reads" in note for note in notes)
    exact = " ".join(["ct"] * 30)  # 32 tokens with the two special ones
    notes.clear()
    neural.bertscore([[exact]], ["ct"], model=model, layer=2, progress=False, notes=notes)
    assert not any("longer" in note for note in notes)


def test_what_was_cut_is_told_also_of_kept_scores(model: Path, tmp_path: Path) -> None:
    told = []
    for _ in range(2):
        notes: list[str] = []
        neural.bertscore(
            [["ct " * 40]], ["ct"], model=model, layer=2, cache=tmp_path / "s", progress=False, notes=notes
        )
        told.append(notes)
    assert told[0] == told[1] and "longer" in told[0][0]


def test_rescaling_subtracts_the_baseline(tmp_path: Path) -> None:
    folder = neural_models.distilbert(tmp_path / "distilbert-base-uncased", layers=6)
    plain = neural.bertscore(REFERENCES, CANDIDATES, model=folder, progress=False)
    rescaled = neural.bertscore(REFERENCES, CANDIDATES, model=folder, rescale=True, progress=False)
    assert rescaled.per_case == pytest.approx((plain.per_case - 0.66620487) / (1 - 0.66620487))
    with pytest.raises(UserError, match="leave rescaling off"):
        neural.bertscore(REFERENCES, CANDIDATES, model=folder, layer=3, rescale=True, progress=False)


def test_the_published_layer_is_found_by_name_only(model: Path) -> None:
    names = ("distilbert-base-uncased", "distilbert/distilbert-base-uncased@main", "/models/distilbert-base-uncased/")
    assert [layers.layer_of(name, None) for name in names] == [5, 5, 5]
    assert layers.layer_of(neural.IMAGECLEF_BERT, None) == 40
    with pytest.raises(UserError, match="say which to read"):
        neural.bertscore(REFERENCES, CANDIDATES, model=model, progress=False)


def test_a_layer_that_is_not_there(model: Path) -> None:
    with pytest.raises(UserError, match="has 3 layers; layer 4 is not among them"):
        neural.bertscore(REFERENCES, CANDIDATES, model=model, layer=4, progress=False)


def test_roberta_has_a_space_before_the_first_word_and_deberta_has_not(tmp_path: Path) -> None:
    for kind, first in (("roberta", "Ġ"), ("deberta", "c")):
        encoder = BertScorer(find(getattr(neural_models, kind)(tmp_path / kind)), layer=1, device="cpu").encoder
        ids, _ = encoder.tokens(["  ct"])
        assert encoder.tokenizer.convert_ids_to_tokens(ids[0])[1] == first


def test_roberta_reads_no_more_than_its_positions(tmp_path: Path) -> None:
    notes: list[str] = []
    folder = neural_models.roberta(tmp_path / "roberta", limit=20)
    neural.bertscore([["c" * 100]], ["c" * 17], model=folder, layer=1, progress=False, notes=notes)
    assert any("longer" in note for note in notes)


def test_idf_hangs_on_all_the_references(model: Path, tmp_path: Path) -> None:
    """Kept scores are taken only for the same references, because these weight the tokens."""
    cache = tmp_path / "scores"
    few = neural.bertscore(REFERENCES[:2], CANDIDATES[:2], model=model, layer=2, idf=True, cache=cache, progress=False)
    many = neural.bertscore(REFERENCES, CANDIDATES, model=model, layer=2, idf=True, cache=cache, progress=False)
    assert many.per_case == pytest.approx(
        neural.bertscore(REFERENCES, CANDIDATES, model=model, layer=2, idf=True, progress=False).per_case
    )
    assert few.per_case[1] != pytest.approx(many.per_case[1], abs=1e-4)


def test_what_cannot_be_scored_is_said(model: Path) -> None:
    with pytest.raises(UserError, match="no captions"):
        neural.bertscore([], [], model=model, layer=1)
    with pytest.raises(UserError, match="give one each"):
        neural.bertscore([["ct"]], ["ct", "mri"], model=model, layer=1)
    with pytest.raises(UserError, match="at least one reference"):
        neural.bertscore([["ct"], []], ["ct", "mri"], model=model, layer=1)
    with pytest.raises(UserError, match="float32, bfloat16, float16"):
        neural.bertscore([["ct"]], ["ct"], model=model, layer=1, dtype="int8")


def test_negation_is_warned_of() -> None:
    assert "0.893" in neural.BERTSCORE.misleads and neural.BERTSCORE.higher_is_better
    assert [(metric.name, metric.scale) for metric in neural.METRICS[:3]] == [
        ("BERTScore", 2),
        ("BARTScore", 0),
        ("BLEURT", 1),
    ]
