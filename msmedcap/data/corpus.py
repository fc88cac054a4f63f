"""Radiology text for the demo language model and tokenizer.

Comes in: the folders of MedPix, ROCO's text and MedICaT's sample (any may be missing). Goes out: paragraphs; and, from fact
sheets, documents that put keywords before the caption they lead to, so that a model of them learns to be led by what precedes.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from msmedcap.data.captions import plain_caption
from msmedcap.data.sets import split_of

_CASE_TEXTS = ("Findings", "Discussion", "History", "Exam", "Case Diagnosis")
_TOPIC_TEXTS = ("Disease Discussion", "Title")


def paragraphs(root: Path) -> Iterator[str]:
    """Every paragraph of radiology text under ``root``; of MedPix the training patients' alone."""
    for path in sorted((root / "roco_text").glob("data/*/*/captions.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield _clean(line.partition("\t")[2])
    cases = root / "medpix" / "train" / "cases.jsonl"
    for row in map(json.loads, cases.read_text(encoding="utf-8").splitlines() if cases.is_file() else ()):
        if split_of(row["U_id"], {"val": 0.1, "train": 0.9}) == "train":
            texts = [row["Case"].get(k) for k in _CASE_TEXTS] + [row["Topic"].get(k) for k in _TOPIC_TEXTS]
            for text in filter(None, texts):
                yield from (_clean(p) for p in re.split(r"[\r\n]+", text))
    sample = root / "medicat_sample" / "sample.jsonl"
    for row in map(json.loads, sample.read_text(encoding="utf-8").splitlines() if sample.is_file() else ()):
        yield _clean(row.get("s2_caption") or "")


def led_captions(facts: Iterable[Mapping[str, str]], prompt: str, *, seed: int) -> Iterator[str]:
    """For each fact sheet ``"<facts in any order></s><prompt> <caption>"``; without the facts in one of ten.

    ``</s>`` stands where it stands in Eq. 5's prefix, between what was read off the picture and the prompt: a model that has only
    seen it begin a text would take it for the end of whatever came before.
    """
    order = random.Random(seed)
    for sheet in facts:
        words = [v for v in sheet.values() if v]
        order.shuffle(words)
        lead = ", ".join(words[: 0 if order.random() < 0.1 else len(words)])
        yield f"{lead}</s>{prompt} {plain_caption(sheet)}" if lead else f"{prompt} {plain_caption(sheet)}"


def _clean(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
