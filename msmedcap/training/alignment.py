"""Stage 1, Section 2.2: a branch's Q-Former learns to say with its queries what the caption says.

Three objectives from the same Q-Former, which differ in the self-attention mask alone: contrast (ITC: queries and text apart),
matching (ITM: all see all) and generation (ITG: text is causal and sees the queries). Captions that the Q-Former reads as equal
share the target and are never each other's negatives. A picture's keys and values are the same for all three and are projected
once. Without dropout the queries' states of ITC and ITG are equal too, so both are one pass; BLIP-2 likewise keeps the keys of
its ITC pass for ITG.

Several processes are one: ITC and ITM choose among the global batch, and the losses and gradients are those of one process
that holds it all. In ITM a caption goes to its negative picture, not the picture to the caption: the process that holds the
picture has its keys already, and a caption is 32 numbers where a picture is up to a million. A process so scores three pairs for
each of its pictures on average. Where they are more than four, since one picture is the negative of many captions, they are read in
pieces that the backward pass reads again in place of keeping them: memory is bounded whatever is drawn.

Comes in: encoder tokens and captions. Goes out: a trained branch with its text half.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from msmedcap.config import UserError
from msmedcap.models.branch import Branch
from msmedcap.models.qformer import Seen
from msmedcap.models.tokens import Tokenizer, padded
from msmedcap.training import gathering
from msmedcap.training.defaults import AlignmentOptions
from msmedcap.training.diagnostics import ITC_SPREAD, QUERY_SPREAD, query_spread, similarity_spread

LIMIT = 4  # pairs for each picture of ITM that are kept for the backward pass at once


class AlignmentTask(nn.Module):
    """A branch built with ``text=True``, the two projections of ITC, the head of ITM, the head of ITG and the temperature.

    The branch's projection into the language model waits for stage 2 and gets no gradient here. Raises :class:`UserError` for a
    tokenizer without a token to begin a caption with.
    """

    def __init__(self, branch: Branch, tokenizer: Tokenizer, *, options: AlignmentOptions | None = None) -> None:
        super().__init__()
        self.branch, self.options = branch, options or AlignmentOptions()
        config = branch.config.qformer
        # Data-parallel training waits for every weight that could have a gradient.
        branch.projection.requires_grad_(False)
        self.vision_proj = nn.Linear(config.hidden, config.projection)
        self.text_proj = nn.Linear(config.hidden, config.projection)
        self.itm_head = nn.Linear(config.hidden, 2)
        # BERT's language head: its transform, then the words' own table and a bias for each word.
        norm = nn.LayerNorm(config.hidden, eps=1e-12)
        self.itg_head = nn.Sequential(nn.Linear(config.hidden, config.hidden), nn.GELU(), norm)
        self.itg_bias = nn.Parameter(torch.zeros(config.vocab))
        self.temp = nn.Parameter(torch.tensor(self.options.temperature))
        self._tokenizer = (tokenizer,)
        self.decoder_id = decoder_id(tokenizer)

    def forward(self, batch: tuple[Tensor, Sequence[str], int]) -> dict[str, Tensor]:
        """``(tokens [b,N,D_enc], captions, number of the batch)`` → ``loss``, its parts ``itc``, ``itm``, ``itg``, and measures.

        The number seeds the draw of the negatives. The measures are those that :mod:`.diagnostics` judges.
        """
        tokens, captions, number = batch
        qformer, queries = self.branch.qformer, self.branch.config.qformer.queries
        seen = qformer.look(self.branch.norm(tokens))
        everyone, mine = self.read(captions, tokens.device)
        ids = everyone[mine]
        real = self.real(ids)

        masks = [attention_mask(real, queries, objective)[:, queries:] for objective in ("itc", "itg")]
        states, texts = qformer.apart(seen, torch.cat([ids, as_decoder(ids, self.decoder_id)]), torch.cat(masks))
        heard, said = texts.chunk(2)
        same = (everyone[mine, None] == everyone[None]).all(-1)
        toward = self.similarities(states, heard[:, 0])
        itc = self.contrast(toward, same)
        if pairs := self.pairs(toward, same, mine, number):
            itm = self.matching(seen, pairs[0], everyone[pairs[1]])
        else:  # every caption is the same: nothing could be a negative
            itm = 0.0 * self.itm_head(states).sum()
        itg = self.generation(said, ids, real) * self.share_of_words(everyone, real)
        losses = {"loss": itc + itm + itg, "itc": itc, "itm": itm, "itg": itg}
        return gathering.shown(losses | {QUERY_SPREAD: query_spread(states), ITC_SPREAD: similarity_spread(toward[0])})

    def read(self, captions: Sequence[str], device: torch.device) -> tuple[Tensor, slice]:
        """All processes' captions as ids ``[B,T]``, padded to the longest, and which of them are this process's.

        Raises :class:`UserError` for a tokenizer with more words than the Q-Former's text half knows.
        """
        tokenizer, config = self._tokenizer[0], self.branch.config.qformer
        if len(tokenizer) > config.vocab:
            raise UserError(f"The tokenizer has {len(tokenizer)} words, the Q-Former {config.vocab}; use the one it was made for.")
        length = config.text_length
        ids = padded(captions, tokenizer, length).to(device)
        first = gathering.rank() * len(ids)
        if gathering.count() > 1:
            everyone = gathering.gather(F.pad(ids, (0, length - ids.shape[1]), value=tokenizer.pad_token_id))
            ids = everyone[:, : int(self.real(everyone).sum(1).amax())]
        return ids, slice(first, first + len(captions))

    def real(self, ids: Tensor) -> Tensor:
        """Which of ``ids [B,T]`` are text and not padding."""
        return ids != self._tokenizer[0].pad_token_id

    def contrast(self, toward: tuple[Tensor, Tensor], same: Tensor) -> Tensor:
        """ITC of cosines toward captions and toward pictures, both ``[b,B]``; ``same [b,B]`` captions share the target."""
        heat = self.temp.clamp(0.01, 0.5)
        return contrast_loss(toward[0] / heat, toward[1] / heat, same, smoothing=self.options.smoothing)

    def pairs(
        self, toward: tuple[Tensor, Tensor], same: Tensor, mine: slice, number: int
    ) -> tuple[Tensor, Tensor] | None:
        """ITM's pairs, as :func:`match_pairs` has them: the nearer by ``toward``, the likelier; None where all is the ``same``."""
        if bool(same.all()):
            return None
        heat = self.temp.detach().clamp(0.01, 0.5)
        # Uniform for a while where asked for: hard negatives of a Q-Former that knows nothing teach it slowly.
        heat = heat if number >= self.options.hard_after else torch.full_like(heat, torch.inf)
        generator = torch.Generator().manual_seed(number)
        chances = torch.rand(2, same.shape[1], dtype=torch.float64, generator=generator)[:, mine]
        text_of, image_of = (draw_negatives(t.detach() / heat, same, c) for t, c in zip(toward, chances, strict=True))
        return match_pairs(gathering.gather(image_of), text_of, mine)

    def similarities(self, queries: Tensor, firsts: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines of this process's pictures and all captions, and of its captions and all pictures, both ``[b,B]``.

        A picture's is that of its best query (``[b,Q,D]``), a caption's that of its first state (``[b,D]``).
        """
        images = F.normalize(self.vision_proj(queries).float(), dim=-1)
        texts = F.normalize(self.text_proj(firsts).float(), dim=-1)
        everything = gathering.gather(torch.cat([images, texts[:, None]], dim=1))
        # bf16 tells cosines apart to 1/256, which the temperature makes a twentieth of the loss.
        with torch.autocast(images.device.type, enabled=False):
            toward_texts = torch.einsum("iqd,jd->ijq", images, everything[:, -1]).amax(-1)
            toward_images = torch.einsum("id,jqd->ijq", texts, everything[:, :-1]).amax(-1)
        return toward_texts, toward_images

    def matching(self, seen: Seen, pictures: Tensor, ids: Tensor) -> Tensor:
        """ITM of the pairs of ``pictures [R]`` in ``seen`` and captions ``ids [R,T]``, of which the first b are true.

        The processes' pairs are three for each picture of the global batch, over which this is the mean, times the processes.
        """
        count = len(seen.layers[0][0])
        target = (torch.arange(len(ids), device=ids.device) < count).long()
        parts = list(zip(pictures.split(LIMIT * count), ids.split(LIMIT * count), target.split(LIMIT * count), strict=True))
        if len(parts) == 1:
            return self._matched(seen, *parts[0]) / (3 * count)
        found = [checkpoint(self._matched, seen, *part, use_reentrant=False) for part in parts]
        return torch.stack(found).sum() / (3 * count)

    def _matched(self, seen: Seen, pictures: Tensor, ids: Tensor, target: Tensor) -> Tensor:
        queries = self.branch.config.qformer.queries
        states = self.branch.qformer.joint(seen, pictures, ids, attention_mask(self.real(ids), queries, "itm"))
        return F.cross_entropy(self.itm_head(states[:, :queries]).float().mean(1), target, reduction="sum")

    def generation(self, texts: Tensor, ids: Tensor, real: Tensor) -> Tensor:
        """ITG on text states ``[b,T,D]``: each tells the next of ``ids [b,T]`` where that is ``real``; the mean over these."""
        words = self.branch.qformer.words
        assert words is not None
        wanted = real[:, 1:]
        logits = self.itg_head(texts[:, :-1][wanted]) @ words.weight.T + self.itg_bias
        return F.cross_entropy(logits.float(), ids[:, 1:][wanted], label_smoothing=self.options.smoothing)

    def share_of_words(self, everyone: Tensor, real: Tensor) -> Tensor:
        """The words this process tells over the mean of all: its weight among the processes, whose captions differ in length."""
        return real[:, 1:].sum() * gathering.count() / self.real(everyone)[:, 1:].sum()


def decoder_id(tokenizer: Tokenizer) -> int:
    """The token that begins a caption in ITG: BLIP-2's [DEC], or <s>; :class:`UserError` where there is neither."""
    vocabulary = tokenizer.get_vocab()
    for name in ("[DEC]", "<s>"):
        if name in vocabulary:
            return vocabulary[name]
    raise UserError("The tokenizer has neither [DEC] nor <s> to begin a caption with; add [DEC] as BLIP-2's has.")


def as_decoder(ids: Tensor, first: int) -> Tensor:
    """``ids [B,T]`` that begin with the token ``first``, another than in ITC and ITM: BLIP-2's [DEC] for its [CLS]."""
    return torch.cat([torch.full_like(ids[:, :1], first), ids[:, 1:]], dim=1)


def draw_negatives(similarity: Tensor, same: Tensor, chances: Tensor) -> Tensor:
    """One of B for each of b rows, with the chance that ``similarity [b,B]`` gives it, never one that is the ``same [b,B]``.

    ``chances [b]`` in [0, 1) decide, so that a row's choice is the same wherever the row lies.
    """
    weights = similarity.double().masked_fill(same, -torch.inf).softmax(1)
    reached = weights.cumsum(1)
    wanted = chances.to(reached.device)[:, None] * reached[:, -1:]
    return torch.searchsorted(reached, wanted, right=True)[:, 0]


def match_pairs(image_of: Tensor, text_of: Tensor, mine: slice) -> tuple[Tensor, Tensor]:
    """The pairs of ITM whose picture is this process's: places of pictures among ``mine`` and of captions among all.

    ``image_of [B]`` is every caption's hard picture, ``text_of [b]`` each picture's hard caption. True pairs first, then the
    captions whose hard picture is here, then the hard captions.
    """
    here = (image_of >= mine.start) & (image_of < mine.stop)
    places = torch.arange(mine.stop - mine.start, device=image_of.device)
    guests = here.nonzero()[:, 0]
    pictures = torch.cat([places, image_of[guests] - mine.start, places])
    return pictures, torch.cat([places + mine.start, guests, text_of])


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


def contrast_loss(toward_texts: Tensor, toward_images: Tensor, same: Tensor, *, smoothing: float) -> Tensor:
    """Symmetric ITC on two ``[b,B]`` of logits; ``same [b,B]`` captions share the target of a row."""
    share = same.float() / same.sum(1, keepdim=True)
    share = (1 - smoothing) * share + smoothing / same.shape[1]
    images = -(share * toward_texts.log_softmax(1)).sum(1).mean()
    texts = -(share * toward_images.log_softmax(1)).sum(1).mean()
    return 0.5 * (images + texts)
