"""Frontal chest radiographs with known truth: whole, or with pneumonia, a nodule, an effusion or a pneumothorax.

A projection, not a slice: every organ adds what it absorbs to one sum, so ribs show through the lungs and the heart through
the ribs. Comes in: a finding. Goes out: a phantom on a 12-bit scale whose masks carry the class strings of the chest mask set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from msmedcap.data.phantoms.canvas import Canvas, Field, Mask, grain, mirrored
from msmedcap.data.phantoms.phantom import Phantom, finish
from msmedcap.data.scans import Window

FINDINGS = ("no findings", "pneumonia", "nodule", "effusion", "pneumothorax")
LUNGS = {"left": "Left Lung", "right": "Right Lung"}


@dataclass(frozen=True)
class _Chest:
    """What the painters share: the masks, the air each pixel's beam crosses [H,W] (absorption saved), the lungs' outlines."""

    masks: dict[str, Mask]
    air: Field
    outlines: dict[str, list[tuple[float, float]]]


def make(rng: np.random.Generator, size: int, *, modality: str, plane: str, finding: str) -> Phantom:
    """A frontal chest radiograph; ``finding`` one of :data:`FINDINGS`, ``plane`` is empty for a projection."""
    canvas = Canvas(rng, size, turn=0.035, zoom=(0.92, 1.12), stretch=0.045, bend=0.014)
    width, base = float(rng.uniform(0.6, 0.72)), float(rng.uniform(0.34, 0.6))
    chest = _trunk(canvas, width=width, base=base)
    facts = {"modality": modality, "plane": plane, "view": "frontal", "part": "chest", "finding": finding}
    side = str(rng.choice(["left", "right"]))
    if finding == "pneumothorax":
        facts |= _pneumothorax(canvas, chest, side)
    _vessels(canvas, chest.masks)
    _bones(canvas, width=width)
    painters = {"pneumonia": _pneumonia, "nodule": _nodule, "effusion": _effusion}
    if finding in painters:
        facts |= painters[finding](canvas, chest, side)
    values = _exposed(canvas, chest.masks["body"])
    window = Window(4096, 2048) if rng.random() < 0.5 else Window(float(rng.integers(3300, 4400)), float(rng.integers(1800, 2250)))
    return finish(values, chest.masks, facts, window=window, limits=(0, 4095), spacing=360 / size / canvas.scale)


def _exposed(canvas: Canvas, body: Mask) -> Field:
    """The sum of absorptions as a 12-bit picture: scatter, the detector's curve, markers, collimation, noise."""
    rng, size = canvas.rng, canvas.size
    total = ndimage.gaussian_filter(canvas.values, rng.uniform(0.4, 0.9) * size / 320, truncate=3)
    low, high = np.percentile(total[::3, ::3][body[::3, ::3]], [2, 97])
    grey = (total - low) / max(float(high - low), 1e-3)
    grey = np.clip(grey * rng.uniform(0.68, 0.86) + rng.uniform(0.06, 0.17), 0, 1) ** np.float32(rng.uniform(0.75, 1.3))
    grey[~body] = np.minimum(grey[~body], rng.uniform(0.0, 0.12))
    _marker(canvas, grey)
    grey += grain(rng, grey.shape, sigma=rng.uniform(0.3, 0.9)) * np.float32(rng.uniform(0.004, 0.016))
    if rng.random() < 0.3:
        edge = int(size * rng.uniform(0.01, 0.05))
        grey[:edge], grey[size - edge :] = 0.0, 0.0
        if rng.random() < 0.5:
            grey[:, :edge], grey[:, size - edge :] = 0.0, 0.0
    return (grey * 4095).astype(np.float32)


