"""Prompts as a reader gives them: read from text, and refused in one sentence where they make no sense."""

from __future__ import annotations

import math

import pytest

from msmedcap.config import UserError
from msmedcap.data.prompts import Prompt, parse_box, parse_click, parse_clicks, prompt_on


def test_text_is_read() -> None:
    assert parse_click("3,4.5") == (3, 4.5, 1)
    assert parse_click("3, 4, 0") == (3, 4, 0) and parse_click("3,4,1") == (3, 4, 1)
    assert parse_clicks("3,4; 5,6,0;") == ((3, 4, 1), (5, 6, 0)) and parse_clicks(" ") == ()
    assert parse_box("1,2,3.5,4") == (1, 2, 3.5, 4)


@pytest.mark.parametrize("text", ["", "3", "3,4,2", "3,4,-1", "3,4,1,1", "a,b", "3;4"])
def test_what_is_no_point_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a point; write X,Y"):
        parse_click(text)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "1,2,3,x"])
def test_what_is_no_box_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a box; write X0,Y0,X1,Y1"):
        parse_box(text)


def test_a_prompt_on_a_picture() -> None:
    assert prompt_on(50, 80, [(80, 50), (0, 0, 0)]) == Prompt(((80, 50, 1), (0, 0, 0)))
    assert prompt_on(50, 80, box=(60, 40, 10, 5)) == Prompt((), (10, 5, 60, 40))
    assert prompt_on(50, 80, [(3, 4, 0)], (0, 0, 80, 50)) == Prompt(((3, 4, 0),), (0, 0, 80, 50))


@pytest.mark.parametrize(
    ("points", "box", "said"),
    [
        ([], None, "neither a point nor a box"),
        ([(3, 4, 0)], None, "marked as beside"),
        ([(81, 4)], None, "The point 81,4 lies outside the scan, which is 80 x 50 pixels"),
        ([(4, 51)], None, "outside the scan"),
        ([(-1, 4)], None, "outside the scan"),
        ([(math.nan, 4)], None, "outside the scan"),
        ([(3, 4, 2)], None, "1 (on the structure) or 0"),
        ([(3,)], None, "is not X,Y"),
        ([(3, 4)] * 101, None, "at most 100"),
        ([], (5, 5, 5, 20), "has no area"),
        ([], (5, 5, 20, 5), "has no area"),
        ([], (5, 5, 81, 20), "reaches outside the scan, which is 80 x 50 pixels"),
        ([], (-1, 5, 8, 20), "reaches outside"),
        ([], (5, math.nan, 8, 20), "reaches outside"),
        ([], (5, 5, 8), "is not X0,Y0,X1,Y1"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(points: list, box: tuple | None, said: str) -> None:
    with pytest.raises(UserError) as raised:
        prompt_on(50, 80, points, box)
    told = str(raised.value)
    assert said in told and "\n" not in told and told.endswith(".")
