"""Drawing tools of the made scans: soft-edged shapes in a subject's own frame, smooth noise, places for lesions.

Comes in: a random generator and a size. Goes out: a float32 picture that shapes were painted on and the exact boolean mask
of each shape. Subject frame: x to the picture's right and y down, both about -1..1; one random rotation, stretch, shift and
smooth bend carries it to the picture, so that no two subjects are alike and every mask follows its organ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.floating]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Shape:
    """A shape as its signed distance (subject units, negative inside) in one window of the picture."""

    rows: slice
    cols: slice
    distance: Field

    def grown(self, by: float) -> Shape:
        """The shape with its edge moved outwards by ``by`` (inwards where negative), within the same window."""
        return Shape(self.rows, self.cols, self.distance - np.float32(by))


@lru_cache(maxsize=64)
def _spline_basis(size: int, knots: int) -> Field:
    """The cubic B-spline matrix [size, knots + 3] that spreads ``knots + 3`` coefficients over ``size`` pixels."""
    place = (np.arange(size) + 0.5) / size * knots
    distance = np.abs(place[:, None] + 1 - np.arange(knots + 3)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], *, knots: tuple[int, int] | int) -> Field:
    """Smooth random noise [H,W] with mean about 0 and deviation about 1; ``knots`` bumps along (rows, columns)."""
    rows, cols = (knots, knots) if isinstance(knots, int) else knots
    grid = rng.standard_normal((rows + 3, cols + 3), dtype=np.float32) * np.float32(2.1)
    return _spline_basis(shape[0], rows) @ grid @ _spline_basis(shape[1], cols).T


def grain(rng: np.random.Generator, shape: tuple[int, int], *, sigma: float) -> Field:
    """Pixel noise [H,W] of deviation 1, correlated over ``sigma`` pixels (0: white)."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    if sigma > 0.2:
        noise = ndimage.gaussian_filter(noise, sigma, truncate=2.5)
        noise /= noise.std()
    return noise


