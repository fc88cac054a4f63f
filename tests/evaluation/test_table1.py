"""Table 1 holds the paper's printed numbers, scales ours as it does, and says what can be said of the two orderings."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
import random
import re
from pathlib import Path

import pytest
from PIL import Image

from msmedcap.config import UserError
from msmedcap.evaluation import paper, table1
from msmedcap.evaluation.table1 import Difference, chart, formats, order

BEST = "MSMedCap (G, G+M)"


def document(scores: dict[str, dict[str, float]], *, width: float = 0.01, data: str = "medpix", n: int = 20) -> dict:
    """What ``evaluate`` writes, of systems' scores by column; every interval reaches ``width`` to either side."""
    records = [
        {
            "data": data,
            "split": "dev",
            "system": system,
            "n": n,
            "groups": 9,
            "metrics": {c: {"value": v, "low": v - width, "high": v + width, "n": n} for c, v in values.items()},
        }
        for system, values in scores.items()
    ]
    differences = [
        {
            "data": data, "split": "dev", "metric": c, "a": a, "b": b, "p": 0.5, "p_holm": 1.0,
            "value": scores[a][c] - scores[b][c],
            "low": scores[a][c] - scores[b][c] - width,
            "high": scores[a][c] - scores[b][c] + width,
        }
        for a, b in itertools.combinations(scores, 2)
        for c in scores[a].keys() & scores[b].keys()
    ]  # fmt: skip
    return {
        "made_with": {f"{data}-dev": {"models": "rows", "weights": "abc", "limit": None}},
        "metrics": {
            "BLEU-1": {"misleads": "It counts words."},
            "BLEU-2": {"misleads": "It counts words."},
            "CIDEr": {},
        },
        "scores": records,
        "differences": differences,
        "warnings": ["Beware.", f"{data} dev: 3 pictures were lost."],
    }


def as_printed(factor: float = 1.0) -> dict[str, dict[str, float]]:
    """Systems that score as the paper's, undone from its powers of ten."""
    power = {column.name: column.power for column in paper.COLUMNS}
    return {row.stem: {c: factor * v / 10 ** power[c] for c, v in row.printed.items()} for row in paper.ROWS}


def test_the_rows_are_the_papers(root: Path) -> None:
    text = root.parent / "shared" / "papers" / "msmedcap.md"
    if not text.is_file():
        pytest.skip(f"the paper's text is not at {text}")
    lines = [line.split("\t") for line in text.read_text(encoding="utf-8").splitlines()]
    heads = next(cells for cells in lines if cells[0] == "Models")
    assert heads[1:] == [column.printed for column in paper.COLUMNS]
    powers = next(re.findall(r"10\^\{?(\d)", " ".join(cells)) for cells in lines if cells[0] == "" and len(cells) == 9)
    assert [int(p) for p in powers] == [column.power for column in paper.COLUMNS]
    rows = {
        cells[0].rstrip(" *"): [float(c) for c in cells[1:]] for cells in lines if len(cells) == 9 and "(" in cells[0]
    }
    assert {row.name: list(row.printed.values()) for row in paper.ROWS} == rows


@pytest.mark.parametrize(
    ("system", "name", "row", "variant", "seed"),
    [
        ("BLIP2-G", "BLIP2-G", "BLIP2 (G)", "", 0),
        ("SAM-BLIP2-GM.s2", "SAM-BLIP2-GM", "SAM-BLIP2 (G+M)", "", 2),
        ("MSMedCap-GM-G", "MSMedCap-GM-G", "MSMedCap (G+M, G)", "", 0),
        ("MSMedCap-G-GM.channels.s1", "MSMedCap-G-GM.channels", BEST, "channels", 1),
        ("MSMedCap", "MSMedCap", None, "", 0),
        ("model.v2", "model.v2", None, "v2", 0),
    ],
)
def test_systems_find_their_place(system: str, name: str, row: str | None, variant: str, seed: int) -> None:
    place = paper.place(system)
    assert (place.name, place.row.name if place.row else None, place.variant, place.seed) == (name, row, variant, seed)


def test_ours_is_scaled_as_the_papers() -> None:
    table = table1.rows_from([document(as_printed())])
    for line in table.lines:
        assert line.paper is not None and line.ours is not None
        for column, printed in line.paper.printed.items():
            cell = line.ours.cells[column]
            assert cell.value == pytest.approx(printed)
            assert math.isnan(cell.spread)
    cell = table.lines[0].ours.cells["BLEURT"]
    assert (cell.low, cell.high) == pytest.approx((-11.5 - 0.1, -11.5 + 0.1))
    assert table.missing == ("Facts F1",)


