"""ImageCLEFmedical Caption's ROUGE-1: the preparation, and the numbers of ``rouge_score`` on what it prepares."""

from __future__ import annotations

import re
import string
from pathlib import Path

import numpy as np
import pytest

from msmedcap.config import UserError
from msmedcap.evaluation import imageclef


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("T2-weighted MRI, 5.5 mm.", "tnumberweighted mri numbernumber mm"),
        ("Axial CT (arrow): L4/L5", "axial ct arrow lnumberlnumber"),
        ("5µm × 10 – “quoted”", "numberµm × number – “quoted”"),
        ("...", ""),
        ("", ""),
    ],
)
def test_preparation(text: str, prepared: str) -> None:
    assert imageclef.prepare(text) == prepared


def test_by_hand() -> None:
    # 2 of 2 words right, 2 of 3 found; 0 of 1; both empty; an empty caption.
    scores = imageclef.rouge1([["No pleural effusion."], ["CT"], ["..."], ["CT"]], ["Pleural effusion", "MRI", "", ""])
    assert scores.per_case == pytest.approx([0.8, 0, 1, 0])
    assert scores.corpus == pytest.approx(0.45)
    assert "0.80" in imageclef.ROUGE_1.misleads


def test_no_reference_is_an_empty_one_and_the_best_of_several_counts() -> None:
    scores = imageclef.rouge1([[], [], ["MRI", "a CT", "the CT of a head"]], ["", "CT", "CT"])
    assert scores.per_case == pytest.approx([1, 0, 2 / 3])


def test_what_cannot_be_scored_is_said() -> None:
    for references, candidates in ([], []), ([["a"]], ["a", "b"]):
        with pytest.raises(UserError, match="candidates"):
            imageclef.rouge1(references, candidates)


def test_numbers_of_rouge_score(shared_data: Path) -> None:
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="needs rouge_score (pip install rouge-score)")
    file = shared_data / "roco_text" / "data" / "validation" / "radiology" / "captions.txt"
    if not file.is_file():
        pytest.skip(f"the captions of ROCO are not at {file}")
    captions = [line.split("\t", 1)[1].strip() for line in file.read_text(encoding="utf-8").splitlines() if "\t" in line]
    captions = captions[:1500]
    references, candidates = [[text] for text in captions], [*captions[1:], captions[0]]
    scorer = rouge_scorer.RougeScorer(["rouge1"], use_stemmer=False)

    def task(text: str) -> str:
        return "".join(c for c in re.sub(r"\d+", "number", text.lower()) if c not in string.punctuation)

    pairs = zip(references, candidates, strict=True)
    expected = [scorer.score(task(text), task(said))["rouge1"].fmeasure for (text,), said in pairs]
    np.testing.assert_array_equal(imageclef.rouge1(references, candidates).per_case, expected)
