"""Abdomens (axial, coronal) and pelves (axial) on CT with known truth: whole or with a mass, a cyst or a stone.

Comes in: a part, a plane and a finding. Goes out: a phantom in HU through a soft-tissue or liver window, with masks of the
liver, spleen, kidneys, aorta and spine (abdomen) or bladder and hip bones (pelvis).
"""

from __future__ import annotations

import numpy as np

from msmedcap.data.phantoms.canvas import Canvas, Mask
from msmedcap.data.phantoms.chest_ct import (
    AIR,
    BONE,
    FAT,
    MUSCLE,
    SOFT_TISSUE,
    WATER,
    as_ct,
    rib,
    rib_ring,
    trunk_canvas,
    vertebra,
    wall,
)
from msmedcap.data.phantoms.phantom import Phantom
from msmedcap.data.scans import Window

FINDINGS = ("no findings", "mass", "cyst", "stone")
PELVIS_FINDINGS = ("no findings", "mass", "stone")
_SIDES = {"liver": "right", "kidney right": "right", "kidney left": "left", "spleen": "left"}


def make(rng: np.random.Generator, size: int, *, modality: str, plane: str, finding: str) -> Phantom:
    """An abdomen on CT; ``plane`` "axial" or "coronal", ``finding`` one of :data:`FINDINGS`."""
    canvas = trunk_canvas(rng, size)
    contrast = float(rng.uniform(0.4, 1.0)) if rng.random() < 0.7 else 0.0
    masks = (_axial if plane == "axial" else _coronal)(canvas, contrast=contrast)
    facts = {"modality": modality, "plane": plane, "part": "abdomen", "finding": finding}
    if finding != "no findings":
        facts |= _lesion(canvas, masks, finding=finding, contrast=contrast)
    window = Window(150, 90) if contrast and rng.random() < 0.2 else SOFT_TISSUE
    return as_ct(canvas, masks, facts, window=window, table=plane == "axial", field=420)


def make_pelvis(rng: np.random.Generator, size: int, *, modality: str, plane: str, finding: str) -> Phantom:
    """A pelvis on axial CT; ``finding`` one of :data:`PELVIS_FINDINGS`."""
    canvas = trunk_canvas(rng, size)
    masks = _hips(canvas) if rng.random() < 0.6 else _ilium(canvas)
    facts = {"modality": modality, "plane": plane, "part": "pelvis", "finding": finding}
    if finding != "no findings":
        facts |= _pelvic_lesion(canvas, masks, finding=finding)
    window = Window(2500, 480) if finding == "no findings" and rng.random() < 0.15 else SOFT_TISSUE
    return as_ct(canvas, masks, facts, window=window, table=True, field=420)


def _organ(canvas: Canvas, level: float) -> np.ndarray:
    return (level + 5 * canvas.noise(36)).astype(np.float32)


def _bowel(canvas: Canvas, x: float, y: float, radius: float, *, within: Mask) -> None:
    """A cross-section of bowel: a wall around fluid, gas above a level, oral contrast or stool."""
    rng = canvas.rng
    loop = canvas.blob(x, y, radius, radius * rng.uniform(0.7, 1.1), angle=rng.uniform(0, 3), rough=0.1)
    canvas.paint(loop, 48, within=within)
    inside = canvas.blob(x, y, radius * 0.72, radius * 0.66, rough=0.1)
    kind = rng.random()
    content = float(rng.uniform(250, 500)) if kind < 0.3 else 15.0
    lumen = canvas.paint(inside, content, within=within)
    if kind > 0.6:
        canvas.fill(lumen & (canvas.y < y + radius * rng.uniform(-0.3, 0.4)), -900)
    elif kind > 0.5:
        canvas.fill(lumen, 20 - 130 * np.abs(canvas.noise(90)))


def _kidney(canvas: Canvas, x: float, y: float, side: int, *, contrast: float, tall: bool) -> Mask:
    rng = canvas.rng
    rx, ry = (0.09, 0.2) if tall else (0.105, 0.13)
    scale = float(rng.uniform(0.88, 1.15))
    lean = side * (0.2 if tall else 0.5) * (-1 if tall else 1)
    kidney = canvas.paint(canvas.blob(x, y, rx * scale, ry * scale, angle=lean, rough=0.03), _organ(canvas, 34 + 150 * contrast))
    hilum = canvas.blob(x - side * 0.065, y, 0.05, ry * 0.42, angle=lean, rough=0.12)
    canvas.paint(hilum, FAT + 20, within=canvas.mask(canvas.ellipse(x, y, 0.2, 0.3)), soft=2)
    if contrast and rng.random() < 0.5:
        for shift in (-0.3, 0.0, 0.3):
            canvas.paint(canvas.ellipse(x + side * 0.005, y + shift * ry, 0.028, 0.022), 60 + 70 * contrast, within=kidney, soft=3)
    return kidney & ~canvas.mask(hilum)


