"""Unpack an archive that somebody else made: nothing outside the folder, no links, no more than there is room for."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from msmedcap.config import UserError
from msmedcap.data.download.transfer import check_space

CAP = 400 << 30  # bytes; the largest of the data sets is well below
_RATIO = 100  # pictures hardly pack: an archive that grows more than this, past a gigabyte, is a bomb
FREE_GROWTH = 1 << 30

Place = Callable[[str], str]


def unpack(archive: Path, into: Path, *, place: Place, cap: int = CAP) -> int:
    """Unpack a zip or tar into ``into`` and return how many files it gave.

    ``place`` says where below ``into`` a member goes; an empty answer leaves it out. All names are checked before anything is
    written. Raises :class:`UserError` for a name that leads elsewhere, a link, too many bytes, a damaged archive or a full disk.
    """
    cap = min(cap, _RATIO * archive.stat().st_size + FREE_GROWTH)
    try:
        if zipfile.is_zipfile(archive):
            return _unzip(archive, into, place, cap)
        return _untar(archive, into, place, cap)
    except UserError:
        raise
    except OSError as error:
        if error.errno is None:  # a codec's complaint, not the disk's
            raise _damaged(archive, str(error)) from error
        raise UserError(
            f"{archive.name} cannot be unpacked into {into} ({error.strerror}); free some space or check the folder."
        ) from error
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        RuntimeError,
        ValueError,
    ) as error:
        raise _damaged(archive, str(error)) from error


def _damaged(archive: Path, why: str) -> UserError:
    return UserError(f"{archive.name} is damaged ({why}); remove it and download it again.")


def safe_path(name: str, where: str) -> str:
    """``name`` as it stands, if it stays below a folder on every system; else :class:`UserError`."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in name or not name.isprintable():
        raise UserError(f"{where} holds a file {name!r} that would not stay in the folder; nothing was unpacked.")
    return name


def _unzip(archive: Path, into: Path, place: Place, cap: int) -> int:
    with zipfile.ZipFile(archive) as source:
        wanted = []
        for info in source.infolist():
            safe_path(info.filename, archive.name)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _link(archive, info.filename)
            if not info.is_dir() and (target := place(info.filename)):
                wanted.append((info, safe_path(target, archive.name)))
        total = sum(info.file_size for info, _ in wanted)
        _check_total(archive, total, cap)
        check_space(into, total, archive.name)
        for info, target in wanted:
            with source.open(info) as file:
                _write(file, into / target, info.file_size, archive)
    return len(wanted)


def _untar(archive: Path, into: Path, place: Place, cap: int) -> int:
    total, wanted = 0, set()
    with tarfile.open(archive) as source:
        for member in source:
            safe_path(member.name, archive.name)
            if member.issym() or member.islnk():
                raise _link(archive, member.name)
            if member.isfile() and not member.issparse() and (target := place(member.name)):
                safe_path(target, archive.name)
                total += member.size
                wanted.add(member.name)
                _check_total(archive, total, cap)
    check_space(into, total, archive.name)
    with tarfile.open(archive) as source:
        for member in source:
            if member.isfile() and member.name in wanted and (file := source.extractfile(member)):
                _write(file, into / place(member.name), member.size, archive)
    return len(wanted)


def _link(archive: Path, name: str) -> UserError:
    return UserError(f"{archive.name} holds a link, {name!r}, and links are never unpacked; nothing was.")


def _check_total(archive: Path, total: int, cap: int) -> None:
    if total > cap:
        raise UserError(
            f"{archive.name} would unpack to more than {cap / 1e9:.1f} GB, which is no data set; nothing was unpacked."
        )


def _write(source: IO[bytes], target: Path, size: int, archive: Path) -> None:
    """One member under its name, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with part.open("wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
    if part.stat().st_size != size:
        part.unlink()
        raise _damaged(archive, f"{target.name} is cut short")
    os.replace(part, target)
