"""The words of a caption: the plain sentence a fact sheet becomes, and what a sentence says was found, and on which side.

Comes in: facts (:class:`msmedcap.data.sets.Case`) or text. Goes out: the facts a radiologist states first (modality, plane or
view, body part), then the finding, in one fixed order of words (:func:`plain_caption`); or a finding and a side.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

LABELS = ("no findings", "pneumonia", "COVID-19", "benign", "malignant", "normal")
# What a caption's words say was found, most telling first; the target captions of the demo weights are made with it.
_FINDINGS: tuple[tuple[str, str], ...] = (
    ("fracture", r"fractur"),
    ("dissection", r"\bdissection"),
    ("aneurysm", r"aneurysm"),
    ("vascular malformation", r"malformation|\bavm\b|cavernoma|hemangioma"),
    ("hemorrhage", r"h(a)?emorrhag|h(a)?ematoma|\bbleed"),
    ("infarct", r"infarct|isch(a)?emi|\bstroke"),
    ("thrombus", r"thromb|embol"),
    ("abscess", r"abscess|empyema"),
    ("disc herniation", r"herniat\w+ (of the )?(nucleus|dis[ck])|dis[ck] (herniat|protru|extru)"),
    ("hernia", r"\bhernia"),
    ("stone", r"\bstones?\b|calcul[iu]|lithiasis"),
    ("hydronephrosis", r"hydronephro|hydroureter"),
    ("hydrocephalus", r"hydrocephal|ventriculomegaly"),
    ("obstruction", r"obstruct|intussuscep|volvulus|ileus"),
    ("pneumothorax", r"pneumothora"),
    ("effusion", r"effusion"),
    ("consolidation", r"consolidat|airspace|ground.glass|infiltrat"),
    ("tear", r"\btears?\b|\btorn\b|rupture"),
    ("mass", r"\bmass(es)?\b|tumou?r|neoplas|carcinom|sarcom|gliom|blastoma|meningiom|lymphom|metasta|adenoma|schwannom|\bgist\b"),
    ("nodule", r"nodul"),
    ("cyst", r"\bcyst"),
    ("inflammation", r"inflam|appendicitis|diverticulitis|colitis|pancreatitis|\w+itis\b"),
    ("fluid collection", r"fluid collection|collection"),
    ("edema", r"(o)?edema"),
    ("atrophy", r"atroph"),
    ("stenosis", r"steno[st]"),
    ("lesion", r"lesion|enhanc|signal (abnormal|intens)|hyperintens|hypointens|hypodens|hyperdens"),
)
_FINDING_RES = tuple((name, re.compile(pattern, re.I)) for name, pattern in _FINDINGS)
_NEGATED = re.compile(r"\b(no|without|negative for|absence of|rule out|no evidence of)\b[^.;,]*", re.I)
_SIDE = re.compile(r"\b(left|right)\b|\b([LR])(UL|LL|ML)\b")
_SWAP = re.compile(r"\b(left|right)|\b([LR])(UL|LL|ML)\b", re.I)


def plain_caption(facts: Mapping[str, str]) -> str:
    """The sentence(s) for ``facts``: what a radiologist states first, then the finding; unknown facts are left out."""
    words = [facts.get("plane") or facts.get("view") or "", facts.get("sequence", ""), facts.get("modality", "scan")]
    lead = " ".join(w for w in words if w)
    if part := facts.get("part"):
        lead += f" of the {'pelvis and urinary tract' if part == 'pelvis' else part}"
    return " ".join(s for s in (lead[:1].upper() + lead[1:] + ".", finding_sentence(facts)) if s)


def finding_sentence(facts: Mapping[str, str]) -> str:
    """The second sentence of :func:`plain_caption`, or an empty string where no finding is known."""
    finding = facts.get("label") or facts.get("finding") or ""
    side = f" on the {facts['side']}" if facts.get("side") in ("left", "right") else ""
    if not finding:
        return ""
    if finding in ("pneumonia", "COVID-19"):
        return f"Findings of {finding}{side}."
    if finding == "normal":
        return "Normal breast tissue." if facts.get("part") == "breast" else "Normal."
    if finding in ("benign", "malignant"):
        return f"{finding.capitalize()} mass{side}."
    if finding == "no findings":
        return "No findings."
    return f"{finding[:1].upper()}{finding[1:]}{side}."


def swap_sides(text: str) -> str:
    """``text`` as it reads after the picture was mirrored: left ↔ right, LUL ↔ RUL, keeping case."""

    def other(match: re.Match[str]) -> str:
        if word := match[1]:
            new = "right" if word.lower() == "left" else "left"
            return new.upper() if word.isupper() else new.capitalize() if word[0].isupper() else new
        letter = {"L": "R", "R": "L", "l": "r", "r": "l"}[match[2]]
        return letter + match[3]

    return _SWAP.sub(other, text)


def find_finding(text: str) -> str:
    """The most telling finding word of :data:`_FINDINGS` that ``text`` affirms, or an empty string."""
    affirmed = _NEGATED.sub(" ", text)
    return next((name for name, pattern in _FINDING_RES if pattern.search(affirmed)), "")


def find_side(text: str) -> str:
    """``"left"`` or ``"right"`` where ``text`` names exactly one side, else an empty string."""
    sides = {m[1] or {"L": "left", "R": "right"}[m[2]] for m in _SIDE.finditer(text)}
    return sides.pop() if len(sides) == 1 else ""
