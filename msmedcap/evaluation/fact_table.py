"""Score the three systems on a split: caption every picture, keep the captions, count the facts that are right.

Comes in: a predictor and the cases of a data set. Goes out: one JSONL of captions per data set and split, written as
they come, so that an interrupted run goes on where it stopped; the scores of every system; a Markdown table. What
counts as right is :mod:`msmedcap.evaluation.facts`.

    python -m msmedcap evaluate --data medpix=PATH --split dev --out runs/scores
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from msmedcap.batch import BatchItem
from msmedcap.config import UserError
from msmedcap.data.scans import ScanError
from msmedcap.data.sets import Blob
from msmedcap.evaluation.facts import (
    LEXICON_VERSION,
    PLANES,
    Rate,
    accuracy,
    balanced_accuracy,
    canonical,
    distinct_share,
    family,
    is_empty_or_repeats,
    recalls,
    stated,
    wilson,
)

COLUMNS = (
    "data",
    "split",
    "system",
    "n",
    "modality",
    "plane (balanced)",
    "part",
    "label",
    "label (balanced)",
    "distinct",
    "faulty",
)


class Captioner(Protocol):
    """What is asked of a predictor here: pictures in, the captions of every system out."""

    def caption_many(self, sources: Iterable[Path | bytes]) -> Iterator[BatchItem]:
        """An item for each picture, in their order; one that cannot be read has an error."""


class CaseLike(Protocol):
    """What is read of a data set's case; ``facts`` may hold modality, plane, part and label."""

    @property
    def id(self) -> str:
        """The case's name, unique in its data set."""

    @property
    def image(self) -> Path | Blob:
        """The picture's file, or its place in one."""

    @property
    def facts(self) -> Mapping[str, str]:
        """What is true of the picture; an absent fact is unknown."""

    @property
    def group(self) -> str:
        """The patient or near-duplicate group."""


def caption_cases(
    predictor: Captioner, cases: Sequence[CaseLike], *, file: Path, made_with: Mapping[str, Any]
) -> Iterator[dict]:
    """Yield a row ``{id, group, facts, captions, error}`` per case, from ``file`` or captioned now and added to it.

    ``made_with`` says what the captions depend on (models, weights); it is the file's first line. A picture that cannot
    be read keeps empty captions and the reason, and counts as wrong. Raises UserError where ``file`` was made with
    something else.
    """
    done = _read_rows(file, made_with)
    todo = {case.id: case for case in cases if case.id not in done}
    items = predictor.caption_many(_source(case) for case in todo.values())
    with file.open("a", encoding="utf-8") as out:
        for case in cases:
            if case.id not in done:
                item = next(items)
                if item.error is not None and not isinstance(item.error, (ValueError, OSError)):
                    raise item.error
                error = None if item.error is None else str(item.error)
                row = {"id": case.id, "group": case.group, "facts": dict(case.facts), "captions": item.captions, "error": error}
                out.write(json.dumps(row) + "\n")
                out.flush()
                done[case.id] = row
            yield done[case.id]


def _source(case: CaseLike) -> Path | bytes:
    """What is captioned; nothing, which is no picture, where the bytes cannot be had."""
    if isinstance(case.image, Path):
        return case.image
    try:
        return case.image.read()
    except ScanError:
        return b""


def score_rows(rows: Sequence[Mapping[str, Any]], system: str) -> dict[str, Any]:
    """The scores of ``system`` on ``rows`` of :func:`caption_cases`.

    ``modality``, ``plane``, ``part``, ``label``: ``{value, low, high, n}`` (accuracy with its Wilson interval over the
    ``n`` rows that know the fact), ``balanced`` and ``recalls`` per value; ``plane`` counts axial, coronal and sagittal
    pictures only. ``distinct``: the share of different captions. ``faulty``: the share empty or repeating a sentence.
    """
    texts = [row["captions"].get(system, "") for row in rows]
    scores: dict[str, Any] = {"n": len(rows), "groups": len({row["group"] for row in rows})}
    for fact in ("modality", "plane", "part", "label"):
        truth, said = _truth_and_said(rows, texts, fact)
        scores[fact] = {
            **asdict(accuracy(truth, said)),
            "balanced": balanced_accuracy(truth, said),
            "recalls": {value: asdict(rate) for value, rate in recalls(truth, said).items()},
        }
    scores["distinct"] = distinct_share(texts)
    scores["faulty"] = asdict(wilson(sum(map(is_empty_or_repeats, texts)), len(texts)))
    scores["unreadable"] = sum(row["error"] is not None for row in rows)
    return scores


