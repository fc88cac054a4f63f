"""Spines (sagittal) and knees (coronal, sagittal) on MRI with known truth.

A spine is whole or has a disc herniation or a fracture; a knee is whole or has an effusion, a fracture or a tear. As with the
heads, one anatomy serves every contrast: :data:`CONTRASTS` says how bright each tissue is on T1, T2 and fat-suppressed
proton density.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from msmedcap.data.phantoms.canvas import Canvas, Mask, Shape
from msmedcap.data.phantoms.heads import as_mri
from msmedcap.data.phantoms.phantom import Phantom

SPINE_FINDINGS = ("no findings", "disc herniation", "fracture")
KNEE_FINDINGS = ("no findings", "effusion", "fracture", "tear")

CONTRASTS: dict[str, dict[str, float]] = {
    "T1-weighted": dict(
        air=12, fat=900, muscle=290, marrow=560, cortex=50, disc=330, rim=200, csf=150, cord=400, ligament=60,
        cartilage=400, meniscus=60, fluid=170, edema=250, vessel=60, organ=330,
    ),
    "T2-weighted": dict(
        air=12, fat=640, muscle=170, marrow=400, cortex=45, disc=620, rim=170, csf=950, cord=360, ligament=50,
        cartilage=480, meniscus=55, fluid=980, edema=720, vessel=70, organ=330,
    ),
    "proton density": dict(
        air=12, fat=190, muscle=330, marrow=170, cortex=40, disc=560, rim=190, csf=820, cord=420, ligament=45,
        cartilage=640, meniscus=60, fluid=1000, edema=680, vessel=90, organ=330,
    ),
}


def _start(rng: np.random.Generator, size: int, *, sequences: tuple[str, ...], turn: float) -> tuple[Canvas, dict[str, float], str]:
    sequence = str(rng.choice(sequences))
    tissue = {k: v * float(np.exp(rng.normal(0, 0.06))) for k, v in CONTRASTS[sequence].items()}
    canvas = Canvas(rng, size, fill=tissue["air"], turn=turn, zoom=(0.9, 1.15), bend=0.02)
    return canvas, tissue, sequence


def _finished(canvas: Canvas, masks: dict[str, Mask], facts: dict[str, str], *, field: float) -> Phantom:
    rng, size = canvas.rng, canvas.size
    values = ndimage.gaussian_filter(canvas.values, rng.uniform(0.4, 1.0) * size / 320)
    if rng.random() < 0.4:  # a surface coil: bright near it, fading across the picture
        side = canvas.x if rng.random() < 0.6 else -canvas.y
        values *= np.exp(np.float32(rng.uniform(0.1, 0.5)) * side)
    return as_mri(values, masks, facts, rng=rng, spacing=field / size / canvas.scale)


def make_spine(rng: np.random.Generator, size: int, *, modality: str, plane: str, finding: str) -> Phantom:
    """A sagittal spine on MRI, front to the picture's left; ``finding`` one of :data:`SPINE_FINDINGS`."""
    canvas, tissue, sequence = _start(rng, size, sequences=("T1-weighted", "T2-weighted", "T2-weighted"), turn=0.04)
    back = float(rng.uniform(0.5, 0.72))
    edges = [(-1.4, -1.5), (back - 0.05, -1.5), (back, -0.3), (back - 0.08, 0.4), (back + 0.1, 0.9), (back, 1.5), (-1.4, 1.5)]
    body = canvas.paint(canvas.polygon(edges, rounding=0.04), tissue["fat"] * 0.9)
    back_muscle = canvas.polygon([(0.2, -1.5), (back - 0.16, -1.5), (back - 0.12, 0.4), (0.3, 1.5)], rounding=0.02)
    canvas.paint(back_muscle, tissue["muscle"])
    front = canvas.polygon([(-1.4, -1.5), (-0.35, -1.5), (-0.45, 1.5), (-1.4, 1.5)])
    belly = tissue["organ"] * (1 + 0.35 * canvas.noise(7) + 0.1 * canvas.noise(22))
    canvas.paint(front, belly, soft=30)
    masks = {"body": body}
    discs = _column(canvas, tissue, masks, broken=finding == "fracture")
    facts = {"modality": modality, "plane": plane, "part": "spine", "sequence": sequence, "finding": finding}
    if finding == "disc herniation":
        facts |= _herniation(canvas, tissue, masks, discs)
    elif finding == "fracture":
        masks["lesion"] = masks["fracture"]
    return _finished(canvas, masks, facts, field=320)


