"""Chests on CT with known truth: axial and coronal, whole or with a nodule, a consolidation or an effusion.

Comes in: a plane and a finding. Goes out: a phantom in HU shown through a lung, mediastinal or soft-tissue window. The parts
every trunk shares (fat, muscle, ribs, a vertebra, the table, the scanner's noise) live here too and serve the abdomen and pelvis.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from msmedcap.data.phantoms.canvas import Canvas, Mask, grain, mirrored
from msmedcap.data.phantoms.phantom import Phantom, finish
from msmedcap.data.scans import Window

FINDINGS = ("no findings", "nodule", "consolidation", "effusion")
AIR, LUNG, FAT, WATER, MUSCLE, BONE = -1000.0, -840.0, -100.0, 8.0, 55.0, 420.0
LUNG_WINDOW, MEDIASTINUM, SOFT_TISSUE = Window(1500, -600), Window(500, 50), Window(400, 40)


def make(rng: np.random.Generator, size: int, *, modality: str, plane: str, finding: str) -> Phantom:
    """A chest on CT; ``plane`` "axial" or "coronal", ``finding`` one of :data:`FINDINGS`."""
    canvas = trunk_canvas(rng, size)
    blood = float(rng.uniform(140, 260) if rng.random() < 0.6 else rng.uniform(38, 48))
    lung = LUNG + float(rng.normal(0, 25))
    masks = (_axial if plane == "axial" else _coronal)(canvas, blood=blood, lung=lung)
    facts = {"modality": modality, "plane": plane, "part": "chest", "finding": finding}
    if finding != "no findings":
        facts |= _lesion(canvas, masks, plane=plane, finding=finding)
    odds = {"nodule": 0.85, "consolidation": 0.7, "effusion": 0.25}.get(finding, 0.55)
    window = LUNG_WINDOW if rng.random() < odds else MEDIASTINUM if rng.random() < 0.6 else SOFT_TISSUE
    return as_ct(canvas, masks, facts, window=window, table=plane == "axial")


def trunk_canvas(rng: np.random.Generator, size: int) -> Canvas:
    """An empty CT picture in a trunk's random frame."""
    return Canvas(rng, size, fill=AIR, turn=0.04, zoom=(0.86, 1.16), stretch=0.05, bend=0.018)


def as_ct(
    canvas: Canvas, masks: dict[str, Mask], facts: dict[str, str], *, window: Window, table: bool, field: float = 400
) -> Phantom:
    """Give a painted slice what a CT scanner adds: the table, a round field of view, its kernel, noise; ``field`` in mm."""
    rng, size = canvas.rng, canvas.size
    rows = np.linspace(-1, 1, size, dtype=np.float32)
    if table and rng.random() < 0.8:
        sag, height = rng.uniform(0.0, 0.25), rng.uniform(0.82, 0.93)
        top = np.float32(height) - np.float32(sag) * rows[None, :] ** 2
        shell = (np.abs(rows[:, None] - top) < 0.011) & (np.abs(rows[None, :]) < rng.uniform(0.5, 0.9))
        canvas.values[shell & ~masks["body"]] = rng.uniform(-150, 150)
    values = ndimage.gaussian_filter(canvas.values, rng.uniform(0.35, 0.9) * size / 320, truncate=3)
    values += grain(rng, values.shape, sigma=rng.uniform(0.4, 1.1)) * np.float32(rng.uniform(6, 26))
    if rng.random() < 0.25:
        values[np.hypot(rows[None, :], rows[:, None]) > 1.0] = -1024
    if rng.random() < 0.3:  # a reader's own window, near the preset
        window = Window(round(window.width * rng.uniform(0.75, 1.3)), round(window.level + window.width * rng.uniform(-0.08, 0.08)))
    return finish(values, masks, facts, window=window, limits=(-1024, 3071), spacing=field / size / canvas.scale)


