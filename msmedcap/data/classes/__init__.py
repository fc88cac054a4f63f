"""The medical classes a mask can have: their names, synonyms and key characteristics (SEG-SAM's text knowledge).

``classes.json`` is versioned and meant to be edited: a class added there can be named without training anew. Each has a kind,
its appearance per modality, place, shape and neighbours, told as a radiologist would. Comes in: that file, or another of the
same form. Goes out: a :class:`ClassBook`, which leads any spelling to its class and gives the sentences a text encoder reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from msmedcap.config import UserError

__all__ = ["FILE", "KINDS", "MODALITIES", "PARTS", "ClassBook", "MedicalClass", "load_classes", "plain"]

FILE = Path(__file__).parent / "classes.json"
KINDS = ("organ", "vessel", "bone", "muscle", "tissue", "finding", "device", "region")
MODALITIES = ("X-ray", "CT", "MRI", "ultrasound", "endoscopy", "dermoscopy", "fundus")
# The sentences of a class, in order.
PARTS = ("name", "appearance", "place", "shape", "neighbours")
_TEXTS, _LISTS = ("name", "kind", "place", "shape"), ("synonyms", "neighbours")


@dataclass(frozen=True)
class MedicalClass:
    """One class; ``appearance`` says by modality how it looks. Left and right are the patient's."""

    name: str
    kind: str
    synonyms: tuple[str, ...]
    appearance: Mapping[str, str]
    place: str
    shape: str
    neighbours: tuple[str, ...]

    def sentences(self) -> tuple[str, ...]:
        """What a text encoder reads of the class, one sentence for each of :data:`PARTS`."""
        looks = "; ".join(f"{modality}: {text}" for modality, text in self.appearance.items())
        also = f", also called {', '.join(self.synonyms)}" if self.synonyms else ""
        return (
            f"{self.name}{also}, a {self.kind}.",
            f"{self.name} looks like this. {looks}.",
            f"{self.name} lies here: {self.place}.",
            f"{self.name} has this shape: {self.shape}.",
            f"{self.name} lies beside {', '.join(self.neighbours)}.",
        )


@dataclass(frozen=True)
class ClassBook:
    """All classes in the file's order; ``ignored`` names masks of data sets that are no class, and why."""

    version: str
    reviewed: str
    classes: tuple[MedicalClass, ...]
    ignored: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """The classes' names, in order."""
        return tuple(c.name for c in self.classes)

    def resolve(self, name: str) -> str | None:
        """The class that ``name`` or a synonym of it means, whatever its case and underscores; None for one unknown or ignored."""
        return self._by_name.get(plain(name))

    def get(self, name: str) -> MedicalClass:
        """The class of a name or synonym; raises :class:`UserError` for an unknown one."""
        found = self.resolve(name)
        if found is None:
            raise UserError(f"There is no class {name!r}; add it to {FILE.name}, or use one of its {len(self.classes)} names.")
        return self._by_class[found]

    @cached_property
    def _by_name(self) -> dict[str, str]:
        return {plain(spelling): c.name for c in self.classes for spelling in (c.name, *c.synonyms)}

    @cached_property
    def _by_class(self) -> dict[str, MedicalClass]:
        return {c.name: c for c in self.classes}


def plain(name: str) -> str:
    """A name as it is compared: lower case, underscores and runs of spaces as one space."""
    return " ".join(name.replace("_", " ").casefold().split())


def load_classes(path: Path | None = None) -> ClassBook:
    """The classes of ``path`` (the shipped file by default).

    Raises :class:`UserError`, which names the class and what is wrong, for a file that is not of the form: a key missing or
    unknown, an empty text, an unknown kind or modality, or a spelling that means two classes.
    """
    path = path or FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; name a file of classes.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}).") from None
    _demand(path, isinstance(found, dict) and set(found) == {"version", "reviewed", "about", "ignored", "classes"},
            "it must be an object with version, reviewed, about, ignored and classes")
    _demand(path, isinstance(found["classes"], list) and found["classes"] != [], "classes must be a list with at least one class")
    _demand(path, isinstance(found["ignored"], dict), "ignored must be an object of names and reasons")
    _demand(path, all(_text(found[key]) for key in ("version", "reviewed")), "version and reviewed must be texts")
    classes = tuple(_one(path, i, value) for i, value in enumerate(found["classes"]))
    spellings: dict[str, str] = {plain(name): "ignored" for name in found["ignored"]}
    for one in classes:
        for spelling in (one.name, *one.synonyms):
            other = spellings.setdefault(plain(spelling), one.name)
            new = other == one.name and (spelling == one.name or plain(spelling) != plain(one.name))
            _demand(path, new, f"{spelling!r} of {one.name!r} already means {other!r}")
    return ClassBook(found["version"], found["reviewed"], classes, found["ignored"])


def _one(path: Path, index: int, value: Any) -> MedicalClass:
    where = f"class {index + 1}"
    _demand(path, isinstance(value, dict), f"{where} must be an object")
    where = f"{where} ({value.get('name', 'without a name')})"
    wanted = {*_TEXTS, *_LISTS, "appearance"}
    _demand(path, set(value) == wanted, f"{where} must have the keys {', '.join(sorted(wanted))}, not {', '.join(sorted(value))}")
    for key in _TEXTS:
        _demand(path, _text(value[key]), f"{where}: {key} must be a text")
    for key in _LISTS:
        _demand(path, isinstance(value[key], list) and all(map(_text, value[key])), f"{where}: {key} must be a list of texts")
    _demand(path, bool(value["neighbours"]), f"{where}: neighbours must name at least one")
    _demand(path, value["kind"] in KINDS, f"{where}: kind must be one of {', '.join(KINDS)}")
    looks = value["appearance"]
    fits = isinstance(looks, dict) and bool(looks) and set(looks) <= set(MODALITIES) and all(map(_text, looks.values()))
    _demand(path, fits, f"{where}: appearance must be texts by modality ({', '.join(MODALITIES)})")
    lists = {key: tuple(value[key]) for key in _LISTS}
    return MedicalClass(**{**value, **lists})


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _demand(path: Path, holds: bool, what: str) -> None:
    if not holds:
        raise UserError(f"{path} is not a file of classes: {what}.")
