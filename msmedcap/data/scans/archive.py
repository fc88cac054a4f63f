"""ZIP archives: the bytes of one in, the contents of its files out, one after the other and in memory only.

Nothing is unpacked to a disk, so no name in an archive is ever a path; names only tell what an operating system added. What an
archive says of itself is not believed: the index is measured before it is read, and bytes are counted as they come out.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator

from msmedcap.data.scans.errors import ScanError
from msmedcap.data.scans.limits import MAX_FILE_BYTES

MOST_ENTRIES = 4096
MOST_INDEX_BYTES = 4 << 20
_END, _END_SIZE, _LONGEST_COMMENT = b"PK\5\6", 22, 65535
_LOCATOR, _LOCATOR_SIZE, _END64_SIZE = b"PK\6\7", 20, 56
_ARCHIVES = (b"PK\3\4", b"7z\xbc\xaf", b"Rar!", b"\x1f\x8b", b"\xfd7zXZ", b"BZh")
_DAMAGED = "This ZIP archive is damaged or cut short; make it or download it again."
_BLOCK = 1 << 20


def is_zip(data: bytes) -> bool:
    """Whether ``data`` begins as a ZIP archive does, an empty one included."""
    return data.startswith((b"PK\3\4", _END))


def zip_contents(data: bytes) -> Iterator[bytes]:
    """The content of each file in the archive, in its order; folders, empty and hidden files are left out.

    Raises :class:`ScanError`, at the latest when the offending file comes, for an archive that is damaged, encrypted, holds another
    archive, has more than 4,096 files, or unpacks to more than 1 GiB.
    """
    if _index_bytes(data) > MOST_INDEX_BYTES:
        raise ScanError(f"This ZIP archive holds more than {MOST_ENTRIES:,} files; send one series at a time.")
    room = MAX_FILE_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not _is_extra(entry)]
            _check(entries)
            for entry in entries:
                content = _read(archive, entry, room)
                room -= len(content)
                if content.startswith(_ARCHIVES):
                    raise ScanError("This ZIP archive holds another archive; unpack it and send the scans themselves.")
                yield content
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, ScanError):
            raise
        if isinstance(error, NotImplementedError):
            raise ScanError("This ZIP archive is packed in an unusual way; make it again as an ordinary ZIP.") from None
        raise ScanError(_DAMAGED) from None


def _index_bytes(data: bytes) -> int:
    """How long the archive's index says it is; as long as it may be where that cannot be told.

    ``zipfile`` would hold an entry of an index of any length in memory before the first could be counted.
    """
    end = data.rfind(_END, max(0, len(data) - _LONGEST_COMMENT - _END_SIZE))
    if end < 0 or end + _END_SIZE > len(data):
        raise ScanError(_DAMAGED)
    size = int.from_bytes(data[end + 12 : end + 16], "little")
    locator = end - _LOCATOR_SIZE
    if locator >= 0 and data.startswith(_LOCATOR, locator):
        start = locator - _END64_SIZE
        size = int.from_bytes(data[start + 40 : start + 48], "little") if start >= 0 else MOST_INDEX_BYTES + 1
    return size


def _is_extra(entry: zipfile.ZipInfo) -> bool:
    parts = entry.filename.replace("\\", "/").split("/")
    return entry.is_dir() or not entry.file_size or parts[0] == "__MACOSX" or parts[-1].startswith(".")


def _check(entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MOST_ENTRIES:
        raise ScanError(f"This ZIP archive holds more than {MOST_ENTRIES:,} files; send one series at a time.")
    if any(entry.flag_bits & 0x1 for entry in entries):
        raise ScanError("This ZIP archive is encrypted; unpack it and send the scans themselves.")


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, room: int) -> bytes:
    content = bytearray()
    with archive.open(entry) as file:
        while block := file.read(_BLOCK):
            content += block
            if len(content) > room:
                raise ScanError(
                    f"This ZIP archive unpacks to more than {MAX_FILE_BYTES >> 30} GiB; send one series at a time."
                )
    return bytes(content)