def _herniation(
    canvas: Canvas, tissue: dict[str, float], masks: dict[str, Mask], discs: list[tuple[float, float, float, float]]
) -> dict[str, str]:
    """Push one disc back into the canal, onto the cord or the roots; ``discs`` are (x, y, half depth, half height)."""
    rng = canvas.rng
    large = bool(rng.random() < 0.5)
    x, y, depth, height = discs[int(rng.integers(len(discs)))]
    reach = float(rng.uniform(0.085, 0.11) if large else rng.uniform(0.055, 0.07))
    bulge = canvas.blob(x + depth + reach * 0.3, y + rng.uniform(0, 0.02), reach, max(0.04, height * 1.1), rough=0.06)
    signal = tissue["disc"] * 0.4 + tissue["rim"] * 0.6
    lesion = canvas.paint(bulge, signal, within=~masks["vertebrae"])
    masks["cord"] = masks["cord"] & ~lesion
    masks["lesion"] = masks["disc herniation"] = lesion
    return {"size": "large" if large else "small"}


def _column(
    canvas: Canvas, tissue: dict[str, float], masks: dict[str, Mask], *, broken: bool
) -> list[tuple[float, float, float, float]]:
    """Canal, cord, vertebrae with their discs and spinous processes along a curved line; returns the discs in sight.

    A broken vertebra is a wedge with changed marrow and a dark line; its mask is added as ``"fracture"``.
    """
    rng = canvas.rng
    lordosis, lean = float(rng.uniform(0.08, 0.2)), float(rng.normal(0, 0.05))
    step, depth = float(rng.uniform(0.225, 0.3)), float(rng.uniform(0.135, 0.175))
    gap = step * float(rng.uniform(0.2, 0.3))
    ys = np.arange(-1.3, 1.35, step) + rng.uniform(0, step)

    def middle(y: float) -> float:
        return lean * y - lordosis * float(np.sin((y + 0.1) * 1.9)) - 0.05

    _canal(canvas, tissue, masks, [(middle(y) + depth + 0.085, float(y)) for y in np.linspace(-1.4, 1.4, 12)])
    fractured = int(rng.integers(2, len(ys) - 2)) if broken else -1
    bones, discs, places = np.zeros_like(masks["body"]), np.zeros_like(masks["body"]), []
    dried = rng.random(len(ys)) < 0.3
    marrow = tissue["marrow"] * (1 + 0.06 * canvas.noise(40))
    for i, y in enumerate(ys.tolist()):
        x, slope = middle(y), middle(y + 0.1) - middle(y - 0.1)
        tilt = -float(np.arctan2(slope, 0.2))
        h = (step - gap) / 2
        shape = canvas.ellipse(x, y, depth, h, angle=tilt, power=5)
        if i == fractured:
            crush = float(rng.uniform(0.45, 0.65))
            c, s = np.cos(tilt), np.sin(tilt)
            wedge = [(-depth, -h * crush), (depth, -h), (depth * 1.12, 0), (depth, h), (-depth, h * 0.9)]
            shape = canvas.polygon([(x + c * a - s * b, y + s * a + c * b) for a, b in wedge], rounding=0.008)
        bone = canvas.paint(shape, tissue["cortex"])
        canvas.paint(shape.grown(-0.012), marrow)
        if i == fractured:
            masks["fracture"] = bone
            changed = tissue["edema"] if tissue["edema"] > tissue["marrow"] * 1.3 else tissue["marrow"] * 0.5
            canvas.paint(shape, changed * (1 + 0.12 * canvas.noise(24)), soft=4, opacity=0.85)
            line = [(x - depth * 0.9, y - h * 0.1), (x, y + h * 0.05), (x + depth * 0.8, y - h * 0.15)]
            canvas.paint(canvas.stroke(line, 0.01), tissue["cortex"], within=bone, soft=2)
        bones |= bone
        below, h_disc = y + step / 2, gap * 0.5 * (0.7 if dried[i] else 1.05)
        bx = middle(below)
        disc = canvas.paint(canvas.ellipse(bx, below, depth * 1.03, h_disc, angle=tilt, power=2.6), tissue["rim"], within=~bones)
        signal = tissue["disc"] * (0.4 if dried[i] else 1.0)
        canvas.paint(canvas.ellipse(bx, below, depth * 0.72, h_disc * 0.75, angle=tilt), signal, within=disc, soft=4)
        discs |= disc
        places.append((bx, below, depth, h_disc))
        process = [(x + depth + 0.2, y + 0.04), (x + depth + 0.34, y + 0.1)]
        canvas.paint(canvas.stroke(process, 0.05), tissue["cortex"])
        canvas.paint(canvas.stroke(process, 0.038), tissue["marrow"])
    masks["vertebrae"], masks["discs"] = bones, discs & ~bones
    return [place for place in places if -0.75 < place[1] < 0.75]


