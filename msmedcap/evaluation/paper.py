"""Table 1 of the paper as it is printed: seven models, eight metrics. Reference data with its citation; no torch.

Goes out: :data:`ROWS`, whose numbers are the printed ones, each the metric's value times the power of ten in its column's
head (:data:`COLUMNS`), and :func:`place`, which tells what row of the table a system trained here is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

TITLE = "SAM-Guided Enhanced Fine-Grained Encoding with Mixed Semantic Learning for Medical Image Captioning"
CITATION = (
    "Zhenyu Zhang, Benlu Wang, Weijie Liang, Yizhi Li, Xuechen Guo, Guanhong Wang, Shiyan Li, Gaoang Wang. "
    f"{TITLE}. arXiv:2311.01004, 2023, Table 1."
)


@dataclass(frozen=True)
class Column:
    """A column of the table: ``name`` as our scores are called, ``printed`` as the head reads, ``power`` of ten it is scaled by."""

    name: str
    printed: str
    power: int


COLUMNS: tuple[Column, ...] = (
    Column("BLEU-1", "Bleu 1", 3),
    Column("BLEU-2", "Bleu 2", 3),
    Column("BLEU-3", "Bleu 3", 3),
    Column("METEOR", "METEOR", 3),
    Column("ROUGE-L", "ROUGE_L", 2),
    Column("CIDEr", "CIDEr", 3),
    Column("BERTScore", "BERT score", 2),
    Column("BLEURT", "BLEURT", 1),
)


@dataclass(frozen=True)
class Row:
    """A model of the table: its printed name, the stem of our systems' names for it, and the printed numbers by column.

    ``training`` says on what its Q-Formers were pre-trained (for two, CLIP's first): G general, M medical pictures.
    """

    name: str
    stem: str
    system: str
    training: tuple[str, ...]
    printed: Mapping[str, float]


def _row(system: str, training: tuple[str, ...], *printed: float) -> Row:
    stem = "-".join([system, *(data.replace("+", "") for data in training)])
    values = {column.name: value for column, value in zip(COLUMNS, printed, strict=True)}
    return Row(f"{system} ({', '.join(training)})", stem, system, training, values)


ROWS: tuple[Row, ...] = (
    _row("BLIP2", ("G",), 7.4, 3.0, 1.2, 26.1, 9.7, 23.7, 72.3, -11.5),
    _row("BLIP2", ("G+M",), 53.2, 20.6, 7.5, 28.3, 11.1, 16.4, 71.6, -11.5),
    _row("SAM-BLIP2", ("G+M",), 83.4, 29.4, 10.0, 35.5, 9.3, 11.1, 72.7, -9.3),
    _row("MSMedCap", ("G", "G"), 101.6, 45.4, 22.2, 59.1, 15.1, 56.9, 76.6, -7.7),
    _row("MSMedCap", ("G+M", "G"), 107.2, 45.8, 22.3, 53.0, 14.3, 36.6, 75.9, -7.8),
    _row("MSMedCap", ("G+M", "G+M"), 48.1, 22.8, 10.9, 49.4, 14.7, 61.0, 76.6, -9.1),
    _row("MSMedCap", ("G", "G+M"), 108.9, 48.1, 23.1, 62.6, 15.4, 57.5, 76.8, -7.6),
)


@dataclass(frozen=True)
class Place:
    """Where a system stands: the ``row`` of the paper (None: it has no such row), the ``variant`` of it, the ``seed``."""

    name: str
    row: Row | None
    variant: str
    seed: int


def place(system: str) -> Place:
    """What ``system`` is: ``MSMedCap-G-GM.channels.s1`` is a variant of the last row with seed 1; no suffix is seed 0.

    ``name`` is the system's name without its seed. A variant ("channels": SAM's channels as its tokens, as in the authors'
    code) is no row of the paper, and neither is a system whose stem is none of the table's.
    """
    name, seed = system, 0
    if match := re.fullmatch(r"(.+)\.s(\d+)", system):
        name, seed = match[1], int(match[2])
    stem, _, variant = name.partition(".")
    row = next((row for row in ROWS if row.stem == stem), None)
    return Place(name, row, variant, seed)
