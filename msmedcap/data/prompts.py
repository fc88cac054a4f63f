"""A prompt as a reader gives it: points and a box on the picture, told as text or numbers, and checked.

Comes in: ``X,Y`` or ``X,Y,0|1`` and ``X0,Y0,X1,Y1``, or tuples of numbers. Goes out: a :class:`Prompt` that lies in the picture.
Coordinates are continuous pixels of the picture: pixel ``i`` covers ``[i, i + 1)``. Everything wrong raises
:class:`~msmedcap.config.UserError` with one sentence. No numpy: the command line reads its flags with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msmedcap.config import UserError

Point = tuple[float, float, int]
Box = tuple[float, float, float, float]
MOST_POINTS = 100
"""More are no prompt but a mistake, and each one costs the decoders time."""


@dataclass(frozen=True)
class Prompt:
    """``points`` (x, y, 1 on the structure or 0 beside it) and a ``box`` (x0, y0, x1, y1), or None; at least one of them."""

    points: tuple[Point, ...] = ()
    box: Box | None = None


def parse_click(text: str) -> Point:
    """``"X,Y"`` or ``"X,Y,0|1"`` as a point and its label (1 where none is given)."""
    parts = text.split(",")
    try:
        x, y = float(parts[0]), float(parts[1])
        label = {"0": 0, "1": 1}[parts[2].strip()] if len(parts) > 2 else 1
    except (ValueError, IndexError, KeyError):
        parts = []
    if len(parts) not in (2, 3):
        raise UserError(
            f"{text!r} is not a point; write X,Y in the picture's pixels, such as 120,80, or 120,80,0 for a place beside it."
        )
    return x, y, label


def parse_clicks(text: str) -> tuple[Point, ...]:
    """Points as :func:`parse_click` reads each, parted by ``;``; an empty text holds none."""
    return tuple(parse_click(part.strip()) for part in text.split(";") if part.strip())


def parse_box(text: str) -> Box:
    """``"X0,Y0,X1,Y1"`` as a box."""
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"{text!r} is not a box; write X0,Y0,X1,Y1 in the picture's pixels, such as 40,60,200,180."
        ) from None
    return x0, y0, x1, y1


def prompt_on(
    height: int, width: int, points: Sequence[Sequence[float]] = (), box: Sequence[float] | None = None
) -> Prompt:
    """A prompt on a picture of ``height`` x ``width`` pixels; ``points`` are (x, y) or (x, y, label), ``box`` two opposite corners.

    Raises :class:`UserError` where there is neither a point on the structure nor a box, a point or corner lies outside the
    picture, a label is neither 0 nor 1, or the box has no area.
    """
    if len(points) > MOST_POINTS:
        raise UserError(f"There are {len(points)} points; use at most {MOST_POINTS}.")
    found = tuple(_point(point, height, width) for point in points)
    if box is None and not any(label for _, _, label in found):
        beside = "All points are marked as beside the structure" if found else "There is neither a point nor a box"
        raise UserError(f"{beside}; give at least one point on the structure, or a box around it.")
    return Prompt(found, None if box is None else _box(box, height, width))


def _point(point: Sequence[float], height: int, width: int) -> Point:
    if len(point) not in (2, 3) or (len(point) == 3 and point[2] not in (0, 1)):
        raise UserError(f"The point {_text(point)} is not X,Y or X,Y,L with L 1 (on the structure) or 0 (beside it).")
    x, y = float(point[0]), float(point[1])
    if not (0 <= x <= width and 0 <= y <= height):
        raise UserError(f"The point {x:g},{y:g} lies outside the scan, which is {width} x {height} pixels.")
    return x, y, int(point[2]) if len(point) == 3 else 1


def _box(box: Sequence[float], height: int, width: int) -> Box:
    if len(box) != 4:
        raise UserError(f"The box {_text(box)} is not X0,Y0,X1,Y1.")
    (x0, x1), (y0, y1) = sorted((float(box[0]), float(box[2]))), sorted((float(box[1]), float(box[3])))
    if not (x0 >= 0 and x1 <= width and y0 >= 0 and y1 <= height):
        raise UserError(f"The box {_text(box)} reaches outside the scan, which is {width} x {height} pixels.")
    if not (x1 > x0 and y1 > y0):
        raise UserError(f"The box {_text(box)} has no area; give two opposite corners, X0,Y0,X1,Y1.")
    return x0, y0, x1, y1


def _text(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
