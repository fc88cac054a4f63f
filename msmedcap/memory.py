"""What a model folder will take, part by part, before any of it is loaded; and what to do when that is more than there is.

Comes in: a folder's ``config.json`` and the headers of its weights (no tensor is read). Goes out: a :class:`Plan` (which part lies
on which device in which type, beside what is free there), or one sentence with the numbers and the options that would fit.
Frozen parts run in bf16, and in fp32 on a CPU where that takes at most :data:`SMALL`; trained parts, SAM's prompt half and
the segmenter always run in fp32 (the last is counted here and loaded when it is first asked for).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch

from msmedcap.config import ModelsConfig, UserError
from msmedcap.models.opt_loading import source_shapes
from msmedcap.models.sam import SamEncoder
from msmedcap.models.weights import empty, headers
from msmedcap.systems import SAM_SIZES

SMALL = 2_000_000_000  # bytes of frozen weights in fp32 up to which a CPU runs them in fp32 (the demo: 0.05 GB)
ENCODERS = ("clip", "sam")
PROMPT_TOKENS = 16  # a prompt and the marks around it
SPARE = 0.9  # of the host's free memory, what offloaded layers may take

Shapes = Mapping[str, tuple[int, ...]]
Layout = dict[str, str | int]


@dataclass(frozen=True)
class Item:
    """One line of the plan: ``bytes`` of ``part`` on ``device`` in ``dtype``."""

    part: str
    device: str
    dtype: str
    bytes: int


@dataclass(frozen=True)
class Facts:
    """What is known of a folder without reading a weight: its config and the shapes of each part that is there."""

    folder: str
    config: ModelsConfig
    parts: Mapping[str, Shapes]
    preset: str = "fast"


@dataclass(frozen=True)
class Choice:
    """How the models are to be loaded."""

    device: torch.device
    load_8bit: bool = False
    offload: bool = False


@dataclass(frozen=True)
class Plan:
    """Where everything will lie.

    ``layout`` places OPT's modules where some do not fit on the device; ``dtype`` is the frozen parts'.
    """

    items: tuple[Item, ...]
    free: Mapping[str, int]
    dtype: torch.dtype
    layout: Layout | None = None
    remedies: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def needs(self) -> dict[str, int]:
        """Bytes wanted of each device's memory."""
        total: dict[str, int] = {}
        for item in self.items:
            if item.device != "disk":
                total[item.device] = total.get(item.device, 0) + item.bytes
        return total

    @property
    def fits(self) -> bool:
        """Whether every device has what is wanted of it."""
        return all(need <= self.free[device] for device, need in self.needs.items())

    def table(self) -> str:
        """The plan as lines of text: part, device, type, size; then what each device has."""
        rows = [("part", "device", "type", "size"), *((i.part, i.device, i.dtype, size(i.bytes)) for i in self.items)]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines += [f"{device}: {size(need)} of {size(self.free[device])} free" for device, need in self.needs.items()]
        return "\n".join([*lines, *self.notes])

    def check(self) -> None:
        """Raises :class:`UserError` with the numbers, and what would fit, when something does not."""
        short = [f"{size(n)} on {d}, where {size(self.free[d])} are free" for d, n in self.needs.items() if n > self.free[d]]
        if short:
            raise UserError(f"The models need {' and '.join(short)}; {'; '.join(self.remedies)}.")


def plan(facts: Facts, choice: Choice) -> Plan:
    """The plan for ``facts`` as ``choice`` has it, with what would help when it does not fit."""
    found = _lay_out(facts, choice)
    return found if found.fits else dataclasses.replace(found, remedies=_remedies(facts, choice))


def read_facts(folder: Path, config: ModelsConfig, *, systems: tuple[str, ...], opt: str | Path, preset: str = "fast") -> Facts:
    """The facts of a folder for loading ``systems``, and every frozen part and the segmenter that are there.

    ``opt`` is a folder or a hub id.
    """
    parts: dict[str, Shapes] = {}
    for part in (*ENCODERS, "sam_prompts", "segmenter", *(f"systems/{name}" for name in systems)):
        if (folder / part).is_dir():
            parts[part] = {key: header.shape for key, header in headers(folder / part).items()}
    parts["opt"] = source_shapes(opt)
    return Facts(str(folder), config, parts, preset if preset in config.presets else next(iter(config.presets)))


def frozen_dtype(facts: Facts, device: torch.device) -> torch.dtype:
    """What the frozen parts run in on ``device``; the rule stands in the module's text."""
    weights = sum(_count(facts.parts[part]) for part in (*ENCODERS, "opt") if part in facts.parts)
    return torch.float32 if device.type == "cpu" and 4 * weights <= SMALL else torch.bfloat16


