"""Stage 1, Section 2.2: a branch's Q-Former learns to say with its queries what the caption says.

Three objectives from the same Q-Former, which differ in the self-attention mask alone: contrast (ITC: queries and text apart),
matching (ITM: all see all) and generation (ITG: text is causal and sees the queries). Equal captions share the target and
are never each other's negatives. Comes in: encoder tokens and captions. Goes out: a trained branch with its text half.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msmedcap.models.branch import Branch
from msmedcap.models.tokens import Tokenizer, padded

SMOOTHING = 0.1  # LAVIS' blip2_qformer


class AlignmentTask(nn.Module):
    """A branch built with ``text=True``, the two projections of ITC, the head of ITM, the head of ITG and the temperature."""

    def __init__(self, branch: Branch, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.branch = branch
        config = branch.config.qformer
        self.vision_proj = nn.Linear(config.hidden, config.projection)
        self.text_proj = nn.Linear(config.hidden, config.projection)
        self.itm_head = nn.Linear(config.hidden, 2)
        self.itg_head = nn.Sequential(nn.Linear(config.hidden, config.hidden), nn.GELU(), nn.LayerNorm(config.hidden))
        self.temp = nn.Parameter(torch.tensor(0.07))
        self._tokenizer = (tokenizer,)

    def forward(self, batch: tuple[Tensor, Sequence[str], int]) -> dict[str, Tensor]:
        """``(tokens [B,N,D_enc], captions, seed of the hard negatives)`` → ``loss`` and ``itc``, ``itm``, ``itg``."""
        tokens, captions, seed = batch
        tokenizer, config = self._tokenizer[0], self.branch.config.qformer
        tokens = self.branch.norm(tokens)
        ids = padded(captions, tokenizer, config.text_length).to(tokens.device)
        real = ids != tokenizer.pad_token_id
        same = torch.tensor([[a == b for b in captions] for a in captions], device=tokens.device)

        similarity = self.similarity(tokens, ids, real)
        itc = contrast_loss(similarity / self.temp.clamp(0.01, 0.5), same)
        itm = self._matching(tokens, ids, real, similarity.detach() / 0.07, same, seed)
        itg = self._generation(tokens, ids, real)
        return {"loss": itc + itm + itg, "itc": itc, "itm": itm, "itg": itg}

    def similarity(self, tokens: Tensor, ids: Tensor, real: Tensor) -> Tensor:
        """Picture × caption ``[B,B]``: the best query's cosine with the caption's first token (normed ``tokens``)."""
        queries = self.branch.config.qformer.queries
        states = self.branch.qformer.joint(tokens, ids, attention_mask(real, queries, "itc"))
        images = F.normalize(self.vision_proj(states[:, :queries]).float(), dim=-1)
        texts = F.normalize(self.text_proj(states[:, queries]).float(), dim=-1)
        return torch.einsum("iqd,jd->ijq", images, texts).amax(-1)

    def _matching(self, tokens: Tensor, ids: Tensor, real: Tensor, similarity: Tensor, same: Tensor, seed: int) -> Tensor:
        lonely = same.all(1)
        if bool(lonely.any()):  # a picture all of whose neighbours carry its caption has no negative
            return similarity.new_zeros(())
        generator = torch.Generator().manual_seed(seed)
        weights = similarity.masked_fill(same, -torch.inf)
        text_of = torch.multinomial(weights.softmax(1).cpu(), 1, generator=generator)[:, 0]
        image_of = torch.multinomial(weights.T.softmax(1).cpu(), 1, generator=generator)[:, 0]
        count, queries = len(ids), self.branch.config.qformer.queries
        places = torch.arange(count)
        images, texts = torch.cat([places, image_of, places]), torch.cat([places, places, text_of])
        mask = attention_mask(real[texts], queries, "itm")
        states = self.branch.qformer.joint(tokens[images], ids[texts], mask)[:, :queries]
        logits = self.itm_head(states).float().mean(1)
        target = torch.cat([torch.ones(count), torch.zeros(2 * count)]).long().to(logits.device)
        return F.cross_entropy(logits, target)

    def _generation(self, tokens: Tensor, ids: Tensor, real: Tensor) -> Tensor:
        queries, words = self.branch.config.qformer.queries, self.branch.qformer.words
        assert words is not None
        decode = ids.clone()
        decode[:, 0] = 0  # the text begins with another token than in ITC and ITM, as [DEC] stands for [CLS] in BLIP-2
        states = self.branch.qformer.joint(tokens, decode, attention_mask(real, queries, "itg"))[:, queries:-1]
        logits = self.itg_head(states) @ words.weight.T
        wanted = real[:, 1:]
        return F.cross_entropy(logits[wanted].float(), ids[:, 1:][wanted], label_smoothing=SMOOTHING)


def attention_mask(real: Tensor, queries: int, objective: str) -> Tensor:
    """Who sees whom, ``[B,Q+T,Q+T]`` bool, for ``real [B,T]`` (False pads) and ``itc``, ``itm`` or ``itg``."""
    count, length = real.shape
    mask = torch.zeros(count, queries + length, queries + length, dtype=torch.bool, device=real.device)
    mask[:, :queries, :queries] = True
    text = real[:, None, :].expand(-1, length, -1)
    if objective == "itg":
        text = text & torch.ones(length, length, dtype=torch.bool, device=real.device).tril()
    mask[:, queries:, queries:] = text
    if objective in ("itm", "itg"):
        mask[:, queries:, :queries] = True
    if objective == "itm":
        mask[:, :queries, queries:] = real[:, None, :]
    return mask


def contrast_loss(similarity: Tensor, same: Tensor) -> Tensor:
    """Symmetric ITC on ``similarity [B,B]`` (already over the temperature); ``same [B,B]`` captions share the target."""
    share = same.float() / same.sum(1, keepdim=True)
    share = (1 - SMOOTHING) * share + SMOOTHING / len(same)
    rows = -(share * similarity.log_softmax(1)).sum(1).mean()
    columns = -(share * similarity.T.log_softmax(1)).sum(1).mean()
    return 0.5 * (rows + columns)
