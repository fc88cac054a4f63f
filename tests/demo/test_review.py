"""The reader study without a browser: the form, what readers are told, and what comes out of it."""

from __future__ import annotations

import base64
import csv
import io
import json
import threading
import time
import zipfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from review_study import SECRETS, SYSTEMS, WORDS, Reader, answers, author, letter_of, made_case, made_study, picture

from msmedcap.config import UserError, ViewSpec
from msmedcap.data.views import Heatmap, ViewFrame
from msmedcap.demo.review import door, exports, forms, tables
from msmedcap.demo.review.blind import blind_captions, combined_maps, picture_png
from msmedcap.demo.review.desk import Desk
from msmedcap.demo.review.ledger import Ledger
from msmedcap.demo.review.making import Plan, make_study
from msmedcap.demo.review.rated import read_rated
from msmedcap.demo.review.results import results
from msmedcap.demo.store import ReviewStore
from msmedcap.explain.maps import Map


@pytest.fixture
def store(tmp_path):
    opened = ReviewStore(f"sqlite:///{tmp_path / 'reviews.sqlite'}")
    yield opened
    opened.close()


@pytest.fixture
def made():
    return made_study()


@pytest.fixture
def study(store, made):
    return store.create(made.study)


@pytest.fixture
def anna(store, study):
    return Reader(store, study, "anna")


# ---- the form


def test_the_form_asks_what_it_should():
    form = forms.form("ABC")
    assert [item["key"] for item in form["errors"]] == [
        "false_finding", "missing_finding", "wrong_location", "wrong_severity", "invented_comparison",
        "missed_comparison", "wrong_modality", "wrong_side",
    ]  # fmt: skip
    assert list(form["weights"]) == ["significant", "insignificant"]
    assert {item["key"] for item in form["caption"]} == {"accuracy", "completeness", "clarity", "harm"}
    assert {item["key"] for item in form["case"]} == {"preference", "confidence", "comment"}
    json.dumps(form)


def test_answers_are_checked():
    good = {
        "preference": "B",
        "A.accuracy": 5,
        "C.clarity": forms.CANNOT,
        "B.error.wrong_side.significant": 2,
        "comment": "x",
    }
    assert forms.check(good, "ABC") == good
    assert forms.check({**good, "comment": "", "A.accuracy": None}, "ABC") == {
        key: value for key, value in good.items() if key not in ("comment", "A.accuracy")
    }
    for key, value in [
        ("D.accuracy", 3), ("system", "BLIP2"), ("A.accuracy", 6), ("A.accuracy", True), ("A.accuracy", "3"),
        ("A.error.wrong_side.significant", -1), ("A.error.wrong_side.significant", forms.CANNOT), ("preference", "D"),
        ("A.harm", "fatal"), ("comment", "x" * 5000), ("confidence", 0),
    ]:  # fmt: skip
        with pytest.raises(UserError):
            forms.check({key: value}, "ABC")


def test_cannot_judge_is_always_an_answer():
    questions = [item.key for item in forms.OF_CASE if item.kind != "text"]
    questions += [f"A.{item.key}" for item in forms.OF_CAPTION]
    for key in questions:
        assert forms.check({key: forms.CANNOT}, "ABC")
    assert forms.missing({"preference": forms.CANNOT}, "ABC") == []


def test_what_is_open_is_named():
    assert len(forms.missing({}, "ABC")) == 2 + 3 * 4
    given = {key: 3 for key in forms.missing({}, "AB") if key not in ("preference", "A.harm")}
    assert forms.missing(given, "AB") == ["preference", "A.harm"]


# ---- blinding


def test_a_caption_that_names_a_system_is_refused():
    with pytest.raises(UserError, match="names a system"):
        blind_captions({"BLIP2": "A scan.", "MSMedCap": "Seen by blip2."}, ("MSMedCap", "BLIP2"), case="x")
    assert blind_captions({"BLIP2": " A \n scan. "}, ("BLIP2", "SAM-BLIP2")) == {"BLIP2": "A scan.", "SAM-BLIP2": ""}