def opt_bytes(shapes: Shapes, dtype: torch.dtype, *, load_8bit: bool = False) -> int:
    """The memory of an OPT's weights; in 8 bit the decoder's matrices take a byte each and a scale for every row."""
    return sum(_opt_weight(name, shape, dtype, load_8bit) for name, shape in shapes.items())


def free_bytes(device: torch.device) -> int:
    """What is free on ``device``, the least of what the machine and the process's memory limit leave."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return min([psutil.virtual_memory().available, *limits()])


def limits(root: Path = Path("/sys/fs/cgroup"), mine: Path = Path("/proc/self/cgroup")) -> list[int]:
    """What each memory limit over this process (Linux control groups, both versions) leaves free; empty where none is readable."""
    try:
        lines = [line.split(":", 2) for line in mine.read_text().splitlines()]
    except (OSError, ValueError):
        return []
    left = []
    for number, controllers, path in (line for line in lines if len(line) == 3):
        if number == "0":
            top, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = top / path.strip("/")
        for folder in [group, *group.parents]:  # in a container the path may be the host's: its own group is then the top
            if folder == top or top in folder.parents:
                left += _left(folder, *names)
    return left


def size(count: int) -> str:
    """A number of bytes for a reader, in GB of 10⁹ bytes (MB below a tenth of one)."""
    return f"{count / 1e9:.1f} GB" if count >= 100_000_000 else f"{count / 1e6:.1f} MB"


def _left(folder: Path, limit: str, used: str, idle: str) -> list[int]:
    try:
        most, now = (folder / limit).read_text().strip(), int((folder / used).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        # Cached files count as used there but are given up when memory is wanted. 1 << 60: version 1's way to say "none".
        return [int(most) - now + int(stat.get(idle, 0))] if most != "max" and int(most) < 1 << 60 else []
    except (OSError, ValueError):
        return []


def _lay_out(facts: Facts, choice: Choice) -> Plan:
    dtype, here = frozen_dtype(facts, choice.device), _name(choice.device)
    free = {device: free_bytes(torch.device(device)) for device in dict.fromkeys((here, "cpu"))}
    items = []
    for part, shapes in facts.parts.items():
        kind = dtype if part in ENCODERS else torch.float32
        if part != "opt":
            items.append(Item(part, here, _short(kind), _count(shapes) * kind.itemsize))
    work = Item(f"working memory ({facts.preset})", here, "", working_bytes(facts, dtype, facts.preset))
    shapes = facts.parts["opt"]
    more = {p: working_bytes(facts, dtype, p) for p in facts.config.presets if p != facts.preset}
    spare = free[here] - sum(i.bytes for i in items) - work.bytes
    layout = None
    if choice.offload and opt_bytes(shapes, dtype) > spare:
        layout, placed = _spread(shapes, dtype, here, spare=spare, host=int(SPARE * free["cpu"]))
        items += placed
    else:
        kind_name = "int8" if choice.load_8bit else _short(dtype)
        items.append(Item("opt", here, kind_name, opt_bytes(shapes, dtype, load_8bit=choice.load_8bit)))
        if here == "cpu" and dtype == torch.bfloat16:  # the head, tied to the word table, is packed beside it
            table = next(shape for name, shape in shapes.items() if name.endswith("embed_tokens.weight"))
            items.append(Item("working copy (head)", here, _short(dtype), math.prod(table) * dtype.itemsize))
    notes = tuple(f"The preset {name} works in {size(need)}." for name, need in more.items() if need > work.bytes)
    return Plan((*items, work), free, dtype, layout, notes=notes)


def _spread(shapes: Shapes, dtype: torch.dtype, here: str, *, spare: int, host: int) -> tuple[Layout, list[Item]]:
    """As many decoder layers on the device as fit there, then in the host's memory, the rest on the disk."""
    layers: dict[str, int] = {}
    others: dict[str, int] = {}
    for name, shape in shapes.items():
        head, mark, rest = name.partition(".layers.")
        key = f"{head}{mark}{rest.split('.')[0]}" if mark else name.rpartition(".")[0]
        group = layers if mark else others
        group[key] = group.get(key, 0) + math.prod(shape) * dtype.itemsize
    largest = max(layers.values())
    # Everything but the layers stays, and a layer that lies elsewhere needs room while it works.
    room = {here: spare - sum(others.values()) - largest, "disk": sum(layers.values())}
    if here != "cpu":
        room = {here: room[here], "cpu": host, "disk": room["disk"]}
    layout: Layout = dict.fromkeys((*others, "lm_head"), here)
    taken = dict.fromkeys(room, 0)
    for key, need in layers.items():  # in the order they run
        device = next(d for d in room if taken[d] + need <= room[d])
        layout[key] = device
        taken[device] += need
    items = [Item("opt", here, _short(dtype), sum(others.values()) + largest + taken.pop(here))]
    items += [Item("opt, offloaded", d, _short(dtype), count) for d, count in taken.items() if count]
    return layout, items


