"""Heads with known truth: CT (axial) and MRI (axial, coronal, sagittal; T1, T2, FLAIR), whole or with a lesion.

One anatomy is painted for every contrast: each tissue is a name, and :data:`CONTRASTS` says how bright it is (HU for CT,
arbitrary units for MRI). Lesions are named the same way, so an infarct is dark on CT and bright on FLAIR.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from msmedcap.data.phantoms.canvas import Canvas, Field, Mask, grain, mirrored
from msmedcap.data.phantoms.phantom import Phantom, finish, percentile_window
from msmedcap.data.scans import Window

FINDINGS = ("no findings", "hemorrhage", "infarct", "mass")

CONTRASTS: dict[str, dict[str, float]] = {
    "CT": dict(
        air=-1000, skin=20, fat=-90, muscle=55, bone=1100, marrow=550, csf=6, grey=39, white=28, deep=38, blood=72, infarct=17,
        edema=16, tumor=52, core=14, eye=12, vessel=48, falx=55, plexus=150,
    ),
    "T1-weighted": dict(
        air=15, skin=420, fat=900, muscle=330, bone=50, marrow=620, csf=130, grey=420, white=560, deep=470, blood=760,
        infarct=330, edema=350, tumor=300, core=170, eye=140, vessel=90, falx=300, plexus=330,
    ),
    "T2-weighted": dict(
        air=12, skin=380, fat=640, muscle=190, bone=40, marrow=430, csf=980, grey=520, white=370, deep=430, blood=200,
        infarct=760, edema=780, tumor=640, core=930, eye=960, vessel=50, falx=300, plexus=560,
    ),
    "FLAIR": dict(
        air=12, skin=300, fat=520, muscle=200, bone=40, marrow=320, csf=70, grey=470, white=370, deep=430, blood=620,
        infarct=820, edema=840, tumor=720, core=330, eye=110, vessel=60, falx=260, plexus=300,
    ),
}
SEQUENCES = tuple(name for name in CONTRASTS if name != "CT")


def make(rng: np.random.Generator, size: int, *, modality: str, plane: str, finding: str) -> Phantom:
    """A head; ``modality`` "CT" or "MRI", ``finding`` one of :data:`FINDINGS`."""
    sequence = "" if modality == "CT" else str(rng.choice(SEQUENCES))
    tissue = {k: v * float(np.exp(rng.normal(0, 0.05))) for k, v in CONTRASTS[sequence or "CT"].items()}
    canvas = Canvas(rng, size, fill=tissue["air"], turn=0.07, zoom=(0.86, 1.08), bend=0.014)
    painters = {"axial": _axial, "coronal": _coronal, "sagittal": _sagittal}
    masks = painters[plane](canvas, tissue)
    facts = {"modality": modality, "plane": plane, "part": "head", "sequence": sequence, "finding": finding}
    if finding != "no findings":
        facts |= _lesion(canvas, tissue, masks, finding=finding, sided=plane != "sagittal")
    values = ndimage.gaussian_filter(canvas.values, rng.uniform(0.4, 1.0) * size / 320)
    spacing = 250 / size / canvas.scale
    if modality == "CT":
        return _as_ct(values, masks, facts, rng=rng, spacing=spacing)
    return as_mri(values, masks, facts, rng=rng, spacing=spacing)


def _as_ct(
    values: Field, masks: dict[str, Mask], facts: dict[str, str], *, rng: np.random.Generator, spacing: float
) -> Phantom:
    if rng.random() < 0.7:  # the head rest
        rows = np.linspace(-1, 1, len(values), dtype=np.float32)
        radius = np.hypot(rows[None, :], rows[:, None] - 0.1)
        rest = (np.abs(radius - rng.uniform(0.93, 0.97)) < 0.012) & (rows[:, None] > rng.uniform(0.3, 0.6)) & ~masks["body"]
        values = np.where(rest, np.float32(120), values)
    values = values + grain(rng, values.shape, sigma=rng.uniform(0.5, 1.0)) * rng.uniform(2, 5.5)
    window = Window(80, 40) if rng.random() < 0.75 else Window(float(rng.integers(70, 160)), float(rng.integers(34, 50)))
    if facts["finding"] == "no findings" and rng.random() < 0.2:
        window = Window(2500, 480)
    return finish(values, masks, facts, window=window, limits=(-1024, 3071), spacing=spacing)


def as_mri(
    values: Field, masks: dict[str, Mask], facts: dict[str, str], *, rng: np.random.Generator, spacing: float
) -> Phantom:
    """Give a painted slice what an MR scanner adds: coil shading, Rician noise and a window on an arbitrary scale."""
    shape = values.shape
    rows = np.linspace(-1, 1, shape[0], dtype=np.float32)
    tilt_x, tilt_y, bowl = (np.float32(v) for v in rng.normal(0, [0.09, 0.09, 0.08]))
    shading = 1 + tilt_x * rows[None, :] + tilt_y * rows[:, None] + bowl * (rows[None, :] ** 2 + rows[:, None] ** 2 - 0.5)
    sigma, blur = rng.uniform(6, 30), rng.uniform(0.3, 0.7)
    real = values * shading + sigma * grain(rng, shape, sigma=blur)
    made = np.hypot(real, sigma * grain(rng, shape, sigma=blur)) * np.float32(rng.uniform(0.5, 1.6))
    return finish(made, masks, facts, window=percentile_window(made, rng), limits=(0, 4095), spacing=spacing)


def _brain_texture(canvas: Canvas, tissue: dict[str, float], brain: Mask, *, gyri: int = 17) -> None:
    """Grey ribbon, white matter and sulci: the ribbon follows the brain's edge and the zero lines of a smooth noise."""
    step = 2
    depth = ndimage.distance_transform_edt(np.pad(brain[::step, ::step], 1))[1:-1, 1:-1]
    depth = np.repeat(np.repeat(depth, step, 0), step, 1)[: canvas.size, : canvas.size].astype(np.float32) * step * canvas.pixel
    fold = np.abs(canvas.noise(gyri) + np.float32(0.35) * canvas.noise(gyri * 2))
    reach = np.float32(canvas.rng.uniform(0.16, 0.26))
    outer = np.clip((reach - depth) / reach, 0, 1)
    ribbon = np.clip(2.2 - fold / np.float32(0.32), 0, 1) * np.clip(outer * 3, 0, 1)
    ribbon = np.maximum(ribbon, np.clip((np.float32(0.055) - depth) / np.float32(0.02), 0, 1))
    width = np.float32(canvas.rng.uniform(0.08, 0.3))
    sulci = np.clip((width - fold) / np.float32(0.12), 0, 1) * np.clip(outer * 2.2, 0, 1)
    sulci = np.maximum(sulci, np.clip((np.float32(0.014) - depth) / np.float32(0.008), 0, 1))
    matter = tissue["white"] + ribbon * (tissue["grey"] - tissue["white"])
    matter += sulci * (tissue["csf"] - matter)
    matter *= 1 + np.float32(0.02) * canvas.noise(24)
    canvas.fill(brain, matter)