def wall(canvas: Canvas, rx: float, ry: float, *, cy: float = 0.0, fat: float, muscle: float, arms: bool = False) -> Mask:
    """Skin, a layer of fat ``fat`` thick and a ring of muscle of an axial trunk; returns the body's mask."""
    power = float(canvas.rng.uniform(2.3, 2.8))
    if arms:
        for s in (-1, 1):
            canvas.paint(canvas.ellipse(s * (rx + 0.11), cy + 0.12, 0.1, 0.13), MUSCLE)
            canvas.paint(canvas.ellipse(s * (rx + 0.11), cy + 0.12, 0.035, 0.035), 900)
    body = canvas.paint(canvas.ellipse(0, cy, rx, ry, power=power), 20)
    canvas.paint(canvas.ellipse(0, cy, rx - 0.012, ry - 0.012, power=power), FAT)
    ring = canvas.blob(0, cy, rx - fat, ry - fat * 0.8, power=power, rough=0.012)
    canvas.paint(ring, MUSCLE + 6 * canvas.noise(30))
    canvas.paint(canvas.ellipse(0, cy, rx - fat - muscle, ry - fat * 0.8 - muscle, power=power), FAT)
    return body


def vertebra(canvas: Canvas, x: float, y: float, *, scale: float = 1.0) -> Mask:
    """An axial vertebra with its canal, arch, processes and the back muscles beside it; returns the bone's mask."""
    k = scale
    for s in (-1, 1):
        canvas.paint(canvas.blob(x + s * 0.17 * k, y + 0.19 * k, 0.15 * k, 0.12 * k, angle=s * 0.3, rough=0.05), MUSCLE + 2)
    bone = canvas.paint(canvas.stroke([(x, y + 0.2 * k), (x, y + 0.32 * k)], 0.022 * k), BONE)
    for s in (-1, 1):
        bone |= canvas.paint(canvas.stroke([(x + s * 0.08 * k, y + 0.06 * k), (x + s * 0.19 * k, y + 0.15 * k)], 0.028 * k), BONE)
        bone |= canvas.paint(canvas.stroke([(x + s * 0.09 * k, y + 0.08 * k), (x, y + 0.22 * k)], 0.025 * k), BONE + 150)
    bone |= canvas.paint(canvas.ellipse(x, y - 0.03 * k, 0.13 * k, 0.105 * k, power=2.4), BONE + 280)
    canvas.paint(canvas.ellipse(x, y - 0.03 * k, 0.112 * k, 0.088 * k, power=2.4), 210 + 45 * canvas.noise(60))
    canvas.paint(canvas.ellipse(x, y + 0.115 * k, 0.052 * k, 0.04 * k), 30)
    return bone


def rib(canvas: Canvas, x: float, y: float, angle: float, *, length: float = 0.075) -> None:
    """One obliquely cut rib (cortex and marrow) whose long axis points along ``angle``."""
    dx, dy = np.cos(angle) * length, np.sin(angle) * length
    ends = [(x - dx, y - dy), (x + dx, y + dy)]
    canvas.paint(canvas.stroke(ends, 0.024), BONE + 250)
    canvas.paint(canvas.stroke(ends, 0.012), 180)


def rib_ring(canvas: Canvas, rx: float, ry: float, *, cy: float, count: int = 7) -> None:
    """The ribs an axial slice cuts, along an ellipse around the trunk, more of them behind than in front."""
    for s in (-1, 1):
        for i in range(count):
            theta = -0.9 + (2.2 / (count - 1)) * i + canvas.rng.normal(0, 0.05)
            x, y = s * rx * np.cos(theta), cy + ry * np.sin(theta)
            along = np.arctan2(ry * np.cos(theta), -s * rx * np.sin(theta))
            rib(canvas, float(x), float(y), float(along + canvas.rng.normal(0, 0.1)), length=float(canvas.rng.uniform(0.02, 0.09)))


