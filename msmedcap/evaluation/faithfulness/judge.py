"""Every map of a case, measured: where its hottest place lies, how its energy is spread, and what deleting by it does to the word.

Comes in: loaded models and cases. Goes out: :class:`Judged` rows, written as they come, so that a run that was stopped goes on.
A system's map is the sum of its branches' in the picture's frame; each branch's own is judged beside it. Two maps that know
nothing, and the truth's own mask, go through the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from msmedcap import captioning
from msmedcap.checkpoints import Models
from msmedcap.data.views import make_view
from msmedcap.evaluation.faithfulness.cases import Case
from msmedcap.explain import faithfulness as measures
from msmedcap.explain.spelling import spell
from msmedcap.explain.words import CaptionWords
from msmedcap.models.captioner import Captioner
from msmedcap.models.spoken import spoken

TOLERANCE = 0.03
"""How far from the mask the hottest pixel may lie, as a share of the picture's longer side: about half a token of SAM's."""
RANDOM_MAPS = 2
SEEN = 0.9
"""A system sees a finding where painting it over takes the word's probability below this share of what it was."""
WHOLE = "both"
REFERENCES = ("random", "centre", "truth")
"""What every method is compared with: maps that know nothing, and the mask."""
_AT_ONCE = 16


@dataclass(frozen=True)
class Judged:
    """One map of one case by one system.

    ``method`` is one of :data:`msmedcap.explain.words.METHODS`, or ``random``, ``centre``, ``truth`` (the
    mask); ``branch`` is ``clip``, ``sam`` or ``both``. ``probability`` is the word's, ``painted`` its after what is under the
    mask was painted over; ``named`` whether the system's own caption has the word. ``deletion`` and ``insertion`` are areas,
    measured of a system's whole maps; NaN else.
    """

    case: str
    set: str
    kind: str
    group: str
    half: str
    system: str
    method: str
    branch: str
    named: bool
    probability: float
    painted: float
    pointed: float
    energy: float
    share: float
    deletion: float
    insertion: float

    @property
    def seen(self) -> bool:
        """Whether the system uses what lies under the mask: the word falls when that is painted over."""
        return self.painted < SEEN * self.probability