def working_bytes(facts: Facts, dtype: torch.dtype, preset: str) -> int:
    """An upper estimate of what a picture needs besides the weights: the largest encoder pass, or all captions' keys and values."""
    config, decoding = facts.config, facts.config.presets[preset]
    pixels = {name: decoding.view_sizes.get(name, config.view(name).size) for name in ENCODERS}
    passes = [0]
    for name, encoder in (("clip", config.clip), ("sam", config.sam)):
        if name in facts.parts:
            tokens = (pixels[name] // encoder.patch) ** 2
            # One layer's attention scores, where a kernel forms them whole, and the feed-forward's two widths.
            passes.append(dtype.itemsize * tokens * (encoder.heads * tokens + 16 * encoder.hidden))
    opt = facts.parts["opt"]
    vocab, width = opt["model.decoder.embed_tokens.weight"]
    depth = sum(name.endswith(".k_proj.weight") for name in opt)
    systems = [part.partition("/")[2] for part in facts.parts if part.startswith("systems/")]
    reads = [sum(config.branches[view].qformer.queries for view in config.systems[name]) for name in systems]
    length = max(reads, default=0) + PROMPT_TOKENS + decoding.max_new_tokens
    rows = len(systems) * decoding.beams
    hidden = max((shape[0] for name, shape in opt.items() if ".k_proj.weight" in name), default=width)
    captions = rows * (2 * depth * hidden * length * dtype.itemsize + 3 * 4 * vocab)
    # While loading: the largest tensor as stored and as kept.
    largest = max(math.prod(shape) for shapes in facts.parts.values() for shape in shapes.values())
    return max(*passes, captions, 2 * largest * dtype.itemsize)


def _remedies(facts: Facts, choice: Choice) -> tuple[str, ...]:
    """What would fit, with its numbers; if nothing would, what each option would need."""
    tries: dict[str, tuple[Facts, Choice]] = {}
    eight = dataclasses.replace(choice, load_8bit=True, offload=False)
    if not choice.load_8bit:
        tries["--load-8bit"] = (facts, eight)
    if not choice.offload:
        tries["--offload"] = (facts, dataclasses.replace(choice, offload=True, load_8bit=False))
    for letter, smaller in _smaller_sams(facts).items():
        name = {"b": "base", "l": "large"}[letter]
        command = f"python -m msmedcap convert sam facebook/sam-vit-{name} --out {facts.folder}"
        tries[f"a smaller SAM ({command}; the systems that look through it must then be trained for it)"] = (smaller, choice)
        tries[f"--load-8bit and SAM {letter.upper()}"] = (smaller, eight)
    if choice.device.type != "cpu":
        tries["--device cpu"] = (facts, Choice(torch.device("cpu")))
    plans = {name: _lay_out(*what) for name, what in tries.items()}
    able = {name: found for name, found in plans.items() if found.fits}
    told = [
        f"{name} would need " + " and ".join(f"{size(n)} of {size(p.free[d])} on {d}" for d, n in p.needs.items())
        for name, p in (able or plans).items()
    ]
    return tuple(told) if able else ("nothing would fit here", *told)


def _smaller_sams(facts: Facts) -> dict[str, Facts]:
    if "sam" not in facts.parts or facts.config.sam.stem != "patch":
        return {}
    found = {}
    for letter, sam in SAM_SIZES.items():
        if sam.hidden < facts.config.sam.hidden:
            with_it = empty(lambda sam=sam: SamEncoder(sam))  # type: ignore[misc]
            shapes = {name: tuple(value.shape) for name, value in with_it.state_dict().items()}
            config = dataclasses.replace(facts.config, sam=sam)
            found[letter] = dataclasses.replace(facts, config=config, parts={**facts.parts, "sam": shapes})
    return found


def _opt_weight(name: str, shape: tuple[int, ...], dtype: torch.dtype, load_8bit: bool) -> int:
    if load_8bit and ".layers." in name and len(shape) == 2:
        return math.prod(shape) + 4 * shape[0]
    return math.prod(shape) * dtype.itemsize


def _count(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _short(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.bfloat16: "bf16"}.get(dtype, str(dtype).removeprefix("torch."))


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda:{torch.cuda.current_device() if device.index is None else device.index}"
    return str(device)
