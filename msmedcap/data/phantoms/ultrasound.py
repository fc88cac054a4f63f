"""Breast ultrasound with known truth: normal tissue, a benign or a malignant mass.

Comes in: a finding. Goes out: an 8-bit phantom. Tissue sets the mean echo, speckle multiplies it (Rayleigh, grains wider than
tall), then depth gain and log compression as a scanner shows it. A benign mass is a smooth oval, wider than tall, with
brighter echoes behind it; a malignant one is irregular, spiculated, at least as tall as wide, with a shadow behind it.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from msmedcap.data.phantoms.canvas import Canvas, Field, Mask, Shape, smooth_noise
from msmedcap.data.phantoms.phantom import Phantom, finish
from msmedcap.data.scans import Window

FINDINGS = ("normal", "benign", "malignant")


def make(rng: np.random.Generator, size: int, *, modality: str, plane: str, finding: str) -> Phantom:
    """A breast ultrasound picture, probe at the top; ``finding`` one of :data:`FINDINGS`, ``plane`` is empty."""
    canvas = Canvas(rng, size, turn=0.02, zoom=(0.95, 1.1), stretch=0.02, shift=0.02, bend=0.02)
    masks, ground = _tissue(canvas)
    facts = {"modality": modality, "plane": plane, "part": "breast", "finding": finding}
    canvas.values[:] = ground
    gain = np.ones_like(ground)
    if finding != "normal":
        facts |= _mass(canvas, masks, gain, malignant=finding == "malignant")
    values, fan = _scanned(canvas, gain)
    masks = {name: mask & fan for name, mask in masks.items()}
    return finish(values, masks, facts, window=Window(256, 128), limits=(0, 255), spacing=40 / size / canvas.scale)


def _wavy(canvas: Canvas, level: float, wave: float) -> Field:
    """A depth (y) for each column, wavering around ``level``; broadcast over the picture."""
    line = smooth_noise(canvas.rng, (1, canvas.size), knots=(1, int(canvas.rng.integers(2, 6))))
    return np.float32(level) + np.float32(wave) * np.clip(line, -2, 2)


def _tissue(canvas: Canvas) -> tuple[dict[str, Mask], Field]:
    """The layers from the skin down: fat lobules, glandular tissue, pectoral muscle, ribs; returns masks and mean echo."""
    rng, size = canvas.rng, canvas.size
    skin = _wavy(canvas, -0.86, 0.006)
    fat = _wavy(canvas, rng.uniform(-0.62, -0.35), 0.04)
    gland = _wavy(canvas, rng.uniform(0.1, 0.5), 0.05)
    muscle = gland + np.float32(rng.uniform(0.14, 0.3))
    y = canvas.y
    stretched = smooth_noise(rng, (size, size), knots=(int(rng.integers(16, 30)), int(rng.integers(5, 10))))
    lobes = smooth_noise(rng, (size, size), knots=(12, 9))
    septa = np.exp(-((lobes / 0.22) ** 2)) + 0.8 * np.exp(-((stretched / 0.16) ** 2))
    fibres = np.exp(-((smooth_noise(rng, (size, size), knots=(34, 4)) / 0.4) ** 2))
    dark, bright = rng.uniform(0.12, 0.24), rng.uniform(0.42, 0.75)
    echo = np.where(y < fat, dark + 0.4 * septa, bright * np.clip(0.75 + 0.22 * stretched + 0.12 * lobes, 0.45, 1.4) + 0.12 * septa)
    echo = np.where(y > gland, 0.2 + 0.5 * fibres * rng.uniform(0.4, 1), echo)
    echo = np.where(y > muscle, 0.14 + 0.16 * fibres, echo)
    for layer in (gland, muscle):  # fascia reflects
        echo += 0.55 * np.exp(-(((y - layer) / 0.014) ** 2)) * np.clip(0.8 + 0.5 * lobes, 0, 1.5)
    thick = np.float32(rng.uniform(0.03, 0.07))
    echo = np.where(y < skin + thick, rng.uniform(0.25, 0.5), echo)
    echo += 0.35 * np.exp(-(((y - skin - thick) / 0.01) ** 2)) + 0.3 * np.exp(-(((y - skin) / 0.01) ** 2))
    echo = ndimage.gaussian_filter(np.clip(echo, 0.02, 1.6).astype(np.float32), (0.8, 1.6), truncate=2.5)
    home = (y > fat - 0.1) & (y < gland - 0.05) & (np.abs(canvas.x) < 0.75)
    if rng.random() < 0.4:
        ribs = np.float32(muscle + 0.12)
        for _ in range(int(rng.integers(1, 3))):
            x = float(rng.uniform(-0.8, 0.8))
            column = np.exp(-(((canvas.x - x) / 0.14) ** 4))
            echo = echo * (1 - 0.85 * column * np.clip((y - ribs) / 0.04, 0, 1))
            echo += 0.6 * column * np.exp(-(((y - ribs) / 0.022) ** 2))
    tissue = {"fat": np.broadcast_to((y < fat) & (y > skin + thick), y.shape), "gland": (y > fat) & (y < gland), "home": home}
    return tissue, echo


def _mass(canvas: Canvas, masks: dict[str, Mask], gain: Field, *, malignant: bool) -> dict[str, str]:
    """Paint a mass and what lies behind it (``gain`` is changed in place); returns its size."""
    rng = canvas.rng
    large = bool(rng.random() < 0.5)
    radius = float(rng.uniform(0.24, 0.36) if large else rng.uniform(0.11, 0.2))
    x, y = canvas.place_in(masks["home"], clearance=radius * 0.6)
    inside = float(rng.uniform(0.03, 0.1) if malignant or rng.random() < 0.75 else 0.012)
    if malignant:
        rx, ry = radius * rng.uniform(0.7, 0.95), radius * rng.uniform(0.85, 1.1)
        shape = canvas.blob(x, y, rx, ry, angle=rng.uniform(-0.4, 0.4), rough=0.15, waves=(2, 12))
        halo = canvas.blob(x, y, rx * 1.3, ry * 1.25, rough=0.2, waves=(2, 12))
        canvas.add(halo, 0.22, soft=14)
        lesion = canvas.paint(shape, inside * (1 + 0.5 * canvas.noise(26)), soft=7)
        for _ in range(int(rng.integers(5, 11))):
            a = float(rng.uniform(0, 2 * np.pi))
            tip = (x + rx * 1.3 * np.cos(a), y + ry * 1.3 * np.sin(a))
            spike = canvas.stroke([(x + rx * 0.6 * np.cos(a), y + ry * 0.6 * np.sin(a)), tip], [0.05 * radius / 0.2, 0.004])
            lesion |= canvas.paint(spike, inside, soft=9)
        if rng.random() < 0.4:
            specks = lesion & (canvas.noise(70) > 2.1)
            canvas.fill(specks, 1.1, soft=0.6)
    else:
        rx, ry = radius * rng.uniform(1.05, 1.35), radius * rng.uniform(0.55, 0.8)
        shape = canvas.blob(x, y, rx, ry, angle=rng.uniform(-0.2, 0.2), power=rng.uniform(2, 2.3), rough=0.025, waves=(2, 4))
        rim = np.exp(-((shape.distance / np.float32(0.014)) ** 2)) * np.float32(rng.uniform(0.1, 0.4))
        canvas.values[shape.rows, shape.cols] += rim
        lesion = canvas.paint(shape, inside * (1 + 0.3 * canvas.noise(26)), soft=2.5)
    strength = float(rng.uniform(0.55, 0.85)) if malignant else -float(rng.uniform(0.6, 1.6))
    _behind(canvas, gain, shape, x=x, width=rx, strength=strength)
    masks["lesion"] = masks["mass"] = lesion
    return {"size": "large" if large else "small"}


def _behind(canvas: Canvas, gain: Field, shape: Shape, *, x: float, width: float, strength: float) -> None:
    """Darken (``strength`` > 0) or brighten the beam below a shape, fading with depth."""
    inside = canvas.mask(shape)
    last = np.where(inside.any(0), canvas.size - np.argmax(inside[::-1], axis=0), canvas.size)
    rows = np.arange(canvas.size, dtype=np.float32)[:, None]
    below = np.clip((rows - last[None, :]) / (0.02 * canvas.size), 0, 1) * np.exp(
        -np.clip(rows - last[None, :], 0, None) / np.float32(canvas.size * (0.5 if strength > 0 else 0.2))
    )
    column = np.exp(-(((canvas.x - np.float32(x)) / np.float32(width * 0.85)) ** 4))
    gain *= 1 - np.float32(strength) * ndimage.gaussian_filter(below.astype(np.float32) * column, (1, 4), truncate=2)


def _scanned(canvas: Canvas, gain: Field) -> tuple[Field, Mask]:
    """Speckle, attenuation with depth, log compression, the probe's field; returns 0-255 values and the imaged area."""
    rng, size = canvas.rng, canvas.size
    scale = size / 320
    wide, tall = rng.uniform(0.9, 1.7) * scale, rng.uniform(0.5, 0.9) * scale
    real, imaginary = (
        ndimage.gaussian_filter(rng.standard_normal((size, size), dtype=np.float32), (tall, wide), truncate=2.5) for _ in range(2)
    )
    speckle = np.hypot(real, imaginary)
    speckle /= speckle.mean()
    calm = np.float32(rng.uniform(0.25, 0.55))
    rows = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    focus = 1 + np.float32(0.4) * np.exp(-(((rows - rng.uniform(0.2, 0.5)) / 0.2) ** 2))
    depth = np.exp(-rows * np.float32(rng.uniform(0.5, 1.9))) * focus
    dropout = 1 - np.float32(0.7) * np.clip(smooth_noise(rng, (1, size), knots=(1, 6)) - 1.1, 0, 1) * np.clip(rows * 2, 0, 1)
    echo = np.clip(canvas.values, 0.005, None) * gain * depth * dropout * (calm + (1 - calm) * speckle)
    grey = np.log1p(echo * np.float32(rng.uniform(5, 10))) / np.log(np.float32(rng.uniform(7, 12)))
    grey = np.clip(grey, 0, 1) ** np.float32(rng.uniform(1.1, 1.7)) * 255
    ticks = np.linspace(-1, 1, size, dtype=np.float32)
    fan = np.ones((size, size), dtype=bool)
    if rng.random() < 0.25:  # a sector: the sides lean out, the bottom is round
        fan = np.abs(ticks)[None, :] < 0.75 + 0.2 * (ticks[:, None] + 1)
        fan &= np.hypot(ticks[None, :], ticks[:, None] + 2) < 2.9
    top = float(rng.uniform(-1.0, -0.93))
    fan &= ticks[:, None] > top
    return np.where(fan, grey, np.float32(rng.integers(0, 8))).astype(np.float32), fan
