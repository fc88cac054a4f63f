"""Two readers through a whole study in Chromium, by keys; nothing on the wire tells the systems apart; the owner reads results."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
from pathlib import Path

import pytest
from review_server import review_page
from review_study import SECRETS, SYSTEMS, author, made_study
from serving import serve_blocks

from msmedcap.demo import store as store_module
from msmedcap.demo.review.rated import read_rated
from msmedcap.demo.store import ReviewStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CASES = 3


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    opened = ReviewStore(f"sqlite:///{tmp_path_factory.mktemp('reviews') / 'reviews.sqlite'}")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def served(store):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "BUSY_MILLISECONDS", 500)  # a locked database is a fault after half a second
        page = review_page(str(store._engine.url))
    yield serve_blocks(page)
    page.close()


@pytest.fixture
def study(store):
    """A new study of three cases in two stages: its key and the owner's secret."""
    made = made_study(CASES, second_stage=True)
    return store.create(made.study), made.secrets["owner"]


@pytest.fixture
def visit(come, served, study):
    """A function that opens the page and logs a reader in."""

    def visit(name="anna", **settings):
        page = come(served, size=(1360, 900), **settings)
        page.select_option("#mm-review select[name=study]", study[0])
        page.fill("#mm-review input[name=name]", name)
        page.fill("#mm-review input[name=secret]", SECRETS[name])
        page.keyboard.press("Enter")
        at(page)
        return page

    return visit


def at(page, place=None):
    """Wait until a case (the one at ``place``) is on the page and takes answers."""
    page.wait_for_function(
        """place => { const sheet = document.querySelector('.mm-sheet'), list = document.querySelector('.mm-jump');
        return sheet && !sheet.inert && sheet.offsetParent && (place === null || list.value === String(place)); }""",
        arg=place,
    )


def captions(page):
    texts = page.locator(".mm-caption-cell .mm-caption").all_inner_texts()
    return dict(zip("ABC", texts, strict=True))


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def saved(page, *, finished=False):
    """Wait for the acknowledgement."""
    said = "finished" if finished else "Saved"
    page.wait_for_function("said => document.querySelector('.mm-saved').textContent.includes(said)", arg=said)


def whole_form(page, prefer):
    """Fill in everything with keys alone: the preference, 3 x 3 scales, 48 counts, 3 x harm, confidence."""
    press(page, prefer.lower(), "Enter")
    press(page, *"543210543"[:9].replace("0", "1"))
    press(page, "2", *["Enter"] * 48, "1", "2", "0", "4")


def test_two_readers_go_through_a_whole_study_by_keys(visit, store, study, caplog):
    caplog.set_level("INFO", "msmedcap.events")
    pages = {name: visit(name) for name in SECRETS}
    for place in range(2 * CASES):
        for name, page in pages.items():
            at(page, place)
            said = {author(text): letter for letter, text in captions(page).items()}
            assert page.locator(".mm-map-button:visible").count() == (3 if place >= CASES else 0)
            if name == "anna":
                whole_form(page, said["MSMedCap"])
            else:
                press(page, "n" if place == 0 else "t" if place == 1 else said["BLIP2"].lower())
                if place:
                    press(page, "Enter", *"333333333", *["Enter"] * 48, *"1113")
            press(page, "Control+Enter")
            if place == CASES - 1:
                page.click("text=Open part 2")
    for page in pages.values():
        page.wait_for_function("document.querySelector('.mm-done').textContent.includes('All cases are finished')")
        assert page.locator(".mm-count").inner_text() == f"{CASES} of {CASES} finished"
    rated = read_rated(store, study[0])
    said = {(one.reader, one.place): one.preference for one in rated.showings}
    assert [said["anna", place] for place in range(6)] == ["MSMedCap"] * 6
    assert [said["ben", place] for place in range(6)] == [None, "tie", *["BLIP2"] * 4]
    one = next(one for one in rated.showings if one.reader == "anna")
    assert [one.answers[f"{letter}.{key}"] for key in ("accuracy", "completeness", "clarity") for letter in "ABC"] == [
        5, 4, 3, 2, 1, 1, 5, 4, 3,
    ]  # fmt: skip
    assert (one.answers["A.error.false_finding.significant"], one.answers["C.error.wrong_side.insignificant"]) == (2, 0)
    assert [one.answers[f"{letter}.harm"] for letter in "ABC"] == ["none", "mild", "cannot_judge"]
    assert one.answers["confidence"] == 4 and one.seconds > 0 and one.revisions > 3
    written = [record.fields for record in caplog.records if record.name == "msmedcap.events"]
    assert len(written) >= 12 and all(set(f) == {"event", "seconds", "outcome"} and f["event"] == "rated" for f in written)