def lung_texture(canvas: Canvas, lungs: Mask, *, hilum: float, blood: float) -> None:
    """Vessels that branch from each hilum (at x = ±``hilum``) and get thinner outwards, over a parenchyma that shades down."""
    rng = canvas.rng
    canvas.values += lungs * (12 * canvas.noise(40) + np.float32(rng.uniform(20, 70)) * np.clip(canvas.y, -0.5, 0.6))
    for s in (-1, 1):
        for _ in range(int(rng.integers(9, 14))):
            heading = float(rng.uniform(-1.7, 1.7))
            x, y, width = s * hilum, float(rng.normal(0.0, 0.04)), float(rng.uniform(0.009, 0.019))
            points, widths = [(x, y)], [width]
            for _ in range(4):
                heading += float(rng.normal(0, 0.4))
                x, y, width = x + s * 0.11 * np.cos(heading), y + 0.11 * np.sin(heading), width * 0.68
                points.append((x, y))
                widths.append(width)
            canvas.paint(canvas.stroke(points, widths), min(blood, 60.0), within=lungs, soft=2)
    specks = np.clip(canvas.noise(80) - 2.0, 0, 1) * lungs
    canvas.values += specks * (0 - canvas.values) * np.float32(0.6)


def _axial(canvas: Canvas, *, blood: float, lung: float) -> dict[str, Mask]:
    rng = canvas.rng
    rx, ry = rng.uniform(0.78, 0.9), rng.uniform(0.54, 0.64)
    fat = float(rng.uniform(0.03, 0.11))
    body = wall(canvas, rx, ry, fat=fat, muscle=0.07, arms=rng.random() < 0.2)
    for s in (-1, 1):  # chest wall muscles, and breasts on some
        canvas.paint(canvas.blob(s * 0.34, -ry + fat + 0.08, 0.26, 0.05, angle=s * 0.25, rough=0.05), MUSCLE)
        canvas.paint(canvas.blob(s * 0.52, 0.36, 0.13, 0.07, angle=-s * 0.9, rough=0.05), MUSCLE)
    inner_x, inner_y = rx - fat - 0.08, ry - 0.8 * fat - 0.08
    low = rng.random() < 0.6  # at the heart; otherwise at the aortic arch and the great vessels
    masks: dict[str, Mask] = {"body": body}
    lungs = np.zeros_like(body)
    for name, s in (("Left Lung", 1), ("Right Lung", -1)):
        shape = canvas.blob(s * inner_x * 0.53, 0.02, inner_x * 0.47, inner_y * 0.93, angle=-s * 0.12, power=2.3, rough=0.02)
        masks[name] = canvas.paint(shape, lung)
        lungs |= masks[name]
    heart_x, heart_r = float(rng.uniform(0.08, 0.14)), float(rng.uniform(0.2, 0.26))
    core = canvas.blob(0.0, -0.02, 0.16, inner_y * 0.8, rough=0.05)
    middle = canvas.paint(core, FAT)
    if low:
        middle |= canvas.paint(canvas.blob(heart_x, -0.14, heart_r * 1.3, heart_r, angle=0.5, rough=0.03), FAT)
        canvas.paint(canvas.blob(heart_x, -0.14, heart_r * 1.25, heart_r * 0.95, angle=0.5, rough=0.02), 60)
        chambers = ((0.2, -0.12, 0.12, 0.09), (0.02, -0.22, 0.13, 0.08), (-0.08, -0.1, 0.08, 0.09), (0.04, 0.0, 0.12, 0.06))
        for cx, cy, a, b in chambers:
            canvas.paint(canvas.blob(cx, cy, a, b, angle=0.5, rough=0.04), blood, soft=3)
        canvas.paint(canvas.ellipse(0.12, 0.16, 0.055, 0.055), blood)
        canvas.paint(canvas.ellipse(0.03, 0.11, 0.03, 0.022), 40)
    else:
        arch = canvas.stroke([(-0.05, -0.2), (0.06, -0.1), (0.14, 0.1)], 0.06) if rng.random() < 0.5 else None
        middle |= canvas.paint(arch or canvas.ellipse(0.13, 0.12, 0.055, 0.055), blood)
        if arch is None:
            middle |= canvas.paint(canvas.ellipse(-0.04, -0.17, 0.07, 0.075), blood)
            middle |= canvas.paint(canvas.stroke([(0.06, -0.17), (0.1, -0.06), (-0.14, 0.0)], [0.06, 0.05, 0.035]), blood)
        canvas.paint(canvas.ellipse(-0.14, -0.12, 0.04, 0.05), blood * 0.9)
        canvas.paint(canvas.ellipse(-0.02, 0.03, 0.045, 0.042), AIR)
        canvas.paint(canvas.ellipse(0.04, 0.12, 0.03, 0.025), 42)
    vertebra(canvas, 0, 0.3)
    bone = canvas.mask(canvas.ellipse(0, 0.27, 0.14, 0.12))
    for name in ("Left Lung", "Right Lung"):
        masks[name] &= ~(middle | bone)
    lungs &= ~(middle | bone)
    masks["Cardiomediastinum"] = middle & ~bone
    lung_texture(canvas, lungs, hilum=0.2, blood=blood)
    rib_ring(canvas, inner_x + 0.035, inner_y + 0.04, cy=0.0)
    canvas.paint(canvas.ellipse(0, -inner_y - 0.03, 0.09, 0.03, power=3), BONE)
    if rng.random() < 0.35:
        for s in (-1, 1):
            canvas.paint(canvas.ellipse(s * 0.62, 0.34, 0.012, 0.16, angle=s * 0.8), BONE + 100, within=body & ~lungs)
    return masks


