"""The server's log tells what happened and never to whom or with what."""

from __future__ import annotations

import ast
import io
import json
import logging
import sys
import traceback
import warnings
from pathlib import Path

import pytest

from msmedcap.config import UserError
from msmedcap.demo.reading import sentence
from msmedcap.demo.serving.logs import DOINGS, Journal, configure, printed

PACKAGE = Path(__file__).parents[2] / "msmedcap"
NOT_SERVED = ("training", "evaluation", "commands", "convert", "hub")  # what the page's server never runs


@pytest.fixture
def written():
    """Lines in one form, read back: ``written("json")`` → a function that gives what was written."""
    root, ours = logging.getLogger(), logging.getLogger("msmedcap")
    before = root.handlers[:], root.level, ours.level

    def start(form: str, level: str = "info"):
        stream = io.StringIO()
        configure(level, form, stream=stream)

        def lines() -> list:
            found = stream.getvalue().splitlines()
            return [json.loads(line) for line in found] if form == "json" else found

        return lines

    yield start
    logging.captureWarnings(False)
    root.handlers[:], root.level = before[:2]
    ours.setLevel(before[2])


def test_an_event_is_one_line_with_its_time_and_the_visitors_number(written):
    lines, journal = written("json"), Journal()
    with journal.event("opened", "key-of-anna", kind="DICOM") as happening:
        happening.note(frames=12)
    journal.say("left", "key-of-bert")
    journal.say("left", "key-of-anna")
    opened, left, gone = lines()
    assert opened["event"] == "opened" and opened["visitor"] == 1 and opened["outcome"] == "ok"
    assert opened["kind"] == "DICOM" and opened["frames"] == 12 and 0 <= opened["seconds"] < 5
    assert opened["level"] == "info" and opened["time"].endswith("+00:00")
    assert (left["visitor"], gone["visitor"]) == (2, 1) and "key-of" not in str(lines())


def test_an_error_is_its_class_alone(written):
    lines, journal = written("json"), Journal()
    with pytest.raises(ValueError), journal.event("captioned", "k", preset="fast"):
        raise ValueError("DOE^JOHN 1950-01-01 /home/anna/scan.dcm")
    with journal.event("opened", "k") as happening:
        happening.failed(KeyError("DOE^JOHN"))
    with journal.event("captioned", "k") as happening:
        happening.cancelled()
    assert [(line["outcome"], line.get("error"), line["level"]) for line in lines()] == [
        ("error", "ValueError", "warning"),
        ("error", "KeyError", "warning"),
        ("cancelled", None, "info"),
    ]
    assert "DOE" not in str(lines()) and "anna" not in str(lines())


def test_a_stopped_stream_is_not_an_error(written):
    lines, journal = written("json"), Journal()

    def stream():
        with journal.event("captioned", "k"):
            yield 1

    running = stream()
    next(running)
    running.close()
    assert lines()[0]["outcome"] == "cancelled"


def test_only_known_words_pass(written):
    lines, journal = written("json"), Journal()
    journal.say("opened", "k", kind="DOE^JOHN", system="DOE^JOHN")
    assert lines()[0]["kind"] == "other" and lines()[0]["system"] == "other"
    for wrong in ({"file": "scan.dcm"}, {"seconds": "scan.dcm"}, {"caption": "a chest"}):
        with pytest.raises(TypeError):
            journal.say("opened", "k", **wrong)
    with pytest.raises(TypeError):
        journal.say("DOE^JOHN", "k")