def test_nothing_on_the_wire_tells_the_systems_apart(visit, store, study):
    """All that reaches the browser, from the page's first byte to the last case."""
    traffic: list[tuple[str, bytes]] = []

    def watch(page):
        page.on("requestfinished", lambda request: traffic.append((request.url, _body(request))))
        page.on(
            "websocket",
            lambda socket: socket.on("framereceived", lambda frame: traffic.append((socket.url, _bytes(frame)))),
        )

    page = visit(watch=watch)
    skeletons, orders = {"first": [], "second": []}, []
    for place in range(2 * CASES):
        at(page, place)
        orders.append(tuple(author(text) for text in captions(page).values()))
        stage = "second" if place >= CASES else "first"
        skeletons[stage].append([_skeleton(cell) for cell in page.locator(".mm-caption-cell").all()])
        press(page, "n", "Control+Enter")
        if place == CASES - 1:
            page.click("text=Open part 2")
    page.wait_for_function("document.querySelector('.mm-done').textContent.includes('All cases are finished')")
    asked = [(url, body) for url, body in traffic if "component_server" in url]
    assert len(asked) > 2 * 2 * CASES and len(set(orders)) > 1
    names = [name.casefold() for name in (*SYSTEMS, "PATIENT-", ".dcm")]
    # The page itself comes before anybody has logged in, and is the same for every study.
    first = next(number for number, (url, _) in enumerate(traffic) if "component_server" in url)
    for url, body in traffic[first:]:
        text = body.decode("utf-8", "replace").casefold()
        assert not [name for name in names if name in text or name in url.casefold()], url
    # A caption's markup is the same whoever wrote it: ids, classes, order of attributes, everything but text and picture.
    for cells in skeletons.values():
        assert len({json.dumps(cell) for cell in cells}) == 1
        alike = [_letterless(skeleton, letter) for letter, skeleton in zip("ABC", cells[0], strict=True)]
        assert len(set(alike)) == 1
    # What the answers hold beside texts and pictures does not go with the order of the systems.
    cases = [told for _, body in asked if (told := json.loads(body)) and "captions" in told]
    assert len(cases) == 2 * CASES
    assert len({tuple(case) for case in cases}) == 1
    assert {tuple(caption) for case in cases for caption in case["captions"]} == {
        ("letter", "text"),
        ("letter", "text", "map"),
    }


def _letterless(skeleton: str, letter: str) -> str:
    return re.sub(rf"(?<=aption ){letter}|(?<=>){letter}(?=<)", "?", skeleton)


def _body(request) -> bytes:
    response = request.response()
    return response.body() if response and response.status < 300 else b""


def _bytes(frame) -> bytes:
    return frame.encode() if isinstance(frame, str) else frame


def _skeleton(cell) -> str:
    html = cell.evaluate("element => element.outerHTML")
    html = re.sub(r'(<p class="mm-caption">)[^<]*', r"\1", html)
    return re.sub(r'src="data:[^"]*"', 'src=""', html)


def test_every_change_is_saved_and_found_again(visit, store, study):
    page = visit()
    press(page, "b", "Enter", "4", "0")
    page.fill("textarea", "Dense left lower lobe.")
    saved(page)
    page.wait_for_function(
        "!sessionStorage.getItem('mm-review-unsaved') || sessionStorage.getItem('mm-review-unsaved') === '[]'"
    )
    page.reload()
    at(page, 0)
    assert page.locator("input[name=preference]:checked").get_attribute("value") == "B"
    assert page.locator("input[name='A.accuracy']:checked").get_attribute("value") == "4"
    assert page.locator("input[name='B.accuracy']:checked").get_attribute("value") == "cannot_judge"
    assert page.locator("textarea").input_value() == "Dense left lower lobe."
    rows = store.ratings(store.study(study[0])["id"])
    assert len(rows) >= 2 and rows[-1]["answers"]["comment"] == "Dense left lower lobe."


