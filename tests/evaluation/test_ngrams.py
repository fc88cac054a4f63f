"""The COCO caption toolkit's numbers, from its own path and from its scorers, on real radiology captions and on odd ones."""

from __future__ import annotations

import importlib.util
import itertools
import os
import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from msmedcap.config import UserError
from msmedcap.evaluation import coco_toolkit, ngrams
from msmedcap.evaluation.paper import COLUMNS

spec = importlib.util.spec_from_file_location("coco_reference", Path(__file__).with_name("coco_reference.py"))
assert spec is not None and spec.loader is not None
coco_reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(coco_reference)

pytest.importorskip("pycocoevalcap", reason="needs the COCO caption toolkit (pip install pycocoevalcap)")
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java (apt install default-jre-headless)")

NO_METEOR = ("BLEU", "ROUGE-L", "CIDEr")
ODD = (
    "Axial CT (a) of a 5.5 × 4 cm³ mass… in the liver's left lobe.",
    'A "ground-glass" opacity — ``reversed halo\'\' sign; see [1].',
    "No pleural effusion. No pneumothorax.",
    "||| pipes | and ||| more pipes",
    "mass,\u00a0lesion\u00a0or cyst 1 3/4 in. long",
    "T1-weighted MRI of J. Smith, M.D., U.S., 5 a.m. vs. 6 p.m.",
    "http://example.org/a?b=c&d=e <b>bold</b> &amp; A&E {x} \\ / ~ ^ _",
    "…", ".", "?!", "- -- ---", "EVAL", "SCORE ||| x", "Error: nothing", "-LRB- *NL*",
    "ﬁnding in the œsophagus, 37°C, 10µm, Ω, 汉字, 🩻 and \u2061",
    "can't won't it's patients' 'quoted' #1 $5 50% +/-2",
    "\ttabs\t and   blanks  ",
    "Virtual reality reconstruction of twins A and B.",
    "Under the arrow.",
)  # fmt: skip


@pytest.fixture
def captions(shared_data: Path) -> list[str]:
    file = shared_data / "roco_text" / "data" / "validation" / "radiology" / "captions.txt"
    if not file.is_file():
        pytest.skip(f"the captions of ROCO are not at {file}")
    with file.open(encoding="utf-8", newline="\n") as lines:
        return [line.rstrip("\n").split("\t", 1)[1] for line in lines]


def check_parity(references: list[list[str]], candidates: list[str], patch: pytest.MonkeyPatch, *, meteor: bool) -> None:
    ours = ngrams.score(references, candidates, metrics=ngrams.GROUPS if meteor else NO_METEOR)
    corpus, each = coco_reference.toolkit(references, candidates, patch, meteor=meteor)
    assert sorted(ours) == sorted(corpus)
    for name, value in corpus.items():
        assert ours[name].corpus == pytest.approx(value, rel=1e-13, abs=1e-300), name
        np.testing.assert_allclose(ours[name].per_case, each[name], rtol=1e-12, atol=1e-14, err_msg=name)


@needs_java
def test_odd_captions_score_as_the_toolkit_scores_them(monkeypatch: pytest.MonkeyPatch) -> None:
    references, candidates = coco_reference.disturbed(ODD * 3)
    references[3], candidates[5], candidates[7] = [""], "", "Axial CT (a)"
    check_parity(references, candidates, monkeypatch, meteor=False)


@needs_java
@pytest.mark.slow
def test_meteor_of_odd_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    references, candidates = coco_reference.disturbed(ODD * 3)
    references[3], candidates[5], candidates[7] = [""], "", ODD[7]
    check_parity(references, candidates, monkeypatch, meteor=True)


