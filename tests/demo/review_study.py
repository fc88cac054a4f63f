"""A small study for the tests: cases whose captions say, to who knows the code, which system wrote them; readers with secrets."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msmedcap.demo.review import forms
from msmedcap.demo.review.blind import picture_png
from msmedcap.demo.review.desk import Desk
from msmedcap.demo.review.making import Made, Plan, make_study
from msmedcap.demo.serving.accounts import hash_password
from msmedcap.demo.store import NewCase, ReviewStore

SYSTEMS = ("MSMedCap", "BLIP2", "SAM-BLIP2")
WORDS = dict(zip(SYSTEMS, ("amber", "birch", "cedar"), strict=True))
SECRETS = {"anna": "aaaa-1111", "ben": "bbbb-2222"}
_HASHES = {name: hash_password(secret) for name, secret in SECRETS.items()}


def picture(number: int) -> np.ndarray:
    grey = np.full((48, 64), 20 + 7 * number % 100, np.uint8)
    grey[10:30, 10 + number % 30 : 30 + number % 30] = 220
    return np.repeat(grey[..., None], 3, axis=2)


def made_case(number: int, *, maps: bool = False) -> NewCase:
    png, width, height = picture_png(picture(number))
    captions = {system: f"Axial scan {number}, {WORDS[system]} shadow." for system in SYSTEMS}
    drawn = {system: picture_png(picture(number + 3 * i))[0] for i, system in enumerate(SYSTEMS, 1)} if maps else {}
    return NewCase(f"PATIENT-{number}.dcm", png, width, height, captions, drawn, group=f"patient {number}", facts="CT")


def made_study(cases: int = 6, *, readers: Sequence[str] = ("anna", "ben"), **settings: Any) -> Made:
    plan = Plan("Chest films, spring", {name: _HASHES[name] for name in readers}, seed=11, **settings)
    return make_study(plan, [made_case(i, maps=plan.second_stage) for i in range(cases)], SYSTEMS)


class Reader:
    """A reader at the desk, without a browser."""

    def __init__(self, store: ReviewStore, study: str, name: str) -> None:
        self.desk, self._draw, self._saves = Desk(store), random.Random(name), 0
        self.told = self.desk.answer({"do": "login", "study": study, "name": name, "secret": SECRETS[name]})
        self.token = self.told.get("token", "")

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        return self.desk.answer({"do": do, "token": self.token, **more})

    def save(self, case: Mapping[str, Any], answers: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        self._saves += 1
        row = {"case": case["case"], "visit": case["visit"], "answers": dict(answers), "seconds": 3.0}
        return self.ask("save", **{**row, "save": f"{self._draw.random()}-{self._saves}", **more})

    def finish_all(self, judge: Any) -> None:
        """Answer every case with ``judge(case) -> answers`` until none is left."""
        at = self.ask("home")["at"]
        while at is not None:
            case = self.ask("case", place=at)
            told = self.save(case, judge(case), complete=True)
            assert told.get("complete"), told
            at = told["at"]


def answers(case: Mapping[str, Any], *, preference: str, score: Mapping[str, int] | int = 3) -> dict[str, Any]:
    """A whole form; ``score`` by system or for all, ``preference`` a letter or one of the other answers."""
    given: dict[str, Any] = {"preference": preference, "confidence": 4}
    for caption in case["captions"]:
        letter, system = caption["letter"], author(caption["text"])
        value = score if isinstance(score, int) else score[system]
        given |= {f"{letter}.{key}": value for key in forms.SCALES} | {f"{letter}.harm": "none"}
    return given


def author(text: str) -> str:
    """Who wrote a caption of :func:`made_case`."""
    return next(system for system, word in WORDS.items() if word in text)


def letter_of(case: Mapping[str, Any], system: str) -> str:
    return next(caption["letter"] for caption in case["captions"] if author(caption["text"]) == system)
