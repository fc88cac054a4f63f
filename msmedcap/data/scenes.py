"""General scenes made by code: coloured, textured shapes in a relation on a background, and the sentence that says so.

They stand for the general captions (COCO) of the paper's mixed training set, so that the CLIP-style encoder learns words for
shape, colour, size, texture and place. Comes in: a seed. Goes out: a picture uint8 [size,size,3] and a caption. "left" and
"right" are the picture's and occur in relations only: mirroring the picture and swapping the two words stays true.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msmedcap.data.phantoms.canvas import Field, smooth_noise

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 40, 40), "green": (45, 150, 60), "blue": (45, 80, 205), "yellow": (235, 210, 50), "orange": (240, 140, 40),
    "purple": (130, 60, 165), "pink": (240, 140, 180), "brown": (125, 80, 45), "white": (245, 245, 245), "black": (25, 25, 25),
    "grey": (130, 130, 130),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "rectangle", "oval", "diamond", "crescent", "heart", "hexagon")
TEXTURES = ("", "", "", "striped", "dotted", "checkered", "blurry", "speckled")
BACKGROUNDS = ("plain", "plain", "striped", "dotted", "checkered", "noisy", "cloudy", "shaded")


@dataclass(frozen=True)
class _Thing:
    shape: str
    colour: str
    texture: str
    scale: str
    x: float
    y: float
    radius: float

    @property
    def words(self) -> str:
        return " ".join(w for w in (self.scale, self.texture, self.colour, self.shape) if w)


def make_scene(seed: int, size: int = 192) -> tuple[np.ndarray, str]:
    """A scene of 1-3 things: the picture uint8 [size,size,3] and its caption; the same seed gives the same scene."""
    rng = np.random.default_rng([seed, 0x5CE8])
    things = _layout(rng)
    ground, backdrop = str(rng.choice(list(COLOURS))), str(rng.choice(BACKGROUNDS))
    while ground in {thing.colour for thing in things}:
        ground = str(rng.choice(list(COLOURS)))
    ticks = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
    x, y = np.broadcast_to(ticks[None, :], (size, size)), np.broadcast_to(ticks[:, None], (size, size))
    picture = _background(rng, x, y, ground=ground, kind=backdrop)
    for thing in things:
        _draw(rng, picture, x, y, thing)
    picture += rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(rng.uniform(0, 7))
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), _sentence(rng, things, ground=ground, kind=backdrop)


def _layout(rng: np.random.Generator) -> list[_Thing]:
    """Things that differ in shape or colour and do not overlap; two stand beside or above each other, a third anywhere free."""
    count = int(rng.choice([1, 2, 2, 3]))
    if count == 1:
        places = [(float(rng.uniform(-0.35, 0.35)), float(rng.uniform(-0.35, 0.35)))]
    else:
        far, near = float(rng.uniform(0.42, 0.55)), float(rng.uniform(-0.2, 0.2))
        places = [(far, near), (-far, float(rng.uniform(-0.2, 0.2)))]
        if rng.random() < 0.5:
            places = [(y, x) for x, y in places]
        if rng.random() < 0.5:
            places.reverse()
    if count == 3:
        beside = abs(places[0][0] - places[1][0]) > abs(places[0][1] - places[1][1])
        third = (float(rng.uniform(-0.2, 0.2)), float(rng.choice([-0.72, 0.72])))
        places.append(third if beside else (third[1], third[0]))
    things: list[_Thing] = []
    for x, y in places:
        scale = str(rng.choice(["small", "large"] if count < 3 else ["small", ""]))
        reach = {"large": (0.33, 0.4), "small": (0.13, 0.18), "": (0.2, 0.24)}[scale]
        while True:
            shape, colour = str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS)))
            if all(colour != other.colour and shape != other.shape for other in things):
                break
        things.append(_Thing(shape, colour, str(rng.choice(TEXTURES)), scale, x, y, float(rng.uniform(*reach))))
    return things


def _relation(rng: np.random.Generator, one: _Thing, other: _Thing) -> str:
    dx, dy = one.x - other.x, one.y - other.y
    if abs(dx) > abs(dy):
        word = "left" if dx < 0 else "right"
        return str(rng.choice([f"to the {word} of", f"on the {word} of"]))
    return str(rng.choice(["above", "over"] if dy < 0 else ["below", "under"]))


def _sentence(rng: np.random.Generator, things: list[_Thing], *, ground: str, kind: str) -> str:
    first = things[0]
    text = f"{_a(first.words)} {first.words}"
    if len(things) > 1:
        text += f" {_relation(rng, first, things[1])} {_a(things[1].words)} {things[1].words}"
    if len(things) > 2:
        text += f" and {_a(things[2].words)} {things[2].words}"
    backdrop = ground if kind == "plain" else f"{kind} {ground}"
    return f"{text} on {_a(backdrop)} {backdrop} background"


def _a(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def _pattern(rng: np.random.Generator, x: Field, y: Field, kind: str, *, pitch: float) -> Field:
    """A pattern in 0..1 over the picture that repeats every ``pitch``; 0 everywhere for kinds that are none."""
    turn = float(rng.uniform(0, np.pi))
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    if kind == "striped":
        return (np.mod(u / pitch, 1) < 0.5).astype(np.float32)
    if kind == "dotted":
        return (np.hypot(np.mod(u / pitch, 1) - 0.5, np.mod(v / pitch, 1) - 0.5) < 0.27).astype(np.float32)
    if kind == "checkered":
        return ((np.floor(u / pitch) + np.floor(v / pitch)) % 2).astype(np.float32)
    if kind in ("noisy", "speckled"):
        return rng.random(x.shape, dtype=np.float32)
    if kind == "cloudy":
        return np.clip(0.5 + 0.35 * smooth_noise(rng, x.shape, knots=5), 0, 1).astype(np.float32)
    if kind == "shaded":
        return np.clip(0.5 + 0.5 * u, 0, 1).astype(np.float32)
    return np.zeros(x.shape, dtype=np.float32)


def _mixed(rng: np.random.Generator, pattern: Field, colour: str) -> Field:
    """A pattern between a colour (a little varied) and a darker or lighter version of it, float32 [H,W,3]."""
    base = np.array(COLOURS[colour], dtype=np.float32) + rng.normal(0, 8, 3).astype(np.float32)
    other = base * np.float32(0.45) if base.mean() > 95 else base * np.float32(0.4) + np.float32(130)
    return (base + pattern[..., None] * (other - base)).astype(np.float32)


def _background(rng: np.random.Generator, x: Field, y: Field, *, ground: str, kind: str) -> Field:
    pattern = _pattern(rng, x, y, kind, pitch=float(rng.uniform(0.12, 0.24)))
    return _mixed(rng, pattern * np.float32(0.5 if kind in ("striped", "dotted", "checkered", "noisy") else 0.9), ground)


def _draw(rng: np.random.Generator, picture: Field, x: Field, y: Field, thing: _Thing) -> None:
    turn = float(rng.normal(0, 0.15))
    u, v = (x - thing.x) / thing.radius, (y - thing.y) / thing.radius
    u, v = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
    if rng.random() < 0.5:  # a crescent opens to either side
        u = -u
    distance = _distance(thing.shape, u, v) * np.float32(thing.radius)
    soft = 0.09 if thing.texture == "blurry" else 2.0 / len(picture)
    cover = np.clip(np.float32(0.5) - distance / np.float32(soft), 0, 1)[..., None]
    pattern = _pattern(rng, x, y, thing.texture, pitch=thing.radius * float(rng.uniform(0.4, 0.65)))
    picture += cover * (_mixed(rng, pattern, thing.colour) - picture)


def _distance(shape: str, u: Field, v: Field) -> Field:
    """How far each point lies outside the shape of radius 1 (negative inside); exact at the edge, rough far from it."""
    r = np.hypot(u, v)
    a, b = np.abs(u), np.abs(v)
    if shape == "circle":
        return r - 1
    if shape == "oval":
        return (np.hypot(u, v / 0.58) - 1) * np.float32(0.58)
    if shape == "square":
        return np.maximum(a, b) - np.float32(0.85)
    if shape == "rectangle":
        return np.maximum(a - 1, b - np.float32(0.5))
    if shape == "diamond":
        return (a / np.float32(0.7) + b - 1) * np.float32(0.57)
    if shape == "triangle":
        return np.maximum(a * np.float32(0.87) - (v + 1) * np.float32(0.5), v - np.float32(0.75))
    if shape == "ring":
        return np.abs(r - np.float32(0.78)) - np.float32(0.22)
    if shape == "cross":
        return np.minimum(np.maximum(a - 1, b - np.float32(0.3)), np.maximum(b - 1, a - np.float32(0.3)))
    if shape == "hexagon":
        return np.maximum(a * np.float32(0.866) + b * np.float32(0.5), b) - np.float32(0.87)
    if shape == "crescent":
        return np.maximum(r - 1, np.float32(0.85) - np.hypot(u - np.float32(0.45), v))
    if shape == "heart":
        lobes = np.hypot(a - np.float32(0.45), v + np.float32(0.3)) - np.float32(0.52)
        point = np.maximum(a * np.float32(0.72) + v * np.float32(0.69) - np.float32(0.62), np.float32(-0.12) - v)
        return np.minimum(lobes, point)
    # A star: each fifth of it is folded onto the one around the upper tip, whose edge is the line (1, 0)-(0.34, 0.25).
    fifth = np.float32(2 * np.pi / 5)
    theta = np.abs(np.mod(np.arctan2(u, -v) + fifth / 2, fifth) - fifth / 2)
    return ((r * np.cos(theta) - 1) * 0.35 + r * np.sin(theta) * 0.937).astype(np.float32)