def _marker(canvas: Canvas, grey: Field) -> None:
    """The technologist's lead letter: L at the patient's left (the picture's right) or R at the other side, or none."""
    rng = canvas.rng
    kind = rng.random()
    if kind < 0.35:
        return
    s = 1 if kind < 0.8 else -1
    x, y, h = s * float(rng.uniform(0.78, 0.88)), float(rng.uniform(-0.9, -0.72)), 0.035
    letter = [[(x - h / 2, y - h), (x - h / 2, y + h), (x + h / 2, y + h)]]
    if s < 0:
        letter = [[(x - h / 2, y + h), (x - h / 2, y - h), (x + h / 2, y - h), (x + h / 2, y), (x - h / 2, y), (x + h / 2, y + h)]]
    for points in letter:
        shape = canvas.stroke(points, 0.008)
        part = grey[shape.rows, shape.cols]
        part[shape.distance < 0] = 0.97


def _outline(s: int, *, width: float, dome: float, apex: float) -> list[tuple[float, float]]:
    """One lung's outline from the apex round the chest wall to the costophrenic angle and along the dome."""
    wall = [(0.13, apex + 0.16), (0.2, apex + 0.03), (0.3, apex), (0.42, apex + 0.12), (0.9 * width, -0.15)]
    base = [(width, dome - 0.02), (width + 0.01, dome + 0.17), (0.9 * width, dome + 0.08), (0.72 * width, dome - 0.01)]
    base += [(0.5 * width, dome - 0.04), (0.3 * width, dome - 0.02), (0.13, dome + 0.06)]
    return [(s * x, y) for x, y in wall + base]


def _trunk(canvas: Canvas, *, width: float, base: float) -> _Chest:
    """Soft tissue with neck, shoulders and arms, minus the lungs, plus heart and great vessels, diaphragm and bowel."""
    rng = canvas.rng
    w, shoulder = width + 0.14, float(rng.uniform(-0.75, -0.6))
    half = [(-0.2, -1.6), (-0.22, shoulder - 0.16), (-w - 0.12, shoulder + 0.04), (-w - 0.22, shoulder + 0.3), (-w - 0.02, 0.0)]
    half += [(-w, 1.6)]
    body = canvas.add_round(canvas.polygon(half + [(-x, y) for x, y in reversed(half)], rounding=0.05), 0.75, reach=0.5)
    for s in (-1, 1):
        if rng.random() < 0.75:
            arm = canvas.stroke([(s * (w + 0.12), shoulder + 0.2), (s * (w + 0.22), 0.5), (s * (w + 0.25), 1.4)], 0.13)
            body |= canvas.add_round(arm, 0.3, reach=0.13)
    masks = {"body": body}
    dome = {"left": base + float(rng.uniform(0.03, 0.08)), "right": base}
    apex = shoulder + float(rng.uniform(-0.06, 0.02))
    before, aeration = canvas.values.copy(), float(rng.uniform(0.52, 0.6))
    outlines = {side: _outline(mirrored(side), width=width, dome=dome[side], apex=apex) for side in LUNGS}
    for side, name in LUNGS.items():
        masks[name] = canvas.add_round(canvas.polygon(outlines[side], rounding=0.02), -aeration, reach=0.22)
    air = before - canvas.values
    _mediastinum(canvas, masks, air, base=base, apex=apex)
    canvas.values += np.float32(0.15) * body * np.clip((canvas.y - np.float32(base + 0.05)) / np.float32(0.3), 0, 1)
    for side in LUNGS:  # the liver and the spleen under the domes
        canvas.add(canvas.blob(mirrored(side) * 0.4, dome[side] + 0.42, 0.38, 0.42, rough=0.02), 0.08, soft=14)
    if rng.random() < 0.6:  # gas in the stomach, under the left dome
        bubble = canvas.blob(0.36, dome["left"] + 0.17, rng.uniform(0.07, 0.15), rng.uniform(0.05, 0.09), rough=0.06)
        canvas.add_round(bubble, -0.34, reach=0.06)
    if rng.random() < 0.45:
        for s in (-1, 1):
            breast = canvas.blob(s * 0.38, base - 0.06, 0.28, 0.27, rough=0.03)
            canvas.add_round(breast, float(rng.uniform(0.05, 0.14)), reach=0.12)
    return _Chest(masks, air, outlines)


