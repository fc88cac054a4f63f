"""What the two stages begin with: BERT's own states, BLIP-2's branch, the outcomes of stage 1; and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedModel

from msmedcap import checkpoints
from msmedcap.config import BranchConfig, UserError
from msmedcap.convert.hub import convert_hub
from msmedcap.models.branch import Branch
from msmedcap.models.captioner import Captioner
from msmedcap.training.alignment import AlignmentTask, attention_mask
from msmedcap.training.captioning import CaptioningTask
from msmedcap.training.initial import begin_alignment, begin_captioning, save_alignment
from tests import sizes
from tests.convert import made

WORDS = 60  # what the BERT knows; [DEC] is one more
QUERIES = sizes.config().branches["sam"].qformer.queries


def branch_config(view: str = "sam", **changes: object) -> BranchConfig:
    branch = sizes.config().branches[view]
    return dataclasses.replace(branch, qformer=dataclasses.replace(branch.qformer, **({"vocab": WORDS + 1} | changes)))


def new_task(config: BranchConfig | None = None, *, llm_width: int = 32) -> AlignmentTask:
    config = config or branch_config()
    branch = Branch(config, sizes.frozen().encoder(config.encoder), llm_width=llm_width, text=True)
    return AlignmentTask(branch, sizes.tokenizer())


def write_bert(folder: Path, kind: type[PreTrainedModel] = BertForMaskedLM, **changes: object) -> PreTrainedModel:
    """A BERT of the Q-Former's size as the hub keeps it; without the table of sentence kinds, which a Q-Former has not."""
    config = BertConfig(
        **{"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        | changes
    )
    model = sizes.randomise(kind(config), 7)
    with torch.no_grad():
        (model.bert if hasattr(model, "bert") else model).embeddings.token_type_embeddings.weight.zero_()
    model.save_pretrained(folder)
    return model


def captioner(name: str = "MSMedCap") -> Captioner:
    return sizes.captioner(name, sizes.frozen())


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def half(value: Tensor) -> Tensor:
    """As weights are kept."""
    return value.half().float()


@pytest.mark.parametrize("kind", [BertForMaskedLM, BertModel])
def test_text_alone_is_read_as_bert_reads_it(tmp_path: Path, kind: type[PreTrainedModel]) -> None:
    bert = write_bert(tmp_path, kind)
    task = new_task()
    begin_alignment(task, [tmp_path])
    task.eval()
    ids = torch.arange(5, 17).view(2, 6)
    mask = attention_mask(torch.ones_like(ids, dtype=torch.bool), QUERIES, "itc")[:, QUERIES:]
    qformer = task.branch.qformer
    with torch.no_grad():
        seen = qformer.look(torch.randn(2, 5, task.branch.norm.weight.shape[0]))
        _, found = qformer.apart(seen, ids, mask)
        if kind is BertModel:
            torch.testing.assert_close(found, bert(ids).last_hidden_state, atol=1e-5, rtol=1e-5)
            return
        torch.testing.assert_close(found, bert.bert(ids).last_hidden_state, atol=1e-5, rtol=1e-5)
        words = task.itg_head(found) @ qformer.words.weight.T + task.itg_bias
        torch.testing.assert_close(words[..., :WORDS], bert(ids).logits, atol=1e-5, rtol=1e-5)


def test_queries_begin_with_a_copy_of_the_texts_feed_forward_and_cross_attention_drawn(tmp_path: Path) -> None:
    write_bert(tmp_path)
    task = new_task()
    begin_alignment(task, [tmp_path], seed=3)
    drawn = new_task()
    begin_alignment(drawn, seed=3)
    state, other = task.state_dict(), drawn.state_dict()
    copies = [key for key in state if "_query." in key]
    assert len(copies) == 2 * 6
    for key in copies:
        assert torch.equal(state[key], state[key.replace("_query.", ".")])
        assert not torch.equal(state[key], other[key])
    untouched = [k for k in state if "crossattention" in k or "query_tokens" in k or "_proj" in k or "norm" in k.split(".")]
    assert len(untouched) == 10 + 1 + 4 + 2  # one layer's cross-attention, the queries, two projections, the norm
    assert all(torch.equal(state[key], other[key]) for key in untouched)


def test_drawn_weights_are_berts_and_the_same_for_the_same_seed() -> None:
    tasks = [sizes.randomise(new_task(), seed) for seed in range(3)]
    for task, seed in zip(tasks, (1, 1, 2), strict=True):
        begin_alignment(task, seed=seed)
    one, again, other = (task.state_dict() for task in tasks)
    assert all(torch.equal(value, again[key]) for key, value in one.items())
    drawn = {key for key, value in one.items() if not torch.equal(value, other[key])}
    fixed = {key for key in one if "LayerNorm" in key or "layernorm" in key or key in ("temp", "itg_bias", "itg_head.2.weight")}
    assert drawn and not drawn & fixed
    for key in drawn:
        if key.startswith(("branch.qformer.", "itg_head.")):
            assert float(one[key].std()) == pytest.approx(0.02, rel=0.3), key
    assert float(one["temp"]) == pytest.approx(0.07)


def test_the_oldest_names_of_a_norm_are_read(tmp_path: Path) -> None:
    write_bert(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    old = {re.sub("LayerNorm.(weight|bias)$", lambda found: names[found[0]], k): v for k, v in state.items()}
    assert old.keys() != state.keys()
    new, aged = new_task(), new_task()
    begin_alignment(new, [tmp_path])
    save_file(old, file)
    begin_alignment(aged, [tmp_path])
    assert all(torch.equal(value, aged.state_dict()[key]) for key, value in new.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 48}, "hidden_size 48 for 32"),
        ({"num_attention_heads": 4}, "num_attention_heads 4 for 2"),
        ({"num_hidden_layers": 3}, "num_hidden_layers 3 for 2"),
        ({"vocab_size": WORDS - 1}, f"knows {WORDS - 1} words, the Q-Former {WORDS + 1}"),
        ({"max_position_embeddings": 16}, "positions.weight is"),
    ],
)
def test_a_bert_of_another_size_is_refused(tmp_path: Path, changes: dict[str, int], said: str) -> None:
    write_bert(tmp_path, **changes)
    with pytest.raises(UserError, match=said):
        begin_alignment(new_task(), [tmp_path])