def test_what_is_open_is_marked_and_going_back_changes_the_answer(visit, store, study):
    page = visit()
    press(page, "a", "Control+Enter")
    page.wait_for_selector(".mm-ask.mm-open-question")
    assert (
        page.locator(".mm-ask.mm-open-question").count() == 13
        and "still open" in page.locator(".mm-saved").inner_text()
    )
    press(page, "n", "Control+Enter")
    at(page, 1)
    press(page, "[")
    at(page, 0)
    saved(page, finished=True)
    press(page, "t")
    page.wait_for_function("document.querySelector('.mm-count').textContent.startsWith('0 of')")
    rows = store.ratings(store.study(study[0])["id"])
    assert [row["answers"]["preference"] for row in rows if row["complete"]] == ["cannot_judge"]
    assert rows[-1]["answers"]["preference"] == "tie" and not rows[-1]["complete"]


def test_a_save_that_did_not_arrive_is_sent_again(visit, store, study):
    page = visit()
    page.route(re.compile("component_server"), lambda route: route.abort())
    press(page, "c")
    page.wait_for_function("document.querySelector('.mm-saved').textContent.startsWith('Not saved yet')")
    press(page, "a")
    assert not store.ratings(store.study(study[0])["id"])
    page.unroute(re.compile("component_server"))
    saved(page)
    page.wait_for_function("sessionStorage.getItem('mm-review-unsaved') === '[]'")
    assert store.ratings(store.study(study[0])["id"])[-1]["answers"]["preference"] == "A"


