"""The study of the maps: its cases, its rows, the choice on one half and the numbers of the other."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from msmedcap import checkpoints
from msmedcap.checkpoints import Models
from msmedcap.evaluation import faithfulness
from msmedcap.evaluation.faithfulness import Judge, Judged, Plan, Study, measured, sentences, study, tables
from msmedcap.explain.faithfulness import likeness
from tests import sizes

METHODS = ("gradient", "attention", "together")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return checkpoints.load(str(sizes.write_folder(tmp_path_factory.mktemp("models"))), device=torch.device("cpu"))


def _row(case: str, method: str, *, pointed: float, deletion: float, half: str = "report", painted: float = 0.1) -> Judged:
    return Judged(
        case=case, set="phantoms", kind="CT head: mass", group=case, half=half, system="MSMedCap", method=method, branch="both",
        named=True, probability=0.8, painted=painted, pointed=pointed, energy=0.2, share=0.05, deletion=deletion, insertion=0.5,
    )  # fmt: skip


def _rows() -> list[Judged]:
    """Ten choosing and twenty reported cases in which gradient points and deletes, attention does not."""
    rng, rows = np.random.default_rng(0), []
    for i in range(30):
        half = "choice" if i < 10 else "report"
        told = {"gradient": (1.0, 0.2), "attention": (0.0, 0.5), "random": (0.1, 0.5), "centre": (0.2, 0.4)}
        for method, (pointed, deletion) in told.items():
            noise = float(rng.normal(0, 0.01))
            rows.append(_row(f"c{i}", method, pointed=pointed, deletion=deletion + noise, half=half))
            rows.append(_row(f"u{i}", method, pointed=0.0, deletion=0.5, half=half, painted=0.79))
    return rows


def test_the_word_of_a_phantom_is_the_first_of_its_finding() -> None:
    cases = list(faithfulness.phantom_cases(12, seed=3))
    assert len({case.id for case in cases}) == 12 and {case.half for case in cases} == {"choice", "report"}
    for case in cases:
        assert case.mask.any() and case.caption[case.start - 2 : case.start] == ". "
        assert case.caption[case.start :].split()[0].lower().strip(".")[:5] in case.kind.lower() + " findings"


def test_every_map_of_a_case_becomes_a_row(models: Models) -> None:
    case = next(faithfulness.phantom_cases(1, seed=3))
    rows = list(Judge(models, "MSMedCap", METHODS).judge(case))
    assert {(r.method, r.branch) for r in rows} == {(m, b) for m in METHODS[:2] for b in ("clip", "sam", "both")} | {
        ("together", "both"), ("random", "both"), ("centre", "both"), ("truth", "both"),
    }  # fmt: skip
    assert all(0 <= r.probability <= 1 and 0 <= r.energy <= 1 for r in rows)
    assert all(np.isfinite(r.deletion) == (r.branch == "both") for r in rows)
    assert {r.pointed for r in rows if r.method == "truth"} == {1.0}
    before, after = Judge(models, "MSMedCap", METHODS).sees(case)
    assert (before, after) == pytest.approx((rows[0].probability, rows[0].painted), rel=0.05)
    single = {r.branch for r in Judge(models, "BLIP2", ("gradient", "together")).judge(case)}
    assert single == {"clip"}, "a system of one branch has no sum"


def test_a_study_goes_on_where_it_stopped(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "SEEN", 2.0)  # these weights see nothing: let everything count as seen
    plan = Plan({"choice": 1, "report": 2}, unseen=0, screened=20, chest=0, sane=1, seed=3)
    raw = tmp_path / "raw.jsonl"
    first = Study(models, ("gradient",), raw, plan)
    first.phantoms("BLIP2")
    first.sanity("BLIP2")
    assert len({row.case for row in first.judged}) == 3
    length = raw.stat().st_size
    again = Study(models, ("gradient",), raw, plan)
    (tmp_path / "copy.jsonl").write_text(raw.read_text())
    more = Study(models, ("gradient", "attention"), tmp_path / "copy.jsonl", plan)
    more.phantoms("BLIP2")
    added = more.judged[len(first.judged) :]
    assert {row.method for row in added} == {"attention"} and len({row.case for row in added}) == 3
    monkeypatch.setattr(Judge, "judge", lambda *_, **__: pytest.fail("judged a second time"))
    again.phantoms("BLIP2")
    again.sanity("BLIP2")
    assert raw.stat().st_size == length
    assert list(map(dataclasses.astuple, again.redrawn)) == list(map(dataclasses.astuple, first.redrawn))
    assert sum(made for _, made, _ in again.kinds()["BLIP2"]) >= 3


def test_maps_of_weights_drawn_anew_are_others_and_the_models_stay(models: Models) -> None:
    case = next(faithfulness.phantom_cases(1, seed=3))
    before = {name: value.clone() for name, value in models.captioners["BLIP2"].state_dict().items()}
    rows = faithfulness.sanity(models, "BLIP2", METHODS[:2], [case])
    assert {row.part for row in rows} == {"projection", "qformer", "everything trained"}
    told = {(row.method, row.part): row.likeness for row in rows}
    assert told["attention", "everything trained"] < 0.95
    after = models.captioners["BLIP2"].state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    heat = np.random.default_rng(0).random((20, 20))
    assert likeness(heat, heat) == pytest.approx(1)


def test_the_default_is_chosen_on_one_half_and_reported_on_the_other() -> None:
    rows = _rows()
    assert faithfulness.choose(rows, "MSMedCap") == "gradient"
    turned = [dataclasses.replace(r, pointed=1.0 - r.pointed, deletion=1.0 - r.deletion) if r.half == "report" else r for r in rows]
    assert faithfulness.choose(turned, "MSMedCap") == "gradient", "the reported half has no say"
    told = faithfulness.summary(rows, [], default="gradient")
    seen = told["groups"][tables.SEEN]["MSMedCap"]
    assert seen["cases"] == 20 and told["groups"][tables.UNSEEN]["MSMedCap"]["cases"] == 20
    assert told["groups"][tables.SAID] == told["groups"][tables.SEEN], "all of these the system says itself"
    forced = [dataclasses.replace(row, named=row.case < "c2") for row in rows]
    said = faithfulness.summary(forced, [], default="gradient")["groups"]
    assert said[tables.SAID]["MSMedCap"]["cases"] == 10 and said[tables.SEEN]["MSMedCap"]["cases"] == 20
    assert seen["methods"]["gradient"]["pointed over"]["centre"][0] == pytest.approx(0.8)
    assert all(tables.beats(seen["methods"]["gradient"], m) for m in ("pointed", "deletion"))
    assert not tables.beats(seen["methods"]["attention"], "deletion")
    with pytest.raises(ValueError, match="No case"):
        faithfulness.choose([r for r in rows if r.half == "report"], "MSMedCap")


def test_the_page_tells_the_bar_and_every_table(tmp_path: Path) -> None:
    told = faithfulness.summary(_rows(), [], default="gradient")
    own = {"held out": {"pictures": 200, "alarms": 0.06}, "strange/noise": {"pictures": 20, "alarms": 0.9, "auc": 0.97}}
    unlike = {"limits": {"clip": {"share": 0.95}}, "measured": {"clip": own}}
    told["kinds"] = {"MSMedCap": [("CT head: mass", 30, 20)], "BLIP2": [("CT head: mass", 12, 3), ("CT head: infarct", 1, 0)]}
    faithfulness.write_page(told, tmp_path / "page.md", about=faithfulness.about(Plan.of(4)), unlike=unlike)
    page = (tmp_path / "page.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith("| phantoms, finding seen (20)"))
    assert line.endswith("| yes |")
    assert next(line for line in page.splitlines() if line.startswith("| phantoms, finding not seen (20)")).endswith("| no |")
    assert "| CT head: mass | 20 of 30 | 3 of 12 |" in page and "| CT head: infarct | – | 0 of 1 |" in page and "nan" not in page
    assert "| held out | 200 | 6.0% |" in page and "| noise | 20 | 90.0%, 0.97 |" in page


def test_a_map_is_shown_with_what_was_measured_of_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert measured(str(tmp_path)) == {}
    assert measured(str(tmp_path / "nowhere")) == {}
    told = faithfulness.summary(_rows(), [], default="gradient")
    faithfulness.write_json(told, tmp_path / sentences.FILE)
    said = measured(str(tmp_path))
    assert said["gradient"].startswith("Measured for the finding's word on 20 made scans")
    assert "in 100% (random map 10%, centre 20%)" in said["gradient"]
    assert "beats a random and a centred map in pointing" in said["gradient"]
    assert "not shown to be better" in said["attention"]
    assert all("chest X-rays it was not measured" in one and "other words nothing was" in one for one in said.values())
    assert measured(str(tmp_path), system="BLIP2") == {}
    (tmp_path / sentences.FILE).write_text(json.dumps({"groups": 3}))
    with caplog.at_level(logging.WARNING):
        assert measured(str(tmp_path)) == {}
    assert "cannot be used" in caplog.text


@pytest.mark.parametrize(
    ("margin", "cases", "said"),
    [
        (0.0, 3, "for opacities (3 films) it is not shown to be better. Too few to conclude from. For"),
        (0.0, 19, "for opacities (19 films) it is not shown to be better. For"),
        (0.2, 19, "On chest X-rays, for opacities (19 films) it beats both in pointing and in deletion. For"),
    ],
)
def test_what_is_said_of_a_map_includes_chest_films(tmp_path: Path, margin: float, cases: int, said: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    told = faithfulness.summary(_rows(), [], default="gradient")
    over = {dumb: [margin, margin, margin] for dumb in ("random", "centre")}
    film = {"cases": cases, "pointed over": over, "deletion over": over}
    told["groups"]["chest X-rays, opacities"] = {"MSMedCap": {"methods": {"gradient": film}}}
    faithfulness.write_json(told, tmp_path / sentences.FILE)
    found = measured(str(tmp_path))
    assert said in found["gradient"] and "it was not measured" in found["attention"]


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ([("MRI head: mass", 9, 1), ("MRI head: infarct", 9, 2), ("CT head: mass", 30, 2)], "MRI head"),
        ([("MRI head: mass", 9, 2), ("CT head: mass", 9, 2)], ""),
        ([("MRI head: mass", 9, 0)], ""),
        ([], ""),
    ],
)
def test_a_majority_of_the_seen_scans_is_named(kinds: list, said: str) -> None:
    assert sentences.mostly(kinds) == said


def test_the_shipped_study_says_what_it_was_mostly_made_on() -> None:
    assert "most such scans are ultrasound breast" in measured("demo")["occlusion"]



def test_chest_cases_are_held_out_films_with_lungs_and_opacities(shared_data: Path) -> None:
    cases = list(faithfulness.chest_cases(shared_data / "cxr_seg"))
    assert {case.half for case in cases} == {"report"}
    assert {case.set for case in cases} == {"chest X-rays, opacities", "chest X-rays, lungs"}
    for case in cases[:4]:
        word = case.caption[case.start :].split()[0].strip(".")
        assert word == ("chest" if "lungs" in case.set else "Findings")
        assert case.mask.shape == case.picture.shape[:2]