def test_what_libraries_log_and_warn_is_not_quoted(written):
    lines = written("json", "debug")
    logging.getLogger("highdicom").warning("Invalid value DOE^JOHN")
    logging.getLogger("httpx").info("GET /file=/tmp/gradio/DOE.dcm")
    warnings.warn("The value 'DOE^JOHN' is not valid", UserWarning, stacklevel=1)
    ours = logging.getLogger("msmedcap.demo.session")
    try:
        raise RuntimeError("DOE^JOHN")
    except RuntimeError as error:
        ours.error("failed while %s", "opening DOE.dcm", exc_info=error)
    found = lines()
    assert [line["logger"] for line in found] == ["highdicom", "py.warnings", "msmedcap.demo.session"]
    assert "DOE" not in json.dumps(found)
    assert found[-1]["message"] == "failed while %s" and found[-1]["error"] == "RuntimeError"
    (place,) = found[-1]["trace"]
    assert place.startswith("test_logs.py:") and place.endswith(" test_what_libraries_log_and_warn_is_not_quoted")


@pytest.mark.parametrize(("doing", "told"), [("drawing the maps", "drawing the maps"), ("opening DOE.dcm", "other")])
def test_a_failure_names_what_was_being_done(written, doing, told):
    lines = written("json")
    assert doing in sentence(RuntimeError("DOE^JOHN"), doing)
    (line,) = lines()
    assert (line["message"], line["doing"], line["error"]) == ("failed", told, "RuntimeError") and "DOE" not in str(line)


def test_everything_that_is_done_has_its_name_in_the_log():
    """What every call of ``sentence`` says was being done, directly or through a ``doing``."""
    said = set()
    for file in (PACKAGE / "demo").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func).rpartition(".")[2]
            places = {"sentence": 1, "_one_sentence": 0}
            found = [*node.args[places[name] : places[name] + 1]] if name in places else []
            found += [keyword.value for keyword in node.keywords if keyword.arg == "doing"]
            said |= {one.value for one in found if isinstance(one, ast.Constant)}
            assert all(isinstance(one, (ast.Constant, ast.Name, ast.Attribute)) for one in found), f"{file.name}:{node.lineno}"
    assert said == DOINGS


def test_what_a_library_prints_is_not_quoted_either(written):
    lines, before = written("json"), sys.stderr
    with printed():
        try:
            raise RuntimeError("the file DOE.dcm\nof DOE^JOHN")
        except RuntimeError:
            traceback.print_exc()
        sys.stderr.write("opening ")
        sys.stderr.write("DOE.dcm\nand DOE2.dcm\n")
    assert sys.stderr is before
    error, more = lines()
    assert error["error"] == "RuntimeError" and error["trace"][0].startswith("test_logs.py:") and error["level"] == "error"
    assert more["message"] == "something was printed" and "DOE" not in json.dumps(lines())


def test_text_is_one_line_too(written):
    lines, journal = written("text"), Journal()
    journal.say("started", models="demo", port=7860)
    (line,) = lines()
    assert line.split(" ", 1)[1] == "info started models=demo port=7860 outcome=ok"


def test_the_level_counts(written):
    lines, journal = written("json", "warning"), Journal()
    journal.say("left", "k")
    assert lines() == []


def test_a_wrong_setting_is_one_sentence():
    with pytest.raises(UserError, match="log level"):
        configure("loud")
    with pytest.raises(UserError, match="log format"):
        configure("info", "xml")


def test_numbers_do_not_grow_the_process():
    journal = Journal()
    numbers = [journal.visitor(str(count)) for count in range(5000)]
    assert numbers == list(range(1, 5001)) and len(journal._numbers) <= 4096


def test_no_message_of_ours_is_filled_in_before_it_is_logged():
    """The lines keep a message as it stands in the code; one made with an f-string would carry what it was filled with."""
    found = []
    for file in PACKAGE.rglob("*.py"):
        if file.relative_to(PACKAGE).parts[0] in NOT_SERVED:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            if ast.unparse(node.func.value) in ("log", "_log", "logger", "logging") and node.func.attr in (
                "debug", "info", "warning", "error", "exception", "critical",
            ):
                found.append(node)
                assert isinstance(node.args[0], ast.Constant), f"{file.name}:{node.lineno}"
    assert found
