"""The README cannot rot: its commands parse, its targets and links exist, its Python runs, its Space settings hold."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import msmedcap
from msmedcap.__main__ import parser

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FRONT = yaml.safe_load(TEXT.split("---", 2)[1])
COMMAND = re.compile(r"python -m msmedcap ([^\n`]+)")
CONTINUED = re.compile(r"\\\n\s*")
COMMANDS = COMMAND.findall(CONTINUED.sub("", TEXT))
DOCS = {p.name: CONTINUED.sub("", p.read_text(encoding="utf-8")) for p in sorted((ROOT / "docs").glob("*.md"))}
BLOCKS = [(name, block) for name, text in DOCS.items() for block in re.findall(r"```sh\n(.*?)```", text, re.S)]
TARGETS = sorted(set(re.findall(r"\bmake ([a-z]+)\b(?=[` \n;:,]*(?:[`#\n(]|PORT))", TEXT)))
LINKS = sorted({link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link})


@pytest.mark.parametrize("command", COMMANDS)
def test_documented_commands_parse(command: str) -> None:
    assert parser().parse_args(shlex.split(command, comments=True)).command == command.split()[0]


@pytest.mark.parametrize(("name", "command"), [(n, c) for n, block in BLOCKS for c in COMMAND.findall(block)])
def test_commands_in_the_docs_parse(name: str, command: str) -> None:
    plain = command.replace("[", "").replace("]", "")
    assert parser().parse_args(shlex.split(plain, comments=True)).command == command.split()[0], name


def test_every_command_is_documented() -> None:
    commands = next(a for a in parser()._actions if a.dest == "command").choices
    assert commands
    told = {c.split()[0] for text in (TEXT, *DOCS.values()) for c in COMMAND.findall(text)}
    assert told == set(commands)


@pytest.mark.parametrize("name", DOCS)
def test_links_in_the_docs_lead_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)", DOCS[name]):
        assert "://" in link or (ROOT / "docs" / link).exists(), f"{name} links {link}"


@pytest.mark.parametrize("target", TARGETS)
def test_documented_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


def test_the_two_commands_are_documented() -> None:
    assert {"app", "test"} <= set(TARGETS)


@pytest.mark.parametrize("link", LINKS)
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists(), f"README.md links {link}, which is not in the checkout"


def test_documented_folders_exist() -> None:
    tree = TEXT.split("## Layout")[1].split("```")[1]
    names = re.findall(r"^(  )?(\w[\w./]*\w/?)  ", tree, re.M)
    assert len(names) > 10
    for indent, name in names:
        assert (ROOT / ("msmedcap" if indent else "") / name).exists(), f"the layout names {name}, which does not exist"


class _Stub:
    """Stands for a predictor in the README's Python."""

    title = "A map"

    def set_scan(self, source: str) -> _Stub:
        return self

    def captions(self) -> dict[str, str]:
        return {"MSMedCap": "A scan."}

    def maps(self, *, system: str) -> list[_Stub]:
        return [self]

    def image(self) -> np.ndarray:
        return np.zeros((2, 3), np.uint8)


def test_documented_python_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(msmedcap.load)
    monkeypatch.setattr(msmedcap, "load", lambda models: _Stub(), raising=False)
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "import msmedcap" in b)
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == ["{'MSMedCap': 'A scan.'}", "A map (2, 3)"]


def test_space_settings_hold() -> None:
    expected: dict[str, Any] = {
        "sdk": "gradio",
        "python_version": "3.11",
        "app_file": "app.py",
        "suggested_hardware": "cpu-basic",
        "license": "apache-2.0",
    }
    assert {key: FRONT[key] for key in expected} == expected
    assert len(FRONT["short_description"]) <= 60
    assert (ROOT / FRONT["app_file"]).is_file()
    assert f"gradio[oauth]>={FRONT['sdk_version'].rsplit('.', 1)[0]}," in (ROOT / "requirements.txt").read_text(
        encoding="utf-8"
    )