def _coronal(canvas: Canvas, *, blood: float, lung: float) -> dict[str, Mask]:
    """A coronal chest: shoulders, lungs, heart and great vessels, liver and spleen under the diaphragm."""
    rng = canvas.rng
    half = float(rng.uniform(0.66, 0.76))
    fat = float(rng.uniform(0.03, 0.1))
    outer = [(-0.2, -1.3), (-0.22, -0.82), (-half - 0.1, -0.66), (-half, -0.1), (-half, 1.3)]
    points = outer + [(-x, y) for x, y in reversed(outer)]
    body = canvas.paint(canvas.polygon(points, rounding=0.05), FAT)
    shrink = [(x * (1 - fat), y + (fat * 0.6 if y < -0.5 else 0)) for x, y in points]
    canvas.paint(canvas.polygon(shrink, rounding=0.02), MUSCLE + 6 * canvas.noise(30))
    base, apex = float(rng.uniform(0.42, 0.56)), -0.66
    masks: dict[str, Mask] = {"body": body}
    lungs = np.zeros_like(body)
    dome = {1: base + 0.05, -1: base - 0.03}
    masks["liver"] = canvas.paint(canvas.blob(-0.24, base + 0.17, 0.42, 0.3, angle=-0.1, power=2.6, rough=0.03), 60 + 0.25 * blood)
    masks["spleen"] = canvas.paint(canvas.blob(0.46, base + 0.22, 0.13, 0.2, angle=0.4, rough=0.04), 60 + 0.3 * blood)
    canvas.paint(canvas.blob(0.24, base + 0.2, 0.13, 0.14, rough=0.08), AIR if rng.random() < 0.6 else 20)
    for name, s in (("Left Lung", 1), ("Right Lung", -1)):
        outline = [(s * 0.1, apex + 0.12), (s * 0.22, apex), (s * 0.4, apex + 0.12), (s * (half - 0.13), -0.1),
                   (s * (half - 0.1), dome[s] + 0.12), (s * 0.38, dome[s] - 0.06), (s * 0.13, dome[s] - 0.02)]
        masks[name] = canvas.paint(canvas.polygon(outline, rounding=0.035), lung)
        lungs |= masks[name]
    middle = canvas.paint(canvas.polygon([(-0.1, -0.8), (0.1, -0.8), (0.13, base), (-0.15, base)], rounding=0.02), 20)
    middle |= canvas.paint(canvas.blob(0.13, base - 0.2, 0.27, 0.21, angle=0.45, rough=0.03), 62)
    canvas.paint(canvas.blob(0.17, base - 0.18, 0.19, 0.12, angle=0.5, rough=0.05), blood, soft=3)
    canvas.paint(canvas.blob(-0.06, base - 0.24, 0.08, 0.14, rough=0.05), blood, soft=3)
    middle |= canvas.paint(canvas.stroke([(0.02, base - 0.3), (-0.02, -0.2), (0.1, -0.26)], [0.06, 0.06, 0.07]), blood)
    middle |= canvas.paint(canvas.stroke([(-0.12, base - 0.3), (-0.11, -0.5)], 0.035), blood * 0.9)
    airway = canvas.stroke([(0, -1.1), (0, -0.12)], 0.035)
    masks["Airways"] = canvas.paint(airway, AIR)
    for s in (-1, 1):
        masks["Airways"] |= canvas.paint(canvas.stroke([(0, -0.13), (s * 0.15, -0.01)], 0.027), AIR)
    for name in ("Left Lung", "Right Lung"):
        masks[name] &= ~middle
    lungs &= ~middle
    masks["Cardiomediastinum"] = middle & ~masks["Airways"]
    lung_texture(canvas, lungs, hilum=0.14, blood=blood)
    for s in (-1, 1):
        for i in range(7):
            x = half - 0.09 + 0.02 * min(i, 2) - (0.14 if i == 0 else 0)
            rib(canvas, s * x, apex + 0.1 + 0.165 * i, s * 1.2, length=0.02)
        canvas.paint(canvas.ellipse(s * (half + 0.0), -0.66, 0.07, 0.06), BONE + 100)
        canvas.paint(canvas.stroke([(s * 0.1, -0.72), (s * 0.4, -0.8)], 0.02), BONE + 200)
    return masks