def _axial(canvas: Canvas, *, contrast: float) -> dict[str, Mask]:
    rng = canvas.rng
    rx, ry = float(rng.uniform(0.76, 0.92)), float(rng.uniform(0.54, 0.68))
    fat, blood = float(rng.uniform(0.03, 0.13)), 42 + 170 * contrast
    upper = rng.random() < 0.65  # liver, spleen and stomach; otherwise kidneys, bowel and the liver's tip
    body = wall(canvas, rx, ry, fat=fat, muscle=0.045)
    ax, ay = rx - fat - 0.05, ry - 0.8 * fat - 0.05
    cavity = canvas.mask(canvas.ellipse(0, 0, ax, ay, power=2.4))
    masks: dict[str, Mask] = {"body": body}
    for _ in range(int(rng.integers(2, 6)) if upper else int(rng.integers(8, 15))):
        x = float(rng.uniform(-0.1, 0.75) if upper else rng.uniform(-0.7, 0.75)) * ax
        _bowel(canvas, x, float(rng.uniform(-0.75, -0.15)) * ay, float(rng.uniform(0.06, 0.11)), within=cavity)
    if upper:
        if rng.random() < 0.85:
            x, y = 0.36 * ax, -0.5 * ay
            stomach = canvas.paint(canvas.blob(x, y, 0.24, 0.15, angle=0.4, rough=0.06), 50, within=cavity)
            canvas.paint(canvas.blob(x, y, 0.215, 0.125, angle=0.4, rough=0.05), float(rng.choice([10, 40, 300])), within=stomach)
            canvas.fill(stomach & (canvas.y < y - 0.05), AIR)
        spleen = canvas.blob(0.76 * ax, 0.14, 0.12, 0.24, angle=0.25, rough=0.05)
        masks["spleen"] = canvas.paint(spleen, _organ(canvas, 50 + 75 * contrast), within=cavity)
        pancreas = canvas.blob(0.12, -0.09, 0.2, 0.05, angle=-0.25, rough=0.12)
        canvas.paint(pancreas, _organ(canvas, 42 + 60 * contrast), within=cavity)
    level = 58 + 55 * contrast - (30 if rng.random() < 0.12 else 0)
    texture = _organ(canvas, level)
    if upper:
        right_lobe = canvas.blob(-0.5 * ax, -0.05, 0.54 * ax, 0.78 * ay, angle=0.1, power=2.3, rough=0.03)
        left_lobe = canvas.blob(-0.08 * ax, -0.55 * ay, 0.42 * ax, 0.24 * ay, angle=-0.1, rough=0.05)
        liver = canvas.paint(right_lobe, texture, within=cavity) | canvas.paint(left_lobe, texture, within=cavity)
        for _ in range(4):
            x, y, a = -0.12, -0.1, rng.uniform(2.2, 4.2)
            ends = [(x, y), (x + 0.25 * np.cos(a), y + 0.25 * np.sin(a)), (x + 0.45 * np.cos(a + 0.3), y + 0.4 * np.sin(a + 0.3))]
            canvas.paint(canvas.stroke(ends, [0.018, 0.012, 0.005]), level + 12 + 45 * contrast, within=liver, soft=3)
        if rng.random() < 0.4:
            bladder = canvas.paint(canvas.blob(-0.32 * ax, -0.42 * ay, 0.075, 0.1, angle=0.4, rough=0.04), WATER, within=cavity)
            masks["gallbladder"] = bladder
            liver &= ~bladder
        masks["liver"] = liver
    else:
        masks["liver"] = canvas.paint(canvas.blob(-0.85 * ax, 0.0, 0.16, 0.3, angle=-0.1, rough=0.04), texture, within=cavity)
    _behind(canvas, masks, contrast=contrast, blood=blood, kidneys=not upper or rng.random() < 0.6)
    if upper:
        rib_ring(canvas, ax + 0.02, ay + 0.02, cy=0.0, count=6)
    return masks