def _canal(canvas: Canvas, tissue: dict[str, float], masks: dict[str, Mask], canal: list[tuple[float, float]]) -> None:
    """The spinal canal along a line of points: fat, fluid, the cord down to its conus and the roots below it."""
    canvas.paint(canvas.stroke(canal, 0.095), tissue["fat"])
    canvas.paint(canvas.stroke(canal, 0.075), tissue["csf"])
    conus = float(canvas.rng.uniform(-0.3, 1.5))
    cord = [(x, y) for x, y in canal if y < conus + 0.25]
    taper = [0.037 if y < conus - 0.1 else 0.012 for _, y in cord]
    masks["cord"] = canvas.paint(canvas.stroke(cord, taper), tissue["cord"], soft=2)
    for dx in (0.0, 0.03):  # the nerve roots below the cord
        roots = [(x + dx, y) for x, y in canal if y > conus - 0.3]
        if len(roots) > 1:
            canvas.paint(canvas.stroke(roots, 0.006), tissue["cord"], soft=2, opacity=0.6)


def make_knee(rng: np.random.Generator, size: int, *, modality: str, plane: str, finding: str) -> Phantom:
    """A knee on MRI; ``plane`` "coronal" or "sagittal", ``finding`` one of :data:`KNEE_FINDINGS`."""
    canvas, tissue, sequence = _start(rng, size, sequences=tuple(CONTRASTS), turn=0.05)
    masks = (_knee_coronal if plane == "coronal" else _knee_sagittal)(canvas, tissue)
    facts = {"modality": modality, "plane": plane, "part": "musculoskeletal system", "sequence": sequence, "finding": finding}
    if finding == "effusion":
        facts |= _knee_effusion(canvas, tissue, masks, sagittal=plane == "sagittal")
    elif finding == "fracture":
        _knee_fracture(canvas, tissue, masks)
    elif finding == "tear":
        _meniscal_tear(canvas, tissue, masks)
    if "lesion" in masks:
        masks[finding] = masks["lesion"]
    return _finished(canvas, masks, facts, field=170)


def _bone(canvas: Canvas, tissue: dict[str, float], parts: list[Shape]) -> Mask:
    """One bone from overlapping shapes: dark cortex around textured marrow; returns its mask."""
    marrow = tissue["marrow"] * (1 + 0.06 * canvas.noise(18) + 0.05 * canvas.noise(50))
    whole = np.zeros((canvas.size, canvas.size), dtype=bool)
    for part in parts:
        whole |= canvas.paint(part, tissue["cortex"])
    for part in parts:
        canvas.paint(part.grown(-0.015), marrow)
    return whole