def _axial(canvas: Canvas, tissue: dict[str, float]) -> dict[str, Mask]:
    """An axial head: nose up; eyes and petrous bones on low slices, ventricles on middle ones, sulci alone on high ones."""
    rng = canvas.rng
    level = str(rng.choice(["low", "ventricles", "ventricles", "ventricles", "high"]))
    rx, ry = 0.67 + rng.normal(0, 0.02), 0.83 + rng.normal(0, 0.02)
    power = rng.uniform(2.1, 2.4)
    scalp, skull = rng.uniform(0.03, 0.06), rng.uniform(0.045, 0.075)
    if level == "low":
        canvas.paint(canvas.ellipse(0, -0.83, 0.1, 0.13), tissue["skin"])  # the nose
        for s in (-1, 1):
            canvas.paint(canvas.ellipse(s * (rx + 0.01), 0.12, 0.035, 0.13, angle=s * 0.2), tissue["skin"])  # the ears
    body = canvas.paint(canvas.ellipse(0, 0, rx, ry, power=power), tissue["skin"])
    canvas.paint(canvas.ellipse(0, 0, rx - 0.014, ry - 0.014, power=power), tissue["fat"])
    canvas.paint(canvas.ellipse(0, 0, rx - scalp, ry - scalp, power=power), tissue["bone"])
    canvas.paint(canvas.ellipse(0, 0, rx - scalp - 0.3 * skull, ry - scalp - 0.3 * skull, power=power), tissue["marrow"])
    inner = canvas.ellipse(0, 0, rx - scalp - 0.7 * skull, ry - scalp - 0.7 * skull, power=power)
    canvas.paint(inner, tissue["bone"])
    bx, by = rx - scalp - skull, ry - scalp - skull
    brain = canvas.paint(canvas.ellipse(0, 0, bx, by, power=power), tissue["csf"])
    masks = {"body": body, "brain": brain}
    if level == "low":
        masks["brain"] = _skull_base(canvas, tissue, brain, bx=bx, by=by)
    else:
        _brain_texture(canvas, tissue, brain)
        gap = rng.uniform(0.006, 0.016)
        for lo, hi in ((-by, -0.36 * by), (0.45 * by, by)) if level == "ventricles" else ((-by, by),):
            canvas.paint(canvas.stroke([(0, lo), (0, hi)], gap), tissue["csf"], within=brain)
            canvas.paint(canvas.stroke([(0, lo), (0, hi)], 0.006), tissue["falx"], within=brain)
        if level == "ventricles":
            masks["ventricles"] = _ventricles(canvas, tissue, brain)
    return masks


