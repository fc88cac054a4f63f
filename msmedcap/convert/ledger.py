"""Where every key of a converted checkpoint went, and where every weight of ours came from.

Comes in: one call for each key. Goes out: a refusal if a key is unaccounted for, else a table a reader can check.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from msmedcap.config import UserError

SHOWN = 20  # keys an error names one by one


@dataclass(frozen=True)
class _Entry:
    """One key of the source (``key`` empty: ours alone), the part it went to, its name there, or why it went nowhere."""

    key: str
    part: str
    new: str
    why: str


class Ledger:
    """The account of one conversion."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._known: set[str] = set()

    def took(self, key: str, part: str, new: str) -> None:
        """The source's ``key`` became ``new`` in ``part`` (``clip``, ``opt``, ``BLIP2/clip`` …); may be said for several parts."""
        self._entries.append(_Entry(key, part, new, ""))
        self._known.add(key)

    def left(self, key: str, why: str) -> None:
        """The source's ``key`` is known and not needed, because ``why``."""
        self._entries.append(_Entry(key, "", "", why))
        self._known.add(key)

    def started(self, part: str, new: str, why: str) -> None:
        """``new`` of ``part`` is not in the source; ``why`` says how it was begun."""
        self._entries.append(_Entry("", part, new, why))

    def close(self, keys: Iterable[str]) -> None:
        """Raise :class:`UserError` naming every one of the source's ``keys`` that was neither taken nor left."""
        if unknown := sorted(set(keys) - self._known):
            more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
            raise UserError(
                f"The checkpoint holds {len(unknown)} weights this version does not know, so it was not converted: "
                f"{', '.join(unknown[:SHOWN])}{more}."
            )

    def rows(self) -> list[dict[str, object]]:
        """One row for each kind of key (numbers in names written N): ``source``, ``count``, ``part``, ``new``, ``why``."""
        groups: dict[tuple[str, str, str], list[_Entry]] = {}
        for entry in self._entries:
            groups.setdefault((_group(entry.key), entry.part, entry.why), []).append(entry)
        return [
            {"source": source, "count": len(found), "part": part, "new": _common([e.new for e in found]), "why": why}
            for (source, part, why), found in groups.items()
        ]

    def table(self) -> str:
        """:meth:`rows` as a Markdown table."""
        lines = ["| Source | Weights | Went to | Why |", "| --- | ---: | --- | --- |"]
        for row in self.rows():
            to = f"{row['part']}: `{row['new']}`" if row["part"] else "left out"
            source = f"`{row['source']}`" if row["source"] else "not in the source"
            lines.append(f"| {source} | {row['count']} | {to} | {row['why']} |")
        return "\n".join(lines)


def _group(key: str) -> str:
    """The first two places of a dotted name without its last, numbers as N: ``vision_model.encoder.*``."""
    places = re.sub(r"\b\d+\b", "N", key).split(".")
    return ".".join([*places[:-1][:2], "*"]) if len(places) > 1 else key


def _common(names: list[str]) -> str:
    """The one name, or what the names share up to a dot, then ``*``; nothing shared: all of them."""
    split = [name.split(".") for name in names]
    shared = []
    for places in zip(*split, strict=False):
        if len(set(places)) > 1:
            break
        shared.append(places[0])
    if len(set(names)) == 1:
        return names[0]
    return ".".join([*shared, "*"]) if shared else ", ".join(names)