def test_the_picture_is_what_was_shown_and_nothing_else():
    shown = picture(3)
    png, width, height = picture_png(shown)
    opened = Image.open(io.BytesIO(png))
    assert (np.asarray(opened) == shown[..., 0]).all() and (width, height) == (64, 48)
    assert opened.info == {} and set(_chunks(png)) == {"IHDR", "IDAT", "IEND"}
    large = picture_png(np.zeros((3000, 1000, 3), np.uint8))
    assert large[1:] == (427, 1280)


def _chunks(png: bytes) -> list[str]:
    found, at = [], 8
    while at < len(png):
        found.append(png[at + 4 : at + 8].decode())
        at += 12 + int.from_bytes(png[at : at + 4], "big")
    return found


def attention(branch: str, grids: np.ndarray, layer: int = 0) -> Map:
    """A map of a picture of 96 x 96 pixels from its tokens."""
    spec = ViewSpec(branch, 128, "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return Map("attention", branch, layer, None, (0.0, 1.0), Heatmap(ViewFrame(spec, 96, 96), grids.astype(np.float32)))


def spot(side: int, at: tuple[int, int]) -> np.ndarray:
    grid = np.zeros((side, side))
    grid[at] = 1.0
    return grid


def grey(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png))).astype(float).sum(2)


def test_maps_of_systems_differ_only_in_where_they_looked():
    maps = {
        "one": [attention("clip", spot(8, (1, 1))), attention("clip", spot(8, (1, 1)), layer=2)],
        "two": [attention("sam", spot(16, (3, 3)))],
        "both": [attention("clip", spot(8, (1, 1))), attention("sam", spot(16, (13, 13)))],
    }
    drawn = combined_maps(maps)
    opened = {name: np.asarray(Image.open(io.BytesIO(png))) for name, png in drawn.items()}
    assert {image.shape for image in opened.values()} == {(96, 96, 3)}
    histograms = [np.unique(image.reshape(-1, 3), axis=0, return_counts=True) for image in opened.values()]
    assert all((found == histograms[0][0]).all() and (n == histograms[0][1]).all() for found, n in histograms)
    bright = grey(drawn["both"])
    assert bright[10:20, 10:20].mean() > 1.5 * bright.mean() and bright[76:86, 76:86].mean() > 1.5 * bright.mean()