class Canvas:
    """One picture being painted; ``values`` [size,size] float32, ``x`` and ``y`` the subject's coordinates of each pixel.

    ``turn`` (radians), ``stretch``, ``shift`` and ``bend`` (subject units) are the deviations of the random frame; ``zoom`` is
    the range of its scale. ``rng`` is the caller's and is advanced.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        size: int,
        *,
        fill: float = 0.0,
        turn: float = 0.05,
        zoom: tuple[float, float] = (0.9, 1.05),
        stretch: float = 0.04,
        shift: float = 0.03,
        bend: float = 0.012,
    ) -> None:
        self.rng, self.size = rng, size
        angle = float(rng.normal(0, turn))
        scale = float(rng.uniform(*zoom))
        sx, sy = (scale * float(np.exp(rng.normal(0, stretch))) for _ in range(2))
        self._dx, self._dy = (float(rng.normal(0, shift)) for _ in range(2))
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        self._forward = np.array([[cos * sx, -sin * sy], [sin * sx, cos * sy]])
        self.scale = scale
        self.pixel = 2 / size / scale
        ticks = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
        px, py = ticks[None, :] - np.float32(self._dx), ticks[:, None] - np.float32(self._dy)
        bend_x, bend_y = (np.clip(smooth_noise(rng, (size, size), knots=4), -2.5, 2.5) * np.float32(bend) for _ in range(2))
        self.x: Field = ((cos * px + sin * py) / np.float32(sx) + bend_x).astype(np.float32)
        self.y: Field = ((cos * py - sin * px) / np.float32(sy) + bend_y).astype(np.float32)
        self._margin = 2.6 * bend
        self.values: Field = np.full((size, size), fill, dtype=np.float32)

    def everything(self) -> Mask:
        """A mask of the whole picture."""
        return np.ones((self.size, self.size), dtype=bool)

    def _window(self, x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice]:
        pad = self._margin + 3 * self.pixel
        (a, b), (c, d) = self._forward.tolist()
        mid_x, mid_y, half_x, half_y = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2 + pad, (y1 - y0) / 2 + pad
        col, row = a * mid_x + b * mid_y + self._dx, c * mid_x + d * mid_y + self._dy
        wide, tall = abs(a) * half_x + abs(b) * half_y, abs(c) * half_x + abs(d) * half_y
        edges = [(place + 1) / 2 * self.size for place in (row - tall, row + tall, col - wide, col + wide)]
        r0, r1, c0, c1 = (min(max(int(edge) + more, 0), self.size) for edge, more in zip(edges, (0, 1, 0, 1), strict=True))
        return slice(r0, max(r1, r0)), slice(c0, max(c1, c0))

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, *, angle: float = 0.0, power: float = 2.0) -> Shape:
        """A (super)ellipse at (cx, cy) with half axes rx, ry, turned clockwise by ``angle``; ``power`` > 2 is squarer."""
        return self.blob(cx, cy, rx, ry, angle=angle, power=power, rough=0.0)

    def blob(
        self,
        cx: float,
        cy: float,
        rx: float,
        ry: float,
        *,
        angle: float = 0.0,
        power: float = 2.0,
        rough: float = 0.12,
        waves: tuple[int, int] = (2, 7),
    ) -> Shape:
        """An ellipse whose outline wavers by about ``rough`` of its radius, in ``waves`` lobes around."""
        reach = max(rx, ry) * (1 + 2.5 * rough)
        rows, cols = self._window(cx - reach, cy - reach, cx + reach, cy + reach)
        x, y = self.x[rows, cols] - np.float32(cx), self.y[rows, cols] - np.float32(cy)
        if angle:
            cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            x, y = cos * x + sin * y, cos * y - sin * x
        u, v = x / np.float32(rx), y / np.float32(ry)
        if power == 2.0:
            radius = np.sqrt(u * u + v * v)
        else:
            radius = (np.abs(u) ** np.float32(power) + np.abs(v) ** np.float32(power)) ** np.float32(1 / power)
        limit: Field | np.float32 = np.float32(1)
        if rough:
            theta = np.arctan2(v, u)
            limit = np.ones_like(theta)
            for k in range(*waves):
                limit += np.float32(self.rng.normal(0, rough / (1 + 0.35 * k))) * np.sin(
                    np.float32(k) * theta + np.float32(self.rng.uniform(0, 2 * np.pi))
                )
            limit = np.clip(limit, 0.4, 1 + 2.4 * rough)
        return Shape(rows, cols, ((radius - limit) * np.float32(min(rx, ry))).astype(np.float32))

    def stroke(self, points: Sequence[tuple[float, float]], width: float | Sequence[float]) -> Shape:
        """A bent line through ``points`` (x, y) with the given half width, or one half width at each point."""
        widths = [float(width)] * len(points) if isinstance(width, (int, float)) else [float(w) for w in width]
        reach, xs, ys = max(widths), [float(x) for x, _ in points], [float(y) for _, y in points]
        rows, cols = self._window(min(xs) - reach, min(ys) - reach, max(xs) + reach, max(ys) + reach)
        places = list(zip(xs, ys, strict=True))
        x, y = self.x[rows, cols], self.y[rows, cols]
        distance = np.full(x.shape, 9, dtype=np.float32)
        for (ax, ay), (bx, by), wa, wb in zip(places[:-1], places[1:], widths[:-1], widths[1:], strict=True):
            dx, dy = bx - ax, by - ay
            length = max(dx * dx + dy * dy, 1e-9)
            t = ((x - ax) * (dx / length) + (y - ay) * (dy / length)).clip(0, 1)
            gap = np.hypot(x - ax - t * dx, y - ay - t * dy) - (wa + t * (wb - wa))
            np.minimum(distance, gap, out=distance)
        return Shape(rows, cols, distance)

    def polygon(self, points: Sequence[tuple[float, float]], *, rounding: float = 0.0) -> Shape:
        """A polygon through ``points`` (x, y), any winding, its corners rounded by growing it ``rounding`` outwards."""
        xs, ys = [float(x) for x, _ in points], [float(y) for _, y in points]
        rows, cols = self._window(min(xs) - rounding, min(ys) - rounding, max(xs) + rounding, max(ys) + rounding)
        places = list(zip(xs, ys, strict=True))
        x, y = self.x[rows, cols], self.y[rows, cols]
        inside = np.zeros(x.shape, dtype=bool)
        nearest = np.full(x.shape, 9, dtype=np.float32)
        for (ax, ay), (bx, by) in zip(places, places[1:] + places[:1], strict=True):
            dx, dy = bx - ax, by - ay
            if dy != 0:
                inside ^= ((ay > y) != (by > y)) & (x < dx * (y - ay) / dy + ax)
            length = max(dx * dx + dy * dy, 1e-9)
            t = ((x - ax) * (dx / length) + (y - ay) * (dy / length)).clip(0, 1)
            np.minimum(nearest, (x - ax - t * dx) ** 2 + (y - ay - t * dy) ** 2, out=nearest)
        edge = np.sqrt(nearest)
        return Shape(rows, cols, np.where(inside, -edge, edge) - np.float32(rounding))

    def mask(self, shape: Shape, *, within: Mask | None = None) -> Mask:
        """The exact mask [size,size] of a shape, cut to ``within``."""
        full = np.zeros((self.size, self.size), dtype=bool)
        full[shape.rows, shape.cols] = shape.distance < 0
        return full if within is None else full & within

    def paint(
        self, shape: Shape, value: float | Field, *, within: Mask | None = None, soft: float = 1.0, opacity: float = 1.0
    ) -> Mask:
        """Paint a value (or the matching part of a field [size,size]) with an edge ``soft`` pixels wide; returns the mask."""
        cover = (np.float32(0.5) - shape.distance / np.float32(soft * self.pixel)).clip(0, 1)
        if within is not None:
            cover = cover * within[shape.rows, shape.cols]
        if opacity != 1.0:
            cover = cover * np.float32(opacity)
        block = self.values[shape.rows, shape.cols]
        new = value[shape.rows, shape.cols] if isinstance(value, np.ndarray) else np.float32(value)
        block += cover * (new - block)
        return self.mask(shape, within=within)

    def add(self, shape: Shape, amount: float | Field, *, within: Mask | None = None, soft: float = 1.0) -> Mask:
        """Add an amount instead of replacing (projections, lesions that let the organ shine through); returns the mask."""
        cover = (np.float32(0.5) - shape.distance / np.float32(soft * self.pixel)).clip(0, 1)
        if within is not None:
            cover = cover * within[shape.rows, shape.cols]
        more = amount[shape.rows, shape.cols] if isinstance(amount, np.ndarray) else np.float32(amount)
        self.values[shape.rows, shape.cols] += cover * more
        return self.mask(shape, within=within)

    def add_round(self, shape: Shape, amount: float, *, reach: float, within: Mask | None = None) -> Mask:
        """Add what a rounded body adds to a projection: nothing at its edge, ``amount`` from ``reach`` inside on."""
        depth = np.sqrt(np.clip(-shape.distance / np.float32(reach), 0, 1)) * np.float32(amount)
        if within is not None:
            depth = depth * within[shape.rows, shape.cols]
        self.values[shape.rows, shape.cols] += depth
        return self.mask(shape, within=within)

    def fill(self, mask: Mask, value: float | Field, *, soft: float = 0.0) -> None:
        """Paint the pixels of a mask; ``soft`` > 0 blurs its edge by that many pixels."""
        cover = mask.astype(np.float32)
        if soft:
            cover = ndimage.gaussian_filter(cover, soft, truncate=2.5)
        self.values += cover * (np.asarray(value, dtype=np.float32) - self.values)

    def noise(self, knots: int) -> Field:
        """Smooth noise over the picture with ``knots`` bumps along each side."""
        return smooth_noise(self.rng, (self.size, self.size), knots=knots)

    def place_in(self, organ: Mask, *, clearance: float) -> tuple[float, float]:
        """A random point (x, y) of an organ at least ``clearance`` from its edge, or as deep inside it as it goes.

        Raises ValueError when the mask is empty.
        """
        step = max(1, self.size // 96)
        coarse = np.pad(organ[::step, ::step], 1)
        depth = ndimage.distance_transform_edt(coarse)[1:-1, 1:-1] * step * self.pixel
        if depth.max() == 0:
            raise ValueError("a lesion needs an organ that lies in the picture")
        rows, cols = np.nonzero(depth >= min(clearance, 0.95 * float(depth.max())))
        chosen = int(self.rng.integers(len(rows)))
        row, col = rows[chosen] * step, cols[chosen] * step
        return float(self.x[row, col]), float(self.y[row, col])


def mirrored(side: str) -> int:
    """+1 for the patient's left (the picture's right), -1 for the right: the radiological convention."""
    return 1 if side == "left" else -1
