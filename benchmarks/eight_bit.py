"""OPT in 8 bit against the same weights in bf16, and both against fp32: captions, perplexity, memory and speed.

Comes in: a device. Goes out: rows over the demo models' own OPT with the prefixes of real pictures (MedPix's development split
where the data lies beside the checkout, else the bundled examples), and over a random OPT of the published width, whose numbers
speak of rounding, memory and speed alone.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.timing import Row, default_dtype, pair
from msmedcap import checkpoints, memory
from msmedcap.checkpoints import Models
from msmedcap.config import Decoding
from msmedcap.data.scans import open_scan
from msmedcap.data.sets import read_dataset
from msmedcap.data.views import make_view
from msmedcap.models.decoding import Said, decode
from msmedcap.models.opt import Opt
from msmedcap.models.opt_loading import build_opt, load_opt
from msmedcap.models.quality import degenerate
from msmedcap.models.tokens import load_tokenizer
from msmedcap.models.weights import empty, owned_bytes

GROUP = "8-bit OPT"
ROOT = Path(__file__).resolve().parent.parent
MEDPIX, EXAMPLES = ROOT.parent / "shared" / "data" / "medpix", ROOT / "assets" / "examples"
BATCH = 24  # captions decoded at once
Weights = Callable[[], Opt]


@dataclass(frozen=True)
class Case:
    """A picture's prefix as one system reads it, ``[L,D_llm]``, and the reference caption."""

    prefix: Tensor
    reference: str


@torch.inference_mode()
def rows(*, device: torch.device, quick: bool) -> list[Row]:
    """What 8 bit costs and saves; ``ours`` is 8 bit, ``peer`` is bf16, and both are compared with fp32."""
    folder = checkpoints.folder_of("demo") / "opt"
    models = checkpoints.load("demo", device=device)
    cases, where = read_cases(models, pictures=2 if quick else 64)
    loaders = {
        "fp32": partial(load_opt, folder, dtype=torch.float32, device=device),
        "bf16": partial(load_opt, folder, dtype=torch.bfloat16, device=device),
        # All but the decoder's matrices in bf16, as at the published size; then in fp32, as a CPU loads the demo.
        "int8": partial(load_opt, folder, dtype=torch.bfloat16, device=device, load_8bit=True),
        "int8, fp32": partial(load_opt, folder, dtype=torch.float32, device=device, load_8bit=True),
    }
    quality = _quality(loaders, cases, models.config.presets["fast"], note=f"demo OPT, {where}")
    return [*quality, *_wide(device, quick=quick), _published()]


def read_cases(models: Models, *, pictures: int) -> tuple[list[Case], str]:
    """The first ``pictures`` references with every system's prefix of each, and where they are from."""
    cases = []
    found, where = _pictures(pictures)
    for path, reference in tqdm(found, desc="prefixes", leave=False, mininterval=1):
        picture = open_scan(path, allow_burned_in=True).picture()
        views = {spec.name: make_view(picture, spec)[None].to(models.device) for spec in models.config.views}
        for captioner in models.captioners.values():
            encoded = {
                name: branch.tokens(branch.encoder(views[name].to(next(branch.encoder.parameters()).dtype))).float()
                for name, branch in captioner.named_branches()
            }
            cases.append(Case(captioner.prefix(encoded, models.config.train_prompt)[0], reference))
    return cases, f"{len(found)} pictures ({where}) x {len(models.captioners)} systems"


def agreement(left: Sequence[Said], right: Sequence[Said]) -> tuple[float, float]:
    """The share of equal captions, and of places where both say the same token (of the longer caption's places)."""
    equal = sum(a.ids == b.ids for a, b in zip(left, right, strict=True)) / len(left)
    same = sum(x == y for a, b in zip(left, right, strict=True) for x, y in zip(a.ids, b.ids, strict=False))
    return equal, same / sum(max(len(a.ids), len(b.ids)) for a, b in zip(left, right, strict=True))


def perplexity(opt: Opt, cases: Sequence[Case]) -> float:
    """exp of the mean negative log-probability of the references' tokens after their prefixes."""
    total = tokens = 0.0
    for batch in _batches(cases):
        for length in {c.prefix.shape[0] for c in batch}:  # systems differ in how many slots they read with
            alike = [c for c in batch if c.prefix.shape[0] == length]
            count = sum(len(opt.caption_ids(c.reference)) for c in alike)
            prefix = torch.stack([c.prefix for c in alike]).to(opt.model.dtype)
            total += float(opt.loss(prefix, [c.reference for c in alike], max_tokens=10_000)) * count
            tokens += count
    return math.exp(total / tokens)


