"""The lexicon's file is sound, and its automaton reads phrases as whole words, longest first, in either spelling."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from msmedcap.evaluation import facts
from msmedcap.evaluation.facts.lexicon import Lexicon, lexicon


@pytest.fixture(scope="module")
def words(root: Path) -> dict:
    return json.loads((root / "msmedcap" / "evaluation" / "facts" / "lexicon.json").read_text(encoding="utf-8"))


def test_every_value_has_words_and_known_relations(words: dict) -> None:
    kinds = words["kinds"]
    for kind, values in kinds.items():
        for value, entry in values.items():
            assert entry["say"], f"{kind} {value} has no words"
            assert set(entry.get("is_a", ())) <= values.keys(), f"{value} is a kind of something unknown"
            assert set(entry.get("part", ())) <= kinds["part"].keys(), f"{value} is in an unknown part"
            assert entry.keys() <= {"say", "is_a", "part", "absent"}
    assert len(kinds["finding"]) >= 80
    assert all(group <= kinds["finding"].keys() for group in map(set, words["exclusive"]))


def test_no_value_is_its_own_ancestor() -> None:
    for kind, values in lexicon().values.items():
        for value in values:
            assert value not in lexicon().ancestors(kind, value)


def test_every_value_is_read_from_its_words(words: dict) -> None:
    for kind, values in words["kinds"].items():
        for value in values.keys() - lexicon().umbrellas:  # these are claimed only where they are denied
            phrases = [" ".join(w.split("|")[0].rstrip("*") for w in p.split()) for p in values[value]["say"]]
            read = [any(c.value == value and c.kind == kind for c in facts.claims(phrase)) for phrase in phrases]
            assert any(read), f"{kind} {value} is read from none of its words"
    assert facts.claims("No bone abnormality.").keys["absent"] == {"bone abnormality"}


def test_kept_apart() -> None:
    for a, b in [
        ("consolidation", "opacity"),
        ("opacity", "infiltrate"),
        ("mass", "nodule"),
        ("nodule", "lesion"),
        ("lesion", "cyst"),
    ]:
        assert facts.claims(a).keys["finding"].isdisjoint(facts.claims(b).keys["finding"])


@pytest.mark.parametrize(
    ("british", "american"),
    [
        ("haemorrhage", "hemorrhage"),
        ("tumour", "tumor"),
        ("oedema", "edema"),
        ("ischaemia", "ischemia"),
        ("oesophageal stenosis", "esophageal stenosis"),
        ("haematoma in the caecum", "hematoma in the cecum"),
        ("leukaemia", "leukemia"),
    ],
)
def test_spelling_does_not_matter(british: str, american: str) -> None:
    keys = facts.claims(british).keys
    assert keys == facts.claims(american).keys
    assert keys["finding"]


@pytest.mark.parametrize(
    ("many", "one"),
    [
        ("pleural effusions", "pleural effusion"),
        ("masses", "mass"),
        ("metastases", "metastasis"),
        ("calculi", "calculus"),
        ("biopsy needles", "biopsy needle"),
        ("Ground-Glass Opacities", "ground glass opacity"),
        ("PLEURAL EFFUSION", "pleural effusion"),
    ],
)
def test_number_case_and_hyphens_do_not_matter(many: str, one: str) -> None:
    assert facts.claims(many).keys == facts.claims(one).keys != facts.claims("").keys


def test_words_count_whole_and_the_longest_phrase_wins() -> None:
    assert len(facts.claims("Massive, an act of contraction.")) == 0
    assert [c.value for c in facts.claims("bronchogenic cyst") if c.kind == "finding"] == ["cyst"]
    assert [c.value for c in facts.claims("white matter lesion") if c.kind == "finding"] == ["white matter lesion"]
    assert facts.claims("transverse process fracture").keys["plane"] == frozenset()


def test_a_sentence_does_not_end_in_a_number_or_an_abbreviation() -> None:
    ends = [
        len(list(lexicon().sentences(text)))
        for text in ("A 3.5 cm mass.", "See Fig. 2 here.", "One. Two.", "One.Two", "a\nb")
    ]
    assert ends == [1, 1, 2, 2, 2]


def test_places_hold_where_lowering_makes_a_text_longer() -> None:
    text = "İİİ Pneumothorax."
    (claim,) = [c for c in facts.claims(text) if c.kind == "finding"]
    assert text[claim.start : claim.end] == "Pneumothorax"


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch, words: dict) -> None:
    # The package's function of the same name hides the module from a dotted path.
    monkeypatch.setattr(sys.modules[Lexicon.__module__], "_CACHE_LIMIT", 10)
    small = Lexicon(words)
    for n in range(50):
        small.match(next(small.sentences(f"word{n}")), 0)
    assert len(small._symbols) <= 10


def test_versions_differ_from_the_fact_tables() -> None:
    assert lexicon().version == "1.0"
    assert facts.LEXICON_VERSION == 1


def test_phrases_are_given_once(words: dict) -> None:
    for kind, values in words["kinds"].items():
        for value, entry in values.items():
            twice = [p for p, n in Counter(entry["say"]).items() if n > 1]
            assert not twice, f"{kind} {value}: {twice}"
