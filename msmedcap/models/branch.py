"""A branch is one way of looking at a picture: frozen encoder → norm → Q-Former → linear projection (Fig. 2).

Comes in: the encoder's view. Goes out: ``[B,Q,D_llm]``, the branch's part of the language model's prefix (Eq. 5).
``encode`` is frozen, without gradient and cacheable; ``read`` is the trained half.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from msmedcap.config import BranchConfig
from msmedcap.models.clip import ClipEncoder
from msmedcap.models.qformer import QFormer, QFormerAttention
from msmedcap.models.sam import SamEncoder, to_tokens


class Branch(nn.Module):
    """Encoder (shared, frozen) and the trained norm, Q-Former and projection on top of it."""

    def __init__(
        self, config: BranchConfig, encoder: ClipEncoder | SamEncoder, *, llm_width: int, text: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        # Held in a tuple so that the shared encoder is no submodule: it is neither trained, moved nor saved with a branch.
        self._encoder = (encoder,)
        width = encoder.token_width(config.tokens) if isinstance(encoder, SamEncoder) else encoder.width
        # The epsilon of the hub's post_layernorm, which this norm takes its published weights from.
        self.norm: nn.Module = nn.LayerNorm(width, eps=1e-6) if config.norm == "layer" else nn.Identity()
        self.qformer = QFormer(config.qformer, encoder_width=width, text=text)
        self.projection = nn.Linear(config.qformer.hidden, llm_width)

    @property
    def encoder(self) -> ClipEncoder | SamEncoder:
        """The frozen encoder, shared with every other branch that looks through it."""
        return self._encoder[0]

    @torch.no_grad()
    def encode(self, view: Tensor) -> Tensor:
        """Frozen: ``view [B,3,S,S]`` → tokens ``[B,N,D_enc]``."""
        return self.tokens(self.encoder(view))

    def tokens(self, features: Tensor) -> Tensor:
        """The encoder's output as this branch's tokens ``[B,N,D_enc]`` (SAM's feature map is unrolled, CLIP's are tokens)."""
        return to_tokens(features, self.config.tokens) if isinstance(self.encoder, SamEncoder) else features

    def read(self, tokens: Tensor) -> Tensor:
        """Trained: tokens ``[B,N,D_enc]`` → ``[B,Q,D_llm]`` (Eqs. 3 and 4)."""
        return self.projection(self.qformer(self.norm(tokens)))

    def attention(self, tokens: Tensor) -> QFormerAttention:
        """The Q-Former's cross-attention over ``tokens``; the same whatever is said of the picture."""
        return self.look(tokens)[1]

    def look(self, tokens: Tensor) -> tuple[Tensor, QFormerAttention]:
        """As :meth:`read`, and the attention behind it, with which it shares its graph; slower."""
        states, attention = self.qformer.attend(self.norm(tokens))
        return self.projection(states), attention