def test_seeds_are_averaged() -> None:
    scores = {
        "BLIP2-G": {"BLEU-1": 0.1},
        "BLIP2-G.s1": {"BLEU-1": 0.2},
        "BLIP2-G.s2": {"BLEU-1": 0.3},
        "BLIP2-GM": {"BLEU-1": 0.5},
    }
    table = table1.rows_from([document(scores)])
    ours = table.lines[0].ours
    assert ours.systems == ("BLIP2-G", "BLIP2-G.s1", "BLIP2-G.s2")
    cell = ours.cells["BLEU-1"]
    assert (cell.value, cell.low, cell.high, cell.spread) == pytest.approx((200, 190, 210, 100))
    difference = table.differences["BLEU-1", "BLIP2 (G)", "BLIP2 (G+M)"]
    assert (difference.value, difference.low, difference.high) == pytest.approx((-300, -310, -290))
    assert difference.signs == {-1}
    assert ("BLEU-1", "BLIP2 (G)", "BLIP2 (G)") not in table.differences
    assert "200.0 ± 100.0 [190.0, 210.0]" in formats.markdown(table)


def test_a_column_some_seed_lacks_is_not_averaged_over_the_others() -> None:
    scores = document({"BLIP2-G": {"BLEU-1": 0.1, "CIDEr": 0.1}, "BLIP2-G.s1": {"BLEU-1": 0.2, "CIDEr": 0.2}})
    del scores["scores"][1]["metrics"]["CIDEr"]
    assert set(table1.rows_from([scores]).lines[0].ours.cells) == {"BLEU-1"}


def test_what_was_not_trained_or_measured_says_so() -> None:
    table = table1.rows_from([document({"BLIP2-G": {"BLEU-1": 0.1}, "MSMedCap-G-GM.channels": {"BLEU-1": 0.2}})])
    text = formats.markdown(table)
    assert text.count("| ours | not trained |") == 6
    assert "| ours | 100.0 [90.0, 110.0] | not measured |" in text
    assert "| **MSMedCap (G, G+M), SAM's channels as tokens** | ours | **200.0 [190.0, 210.0]** |" in text
    assert "scenes made by code, not COCO" in text
    assert "A single seed" in text and "- Beware." in text and "- medpix dev: 3 pictures were lost." in text
    assert "- BLEU-1: It counts words." in text and "- Captions medpix-dev: models rows, weights abc." in text
    latex = formats.latex(table)
    assert latex.count("not trained") == 6
    rows = list(csv.DictReader(io.StringIO(formats.csv_text(table))))
    assert sum(row["note"] == "not trained" for row in rows) == 6 * len(table.columns)
    assert all(
        "scenes made by code, not COCO" in row["note"] for row in rows if row["source"] == "ours" and row["value"]
    )
    printed = {(row["model"], row["column"]): float(row["value"]) for row in rows if row["source"] == "paper"}
    assert printed == {(row.name, c): v for row in paper.ROWS for c, v in row.printed.items()}


def test_the_data_set_of_most_cases_is_shown_unless_named() -> None:
    small, large = (
        document({"BLIP2-G": {"BLEU-1": v}}, data=d, n=n) for v, d, n in ((0.1, "busi", 5), (0.2, "medpix", 50))
    )
    table = table1.rows_from([small, large])
    assert (table.data, table.warnings) == ("medpix", ("Beware.", "medpix dev: 3 pictures were lost."))
    assert set(table.made_with) == {"busi-dev", "medpix-dev"}
    assert table1.rows_from([small, large], data="busi").lines[0].ours.cells["BLEU-1"].value == pytest.approx(100)
    with pytest.raises(UserError, match="busi dev, medpix dev"):
        table1.rows_from([small, large], data="roco")


def test_a_file_that_is_none_of_evaluates_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="evaluate --data"):
        table1.read([tmp_path / "scores.json"])
    (tmp_path / "scores.json").write_text("[1]")
    with pytest.raises(UserError, match="run evaluate again"):
        table1.read([tmp_path / "scores.json"])


def test_the_same_ordering_agrees_everywhere_and_the_reverse_nowhere() -> None:
    for factor, verdict, tau in ((1.0, order.AGREES, 1.0), (-1.0, order.DISAGREES, -1.0)):
        found = order.agreements(table1.rows_from([document(as_printed(factor), width=0.0)]))
        assert [a.column for a in found] == [column.name for column in paper.COLUMNS]
        for agreement in found:
            ties = agreement.count(order.TIED)
            assert ties == (agreement.column in ("BERTScore", "BLEURT"))
            assert agreement.count(verdict) == 21 - ties
            assert agreement.tau == pytest.approx(tau)
            assert agreement.low == agreement.high == tau
        counts = "166, disagrees in 0" if tau > 0 else "0, disagrees in 166"
        assert f"Of 166 pairs of models in 8 metrics, our ordering agrees with the paper's in {counts}, " in (
            formats.statement(found)
        )


@pytest.mark.parametrize(
    ("printed", "value", "low", "high", "signs", "verdict"),
    [
        (2.0, 1.0, 0.5, 1.5, {1}, order.AGREES),
        (-2.0, 1.0, 0.5, 1.5, {1}, order.DISAGREES),
        (-2.0, -1.0, -1.5, -0.5, {-1}, order.AGREES),
        (2.0, 1.0, -0.5, 2.5, {1}, order.OPEN),
        (2.0, 1.0, 0.5, 1.5, {1, -1}, order.OPEN),
        (2.0, 0.0, 0.0, 0.0, {0}, order.OPEN),
        (2.0, 1.0, math.nan, math.nan, {1}, order.OPEN),
        (0.0, 1.0, 0.5, 1.5, {1}, order.TIED),
    ],
)
def test_verdict(printed: float, value: float, low: float, high: float, signs: set[int], verdict: str) -> None:
    assert order.verdict(printed, Difference(value, low, high, frozenset(signs))) == verdict


