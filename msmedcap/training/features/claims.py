"""Who makes which shard: a lock on a claim file, which the system lets go of when its process dies, however it dies.

Comes in: the claim's file. Goes out: :class:`Hold`, whether this process holds it. Claims only share work: shards are renamed into
place whole, so that a disk without locks costs repeated work, never a wrong shard.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import cache
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a POSIX system: one process at a time is the rule there
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)


class Hold(IntEnum):
    """Another process holds the claim or has just ended it; the system knows no locks, so we may not be alone; we are alone."""

    NONE = 0
    UNSURE = 1
    ALONE = 2


@contextmanager
def claim(file: Path) -> Iterator[Hold]:
    """Hold the claim ``file`` for the block, if it is free; never waits."""
    if fcntl is None:
        yield Hold.UNSURE
        return
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        held = _lock(handle, file)
        if not _same(handle, file):
            held = Hold.NONE
        try:
            yield held
        finally:
            if held:
                file.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _lock(handle: int, file: Path) -> Hold:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return Hold.NONE
        _warn(file.parent, error.strerror)
        return Hold.UNSURE
    return Hold.ALONE


@cache
def _warn(folder: Path, reason: str) -> None:
    """Once for each folder."""
    log.warning("%s is on a disk without locks (%s): several processes may encode the same pictures", folder, reason)


def _same(handle: int, file: Path) -> bool:
    """Whether the locked file is still the one under that name: the holder before us removes it when it is done."""
    try:
        return os.fstat(handle).st_ino == file.stat().st_ino
    except FileNotFoundError:
        return False