def test_a_bert_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    write_bert(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "layer.1.intermediate.dense.bias" not in k}, file)
    with pytest.raises(UserError, match=r"lacks BERT's encoder.layer.1.intermediate.dense.bias"):
        begin_alignment(new_task(), [tmp_path])


def test_an_outcome_of_stage_one_is_a_start_of_it(tmp_path: Path) -> None:
    trained = sizes.randomise(new_task(), 5)
    save_alignment(trained, tmp_path)
    task = new_task(llm_width=48)  # for another language model: the projection is no part of stage 1
    begin_alignment(task, [tmp_path])
    state = task.state_dict()
    for key, value in trained.state_dict().items():
        if not key.startswith("branch.projection."):
            assert torch.equal(state[key], half(value)), key


def test_a_system_gives_what_its_queries_read_with(tmp_path: Path) -> None:
    system = captioner("SAM-BLIP2")
    checkpoints.save_system(system, "SAM-BLIP2", tmp_path)
    task, drawn = new_task(), new_task()
    begin_alignment(task, [tmp_path], seed=1)
    begin_alignment(drawn, seed=1)
    theirs = system.branches["sam"].state_dict()
    for key, value in task.state_dict().items():
        inner = key.removeprefix("branch.")
        given = key.startswith("branch.") and inner in theirs and not inner.startswith("projection.")
        assert torch.equal(value, half(theirs[inner]) if given else drawn.state_dict()[key]), key


def test_the_clip_branch_begins_with_blip2s_where_a_folder_holds_it(tmp_path: Path) -> None:
    made.retrieval(tmp_path / "itm")
    convert_hub(str(tmp_path / "itm"), tmp_path / "first")
    config = made.BRANCH
    tasks = []
    for start in (tmp_path / "first", tmp_path / "first" / "alignment" / "clip"):
        encoder = checkpoints.ClipEncoder(made.CLIP)
        task = AlignmentTask(Branch(config, encoder, llm_width=48, text=True), sizes.tokenizer())
        begin_alignment(task, [start])
        tasks.append(task.state_dict())
    kept = checkpoints.read_weights(tmp_path / "first" / "alignment" / "clip")
    for key, value in tasks[0].items():
        assert torch.equal(value, tasks[1][key])
        if not key.startswith("branch.projection."):
            assert torch.equal(value, kept[key])


