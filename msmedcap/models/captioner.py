"""A captioner is a tuple of branches and the frozen OPT; a system is its tuple (BLIP2, SAM-BLIP2, MSMedCap).

Comes in: per encoder its view or its cached features. Goes out: the prefix of Eq. 5, the captioning loss of Section 2.3,
captions (Eq. 6). ``loss`` and ``generate`` share the prefix. Training uses a feature cache, so both take features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from msmedcap.config import Decoding
from msmedcap.models.branch import Branch
from msmedcap.models.opt import OnTokens, Opt

Features = Mapping[str, Tensor]


class Captioner(nn.Module):
    """One class for every system: ``branches`` in prefix order, each named after its encoder, and OPT."""

    def __init__(self, branches: Mapping[str, Branch], opt: Opt) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(branches)
        # Shared between systems and frozen, hence no submodule: neither saved nor moved with a system.
        self._opt = (opt,)

    @property
    def opt(self) -> Opt:
        """The frozen language model, shared by all systems."""
        return self._opt[0]

    def encode(self, views: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each branch's frozen tokens ``[B,N,D_enc]`` for its view ``[B,3,S,S]``."""
        return {name: branch.encode(views[name]) for name, branch in self.named_branches()}

    def prefix(self, features: Features, prompt: str) -> Tensor:
        """Eq. 5: the branches' reads in tuple order, then the prompt's embeddings: ``[B,L,D_llm]``.

        ``features`` are :meth:`encode`'s tokens.
        """
        return self.joined({name: branch.read(features[name]) for name, branch in self.named_branches()}, prompt)

    def joined(self, reads: Mapping[str, Tensor], prompt: str) -> Tensor:
        """:meth:`prefix` of what each branch has read ``[B,Q,D_llm]``."""
        parts = [reads[name] for name, _ in self.named_branches()]
        text = self.opt.embed(self.opt.prompt_ids(prompt)).to(parts[0].dtype)
        return torch.cat([*parts, text.expand(parts[0].shape[0], -1, -1)], dim=1)

    def loss(self, features: Features, captions: Sequence[str], prompt: str) -> Tensor:
        """Section 2.3: the language model's loss on the captions, whose gradient reaches the branches alone."""
        return self.opt.loss(self.prefix(features, prompt), captions)

    @torch.no_grad()
    def generate(
        self, features: Features, decoding: Decoding, *, on_tokens: OnTokens | None = None
    ) -> list[str]:
        """One caption for each picture of the batch."""
        return self.opt.generate(list(self.prefix(features, decoding.prompt)), decoding, on_tokens=on_tokens)

    def named_branches(self) -> list[tuple[str, Branch]]:
        """The branches in prefix order, each with the name of its view."""
        return [(name, branch) for name, branch in self.branches.items() if isinstance(branch, Branch)]
