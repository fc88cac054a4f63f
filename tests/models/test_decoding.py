"""Our greedy and beam search says what ``transformers``' ``generate`` says, token by token, whoever else is in the batch."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers import OPTConfig, OPTForCausalLM
from transformers.generation import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from msmedcap.config import Decoding
from msmedcap.models.decoding import Said, decode
from msmedcap.models.frozen import freeze
from msmedcap.models.opt_loading import build_opt
from tests import sizes

WIDTH, PAD = 32, 1
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")),
]


def language(seed: int, *, vocab: int = 60, scale: float = 0.3) -> OPTForCausalLM:
    return freeze(sizes.randomise(build_opt(vocab, hidden=WIDTH, layers=2, heads=2, positions=128), seed, scale=scale))


def prefixes(seed: int, lengths: Sequence[int], *, width: int = WIDTH) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, width, generator=generator) for n in lengths]


def ids_of(said: Sequence[Said]) -> list[list[int]]:
    return [list(one.ids) for one in said]


def generate(model: OPTForCausalLM, rows: Sequence[Tensor], decoding: Decoding, newline: int) -> list[list[int]]:
    """The tokens of ``transformers``' own search, each row up to its newline."""
    longest = max(map(len, rows))
    penalties = LogitsProcessorList()
    if decoding.repetition_penalty != 1:
        penalties.append(RepetitionPenaltyLogitsProcessor(decoding.repetition_penalty))
    ids = model.generate(
        inputs_embeds=torch.stack([torch.nn.functional.pad(p, (0, 0, longest - len(p), 0)) for p in rows]),
        attention_mask=torch.stack([torch.arange(longest, device=p.device) >= longest - len(p) for p in rows]).long(),
        do_sample=False,
        num_beams=decoding.beams,
        min_new_tokens=decoding.min_new_tokens,
        max_new_tokens=decoding.max_new_tokens,
        logits_processor=penalties,
        length_penalty=decoding.length_penalty if decoding.beams > 1 else None,
        eos_token_id=newline,
        pad_token_id=PAD,
    )
    return [row[: row.index(newline) + 1] if newline in row else row for row in ids.tolist()]


def drawn(seed: int, beams: int) -> tuple[OPTForCausalLM, list[Tensor], Decoding, int]:
    """A model, prefixes of several lengths and a way to decode; often the newline is a token the model likes to say."""
    draw = random.Random(1000 * beams + seed)
    model, newline = language(seed, scale=draw.choice([0.15, 0.3])), draw.randrange(4, 60)
    if draw.random() < 0.5:
        model.get_input_embeddings().weight.data[newline] *= 3
    most = draw.choice([1, 7, 15, 30])
    decoding = Decoding(
        beams=beams,
        min_new_tokens=draw.choice([0, 1, 4]) if most > 4 else 1,
        max_new_tokens=most,
        repetition_penalty=draw.choice([1.0, 1.0, 1.2, 1.5]),
        length_penalty=draw.choice([1.0, 0.0, -1.0, 1.2, 2.0]),
    )
    return model, prefixes(seed, [draw.randint(1, 9) for _ in range(draw.choice([1, 3, 5]))]), decoding, newline


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("beams", [1, 3, 5, 15])
def test_the_tokens_are_those_of_transformers(beams: int, device: str) -> None:
    ended = full = 0
    for seed in range(12):
        model, rows, decoding, newline = drawn(seed, beams)
        model, rows = model.to(device), [row.to(device) for row in rows]
        wanted = generate(model, rows, decoding, newline)
        together = ids_of(decode(model, rows, decoding, newline=newline))
        assert together == wanted, (seed, decoding)
        assert together == [ids_of(decode(model, [row], decoding, newline=newline))[0] for row in rows], (seed, decoding)
        ended += sum(len(row) < decoding.max_new_tokens for row in wanted)
        full += sum(len(row) == decoding.max_new_tokens for row in wanted)
    assert ended > 1 and full > 1  # both ways to end were seen


@pytest.mark.parametrize("beams", [1, 4])
def test_an_opt_that_normalises_last_and_projects_its_embeddings(beams: int) -> None:
    config = OPTConfig(
        vocab_size=60, hidden_size=WIDTH, ffn_dim=48, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=16,
        max_position_embeddings=64, do_layer_norm_before=False, dropout=0.0, pad_token_id=PAD,
    )  # fmt: skip
    model = freeze(sizes.randomise(OPTForCausalLM(config), 3, scale=0.3))
    rows, decoding = prefixes(3, (4, 7), width=16), Decoding(beams=beams, max_new_tokens=12)
    assert ids_of(decode(model, rows, decoding, newline=9)) == generate(model, rows, decoding, 9)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("beams", [1, 4])
