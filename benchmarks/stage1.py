"""A stage-1 step that projects a picture's keys and values once, against one forward of Blip2QFormerModel per objective.

Comes in: a device. Goes out: seconds of forward and backward from features that are at hand (the frozen encoder has run), at the
paper's size: a Q-Former of BERT-base size over CLIP's and SAM's tokens. Both sides share their weights; their losses are equal
where dropout is off.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.timing import Row, pair
from msmedcap import systems
from msmedcap.config import ModelsConfig
from msmedcap.models.branch import Branch
from msmedcap.models.clip import ClipEncoder
from msmedcap.models.sam import SamEncoder
from msmedcap.models.tokens import Tokenizer, train_tokenizer
from msmedcap.training.alignment import AlignmentTask, as_decoder, attention_mask

Batch = tuple[Tensor, list[str], int]

# Long enough to fill the 32 tokens that the paper's stage 1 reads.
SENTENCE = "of the chest in lung window after contrast shows a nodule in the right upper lobe and a small effusion on the left side"


def rows(*, device: torch.device, quick: bool) -> Iterator[Row]:
    """CLIP's and SAM's step in bf16 (autocast, as trained) and fp32: the encoders' tokens are drawn, not computed."""
    config = systems.test() if quick else systems.full()
    # Over SAM's tokens the peer holds about 2 GB for every picture.
    for view, batch, goal in (("clip", 4, ""), ("sam", 2, "≤ 0.6")):
        task = build_task(view, config).to(device).train()
        features = draw_batch(task, config, batch, device)
        for dtype in (torch.bfloat16, torch.float32):
            ours = partial(step, task, features, dtype, shared=True)
            peer = partial(step, task, features, dtype, shared=False)
            count, width = features[0].shape[1:]
            what = f"stage-1 step, {view} branch, batch {batch}, {count} x {width} tokens, {str(dtype).removeprefix('torch.')}"
            rounds = 1 if quick else 3
            yield pair("stage 1", what, ours, peer, rounds=rounds, goal=goal, note="peer: one model pass per objective")


def build_task(view: str, config: ModelsConfig) -> AlignmentTask:
    """The stage-1 task of one branch with drawn weights; the encoder has its shape alone, since its tokens are at hand."""
    with torch.device("meta"):
        encoder = ClipEncoder(config.clip) if view == "clip" else SamEncoder(config.sam)
    branch = Branch(config.branches[view], encoder, llm_width=8, text=True)
    return AlignmentTask(branch, _tokenizer(config.branches[view].qformer.vocab))


def draw_batch(task: AlignmentTask, config: ModelsConfig, count: int, device: torch.device) -> Batch:
    """``count`` pictures' tokens and as many different captions."""
    encoder = task.branch.encoder
    places = (config.clip.image_size // config.clip.patch) ** 2 + 1
    if isinstance(encoder, SamEncoder):
        places = (config.sam.image_size // config.sam.patch) ** 2
    generator = torch.Generator().manual_seed(0)
    width = encoder.token_width("positions") if isinstance(encoder, SamEncoder) else encoder.width
    tokens = torch.randn(count, places, width, generator=generator).to(device)
    return tokens, [f"{i} {SENTENCE}" for i in range(count)], 0


def step(task: AlignmentTask, batch: Batch, dtype: torch.dtype, *, shared: bool) -> None:
    """Forward and backward of one step, with the products in ``dtype``."""
    with torch.autocast(batch[0].device.type, dtype, enabled=dtype != torch.float32):
        loss = task(batch)["loss"] if shared else unshared(task, batch)
    loss.backward()
    task.zero_grad(set_to_none=True)


def unshared(task: AlignmentTask, batch: Batch) -> Tensor:
    """The loss of ``task`` by one forward of ``transformers``' Blip2QFormerModel for each of ITC, ITM and ITG."""
    tokens, captions, number = batch
    qformer = task.branch.qformer
    count = qformer.query_tokens.shape[1]
    tokens = task.branch.norm(tokens)
    ids, mine = task.read(captions, tokens.device)
    real = task.real(ids)

    def states(pictures: Tensor, ids: Tensor, real: Tensor, objective: str) -> tuple[Tensor, Tensor]:
        text = qformer.words(ids) + qformer.positions.weight[: ids.shape[1]]
        out = qformer.model(
            query_embeds=torch.cat([qformer.query_tokens.expand(len(ids), -1, -1), text], dim=1),
            query_length=count,
            attention_mask=attention_mask(real, count, objective)[:, None],
            encoder_hidden_states=pictures,
        ).last_hidden_state
        return out[:, :count], out[:, count:]

    queries, texts = states(tokens, ids, real, "itc")
    same = (ids[:, None] == ids[None]).all(-1)
    toward = task.similarities(queries, texts[:, 0])
    drawn = task.pairs(toward, same, mine, number)
    assert drawn is not None
    images, captioned = drawn
    matched, _ = states(tokens[images], ids[captioned], real[captioned], "itm")
    _, said = states(tokens, as_decoder(ids, task.decoder_id), real, "itg")
    true = (torch.arange(len(images), device=ids.device) < len(ids)).long()
    itm = cross_entropy(task.itm_head(matched).float().mean(1), true)
    return task.contrast(toward, same) + itm + task.generation(said, ids, real)


def _tokenizer(vocab: int) -> Tokenizer:
    return train_tokenizer([SENTENCE], vocab)