def test_tau_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    drawn = random.Random(0)
    for _ in range(20):
        a, b = ([drawn.randint(0, 4) for _ in range(7)] for _ in range(2))
        assert order.tau_b(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)
    assert math.isnan(order.tau_b([1, 1], [1, 2]))


def test_taus_bounds_hold_what_is_not_separable() -> None:
    names = ["BLIP2-G", "BLIP2-GM", "SAM-BLIP2-GM"]
    scores = {name: {"BLEU-1": value} for name, value in zip(names, (0.10, 0.105, 0.2), strict=True)}
    (agreement,) = order.agreements(table1.rows_from([document(scores)]))
    assert [pair.verdict for pair in agreement.pairs] == [order.OPEN, order.AGREES, order.AGREES]
    assert (agreement.low, agreement.tau, agreement.high) == pytest.approx((1 / 3, 1, 1))


def test_variants_are_no_rows_of_the_paper() -> None:
    scores = {"BLIP2-G": {"BLEU-1": 0.1}, "MSMedCap-G-GM.channels": {"BLEU-1": 0.2}}
    found = order.agreements(table1.rows_from([document(scores)]))
    assert found == []
    assert "no ordering can be compared" in formats.statement(found)


def test_latex_holds_no_command_that_a_name_could_make() -> None:
    assert formats.escape(r"50% & $x_1$ \input{a}#~^") == (
        r"50\% \& \$x\_1\$ \textbackslash{}input\{a\}\#\textasciitilde{}\textasciicircum{}"
    )
    table = table1.rows_from([document({"a_b%": {"BLEU-1": 0.1}, "BLIP2-G": {"BLEU-1": 0.2}})], general="R&D_set 100%")
    latex = formats.latex(table)
    assert r"a\_b\% & ours & 100.0" in latex and r"R\&D\_set 100\%" in latex
    assert latex.isascii()
    assert latex.count("{") - latex.count(r"\{") == latex.count("}") - latex.count(r"\}")
    body = latex[latex.index(r"\midrule") : latex.index(r"\bottomrule")]
    width = 2 + len(table.columns)
    for row in re.findall(r"^(.*)\\\\$", body, re.M):
        spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", row))
        assert len(re.findall(r"(?<!\\)&", row)) + 1 + spans == width, row


@pytest.mark.slow
def test_everything_is_written(tmp_path: Path) -> None:
    scores = as_printed(0.5)
    scores.pop("MSMedCap-GM-GM")
    files = table1.write(tmp_path / "docs", table1.rows_from([document(scores)]), command="python -m msmedcap table1")
    assert [file.name for file in files] == ["table1.md", "table1.csv", "table1.tex", "table1.png", "table1.pdf"]
    assert "```sh\npython -m msmedcap table1\n```" in files[0].read_text(encoding="utf-8")
    with Image.open(files[3]) as picture:
        assert picture.width == round(7.16 * 300)
    assert files[4].read_bytes().startswith(b"%PDF")


def test_the_charts_words_are_large_enough_and_apart() -> None:
    scores = {**as_printed(), "MSMedCap-G-GM.channels": {"BLEU-1": 0.1}}
    for number, values in enumerate(scores.values()):
        values["CIDEr"] = 1.1 + 0.3 * number
    figure = chart.chart(table1.rows_from([document(scores)]))
    figure.canvas.draw()
    words = list(figure.texts)
    for axes in figure.axes:
        low, high = axes.get_xlim()
        ticks = [
            label for label, at in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True) if low <= at <= high
        ]
        words += [*axes.texts, *axes.get_yticklabels(), *ticks]
    words = [text for text in words if text.get_text()]
    assert min(text.get_fontsize() for text in words) >= 8
    boxes = [(text.get_text(), text.get_window_extent()) for text in words]
    page = figure.bbox
    for name, box in boxes:
        assert box.x0 >= page.x0 and box.x1 <= page.x1 and box.y0 >= page.y0 and box.y1 <= page.y1, name
    for (a, first), (b, second) in itertools.combinations(boxes, 2):
        assert not first.overlaps(second), (a, b)


def test_columns_no_one_has_are_left_out_of_the_chart() -> None:
    assert chart.columns_of(table1.rows_from([document(as_printed())])) == list(paper.COLUMNS)
    with_facts = {name: {**values, "Facts F1": 0.5} for name, values in as_printed().items()}
    assert chart.columns_of(table1.rows_from([document(with_facts)])) == list(table1.COLUMNS)


def test_a_table_is_json_of_plain_numbers() -> None:
    written = json.loads(json.dumps(document(as_printed())))
    assert dataclasses.asdict(table1.rows_from([written])) == dataclasses.asdict(
        table1.rows_from([document(as_printed())])
    )