def table(records: Sequence[Mapping[str, Any]], heading: str) -> str:
    """A Markdown table of records ``{data, split, system, **score_rows}``, with what the reader must know under it."""
    lines = [
        f"# {heading}",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    for r in records:
        cells = [
            r["data"],
            r["split"],
            r["system"],
            str(r["n"]),
            _rate(r["modality"]),
            _share(r["plane"]["balanced"]),
            _rate(r["part"]),
            _rate(r["label"]),
            _share(r["label"]["balanced"]),
            _share(r["distinct"]),
            _rate(r["faulty"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    unread = {(r["data"], r["split"]): r["unreadable"] for r in records if r["unreadable"]}
    lines += ["", *(f"Not read, and counted as wrong: {n} of {data} {split}." for (data, split), n in unread.items())]
    lines += [
        "A fact is right where the caption's first word for it is the data set's; a caption that does not say is",
        "wrong. In brackets the 95 % Wilson interval; it takes pictures for independent, so several of one patient",
        "make it too narrow. Balanced: the mean of the recalls. Distinct: the share of different captions. Faulty:",
        "empty, or with a sentence said twice.",
        f"Words counted: `msmedcap.evaluation.facts.LEXICON`, version {LEXICON_VERSION}.",
    ]
    return "\n".join(lines) + "\n"


def weights_digest(folder: Path) -> str:
    """A short digest of the configs and weights below ``folder``, so that captions of other weights are told apart."""
    digest = hashlib.sha256()
    files = (p for p in folder.rglob("*") if p.suffix in (".json", ".safetensors"))
    for file in sorted(p for p in files if p.name != "manifest.json"):  # which push and pull add
        digest.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as data:
            digest.update(hashlib.file_digest(data, "sha256").digest())
    return digest.hexdigest()[:16]


def finite(value: Any) -> Any:
    """``value`` with every NaN inside it as None, which JSON can say."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, (list, tuple)) else value


def _truth_and_said(
    rows: Sequence[Mapping[str, Any]], texts: Sequence[str], fact: str
) -> tuple[list[str], list[str | None]]:
    truth: list[str] = []
    said: list[str | None] = []
    for row, text in zip(rows, texts, strict=True):
        value = canonical(fact, row["facts"].get(fact, ""))
        if value is None or (fact == "plane" and value not in PLANES):
            continue
        truth.append(value)
        said.append(stated(fact, text, among=family(value) if fact == "label" else None))
    return truth, said


def _read_rows(file: Path, made_with: Mapping[str, Any]) -> dict[str, dict]:
    """The rows of ``file`` by id; starts it with its first line, and cuts off a last line that was interrupted."""
    header = json.dumps({"made_with": dict(made_with)})
    if not file.exists() or not file.read_bytes():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(header + "\n", encoding="utf-8")
        return {}
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole, encoding="utf-8")
    first, *rest = whole.splitlines() or [""]
    if first != header:
        raise UserError(f"{file} holds captions of other weights or settings; delete it or choose another --out.")
    return {row["id"]: row for row in map(json.loads, rest)}


def _share(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.2f}".lstrip("0") if value < 1 else "1.00"


def _rate(rate: Mapping[str, Any]) -> str:
    value = Rate(rate["value"], rate["low"], rate["high"], rate["n"])
    return "–" if value.n == 0 else f"{_share(value.value)} [{_share(value.low)}, {_share(value.high)}]"
