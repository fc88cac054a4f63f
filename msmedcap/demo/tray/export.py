"""A tray to take home: CSV, JSON, and a ZIP of both with a PNG panel of each view and a manifest.

Comes in: a visitor's tray and what the captions were :class:`MadeWith`. Goes out: bytes. Scans are numbers, and all that is said of
one are the allow-listed facts: no name of a file, no tag of a patient. The manifest gives a digest of every file, the package's
version, the digest of the weights, and each decoding in full, so that who reads the captions can make them again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msmedcap
from msmedcap import checkpoints, config
from msmedcap.config import UserError
from msmedcap.demo.tray.cards import view_words
from msmedcap.demo.tray.panels_png import panel
from msmedcap.demo.tray.tray import Entry, Tray, Written, facts_of

NOTE = "Research demonstration, not for clinical use. Captions are written by models and may be wrong."
NOTHING = "There is nothing to export yet; caption a scan first."
_STAMP = (1980, 1, 1, 0, 0, 0)  # in the archive's index; the manifest says when


@dataclass(frozen=True)
class MadeWith:
    """What wrote the captions: the models by name and the digest of their weights, the systems, and each decoding's numbers."""

    models: str
    weights: str | None
    systems: tuple[str, ...]
    decodings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """As it stands in an export."""
        return {"msmedcap": msmedcap.__version__, **asdict(self)}


def made_with(models: str, systems: Sequence[str]) -> MadeWith:
    """What is known of the loaded ``models`` (as given to :func:`msmedcap.load`); reads all weights once, for their digest."""
    from msmedcap.evaluation.run import weights_digest

    name = Path(models).name  # where on the server they lie is nobody's business
    try:
        folder = checkpoints.folder_of(models)
    except UserError:
        return MadeWith(name, None, tuple(systems))
    presets = config.read(config.ModelsConfig, folder / "config.json").presets
    decodings = {key: asdict(preset) for key, preset in presets.items()}
    return MadeWith(name, weights_digest(folder), tuple(systems), decodings)


def as_json(tray: Tray, made: MadeWith) -> bytes:
    """Every scan with its captions; raises :class:`UserError` where there are none."""
    record = {"note": NOTE, "made_with": made.record(), "scans": [_scan(entry) for entry in _captioned(tray)]}
    return _json(record)


def as_csv(tray: Tray, made: MadeWith) -> bytes:
    """A row for each scan and view; raises :class:`UserError` where there is none."""
    rows = [_row(entry, item, made) for entry in _captioned(tray) for item in entry.written]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode("utf-8-sig")  # spreadsheets take it for another code page without the mark


def as_zip(tray: Tray, made: MadeWith) -> bytes:
    """CSV, JSON, panels and a manifest with a SHA-256 of each; raises :class:`UserError` where there are no captions."""
    files = {"captions.csv": as_csv(tray, made), "captions.json": as_json(tray, made)}
    scans = []
    for entry in _captioned(tray):
        pictures = []
        for number, item in enumerate(entry.written, start=1):
            name = f"panels/{entry.id}-{number}.png"
            pictures.append(name)
            files[name] = _panel(entry, item, made)
        scans.append({**_scan(entry), "panels": pictures})
    manifest = {
        "note": NOTE,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "made_with": made.record(),
        "files": {n: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for n, data in files.items()},
        "scans": scans,
    }
    return _zip({"manifest.json": _json(manifest), **files})


def _captioned(tray: Tray) -> list[Entry]:
    entries = [entry for entry in tray.entries if entry.scan is not None and entry.written]
    if not entries:
        raise UserError(NOTHING)
    return entries


def _scan(entry: Entry) -> dict[str, Any]:
    assert entry.scan is not None
    return {"scan": entry.id, **facts_of(entry.scan), "views": [_view(item) for item in entry.written]}


def _view(item: Written) -> dict[str, Any]:
    numbers = {"width": item.numbers.width, "level": item.numbers.level} if item.numbers else {}
    return {
        "window": {"name": item.window, **numbers} if item.window else None,
        "frame": item.frame,
        "decoding": item.preset,
        "prompt": item.prompt,
        "captions": dict(item.reading.texts),
        "failed": dict(item.reading.failed),
        "seconds": dict(item.reading.seconds),
        "warnings": list(item.warnings),
    }


def _row(entry: Entry, item: Written, made: MadeWith) -> dict[str, Any]:
    assert entry.scan is not None
    facts, numbers = entry.scan.facts, item.numbers
    return {
        "scan": entry.id,
        "modality": facts.get("Modality", ""),
        "body_part": facts.get("BodyPartExamined", ""),
        "frame": item.frame,
        "frames": entry.scan.frames,
        "window": item.window,
        "window_width": numbers.width if numbers else "",
        "window_level": numbers.level if numbers else "",
        "decoding": item.preset,
        "prompt": item.prompt or "",
        **{system: item.reading.texts.get(system, "") for system in made.systems},
        "failed": " ".join(dict.fromkeys(item.reading.failed.values())),
        "warnings": " ".join(item.warnings),
        "models": made.models,
        "weights": made.weights or "",
        "msmedcap": msmedcap.__version__,
    }


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula is marked as text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _panel(entry: Entry, item: Written, made: MadeWith) -> bytes:
    assert entry.scan is not None
    scan = entry.scan
    picture = scan.picture(item.window or None, item.frame)
    row, column = scan.spacing or (1.0, 1.0)
    captions = {s: item.reading.texts.get(s) or item.reading.failed.get(s, "no caption") for s in made.systems}
    return panel(
        picture,
        item.map,
        captions,
        heading=f"{entry.id}: {view_words(item, scan.frames)}",
        ratio=picture.shape[1] * column / (picture.shape[0] * row),
        note=NOTE,
    )


def _json(record: Any) -> bytes:
    return json.dumps(record, indent=1, ensure_ascii=False).encode()


def _zip(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in _entries(files):
            archive.writestr(name, data, zipfile.ZIP_STORED if name.filename.endswith(".png") else None)
    return buffer.getvalue()


def _entries(files: Mapping[str, bytes]) -> Iterable[tuple[zipfile.ZipInfo, bytes]]:
    for name, data in files.items():
        info = zipfile.ZipInfo(name, _STAMP)
        info.compress_type = zipfile.ZIP_DEFLATED
        yield info, data