def _knee_coronal(canvas: Canvas, tissue: dict[str, float]) -> dict[str, Mask]:
    """Femoral condyles above the tibial plateau, menisci at both sides, cruciates in the notch, fibula, collaterals."""
    rng = canvas.rng
    w = float(rng.uniform(0.78, 0.88))
    half = [(-w * 0.92, -1.5), (-w, -0.1), (-w * 0.9, 0.4), (-w * 0.85, 1.5)]
    body = canvas.paint(canvas.polygon(half + [(-x, y) for x, y in reversed(half)], rounding=0.04), tissue["fat"])
    for s in (-1, 1):
        canvas.paint(canvas.stroke([(s * 0.6, -1.2), (s * 0.66, -0.5), (s * 0.62, -0.2)], [0.16, 0.11, 0.02]), tissue["muscle"])
        canvas.paint(canvas.stroke([(s * 0.55, 0.55), (s * 0.6, 0.8), (s * 0.55, 1.4)], [0.02, 0.1, 0.16]), tissue["muscle"])
    canvas.paint(canvas.ellipse(0, 0, 0.62, 0.1, power=4), tissue["cartilage"])
    tall = float(rng.uniform(0.9, 1.1))
    femur = _bone(canvas, tissue, [
        canvas.polygon([(-0.27, -1.5), (0.27, -1.5), (0.36, -0.55), (0.5, -0.3), (-0.5, -0.3), (-0.36, -0.55)], rounding=0.03),
        canvas.blob(-0.31, -0.27 * tall, 0.28, 0.23, rough=0.02), canvas.blob(0.31, -0.27 * tall, 0.28, 0.23, rough=0.02),
    ])
    tibia = _bone(canvas, tissue, [
        canvas.polygon([(-0.57, 0.09), (-0.08, 0.1), (0, 0.03), (0.08, 0.1), (0.57, 0.09), (0.52, 0.3), (0.29, 0.72), (0.26, 1.5),
                        (-0.26, 1.5), (-0.29, 0.72), (-0.52, 0.3)], rounding=0.02),
    ])
    outer = float(rng.choice([-1, 1]))
    shaft = canvas.stroke([(outer * 0.56, 0.47), (outer * 0.54, 0.7), (outer * 0.5, 1.5)], [0.1, 0.07, 0.06])
    fibula = _bone(canvas, tissue, [shaft])
    notch = canvas.polygon([(-0.09, -0.25), (0.09, -0.25), (0.07, 0.04), (-0.07, 0.04)], rounding=0.02)
    canvas.paint(notch, tissue["fat"], within=~tibia)
    canvas.paint(canvas.stroke([(0.08, -0.22), (-0.03, 0.03)], 0.03), tissue["ligament"] * 1.8, within=~tibia)
    menisci = np.zeros_like(body)
    for s in (-1, 1):
        wedge = canvas.polygon([(s * 0.6, -0.07), (s * 0.3, 0.03), (s * 0.6, 0.1)], rounding=0.008)
        menisci |= canvas.paint(wedge, tissue["meniscus"], within=~(femur | tibia))
        canvas.paint(canvas.stroke([(s * 0.59, -0.45), (s * 0.63, -0.05), (s * 0.57, 0.4)], 0.016), tissue["ligament"])
    return {"body": body, "femur": femur, "tibia": tibia & ~femur, "fibula": fibula & ~tibia, "menisci": menisci}


def _knee_sagittal(canvas: Canvas, tissue: dict[str, float]) -> dict[str, Mask]:
    """Femur over tibia with the patella in front (the picture's left), its tendons, the fat pad and the calf behind."""
    rng = canvas.rng
    front = [(-0.62, -1.5), (-0.72, -0.5), (-0.76, -0.2), (-0.62, 0.35), (-0.55, 1.5)]
    rear = [(0.72, 1.5), (0.68, 0.6), (0.55, 0.1), (0.62, -0.5), (0.72, -1.5)]
    body = canvas.paint(canvas.polygon(front + rear, rounding=0.04), tissue["fat"])
    canvas.paint(canvas.stroke([(-0.42, -1.4), (-0.46, -0.75), (-0.55, -0.5)], [0.14, 0.08, 0.02]), tissue["muscle"])
    canvas.paint(canvas.stroke([(0.5, -1.4), (0.5, -0.6), (0.4, -0.2)], [0.2, 0.13, 0.04]), tissue["muscle"])
    canvas.paint(canvas.stroke([(0.38, -0.15), (0.48, 0.5), (0.48, 1.4)], [0.04, 0.15, 0.2]), tissue["muscle"])
    canvas.paint(canvas.stroke([(0.4, -1.2), (0.42, 0.0), (0.38, 1.2)], 0.025), tissue["vessel"])
    condyle = canvas.blob(-0.06, -0.29, 0.4, 0.3, angle=0.15, rough=0.02)
    canvas.paint(canvas.ellipse(-0.06, -0.285, 0.435, 0.335, angle=0.15), tissue["cartilage"])
    canvas.paint(canvas.ellipse(-0.04, 0.1, 0.4, 0.05), tissue["cartilage"])
    femur = _bone(canvas, tissue, [
        canvas.polygon([(-0.3, -1.5), (0.15, -1.5), (0.24, -0.5), (-0.3, -0.5)], rounding=0.03), condyle,
    ])
    tibia = _bone(canvas, tissue, [
        canvas.polygon([(-0.43, 0.12), (0.36, 0.12), (0.33, 0.35), (0.14, 0.7), (0.1, 1.5), (-0.32, 1.5), (-0.33, 0.8),
                        (-0.46, 0.45)], rounding=0.02),
    ])
    py = float(rng.uniform(-0.5, -0.36))
    patella = _bone(canvas, tissue, [canvas.ellipse(-0.6, py, 0.085, 0.19, power=2.6, angle=0.1)])
    canvas.paint(canvas.stroke([(-0.5, -1.4), (-0.64, py - 0.18)], 0.03), tissue["ligament"])
    canvas.paint(canvas.stroke([(-0.63, py + 0.18), (-0.48, 0.42)], 0.03), tissue["ligament"], within=~tibia)
    menisci = np.zeros_like(body)
    for points in ([(-0.42, 0.0), (-0.2, 0.085), (-0.43, 0.11)], [(0.34, -0.03), (0.1, 0.085), (0.35, 0.11)]):
        menisci |= canvas.paint(canvas.polygon(points, rounding=0.012), tissue["meniscus"], within=~(femur | tibia))
    if rng.random() < 0.5:
        canvas.paint(canvas.stroke([(0.18, -0.3), (-0.12, 0.1)], 0.03), tissue["ligament"] * 1.6)
        femur &= ~canvas.mask(canvas.stroke([(0.18, -0.3), (-0.12, 0.1)], 0.03))
    return {"body": body, "femur": femur, "tibia": tibia & ~femur, "patella": patella, "menisci": menisci}


