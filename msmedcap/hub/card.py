"""The model card of a folder that has none: what is in it, how to run it, what it is for. Comes in: a folder. Goes out: Markdown.

Every number is read from ``config.json`` and the safetensors headers; nothing is claimed that the folder does not show.
"""

from __future__ import annotations

import json
import math
from pathlib import Path, PurePosixPath

from safetensors import safe_open

from msmedcap.config import ModelsConfig
from msmedcap.hub.folder import CONFIG, SEGMENTER, model_files

FRONT = """\
---
license: other
license_name: research-only
library_name: msmedcap
pipeline_tag: image-to-text
language: en
tags: [medical-imaging, image-captioning, blip-2, segment-anything, research-demonstration]
---
"""

PURPOSE = """\
**Research demonstration, not for clinical use.** Writes captions of a medical scan (CT, MR, X-ray, ultrasound) with the systems
of the MSMedCap paper side by side, and draws where each looked. Captions can be wrong in every part; no decision about a person
may rest on them, and nothing here is a medical device.
"""

LICENCES = """\
The code is Apache-2.0. Weights keep the terms of what they were made from:

| weights made from | terms |
|---|---|
| BLIP-2 (LAVIS, or `Salesforce/blip2-*` on the hub) | BSD-3-Clause in LAVIS, MIT as tagged on the hub |
| OPT (`facebook/opt-*`, also inside `Salesforce/blip2-opt-*`) | OPT-175B licence: research, not commercial |
| SAM (`segment_anything`, or `facebook/sam-vit-*` on the hub) | Apache-2.0 |
| other checkpoints and pictures | their owners'; ask before passing them on |
"""


def card(folder: Path, config: ModelsConfig, repo: str) -> str:
    """The card of ``folder``, to stand at ``repo`` (``USER/NAME``), with the front matter the hub reads."""
    title = repo.rpartition("/")[2]
    run = (
        f"```sh\npython -m msmedcap pull {repo} --out models/{title}\n"
        f"python -m msmedcap caption SCAN.dcm --models models/{title}\npython app.py --models models/{title}\n```\n"
    )
    parts = [
        FRONT + f"\n# {title}\n\n{PURPOSE}",
        "## Run it\n\n" + run,
        "## What is in it\n\n" + _parts(folder, config),
        "## Systems\n\n" + _systems(folder, config),
        *([f"## What it segments\n\n{classes}"] if (classes := _classes(folder, title)) else []),
        *([f"## Trained on\n\n{pictures}"] if (pictures := _pictures(folder)) else []),
        "## Terms\n\n" + LICENCES,
        "`manifest.json` holds the SHA-256 of every file; `pull` checks them. Weights are safetensors; there is no pickle.\n",
    ]
    return "\n".join(parts)


def _parts(folder: Path, config: ModelsConfig) -> str:
    """A row for each folder of weights: what it is, how many, how large."""
    clip, sam = config.clip, config.sam
    told = {
        "clip": f"CLIP-style vision transformer, {clip.layers} layers of width {clip.hidden}, {clip.image_size} px; frozen",
        "sam": f"SAM image encoder, {sam.layers} layers of width {sam.hidden}, {sam.image_size} px; frozen",
        "sam_prompts": "SAM prompt encoder and mask decoder; frozen",
        config.opt: f"language model OPT{_opt_size(folder / config.opt)} and its tokenizer; frozen",
        SEGMENTER: "SEG-SAM: SAM's prompt encoder and mask decoder trained on, semantic-aware decoder, text module",
    }
    counts: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for name, path in model_files(folder).items():
        if path.suffix == ".safetensors":
            part = PurePosixPath(name).parent.as_posix()
            counts[part] = counts.get(part, 0) + _weights(path)
            sizes[part] = sizes.get(part, 0) + path.stat().st_size
    lines = ["| part | what it is | million weights | MB |", "|---|---|---:|---:|"]
    order = [p for p in told if p in counts] + sorted(set(counts) - set(told))
    for part in order:
        what = told.get(part, "what was trained: queries, Q-Former, norm and projection of each branch")
        lines.append(f"| `{part}/` | {what} | {counts[part] / 1e6:,.2f} | {sizes[part] / 1e6:,.1f} |")
    if config.opt not in counts:
        lines.append(f"| – | language model `{config.opt}`, loaded from the hub | – | – |")
    return "\n".join(lines) + f"\n\n{sum(sizes.values()) / 1e6:,.1f} MB of weights in all.\n"


def _systems(folder: Path, config: ModelsConfig) -> str:
    lines = ["| system | looks through | weights |", "|---|---|---|"]
    for name, branches in config.systems.items():
        seen = " and ".join(
            f"{config.branches[b].encoder.upper()} ({config.branches[b].qformer.queries} queries)" for b in branches
        )
        here = "here" if (folder / "systems" / name / CONFIG).is_file() else "not in this folder"
        lines.append(f"| {name} | {seen} | {here} |")
    presets = "; ".join(f"`{n}`: {_search(d.beams)}, prompt “{d.prompt}”" for n, d in config.presets.items())
    return "\n".join(lines) + f"\n\nDecoding presets: {presets}.\n"


def _classes(folder: Path, title: str) -> str:
    """What the segmenter can name and how to ask it, where there is one."""
    try:
        names = json.loads((folder / SEGMENTER / CONFIG).read_text(encoding="utf-8"))["classes"]
        told = f"{len(names)} classes: {', '.join(map(str, names))}."
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    run = f"python -m msmedcap segment SCAN.dcm --point X,Y --out masks --models models/{title}"
    what = "A click or a box gives a mask, a name and what else is in the picture; names can be wrong."
    return f"{what} {told}\n\n```sh\n{run}\n```\n"


def _search(beams: int) -> str:
    return "greedy" if beams == 1 else f"{beams} beams"


def _pictures(folder: Path) -> str:
    """The picture counts of ``training.json``, where our own training wrote one."""
    try:
        pictures = json.loads((folder / "training.json").read_text(encoding="utf-8"))["pictures"]
        rows = "\n".join(f"| {name} | {int(count):,} |" for name, count in pictures.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f"| set | pictures |\n|---|---:|\n{rows}\n"


def _opt_size(folder: Path) -> str:
    try:
        sizes = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return f", {int(sizes['num_hidden_layers'])} layers of width {int(sizes['hidden_size'])}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _weights(path: Path) -> int:
    with safe_open(path, framework="numpy") as file:
        return sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118 - not a dict