def _lesion(canvas: Canvas, masks: dict[str, Mask], *, plane: str, finding: str) -> dict[str, str]:
    """Paint a lesion into one lung (an effusion along its dependent edge), add its masks; returns its side and size."""
    rng = canvas.rng
    side = str(rng.choice(["left", "right"]))
    lung = masks[f"{side.capitalize()} Lung"]
    large = bool(rng.random() < 0.5)
    if finding == "nodule":
        radius = float(rng.uniform(0.055, 0.085) if large else rng.uniform(0.025, 0.045))
        x, y = canvas.place_in(lung, clearance=radius + 0.02)
        shape = canvas.blob(x, y, radius, radius * rng.uniform(0.8, 1.2), rough=float(rng.uniform(0.03, 0.18)), waves=(3, 9))
        lesion = canvas.paint(shape, float(rng.uniform(20, 70)), within=lung, soft=1.5)
    elif finding == "consolidation":
        radius = float(rng.uniform(0.19, 0.27) if large else rng.uniform(0.1, 0.15))
        x, y = canvas.place_in(lung, clearance=radius * 0.5)
        shape = canvas.blob(x, y, radius, radius * rng.uniform(0.7, 1.1), rough=0.22)
        dense = np.float32(rng.uniform(10, 50)) + 60 * np.minimum(canvas.noise(36), 0.4)
        lesion = canvas.paint(shape, dense, within=lung, soft=10, opacity=float(rng.uniform(0.75, 1)))
        for _ in range(3):  # air bronchograms
            a = float(rng.uniform(0, 2 * np.pi))
            tip = (x + radius * 0.7 * np.cos(a), y + radius * 0.7 * np.sin(a))
            canvas.paint(canvas.stroke([(x, y), tip], [0.012, 0.006]), -800, within=lesion)
    else:
        rows = canvas.y[lung]
        deep = float(np.quantile(rows, rng.uniform(0.5, 0.68) if large else rng.uniform(0.78, 0.88)))
        outer = mirrored(side) * canvas.x
        slope = 0.16 if plane == "axial" else 0.3  # the meniscus climbs along the chest wall
        lesion = lung & (canvas.y > deep + slope * (np.float32(np.median(outer[lung])) - outer))
        seam = ndimage.binary_dilation(lesion, iterations=2) & ~lung & (canvas.values < -100)  # the lung's half-covered edge
        canvas.fill(lesion | seam, float(rng.uniform(0, 22)))
    masks["lesion"] = lesion
    masks[{"consolidation": "Consolidation", "effusion": "Pleural Effusion"}.get(finding, finding)] = lesion
    return {"side": side, "size": "large" if large else "small"}
