"""What went wrong in a caption, in the kinds the explorer filters by.

Comes in: the truth of a case and a caption. Goes out: kinds of error. What a caption claims and whether it holds is
:mod:`msmedcap.evaluation.facts`, as in the tables: a reference speaks of everything, so a finding it is silent on is made up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msmedcap.evaluation.facts import Judged, Truth, canonical, claims, compare, is_empty_or_repeats, lexicon, stated

KINDS: dict[str, str] = {
    "right": "Right",
    "modality": "Wrong modality",
    "plane": "Wrong plane or view",
    "part": "Wrong body part",
    "side": "Wrong side",
    "missed": "Finding missed",
    "made up": "Finding made up",
    "faulty": "Empty or repeating",
    "unreadable": "Picture not read",
}


def value_of(fact: str, facts: Mapping[str, str], references: Sequence[str]) -> str:
    """The lexicon's word for a case's ``fact``, from its data set's ``facts``, else from its references; empty if unknown."""
    known = canonical(fact, facts[fact]) if facts.get(fact) else None
    return known or stated(fact, " ".join(references)) or facts.get(fact, "")


def errors(truth: Truth, caption: str, *, unreadable: bool = False) -> frozenset[str]:
    """Keys of :data:`KINDS`: what is wrong in ``caption``, just ``"right"`` where nothing is.

    Modality, plane or view and body part are wrong where the caption says another, or says nothing of them that is true; a side
    wherever it is not the truth's. Of body parts the regions count. No finding at all is a finding: not to say so is to miss it.
    """
    if unreadable:
        return frozenset(("unreadable",))
    judged = compare(truth, claims(caption))
    found = {"modality"} if _wrong(judged["modality"]) else set()
    if _wrong(judged["plane"]) or _wrong(judged["view"]):
        found.add("plane")
    side = judged["side"]
    if side.contradicted or side.unsupported or side.omitted:
        found.add("side")
    regions, part = lexicon().regions, judged["part"]
    if part.contradicted or (part.omitted & regions and not part.supported & regions):
        found.add("part")
    claimed = [judged["finding"], judged["device"]]
    if any(kind.contradicted or kind.unsupported for kind in claimed):
        found.add("made up")
    if any(kind.omitted for kind in claimed) or (judged["absent"].omitted and "made up" not in found):
        found.add("missed")
    if is_empty_or_repeats(caption):
        found.add("faulty")
    return frozenset(found or {"right"})


def _wrong(judged: Judged) -> bool:
    return bool(judged.contradicted or judged.unsupported or (judged.omitted and not judged.supported))