@pytest.mark.parametrize("side", [8, 14, 16])
def test_no_map_shows_a_detail_of_a_finer_encoder(side):
    """Two looks that differ within a cell of the common grid alone are one and the same map, whatever the encoders' grids."""
    even = np.kron(spot(side // 2, (2, 2)), np.ones((8, 8)))
    striped = even * (np.indices(even.shape).sum(0) % 2)
    grids = {"coarsest": spot(side, (1, 1)), "even": even, "striped": striped}
    drawn = combined_maps({system: [attention("one", grid)] for system, grid in grids.items()})
    assert np.abs(grey(drawn["even"]) - grey(drawn["striped"])).mean() < 0.05 * grey(drawn["even"]).max()


def _roughness(picture: np.ndarray) -> tuple[float, float]:
    """How rough a map looks at the size of a thumbnail: the mean of its Laplacian, and of its slopes."""
    small = np.asarray(Image.fromarray(picture.astype(np.float32)).resize((48, 48), Image.Resampling.BOX))
    inside = small[1:-1, 1:-1]
    bend = small[:-2, 1:-1] + small[2:, 1:-1] + small[1:-1, :-2] + small[1:-1, 2:] - 4 * inside
    return float(np.abs(bend).mean()), float(np.abs(np.diff(small, axis=0)).mean() + np.abs(np.diff(small, axis=1)).mean())


def _guessed(cases: list[list[np.ndarray]]) -> int:
    """In how many cases the order of roughness is the same, by the rule that fits best: the systems are then known."""
    rough = np.array([[_roughness(picture) for picture in case] for case in cases])
    return max(max(Counter(tuple(order) for order in rough[:, :, i].argsort(1)).values()) for i in range(rough.shape[2]))


def test_roughness_does_not_give_the_systems_away():
    """Maps of the shipped models on made scans: their encoders' grids are 8 x 8 and 16 x 16."""
    from msmedcap.data.scans import open_scan
    from msmedcap.demo.cases.library import library
    from msmedcap.predictor import load

    made = library(None, {})
    (run,), predictor = made.names, load("demo")
    drawn, raw = [], []
    for entry in made.run(run, None).entries[:20]:
        mine = predictor.fresh().set_scan(open_scan(made.picture(run, entry)))
        maps = {system: [item for item in mine.maps(system=system) if item.kind == "attention"] for system in SYSTEMS}
        assert {item.source.grids.shape for items in maps.values() for item in items} == {(8, 8), (16, 16)}
        drawn.append([grey(png) for png in combined_maps(maps).values()])
        ranks = [np.mean([item.values for item in items], axis=0).argsort(axis=None).argsort() for items in maps.values()]
        raw.append([rank.reshape(maps[SYSTEMS[0]][0].shape) for rank in ranks])
    # Of six orders the one that fits best fits 6 or 7 of 20 cases by chance.
    assert _guessed(raw) >= 14 and _guessed(drawn) <= 9


def test_maps_without_attention_are_no_second_stage():
    with pytest.raises(UserError, match="second stage"):
        combined_maps({"one": [Map("sam_norm", None, None, None, (0.0, 1.0), np.zeros((4, 4), np.float32))]})


def strings(value):
    """Every text in a JSON answer, keys too."""
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in strings(part)]
    if isinstance(value, (list, tuple)):
        return [text for part in value for text in strings(part)]
    return [value] if isinstance(value, str) else []


def test_nothing_a_reader_is_told_names_a_system_or_a_file(store):
    reader = Reader(store, store.create(made_study(second_stage=True).study), "anna")
    told = [reader.ask("studies"), reader.ask("home")]

    def judge(case):
        told.append(case)
        return answers(case, preference="A")

    reader.finish_all(judge)
    told.append(reader.ask("home"))
    assert len(told) == 2 + 7 + 6 + 1
    words = [text.casefold() for text in strings(told) if not text.startswith("data:")]
    assert not [
        text for text in words for name in (*SYSTEMS, "clip", "patient-", ".dcm", "second") if name.casefold() in text
    ]


def test_captions_differ_in_letter_and_text_alone(store):
    reader = Reader(store, store.create(made_study(second_stage=True).study), "anna")
    shapes, order = set(), []

    def judge(case):
        assert [caption["letter"] for caption in case["captions"]] == ["A", "B", "C"]
        shapes.update((case["stage"], tuple(caption)) for caption in case["captions"])
        order.append(tuple(author(caption["text"]) for caption in case["captions"]))
        assert tuple(case) == tuple(reader.ask("case", place=case["place"]))
        return answers(case, preference="tie")

    reader.finish_all(judge)
    assert shapes == {(1, ("letter", "text")), (2, ("letter", "text", "map"))}
    assert len(set(order)) >= 4


def test_keys_of_showings_say_nothing(store):
    """Neither their order nor their form goes with the order of the systems or the number of the case."""
    study = store.study(store.create(made_study(30).study))
    shown = [row for reader in store.readers(study["id"]) for row in store.showings(reader["id"])]
    keys = [int(row["key"], 16) >> 20 for row in shown]
    assert len(set(keys)) == len(keys) == 66 and all(len(row["key"]) == 16 for row in shown)
    for of in (lambda row: row["letters"].index(0), lambda row: row["study_case_id"], lambda row: row["place"]):
        values = [of(row) for row in shown]
        assert abs(np.corrcoef(np.argsort(np.argsort(keys)), values)[0, 1]) < 0.5


# ---- logins


def test_only_name_and_secret_together_open_a_study(store, study):
    desk = Desk(store)
    for name, secret in [
        ("anna", "wrong"),
        ("ben", SECRETS["anna"]),
        ("nobody", SECRETS["anna"]),
        ("owner", ""),
        ("", ""),
    ]:
        told = desk.answer({"do": "login", "study": study, "name": name, "secret": secret})
        assert "token" not in told and "do not fit" in told["error"]
    assert (
        "do not fit"
        in desk.answer({"do": "login", "study": "0000", "name": "anna", "secret": SECRETS["anna"]})["error"]
    )
    assert "token" in desk.answer({"do": "login", "study": study, "name": " anna ", "secret": SECRETS["anna"]})


def test_guessing_takes_longer_and_longer(store, study, monkeypatch):
    monkeypatch.setattr(door.time, "monotonic", lambda: 100.0)
    desk = Desk(store)
    said = [desk.answer({"do": "login", "study": study, "name": "anna", "secret": str(i)})["error"] for i in range(7)]
    assert "do not fit" in said[4] and "wait" in said[5] and "wait" in said[6]
    assert "wait" in desk.answer({"do": "login", "study": study, "name": "anna", "secret": SECRETS["anna"]})["error"]
    assert "token" in desk.answer({"do": "login", "study": study, "name": "ben", "secret": SECRETS["ben"]})


def test_tries_that_run_side_by_side_are_counted(store, study, monkeypatch):
    def slow(secret, stored):
        time.sleep(0.3)
        return False

    monkeypatch.setattr(door, "verify", slow)
    monkeypatch.setattr(door.time, "monotonic", lambda: 100.0)  # the wait after the fifth does not end meanwhile
    desk, said = Desk(store), []
    asked = {"do": "login", "study": study, "name": "anna", "secret": "guess"}
    threads = [threading.Thread(target=lambda: said.append(desk.answer(asked)["error"])) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("do not fit" in one for one in said) == 5 and sum("wait" in one for one in said) == 11


def test_studies_of_one_title_can_be_told_apart(store, study):
    assert [one["title"] for one in Desk(store).answer({"do": "studies"})["studies"]] == ["Chest films, spring"]
    other = store.create(made_study().study)
    for at in (Desk(store), Ledger(store)):
        titles = {one["key"]: one["title"] for one in at.answer({"do": "studies"})["studies"]}
        assert titles == {key: f"Chest films, spring ({key})" for key in (study, other)}
    assert Reader(store, other, "anna").ask("home")["study"] == other


@pytest.mark.parametrize("do", ["home", "case", "save", "logout"])
def test_without_a_login_nothing_is_told(store, study, do):
    told = Desk(store).answer({"do": do, "token": "made up", "place": 0})
    assert told["login"] is True and set(told) == {"error", "login"}


def test_logging_out_ends_the_login(anna):
    assert "form" in anna.ask("home")
    anna.ask("logout")
    assert anna.ask("home")["login"] is True


def test_owner_and_reader_open_their_own_side_only(store, study, made, anna):
    ledger = Ledger(store)
    assert "error" in ledger.answer({"do": "results", "token": anna.token})
    assert "error" in ledger.answer({"do": "login", "study": study, "secret": SECRETS["anna"]})
    token = ledger.answer({"do": "login", "study": study, "secret": made.secrets["owner"]})["token"]
    assert "html" in ledger.answer({"do": "results", "token": token})
    assert Desk(store).answer({"do": "home", "token": token})["login"] is True


def test_a_reader_cannot_save_for_another(store, study, anna):
    ben = Reader(store, study, "ben")
    case = ben.ask("case", place=0)
    told = anna.save(case, {"confidence": 1})
    assert "no such case" in told["error"] and not store.ratings(store.study(study)["id"])


@pytest.mark.parametrize("asked", [None, 3, [], "home", {"do": "drop"}, {"do": "case"}, {"do": "save", "answers": 3}])
def test_whatever_is_asked_is_answered_with_a_sentence(anna, asked):
    told = anna.desk.answer({**asked, "token": anna.token} if isinstance(asked, dict) else asked)
    assert told["error"].endswith(".") and "Traceback" not in told["error"]


def test_a_fault_of_the_server_is_told_from_a_wrong_request(anna, monkeypatch, caplog):
    case = anna.ask("case", place=0)

    def broken(*_, **__):
        raise OSError("disk full of patients")

    monkeypatch.setattr(ReviewStore, "save", broken)
    told = anna.save(case, {"confidence": 1})
    assert told["again"] is True and "again" in told["error"] and "file" not in told["error"] and "disk" not in told["error"]
    assert any(getattr(record, "doing", "") == "answering the review" for record in caplog.records)
    assert "again" not in anna.save(case, {"no": 1}) and "again" not in anna.ask("case", place=99)


# ---- a reader at work


def test_a_reader_goes_on_where_he_left(store, study, anna):
    home = anna.ask("home")
    assert home["at"] == 0 and home["states"] == [0] * 7 and home["open"] == [0, 7]
    case = anna.ask("case", place=0)
    assert anna.save(case, {"preference": "A"})["states"][0] == 1
    assert anna.save(case, answers(case, preference="A"), complete=True)["at"] == 1
    anna.save(anna.ask("case", place=1), {"A.accuracy": 2})
    again = Reader(store, study, "anna")
    home = again.ask("home")
    assert home["at"] == 1 and home["states"][:3] == [2, 1, 0]
    assert again.ask("case", place=1)["answers"] == {"A.accuracy": 2}


def test_a_case_is_finished_only_when_nothing_is_open(anna):
    case = anna.ask("case", place=0)
    told = anna.save(case, {"preference": "A"}, complete=True)
    assert not told["complete"] and "A.accuracy" in told["missing"] and told["revision"] == 1 and told["at"] == 0
    told = anna.save(case, answers(case, preference="A"), complete=True)
    assert told["complete"] and told["answers"]["C.error.wrong_side.significant"] == 0
    assert anna.save(anna.ask("case", place=1), {"preference": forms.CANNOT}, complete=True)["complete"]


def test_going_back_supersedes_and_both_rows_stay(store, study, anna):
    case = anna.ask("case", place=0)
    anna.save(case, answers(case, preference="A"), complete=True)
    again = anna.ask("case", place=0)
    anna.save(again, {**again["answers"], "preference": "B"}, complete=True)
    rows = store.ratings(store.study(study)["id"])
    assert [row["answers"]["preference"] for row in rows] == ["A", "B"]
    assert [row["latest"] for row in rows] == [False, True] and rows[1]["supersedes"] == rows[0]["id"]
    assert [one.answers["preference"] for one in read_rated(store, study).showings] == ["B"]


def test_maps_wait_for_the_second_stage_which_closes_the_first(store):
    reader = Reader(store, store.create(made_study(second_stage=True).study), "anna")
    assert "opens once the first is finished" in reader.ask("case", place=7)["error"]
    for place in range(7):
        case = reader.ask("case", place=place)
        assert all("map" not in caption for caption in case["captions"])
        reader.save(case, {"preference": forms.CANNOT}, complete=True)
    home = reader.ask("home")
    assert home["at"] == 7 and home["open"] == [0, 13] and "error" not in reader.ask("case", place=0)
    second = reader.ask("case", place=7)
    assert all(caption["map"].startswith("data:image/png") for caption in second["captions"])
    assert second["open"] == [7, 13]
    assert "is closed" in reader.ask("case", place=0)["error"] and reader.ask("home")["open"] == [7, 13]


def test_time_on_a_case_adds_up_over_visits(store, study, anna):
    for _ in range(2):
        case = anna.ask("case", place=0)
        time.sleep(0.15)
        anna.save(case, answers(case, preference="A"), complete=True, seconds=0.1)
    (showing,) = read_rated(store, study).showings
    assert showing.seconds == pytest.approx(0.2, abs=0.02) and showing.revisions == 2


# ---- results and files


def prefer(system, scores):
    return lambda case: answers(case, preference=letter_of(case, system), score=scores)


@pytest.fixture
def read(store, study, anna):
    """Both readers finished: anna prefers MSMedCap, ben SAM-BLIP2 on the even cases and MSMedCap on the odd ones."""
    scores = {"MSMedCap": 5, "BLIP2": 2, "SAM-BLIP2": 3}
    anna.finish_all(prefer("MSMedCap", scores))

    def judge(case):
        odd = int(case["captions"][0]["text"].split()[2].rstrip(",")) % 2
        given = prefer("MSMedCap" if odd else "SAM-BLIP2", {**scores, "BLIP2": 1})(case)
        letter = letter_of(case, "BLIP2")
        return {**given, f"{letter}.error.wrong_side.significant": 2, f"{letter}.harm": "severe", "comment": "=1+1"}

    Reader(store, study, "ben").finish_all(judge)
    return read_rated(store, study)


def test_letters_are_opened_right(read):
    document = results(read)
    stage = document["stages"]["1"]
    won = {told["system"]: (told["wins"], told["n"]) for told in stage["preference"]["systems"]}
    assert won == {"MSMedCap": (9, 12), "BLIP2": (0, 12), "SAM-BLIP2": (3, 12)}
    assert sum(stage["preference"]["letters"].values()) == 12
    means = {told["system"]: told["value"] for told in stage["scales"]["accuracy"]}
    assert means == {"MSMedCap": 5, "BLIP2": 1.5, "SAM-BLIP2": 3}
    side = {
        t["system"]: t["value"]
        for t in stage["errors"]
        if (t["category"], t["weight"]) == ("wrong_side", "significant")
    }
    assert side == {"MSMedCap": 0, "BLIP2": 1, "SAM-BLIP2": 0}
    assert stage["harm"]["BLIP2"]["severe"] == 6 and stage["harm"]["MSMedCap"]["none"] == 12
    strengths = [told["value"] for told in stage["bradley_terry"]["systems"]]
    assert strengths[0] > strengths[2] > strengths[1]


def test_repeats_count_for_the_reader_alone(read):
    stage = results(read)["stages"]["1"]
    assert stage["finished"] == 12 and len(read.showings) == 14
    repeated = {told["item"]: told for told in stage["repeated"]}
    assert repeated["preference"]["units"] == 2 and repeated["preference"]["raw"]["value"] == 1
    assert repeated["accuracy"]["units"] == 6 and repeated["accuracy"]["raw"]["value"] == 1


def test_agreement_stands_beside_raw_agreement(read):
    found = {told["item"]: told for told in results(read)["stages"]["1"]["agreement"]}
    assert found["preference"]["raw"]["value"] == 0.5 and found["preference"]["units"] == 6
    assert found["accuracy"]["raw"]["value"] == pytest.approx(2 / 3) and found["accuracy"]["within_one"]["value"] == 1
    assert 0.8 < found["accuracy"]["alpha"]["value"] < 1 and found["preference"]["fleiss"]["value"] < 0.1
    (pair,) = found["accuracy"]["kappa"]
    assert (pair["a"], pair["b"]) == ("anna", "ben") and 0.8 < pair["value"] < 1


def test_the_same_words_under_two_letters_are_no_contest(store):
    cases = [made_case(i) for i in range(6)]
    alike = [
        type(case)(**{**case.__dict__, "captions": {**case.captions, "BLIP2": case.captions["MSMedCap"]}})
        for case in cases
    ]
    study = make_study(
        Plan("t", {"anna": made_study().study.readers[0].secret_hash}, seed=3, repeats=0), alike, SYSTEMS
    )
    key = store.create(study.study)
    reader = Reader(store, key, "anna")
    reader.finish_all(lambda case: answers(case, preference=letter_of(case, "MSMedCap")))
    stage = results(read_rated(store, key))["stages"]["1"]
    assert [told["wins"] for told in stage["preference"]["systems"]] == [6, 6, 0] and stage["preference"][
        "same_words"
    ] == 6
    beats = {(told["a"], told["b"]): told["value"] for told in stage["bradley_terry"]["beats"]}
    assert beats["MSMedCap", "BLIP2"] == pytest.approx(0.5) and beats["MSMedCap", "SAM-BLIP2"] > 0.8


def test_a_study_nobody_began_has_results_too(store, study):
    document = results(read_rated(store, study))
    assert document["stages"] == {} and [told["finished"] for told in document["progress"]] == [0, 0]
    assert "0 of 7" in tables.markdown(document)


def test_a_study_of_cases_that_cannot_be_judged_has_results_too(store, study, anna):
    anna.finish_all(lambda case: {"preference": forms.CANNOT})
    rated = read_rated(store, study)
    document = json.loads(json.dumps(results(rated), allow_nan=False))
    assert (
        document["stages"]["1"]["preference"]["cannot_judge"] == 6 and document["stages"]["1"]["bradley_terry"] is None
    )
    assert "–" in tables.markdown(document)


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_files_are_blind_and_the_key_opens_them(read):
    blind = [exports.long_csv(read), exports.wide_csv(read), exports.ratings_jsonl(read)]
    for text in blind:
        assert not [name for name in (*SYSTEMS, *WORDS.values(), "PATIENT") if name in text]
    key = {(row["reader"], row["place"], row["letter"]): row for row in rows_of(exports.key_csv(read))}
    long = rows_of(blind[0])
    first = [row for row in long if row["item"] == "preference" and not row["repeats"]]
    opened = [key[row["reader"], row["place"], row["value"]]["system"] for row in first]
    assert sorted(opened) == ["MSMedCap"] * 9 + ["SAM-BLIP2"] * 3
    accuracy = {
        key[r["reader"], r["place"], r["letter"]]["system"]: r["value"] for r in long if r["item"] == "accuracy"
    }
    assert accuracy["MSMedCap"] == "5"
    assert key["anna", "0", "A"]["name"].startswith("PATIENT-")


def test_the_wide_file_has_a_line_for_each_finished_case(read):
    wide = rows_of(exports.wide_csv(read))
    assert len(wide) == 14 and len(wide[0]) == 7 + 3 + 3 * (4 + 16)
    assert {row["comment"] for row in wide if row["reader"] == "ben"} == {"'=1+1"}  # no formula for a spreadsheet


def test_every_row_ever_saved_is_in_the_lines(store, study, anna):
    case = anna.ask("case", place=0)
    anna.save(case, {"comment": "=1+1"})
    anna.save(case, answers(case, preference="A"), complete=True)
    lines = [json.loads(line) for line in exports.ratings_jsonl(read_rated(store, study)).splitlines()]
    assert [line["latest"] for line in lines] == [False, True] and lines[0]["answers"] == {"comment": "=1+1"}


def test_the_key_is_not_in_the_zip(read):
    with zipfile.ZipFile(io.BytesIO(exports.study_zip(read))) as archive:
        assert archive.namelist() == ["README.txt", "long.csv", "wide.csv", "ratings.jsonl"]
        assert not [name for name in SYSTEMS for file in archive.namelist() if name in archive.read(file).decode()]


def test_the_owner_reads_charts_and_downloads(store, study, made, read):
    ledger = Ledger(store)
    token = ledger.answer({"do": "login", "study": study, "secret": made.secrets["owner"]})["token"]
    html = ledger.answer({"do": "results", "token": token})["html"]
    assert html.count("data:image/svg+xml") == 4 and "9 of 12" in html and "Krippendorff" in html
    for name in (*exports.FILES, "study.zip"):
        told = ledger.answer({"do": "export", "token": token, "file": name})
        assert told["name"] == f"{study}-{name}" and base64.b64decode(told["data"])
    assert "no such file" in ledger.answer({"do": "export", "token": token, "file": "../reviews.sqlite"})["error"]


def test_names_of_readers_cannot_become_markup(store):
    plan = Plan("<b>title</b>", {"<img src=x>": None}, seed=1)
    made = make_study(plan, [made_case(i) for i in range(2)], SYSTEMS)
    ledger = Ledger(store)
    token = ledger.answer({"do": "login", "study": store.create(made.study), "secret": made.secrets["owner"]})["token"]
    html = ledger.answer({"do": "results", "token": token})["html"]
    assert "<img src=x>" not in html and "<b>title" not in html