def _ventricles(canvas: Canvas, tissue: dict[str, float], brain: Mask) -> Mask:
    """Basal ganglia and thalami, the frontal horns, the third ventricle and the occipital horns or trigones."""
    rng = canvas.rng
    wide, tall = rng.uniform(0.6, 1.7), rng.uniform(0.85, 1.15)
    for s in (-1, 1):
        canvas.paint(canvas.ellipse(s * 0.25, -0.07, 0.07, 0.17, angle=s * 0.25), tissue["deep"], soft=4)
        canvas.paint(canvas.ellipse(s * 0.14, -0.18, 0.05, 0.1, angle=-s * 0.4), tissue["deep"], soft=4)
        canvas.paint(canvas.ellipse(s * 0.1, 0.1, 0.075, 0.12, angle=-s * 0.3), tissue["deep"], soft=4)
        for y in (-0.1, 0.0, 0.1):
            canvas.paint(canvas.ellipse(s * 0.42, y, 0.05, 0.014, angle=s * rng.uniform(-0.3, 0.3)), tissue["csf"], soft=2)
    shapes = [canvas.stroke([(0, -0.05), (0, 0.09)], 0.01 * wide + 0.004)]
    for s in (-1, 1):
        shapes.append(canvas.stroke(
            [(s * 0.035, -0.12 * tall), (s * 0.07, -0.25 * tall), (s * 0.14, -0.34 * tall)],
            [0.014 * wide + 0.006, 0.032 * wide, 0.022 * wide],
        ))
        shapes.append(canvas.stroke(
            [(s * 0.15, 0.18 * tall), (s * 0.21, 0.3 * tall), (s * 0.19, 0.43 * tall)],
            [0.02 * wide, 0.036 * wide, 0.02 * wide],
        ))
    found = np.zeros_like(brain)
    for shape in shapes:
        found |= canvas.paint(shape, tissue["csf"], within=brain)
    for s in (-1, 1):
        if rng.random() < 0.6:
            canvas.paint(canvas.blob(s * 0.2, 0.29 * tall, 0.018, 0.03, rough=0.2), tissue["plexus"])
    return found