def _knee_effusion(canvas: Canvas, tissue: dict[str, float], masks: dict[str, Mask], *, sagittal: bool) -> dict[str, str]:
    """Joint fluid: above and behind the patella (sagittal) or beside the condyles (coronal); returns its size."""
    rng = canvas.rng
    large = bool(rng.random() < 0.5)
    k = float(rng.uniform(1.2, 1.6) if large else rng.uniform(0.75, 0.95))
    if sagittal:
        pools = [canvas.stroke([(-0.42, -1.0), (-0.45, -0.75), (-0.47, -0.5)], [0.03 * k, 0.075 * k, 0.05 * k])]
        pools += [canvas.blob(0.35, -0.18, 0.06 * k, 0.12 * k, rough=0.1)]
    else:
        widths = [0.03 * k, 0.06 * k, 0.03 * k]
        pools = [canvas.stroke([(s * 0.5, -0.6), (s * 0.63, -0.35), (s * 0.6, -0.08)], widths) for s in (-1, 1)]
    solid = np.zeros_like(masks["body"])
    for name in ("femur", "tibia", "patella", "menisci"):
        solid |= masks.get(name, solid)
    fluid = np.zeros_like(solid)
    for pool in pools:
        fluid |= canvas.paint(pool, tissue["fluid"], within=masks["body"] & ~solid)
    masks["lesion"] = fluid
    return {"size": "large" if large else "small"}


def _knee_fracture(canvas: Canvas, tissue: dict[str, float], masks: dict[str, Mask]) -> None:
    """A dark line across the tibia or the femur in marrow changed by edema; the lesion is that changed marrow."""
    rng = canvas.rng
    host = masks[str(rng.choice(["femur", "tibia"]))]
    near = host & (np.abs(canvas.y) < 0.75)
    x, y = canvas.place_in(near, clearance=0.1)
    changed = tissue["edema"] if tissue["edema"] > tissue["marrow"] * 1.3 else tissue["marrow"] * 0.45
    area = canvas.blob(x, y, float(rng.uniform(0.2, 0.3)), float(rng.uniform(0.14, 0.2)), rough=0.12)
    masks["lesion"] = canvas.paint(area, changed, within=host, soft=8, opacity=0.85)
    a = float(rng.uniform(-0.6, 0.6))
    offsets = np.linspace(-0.26, 0.26, 6)
    line = [(x + d * np.cos(a), y + d * np.sin(a) + float(rng.normal(0, 0.018))) for d in offsets.tolist()]
    canvas.paint(canvas.stroke(line, 0.012), tissue["cortex"], within=masks["lesion"], soft=2)


def _meniscal_tear(canvas: Canvas, tissue: dict[str, float], masks: dict[str, Mask]) -> None:
    """A bright line through one meniscus, which is swollen a little; the lesion is the line."""
    rng = canvas.rng
    s = int(rng.choice([-1, 1]))
    home = masks["menisci"] & (canvas.x * s > 0.05)
    x, y = float(canvas.x[home].mean()), float(canvas.y[home].mean())
    dx, dy = 0.1, float(rng.uniform(-0.06, 0.06))
    line = canvas.stroke([(x - dx, y - dy), (x + dx, y + dy)], float(rng.uniform(0.012, 0.018)))
    bright = max(tissue["fluid"], 3 * tissue["meniscus"])
    masks["lesion"] = canvas.paint(line, bright, within=home)
