"""A small encoder whose features a test can foretell, and a process of its own that fills a cache with them.

``python -m tests.training.writing FOLDER LOG MODE``: MODE is ``work`` (slowly, to the end; it makes ``LOG.ready`` and waits for
``LOG.go`` first), ``unlocked`` (the same on a disk without locks), ``hang`` (stop for good inside the first shard), ``die``
(killed while the third shard is written but not yet renamed) or ``memory`` (print how memory grew).
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from msmedcap.config import ViewSpec
from msmedcap.models.frozen import freeze
from msmedcap.training.features import FeatureCache, claims

COUNT, BATCH, SHARD = 40, 2, 4
SPEC = ViewSpec("toy", size=4, fit="squash", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
IDS = [f"picture-{row}" for row in range(COUNT)]


class Toy(nn.Module):
    """``view [B,3,4,4]`` → ``[B,tokens,8]``: the view's mean times a weight."""

    def __init__(self, weight: float = 0.5, tokens: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((tokens, 8), weight))

    def forward(self, view: Tensor) -> Tensor:
        return view.mean((1, 2, 3))[:, None, None] * self.weight


def views_of(rows: Tensor) -> dict[str, Tensor]:
    """The picture of a row shows the row's number everywhere."""
    return {"toy": rows.float()[:, None, None, None].expand(-1, 3, 4, 4)}


def expected(rows: Tensor, weight: float = 0.5) -> Tensor:
    return (rows.float() * weight)[:, None, None].expand(-1, 3, 8)


def cache(folder: Path, *, weight: float = 0.5, ids: list[str] = IDS, draw: str = "plain") -> FeatureCache:
    """A cache whose shards hold four pictures each."""
    encoder = freeze(Toy(weight))
    return FeatureCache(
        folder, ids, encoders={"toy": encoder}, specs={"toy": SPEC}, draw=draw, shard_bytes=SHARD * 3 * 8 * 2
    )


def noted(log: Path, wait: float, *, beside: Sequence[Path] = ()) -> Callable[[Tensor], dict[str, Tensor]]:
    """``views_of`` that writes every row it is asked for into ``log``; it goes on once there are the logs of all ``beside`` it."""

    def views(rows: Tensor) -> dict[str, Tensor]:
        with open(log, "a", encoding="utf-8") as file:
            file.writelines(f"{row}\n" for row in rows.tolist())
        while not all(other.is_file() for other in beside):
            time.sleep(0.01)
        time.sleep(wait)
        return views_of(rows)

    return views


def die_at(shard: int) -> None:
    """Be killed the ``shard``-th time that a shard stands complete under its temporary name."""
    real, calls = os.fsync, [0]

    def fsync(handle: int) -> None:
        calls[0] += 1
        if calls[0] == shard:
            os.kill(os.getpid(), signal.SIGKILL)
        real(handle)

    os.fsync = fsync


def no_lock(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def resident() -> int:
    """The memory this process holds now, in bytes, mapped files included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def grow(folder: Path) -> int:
    """By how many bytes filling and reading a cache of 256 MB raises what the process holds, after one of 32 MB did."""

    def use(count: int, draw: str) -> int:
        encoder, most = freeze(Toy(tokens=2**15)), 0
        big = FeatureCache(
            folder, [f"{draw}-{i}" for i in range(count)], encoders={"toy": encoder}, specs={"toy": SPEC}, draw=draw,
            shard_bytes=2**23,
        )
        big.fill(views_of, batch=8, progress=False)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        for rows in order.split(8):
            assert torch.equal(big.batch(rows)["toy"][:, 0, 0], (rows * 0.5).bfloat16().float())
            most = max(most, resident())
        return most

    return -use(64, "small") + use(512, "large")


if __name__ == "__main__":
    folder, log, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    if mode == "memory":
        print(grow(folder))
    else:
        if mode == "die":
            die_at(3)
        if mode == "unlocked":
            claims.fcntl.lockf = no_lock
        writers: list[Path] = []
        if mode in ("work", "unlocked"):
            zlib.crc32 = lambda *_: 0  # all begin at the same shard, so that they meet
            log.with_suffix(".ready").touch()
            while not log.with_suffix(".go").is_file():
                time.sleep(0.01)
            writers = [ready.with_suffix("") for ready in log.parent.glob("*.ready")]  # each is to have its share
        cache(folder).fill(noted(log, 3600 if mode == "hang" else 0.05, beside=writers), batch=BATCH, progress=False)
