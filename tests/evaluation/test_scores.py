"""The scores are what can be counted by hand, and they say how sure they are and who differs from whom."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from msmedcap.config import UserError
from msmedcap.evaluation import scores
from msmedcap.evaluation.captions_file import Store, read
from msmedcap.evaluation.fact_rates import gather, score_rows
from msmedcap.evaluation.measures import Measure, Wanted, wanted
from msmedcap.evaluation.statistics import bootstrap, paired, ratio

FACTS_ONLY = wanted(["facts"])


def row(
    name: str, group: str, captions: Mapping[str, str], facts: Mapping[str, str], *references: str
) -> dict[str, Any]:
    error = None if captions else "not a picture"
    fixed = {"source": "few", "image": None, "references": list(references), "error": error}
    return {"id": name, "group": group, "facts": facts, "captions": captions, **fixed}


def said(text: str, other: str = "") -> dict[str, str]:
    return {"MSMedCap": text, "BLIP2": other}


ROWS = [
    row("a", "p1", said("Axial CT of the chest."), {"modality": "CT", "plane": "axial", "part": "chest"}, "Axial CT."),
    row(
        "b",
        "p1",
        said("Axial MR of the lumbar spine. Axial MR of the lumbar spine."),
        {"modality": "MRI", "plane": "sagittal", "part": "spine"},
        "Sagittal MRI.",
    ),
    row(
        "c",
        "p2",
        said("Frontal radiograph of the chest. COVID-19."),
        {"modality": "X-ray", "part": "chest", "label": "pneumonia"},
        "Frontal X-ray of the chest.",
    ),
    row(
        "d",
        "p3",
        said("Ultrasound of the breast. Benign mass."),
        {"modality": "ultrasound", "part": "breast", "label": "benign"},
        "Ultrasound of the breast.",
    ),
]


def written(tmp_path: Path, rows: list[dict[str, Any]], name: str = "few", split: str = "dev") -> Any:
    file = tmp_path / f"{name}-{split}.jsonl"
    list(Store(file, {"data": name, "split": split}).append(rows))
    return read(file)


def test_facts_are_what_can_be_counted_by_hand() -> None:
    found = score_rows(ROWS, "MSMedCap")
    assert (found["n"], found["groups"], found["unreadable"]) == (4, 3, 0)
    assert found["modality"]["value"] == 1.0
    assert (found["plane"]["n"], found["plane"]["balanced"]) == (2, 0.5)
    assert found["part"]["value"] == 1.0
    assert (found["label"]["n"], found["label"]["value"]) == (2, 0.5)
    assert found["label"]["recalls"]["pneumonia"]["value"] == 0.0
    assert (found["distinct"], found["faulty"]["value"]) == (1.0, 0.25)


def test_a_picture_that_cannot_be_read_counts_as_wrong(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "captions": {}, "error": "not a picture"}, *ROWS[1:]]
    found = score_rows(rows, "MSMedCap")
    assert found["unreadable"] == 1
    assert found["modality"]["value"] == 0.75
    document = scores.score_file(written(tmp_path, rows), wanted=FACTS_ONLY)
    assert "few dev: 1 pictures could not be read" in document["warnings"][0]


def test_a_system_without_a_caption_of_a_picture_counts_as_wrong_and_is_told(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "captions": {"BLIP2": "CT."}}, *ROWS[1:]]
    document = scores.score_file(written(tmp_path, rows), wanted=FACTS_ONLY)
    by_system = {record["system"]: record for record in document["scores"]}
    assert by_system["MSMedCap"]["modality"]["value"] == 0.75
    assert (
        "few dev: MSMedCap gave no caption of 1 pictures that could be read; they count as wrong."
        in document["warnings"]
    )


def test_measures_of_facts_are_the_rates_with_intervals_by_patient(tmp_path: Path) -> None:
    document = scores.score_file(written(tmp_path, ROWS), wanted=FACTS_ONLY)
    record = document["scores"][0]
    for fact in ("modality", "plane", "part", "label"):
        assert record["metrics"][fact]["value"] == record[fact]["value"]
        assert record["metrics"][fact]["n"] == record[fact]["n"]
    assert record["metrics"]["plane (balanced)"]["value"] == record["plane"]["balanced"]
    assert record["metrics"]["label (balanced)"]["value"] == record["label"]["balanced"]
    # Cases a and b are one patient's: where the patient is drawn, half of the planes are right, never all.
    assert (record["metrics"]["plane"]["low"], record["metrics"]["plane"]["high"]) == (0.5, 0.5)


def test_an_absent_fact_and_a_data_set_without_facts_have_no_measure(tmp_path: Path) -> None:
    document = scores.score_file(written(tmp_path, [{**ROWS[0], "facts": {}}]), wanted=FACTS_ONLY)
    assert document["metrics"] == {}
    assert document["scores"][0]["modality"]["value"] is None
    json.dumps(document, allow_nan=False)


def test_systems_are_compared_in_pairs(tmp_path: Path) -> None:
    rows = [{**r, "group": f"p{i}-{r['id']}", "id": f"{r['id']}{i}"} for i in range(10) for r in ROWS]
    document = scores.score_file(written(tmp_path, rows), wanted=FACTS_ONLY)
    (modality,) = (d for d in document["differences"] if d["metric"] == "modality")
    assert (modality["a"], modality["b"], modality["value"]) == ("MSMedCap", "BLIP2", 1.0)
    assert modality["p"] == modality["p_holm"] == 1 / 5000
    for r in rows:
        r["captions"] = {"MSMedCap": "CT.", "BLIP2": "CT."}
    same = scores.score_file(written(tmp_path, rows, "same"), wanted=FACTS_ONLY)
    assert {(d["value"], d["low"], d["high"], d["p"]) for d in same["differences"]} == {(0.0, 0.0, 0.0, 1.0)}


def test_every_score_is_that_of_its_own_counts_whatever_is_computed_beside_it() -> None:
    generator = np.random.default_rng(0)
    groups = [f"p{i // 2}" for i in range(30)]
    shared = {name: generator.integers(0, 9, (30, 3)).astype(float) for name in "abc"}
    means = {name: generator.random(30) for name in "abc"}

    def first(sums: np.ndarray) -> np.ndarray:
        return ratio(sums[..., 0], sums[..., 2])

    def second(sums: np.ndarray) -> np.ndarray:
        return ratio(sums[..., 1], sums[..., 2])

    found = [
        Measure("one", "text", shared, statistic=first),
        Measure("mean", "text", means),
        Measure("two", "text", shared, statistic=second),
    ]
    scored, differences = scores.compare(found, list("abc"), groups)
    assert len(differences) == 9
    for name, counts, statistic in (("one", shared, first), ("two", shared, second)):
        alone = bootstrap(counts["b"], groups, statistic=statistic)
        assert scored["b"][name] == pytest.approx({"value": alone.value, "low": alone.low, "high": alone.high, "n": 0})
    alone = bootstrap(means["c"], groups)
    assert scored["c"]["mean"]["low"] == pytest.approx(alone.low)
    pair = paired(means["a"], means["c"], groups)
    (found_pair,) = (d for d in differences if (d["metric"], d["a"], d["b"]) == ("mean", "a", "c"))
    assert (found_pair["value"], found_pair["low"], found_pair["p"]) == pytest.approx((pair.value, pair.low, pair.p))


def test_memory_not_numbers_depends_on_how_much_is_resampled_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, ROWS)
    whole = scores.score_file(file, wanted=FACTS_ONLY)
    monkeypatch.setattr(scores, "AT_ONCE", 1)
    assert scores.score_file(file, wanted=FACTS_ONLY) == whole


def test_only_the_cases_and_systems_asked_for_are_scored(tmp_path: Path) -> None:
    file = written(tmp_path, ROWS)
    document = scores.score_file(file, only={"a", "c"}, systems=["BLIP2"], wanted=FACTS_ONLY)
    assert [(r["system"], r["n"]) for r in document["scores"]] == [("BLIP2", 2)]
    with pytest.raises(UserError, match="no captions of a system 'SAM-BLIP2'; there are those of MSMedCap, BLIP2"):
        scores.score_file(file, systems=["SAM-BLIP2"], wanted=FACTS_ONLY)
    with pytest.raises(UserError, match="few dev: there are no captions to score"):
        scores.score_file(file, only=set(), wanted=FACTS_ONLY)


def test_several_data_sets_are_also_scored_as_one(tmp_path: Path) -> None:
    files = [(written(tmp_path, ROWS[:2], "one"), None), (written(tmp_path, ROWS[1:], "two"), None)]
    document = scores.score_files(files, systems=["MSMedCap"], wanted=FACTS_ONLY)
    assert [(r["data"], r["split"], r["n"]) for r in document["scores"]] == [
        ("one", "dev", 2),
        ("two", "dev", 3),
        ("one+two", "dev", 5),
    ]
    assert document["scores"][2]["groups"] == 4  # the same name in another data set is another patient
    assert document["made_with"]["one-dev"] == {"data": "one", "split": "dev"}
    with pytest.raises(UserError, match="Two captions files are of one dev"):
        scores.score_files([files[0], files[0]], wanted=FACTS_ONLY)


def test_a_case_counts_once_and_rows_may_come_from_a_stream() -> None:
    cases = gather(iter([*ROWS, ROWS[0]]))
    assert len(cases) == 4 and cases.texts["MSMedCap"][0] == "Axial CT of the chest."
    assert cases.repeated == 1


def test_without_references_facts_are_scored_and_the_rest_is_told(tmp_path: Path) -> None:
    rows = [{**r, "references": []} for r in ROWS]
    document = scores.score_file(written(tmp_path, rows))
    assert {metric["section"] for metric in document["metrics"].values()} == {"facts"}
    assert any("has no references" in warning for warning in document["warnings"])


@pytest.mark.skipif(shutil.which("java") is None, reason="the COCO caption toolkit needs Java")
def test_words_are_scored_as_the_toolkit_does_on_the_cases_that_have_references(tmp_path: Path) -> None:
    from msmedcap.evaluation import ngrams

    rows = [*ROWS, {**ROWS[0], "id": "e", "group": "p9", "references": []}]
    document = scores.score_file(written(tmp_path, rows), wanted=wanted(["BLEU", "ROUGE-L"]))
    held = gather(ROWS)
    alone = ngrams.score(held.references, held.texts["MSMedCap"], metrics=["BLEU", "ROUGE-L"])
    found = document["scores"][0]["metrics"]
    assert list(found) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L"]
    for name, score in found.items():
        assert score["value"] == pytest.approx(alone[name].corpus)
        assert score["n"] == 4
    assert document["metrics"]["BLEU-1"]["misleads"]
    assert "few dev: 1 of 5 cases have no reference" in document["warnings"][0]


def test_without_java_the_default_says_so_and_what_is_asked_for_by_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    file = written(tmp_path, ROWS)
    document = scores.score_file(file, wanted=Wanted(clinical=False, imageclef=False))
    assert "BLEU-1" not in document["metrics"]
    assert any("needs Java" in warning for warning in document["warnings"])
    with pytest.raises(UserError, match="needs Java"):
        scores.score_file(file, wanted=wanted(["METEOR"]))


def test_metrics_are_chosen_by_name() -> None:
    assert wanted(["rouge_l", "facts"]) == Wanted(clinical=False, ngrams=("ROUGE-L",), imageclef=False)
    assert wanted(neural=["bleurt", "bertscore=some/model"]).neural == {"bleurt": "", "bertscore": "some/model"}
    with pytest.raises(UserError, match="no metric 'SPICE' here; choose from facts, clinical, BLEU"):
        wanted(["SPICE"])
    with pytest.raises(UserError, match="choose from bertscore, bartscore, bleurt"):
        wanted(neural=["METEOR"])


def test_neural_metrics_are_computed_where_asked_for_with_the_model_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from msmedcap.evaluation import neural
    from msmedcap.evaluation.metric import mean_of

    calls: list[tuple[str, Any, dict[str, Any]]] = []

    def fake(name: str) -> Any:
        def score(references: Any, candidates: list[str], *, notes: list[str], **options: Any) -> Any:
            calls.append((name, (references[0], candidates[0]), options))
            notes.append(f"{name} was here.")
            return mean_of(np.array([float(len(text)) for text in candidates]))

        return score

    for name in ("bertscore", "bleurt"):
        monkeypatch.setattr(neural, name, fake(name))
    cache = tmp_path / "neural.sqlite"
    asked = wanted([], ["bertscore=some/model", "imageclef-bertscore", "imageclef-bleurt"], device="cpu", cache=cache)
    document = scores.score_file(written(tmp_path, ROWS), systems=["MSMedCap"], wanted=asked)
    assert list(document["metrics"]) == ["BERTScore", "BERTScore (ImageCLEF)", "BLEURT (ImageCLEF)"]
    assert document["warnings"] == [f"few dev: {name} was here." for name in ("bertscore", "bertscore", "bleurt")]
    said = (["Axial CT."], "Axial CT of the chest.")
    prepared = (["axial ct"], "axial ct of the chest")
    fixed = {"device": "cpu", "cache": cache}
    assert calls == [
        ("bertscore", said, {"model": "some/model", **fixed}),
        ("bertscore", prepared, {"model": neural.IMAGECLEF_BERT, "idf": True, **fixed}),
        ("bleurt", prepared, fixed),
    ]
    assert document["scores"][0]["metrics"]["BERTScore"]["value"] == np.mean(
        [len(r["captions"]["MSMedCap"]) for r in ROWS]
    )


def test_claims_are_counted_against_the_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from msmedcap.evaluation import measures

    file = written(tmp_path, ROWS)
    document = scores.score_file(file, wanted=wanted(["clinical"]))
    ours, nothing = (record["metrics"] for record in document["scores"])
    assert ours["Modality F1"]["value"] == 1.0
    assert (nothing["Omitted"]["value"], nothing["Facts F1"]["value"]) == (1.0, 0.0)
    assert nothing["Hallucinated"]["value"] is None  # who says nothing makes nothing up
    assert document["metrics"]["Omitted"]["higher_is_better"] is False
    monkeypatch.setattr(measures, "AT_ONCE", 3)
    assert scores.score_file(file, wanted=wanted(["clinical"])) == document


def test_what_takes_long_is_foreseen(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from msmedcap.evaluation import measures, ngrams

    asked: list[int] = []
    clock = iter([0.0, 7.0, 7.0, 16.0])  # 500 cases take 7 s, 1500 take 9: 5 s to start, 2 ms for each
    monkeypatch.setattr(measures, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(ngrams, "score_systems", lambda truths, texts, **_: asked.append(len(truths)) or {"A": {}})
    chosen = wanted(["BLEU"])
    with caplog.at_level("INFO"):
        list(measures.measures([["a"]] * 50_000, {"A": ["a"] * 50_000}, chosen, warnings=[]))
    assert asked == [500, 1500, 50_000]
    assert "50,000 captions of 1 systems: about 2 min" in caplog.text