@torch.no_grad()
def test_log_probabilities_are_the_models_own(beams: int, device: str) -> None:
    model, rows = language(1).to(device), [row.to(device) for row in prefixes(1, (3, 6))]
    decoding = Decoding(beams=beams, min_new_tokens=6, max_new_tokens=9, repetition_penalty=1.5)
    for row, said in zip(rows, decode(model, rows, decoding, newline=9), strict=True):
        ids = torch.tensor(said.ids, device=device)
        logits = model(inputs_embeds=torch.cat([row, model.get_input_embeddings()(ids)])[None]).logits[0]
        wanted = logits[len(row) - 1 : -1].log_softmax(-1).gather(-1, ids[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(said.log_probs), wanted.cpu(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_prefixes_are_read_once_and_captions_that_are_done_leave(beams: int) -> None:
    left_early = 0
    for seed in range(6):
        model, rows = language(seed), prefixes(seed, (3, 5, 4))
        decoding = Decoding(beams=beams, max_new_tokens=12)
        newline = generate(model, rows, decoding, 59)[0][2]  # a token that the model likes to say
        read: list[int] = []
        model.model.decoder.layers[0].fc1.register_forward_hook(lambda _, inputs, output, to=read: to.append(len(output)))
        decode(model, rows, decoding, newline=newline)
        together, alone = list(read), []
        for row in rows:
            read.clear()
            decode(model, [row], decoding, newline=newline)
            assert read[0] == len(row) and set(read[1:]) <= {beams}
            alone.append(read[1:])
        assert together[0] == 3 + 5 + 4
        # A pass holds the captions that need it, no others.
        assert together[1:] == [beams * sum(len(a) > i for a in alone) for i in range(max(map(len, alone)))]
        left_early += len(set(map(len, alone))) > 1
    assert left_early > 1


@pytest.mark.parametrize("beams", [1, 3])
def test_every_step_is_shown_and_the_last_is_the_result(beams: int) -> None:
    model, rows = language(2), prefixes(2, (3, 5, 4))
    decoding, steps = Decoding(beams=beams, min_new_tokens=3, max_new_tokens=8), list[list[list[int]]]()
    result = ids_of(decode(model, rows, decoding, newline=9, on_step=lambda said: steps.append(ids_of(said))))
    assert steps[-1] == result
    assert [len(row) for row in steps[0]] == [1, 1, 1] and max(len(row) for step in steps for row in step) == 8
    if beams == 1:
        for before, after in zip(steps, steps[1:], strict=False):
            assert all(new[: len(old)] == old for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("beams", [1, 3])
def test_what_the_callback_raises_ends_the_search(beams: int) -> None:
    model, rows, decoding = language(2), prefixes(2, (3, 5)), Decoding(beams=beams, min_new_tokens=8, max_new_tokens=8)
    calls = []

    def stop(said: list[Said]) -> None:
        calls.append(said)
        if len(calls) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        decode(model, rows, decoding, newline=9, on_step=stop)
    assert len(calls) == 3
    assert ids_of(decode(model, rows, decoding, newline=9)) == generate(model, rows, decoding, 9)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("beams", [1, 3])
def test_half_precision_scores_what_full_precision_does(beams: int, device: str) -> None:
    full, rows = language(4, vocab=200), prefixes(4, (3, 6))
    decoding = Decoding(beams=beams, min_new_tokens=6, max_new_tokens=6)
    wanted = decode(full, rows, decoding, newline=9)
    half = language(4, vocab=200).to(device=device, dtype=torch.bfloat16)
    found = decode(half, [row.to(device) for row in rows], decoding, newline=9)
    for one, other in zip(found, wanted, strict=True):
        same = next((i for i, pair in enumerate(zip(one.ids, other.ids, strict=True)) if pair[0] != pair[1]), 6)
        assert same > 0
        torch.testing.assert_close(
            torch.tensor(one.log_probs[:same]), torch.tensor(other.log_probs[:same]), atol=0.15, rtol=0.1
        )


def test_a_penalty_keeps_a_caption_from_repeating_itself() -> None:
    model, rows = language(5), prefixes(5, (4,))
    plain = Decoding(min_new_tokens=12, max_new_tokens=12)
    (said,) = decode(model, rows, plain, newline=9)
    (other,) = decode(model, rows, dataclasses.replace(plain, repetition_penalty=50.0), newline=9)
    assert len(set(other.ids)) > len(set(said.ids))