def _behind(canvas: Canvas, masks: dict[str, Mask], *, contrast: float, blood: float, kidneys: bool) -> None:
    """The retroperitoneum: kidneys, psoas, spine, aorta in front of it to the left, vena cava to the right."""
    rng = canvas.rng
    if kidneys:
        for name, s, drop in (("kidney left", 1, 0.0), ("kidney right", -1, 0.03)):
            canvas.paint(canvas.ellipse(s * 0.33, 0.2 + drop, 0.155, 0.17), FAT)
            masks[name] = _kidney(canvas, s * 0.33, 0.2 + drop, s, contrast=contrast, tall=False)
    for s in (-1, 1):
        canvas.paint(canvas.blob(s * 0.17, 0.24, 0.055, 0.08, rough=0.06), MUSCLE)
    masks["spine"] = vertebra(canvas, 0, 0.25)
    masks["aorta"] = canvas.paint(canvas.ellipse(0.06, 0.06, 0.052, 0.052), blood)
    if rng.random() < 0.3:
        canvas.paint(canvas.stroke([(0.09, 0.095), (0.115, 0.06)], 0.008), 500)
    canvas.paint(canvas.ellipse(-0.09, 0.07, 0.055, 0.042, angle=0.2), blood * 0.85)
    canvas.paint(canvas.ellipse(-0.01, -0.03, 0.026, 0.026), blood)
    for name in ("liver", "spleen"):
        if name in masks:
            hidden = masks["spine"] | masks["aorta"]
            for other in ("kidney left", "kidney right"):
                if other in masks:
                    hidden = hidden | masks[other]
            masks[name] &= ~hidden


def _coronal(canvas: Canvas, *, contrast: float) -> dict[str, Mask]:
    """A coronal abdomen: liver and spleen under the lung bases, kidneys beside the spine, bowel, iliac wings."""
    rng = canvas.rng
    half, fat = float(rng.uniform(0.6, 0.74)), float(rng.uniform(0.03, 0.12))
    outline = [(-half, -1.4), (-half * 0.97, -0.3), (-half * 0.92, 0.2), (-half * 1.05, 0.75), (-half, 1.4)]
    body = canvas.paint(canvas.polygon(outline + [(-x, y) for x, y in reversed(outline)]), 20)
    for trim, value in ((0.012, FAT), (fat, MUSCLE), (fat + 0.045, FAT)):
        inner = [(x + trim, y) for x, y in outline]
        cavity = canvas.paint(canvas.polygon(inner + [(-x, y) for x, y in reversed(inner)]), value)
    masks: dict[str, Mask] = {"body": body}
    edge = half - fat - 0.05
    dome = float(rng.uniform(-0.66, -0.5))
    for s in (-1, 1):
        lung = canvas.paint(canvas.blob(s * 0.36, dome - 0.25, 0.27, 0.42, power=2.6, rough=0.02), -840, within=cavity)
        masks["Left Lung" if s > 0 else "Right Lung"] = lung
    canvas.paint(canvas.polygon([(-0.09, -1.3), (0.09, -1.3), (0.1, dome), (-0.12, dome)]), 30, within=cavity)
    canvas.paint(canvas.blob(0.13, dome - 0.04, 0.3, 0.17, angle=0.3, rough=0.04), 45 + 120 * contrast, within=cavity)
    for _ in range(int(rng.integers(10, 17))):
        x, y = float(rng.uniform(-0.8, 0.8)) * edge, float(rng.uniform(0.25, 0.75))
        _bowel(canvas, x, y, float(rng.uniform(0.06, 0.11)), within=cavity)
    texture = _organ(canvas, 58 + 55 * contrast)
    liver = [(-edge + 0.02, dome + 0.12), (-0.5 * edge, dome), (0.1, dome + 0.1), (0.28, dome + 0.12), (0.0, dome + 0.36),
             (-0.32, dome + 0.58), (-edge + 0.04, dome + 0.78)]
    masks["liver"] = canvas.paint(canvas.polygon(liver, rounding=0.03), texture, within=cavity)
    stomach = canvas.paint(canvas.blob(0.24, dome + 0.24, 0.12, 0.17, angle=0.4, rough=0.06), 40, within=cavity & ~masks["liver"])
    canvas.fill(stomach & (canvas.y < dome + 0.2), AIR)
    spleen = canvas.blob(edge - 0.12, dome + 0.3, 0.11, 0.2, angle=0.2, rough=0.05)
    masks["spleen"] = canvas.paint(spleen, _organ(canvas, 50 + 75 * contrast), within=cavity)
    for name, s in (("kidney left", 1), ("kidney right", -1)):
        y = dome + (0.62 if s > 0 else 0.7)
        canvas.paint(canvas.ellipse(s * 0.3, y, 0.13, 0.24, angle=-s * 0.2), FAT)
        masks[name] = _kidney(canvas, s * 0.3, y, s, contrast=contrast, tall=True)
    for organ in ("liver", "spleen"):
        masks[organ] &= ~canvas.mask(canvas.ellipse(0.3, dome + 0.62, 0.13, 0.24, angle=-0.2))
        masks[organ] &= ~canvas.mask(canvas.ellipse(-0.3, dome + 0.7, 0.13, 0.24, angle=0.2))
    for s in (-1, 1):
        canvas.paint(canvas.stroke([(s * 0.12, dome + 0.5), (s * 0.24, 0.75)], [0.04, 0.075]), MUSCLE)
    deep = rng.random() < 0.5
    if deep:
        spine = np.zeros_like(body)
        for i in range(9):
            spine |= canvas.paint(canvas.ellipse(0, dome - 0.05 + 0.175 * i, 0.1, 0.07, power=4), BONE + 80)
            canvas.paint(canvas.ellipse(0, dome - 0.05 + 0.175 * i, 0.088, 0.058, power=4), 210 + 40 * canvas.noise(50))
        masks["spine"] = spine
    else:
        masks["aorta"] = canvas.paint(canvas.stroke([(0.05, dome), (0.04, 0.45)], 0.045), 42 + 170 * contrast)
        canvas.paint(canvas.stroke([(-0.07, dome + 0.2), (-0.06, 0.45)], 0.045), 42 + 140 * contrast)
        for s in (-1, 1):
            canvas.paint(canvas.stroke([(s * 0.045, 0.45), (s * 0.2, 0.75)], 0.03), 42 + 150 * contrast)
    for organ in ("liver", "spleen"):
        masks[organ] &= ~(masks["spine"] if deep else masks["aorta"])
    for s in (-1, 1):
        wing = [(s * (edge - 0.04), 0.5), (s * (edge - 0.16), 0.75), (s * (edge - 0.2), 1.0)]
        canvas.paint(canvas.stroke(wing, [0.03, 0.045, 0.06]), BONE)
        for i in range(4):
            rib(canvas, s * (edge + 0.01), dome - 0.2 + 0.16 * i, s * 1.3, length=0.03)
    return masks


