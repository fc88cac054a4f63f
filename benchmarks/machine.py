"""The machine's own ceilings, measured in the same run: what no arrangement of the same arithmetic can beat.

Comes in: a device. Goes out: rows without a peer: the rate of a large matrix product, the rate at which memory is read by a
matrix–vector product (what bounds decoding), and a sentence that describes the machine.
"""

from __future__ import annotations

import os
import platform
import statistics
from pathlib import Path

import torch

from benchmarks.timing import Row, seconds

GROUP = "machine"


def rows(*, device: torch.device, quick: bool) -> list[Row]:
    """Matrix products in fp32 and bf16 (GFLOP/s) and reading of memory in bf16 (GB/s)."""
    side = 512 if quick else 4096
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(side, side, device=device).to(dtype)
        rate = 2 * side**3 / _median(lambda a=a: a @ a) / 1e9
        found.append(Row(GROUP, f"matrix product {side}³, {_name(dtype)}", rate, unit="GFLOP/s"))
    height = 4096 if quick else 65536
    matrix = torch.randn(height, 4096, device=device, dtype=torch.bfloat16)
    vector = torch.randn(4096, device=device, dtype=torch.bfloat16)
    rate = matrix.nbytes / _median(lambda: matrix @ vector) / 1e9
    found.append(Row(GROUP, f"matrix × vector, {matrix.nbytes / 2**20:.0f} MiB of bf16", rate, unit="GB/s"))
    return found


def described(device: torch.device) -> str:
    """One line: processor, threads, memory, library versions, allocator settings."""
    versions = f"torch {torch.__version__}", f"Python {platform.python_version()}"
    parts = [_processor(), f"{torch.get_num_threads()} threads", *versions]
    if device.type == "cuda":
        parts.insert(0, torch.cuda.get_device_name(device))
    allocator = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith(("MALLOC_", "GLIBC_TUNABLES"))]
    return " · ".join([*parts, "allocator " + (" ".join(allocator) or "as shipped")])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line for line in lines if line.startswith("flags")), "")
    return f"{model} ({', '.join(f for f in ('avx512_bf16', 'amx_bf16') if f in flags) or 'no bf16 units'})"


def _name(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]


def _median(call: object, rounds: int = 5) -> float:
    assert callable(call)
    call()
    return statistics.median(seconds(call) for _ in range(rounds))