def _mediastinum(canvas: Canvas, masks: dict[str, Mask], air: Field, *, base: float, apex: float) -> None:
    """The heart and the great vessels take the air's place in their shadow; trachea and main bronchi stay dark."""
    rng = canvas.rng
    broad = float(rng.uniform(0.85, 1.25))
    column = [(-0.1 * broad, apex - 0.05), (0.09 * broad, apex - 0.05), (0.12, -0.28), (0.12, base + 0.05)]
    column += [(-0.15, base + 0.05), (-0.12, -0.2)]
    shapes = [canvas.polygon(column, rounding=0.02)]
    shapes.append(canvas.blob(0.14 * broad, base - 0.17, 0.27 * broad, 0.23, angle=0.5, rough=0.02))
    shapes.append(canvas.ellipse(-0.08, base - 0.2, 0.14 * broad, 0.22))
    shapes.append(canvas.ellipse(0.1, -0.34, 0.075, 0.075))  # the aortic knob
    shapes.append(canvas.blob(0.1, -0.16, 0.085, 0.13, rough=0.03))
    shapes.append(canvas.polygon([(0.08, -0.2), (0.18, -0.1), (0.3, base - 0.3), (0.05, base - 0.1)], rounding=0.02))
    middle = np.zeros_like(masks["body"])
    for shape in shapes:
        middle |= canvas.mask(shape)
    shadow = ndimage.gaussian_filter(middle.astype(np.float32), 1.3 * canvas.size / 320, truncate=3)
    canvas.values += shadow * (air * np.float32(rng.uniform(0.82, 0.95)) + np.float32(rng.uniform(0.05, 0.12)))
    air *= 1 - shadow
    for name in LUNGS.values():
        masks[name] = masks[name] & ~middle
    airway = canvas.stroke([(0.0, apex - 0.3), (0.0, -0.3), (0.01, -0.2)], 0.034)
    gas = canvas.add_round(airway, -0.15, reach=0.03)
    for s in (-1, 1):
        gas |= canvas.add_round(canvas.stroke([(0.0, -0.21), (s * 0.13, -0.09)], 0.024), -0.1, reach=0.03)
    masks["Airways"] = gas
    masks["Cardiomediastinum"] = middle & ~gas


def _vessels(canvas: Canvas, masks: dict[str, Mask]) -> None:
    """Hila and the vessels that fan out of them, within the aerated lung."""
    rng = canvas.rng
    gas = masks.get("Pneumothorax")
    strength = float(rng.uniform(0.05, 0.1))
    layer = np.zeros_like(canvas.values)  # the densest vessel counts: crossing ones do not add up to a white spot
    for side, name in LUNGS.items():
        s = mirrored(side)
        home = masks[name] if gas is None else masks[name] & ~gas
        canvas.add(canvas.blob(s * 0.17, -0.08, 0.06, 0.1, angle=-s * 0.3, rough=0.15), 0.14, within=home, soft=8)
        for _ in range(int(rng.integers(8, 13))):
            heading = float(rng.uniform(-1.4, 1.4))
            x, y, width = s * 0.16, float(rng.normal(-0.07, 0.05)), float(rng.uniform(0.008, 0.014))
            points, widths = [(x, y)], [width]
            for _ in range(3):
                heading += float(rng.normal(0, 0.3))
                x, y, width = x + s * 0.13 * np.cos(heading), y + 0.14 * np.sin(heading), width * 0.68
                points.append((x, y))
                widths.append(width)
            vessel = canvas.stroke(points, widths)
            block = (vessel.rows, vessel.cols)
            cover = np.clip(0.5 - vessel.distance / np.float32(3 * canvas.pixel), 0, 1) * home[block]
            np.maximum(layer[block], cover, out=layer[block])
    canvas.values += layer * np.float32(strength)