def _quality(loaders: dict[str, Weights], cases: Sequence[Case], preset: Decoding, *, note: str) -> list[Row]:
    said: dict[str, list[Said]] = {}
    broken, perplexities = {}, {}
    for name, load in loaders.items():
        opt = load()
        said[name] = [s for batch in _batches(cases) for s in opt.say([c.prefix for c in batch], preset)]
        broken[name] = sum(degenerate(opt.text(s)) is not None for s in said[name])
        perplexities[name] = perplexity(opt, cases)
    eight, half, mixed = (agreement(said[name], said["fp32"]) for name in ("int8", "bf16", "int8, fp32"))
    direct = agreement(said["int8"], said["bf16"])
    ours, peer, whole = (perplexities[name] for name in ("int8", "bf16", "fp32"))
    return [
        Row(GROUP, "captions equal to fp32's", eight[0], half[0], unit="of 1", goal=">= 0.9", note=note),
        Row(GROUP, "tokens equal to fp32's", eight[1], half[1], unit="of 1", goal=">= 0.95", note=note),
        Row(GROUP, "captions equal to bf16's", direct[0], unit="of 1", note=note),
        Row(GROUP, "tokens equal to bf16's", direct[1], unit="of 1", note=note),
        Row(GROUP, "captions equal to fp32's, the rest in fp32", mixed[0], half[0], unit="of 1", goal=">= 1", note=note),
        Row(GROUP, "degenerate captions", broken["int8"], unit="captions", note=f"bf16: {broken['bf16']}; {note}"),
        Row(GROUP, "perplexity of references", ours, peer, unit="", goal="<= 1.02", note=f"fp32: {whole:.4g}; {note}"),
    ]


def _wide(device: torch.device, *, quick: bool) -> list[Row]:
    """A random OPT of OPT-2.7B's width (two of its layers), from a folder as any other."""
    hidden, vocab, heads = (128, 4096, 4) if quick else (2560, 50272, 32)
    with tempfile.TemporaryDirectory() as name:
        with default_dtype(torch.bfloat16):
            torch.manual_seed(0)
            build_opt(vocab, hidden=hidden, layers=2, heads=heads).save_pretrained(name)
        load_tokenizer(checkpoints.folder_of("demo") / "opt").save_pretrained(name)
        whole, eight = (load_opt(name, dtype=torch.bfloat16, device=device, load_8bit=on) for on in (False, True))
    drawn = torch.randn(16, 64, hidden, generator=torch.Generator().manual_seed(1)).to(device, torch.bfloat16)
    wanted, found = (opt.model.model.decoder(inputs_embeds=drawn)[0].float() for opt in (whole, eight))
    error = float((found - wanted).norm() / wanted.norm())
    choices = [opt.model.lm_head(states.to(torch.bfloat16)).argmax(-1) for opt, states in ((whole, wanted), (eight, found))]
    same = float((choices[0] == choices[1]).float().mean())
    layers = [owned_bytes(opt.model.model.decoder.layers) / 2**20 for opt in (eight, whole)]
    note = f"random, width {hidden}, 2 layers, bf16"
    found_rows = [
        Row(GROUP, "relative error of the last states", error, unit="", note=note),
        Row(GROUP, "likeliest next tokens equal to bf16's", same, unit="of 1", note=note),
        Row(GROUP, "weights of the layers", layers[0], layers[1], unit="MiB", goal="<= 0.52", note=note),
    ]
    for rows_at_once in (1, 3, 15):
        step = [partial(_step, opt, drawn[:rows_at_once, :1]) for opt in (eight, whole)]
        found_rows.append(pair(GROUP, f"a step of {rows_at_once} rows", *step, rounds=3 if quick else 7, note=note))
    return found_rows


def _step(opt: Opt, prefixes: Tensor) -> None:
    decode(opt.model, list(prefixes), Decoding(max_new_tokens=1), newline=opt.newline)


def _published() -> Row:
    """OPT-2.7B's weights, computed from its shapes."""
    model = empty(lambda: build_opt(50272, hidden=2560, layers=32, heads=32, positions=2048))
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    eight, whole = (memory.opt_bytes(shapes, torch.bfloat16, load_8bit=on) / 2**30 for on in (True, False))
    return Row(GROUP, "weights, OPT-2.7B", eight, whole, unit="GiB", goal="<= 0.55", note="computed from the shapes")


def _pictures(count: int) -> tuple[list[tuple[Path, str]], str]:
    if MEDPIX.is_dir():
        cases = read_dataset("medpix", MEDPIX, "dev")
        step = max(1, len(cases) // count)
        return [(case.image, case.caption) for case in cases[::step][:count]], "MedPix dev"
    listed = json.loads((EXAMPLES / "index.json").read_text(encoding="utf-8"))
    return [(EXAMPLES / entry["file"], entry["caption"]) for entry in listed[:count]], "bundled examples"


def _batches(cases: Sequence[Case]) -> Iterator[Sequence[Case]]:
    for start in tqdm(range(0, len(cases), BATCH), desc="captions", leave=False, mininterval=1):
        yield cases[start : start + BATCH]
