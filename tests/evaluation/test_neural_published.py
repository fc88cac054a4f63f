"""The published models give the numbers printed with them; runs where their weights are in the hub's cache."""

from __future__ import annotations

import pytest

from msmedcap.config import UserError
from msmedcap.evaluation import neural
from msmedcap.evaluation.neural.checkpoint import find


def _here(model: str) -> str:
    try:
        find(model)
    except UserError as error:
        pytest.skip(str(error))
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            "Elron/bleurt-base-512",
            [1.0327, 0.2055],
        ),  # its model card: hello world / hi universe, hello world / bye world
        ("Elron/bleurt-large-512", [0.9877, 0.0475]),
    ],
)
def test_elrons_bleurt(model: str, expected: list[float]) -> None:
    scores = neural.bleurt([["hello world"]] * 2, ["hi universe", "bye world"], model=_here(model), progress=False)
    assert scores.per_case == pytest.approx(expected, abs=2e-4)


@pytest.mark.slow
def test_bleurt_20() -> None:
    """The two pairs in the README of bleurt-pytorch."""
    references = [["a bird chirps by the window"], ["this is a random sentence"]]
    candidates = ["a bird chirps by the window", "this looks like a random sentence"]
    scores = neural.bleurt(references, candidates, model=_here(neural.BLEURT_MODEL), progress=False)
    assert scores.per_case == pytest.approx([0.9604414105415344, 0.8080050349235535], abs=1e-4)


@pytest.mark.slow
def test_bartscore() -> None:
    """The pair in the README of BARTScore."""
    scores = neural.bartscore(
        [["This is interesting."]], ["This is fun."], model=_here(neural.BART_MODEL), progress=False
    )
    assert scores.corpus == pytest.approx(-2.510652780532837, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "idf"), [(neural.BERT_MODEL, False), (neural.IMAGECLEF_BERT, True)])
def test_bertscore_of_the_authors_package(model: str, idf: bool) -> None:
    package = pytest.importorskip("bert_score", reason="the parity test needs `pip install bert-score`")
    references, candidates = (
        [["No pleural effusion."], ["Axial CT of the chest."]],
        ["Pleural effusion.", "CT of the brain."],
    )
    scores = neural.bertscore(references, candidates, model=_here(model), idf=idf, progress=False)
    *_, f1 = package.score(candidates, references, model_type=model, idf=idf, nthreads=0, device="cpu", batch_size=1)
    assert scores.per_case == pytest.approx(f1.double().numpy(), abs=1e-4)
