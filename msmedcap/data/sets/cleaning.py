"""Caption cleaning: what a caption says of the printed figure, not of the picture, is taken out.

Captions of papers point at arrows, letters and other figures, which a model that sees one bare picture cannot follow. Comes in:
a caption. Goes out: the caption without labels ("Figure 2.", "(a)"), pointers ("(white arrowhead)"; "Arrows indicate the mass."
becomes "The mass."), references ("see Fig. 2a", "[12]") and credits. A step that would touch a negation, a side, a measure or a
level is not taken: :func:`protected` reads the same before and after.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

_COLOURS = "white|black|gr[ae]y|red|green|blue|yellow|orange|pink|purple|violet|magenta|cyan|brown"
_SHAPES = (
    "open|closed|solid|filled|hollow|empty|dashed|dotted|interrupted|broken|thick|thin|long|short|small|smaller|large|larger|big|"
    "tiny|curved|straight|bent|wavy|single|two|three|four|both|upper|lower|upward|downward|vertical|horizontal|bold|barbed|"
    "notched|block|full|striped|anterior|posterior|superior|inferior|respective|corresponding"
)
_LOOK = rf"(?:(?:{_COLOURS}|{_SHAPES})(?:[-, ]| and )+)*"
_ARROW = r"(?:(?:double|triple|two-way)[- ]?)?(?:headed )?arrow(?:s|ed|[- ]?(?:heads?|tips?|marks?|signs?))?"
_MARK = r"asteri(?:sk|x|cs?)(?:e?s)?|stars?|circles?|circled|outlined|boxed|triangles?|crosses|chevrons?|(?:dotted|dashed) lines?"
_SIGN = rf"(?:the |an? )?{_LOOK}(?:{_ARROW}|{_MARK})"
# Up to h: no L or R, which are sides, and no I, which counts.
_LETTERS = r"[a-h](?:(?: ?[-–,&+/] ?| and )[a-h])*"
_PANELS = rf"(?: ?\(?{_LETTERS}(?![a-z])\)?)?"
_FIGURE = (
    rf"(?:supplementary |additional |online )?fig(?:ure)?s?\.? ?s?\d+{_PANELS}"
    rf"(?:(?: ?[-–,&] ?| and )\d+{_PANELS})*(?![\w.]*\d)"
)
_SEEN = r"(?:as )?(?:shown|seen|indicated|marked|pointed|labell?ed|depicted|highlighted|noted|denoted|outlined|demonstrated)"
_SIGN_WORDS = ("arrow", "aster", "star", "circle", "outlined", "boxed", "triangle", "cross", "chevron", "line")
_SIGNS_ONLY = r"\*+|[†‡§¶↑↓→←↔▲▼►◄●■★]+"

_POINTER_PART = re.compile(
    rf"(?:(?:see|cf\.?|at|by|with|(?:and )?{_SEEN}(?: (?:out )?(?:by|with|in|as|at))?) )?"
    rf"(?:{_SIGN}(?: (?:in|on|of) (?:panel |fig\.? |figure )?{_LETTERS})?(?: {_LETTERS})?|(?:in )?{_FIGURE})",
    re.I,
)
_LETTER_PART = re.compile(rf"(?:see |in )?(?:panels? )?{_LETTERS}|{_SIGNS_ONLY}", re.I)
_BRACKET = re.compile(r" ?\(([^()]*)\)(?: ?[–—-](?= ))?| ?\[([^][]*)\]")
_LEAD = re.compile(
    rf"(?:{_FIGURE} ?(?:[.:,)–—-]+ ?|$)"
    r"|(?:image|plate|panel|photo|case|patient)(?: no\.?| number)? ?#? ?\d+[a-h]? ?(?:[.:,)–—-]+ ?|$)"
    rf"|\(?{_LETTERS}\) ?[:.–—-]? ?|\(?(?:\d{{1,2}}|(?-i:i{{1,3}}))\) |(?-i:[A-D][.:] (?=[A-Z]))|\d{{1,2}}\. (?=[^\W\d_]))+",
    re.I,
)
_VERB = (
    r"(?:is |are )?(?:(?:indicat|show|mark|denot|represent|demonstrat|illustrat|highlight|depict|identif|annotat|designat)\w*"
    r"|point\w*(?: (?:out|at|to(?:wards?)?))?|refer\w* to)"
)
_SUBJECT = re.compile(
    rf"(?P<start>^|(?<=[.] ))?(?:(?:^|(?<=[.;:] ))(?:{_SIGN}|this figure|{_FIGURE}) {_VERB} (?:that )?"
    rf"|(?:^|(?<=[.,;:] )){_SIGN} ?(?:[:=–—]|- ) ?)(?P<next>[^\W\d_])",
    re.I,
)
_POINTED = re.compile(
    rf"[, ]*(?:\b(?:which|that) )?(?:\b(?:is|are|was|were) )?\b{_SEEN} (?:out )?(?:by|with|at|in) {_SIGN}(?=[\s.,;:)]|$)",
    re.I,
)
_SEE = re.compile(
    rf"[, ]*\(?\b(?:(?:please )?(?:see|cf\.?)(?: also)?|(?:{_SEEN}|as|described) in|in|from) "
    rf"(?:the )?(?:{_FIGURE}|(?<=see ){_SIGN}|(?<=see )text)\)?(?=[\s.,;:)]|$)",
    re.I,
)
_CITATION = re.compile(
    r" ?\[+\d{1,3}(?:\s*[-–,;]\s*\d{1,3})*\]+(?=\s*[.,;:)]|\s*$)"
    r"| ?\((?:[A-Z][\w'’-]+(?: and [A-Z][\w'’-]+| et al\.?),? ?\d{4}[a-z]?)\)(?=\s*\.?$)"
)
_CREDIT = re.compile(
    r"[\s.,;(–—-]*\b(?:(?:this |the )?(?:image|figure|picture|photo(?:graph)?)s? )?(?:is |are |was |were )?"
    r"(?:(?:reprinted|reproduced|republished|adapted|used|taken|modified)(?: and \w+)? (?:with (?:the )?(?:kind )?permission|from)"
    r"|with (?:kind )?permission (?:of|from)|courtesy(?: of|:)|copyright\b|source:)[^.]*(?:\.(?! [A-Z][a-z]+ [a-z])[^.]*)*$"
    r"|[\s.,;(]*©.*$",
    re.I,
)
_PROTECTED = re.compile(
    r"\b(?:not?|non|none|nor|neither|never|without|absen(?:t|ce)|negative(?:ly)?|den(?:y|ies|ied)|exclud\w+|rul(?:e|ed|ing) out|"
    r"free of|cannot)\b|n't\b"
    r"|\b(?:left|right|(?:bi|uni|contra|ipsi)lateral)\w*|\b[LR](?:UL|LL|ML)\b|\([LR]\)"
    r"|\d+(?:[.,]\d+)?(?:(?:\s*[x×*]\s*|[–-])\d+(?:[.,]\d+)?)*[\s-]*(?:[mckµμ]?m|[mk]?g|m?l|cc|hu|%|°|years?|months?|weeks?|days?|hours?|"
    r"[mk]?hz|t|tesla|kvp?|mci|mmhg)(?![a-z])"
    r"|(?<!fig\. )(?<!fig )(?<!figure )\b[CTLS]\d{1,2}(?:\s*[-–/]\s*[CTLS]?\d{1,2})?\b",
    re.I,
)
_FIGURE_WORD = re.compile(rf"\bfig(?:ure)?s?\b|^{_LEAD.pattern}|\({_LETTERS}\)", re.I)
_POINTER_WORD = re.compile(r"\barrow|\basteri|\*", re.I)
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def clean(text: str) -> str:
    """``text`` without what it says of the printed figure; as it is, but for spaces, where nothing else would be left."""
    plain = " ".join(text.split())
    new = plain
    for _ in range(3):  # what a step uncovers, such as "(a)" behind "Figure 2.", goes in the next round
        before = new
        for step in _STEPS:
            changed = step(new)
            if changed != new and protected(changed) == protected(new):
                new = changed
        if new == before:
            break
        new = _tidy(new)
    return new if _WORD.search(new) else plain


def protected(text: str) -> list[str]:
    """The words of ``text`` that cleaning never touches, in order: negations, sides, measures and levels such as T2 or L4."""
    return ["".join(match[0].lower().split()) for match in _PROTECTED.finditer(text)]


def report(captions: Iterable[str]) -> dict[str, float]:
    """What cleaning does to ``captions``.

    ``captions`` and ``vocabulary`` are counts (different words, letter case ignored), ``words`` the mean per caption; the rest
    are shares of the captions: ``changed``, and those with a label of the figure or its panels (``label``) or with an arrow or
    asterisk (``pointer``), each ``…_before`` and ``…_after``.
    """
    pairs = [(" ".join(text.split()), clean(text)) for text in captions]
    count = max(len(pairs), 1)
    told: dict[str, float] = {"captions": len(pairs), "changed": sum(old != new for old, new in pairs) / count}
    for when, texts in (("before", [old for old, _ in pairs]), ("after", [new for _, new in pairs])):
        words = [_WORD.findall(text.lower()) for text in texts]
        told[f"label_{when}"] = sum(bool(_FIGURE_WORD.search(text)) for text in texts) / count
        told[f"pointer_{when}"] = sum(bool(_POINTER_WORD.search(text)) for text in texts) / count
        told[f"words_{when}"] = sum(map(len, words)) / count
        told[f"vocabulary_{when}"] = len({word for row in words for word in row})
    return told


def _without_brackets(text: str) -> str:
    return _BRACKET.sub(_bracket, text)


def _bracket(match: re.Match[str]) -> str:
    """A bracket without the parts that only say where to look; letters go where there is nothing else in it."""
    inside = match[1] if match[1] is not None else match[2]
    parts = [part.strip() for part in re.split(r"[,;]", inside)]
    pointers = [bool(_POINTER_PART.fullmatch(part)) for part in parts]
    if all(found or _LETTER_PART.fullmatch(part) for part, found in zip(parts, pointers, strict=True)):
        return ""
    # One step changes all brackets, and it must not be given up for one of them.
    kept = [part for part, found in zip(parts, pointers, strict=True) if not found]
    return match[0] if len(kept) == len(parts) else match[0].replace(inside, ", ".join(kept))


def _subject(text: str) -> str:
    """``text`` with "Arrows show the mass." as "The mass."."""
    if not any(word in text.lower() for word in (*_SIGN_WORDS, "fig")):
        return text
    return _SUBJECT.sub(lambda m: m["next"].upper() if m["start"] is not None else m["next"], text)


def _gone(pattern: re.Pattern[str], *needed: str) -> Callable[[str], str]:
    """A step that cuts ``pattern``, which is only looked for where one of ``needed`` stands in the text."""

    def step(text: str) -> str:
        lower = text.lower()
        return pattern.sub("", text) if any(word in lower for word in needed) else text

    return step


def _lead(text: str) -> str:
    match = _LEAD.match(text)
    return text[match.end() : match.end() + 1].upper() + text[match.end() + 1 :] if match else text


_STEPS: tuple[Callable[[str], str], ...] = (
    _lead,
    _without_brackets,
    _subject,
    _gone(_POINTED, *_SIGN_WORDS),
    _gone(_SEE, "see", "fig", "cf"),
    _gone(_CITATION, "]", ")"),
    _gone(_CREDIT, "permission", "courtesy", "copyright", "©", "source", " from"),
)


def _tidy(text: str) -> str:
    """``text`` with the punctuation that cutting left over put right."""
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r" +([.,;:)])", r"\1", text)
    text = re.sub(r"\( +", "(", text)
    text = re.sub(r"[,;:]+(?=[.;])|(?<=[.;])[.,;](?!\.)", "", text)
    return text.strip(" ,;:–—-")
