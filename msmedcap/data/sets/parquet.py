"""Parquet files, as the hub keeps data sets in: their words as rows, their pictures one cell at a time.

Comes in: a parquet file with columns of words and a column of pictures (``{bytes, path}`` records or plain bytes). Goes out:
rows without the pictures, and the bytes of one picture. A row group is the least that can be read: the last few are kept, so
reading in order decodes each once; reading at random from large row groups is slow, and shards are the better place then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

from msmedcap.config import UserError
from msmedcap.data.scans import ScanError

_ROWS_AT_ONCE = 4096


def _arrow() -> ModuleType:
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError:
        raise UserError("Reading parquet files needs pyarrow; install it with `pip install pyarrow`.") from None
    return pyarrow


def read_rows(file: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of ``file`` with those of ``columns`` it has; raises :class:`UserError` where it is no parquet file."""
    arrow = _arrow()
    try:
        with arrow.parquet.ParquetFile(file) as opened:
            there = [name for name in columns if name in opened.schema_arrow.names]
            for batch in opened.iter_batches(_ROWS_AT_ONCE, columns=there):
                yield from batch.to_pylist()
    except (arrow.ArrowException, OSError):
        raise UserError(f"{file} is not a whole parquet file; fetch it again.") from None


def column_names(file: Path) -> list[str]:
    """The names of the columns of ``file``; raises :class:`UserError` where it is no parquet file."""
    arrow = _arrow()
    try:
        return list(arrow.parquet.read_schema(file).names)
    except (arrow.ArrowException, OSError):
        raise UserError(f"{file} is not a whole parquet file; fetch it again.") from None


def read_cell(file: Path, row: int, column: str) -> bytes:
    """The picture in row ``row`` of ``column``; raises :class:`ScanError` where the file or the cell holds none."""
    arrow = _arrow()
    try:
        ends = _row_ends(file)
        group = next((i for i, end in enumerate(ends) if row < end), len(ends))
        if row < 0 or group == len(ends):
            raise ScanError("The parquet file has no such row.")
        cell = _row_group(file, group, column)[row - (ends[group - 1] if group else 0)].as_py()
    except (arrow.ArrowException, OSError, KeyError):
        raise ScanError("The parquet file is missing or damaged.") from None
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes):
        raise ScanError("The parquet file holds no picture here.")
    return data


@lru_cache(maxsize=256)
def _row_ends(file: Path) -> tuple[int, ...]:
    meta = _arrow().parquet.read_metadata(file)
    return tuple(accumulate(meta.row_group(i).num_rows for i in range(meta.num_row_groups)))


@lru_cache(maxsize=4)
def _row_group(file: Path, group: int, column: str) -> Any:
    # Opened anew each time: an open ParquetFile may not be shared by the threads that read pictures ahead.
    with _arrow().parquet.ParquetFile(file) as opened:
        return opened.read_row_group(group, columns=[column], use_threads=False).column(column)
