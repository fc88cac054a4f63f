"""A caption's claims against what is true: supported, contradicted, unsupported, and what was left out.

Comes in: the claims of a caption and the :class:`Truth`, which is made from reference texts or from the known facts of a case.
Goes out: for each kind the claims by verdict, and a verdict for each claim with its place in the text. A reference speaks of
everything; known facts only of what they name, and what they cannot judge is not judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msmedcap.data.captions import plain_caption
from msmedcap.evaluation.facts.claims import KINDS, Claim, Claims, Key, claims
from msmedcap.evaluation.facts.lexicon import lexicon
from msmedcap.evaluation.facts.stated import FAMILIES

_ALL: frozenset[Key] = frozenset()
_ONE_OF = ("modality", "plane", "view")
_NORMAL = ("no findings", "normal")
Closed = Mapping[str, frozenset[Key]]


@dataclass(frozen=True)
class Truth:
    """What is true: the claims that hold, and which others are false because they are not among them.

    ``closed`` maps a kind to the values that are judged wrong where ``claims`` do not hold them (an empty set: all values); a
    kind that it lacks is judged only where a claim is supported or contradicted. ``exclusive`` are groups of findings of which
    one only can be true.
    """

    claims: Claims
    closed: Closed
    exclusive: tuple[frozenset[str], ...] = ()


@dataclass(frozen=True)
class Judged:
    """The claims of one kind by verdict: ``supported`` (tp), ``contradicted`` and ``unsupported`` (fp), ``omitted`` (fn)."""

    supported: frozenset[Key] = frozenset()
    contradicted: frozenset[Key] = frozenset()
    unsupported: frozenset[Key] = frozenset()
    omitted: frozenset[Key] = frozenset()

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """(tp, fp, fn, contradicted); the contradicted are among the fp."""
        wrong = len(self.contradicted)
        return len(self.supported), wrong + len(self.unsupported), len(self.omitted), wrong


def told(references: str | Sequence[str]) -> Truth:
    """The truth that one or several reference texts of a picture tell: what any of them claims holds, nothing else."""
    texts = [references] if isinstance(references, str) else list(references)
    return of_claims(Claims(tuple(claim for text in texts for claim in claims(text))))


def of_claims(reference: Claims) -> Truth:
    """The truth of a text that speaks of everything: what ``reference`` does not claim is false."""
    return Truth(reference, dict.fromkeys(KINDS, _ALL), lexicon().exclusive)


def known(facts: Mapping[str, str]) -> Truth:
    """The truth of a case's facts: modality, plane or view, part (a region), label or finding, side; others are not read.

    A kind without a fact is not judged. A label is judged within its family (:data:`FAMILIES`); a finding is known to be
    there, which does not say that others are not.
    """
    words = lexicon()
    held = claims(plain_caption(facts))
    closed: dict[str, frozenset[Key]] = {}
    if facts.get("modality"):
        closed["modality"] = _ALL
    if facts.get("plane"):
        closed["plane"] = frozenset(words.values["plane"])
    elif facts.get("view"):
        closed["view"] = frozenset(("frontal", "lateral"))
    if facts.get("part"):
        closed["part"] = frozenset(words.regions)
    family = next((labels for labels in FAMILIES if facts.get("label") in labels), ())
    if family:
        closed["finding"] = frozenset(family)
        if facts["label"] not in _NORMAL:
            closed["absent"] = frozenset(("abnormality",))
    exclusive = (frozenset(family) - set(_NORMAL),) if family else words.exclusive
    items = tuple(c for c in held if c.kind in closed or c.kind in ("part", "finding", "device"))
    # The fact is a region; a part that the finding's words name ("renal stone") is no fact of its own.
    region = claims(plain_caption({"part": facts.get("part", "")})).keys["part"]
    items = tuple(c for c in items if c.kind != "part" or c.value in region)
    return Truth(Claims(items), closed, exclusive)


def compare(reference: Claims | Truth, candidate: Claims) -> dict[str, Judged]:
    """The verdicts on ``candidate`` for each kind of :data:`KINDS`.

    A doubted finding counts as claimed, and contradicts nothing. A finding that the reference denies, by itself or with all
    of its kind ("lungs are clear"), is contradicted, as is a denied one that the reference names; of modality, plane, view
    and body region a value is contradicted where the reference names others and none of the caption's. Sides are judged on what
    both texts name.
    """
    truth = reference if isinstance(reference, Truth) else of_claims(reference)
    judged = {kind: _simple(kind, truth, candidate) for kind in KINDS if kind not in ("side", "finding", "absent")}
    return {
        **judged,
        "side": _side(truth, candidate),
        "finding": _finding(truth, candidate),
        "absent": _absent(truth, candidate),
    }


def judge(reference: Claims | Truth, candidate: Claims) -> list[tuple[Claim, str]]:
    """Each claim of ``candidate`` with its verdict: "supported", "contradicted", "unsupported" or "unjudged".

    A claim whose side is contradicted is contradicted.
    """
    verdicts = compare(reference, candidate)
    result = []
    for claim in candidate:
        kind = "absent" if claim.state == "absent" else claim.kind
        found = _verdict(verdicts[kind], claim.value)
        sides = ("left", "right") if claim.side == "bilateral" else (claim.side,)
        if any((claim.value, side) in verdicts["side"].contradicted for side in sides):
            found = "contradicted"
        result.append((claim, found))
    return result


def _verdict(judged: Judged, key: Key) -> str:
    for name in ("contradicted", "unsupported", "supported"):
        if key in getattr(judged, name):
            return name
    return "unjudged"


def _closed(truth: Truth, kind: str, wrong: frozenset[Key]) -> frozenset[Key]:
    """Those of ``wrong`` that ``truth`` can judge."""
    if kind not in truth.closed:
        return frozenset()
    return wrong & truth.closed[kind] if truth.closed[kind] else wrong


def _simple(kind: str, truth: Truth, candidate: Claims) -> Judged:
    true, said = truth.claims.keys[kind], candidate.keys[kind]
    omitted = true - said
    wrong = said - true
    if kind == "part":
        omitted, wrong = omitted - candidate.implied_parts, wrong - truth.claims.implied_parts
    wrong = _closed(truth, kind, wrong)
    contradicted: frozenset[Key] = frozenset()
    if kind in _ONE_OF and true and not said & true:
        contradicted = wrong
    elif kind == "part" and (held := _known_regions(truth)):
        contradicted = frozenset(value for value in wrong if (found := _regions(value)) and not found & held)
    elif kind == "device":
        contradicted = (said - true) & truth.claims.keys["absent"]
        wrong |= contradicted
    return Judged(said & true, contradicted, wrong - contradicted, omitted)


def _finding(truth: Truth, candidate: Claims) -> Judged:
    true, said = truth.claims.keys["finding"], candidate.keys["finding"]
    certain = {v for (kind, v), state in candidate.states.items() if kind == "finding" and state == "present"}
    certain |= {a for v in certain for a in lexicon().ancestors("finding", v)}
    contradicted: frozenset[Key] = frozenset(v for v in map(str, said - true) if v in certain and _is_denied(v, truth))
    # What only a contradicted finding implies falls with it: "no pleural effusion" against "pleural effusion" and "effusion".
    contradicted |= (said - true) & {a for v in contradicted for a in lexicon().ancestors("finding", str(v))}
    wrong = _closed(truth, "finding", said - true) | contradicted
    return Judged(said & true, contradicted, wrong - contradicted, true - said)


def _is_denied(value: str, truth: Truth) -> bool:
    denied, true = truth.claims.keys["absent"], truth.claims.keys["finding"]
    above = lexicon().ancestors("finding", value)
    if value in denied or "abnormality" in denied or above & denied:
        return True
    return any(value in group and true & (group - {value}) and not above & true for group in truth.exclusive)


def _absent(truth: Truth, candidate: Claims) -> Judged:
    true, said = truth.claims.keys["absent"], candidate.keys["absent"]
    present = {v for (_, v), state in truth.claims.states.items() if state == "present"}
    above = {a for v in present for a in lexicon().ancestors("finding", v)}
    contradicted = frozenset(v for v in map(str, said - true) if v in {*present, *above, *truth.claims.umbrellas})
    entailed = frozenset(v for v in map(str, said - true) if _entailed(v, true))
    wrong = _closed(truth, "absent", said - true) | contradicted
    omitted = frozenset(v for v in map(str, true - said) if not _entailed(v, said))
    return Judged(said & true, contradicted, wrong - contradicted - entailed, omitted)


def _entailed(value: str, denied: frozenset[Key]) -> bool:
    """Whether to deny ``denied`` denies ``value`` as well: no abnormality, no pneumothorax."""
    return "abnormality" in denied or bool(lexicon().ancestors("finding", value) & denied)


def _side(truth: Truth, candidate: Claims) -> Judged:
    true, said = _by_target(truth.claims), _by_target(candidate)
    shared = _targets(truth.claims) & _targets(candidate)
    right, wrong, other, missed = set[Key](), set[Key](), set[Key](), set[Key]()
    for target in shared:
        a, b = true.get(target, set()), said.get(target, set())
        if not a and "side" not in truth.closed:
            continue  # known facts that name no side do not say that there is none
        right |= {(target, side) for side in a & b}
        missed |= {(target, side) for side in a - b}
        (wrong if a and not a & b else other).update((target, side) for side in b - a)
    return Judged(frozenset(right), frozenset(wrong), frozenset(other), frozenset(missed))


def _by_target(said: Claims) -> dict[str, set[str]]:
    sides: dict[str, set[str]] = {}
    for key in said.keys["side"]:
        target, side = key[0], key[1]
        sides.setdefault(target, set()).add(side)
    return sides


def _targets(said: Claims) -> set[str]:
    """What a side can be right or wrong of: the findings, devices and parts that the text itself names."""
    return {claim.value for claim in said if claim.kind in ("part", "finding", "device") and claim.state != "absent"}


def _known_regions(truth: Truth) -> frozenset[str]:
    return frozenset(map(str, truth.claims.keys["part"] | truth.claims.implied_parts)) & lexicon().regions


def _regions(part: Key) -> frozenset[str]:
    words = lexicon()
    return (words.ancestors("part", str(part)) | {str(part)}) & words.regions - {
        "aorta",
        "artery",
        "vein",
        "lymph nodes",
    }
