"""How much each place of each branch mattered for each token of a caption, from one teacher-forced pass.

Comes in: a captioner, its branches' tokens of one picture, a prompt and a caption's tokens. Goes out: per branch ``[T,N]``, for
each caption token a value per encoder token, none negative. OPT's attention says which query slots a token was said from, the
Q-Former's cross-attention where those queries looked; the two are multiplied and summed over the queries.

- ``attention``: the mean over layers and heads of OPT's attention to a slot, times the mean cross-attention of its query. The
  second factor does not know the word; the first does.
- ``rollout``: as attention, but followed through the layers: what a slot took from others first counts as theirs (Abnar and
  Zuidema: half of what leaves a layer is what came in).
- ``gradient``: every attention weight times the gradient of the token's log-probability with respect to it, negative ones set to
  zero, the mean over heads. What only ever counts against the word is therefore not shown.
- ``sensitivity``: how strongly the token's log-probability answers to a place: the length of its gradient with respect to the
  encoder's token there, times how far that token is from the picture's mean token. For and against are not told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from msmedcap.models.captioner import Captioner
from msmedcap.models.qformer import QFormerAttention
from msmedcap.models.spoken import Spoken, spoken

DIFFERENTIATED = ("gradient", "sensitivity")
# What the activations of one teacher-forced pass with gradient may take.
BYTES = 2**31


def looked(
    captioner: Captioner, tokens: Mapping[str, Tensor], *, prompt: str, ids: Sequence[int], method: str
) -> dict[str, Tensor]:
    """Per branch ``[T,N]``, float32 on the CPU; ``tokens[branch] [1,N,D_enc]``. ``method`` is one of the module's four.

    ``gradient`` and ``sensitivity`` raise RuntimeError where the language model lets no gradient through.
    """
    if method in DIFFERENTIATED:
        return _differentiated(captioner, tokens, prompt, ids, method)
    with torch.no_grad():
        said, seen = _read(captioner, tokens, prompt, ids)
        slots = (_mean_attention if method == "attention" else _rolled)(said)[0]
        found, start = {}, 0
        for name, attention in seen.items():
            places = _mean_places(attention) if method == "attention" else _rolled_places(attention)
            count = places.shape[1]
            found[name] = (slots[:, start : start + count] @ places[0].to(slots)).float().cpu()
            start += count
    return found


def _read(
    captioner: Captioner, tokens: Mapping[str, Tensor], prompt: str, ids: Sequence[int]
) -> tuple[Spoken, dict[str, QFormerAttention]]:
    looks = {name: branch.look(tokens[name]) for name, branch in captioner.named_branches()}
    prefix = captioner.joined({name: read for name, (read, _) in looks.items()}, prompt)
    return spoken(captioner.opt, prefix, ids), {name: attention for name, (_, attention) in looks.items()}


def _mean_attention(said: Spoken) -> Tensor:
    """OPT's attention ``[B,T,S]`` of the slots that predict the tokens."""
    return torch.stack([weights.mean(1) for weights in said.attention]).mean(0)[:, said.first :]


def _mean_places(attention: QFormerAttention) -> Tensor:
    """Cross-attention ``[B,Q,N]``."""
    return torch.stack([weights.mean(1) for weights in attention.weights]).mean(0)


def _rolled(said: Spoken) -> Tensor:
    rolled = torch.eye(said.attention[0].shape[-1], device=said.attention[0].device)
    for weights in said.attention:
        rolled = (weights.mean(1) @ rolled + rolled) / 2
    return rolled[:, said.first :]


def _rolled_places(attention: QFormerAttention) -> Tensor:
    """What reached each query ``[B,Q,N]`` of the places, through cross-attention and then among the queries."""
    cross = dict(zip(attention.layers, attention.weights, strict=True))
    places = torch.zeros_like(attention.weights[0][:, 0])
    for layer, own in enumerate(attention.own):
        places = (own.mean(1) @ places + places) / 2
        if layer in cross:
            places = (cross[layer].mean(1) + places) / 2
    return places


