"""Configs: JSON and back, and every key accounted for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from msmedcap import config as configs
from msmedcap import systems
from msmedcap.config import (
    BranchConfig,
    Decoding,
    ModelsConfig,
    QFormerConfig,
    SamConfig,
    UserError,
    ViewSpec,
    from_json,
    parse_point,
    to_json,
)

SIZES = {
    "full": systems.full(),
    "full, SAM ViT-B": systems.full(sam="b", opt="facebook/opt-125m"),
    "demo": systems.demo(),
    "test": systems.test(),
}


@pytest.mark.parametrize("config", SIZES.values(), ids=SIZES)
def test_json_and_back_is_the_same_config(config: ModelsConfig) -> None:
    again = from_json(ModelsConfig, to_json(config))
    assert again == config
    assert list(again.systems) == list(config.systems)  # the order is the prefix order and the page's


def test_defaults_may_be_left_out() -> None:
    assert from_json(Decoding, '{"beams": 3}') == Decoding(beams=3)
    branch = from_json(BranchConfig, '{"encoder": "sam", "qformer": {"layers": 4}}')
    assert branch == BranchConfig("sam", qformer=QFormerConfig(layers=4))


def test_whole_numbers_stand_for_floats() -> None:
    assert from_json(Decoding, '{"repetition_penalty": 9}').repetition_penalty == 9.0


def changed(path: tuple[Any, ...], value: object) -> str:
    tree = json.loads(to_json(systems.demo()))
    place = tree
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(tree)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("colour",), 1, r"ModelsConfig has unknown keys \['colour'\]"),
        (("clip", "colour"), 1, r"ModelsConfig\.clip has unknown keys \['colour'\]"),
        (("branches", "sam", "qformer", "heds"), 1, r"ModelsConfig\.branches\.sam\.qformer has unknown keys \['heds'\]"),
        (("views", 1, "sise"), 1, r"ModelsConfig\.views\[1\] has unknown keys \['sise'\]"),
        (("clip", "hidden"), "192", r"ModelsConfig\.clip\.hidden must be int, not '192'"),
        (("clip", "hidden"), True, r"ModelsConfig\.clip\.hidden must be int, not True"),
        (("clip", "hidden"), 19.5, r"ModelsConfig\.clip\.hidden must be int, not 19\.5"),
        (("views", 0, "grey"), 1, r"ModelsConfig\.views\[0\]\.grey must be bool, not 1"),
        (("views", 0, "mean"), [1, 2], r"ModelsConfig\.views\[0\]\.mean must be a list of 3 values"),
        (("systems", "BLIP2"), "clip", r"ModelsConfig\.systems\.BLIP2 must be a list"),
        (("presets",), [], r"ModelsConfig\.presets must be a JSON object"),
        (("clip",), None, r"ModelsConfig\.clip must be a JSON object, not NoneType"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(path: tuple[Any, ...], value: object, told: str) -> None:
    with pytest.raises(UserError, match=told):
        from_json(ModelsConfig, changed(path, value))


def test_a_missing_key_is_named() -> None:
    with pytest.raises(UserError, match=r"ViewSpec lacks the keys \['mean', 'size', 'std'\]"):
        from_json(ViewSpec, '{"name": "clip", "fit": "squash"}')


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe{}", b""])
def test_a_file_that_is_no_json_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json is not valid JSON"):
        configs.read(ModelsConfig, file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; name a model folder"):
        configs.read(ModelsConfig, tmp_path / "config.json")


@pytest.mark.parametrize("config", SIZES.values(), ids=SIZES)
def test_sizes_hang_together(config: ModelsConfig) -> None:
    assert config.view("clip").size == config.clip.image_size
    assert config.view("sam").size == config.sam.image_size
    assert set(config.presets) == set(systems.PRESETS)
    assert config.systems == systems.SYSTEMS
    assert {name for branches in config.systems.values() for name in branches} == set(config.branches)
    for part in (config.clip, config.sam, *(b.qformer for b in config.branches.values())):
        assert part.hidden % part.heads == 0
    assert isinstance(config.sam, SamConfig) and max(config.sam.global_layers) < config.sam.layers
    with pytest.raises(UserError, match="no view named 'depth'"):
        config.view("depth")


def test_the_papers_decoding_and_the_published_sizes() -> None:
    paper = systems.full().presets["paper"]
    assert (paper.beams, paper.min_new_tokens, paper.max_new_tokens) == (15, 10, 50)
    assert (paper.repetition_penalty, paper.length_penalty, paper.view_sizes) == (9.0, 1.2, {"clip": 364})
    assert systems.full().branches["clip"].qformer.queries == 32


def test_a_config_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        systems.demo().clip.hidden = 3  # type: ignore[misc]


def test_a_point_is_two_numbers() -> None:
    assert parse_point(" 1.5, 2 ") == (1.5, 2.0)
    for text in ("", "1", "1,2,3", "a,b"):
        with pytest.raises(UserError, match="X,Y"):
            parse_point(text)


@pytest.mark.parametrize("field", ["encoder", "norm", "tokens"])
def test_a_switch_has_no_third_position(field: str) -> None:
    with pytest.raises(UserError, match=field):
        from_json(BranchConfig, json.dumps({"encoder": "sam", field: "other"}))
    with pytest.raises(UserError, match="stem"):
        dataclasses.replace(systems.demo().clip, stem="other")
