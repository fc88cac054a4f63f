"""The Q-Former: its attention is the one it used, costs nothing when nobody looks, and pictures projected once are read as ever."""

from __future__ import annotations

import copy
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from msmedcap.models.qformer import QFormer
from tests import sizes

CONFIG = dataclasses.replace(sizes.config().branches["clip"].qformer, layers=4)
WIDTH = 24


@pytest.fixture
def qformer() -> QFormer:
    return sizes.randomise(QFormer(CONFIG, encoder_width=WIDTH), 1)


def tokens(count: int = 2, length: int = 9) -> Tensor:
    return torch.randn(count, length, WIDTH, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_attend_gives_one_weight_for_each_layer_that_looks(qformer: QFormer) -> None:
    states, attention = qformer.attend(tokens())
    assert attention.layers == (0, 2) == qformer.cross_layers
    assert [tuple(w.shape) for w in attention.weights] == [(2, CONFIG.heads, CONFIG.queries, 9)] * 2
    for weights in attention.weights:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        assert (weights >= 0).all() and weights.std() > 1e-3


@torch.no_grad()
def test_attention_changes_nothing(qformer: QFormer) -> None:
    before = qformer(tokens())
    states, _ = qformer.attend(tokens())
    torch.testing.assert_close(states, before, atol=1e-5, rtol=1e-5)
    assert torch.equal(qformer(tokens()), before)


@torch.no_grad()
def test_attend_equals_eager_attention_to_the_last_bit(qformer: QFormer) -> None:
    eager = copy.deepcopy(qformer.model)
    eager.set_attn_implementation("eager")
    queries = qformer.query_tokens.expand(2, -1, -1)
    wanted = eager(query_embeds=queries, encoder_hidden_states=tokens(), output_attentions=True)
    states, attention = qformer.attend(tokens())
    assert torch.equal(states, wanted.last_hidden_state)
    assert len(attention.weights) == len(wanted.cross_attentions)
    assert all(torch.equal(a, b) for a, b in zip(attention.weights, wanted.cross_attentions, strict=True))


class Called(TorchFunctionMode):
    """The names of the torch functions called inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def test_nobody_looks_nothing_is_weighed(qformer: QFormer) -> None:
    def calls(run: Any) -> tuple[int, int]:
        with Called() as called:
            run(tokens())
        return called.names.count("softmax"), called.names.count("scaled_dot_product_attention")

    attentions = CONFIG.layers + len(qformer.cross_layers)
    assert calls(qformer) == (0, attentions)
    assert calls(qformer.attend) == (attentions, 0)
    assert calls(qformer) == (0, attentions)


@torch.no_grad()
def test_visitors_who_look_and_visitors_who_do_not_share_a_model(qformer: QFormer) -> None:
    pictures = [torch.randn(1, 9, WIDTH, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    read = [qformer(p) for p in pictures]
    seen = [qformer.attend(p)[1].weights for p in pictures]

    @torch.no_grad()
    def visit(turn: int) -> bool:
        which = turn // 2 % 4
        if turn % 2:
            return torch.equal(qformer(pictures[which]), read[which])
        weights = qformer.attend(pictures[which])[1].weights
        return all(torch.equal(a, b) for a, b in zip(weights, seen[which], strict=True))

    with ThreadPoolExecutor(4) as visitors:
        assert all(visitors.map(visit, range(200)))


@torch.no_grad()
def test_the_weights_are_the_softmax_of_queries_and_keys(qformer: QFormer) -> None:
    seen: list[Tensor] = []
    looking = qformer.model.encoder.layer[2].crossattention.attention
    hook = looking.query.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    _, attention = qformer.attend(tokens())
    hook.remove()

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (CONFIG.heads, -1)).transpose(1, 2)

    queries, keys = heads(looking.query(seen[0])), heads(looking.key(tokens()))
    wanted = (queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5).softmax(-1)
    torch.testing.assert_close(attention.weights[1], wanted, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_batch_equals_its_singles(qformer: QFormer) -> None:
    together = qformer(tokens(4))
    alone = torch.cat([qformer(t[None]) for t in tokens(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_every_query_answers_differently_and_to_the_picture(qformer: QFormer) -> None:
    out = qformer(tokens())
    assert (out[0] - out[1]).abs().max() > 1e-2
    assert (out[0, 0] - out[0, 1]).abs().max() > 1e-2


def test_without_its_text_half_it_says_so(qformer: QFormer) -> None:
    seen, ids = qformer.look(tokens()), torch.zeros(2, 3, dtype=torch.long)
    length = CONFIG.queries + 3
    with pytest.raises(ValueError, match="no text half"):
        qformer.joint(seen, torch.arange(2), ids, torch.ones(2, length, length, dtype=torch.bool))
    with pytest.raises(ValueError, match="no text half"):
        qformer.apart(seen, ids, torch.ones(2, 3, length, dtype=torch.bool))


PICTURES = torch.tensor([2, 0, 2, 3, 0, 2])  # one thrice, one not at all


def by_hub(qformer: QFormer, pictures: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """What ``transformers``' own forward makes of one picture and one text in every row."""
    assert qformer.words is not None and qformer.positions is not None
    text = qformer.words(ids) + qformer.positions.weight[: ids.shape[1]]
    queries = qformer.query_tokens.expand(len(ids), -1, -1)
    return qformer.model(
        query_embeds=torch.cat([queries, text], dim=1),
        query_length=queries.shape[1],
        attention_mask=mask[:, None],
        encoder_hidden_states=pictures,
    ).last_hidden_state


@pytest.fixture
def reader() -> QFormer:
    return sizes.randomise(QFormer(CONFIG, encoder_width=WIDTH, text=True), 2)


def texts(count: int) -> Tensor:
    return torch.randint(5, 60, (count, 5), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("copies", [False, True, None])
def test_pictures_projected_once_are_read_as_if_by_row(reader: QFormer, copies: bool | None) -> None:
    ids, length = texts(len(PICTURES)), CONFIG.queries + 5
    mask = torch.rand(len(ids), length, length, generator=torch.Generator().manual_seed(4)) > 0.3
    mask |= torch.eye(length, dtype=torch.bool)
    found = reader.joint(reader.look(tokens(4)), PICTURES, ids, mask, copies=copies)
    torch.testing.assert_close(found, by_hub(reader, tokens(4)[PICTURES], ids, mask), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("copies", [False, True])
def test_their_gradients_are_those_of_the_rows(reader: QFormer, copies: bool) -> None:
    ids, length = texts(len(PICTURES)), CONFIG.queries + 5
    mask = torch.ones(len(ids), length, length, dtype=torch.bool)

    def gradients(shared: bool) -> dict[str, Tensor]:
        pictures = tokens(4).requires_grad_()
        reader.zero_grad()
        states = (
            reader.joint(reader.look(pictures), PICTURES, ids, mask, copies=copies)
            if shared
            else by_hub(reader, pictures[PICTURES], ids, mask)
        )
        weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(5))
        (states * weights).sum().backward()
        assert pictures.grad is not None
        found = {name: p.grad.clone() for name, p in reader.named_parameters() if p.grad is not None}
        return {**found, "pictures": pictures.grad}

    ours, theirs = gradients(True), gradients(False)
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        torch.testing.assert_close(ours[name], wanted, atol=1e-4, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
    assert not ours["pictures"][1].any()  # the picture that nobody reads


@torch.no_grad()
def test_one_pass_serves_texts_that_see_the_queries_and_texts_that_do_not(reader: QFormer) -> None:
    ids, queries = texts(4), CONFIG.queries
    mask = torch.ones(4, 5, queries + 5, dtype=torch.bool)
    mask[:2, :, :queries] = False
    states, said = reader.apart(reader.look(tokens(2)), ids, mask)
    torch.testing.assert_close(states, reader(tokens(2)), atol=1e-5, rtol=1e-5)
    whole = torch.zeros(4, queries + 5, queries + 5, dtype=torch.bool)
    whole[:, :queries, :queries] = True
    whole[:, queries:] = mask
    wanted = by_hub(reader, tokens(2).repeat(2, 1, 1), ids, whole)
    torch.testing.assert_close(said, wanted[:, queries:], atol=1e-5, rtol=1e-5)


def test_looking_names_no_weight_anew(reader: QFormer) -> None:
    names = {f"model.{name}" for name in reader.model.state_dict()}
    assert set(reader.state_dict()) == names | {"query_tokens", "words.weight", "positions.weight"}
