"""The pictures of ROCO, which it does not hold itself: each is fetched from its article in PubMed Central's open-access cloud.

ROCO names article packages on an FTP server; those packages were withdrawn in 2026, and the files of an article now lie one by
one under ``PMCID.VERSION/``. An article that has left the open-access subset is gone: its pictures are counted as missing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msmedcap.config import UserError
from msmedcap.data.download.sources import RemoteFile
from msmedcap.data.download.transfer import Client, Missing, fetch

log = logging.getLogger(__name__)

CLOUD = "https://pmc-oa-opendata.s3.amazonaws.com"
_ARTICLE = re.compile(r"/(PMC\d+)\.tar\.gz")
_NAME = re.compile(r"[\w.,()+ -]+", re.ASCII)
_VERSIONS = (1, 2)
_AT_ONCE = 8


def wanted(folder: Path) -> list[tuple[str, str, Path]]:
    """(PMC id, name in the article, place) of every radiology picture that ``folder``'s link lists name and that is not there."""
    rows = {}
    for links in sorted(folder.glob("data/*/radiology/dlinks*.txt")):
        for line in links.read_text(encoding="utf-8").splitlines():
            article, name = _ARTICLE.search(line), line.rpartition("\t")[2].strip()
            if article and _NAME.fullmatch(name) and ".." not in name:
                path = links.parent / "images" / f"{article[1]}_{name}"
                if not path.exists():
                    rows[path] = (article[1], name, path)
    return list(rows.values())


def fetch_pictures(rows: list[tuple[str, str, Path]], *, client: Client, bar: Any) -> int:
    """Fetch the pictures ``rows`` name, several at once, and return how many are missing at PubMed Central."""

    def one(row: tuple[str, str, Path]) -> bool:
        article, name, path = row
        for file in _places(article, name, path):
            try:
                fetch(file, path, client=client)
                return True
            except Missing:
                continue
        return False

    missing = 0
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        for there in pool.map(one, rows):
            missing += not there
            bar.update(1)
    except UserError as error:
        raise UserError(f"{str(error).rstrip('.')}. The pictures that came are kept: call again to go on.") from error
    finally:
        pool.shutdown(cancel_futures=True)
    return missing


def _places(article: str, name: str, path: Path) -> Iterator[RemoteFile]:
    for version in _VERSIONS:
        yield RemoteFile(f"{CLOUD}/{article}.{version}/{quote(name)}", path.name)
