"""``masks.csv`` of the chest mask set, made from the ``structure.csv`` its home publishes (and ``metadata.csv`` where it is)."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from msmedcap.config import UserError

_FIELDS = ("image", "class", "mask", "source_filename", "view", "finding")
_MASK = re.compile(r"masks/([\w.-]+\.png)")
_PICTURE = re.compile(r"[\w ().-]+\.(?:jpe?g|png)", re.I)


def write_masks_csv(folder: Path) -> int:
    """Write ``folder/masks.csv``, one row per mask whose picture is there, and return how many.

    ``view`` and ``finding`` stay empty where no ``metadata.csv`` says them. Raises :class:`UserError` where the list is not as
    it is known.
    """
    about = {row.get("filename", ""): row for row in _rows(folder / "metadata.csv")}
    rows = []
    for row in csv.reader((folder / "structure.csv").read_text(encoding="utf-8-sig").splitlines()[1:]):
        # Some rows lack a column, so cells are told by what they hold, not by where they stand.
        mask = next((match[1] for cell in row if (match := _MASK.fullmatch(cell))), "")
        label = next((cell.removeprefix("COVID-19 ") for cell in row if cell.startswith("COVID-19 ")), "")
        name = next((cell for cell in row if _PICTURE.fullmatch(cell) and not cell.startswith("COVID-19 ")), "")
        if mask and label and name and (folder / "images" / name).is_file() and (folder / "masks" / mask).is_file():
            said = about.get(name, {})
            rows.append((name, label, mask, name, said.get("view", ""), said.get("finding", "")))
    if not rows:
        raise UserError(
            f"{folder / 'structure.csv'} is not the list of masks this version knows; masks.csv was not made."
        )
    with (folder / "masks.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_FIELDS)
        writer.writerows(sorted(rows))
    return len(rows)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(file)]