def _lesion(canvas: Canvas, masks: dict[str, Mask], *, finding: str, contrast: float) -> dict[str, str]:
    """Paint a lesion into the liver, the spleen or a kidney, add its masks; returns its side and size."""
    rng = canvas.rng
    choices = [n for n in (("kidney left", "kidney right") if finding == "stone" else _SIDES) if n in masks and masks[n].sum() > 60]
    if not choices:  # a slice above the kidneys: the stone lies in the gallbladder
        return _gallstone(canvas, masks)
    organ = str(rng.choice(choices))
    large = bool(rng.random() < 0.5)
    if finding == "stone":
        radius = float(rng.uniform(0.035, 0.05) if large else rng.uniform(0.018, 0.028))
    else:
        radius = float(rng.uniform(0.11, 0.17) if large else rng.uniform(0.045, 0.075))
        radius *= 0.6 if organ.startswith("kidney") else 1
    x, y = canvas.place_in(masks[organ], clearance=radius + 0.01)
    rough = {"mass": 0.12, "cyst": 0.015, "stone": 0.12}[finding]
    shape = canvas.blob(x, y, radius, radius * float(rng.uniform(0.8, 1.2)), rough=rough)
    value = {"mass": 36 + 20 * contrast, "cyst": float(rng.uniform(0, 14)), "stone": float(rng.uniform(450, 1100))}[finding]
    lesion = canvas.paint(shape, value, within=masks[organ])
    if finding == "mass":
        canvas.add(shape, 14 * canvas.noise(40), within=masks[organ])
        if contrast and rng.random() < 0.6:
            canvas.paint(canvas.blob(x, y, radius * 0.55, radius * 0.5, rough=0.2), 22, within=lesion, soft=3)
    masks["lesion"] = masks[finding] = lesion
    return {"side": _SIDES[organ], "size": "large" if large else "small"}


