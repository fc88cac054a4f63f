"""The whole way at true size with random weights: public formats → convert → three captions and maps, with peak memory.

    python -m benchmarks.dry_run --work DIR      needs about 25 GB of disk; makes what is missing, keeps what is there

Comes in: an empty folder. Goes out: checkpoints in the hub's, segment-anything's and LAVIS' own formats at their true sizes, a
model folder made of them by ``convert``, and a table of each command's seconds and peak resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from segment_anything import build_sam_vit_h
from torch import Tensor
from transformers import Blip2Config, Blip2ForConditionalGeneration, OPTConfig

from benchmarks.pipelines import ROOT, a_picture
from msmedcap import checkpoints

SHARD = 2_000_000_000


def main() -> None:
    """Make the checkpoints, run the commands, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dry_run", description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="a folder on a disk with 25 GB to spare")
    work: Path = parser.parse_args().work
    work.mkdir(parents=True, exist_ok=True)
    makers = {"blip2": make_hub, "sam.pth": make_sam, "msmedcap.pth": make_authors, "sam-blip2.pth": make_sam_only}
    for name, make in makers.items():
        if not (work / name).exists():
            print(f"making {name}", file=sys.stderr)
            make(work / name)
    full, scan, maps = work / "full", a_picture(), work / "maps"
    commands = {
        "convert hub": ["convert", "hub", work / "blip2", "--out", full],
        "convert sam": ["convert", "sam", work / "sam.pth", "--out", full, "--sam-size", "h"],
        "convert lavis": ["convert", "lavis", work / "msmedcap.pth", "--out", full, "--sam-size", "h"],
        "convert lavis, SAM alone": ["convert", "lavis", work / "sam-blip2.pth", "--out", full, "--sam-size", "h"],
        "caption, greedy": ["caption", scan, "--models", full, "--json"],
        "caption, the authors' 15 beams": ["caption", scan, "--models", full, "--preset", "paper", "--json"],
        "caption, 8 bit": ["caption", scan, "--models", full, "--load-8bit", "--json"],
        "explain": ["explain", scan, "--models", full, "--out", maps, "--json"],
    }
    shutil.rmtree(full, ignore_errors=True)
    print("| command | seconds | peak memory, GiB | says |\n|---|---|---|---|")
    for what, arguments in commands.items():
        seconds, peak, said = run([str(a) for a in arguments])
        print(f"| {what} | {seconds:.0f} | {peak:.1f} | {said} |", flush=True)