def _skull_base(canvas: Canvas, tissue: dict[str, float], inner: Mask, *, bx: float, by: float) -> Mask:
    """Orbits, sinuses and petrous bones around the temporal lobes and the cerebellum; returns the brain's mask."""
    rng = canvas.rng
    canvas.fill(inner, tissue["muscle"])
    brain = np.zeros_like(inner)
    for s in (-1, 1):
        brain |= canvas.mask(canvas.blob(s * 0.33, -0.04, 0.23, 0.26, angle=-s * 0.5, rough=0.03), within=inner)
    brain |= canvas.mask(canvas.blob(0, 0.42, 0.5, 0.32, rough=0.02), within=inner)
    brain |= canvas.mask(canvas.ellipse(0, 0.12, 0.13, 0.17))
    _brain_texture(canvas, tissue, brain, gyri=24)
    canvas.paint(canvas.ellipse(0, 0.12, 0.12, 0.12), tissue["white"], soft=3)
    canvas.paint(canvas.ellipse(0, 0.29, 0.05 * rng.uniform(0.7, 1.5), 0.045), tissue["csf"])
    canvas.paint(canvas.polygon([(-0.1, -0.06), (0.1, -0.06), (0.06, 0.0), (-0.06, 0.0)]), tissue["csf"])
    for s in (-1, 1):
        canvas.paint(
            canvas.stroke([(s * bx, 0.3), (s * 0.4, 0.2), (s * 0.13, 0.03)], [0.07, 0.06, 0.025]), tissue["bone"]
        )
        canvas.paint(canvas.blob(s * 0.47, 0.23, 0.06, 0.045, rough=0.2), tissue["air"])
        canvas.paint(canvas.blob(s * 0.27, -0.5, 0.17, 0.2, angle=s * 0.3, rough=0.03), tissue["fat"])
        canvas.paint(canvas.stroke([(s * 0.27, -0.5), (s * 0.1, -0.22)], 0.018), tissue["muscle"])
        canvas.paint(canvas.ellipse(s * 0.3, -0.61, 0.115, 0.115), tissue["muscle"])
        canvas.paint(canvas.ellipse(s * 0.3, -0.61, 0.1, 0.1), tissue["eye"])
        canvas.paint(canvas.stroke([(s * 0.46, -0.5), (s * 0.36, -0.24)], 0.02), tissue["bone"])
    canvas.paint(canvas.polygon([(-0.09, -0.66), (0.09, -0.66), (0.08, -0.15), (-0.08, -0.15)], rounding=0.02), tissue["bone"])
    for y in (-0.58, -0.44, -0.3, -0.18):
        for s in (-1, 1):
            canvas.paint(canvas.ellipse(s * 0.045, y, 0.034, 0.055), tissue["air"])
    return brain & (canvas.y > -0.32)


def _coronal(canvas: Canvas, tissue: dict[str, float]) -> dict[str, Mask]:
    """A coronal head: vertex up, temporal lobes below, the tongue and jaw muscles under the skull base."""
    rng = canvas.rng
    canvas.paint(canvas.ellipse(0, 0.66, 0.44, 0.6, power=3), tissue["fat"])
    canvas.paint(canvas.ellipse(0, 0.66, 0.4, 0.58, power=3), tissue["muscle"])
    scalp, skull = rng.uniform(0.03, 0.055), rng.uniform(0.04, 0.06)
    body = canvas.paint(canvas.ellipse(0, -0.16, 0.68, 0.72, power=2.3), tissue["skin"])
    body |= canvas.mask(canvas.ellipse(0, 0.66, 0.44, 0.6, power=3))
    canvas.paint(canvas.ellipse(0, -0.16, 0.665, 0.705, power=2.3), tissue["fat"])
    canvas.paint(canvas.ellipse(0, -0.16, 0.68 - scalp, 0.72 - scalp, power=2.3), tissue["bone"])
    canvas.paint(canvas.ellipse(0, -0.16, 0.67 - scalp - skull * 0.3, 0.71 - scalp - skull * 0.3, power=2.3), tissue["marrow"])
    bx, by = 0.68 - scalp - skull, 0.72 - scalp - skull
    cranial = canvas.paint(canvas.ellipse(0, -0.16, bx, by, power=2.3), tissue["csf"])
    below = canvas.polygon([(-0.9, 0.42), (-0.1, 0.2), (0.1, 0.2), (0.9, 0.42), (0.9, 1.5), (-0.9, 1.5)])
    canvas.paint(below, tissue["muscle"], within=body)
    canvas.paint(canvas.stroke([(-0.62, 0.38), (-0.1, 0.2), (0.1, 0.2), (0.62, 0.38)], 0.025), tissue["bone"], within=body)
    brain = cranial & ~canvas.mask(below)
    _brain_texture(canvas, tissue, brain)
    for s in (-1, 1):
        canvas.paint(canvas.stroke([(s * 0.6, 0.0), (s * 0.38, 0.02), (s * 0.33, -0.06)], [0.022, 0.014, 0.01]), tissue["csf"])
        canvas.paint(canvas.ellipse(s * 0.22, -0.08, 0.07, 0.11, angle=s * 0.2), tissue["deep"], soft=4)
        canvas.paint(canvas.ellipse(s * 0.09, -0.02, 0.06, 0.08), tissue["deep"], soft=4)
        canvas.paint(canvas.ellipse(s * 0.3, 0.56, 0.1, 0.2), tissue["fat"])
        canvas.paint(canvas.ellipse(s * 0.3, 0.56, 0.06, 0.16), tissue["muscle"])
        canvas.paint(canvas.blob(s * 0.2, 0.43, 0.1, 0.09, rough=0.06), tissue["air"])
    canvas.paint(canvas.stroke([(0, -0.16 - by), (0, -0.28)], 0.012), tissue["csf"], within=brain)
    canvas.paint(canvas.stroke([(0, -0.16 - by), (0, -0.28)], 0.006), tissue["falx"], within=brain)
    canvas.paint(canvas.stroke([(-0.12, -0.25), (0.12, -0.25)], 0.018), tissue["white"], soft=2)
    wide = rng.uniform(0.6, 1.6)
    ventricles = canvas.paint(canvas.stroke([(0, -0.1), (0, 0.04)], 0.011 * wide), tissue["csf"])
    for s in (-1, 1):
        horn = canvas.stroke([(s * 0.03, -0.16), (s * 0.1, -0.2), (s * 0.17, -0.2)], [0.02 * wide, 0.036 * wide, 0.012 * wide])
        ventricles |= canvas.paint(horn, tissue["csf"], within=brain)
    canvas.paint(canvas.ellipse(0, 0.68, 0.2, 0.13), tissue["muscle"] * 1.1)
    canvas.paint(canvas.ellipse(0, 0.4, 0.07, 0.1, power=3), tissue["air"])
    return {"body": body, "brain": brain, "ventricles": ventricles}