def _gallstone(canvas: Canvas, masks: dict[str, Mask]) -> dict[str, str]:
    rng = canvas.rng
    if "gallbladder" not in masks:
        x, y = canvas.place_in(masks["liver"], clearance=0.1)
        masks["gallbladder"] = canvas.paint(canvas.blob(x, y, 0.08, 0.1, rough=0.04), WATER, within=masks["liver"])
        masks["liver"] = masks["liver"] & ~masks["gallbladder"]
    large = bool(rng.random() < 0.5)
    radius = float(rng.uniform(0.035, 0.05) if large else rng.uniform(0.018, 0.028))
    x, y = canvas.place_in(masks["gallbladder"], clearance=radius)
    stone = canvas.paint(canvas.blob(x, y, radius, radius, rough=0.06), float(rng.uniform(300, 800)), within=masks["gallbladder"])
    masks["lesion"] = masks["stone"] = stone
    return {"side": "right", "size": "large" if large else "small"}


def _hips(canvas: Canvas) -> dict[str, Mask]:
    """A slice through the hip joints: femoral heads in their sockets, pubic bones, bladder, rectum, buttocks."""
    rng = canvas.rng
    fat = float(rng.uniform(0.05, 0.14))
    body = wall(canvas, float(rng.uniform(0.84, 0.94)), float(rng.uniform(0.5, 0.58)), fat=fat, muscle=0.02)
    masks: dict[str, Mask] = {"body": body}
    bones = np.zeros_like(body)
    for s in (-1, 1):
        canvas.paint(canvas.blob(s * 0.34, 0.3, 0.27, 0.17, angle=-s * 0.35, rough=0.05), MUSCLE)
        canvas.paint(canvas.blob(s * 0.63, 0.02, 0.1, 0.22, rough=0.06), MUSCLE)
        canvas.paint(canvas.blob(s * 0.4, -0.27, 0.16, 0.1, angle=s * 0.4, rough=0.08), MUSCLE)
        canvas.paint(canvas.blob(s * 0.27, 0.03, 0.06, 0.17, rough=0.05), MUSCLE)
        canvas.paint(canvas.ellipse(s * 0.34, -0.36, 0.034, 0.034), float(rng.uniform(50, 190)))
        canvas.paint(canvas.ellipse(s * 0.27, -0.35, 0.036, 0.034), float(rng.uniform(45, 150)))
        cup = [(s * 0.42, -0.2), (s * 0.32, -0.06), (s * 0.34, 0.09), (s * 0.43, 0.17)]
        bones |= canvas.paint(canvas.stroke(cup, [0.04, 0.035, 0.04, 0.045]), BONE + 200)
        canvas.paint(canvas.stroke(cup, 0.018), 240)
        bones |= canvas.paint(canvas.ellipse(s * 0.48, -0.03, 0.125, 0.125), BONE + 250)
        canvas.paint(canvas.ellipse(s * 0.48, -0.03, 0.11, 0.11), 300 + 40 * canvas.noise(60))
        neck = canvas.stroke([(s * 0.56, 0.02), (s * 0.68, 0.08)], 0.06)
        bones |= canvas.paint(neck, BONE + 200)
        canvas.paint(canvas.stroke([(s * 0.54, 0.01), (s * 0.68, 0.08)], 0.045), 200)
        bones |= canvas.paint(canvas.stroke([(s * 0.36, -0.19), (s * 0.12, -0.27)], 0.03), BONE + 150)
    masks["hip bones"] = bones
    bladder = canvas.blob(0, -0.08, float(rng.uniform(0.15, 0.22)), float(rng.uniform(0.12, 0.17)), power=2.4, rough=0.04)
    canvas.paint(canvas.blob(0, -0.08, 0.21, 0.165, power=2.4, rough=0.02), 40)
    masks["bladder"] = canvas.paint(bladder, float(rng.choice([6, 12, 250])), within=~bones)
    canvas.paint(canvas.blob(0, 0.12, 0.17, 0.055, rough=0.1), 50)
    rectum = canvas.paint(canvas.blob(0, 0.25, 0.075, 0.07, rough=0.08), 45)
    canvas.paint(canvas.blob(0, 0.24, 0.05, 0.04, rough=0.15), float(rng.choice([-900, 20])), within=rectum)
    canvas.paint(canvas.stroke([(-0.05, 0.36), (0, 0.375), (0.05, 0.36)], 0.03), BONE)
    canvas.paint(canvas.stroke([(0, 0.42), (0, 0.7)], 0.014), FAT, within=body)
    return masks