def _bones(canvas: Canvas, *, width: float) -> None:
    """Spine, ribs (posterior ones stronger, sloping down and out; anterior ones fainter), clavicles, scapulae, humeri."""
    rng = canvas.rng
    strength = float(rng.uniform(0.06, 0.13))
    canvas.add_round(canvas.stroke([(0, -1.4), (0, 1.4)], 0.075), float(rng.uniform(0.06, 0.15)), reach=0.05)
    for i in range(14):
        canvas.add(canvas.stroke([(-0.06, -1.1 + 0.155 * i), (0.06, -1.1 + 0.155 * i)], 0.007), 0.045, soft=3)
    gap, first = float(rng.uniform(0.105, 0.125)), float(rng.uniform(-0.76, -0.68))
    t = np.linspace(0, 1, 6)
    for s in (-1, 1):
        for i in range(10):
            reach = width * (0.5, 0.72, 0.86, 0.95)[min(i, 3)] + 0.02
            x = s * (0.07 + (reach - 0.07) * np.sin(t * np.pi / 2))
            y = first + gap * i - 0.05 * np.sin(t * np.pi * 0.7) + (0.1 + 0.02 * i) * t**2.5
            _rib(canvas, list(zip(x.tolist(), y.tolist(), strict=True)), strength)
            if 1 <= i < 7:
                x = s * (reach * np.cos(t * 1.15))
                y = first + gap * (i + 1.0) + 0.02 * i + 0.16 * t + 0.1 * t**2
                _rib(canvas, list(zip(x.tolist(), y.tolist(), strict=True)), strength * 0.55)
        lift = float(rng.normal(0, 0.03))
        clavicle = [(s * 0.07, first + 0.06), (s * 0.25, first + lift), (s * 0.45, first - 0.05 + lift)]
        clavicle.append((s * 0.66, first - 0.06 + lift))
        canvas.add(canvas.stroke(clavicle, [0.036, 0.024, 0.022, 0.028]), strength * 1.5, soft=3)
        blade = [(s * (width - 0.02), first + 0.02), (s * (width + 0.12), first + 0.05), (s * (width + 0.02), first + 0.5)]
        canvas.add(canvas.polygon(blade, rounding=0.015), strength * 0.8, soft=4)
        canvas.add(canvas.ellipse(s * (width + 0.2), first + 0.08, 0.085, 0.085), strength * 2, soft=4)
        canvas.add(canvas.stroke([(s * (width + 0.22), first + 0.1), (s * (width + 0.3), first + 0.9)], 0.05), strength * 2, soft=4)


def _rib(canvas: Canvas, points: list[tuple[float, float]], strength: float) -> None:
    shape = canvas.stroke(points, 0.022)
    edge = np.exp(-(((shape.distance + np.float32(0.006)) / np.float32(0.007)) ** 2))
    inside = np.clip(-shape.distance / np.float32(0.01), 0, 1)
    canvas.values[shape.rows, shape.cols] += np.float32(strength) * (np.float32(0.6) * inside + np.float32(0.55) * edge)


def _record(masks: dict[str, Mask], lesion: Mask, name: str) -> None:
    masks["lesion"] = lesion
    masks[name] = lesion


def _pneumonia(canvas: Canvas, chest: _Chest, side: str) -> dict[str, str]:
    """Cloudy opacities in one lung, or (a third of the time) in both: dense ones are consolidation, faint ones ground glass."""
    rng = canvas.rng
    both, dense = rng.random() < 0.33, rng.random() < 0.55
    large = bool(rng.random() < 0.5)
    cloud = np.zeros_like(canvas.values)
    for where in ("left", "right") if both else (side,):
        lung = chest.masks[LUNGS[where]]
        for _ in range(int(rng.integers(2, 5) if large else rng.integers(1, 3))):
            radius = float(rng.uniform(0.13, 0.22) if large else rng.uniform(0.08, 0.13))
            x, y = canvas.place_in(lung & (canvas.y > -0.45), clearance=0.06)
            shape = canvas.blob(x, y, radius, radius * rng.uniform(0.7, 1.3), rough=0.2)
            soft = np.clip(-shape.distance / np.float32(radius * 0.6) + np.float32(0.15), 0, 1) * lung[shape.rows, shape.cols]
            np.maximum(cloud[shape.rows, shape.cols], soft, out=cloud[shape.rows, shape.cols])
    texture = np.clip(0.85 + 0.16 * canvas.noise(22) + 0.1 * canvas.noise(60), 0.4, 1.3)
    filled = np.float32(rng.uniform(0.65, 0.9) if dense else rng.uniform(0.3, 0.48))
    canvas.values += cloud * texture * (chest.air + np.float32(0.06)) * filled
    _record(chest.masks, cloud > 0.25, "Consolidation" if dense else "Ground Glass Opacities")
    return {"side": "" if both else side, "size": "large" if large else "small"}