def run(arguments: list[str]) -> tuple[float, float, str]:
    """One command of the package: seconds, peak resident GiB, and its last line (a caption's seconds where it gives them)."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "msmedcap", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    lines = process.stdout.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(arguments)} failed with status {os.waitstatus_to_exitcode(status)}")
    last = lines[-1] if lines else ""
    if last.startswith("{") and "seconds" in (record := json.loads(last)):
        last = ", ".join(f"{k} {v} s" for k, v in record["seconds"].items())
    return took, usage.ru_maxrss / 2**20, last[:120].replace("|", "/")


def noise(shapes: Mapping[str, torch.Size], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Small random tensors of the given shapes; norm weights are near 1, whole numbers count up."""
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(1 << 20, generator=generator) * 0.02
    for name, shape in shapes.items():
        count = shape.numel()
        value = pool.repeat(-(-count // len(pool)))[:count].view(shape)
        is_norm = len(shape) == 1 and name.endswith("weight")
        yield name, (value + 1 if is_norm else value).to(dtype).clone()


def make_hub(folder: Path) -> None:
    """``Salesforce/blip2-opt-2.7b``'s layout: sharded fp16 safetensors, config.json, tokenizer files."""
    text = OPTConfig(
        vocab_size=50272, hidden_size=2560, ffn_dim=10240, num_hidden_layers=32, num_attention_heads=32,
        word_embed_proj_dim=2560, bos_token_id=2, eos_token_id=2, pad_token_id=1,
    )
    config = Blip2Config(text_config=text.to_dict(), num_query_tokens=32)
    with torch.device("meta"):
        model = Blip2ForConditionalGeneration(config)
    shapes = {k: v.shape for k, v in model.state_dict().items() if k != "language_model.lm_head.weight"}
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    others = shutil.ignore_patterns("*.safetensors", "*index.json", "config.json")
    shutil.copytree(checkpoints.folder_of("demo") / "opt", new, ignore=others)  # a tokenizer: the hub's cannot be had
    config.architectures = ["Blip2ForConditionalGeneration"]
    config.save_pretrained(new)
    shards: list[dict[str, Tensor]] = [{}]
    names, place = [], {}
    for name, value in noise(shapes, torch.float16):
        if sum(t.nbytes for t in shards[-1].values()) + value.nbytes > SHARD and shards[-1]:
            names.append(_write_shard(shards.pop(), new, len(names)))
            shards.append({})
        shards[-1][name] = value
        place[name] = len(names)
    names.append(_write_shard(shards.pop(), new, len(names)))
    index = {"metadata": {}, "weight_map": {key: names[i] for key, i in place.items()}}
    (new / "model.safetensors.index.json").write_text(json.dumps(index))
    new.rename(folder)


def _write_shard(tensors: dict[str, Tensor], folder: Path, number: int) -> str:
    name = f"model-{number:05d}.safetensors"
    save_file(tensors, folder / name, metadata={"format": "pt"})
    return name


def make_sam(file: Path) -> None:
    """``sam_vit_h_4b8939.pth``'s layout."""
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in build_sam_vit_h().state_dict().items()}
    _save(dict(noise(shapes, torch.float32)), file)


def make_authors(file: Path) -> None:
    """The authors' stage-2 file: both Q-Formers without text halves, SAM's tokens by channel (width 4096), no frozen parts."""
    norm = {"ln_vision.weight": torch.Size([1408]), "ln_vision.bias": torch.Size([1408])}
    _save({"model": dict(noise(norm | branch_shapes("", 1408) | branch_shapes("sam_", 4096), torch.float32)), "epoch": 2}, file)


def make_sam_only(file: Path) -> None:
    """As :func:`make_authors`, of a model that reads through SAM alone."""
    _save({"model": dict(noise(branch_shapes("sam_", 4096), torch.float32)), "epoch": 2}, file)


def branch_shapes(prefix: str, width: int) -> dict[str, torch.Size]:
    """One branch of the authors': queries, Q-Former and projection, reading tokens of ``width``."""
    shapes = {
        f"{prefix}query_tokens": torch.Size([1, 32, 768]),
        f"{prefix}opt_proj.weight": torch.Size([2560, 768]),
        f"{prefix}opt_proj.bias": torch.Size([2560]),
    }
    return shapes | {f"{prefix}Qformer.bert.{k}": v for k, v in qformer_shapes(width).items()}


def qformer_shapes(encoder_width: int, *, layers: int = 12, width: int = 768, mlp: int = 3072) -> dict[str, torch.Size]:
    """LAVIS' names and shapes of a stage-2 Q-Former (cross-attention in every second layer, no text feed-forward)."""
    shapes: dict[str, torch.Size] = {}

    def linear(name: str, before: int, after: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = torch.Size([after, before]), torch.Size([after])

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = torch.Size([width])

    norm("embeddings.LayerNorm")
    shapes["embeddings.position_ids"] = torch.Size([1, 512])
    for i in range(layers):
        layer = f"encoder.layer.{i}"
        blocks = {"attention": width} | ({"crossattention": encoder_width} if i % 2 == 0 else {})
        for block, source in blocks.items():
            linear(f"{layer}.{block}.self.query", width, width)
            linear(f"{layer}.{block}.self.key", source, width)
            linear(f"{layer}.{block}.self.value", source, width)
            linear(f"{layer}.{block}.output.dense", width, width)
            norm(f"{layer}.{block}.output.LayerNorm")
        linear(f"{layer}.intermediate_query.dense", width, mlp)
        linear(f"{layer}.output_query.dense", mlp, width)
        norm(f"{layer}.output_query.LayerNorm")
    return shapes


def _save(content: object, file: Path) -> None:
    new = file.with_name(file.name + ".new")
    torch.save(content, new)
    new.rename(file)


if __name__ == "__main__":
    main()