def _sagittal(canvas: Canvas, tissue: dict[str, float]) -> dict[str, Mask]:
    """A midline sagittal head facing the picture's left: corpus callosum, brainstem, cerebellum, cord, face and neck."""
    rng = canvas.rng
    face = [(-0.62, -0.2), (-0.74, 0.1), (-0.88, 0.27), (-0.7, 0.36), (-0.74, 0.52), (-0.68, 0.78), (-0.3, 0.82)]
    neck = [(-0.24, 1.6), (0.45, 1.6), (0.42, 0.75), (0.62, 0.3), (0.3, -0.2)]
    outline = canvas.polygon(face + neck, rounding=0.04)
    canvas.paint(outline, tissue["fat"])
    canvas.paint(canvas.polygon([(x * 0.93, y) for x, y in face + neck]), tissue["muscle"])
    body = canvas.mask(outline) | canvas.paint(canvas.ellipse(0, -0.2, 0.82, 0.68), tissue["fat"])
    canvas.paint(canvas.ellipse(0, -0.2, 0.775, 0.635), tissue["bone"])
    canvas.paint(canvas.ellipse(0, -0.2, 0.76, 0.62), tissue["marrow"])
    cranial = canvas.paint(canvas.ellipse(0, -0.2, 0.73, 0.59), tissue["csf"])
    floor = canvas.polygon([(-0.9, 0.02), (-0.3, 0.1), (-0.12, 0.2), (-0.02, 0.42), (0.24, 0.4), (0.7, 0.3), (0.9, 1), (-0.9, 1)])
    canvas.paint(floor, tissue["muscle"], within=cranial)
    cerebrum = cranial & ~canvas.mask(floor) & (canvas.y < 0.04 + 0.1 * canvas.x)
    _brain_texture(canvas, tissue, cerebrum, gyri=19)
    cerebellum = canvas.mask(canvas.blob(0.34, 0.17, 0.24, 0.19, rough=0.03), within=cranial)
    folia = np.sin(60 * np.hypot(canvas.x - 0.12, canvas.y - 0.15) + canvas.noise(6)) > 0.3
    canvas.fill(cerebellum, np.where(folia, np.float32(tissue["white"]), np.float32(tissue["grey"])), soft=0.7)
    _midline(canvas, tissue, cerebrum)
    for i in range(5):  # the neck's vertebrae, in front of the cord
        y = 0.52 + 0.17 * i
        canvas.paint(canvas.ellipse(-0.06 + 0.02 * i, y, 0.085, 0.065, power=4), tissue["bone"])
        canvas.paint(canvas.ellipse(-0.06 + 0.02 * i, y, 0.072, 0.055, power=4), tissue["marrow"])
    airway = canvas.stroke([(-0.52, 0.33), (-0.3, 0.31), (-0.2, 0.45), (-0.19, 1.4)], [0.05, 0.05, 0.035, 0.035])
    canvas.paint(airway, tissue["air"])
    canvas.paint(canvas.blob(-0.58, 0.03, 0.1, 0.09, rough=0.08), tissue["air"])
    canvas.paint(canvas.ellipse(-0.34, 0.17, 0.12, 0.07), tissue["air"])
    canvas.paint(canvas.ellipse(-0.46, 0.54, 0.2, 0.12), tissue["muscle"] * 1.15)
    canvas.paint(canvas.ellipse(-0.64, 0.72, 0.045, 0.08), tissue["marrow"])
    if rng.random() < 0.5:
        canvas.paint(canvas.ellipse(-0.5, -0.32, 0.02, 0.02), tissue["vessel"])
    return {"body": body, "brain": cerebrum | cerebellum}