def _nodule(canvas: Canvas, chest: _Chest, side: str) -> dict[str, str]:
    """One round, rather sharp opacity."""
    rng = canvas.rng
    large = bool(rng.random() < 0.5)
    radius = float(rng.uniform(0.065, 0.1) if large else rng.uniform(0.035, 0.055))
    x, y = canvas.place_in(chest.masks[LUNGS[side]], clearance=radius + 0.01)
    shape = canvas.blob(x, y, radius, radius * rng.uniform(0.85, 1.15), rough=0.05)
    lesion = canvas.add_round(shape, float(rng.uniform(0.2, 0.34)), reach=radius * 0.5, within=chest.masks[LUNGS[side]])
    _record(chest.masks, lesion, "nodule")
    return {"side": side, "size": "large" if large else "small"}


def _effusion(canvas: Canvas, chest: _Chest, side: str) -> dict[str, str]:
    """Fluid that fills one lung's base up to a meniscus, higher at the chest wall."""
    rng = canvas.rng
    lung = chest.masks[LUNGS[side]]
    large = bool(rng.random() < 0.5)
    top = float(np.quantile(canvas.y[lung], rng.uniform(0.45, 0.65) if large else rng.uniform(0.75, 0.86)))
    outer = np.clip(mirrored(side) * canvas.x - 0.15, 0, 0.55) / 0.55
    height = canvas.y - (top + 0.07 - 0.22 * outer**2)
    fluid = np.clip(height / 0.09 + 0.25, 0, 1) * lung
    canvas.values += fluid * (chest.air * np.float32(rng.uniform(0.85, 1.0)) + np.float32(0.05))
    _record(chest.masks, lung & (height > 0), "Pleural Effusion")
    return {"side": side, "size": "large" if large else "small"}


def _pneumothorax(canvas: Canvas, chest: _Chest, side: str) -> dict[str, str]:
    """Air without vessels between the chest wall and the thin line of the lung, which has shrunk towards its hilum."""
    rng = canvas.rng
    lung, s = chest.masks[LUNGS[side]], mirrored(side)
    large = bool(rng.random() < 0.5)
    keep = float(rng.uniform(0.45, 0.66) if large else rng.uniform(0.78, 0.87))
    low = keep if large else 0.5 + 0.5 * keep
    left_over = [(s * 0.12 + (x - s * 0.12) * keep, -0.02 + (y + 0.02) * (keep if y < 0 else low)) for x, y in chest.outlines[side]]
    shape = canvas.polygon(left_over, rounding=0.03)
    gas = lung & ~canvas.mask(shape)
    canvas.values -= ndimage.gaussian_filter(gas.astype(np.float32), 0.8) * np.float32(rng.uniform(0.08, 0.15))
    block = (shape.rows, shape.cols)
    canvas.values[block] += (shape.distance < 0) * chest.air[block] * np.float32((1 - keep) * rng.uniform(0.5, 0.8))
    line = np.exp(-((shape.distance / np.float32(0.008)) ** 2)) * lung[block]
    canvas.values[block] += line * np.float32(rng.uniform(0.08, 0.14))
    _record(chest.masks, gas, "Pneumothorax")
    return {"side": side, "size": "large" if large else "small"}
