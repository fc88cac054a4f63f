"""What the page says of segmented structures: the prompt, a legend, what else is present.

Comes in: :class:`~msmedcap.demo.structures.segments.Segments`. Goes out: escaped HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from msmedcap.demo.structures.segments import Row, Segments, area_words

_EMPTY = '<p class="mm-small">Nothing is marked yet.</p>'


def segments_card(segments: Segments) -> str:
    """Everything to be read of ``segments``; its buttons carry what they remove in their data."""
    rows = segments.rows()
    parts = [_prompt(segments), _legend(rows), _note(segments.note), _present(segments.present()) if rows else ""]
    return f'<div class="mm-segments" tabindex="-1">{"".join(parts) or _EMPTY}</div>'


def _prompt(segments: Segments) -> str:
    """The prompt's parts, each a button that takes it away."""
    chips = []
    for index, (x, y, label) in enumerate(segments.points):
        place, where, sign = _numbers(x, y), *(("on the structure", "+") if label else ("beside it", "−"))
        chips.append(
            f'<button type="button" data-key="point{index}" data-point="{index}"'
            f' aria-label="Remove the point {place}, {where}"><b aria-hidden="true">{sign}</b> {place}{_CROSS}</button>'
        )
    if segments.box is not None:
        corners = f"{_numbers(*segments.box[:2])} to {_numbers(*segments.box[2:])}"
        chips.append(
            f'<button type="button" data-key="box" data-box aria-label="Remove the box {corners}">'
            f'<b aria-hidden="true">▭</b> {corners}{_CROSS}</button>'
        )
    return f'<div class="mm-chips" role="group" aria-label="The prompt">{"".join(chips)}</div>' if chips else ""


def _legend(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    head = "<tr><th>Structure</th><th>Confidence</th><th>IoU, estimated</th><th>Area</th><td></td></tr>"
    return (
        f'<table class="mm-legend" aria-label="Structures"><thead>{head}</thead><tbody>{"".join(map(_row, rows))}</tbody></table>'
    )


def _row(row: Row) -> str:
    name = f"{row.number} {escape(row.name)}"
    asked = '<span class="mm-now">asked now</span>' if row.asked else ""
    sure = "–" if row.score is None else f"{row.score:.0%}"
    area = "<br>".join(area_words(row.area_px, row.area_mm2))
    return (
        f'<tr{" aria-current=true" if row.asked else ""}><th scope="row">{_swatch(row)}<span>{name}{asked}</span></th>'
        f"<td>{sure}</td><td>{row.iou:.2f}</td><td>{area}</td>"
        f'<td><button type="button" data-key="drop{row.key}" data-drop="{row.key}" aria-label="Remove {name}">{_CROSS}</button>'
        "</td></tr>"
    )


def _swatch(row: Row) -> str:
    """The structure's lines as they are drawn, on black as on the scan."""
    dashed = f'<path d="M2 11h26" stroke="{row.colour}" stroke-dasharray="5 3"/>' if row.semantic else ""
    return (
        '<svg class="mm-swatch" viewBox="0 0 30 16" aria-hidden="true"><rect width="30" height="16" rx="3"/>'
        f'<path d="M2 {5 if dashed else 8}h26" stroke="{row.colour}"/>{dashed}</svg>'
    )


def _note(text: str) -> str:
    return f'<p class="mm-small">{escape(text)}</p>' if text else ""


def _present(present: Sequence[tuple[str, float]] | None) -> str:
    title = '<h3 class="mm-label">Also present, says the model</h3>'
    if not present:
        said = "The model names no other class." if present is not None else "What else there is was not measured on such scans."
        return f'{title}<p class="mm-small">{said}</p>'
    items = "".join(
        f'<li><span>{escape(name)}</span><i aria-hidden="true"><b style="width:{100 * score:.0f}%"></b></i>'
        f"<span>{score:.0%}</span></li>"
        for name, score in present
    )
    return f'{title}<ul class="mm-present">{items}</ul>'


def _numbers(*values: float) -> str:
    return ", ".join(f"{round(value, 1):g}" for value in values)


_CROSS = '<span class="mm-cross-out" aria-hidden="true">×</span>'