def _midline(canvas: Canvas, tissue: dict[str, float], cerebrum: Mask) -> None:
    rng = canvas.rng
    thick = rng.uniform(0.025, 0.04)
    arch = [(-0.2, -0.1), (-0.27, -0.2), (-0.22, -0.32), (0.0, -0.37), (0.2, -0.31), (0.27, -0.2)]
    canvas.paint(canvas.polygon([(-0.2, -0.14), (-0.2, -0.27), (0, -0.32), (0.2, -0.24), (0.05, -0.12)]), tissue["csf"], soft=2)
    canvas.paint(canvas.stroke(arch, [thick * 0.6, thick, thick, thick * 0.8, thick, thick * 1.3]), tissue["white"] * 1.05)
    canvas.paint(canvas.ellipse(0.02, -0.12, 0.11, 0.075), tissue["deep"], soft=3)
    stem = [(0.06, -0.02), (0.05, 0.12), (0.08, 0.28), (0.11, 0.45), (0.13, 1.4)]
    canvas.paint(canvas.stroke(stem, [0.12, 0.14, 0.11, 0.085, 0.085]), tissue["csf"])
    canvas.paint(canvas.stroke(stem, [0.075, 0.1, 0.07, 0.045, 0.042]), tissue["white"])
    canvas.paint(canvas.ellipse(0.0, 0.1, 0.075, 0.1), tissue["white"])
    canvas.paint(canvas.polygon([(0.13, 0.06), (0.2, 0.15), (0.14, 0.22)]), tissue["csf"], soft=2)
    canvas.paint(canvas.ellipse(-0.16, 0.06, 0.035, 0.025), tissue["grey"])
    canvas.paint(canvas.ellipse(-0.1, -0.02, 0.09, 0.03), tissue["csf"], soft=3)


def _lesion(
    canvas: Canvas, tissue: dict[str, float], masks: dict[str, Mask], *, finding: str, sided: bool
) -> dict[str, str]:
    """Paint a lesion into one hemisphere and add its mask; returns its side and size."""
    rng = canvas.rng
    side = str(rng.choice(["left", "right"])) if sided else ""
    large = bool(rng.random() < 0.5)
    home = masks["brain"] & (canvas.x * mirrored(side) > 0.03) if side else masks["brain"]
    radius = float(rng.uniform(0.12, 0.2) if large else rng.uniform(0.05, 0.085))
    x, y = canvas.place_in(home, clearance=radius + 0.03)
    rx, ry = radius * rng.uniform(0.8, 1.25), radius * rng.uniform(0.8, 1.25)
    turn = float(rng.uniform(0, np.pi))
    if finding == "infarct":
        core = canvas.blob(x, y, rx * 1.25, ry * 1.25, angle=turn, power=2.6, rough=0.14)
        lesion = canvas.paint(core, tissue["infarct"], within=home, soft=5, opacity=0.92)
    else:
        halo = canvas.blob(x, y, rx * 1.5, ry * 1.5, angle=turn, rough=0.16)
        if large or rng.random() < 0.5:
            canvas.paint(halo, tissue["edema"], within=home, soft=5, opacity=0.85)
        shape = canvas.blob(x, y, rx, ry, angle=turn, rough=0.1)
        rim = tissue["blood"] if finding == "hemorrhage" else tissue["tumor"]
        lesion = canvas.paint(shape, rim * (1 + np.float32(0.05) * canvas.noise(16)), within=home, soft=2)
        if finding == "mass" and (large or rng.random() < 0.4):
            canvas.paint(canvas.blob(x, y, rx * 0.55, ry * 0.6, angle=turn, rough=0.2), tissue["core"], within=lesion, soft=3)
    masks["lesion"] = lesion
    masks[finding] = lesion
    return {"side": side, "size": "large" if large else "small"}
