"""MedICaT: figures of open-access papers with captions; its published sample and its full release.

Comes in: a folder (or its ``release/``) with ``figures/{pdf_hash}_{fig_uri}`` and a ``.jsonl`` of figures, ``sample.jsonl`` or
``s2_full_figures_oa_nonroco_combined_medical_top4_public.jsonl``; ``subcaptions_public.jsonl`` where it is there. Goes out:
``train``, ``val`` and ``test`` by paper, for there is no official split, and the annotated parts of compound figures beside them
(``train-subfigures`` …). ``facts["radiology"]`` says "yes" or "no" where the set does.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msmedcap.config import UserError
from msmedcap.data.sets.case import Case, split_of

log = logging.getLogger(__name__)

# Enough papers for the paper's 100,000 and 50,000 of 217,060 figures, and some to watch the training with.
SHARES = {"test": 0.25, "val": 0.05, "train": 0.7}
_SUBFIGURES = "subcaptions_public.jsonl"
_RADIOLOGY, _OTHER, _UNTOLD = {"radiology": "yes"}, {"radiology": "no"}, dict[str, str]()


def read_medicat(path: Path) -> dict[str, list[Case]]:
    """MedICaT's figures and captions; ``path`` is its folder or the ``.jsonl``. Raises :class:`UserError` where there is none."""
    words, root = _find(path)
    splits: dict[str, list[Case]] = {"train": [], "val": [], "test": []}
    bare = 0
    for row in _rows(words):
        if case := _case(row, root):
            splits[split_of(case.group, SHARES)].append(case)
        else:
            bare += 1
    if bare:
        log.warning("%d lines of %s name no figure with a caption and are left out", bare, words)
    if (root / _SUBFIGURES).is_file():
        for row in _rows(root / _SUBFIGURES):
            for case in _parts(row, root):
                splits.setdefault(f"{split_of(case.group, SHARES)}-subfigures", []).append(case)
    return splits


def _find(path: Path) -> tuple[Path, Path]:
    """The list of figures and the folder that holds it."""
    if path.is_file():
        return path, path.parent
    for root in (path, path / "release"):
        lists = [file for file in sorted(root.glob("*.jsonl")) if file.name != _SUBFIGURES]
        if len(lists) > 1:
            raise UserError(f"{root} holds several lists of figures; name one of {', '.join(f.name for f in lists)}.")
        if lists:
            return lists[0], root
    raise UserError(f"{path} holds no .jsonl of figures; is this the folder of MedICaT?")


def _case(row: Mapping[str, Any], root: Path) -> Case | None:
    caption = " ".join((row.get("s2_caption") or row.get("s2orc_caption") or "").split())
    paper, figure = row.get("pdf_hash"), row.get("fig_uri")
    if not (caption and paper and figure):
        return None
    id = Path(f"{paper}_{figure}").name
    flag = row.get("radiology")
    facts = _RADIOLOGY if flag is True else _OTHER if flag is False else _UNTOLD
    return Case(id, root / "figures" / id, facts, caption, paper, "medicat")


def _parts(row: Mapping[str, Any], root: Path) -> Iterator[Case]:
    """The parts of a compound figure that carry a caption of their own: polygons and token numbers under one label."""
    size = (row.get("width") or 0, row.get("height") or 0)
    paper, figure, said = row.get("pdf_hash"), row.get("fig_uri"), row.get("subcaptions") or {}
    if row.get("answer") != "accept" or not (paper and figure and all(size)):
        return
    id = Path(f"{paper}_{figure}").name
    for span in row.get("spans") or ():
        label = span.get("label")
        caption = _words(row, said.get(label) or ())
        if caption and span.get("points"):
            across, down = zip(*((x / size[0], y / size[1]) for x, y in span["points"]), strict=True)
            box = (min(across), min(down), max(across), max(down))
            yield Case(f"{id}#{label}", root / "figures" / id, {}, caption, paper, "medicat", box=box)


def _words(row: Mapping[str, Any], numbers: Sequence[int]) -> str:
    """The tokens ``numbers`` as they stand in the caption, so that punctuation keeps its place."""
    tokens, text = row.get("tokens") or [], row.get("text") or ""
    out, last = "", -2
    for number in sorted(n for n in numbers if 0 <= n < len(tokens)):
        token = tokens[number]
        if "start" in token and text:
            gap = text[tokens[last]["end"] : token["start"]] if number == last + 1 else " "
            out += gap + text[token["start"] : token["end"]]
        else:
            out += " " + token["text"]
        last = number
    return " ".join(out.split())


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                if not isinstance(row, dict):
                    raise UserError(f"Line {number} of {file} is not a figure of MedICaT; fetch the file again.")
                yield row