def _ilium(canvas: Canvas) -> dict[str, Mask]:
    """A slice through the iliac wings and the sacrum, with bowel and vessels in front."""
    rng = canvas.rng
    fat = float(rng.uniform(0.05, 0.14))
    rx, ry = float(rng.uniform(0.8, 0.92)), float(rng.uniform(0.5, 0.6))
    body = wall(canvas, rx, ry, fat=fat, muscle=0.04)
    masks: dict[str, Mask] = {"body": body}
    cavity = canvas.mask(canvas.ellipse(0, -0.05, rx - fat - 0.08, ry - fat - 0.06))
    for _ in range(int(rng.integers(8, 14))):
        x, y = float(rng.uniform(-0.45, 0.45)), float(rng.uniform(-0.36, 0.0))
        _bowel(canvas, x, y, float(rng.uniform(0.05, 0.1)), within=cavity)
    bones = np.zeros_like(body)
    for s in (-1, 1):
        canvas.paint(canvas.blob(s * 0.38, 0.33, 0.25, 0.12, angle=-s * 0.5, rough=0.05), MUSCLE)
        canvas.paint(canvas.blob(s * 0.56, 0.02, 0.08, 0.22, angle=-s * 0.35, rough=0.06), MUSCLE)
        canvas.paint(canvas.blob(s * 0.36, 0.02, 0.1, 0.17, angle=-s * 0.3, rough=0.06), MUSCLE)
        wing = [(s * 0.55, -0.2), (s * 0.47, 0.02), (s * 0.33, 0.2), (s * 0.2, 0.32)]
        bones |= canvas.paint(canvas.stroke(wing, [0.035, 0.025, 0.04, 0.05]), BONE + 220)
        canvas.paint(canvas.stroke(wing, [0.018, 0.008, 0.022, 0.03]), 230)
        canvas.paint(canvas.ellipse(s * 0.17, 0.02, 0.036, 0.034), float(rng.uniform(50, 200)))
    sacrum = canvas.polygon([(-0.22, 0.13), (0.22, 0.13), (0.15, 0.3), (0.05, 0.38), (-0.05, 0.38), (-0.15, 0.3)], rounding=0.03)
    bones |= canvas.paint(sacrum, BONE + 150)
    canvas.paint(sacrum, 220 + 45 * canvas.noise(50), soft=8)
    for s in (-1, 1):
        canvas.paint(canvas.ellipse(s * 0.09, 0.26, 0.025, 0.025), 10)
    masks["hip bones"] = bones
    return masks


def _pelvic_lesion(canvas: Canvas, masks: dict[str, Mask], *, finding: str) -> dict[str, str]:
    """A stone in the bladder (or bowel-side ureter), or a soft mass beside the midline; returns its side and size."""
    rng = canvas.rng
    large = bool(rng.random() < 0.5)
    side = str(rng.choice(["left", "right"]))
    s = 1 if side == "left" else -1
    if finding == "stone":
        radius = float(rng.uniform(0.035, 0.055) if large else rng.uniform(0.018, 0.026))
        home = masks.get("bladder", canvas.mask(canvas.ellipse(s * 0.26, 0.1, 0.03, 0.03)))
        side = "" if "bladder" in masks else side
        if "bladder" in masks:
            canvas.fill(home, WATER)
        x, y = canvas.place_in(home, clearance=radius) if "bladder" in masks else (s * 0.26, 0.1)
        lesion = canvas.paint(canvas.blob(x, y, radius, radius, rough=0.08), float(rng.uniform(450, 1100)))
    else:
        radius = float(rng.uniform(0.13, 0.18) if large else rng.uniform(0.07, 0.1))
        home = masks["body"] & ~masks["hip bones"]
        shape = canvas.blob(s * rng.uniform(0.13, 0.2), rng.uniform(-0.2, -0.1), radius, radius * 0.9, rough=0.1)
        lesion = canvas.paint(shape, 52 + 9 * canvas.noise(30), within=home)
        if "bladder" in masks:
            masks["bladder"] = masks["bladder"] & ~lesion
        if large:
            core = canvas.blob(s * 0.17, -0.15, radius * 0.4, radius * 0.4, rough=0.2)
            canvas.paint(core, 20, within=lesion, soft=4)
    masks["lesion"] = masks[finding] = lesion
    return {"side": side, "size": "large" if large else "small"}