@needs_java
@pytest.mark.slow
def test_all_captions_of_roco_score_as_the_toolkit_scores_them(captions: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(captions) == 8180
    check_parity(*coco_reference.disturbed(captions), monkeypatch, meteor=False)


@needs_java
@pytest.mark.slow
def test_meteor_of_captions_of_roco(captions: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    check_parity(*coco_reference.disturbed(captions[:1000]), monkeypatch, meteor=True)


def words(chance: random.Random, most: int = 14) -> str:
    return " ".join(chance.choices(["a", "a", "the", "of", "ct", "scan", "chest", "left", "lung"], k=chance.randint(0, most)))


def test_tokens_score_as_with_the_toolkits_scorers(capsys: pytest.CaptureFixture[str]) -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    chance = random.Random(1)
    references = [[words(chance) for _ in range(chance.randint(1, 4))] for _ in range(200)]
    candidates = [words(chance) for _ in references]
    counts, cider = ngrams._counted(references, candidates)
    rouge = [ngrams.rouge_l(*pair) for pair in zip(references, candidates, strict=True)]
    truths, texts = dict(enumerate(references)), {i: [text] for i, text in enumerate(candidates)}
    assert "" in candidates and [""] in references
    whole, each = Bleu(4).compute_score(truths, texts, verbose=0)
    for n in range(1, 5):
        np.testing.assert_allclose(ngrams.bleu(counts, n=n), each[n - 1], rtol=1e-12)
        assert ngrams.bleu(counts.sum(0), n=n) == pytest.approx(whole[n - 1], rel=1e-13)
    np.testing.assert_allclose(cider, Cider().compute_score(truths, texts)[1], rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(rouge, Rouge().compute_score(truths, texts)[1])
    assert capsys.readouterr().out == ""


def test_bleu_of_a_resample_is_exact() -> None:
    from pycocoevalcap.bleu.bleu import Bleu

    chance = random.Random(2)
    references = [[words(chance), words(chance)] for _ in range(30)]
    candidates = [words(chance) for _ in references]
    counts, _ = ngrams._counted(references, candidates)
    drawn = [chance.randrange(30) for _ in range(30)]
    weights = np.bincount(drawn, minlength=30)
    truths, texts = {i: references[k] for i, k in enumerate(drawn)}, {i: [candidates[k]] for i, k in enumerate(drawn)}
    expected, _ = Bleu(4).compute_score(truths, texts, verbose=0)
    assert [float(ngrams.bleu(weights @ counts, n=n)) for n in range(1, 5)] == pytest.approx(expected, rel=1e-13)
    assert ngrams.bleu(np.stack([weights, weights]) @ counts).shape == (2,)


def test_bleu_by_hand() -> None:
    # "the the the" against "the cat": one of three words (clipped), no pair of two.
    counts, _ = ngrams._counted([["the cat"]], ["the the the"])
    assert counts.tolist() == [[1, 0, 0, 0, 3, 2, 1, 0, 2]]
    assert ngrams.bleu(counts, n=1)[0] == pytest.approx(1 / 3, rel=1e-8)
    # "the" against "the cat": every word, but half as long: exp(1 - 2/1).
    counts, _ = ngrams._counted([["the cat"]], ["the"])
    assert ngrams.bleu(counts, n=1)[0] == pytest.approx(np.exp(-1), rel=1e-7)


def test_nothing_in_common_or_nothing_at_all() -> None:
    for references, candidates in ([[""]], [""]), ([["a b"]], [""]), ([[""]], ["a b"]), ([["a b"], ["a"]], ["c d e f", "g"]):
        counts, cider = ngrams._counted(references, candidates)
        assert np.isfinite(ngrams.bleu(counts)).all() and ngrams.bleu(counts).max() < 1e-3
        assert cider.tolist() == [0.0] * len(candidates)


def test_longest_common_subsequence() -> None:
    chance = random.Random(3)
    for _ in range(200):
        a, b = (chance.choices("abc", k=chance.randint(0, 6)) for _ in range(2))
        parts = {tuple(part) for k in range(len(a) + 1) for part in itertools.combinations(a, k)}
        longest = max(len(part) for k in range(len(b) + 1) for part in itertools.combinations(b, k) if part in parts)
        assert ngrams.longest_common(a, b) == longest


def test_meteor_by_hand() -> None:
    # "ct scan of a chest" against "a ct scan of the chest": 3 content words of 3 and 3, 2 function words of 2 and 3, 3 chunks.
    sums = np.zeros(23)
    sums[:8], sums[20:] = [5, 6, 2, 3, 3, 3, 2, 2], [3, 5, 5]
    precision, recall = 1.0, (0.75 * 3 + 0.25 * 2) / (0.75 * 3 + 0.25 * 3)
    mean = 1 / (0.15 / precision + 0.85 / recall)
    assert ngrams.meteor(sums) == pytest.approx(mean * (1 - 0.6 * (3 / 5) ** 0.2))
    assert ngrams.meteor(np.zeros((2, 23))).tolist() == [0.0, 0.0]


def test_negation_hardly_matters() -> None:
    assert ngrams.rouge_l(["pleural effusion"], "no pleural effusion") == pytest.approx(0.83, abs=0.005)
    assert all("0.83" in metric.misleads for metric in ngrams.METRICS if metric.name != "CIDEr")


@needs_java
def test_empty_texts_and_missing_references_stop_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    found = ngrams.score([[], [""], ["a ct scan"], ["a ct scan", ""]], ["a ct scan", "", "", "\n"], metrics=NO_METEOR)
    assert all(np.isfinite(scores.per_case).all() and np.isfinite(scores.corpus) for scores in found.values())
    assert [len(scores.per_case) for scores in found.values()] == [4] * 6
    assert capfd.readouterr() == ("", "")


@needs_java
def test_systems_are_scored_as_each_alone() -> None:
    references, candidates = coco_reference.disturbed(ODD)
    both = ngrams.score_systems(references, {"a": candidates, "b": candidates[::-1]}, metrics=["ROUGE_L", "BLEU"])
    assert list(both) == ["a", "b"] and list(both["a"]) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L"]
    alone = ngrams.score(references, candidates[::-1], metrics=["BLEU", "ROUGE-L"])
    for name, scores in alone.items():
        np.testing.assert_array_equal(scores.per_case, both["b"][name].per_case)
    np.testing.assert_array_equal(alone["BLEU-4"].counts, ngrams.bleu_counts(references, candidates[::-1]))


@needs_java
def test_a_caption_is_one_line_whatever_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    texts = ["a\nb\rc\vd\fe\u2028f\u2029g\r\n", "", "café – 5µm", "\udcff broken", ""]
    assert coco_toolkit.tokenise(texts) == ["a b c d e f g", "", "café 5µm", "broken", ""]
    chance = random.Random(4)
    noise = ["".join(chr(chance.randrange(1, chance.choice((0x300, 0xFFFF)))) for _ in range(12)) for _ in range(400)]
    assert len(coco_toolkit.tokenise(noise)) == 400


@needs_java
def test_a_full_stop_can_depend_on_the_next_caption() -> None:
    assert coco_toolkit.tokenise(["Twins A and B.", "Under the arrow."])[0] == "twins a and b."
    assert coco_toolkit.tokenise(["Twins A and B.", "A mass."])[0] == "twins a and b"


def fake_java(folder: Path, script: str, patch: pytest.MonkeyPatch) -> None:
    program = folder / "java"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    patch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_without_java_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="needs Java: install it .*apt install default-jre-headless"):
        ngrams.score([["a"]], ["a"])


def test_without_the_toolkit_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_java(tmp_path, "cat", monkeypatch)
    monkeypatch.setitem(sys.modules, "pycocoevalcap.tokenizer", None)
    with pytest.raises(UserError, match="pip install pycocoevalcap"):
        ngrams.score([["a"]], ["a"])


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("cat >/dev/null; echo java.lang.OutOfMemoryError: Java heap space >&2; exit 1", "OutOfMemoryError"),
        ("cat >/dev/null; echo one", "2 of 3 lines"),
        ("cat >/dev/null; echo a; echo 'Error: b'; echo c", "3 of 3 lines"),
    ],
)
def test_java_that_fails_is_an_error_not_a_number(
    script: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_java(tmp_path, script, monkeypatch)
    with pytest.raises(UserError, match=said):
        coco_toolkit.tokenise(["a", "b", "c"])


def test_much_talk_on_either_side_blocks_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_java(tmp_path, "head -c 1000000 /dev/zero >&2; cat", monkeypatch)
    texts = [f"caption {i} " + "x" * 50 for i in range(20_000)]
    assert coco_toolkit.tokenise(texts) == texts


@pytest.mark.parametrize(
    ("references", "candidates", "metrics", "said"),
    [
        ([["a"]], [], ["BLEU"], "1 cases with references but 0"),
        ([], [], ["BLEU"], "0 cases"),
        ([["a"]], ["a", "b"], ["BLEU"], "2 candidates"),
        ([["a"]], ["a"], ["SPICE"], "no metric 'SPICE'"),
    ],
)
def test_what_cannot_be_scored_is_said(
    references: Sequence[Sequence[str]], candidates: Sequence[str], metrics: Sequence[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        ngrams.score(references, candidates, metrics=metrics)


def test_every_metric_says_what_it_is() -> None:
    printed = {column.name: column.power for column in COLUMNS}
    for metric in ngrams.METRICS:
        assert metric.higher_is_better and metric.definition.endswith(".") and metric.source.endswith(".") and metric.misleads
        assert metric.scale == printed.get(metric.name, 3)
    assert set(printed) - {"BERTScore", "BLEURT"} <= {metric.column for metric in ngrams.METRICS}