def test_msmedcap_is_assembled_from_two_branches_which_other_systems_share(tmp_path: Path) -> None:
    trained = {view: sizes.randomise(new_task(branch_config(view)), seed) for seed, view in enumerate(("clip", "sam"))}
    starts = {view: tmp_path / "alignment" / view for view in trained}
    for view, task in trained.items():
        save_alignment(task, starts[view])
    both, clip_alone = captioner(), captioner("BLIP2")
    begin_captioning(both, starts, seed=4)
    begin_captioning(clip_alone, starts, seed=4)
    for view, branch in both.named_branches():
        theirs = trained[view].branch.state_dict()
        for key, value in branch.state_dict().items():
            if not key.startswith("projection."):
                assert torch.equal(value, half(theirs[key])), key
    shared = both.branches["clip"].state_dict()
    assert all(torch.equal(value, shared[key]) for key, value in clip_alone.branches["clip"].state_dict().items())
    CaptioningTask(both, "The scan shows:")
    assert all(p.requires_grad for p in both.parameters())


def test_a_systems_branch_brings_its_projection(tmp_path: Path) -> None:
    clip, sam = captioner("BLIP2"), sizes.captioner("SAM-BLIP2", sizes.frozen(), seed=11)
    for name, system in (("BLIP2", clip), ("SAM-BLIP2", sam)):
        checkpoints.save_system(system, name, tmp_path / name)
    both = sizes.captioner("MSMedCap", sizes.frozen(), seed=12)
    begin_captioning(both, {"clip": tmp_path / "BLIP2", "sam": tmp_path / "SAM-BLIP2"})
    wanted = {**clip.state_dict(), **sam.state_dict()}
    assert both.state_dict().keys() == wanted.keys()
    assert all(torch.equal(value, half(wanted[key])) for key, value in both.state_dict().items())


def test_a_start_that_does_not_fit_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    save_alignment(new_task(branch_config("clip")), tmp_path / "clip")
    save_alignment(new_task(branch_config(queries=6)), tmp_path / "six")
    write_bert(tmp_path / "bert")
    system = captioner()
    before = snapshot(system)
    for sam, said in (
        ("clip", "encoder clip for sam"),
        ("six", "queries 6 for 4"),
        ("bert", "is a BERT, which stage 1 begins with"),
        ("nowhere", "There is no checkpoint at"),
    ):
        with pytest.raises(UserError, match=said):
            begin_captioning(system, {"clip": tmp_path / "clip", "sam": tmp_path / sam})
    with pytest.raises(UserError, match="name the folder of sam"):
        begin_captioning(system, {"clip": tmp_path / "clip"})
    assert all(torch.equal(value, before[key]) for key, value in system.state_dict().items())


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ({"model_type": "blip-2"}, "convert it first: python -m msmedcap convert hub"),
        ({"model_type": "gpt2"}, "is neither a BERT nor a branch"),
    ],
)
def test_another_models_folder_is_refused(tmp_path: Path, file: dict[str, str], said: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(file))
    with pytest.raises(UserError, match=said):
        begin_alignment(new_task(), [tmp_path])


def test_a_model_folder_without_the_branch_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(checkpoints.configs.to_json(sizes.config()))
    with pytest.raises(UserError, match="holds no weights of a sam branch"):
        begin_alignment(new_task(), [tmp_path])


def test_weights_with_another_name_are_refused(tmp_path: Path) -> None:
    save_alignment(new_task(), tmp_path)
    state = checkpoints.read_weights(tmp_path)
    state["itg_offset"] = state.pop("itg_bias")
    checkpoints.save_weights(state, tmp_path)
    with pytest.raises(UserError, match=r"lack itg_bias \(2 names differ\)"):
        begin_alignment(new_task(), [tmp_path])
