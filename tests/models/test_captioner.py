"""The captioner: Eq. 5's order, batches that equal their singles, and frozen parts that stay out of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from msmedcap.checkpoints import Frozen
from msmedcap.config import Decoding
from msmedcap.models.captioner import Captioner
from msmedcap.systems import SYSTEMS
from tests import sizes

PROMPT = "The scan shows:"
DECODINGS = {
    "greedy": Decoding(prompt=PROMPT, max_new_tokens=10),
    "penalised": Decoding(prompt=PROMPT, max_new_tokens=10, repetition_penalty=1.3, min_new_tokens=4),
    "beams": Decoding(prompt=PROMPT, beams=4, max_new_tokens=10, min_new_tokens=3, length_penalty=1.2, repetition_penalty=1.1),
}


@pytest.fixture(scope="module")
def parts() -> Frozen:
    return sizes.frozen()


@pytest.fixture(scope="module")
def systems(parts: Frozen) -> dict[str, Captioner]:
    return {name: sizes.captioner(name, parts, seed=seed) for seed, name in enumerate(SYSTEMS)}


@pytest.mark.parametrize("name", SYSTEMS)
@torch.no_grad()
def test_the_prefix_is_the_reads_in_order_then_the_prompt(systems: dict[str, Captioner], name: str) -> None:
    captioner, opt = systems[name], systems[name].opt
    features = captioner.encode(sizes.views(2))
    reads = [captioner.branches[view].read(features[view]) for view in SYSTEMS[name]]
    words = opt.model.get_input_embeddings().weight[opt.tokenizer(f"</s>{PROMPT}", add_special_tokens=False).input_ids]
    prefix = captioner.prefix(features, PROMPT)
    assert torch.equal(prefix, torch.cat([*reads, words.expand(2, -1, -1)], 1))


@torch.no_grad()
def test_another_prompt_changes_the_words_and_not_the_reads(systems: dict[str, Captioner]) -> None:
    captioner = systems["MSMedCap"]
    features = captioner.encode(sizes.views(1))
    one, other = captioner.prefix(features, PROMPT), captioner.prefix(features, "Axial CT of the")
    slots = 2 * sizes.config().branches["clip"].qformer.queries
    assert torch.equal(one[:, :slots], other[:, :slots])
    assert one.shape != other.shape or not torch.equal(one, other)


@pytest.mark.parametrize("name", SYSTEMS)
@torch.no_grad()
def test_reads_and_encodings_of_a_batch_equal_its_singles(systems: dict[str, Captioner], name: str) -> None:
    captioner, views = systems[name], sizes.views(3)
    together = captioner.prefix(captioner.encode(views), PROMPT)
    singles = [{k: v[i : i + 1] for k, v in views.items()} for i in range(3)]
    alone = torch.cat([captioner.prefix(captioner.encode(v), PROMPT) for v in singles])
    assert (together[0] - together[1]).abs().max() > 1e-2
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("decoding", DECODINGS.values(), ids=DECODINGS)
def test_three_systems_in_one_batch_say_what_they_say_alone(systems: dict[str, Captioner], decoding: Decoding) -> None:
    prefixes: list[Tensor] = []
    with torch.no_grad():
        for captioner in systems.values():
            prefixes += captioner.prefix(captioner.encode(sizes.views(3)), PROMPT)
    lengths = {p.shape[0] for p in prefixes}
    assert len(lengths) == 2  # the batch is left-padded
    opt = systems["MSMedCap"].opt
    together = opt.generate(prefixes, decoding)
    assert together == [opt.generate([p], decoding)[0] for p in prefixes]
    assert len(set(together)) > 2


@pytest.mark.parametrize("name", SYSTEMS)
def test_generate_is_the_prefix_decoded(systems: dict[str, Captioner], name: str) -> None:
    captioner, decoding = systems[name], DECODINGS["greedy"]
    features = captioner.encode(sizes.views(2))
    with torch.no_grad():
        prefix = captioner.prefix(features, PROMPT)
    assert captioner.generate(features, decoding) == captioner.opt.generate(list(prefix), decoding)


def test_a_system_holds_its_branches_and_nothing_frozen(systems: dict[str, Captioner]) -> None:
    for name, captioner in systems.items():
        tops = {key.split(".")[2] for key in captioner.state_dict()}
        assert tops == {"norm", "qformer", "projection"}
        assert {key.split(".")[1] for key in captioner.state_dict()} == set(SYSTEMS[name])


def test_train_does_not_reach_frozen_parts(parts: Frozen) -> None:
    captioner = sizes.captioner("MSMedCap", parts)
    captioner.train()
    assert captioner.branches["clip"].qformer.training
    for frozen in (parts.clip, parts.sam, parts.prompts, parts.opt.model):
        frozen.train()
        assert not any(m.training for m in frozen.modules())
        assert not any(p.requires_grad for p in frozen.parameters())
    assert not captioner.encode(sizes.views(1))["sam"].requires_grad


def test_systems_share_encoders_and_language_model(systems: dict[str, Captioner]) -> None:
    assert len({id(c.opt) for c in systems.values()}) == 1
    assert systems["MSMedCap"].branches["clip"].encoder is systems["BLIP2"].branches["clip"].encoder
    assert systems["MSMedCap"].branches["clip"].norm.weight is not systems["BLIP2"].branches["clip"].norm.weight