class Looker:
    """One system's eyes on one case: its features, the word's probability on any picture of that size, its maps."""

    def __init__(self, models: Models, system: str, case: Case) -> None:
        self._models, self._case = models, case
        self._captioner: Captioner = models.captioners[system]
        self._prompt = models.config.train_prompt
        spelling = spell(self._captioner.opt, case.caption)
        starts = [start for start, _ in spelling.spans]
        self._word = starts.index(case.start)
        self._ids, self._own = spelling.ids, list(spelling.tokens[self._word])
        self._tokens = self._encode([case.picture])

    @property
    def branches(self) -> list[str]:
        """The system's branches in their order."""
        return [name for name, _ in self._captioner.named_branches()]

    @property
    def whole(self) -> str:
        """What a map of the whole system is filed under: its only branch, or :data:`WHOLE`."""
        return WHOLE if len(self.branches) > 1 else self.branches[0]

    @property
    def text(self) -> str:
        """The word that is asked about, without what follows it."""
        start = self._case.start
        return self._case.caption[start:].split()[0].strip(".,")

    def named(self) -> bool:
        """Whether the system's own caption has the word."""
        with torch.no_grad():
            said = self._captioner.generate(self._tokens, self._models.config.presets["fast"])[0]
        return self.text.lower() in [word.strip(".,").lower() for word in said.split()]

    @torch.no_grad()
    def score(self, pictures: np.ndarray) -> np.ndarray:
        """The probability of the word on each of the pictures uint8 ``[B,H,W,3]``, the words before it given: ``[B]``."""
        found = []
        for start in range(0, len(pictures), _AT_ONCE):
            # Thousands of pictures: the encoders may run in 16 bits, half a percent off and twice as fast.
            with torch.autocast(self._models.device.type, torch.bfloat16):
                tokens = self._encode(list(pictures[start : start + _AT_ONCE]))
            tokens = {name: value.float() for name, value in tokens.items()}
            heard = spoken(self._captioner.opt, self._captioner.prefix(tokens, self._prompt), self._ids)
            found.append(heard.log_probs[:, self._own].sum(1).exp().float().cpu().numpy())
        return np.concatenate(found)

    def maps(self, methods: Sequence[str]) -> dict[tuple[str, str], np.ndarray]:
        """By method and branch, the word's map ``[H,W]``; with several branches, their sum under :data:`WHOLE` as well."""
        config = self._models.config
        words = CaptionWords(
            self._captioner,
            self._tokens,
            caption=self._case.caption,
            prompt=self._prompt,
            picture=self._case.picture,
            specs={view: config.view(view) for view in self._tokens},
        )
        found: dict[tuple[str, str], np.ndarray] = {}
        for method in methods:
            made = words.maps(self._word, method)
            found |= {(method, one.branch or self.whole): one.values for one in made}
            if len(made) > 1:
                found[method, WHOLE] = np.sum([one.values for one in made], axis=0)
        return found

    def _encode(self, pictures: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Each branch's tokens ``[B,N,D_enc]``."""
        with torch.no_grad():
            tokens = {}
            for view, branch in self._captioner.named_branches():
                weight = next(branch.encoder.parameters())
                views = torch.stack([make_view(picture, self._models.config.view(view)) for picture in pictures])
                features = branch.encoder(views.to(self._models.device, weight.dtype))
                tokens[view] = captioning.tokens_of(branch, features)
        return tokens


class Judge:
    """Judges cases with one system; ``methods`` are those whose maps are made."""

    def __init__(self, models: Models, system: str, methods: Sequence[str]) -> None:
        self._models, self._system, self._methods = models, system, tuple(methods)

    def sees(self, case: Case) -> tuple[float, float]:
        """The word's probability, and what is left of it when what lies under the mask is painted over."""
        looker = Looker(self._models, self._system, case)
        painted = measures.painted_over(case.picture, case.mask)
        before, after = looker.score(np.stack([case.picture, painted]))
        return float(before), float(after)

    def judge(self, case: Case, *, done: Collection[str] = ()) -> Iterator[Judged]:
        """A row for every map of the case, but for the methods that are ``done``."""
        looker = Looker(self._models, self._system, case)
        picture, without = case.picture, measures.blurred(case.picture)
        painted = measures.painted_over(picture, case.mask)
        whole, left, gone = (float(p) for p in looker.score(np.stack([picture, painted, without])))
        ends = (whole, gone)
        wanted = [method for method in (*self._methods, *REFERENCES) if method not in done]
        maps, alone = looker.maps([method for method in wanted if method not in REFERENCES]), looker.whole
        maps |= {(name, alone): heat for name, heat in _references(case).items() if name.split()[0] in wanted}
        named = looker.named()
        reach = TOLERANCE * max(case.mask.shape)
        for (method, branch), heat in maps.items():
            areas = (float("nan"), float("nan"))
            if branch == alone:
                areas = _areas(looker, picture, without, heat, ends)
            yield Judged(
                case=case.id,
                set=case.set,
                kind=case.kind,
                group=case.group,
                half=case.half,
                system=self._system,
                method=method.split()[0],
                branch=branch,
                named=named,
                probability=whole,
                painted=left,
                pointed=float(measures.pointed(heat, case.mask, tolerance=reach)),
                energy=measures.energy(heat, case.mask),
                share=float(case.mask.mean()),
                deletion=areas[0],
                insertion=areas[1],
            )


def _references(case: Case) -> dict[str, np.ndarray]:
    """The maps of :data:`REFERENCES`, a random one by its number."""
    height, width = case.mask.shape
    found = {
        f"random {seed}": measures.random_map(height, width, np.random.default_rng([seed, *case.id.encode()]))
        for seed in range(RANDOM_MAPS)
    }
    return found | {"centre": measures.centre_map(height, width), "truth": measures.soft_mask(case.mask)}


def _areas(
    looker: Looker, picture: np.ndarray, without: np.ndarray, heat: np.ndarray, ends: tuple[float, float]
) -> tuple[float, float]:
    """Deletion and insertion; the pictures at the ``ends`` of all curves are scored but once."""
    inner = measures.SHARES[1:-1]
    away = measures.steps(picture, without, heat, inner)
    back = measures.steps(without, picture, heat, inner)
    scores = looker.score(np.concatenate([away, back]))
    deleted = [ends[0], *scores[: len(inner)], ends[1]]
    inserted = [ends[1], *scores[len(inner) :], ends[0]]
    return measures.area(deleted), measures.area(inserted)