def test_an_answer_the_server_could_not_keep_is_kept_and_sent_again(visit, store, study):
    page = visit()
    holder = sqlite3.connect(store._engine.url.database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        press(page, "c")
        page.wait_for_function("document.querySelector('.mm-saved').textContent.includes('could not keep it')")
        assert "another file" not in page.locator("#mm-review").inner_text()
        (row,) = json.loads(page.evaluate("sessionStorage.getItem('mm-review-unsaved')"))
        assert row["answers"] == {"preference": "C"} and not store.ratings(store.study(study[0])["id"])
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    saved(page)
    page.wait_for_function("sessionStorage.getItem('mm-review-unsaved') === '[]'")
    (row,) = store.ratings(store.study(study[0])["id"])
    assert row["answers"] == {"preference": "C"}


def test_unsaved_answers_of_another_login_wait_for_it(visit, store, study):
    """Another study of the same title, another reader in the same tab: neither sends what is not theirs, nor waits for it."""
    row = {"do": "save", "case": "0" * 16, "visit": "x", "answers": {}, "complete": False, "seconds": 0, "save": "1" * 24}
    others = [{**row, "reader": "ffffffff/anna"}, {**row, "reader": f"{study[0]}/ben"}]
    page = visit()
    page.evaluate("rows => sessionStorage.setItem('mm-review-unsaved', JSON.stringify(rows))", others)
    page.reload()
    at(page, 0)
    press(page, "b")
    saved(page)
    assert json.loads(page.evaluate("sessionStorage.getItem('mm-review-unsaved')")) == others
    assert store.ratings(store.study(study[0])["id"])[-1]["answers"] == {"preference": "B"}


def names(page):
    """What the list of cases offers."""
    return page.locator(".mm-jump option").all_inner_texts()


def bar(page):
    return [page.locator(f".mm-review-bar {part}").inner_text() for part in (".mm-part", ".mm-count")]


def finish(page, *places):
    for place in places:
        at(page, place)
        press(page, "n", "Control+Enter")


def test_the_list_counts_each_part_for_itself(visit):
    page = visit()
    finish(page, 0, 1, 2)
    page.wait_for_selector("text=Open part 2")
    first, second = ([f"Part {part}, case {n}" for n in (1, 2, 3)] for part in (1, 2))
    assert names(page) == ["Go to a case", *(f"{name} ✓" for name in first), *second]
    assert bar(page) == ["Part 1", "3 of 3 finished"]
    page.click("text=Open part 2")
    at(page, 3)
    assert names(page) == second and bar(page) == ["Part 2: with maps", "0 of 3 finished"]


def test_a_case_that_does_not_open_leaves_the_list_where_it_was(visit):
    page = visit()
    press(page, "b")
    saved(page)
    page.route(re.compile("component_server"), lambda route: route.abort())
    page.select_option(".mm-jump", "2")
    page.wait_for_function("document.querySelector('.mm-saved').textContent.includes('does not answer')")
    assert page.locator(".mm-jump").input_value() == "0"
    assert page.evaluate("document.querySelector('.mm-sheet').contains(document.activeElement)")
    page.unroute(re.compile("component_server"))
    page.select_option(".mm-jump", "2")
    at(page, 2)


def test_between_and_after_the_parts_one_can_go_back(visit):
    page = visit()
    finish(page, 0, 1, 2)
    page.wait_for_selector("text=Open part 2")
    press(page, "[")
    at(page, 2)
    press(page, "Control+Enter")
    page.click("text=Open part 2")
    finish(page, 3, 4, 5)
    page.wait_for_function("document.querySelector('.mm-done').textContent.includes('All cases are finished')")
    assert page.evaluate("document.activeElement.className") == "mm-jump"
    assert page.locator(".mm-jump").input_value() == "" and names(page)[0] == "Go to a case"
    assert page.get_by_title("Case after").is_disabled() and page.get_by_title("Case before").is_enabled()
    press(page, "[")
    at(page, 5)
    press(page, "Control+Enter")
    page.wait_for_selector(".mm-done:visible")
    page.select_option(".mm-jump", "5")
    at(page, 5)
    page.click("[title^='Case before']")
    at(page, 4)


def test_a_login_that_ended_keeps_what_was_not_saved(visit, store, study):
    page = visit()
    token = page.evaluate("sessionStorage.getItem('mm-review')")
    store.drop_login(token)
    press(page, "c")
    page.wait_for_selector(".mm-login")
    assert "log in again" in page.locator(".mm-login [role=alert]").inner_text()
    page.select_option("#mm-review select[name=study]", study[0])
    page.fill("#mm-review input[name=name]", "anna")
    page.fill("#mm-review input[name=secret]", SECRETS["anna"])
    page.keyboard.press("Enter")
    at(page, 0)
    page.wait_for_function("sessionStorage.getItem('mm-review-unsaved') === '[]'")
    assert page.locator("input[name=preference]:checked").get_attribute("value") == "C"
    assert store.ratings(store.study(study[0])["id"])[-1]["answers"] == {"preference": "C"}


def test_the_owner_reads_the_results_and_downloads_the_files(visit, store, study, tmp_path):
    page = visit()
    press(page, "n", "Control+Enter")
    at(page, 1)
    page.click("#mm-owner button")
    page.select_option("#mm-owner-view select[name=study]", study[0])
    page.fill("#mm-owner-view input[name=secret]", SECRETS["anna"])
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#mm-owner-view [role=alert]').textContent.includes('do not fit')")
    page.fill("#mm-owner-view input[name=secret]", study[1])
    page.keyboard.press("Enter")
    page.wait_for_selector("#mm-owner-view .mm-numbers")
    assert "1 of 6" in page.locator("#mm-owner-view").inner_text()
    files = {}
    for name in ("long.csv", "unblinding-key.csv", "study.zip"):
        with page.expect_download() as download:
            page.click(f"#mm-owner-view button[data-file='{name}']")
        files[name] = Path(tmp_path / name)
        download.value.save_as(files[name])
    rows = list(csv.DictReader(io.StringIO(files["long.csv"].read_text())))
    assert [(row["reader"], row["item"], row["value"]) for row in rows] == [("anna", "preference", "cannot_judge")]
    assert "MSMedCap" in files["unblinding-key.csv"].read_text() and files["study.zip"].read_bytes()[:2] == b"PK"


@pytest.mark.parametrize("width", [390, 1360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_hangs_over_the_edge_and_nothing_moves(visit, width, scheme):
    page = visit(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 850})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    before = page.locator(".mm-sheet").bounding_box()
    press(page, "a", "Enter", "3", "2")
    saved(page)
    assert page.locator(".mm-sheet").bounding_box()["height"] == before["height"]
    unnamed = page.evaluate(
        """[...document.querySelectorAll('#mm-review :is(input, button, select, textarea)')].filter(
        (e) => ![e.ariaLabel, e.textContent, e.closest('label')?.textContent, e.title].some((name) => name?.trim())).length"""
    )
    assert unnamed == 0
