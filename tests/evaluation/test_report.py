"""The report shows every score with its interval, who differs, and what a metric hides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from msmedcap.evaluation import report
from msmedcap.evaluation.fact_rates import score_rows
from msmedcap.evaluation.scores import finite

ROWS: list[dict[str, Any]] = [
    {"id": "a", "group": "p1", "facts": {"modality": "CT"}, "captions": {"A": "Axial CT."}, "error": None},
    {"id": "b", "group": "p1", "facts": {"modality": "MRI"}, "captions": {}, "error": "not a picture"},
]


def metric(section: str = "text", **changes: Any) -> dict[str, Any]:
    return {"section": section, "higher_is_better": True, "scale": 3, "source": "A. Author", "misleads": "", **changes}


def score(value: float | None) -> dict[str, Any]:
    bounds = (None, None) if value is None else (value - 0.1, value + 0.1)
    return {"value": value, "low": bounds[0], "high": bounds[1], "n": 2}


def difference(a: str, b: str, p: float, name: str = "BLEU-1") -> dict[str, Any]:
    pair = {"metric": name, "a": a, "b": b, "value": 0.1, "low": 0.05, "high": 0.15}
    return {"data": "few", "split": "dev", **pair, "p": p, "p_holm": min(1.0, 2 * p)}


def document(
    metrics: dict[str, dict], by_system: dict[str, dict], differences: list[dict] | None = None
) -> dict[str, Any]:
    facts = score_rows(ROWS, "A")
    records = [{"data": "few", "split": "dev", "system": s, **facts, "metrics": m} for s, m in by_system.items()]
    return finite(
        {
            "made_with": {"few-dev": {"weights": "abc", "systems": ["A", "B"], "selection": ""}},
            "lexicon": 1,
            "metrics": metrics,
            "scores": records,
            "differences": differences or [],
            "warnings": ["few dev: 1 pictures could not be read."],
        }
    )


def test_facts_have_a_row_per_record_and_say_what_was_counted() -> None:
    record = {"data": "few", "split": "dev", "system": "A", **score_rows(ROWS, "A")}
    text = report.fact_table([record], "# Facts")
    line = next(line for line in text.splitlines() if line.startswith("| few"))
    assert "| .50 [.09, .91] |" in line
    assert line.count("|") == len(report.COLUMNS) + 1
    assert "–" in line  # no case has a label
    assert "version 1" in text
    assert "Not read, and counted as wrong: 1 of few dev." in text


def test_scores_stand_with_intervals_and_the_best_is_bold() -> None:
    text = report.markdown(
        document({"BLEU-1": metric()}, {"A": {"BLEU-1": score(0.2)}, "B": {"BLEU-1": score(0.3)}}), "Scores"
    )
    assert "| BLEU-1 ↑ | 2 | 0.200 [0.100, 0.300] | **0.300** [0.200, 0.400] |" in text
    assert "BLEU-1: A. Author" in text
    assert "few dev: 1 pictures could not be read." in text
    assert "- `few-dev`: weights `abc`, systems A B." in text


def test_lower_is_better_where_the_metric_says_so_and_equals_are_not_bold() -> None:
    lower = metric("clinical", higher_is_better=False)
    text = report.markdown(
        document({"omission": lower}, {"A": {"omission": score(0.2)}, "B": {"omission": score(0.3)}}), "S"
    )
    assert "| omission ↓ | 2 | **0.200** [0.100, 0.300] | 0.300 [0.200, 0.400] |" in text
    text = report.markdown(
        document({"omission": lower}, {"A": {"omission": score(0.3)}, "B": {"omission": score(0.3)}}), "S"
    )
    assert "**0.3" not in text


def test_a_metric_that_misleads_says_so_under_its_table() -> None:
    held = {"BERTScore": metric("neural", misleads="It hardly notices a negation.")}
    text = report.markdown(document(held, {"A": {"BERTScore": score(0.9)}}), "Scores")
    assert "- **Mind:** It hardly notices a negation." in text
    assert "**Mind:**" not in report.markdown(document({"BLEU-1": metric()}, {"A": {"BLEU-1": score(0.9)}}), "Scores")


def test_a_score_that_could_not_be_counted_is_a_dash_and_a_row_of_dashes_is_left_out() -> None:
    text = report.markdown(document({"BLEU-1": metric()}, {"A": {"BLEU-1": score(None)}, "B": {}}), "Scores")
    assert "BLEU-1" not in text
    text = report.markdown(
        document({"BLEU-1": metric()}, {"A": {"BLEU-1": score(0.5)}, "B": {"BLEU-1": score(None)}}), "S"
    )
    assert "| BLEU-1 ↑ | 2 | 0.500 [0.400, 0.600] | – |" in text
    assert "drawn by patient or group (1 of them)" in text


def test_differences_have_p_before_and_after_the_correction() -> None:
    pairs = [difference("A", "B", 0.0001), difference("A", "C", 0.04)]
    text = report.markdown(document({"BLEU-1": metric()}, {"A": {"BLEU-1": score(0.2)}}, pairs), "Scores")
    assert "| BLEU-1 ↑ | A − B | 0.100 [0.050, 0.150] | < .001 | **< .001** |" in text
    assert "| BLEU-1 ↑ | A − C | 0.100 [0.050, 0.150] | 0.040 | 0.080 |" in text


def test_of_many_pairs_only_the_sure_differences_are_shown_and_it_is_said() -> None:
    pairs = [difference("A", f"B{i}", 0.001 if i < 2 else 0.5) for i in range(8)]
    text = report.markdown(document({"BLEU-1": metric()}, {"A": {"BLEU-1": score(0.2)}}, pairs), "Scores")
    assert "A − B1" in text and "A − B2" not in text
    assert "Shown are the 2 of 8 differences that are sure" in text


def test_both_files_are_written(tmp_path: Path) -> None:
    held = document({"BLEU-1": metric()}, {"A": {"BLEU-1": score(0.2)}})
    text = report.write(held, tmp_path / "out", "Scores", command="msmedcap evaluate --data few=few")
    assert (tmp_path / "out" / "scores.md").read_text() == text
    assert "Made with `msmedcap evaluate --data few=few`." in text
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == held