def _differentiated(
    captioner: Captioner, tokens: Mapping[str, Tensor], prompt: str, ids: Sequence[int], method: str
) -> dict[str, Tensor]:
    parts: dict[str, list[Tensor]] = {name: [] for name in tokens}
    rows = _rows(captioner, prompt, ids)
    for start in range(0, len(ids), rows):
        targets = range(start, min(start + rows, len(ids)))
        with torch.enable_grad():
            # A copy: what was computed in inference mode cannot take part in a graph.
            copies = {n: v.detach().clone().expand(len(targets), -1, -1).requires_grad_() for n, v in tokens.items()}
            said, seen = _read(captioner, copies, prompt, ids)
            wanted = torch.stack([said.log_probs[row, target] for row, target in enumerate(targets)]).sum()
            if method == "gradient":
                weights = [*said.attention, *(w for a in seen.values() for w in (*a.own, *a.weights))]
                found = _composed(said, seen, _pulls(wanted, weights), targets)
            else:
                found = _sensitivity(wanted, copies)
        for name, values in found.items():
            parts[name].append(values.float().cpu())
    return {name: torch.cat(values) for name, values in parts.items()}


def _pulls(wanted: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """Each attention ``[R,heads,A,B]`` times its gradient, as far as it is for ``wanted``: ``[R,A,B]``."""
    gradients = torch.autograd.grad(wanted, weights)
    return [(w.detach() * g).clamp(min=0).mean(1) for w, g in zip(weights, gradients, strict=True)]


def _sensitivity(wanted: Tensor, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
    gradients = torch.autograd.grad(wanted, list(tokens.values()))
    found = {}
    for (name, values), gradient in zip(tokens.items(), gradients, strict=True):
        away = values.detach() - values.detach().mean(1, keepdim=True)
        found[name] = gradient.norm(dim=-1) * away.norm(dim=-1)
    return found


def _composed(
    said: Spoken, seen: Mapping[str, QFormerAttention], pulls: Sequence[Tensor], targets: range
) -> dict[str, Tensor]:
    """``pulls`` are the attentions after weighing, heads averaged, as :func:`_differentiated` orders them: ``[R,N]`` per branch.

    Row r is about token ``targets[r]``. What a layer passes on adds to what came in unchanged (Chefer, Gur and Wolf 2021).
    """
    rest = list(pulls)
    slots = torch.eye(rest[0].shape[-1], device=rest[0].device).expand_as(rest[0])
    for pull in rest[: len(said.attention)]:
        slots = slots + pull @ slots
    rows = torch.arange(len(targets), device=slots.device)
    weight = slots[rows, rows + said.first + targets.start]
    del rest[: len(said.attention)]
    found, start = {}, 0
    for name, attention in seen.items():
        own, across = rest[: len(attention.own)], rest[len(attention.own) : len(attention.own) + len(attention.weights)]
        del rest[: len(own) + len(across)]
        cross = dict(zip(attention.layers, across, strict=True))
        places = torch.zeros_like(across[0])
        for layer, pull in enumerate(own):
            places = places + pull @ places
            if layer in cross:
                places = places + cross[layer]
        count = places.shape[1]
        found[name] = torch.einsum("rq,rqn->rn", weight[:, start : start + count].to(places), places)
        start += count
    return found


def _rows(captioner: Captioner, prompt: str, ids: Sequence[int]) -> int:
    """How many tokens are done together, each a row of its own."""
    config = captioner.opt.model.config
    slots = len(ids) + len(captioner.opt.prompt_ids(prompt))
    slots += sum(branch.config.qformer.queries for _, branch in captioner.named_branches())
    width = 10 * config.hidden_size + 2 * config.ffn_dim + 3 * config.num_attention_heads * slots
    return max(1, min(len(ids), BYTES // (4 * slots * width * config.num_hidden_layers)))
