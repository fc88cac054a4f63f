"""A caption's words: how sure the model was of each, what else it could have said, and where each branch looked for it.

Comes in: a captioner, one picture's views and tokens, the caption. Goes out: :class:`Word` s and, per word, a
:class:`~msmedcap.explain.maps.Map` for every branch whose tokens have places. Raw Q-Former maps do not depend on the words; these
do, for each is made from a pass in which the language model reads the caption it wrote. They say where the model looked, not why.

Values of the methods in :mod:`.relevance` are relative to even: 1 is what every place of the view would get if all got the same,
and grey 255 is :data:`TOP` for every word, branch, system and scan. Values of :data:`HIDDEN` (:mod:`.occlusion`) are nats, grey
255 is :data:`TOP_NATS`. A word's map is the mean of its tokens' maps.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from msmedcap.config import UserError, ViewSpec
from msmedcap.data.views import Heatmap, ViewFrame, make_view
from msmedcap.explain.attention import places_of
from msmedcap.explain.maps import Map
from msmedcap.explain.occlusion import DRAWN, Hiding
from msmedcap.explain.relevance import DIFFERENTIATED, looked
from msmedcap.explain.spelling import spell
from msmedcap.models.captioner import Captioner
from msmedcap.models.opt import Opt
from msmedcap.models.spoken import spoken

log = logging.getLogger(__name__)

# What each way of making a word's map is called by people.
METHODS: dict[str, str] = {
    "gradient": "gradient × attention",
    "sensitivity": "sensitivity of the word to each place",
    "attention": "attention",
    "rollout": "attention rollout",
    "occlusion": "squares of the picture hidden in turn",
    "together": "places hidden from all branches at once",
    "masking": "encoder tokens hidden in turn",
}
TOGETHER = "together"
"""The method whose map is of the system; those of the others are of its branches."""
HIDDEN = ("occlusion", "together", "masking")
LOOKING = ("occlusion", "together")
"""Those that run encoders dozens of times."""
# Where none is asked for: of those that tell the branches apart, the best of the choosing half of docs/faithfulness.md, and the
# only one that beats a random and a centred map in pointing and in deletion on the other half.
METHOD = "occlusion"
QUICK = "gradient"
TOP, TOP_NATS = 5.0, 1.0
RIVALS = 5
# A larger encoder is not run dozens of times on a CPU.
MOST_WEIGHTS = 50_000_000
_PICTURE = ViewSpec("picture", DRAWN, "squash", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Word:
    """A word of a caption (text between blanks, punctuation included), ``caption[start:end]``.

    ``probability`` is that of saying exactly this word here, given the words before: the product over its tokens.
    ``alternatives`` are the likeliest other beginnings, each with its own probability, best first: the language model chooses
    token by token, so a beginning may be a piece of a word, and ``"(end)"`` is the end of the caption.
    """

    text: str
    start: int
    end: int
    probability: float
    alternatives: tuple[tuple[str, float], ...]


class CaptionWords:
    """The words of one caption and their maps, each kind of map computed once, for all words."""

    def __init__(
        self,
        captioner: Captioner,
        tokens: Mapping[str, Tensor],
        *,
        caption: str,
        prompt: str,
        picture: np.ndarray,
        specs: Mapping[str, ViewSpec],
    ) -> None:
        """``tokens[branch] [1,N,D_enc]`` of ``picture`` (uint8 [H,W,3]) seen through ``specs[branch]``; what the caption is of."""
        self.warnings: list[str] = []
        self._captioner, self._prompt, self._picture = captioner, prompt, picture
        # A copy: what was computed in inference mode cannot take part in a graph.
        self._tokens = {name: tokens[name].clone() for name, _ in captioner.named_branches()}
        self._specs = {name: specs[name] for name in self._tokens}
        self._frames = {name: ViewFrame(spec, *picture.shape[:2]) for name, spec in self._specs.items()}
        self._whole = ViewFrame(_PICTURE, *picture.shape[:2])
        self._spelling = spell(captioner.opt, caption)
        self._words: tuple[Word, ...] | None = None
        self._grids: dict[str, dict[str, Tensor]] = {}

    @property
    def words(self) -> tuple[Word, ...]:
        """The caption's words in order; none of an empty caption."""
        if self._words is None:
            self._words = self._read() if self._spelling.ids else ()
        return self._words

    def maps(self, word: int, method: str | None = None) -> list[Map]:
        """The maps of the word at place ``word``: one for every branch whose tokens have places, or by :data:`TOGETHER` one of all.

        Without a ``method`` it is :data:`METHOD`, or where that would take too long :data:`QUICK`. Raises :class:`UserError` for
        a word or method there is none of. Where this language model allows no gradient, the maps are those of ``attention``,
        as :attr:`warnings` then says.
        """
        count = len(self._spelling.spans)
        if not 0 <= word < count:
            said = f"has {count} words, counted from 0" if count else "is empty"
            raise UserError(f"There is no word {word}: the caption {said}.")
        if method is None:
            method = METHOD if self._slow() is None else QUICK
        if method not in METHODS:
            raise UserError(f"There is no method {method!r}; choose from {', '.join(METHODS)}.")
        if method not in self._grids:
            method = self._make(method)
        own = list(self._spelling.tokens[word])
        found = []
        for name, grid in self._grids[method].items():
            values = grid[own].mean(0)
            top = TOP_NATS
            if method not in HIDDEN:
                values, top = values / values.mean().clamp(min=1e-30), TOP
            drawn = Heatmap(self._frames.get(name, self._whole), values.numpy())
            text = self._spelling.text(word)
            found.append(Map("word", name or None, None, text, (0.0, top), drawn, place=word, method=method))
        return found

    @torch.no_grad()
    def _read(self) -> tuple[Word, ...]:
        opt, spelling = self._captioner.opt, self._spelling
        prefix = self._captioner.prefix(self._tokens, self._prompt)
        heard = spoken(opt, prefix, spelling.ids)
        log_probs, likeliest = heard.log_probs[0], heard.logits[0].log_softmax(-1).topk(RIVALS + 1)
        words = []
        for word, (start, end) in enumerate(spelling.spans):
            own = spelling.tokens[word]
            pairs = zip(likeliest.indices[own[0]].tolist(), likeliest.values[own[0]].exp().tolist(), strict=True)
            others = [(_beginning(opt, token), share) for token, share in pairs if token != spelling.ids[own[0]]]
            probability = float(log_probs[list(own)].sum().exp())
            words.append(Word(spelling.text(word), start, end, probability, tuple(others[:RIVALS])))
        return tuple(words)

    def _make(self, method: str) -> str:
        """Make the grids of ``method``, or where there are no gradients those of attention; returns which."""
        if method in DIFFERENTIATED and not self.warnings:
            try:
                self._grids[method] = self._grids_by(method)
                return method
            except (RuntimeError, FloatingPointError) as error:
                log.warning("no gradient through this language model: %s", error)
                self.warnings.append(
                    "This language model gives no gradients here (8-bit or offloaded weights may not); the maps of words show "
                    "its attention instead."
                )
        made = "attention" if method in DIFFERENTIATED else method
        if made not in self._grids:
            self._grids[made] = self._grids_by(made)
        return made

    def _grids_by(self, method: str) -> dict[str, Tensor]:
        branches = dict(self._captioner.named_branches())
        placed = {name: places for name, branch in branches.items() if (places := places_of(branch)) is not None}
        if method in HIDDEN:
            if method in LOOKING:
                self._affordable()
            hiding = Hiding(
                self._captioner,
                self._tokens,
                views={name: make_view(self._picture, spec) for name, spec in self._specs.items()},
                frames=self._frames,
                prompt=self._prompt,
                ids=self._spelling.ids,
            )
            if method == TOGETHER:
                return {"": hiding.together(self._picture, self._specs)}
            return {name: hiding.drops(name, method=method) for name in placed}
        found = looked(self._captioner, self._tokens, prompt=self._prompt, ids=self._spelling.ids, method=method)
        if not all(bool(torch.isfinite(values).all()) for values in found.values()):
            raise FloatingPointError("the values are not finite numbers")
        return {name: places(found[name]) for name, places in placed.items()}

    def _slow(self) -> str | None:
        """The branch whose encoder is too large to run dozens of times here; None where none is."""
        for name, branch in self._captioner.named_branches():
            weights = sum(weight.numel() for weight in branch.encoder.parameters())
            if weights > MOST_WEIGHTS and self._tokens[name].device.type == "cpu":
                return name
        return None

    def _affordable(self) -> None:
        if self._slow() is not None:
            raise UserError(
                "Hiding parts of the picture runs these encoders dozens of times, which takes too long without a GPU; "
                "use the method masking."
            )


def _beginning(opt: Opt, token: int) -> str:
    """A token as a reader can take it."""
    if token in (opt.newline, opt.tokenizer.eos_token_id):
        return "(end)"
    return opt.tokenizer.decode([token]).strip() or "(blank)"
