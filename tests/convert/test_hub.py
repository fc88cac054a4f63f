"""BLIP-2 as ``transformers`` saves it, converted: the same tokens, states, prefix and captions; and what is refused."""

from __future__ import annotations

import dataclasses
import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import Blip2Config, Blip2ForConditionalGeneration

from msmedcap import checkpoints
from msmedcap import config as configs
from msmedcap.checkpoints import load_into, read_weights
from msmedcap.config import BranchConfig, Decoding, ModelsConfig, UserError
from msmedcap.convert import convert_hub, hub, parts, writer
from msmedcap.models.branch import Branch
from msmedcap.models.captioner import Captioner
from msmedcap.models.clip import ClipEncoder
from msmedcap.training.alignment import AlignmentTask
from tests import sizes
from tests.convert import made

PROMPT = "a photo of"


def loaded(folder: Path) -> Captioner:
    """BLIP2 from a converted folder, as a user loads it; the folder has no SAM and says so."""
    models = checkpoints.load(str(folder), device=torch.device("cpu"))
    assert set(models.captioners) == {"BLIP2"} and set(models.missing) == {"MSMedCap", "SAM-BLIP2"}
    return models.captioners["BLIP2"]


@dataclasses.dataclass(frozen=True)
class Pair:
    """The same model twice."""

    theirs: Blip2ForConditionalGeneration
    ours: Captioner


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("hub")
    theirs = made.blip2(folder / "source")
    convert_hub(str(folder / "source"), folder / "out")
    return Pair(theirs, loaded(folder / "out"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made.blip2(tmp_path / "source")
    return tmp_path / "source"


def views(size: int = 32, count: int = 3) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(size))


def their_inputs(pair: Pair, size: int) -> dict[str, Any]:
    slots = [pair.theirs.config.image_token_id] * pair.theirs.config.num_query_tokens
    ids = torch.tensor([slots + pair.ours.opt.prompt_ids(PROMPT).tolist()]).repeat(3, 1)
    return {
        "pixel_values": views(size),
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "interpolate_pos_encoding": True,
    }


@pytest.mark.parametrize("size", [32, 48])
@torch.no_grad()
def test_every_stage_gives_the_same_numbers(pair: Pair, size: int) -> None:
    theirs, branch = pair.theirs, pair.ours.branches["clip"]
    seen = theirs.vision_model(views(size), interpolate_pos_encoding=True).last_hidden_state
    queries = theirs.query_tokens.expand(3, -1, -1)
    read = theirs.qformer(query_embeds=queries, encoder_hidden_states=seen).last_hidden_state
    tokens = branch.norm(branch.encode(views(size)))
    torch.testing.assert_close(tokens, seen, atol=1e-5, rtol=0)
    torch.testing.assert_close(branch.qformer(tokens), read, atol=1e-5, rtol=0)
    prefix = branch.read(branch.encode(views(size)))
    torch.testing.assert_close(prefix, theirs.language_projection(read), atol=1e-5, rtol=0)


@torch.no_grad()
def test_logits_of_picture_and_prompt(pair: Pair) -> None:
    wanted = pair.theirs(**their_inputs(pair, 32)).logits
    found = pair.ours.opt.model(inputs_embeds=pair.ours.prefix(pair.ours.encode({"clip": views()}), PROMPT)).logits
    assert wanted.std() > 0.5  # logits that say something
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("beams", [1, 5])
def test_the_same_captions(pair: Pair, size: int, beams: int) -> None:
    inputs, opt = their_inputs(pair, size), pair.ours.opt
    whole = pair.theirs.generate(
        **inputs, do_sample=False, num_beams=beams, min_new_tokens=4, max_new_tokens=12, length_penalty=1.0,
        eos_token_id=opt.newline, pad_token_id=opt.tokenizer.pad_token_id,
    )  # fmt: skip
    said = whole[:, inputs["input_ids"].shape[1] :]
    wanted = [opt.tokenizer.decode(row, skip_special_tokens=True).split("\n")[0].strip() for row in said]
    decoding = Decoding(prompt=PROMPT, beams=beams, min_new_tokens=4, max_new_tokens=12)
    assert len(set(wanted)) > 1  # the pictures are told apart
    assert pair.ours.generate(pair.ours.encode({"clip": views(size)}), decoding) == wanted


def test_the_same_caption_without_a_prompt(pair: Pair) -> None:
    opt = pair.ours.opt
    options = {"min_new_tokens": 4, "max_new_tokens": 12}
    whole = pair.theirs.generate(pixel_values=views(), do_sample=False, eos_token_id=opt.newline, pad_token_id=1, **options)
    said = whole[:, pair.theirs.config.num_query_tokens + 1 :]  # the slots and </s> come first
    wanted = [opt.tokenizer.decode(row, skip_special_tokens=True).split("\n")[0].strip() for row in said]
    assert pair.ours.generate(pair.ours.encode({"clip": views()}), Decoding(prompt="", **options)) == wanted


def weights(folder: Path) -> dict[str, Tensor]:
    return {f"{part}/{k}": v for part in ("clip", "opt", "systems/BLIP2") for k, v in stored(folder / part).items()}


def stored(folder: Path) -> dict[str, Tensor]:
    """What a part's files hold, in the dtype they hold it in."""
    return {k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()}


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        found[k].dtype == wanted[k].dtype and torch.equal(found[k], wanted[k]) for k in wanted
    )


def as_bins(folder: Path, *, shards: int) -> None:
    """The folder as older uploads are: ``pytorch_model.bin``, whole or in ``shards`` with an index."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return
    names = {key: f"pytorch_model-{i % shards}.bin" for i, key in enumerate(sorted(state))}
    for file in set(names.values()):
        torch.save({k: v for k, v in state.items() if names[k] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))


def in_shards(folder: Path) -> None:
    made.blip2(folder, max_shard_size="100KB")
    (folder / "model.safetensors").unlink()
    assert len(list(folder.glob("model-*.safetensors"))) > 2


@pytest.mark.parametrize(
    "change",
    [in_shards, lambda f: as_bins(f, shards=1), lambda f: as_bins(f, shards=3)],
    ids=["safetensors shards", "bin", "bin shards"],
)
def test_every_file_format_gives_the_same_weights(source: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    convert_hub(str(source), tmp_path / "whole")
    change(source)
    convert_hub(str(source), tmp_path / "other")
    assert same(weights(tmp_path / "other"), weights(tmp_path / "whole"))


def test_the_dtype_is_kept(tmp_path: Path) -> None:
    made.blip2(tmp_path / "source", dtype=torch.float16)
    convert_hub(str(tmp_path / "source"), tmp_path / "out")
    found = weights(tmp_path / "out")
    wanted = stored(tmp_path / "source")
    assert all(v.dtype == torch.float16 for v in found.values())
    assert torch.equal(found["systems/BLIP2/branches.clip.norm.weight"], wanted["vision_model.post_layernorm.weight"])


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


EMBEDDING, HEAD = "language_model.model.decoder.embed_tokens.weight", "language_model.lm_head.weight"


def under_both_names(state: dict[str, Tensor]) -> None:
    state[HEAD] = state[EMBEDDING].clone()


def under_the_heads_name(state: dict[str, Tensor]) -> None:
    state[HEAD] = state.pop(EMBEDDING)


@pytest.mark.parametrize("change", [under_both_names, under_the_heads_name])
def test_the_tied_head_is_kept_once(source: Path, tmp_path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    convert_hub(str(source), tmp_path / "whole")
    change_weights(source, change)
    convert_hub(str(source), tmp_path / "other")
    assert same(weights(tmp_path / "other"), weights(tmp_path / "whole"))


def test_a_head_of_its_own_is_kept(source: Path, tmp_path: Path) -> None:
    head = torch.randn(len(sizes.tokenizer()) + 1, 48)
    change_weights(source, lambda state: state.update({HEAD: head}))
    made.edit(source / "config.json", lambda c: c["text_config"].update(tie_word_embeddings=False))
    convert_hub(str(source), tmp_path / "out")
    assert torch.equal(loaded(tmp_path / "out").opt.model.lm_head.weight, head)


def test_an_older_upload(source: Path, tmp_path: Path) -> None:
    """No row for ``<image>``, position numbers, the Q-Former's text half, settings of generate in ``text_config``."""
    rows = len(sizes.tokenizer())

    def older(state: dict[str, Tensor]) -> None:
        state[EMBEDDING] = state[EMBEDDING][:rows].clone()
        state["qformer.embeddings.position_ids"] = torch.arange(8)[None]
        state["qformer.encoder.layer.0.intermediate.dense.weight"] = torch.zeros(64, 32)

    def config(raw: dict[str, Any]) -> None:
        raw.pop("image_token_index", None)
        raw["text_config"].pop("vocab_size")
        raw["text_config"] |= {"num_beams": 1, "torch_dtype": "float16", "prefix": None}

    change_weights(source, older)
    made.edit(source / "config.json", config)
    ledger = convert_hub(str(source), tmp_path / "out")
    assert loaded(tmp_path / "out").opt.model.config.vocab_size == rows
    left = {row["source"]: row["why"] for row in ledger.rows() if not row["part"]}
    assert left == {
        "qformer.embeddings.*": "position numbers, a constant",
        "qformer.encoder.*": "the Q-Former's text half, which a captioner does not use",
    }


def test_a_tokenizer_of_vocab_and_merges(source: Path, tmp_path: Path) -> None:
    model = json.loads((source / "tokenizer.json").read_text())["model"]
    (source / "tokenizer.json").unlink()
    (source / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (source / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    special = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "</s>"}
    (source / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", **special}))
    convert_hub(str(source), tmp_path / "out")
    opt = loaded(tmp_path / "out").opt
    text = sizes.CAPTIONS[0]
    assert opt.caption_ids(text) == sizes.opt().caption_ids(text)
    assert opt.prompt_ids(PROMPT).tolist() == sizes.opt().prompt_ids(PROMPT).tolist()


def test_the_folders_config(source: Path, tmp_path: Path) -> None:
    convert_hub(str(source), tmp_path / "out")
    config = configs.read(ModelsConfig, tmp_path / "out" / "config.json")
    assert config.clip == made.CLIP and config.view("clip").size == made.CLIP.image_size
    assert config.opt == "opt" and config.branches["clip"] == made.BRANCH
    own = configs.read(checkpoints.SystemConfig, tmp_path / "out" / "systems" / "BLIP2" / "config.json")
    assert own.branches == {"clip": made.BRANCH}


def add(key: str) -> Callable[[Path], None]:
    return lambda folder: change_weights(folder, lambda state: state.update({key: torch.ones(1)}))


def lose_a_weight(folder: Path) -> None:
    change_weights(folder, lambda s: s.pop("qformer.layernorm.weight"))


def lose_a_layer(folder: Path) -> None:
    def change(state: dict[str, Tensor]) -> None:
        for key in [k for k in state if ".decoder.layers.1." in k]:
            del state[key]

    change_weights(folder, change)


def widen(folder: Path) -> None:
    change_weights(folder, lambda s: s.update({"vision_model.embeddings.class_embedding": torch.ones(1, 1, 33)}))


def lose_a_shard(folder: Path) -> None:
    in_shards(folder)
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def damage(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def set_config(**changes: Any) -> Callable[[Path], None]:
    def change(raw: dict[str, Any]) -> None:
        for name, fields in changes.items():
            if isinstance(fields, dict):
                raw[name] |= fields
            else:
                raw[name] = fields

    return lambda folder: made.edit(folder / "config.json", change)


REFUSED = {
    "unknown": (add("adapter.0.weight"), r"1 weights this version does not know.*adapter\.0\.weight"),
    "unknown in a part": (add("vision_model.extra"), "holds vision_model.extra, for which clip of its size has no place"),
    "unknown in opt": (add("language_model.extra"), "holds language_model.extra, for which opt of its size has no place"),
    "lost": (lose_a_weight, r"lacks 1 weights that BLIP2/clip needs.*layernorm\.weight"),
    "lost layer": (lose_a_layer, r"lacks 16 weights that opt needs, such as model\.decoder\.layers\.1\."),
    "shape": (widen, r"class_embedding has the shape \[1, 1, 33\]"),
    "shard": (lose_a_shard, "lacks model-00002-of"),
    "damaged": (damage, "cannot be read .*download it again"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer"),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "is not valid JSON"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
    "t5": (set_config(text_config={"model_type": "t5"}), "language model is 't5'; only BLIP-2 on OPT"),
    "sam": (set_config(model_type="sam"), "'sam', not blip-2.*convert sam"),
    "sizes": (set_config(vision_config={"hidden_size": 64}), "of this size needs"),
    "construction": (set_config(qformer_config={"hidden_act": "relu"}), "qformer_config.hidden_act is 'relu'"),
    "oblong": (set_config(vision_config={"image_size": [32, 16]}), "only squares"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_is_written(source: Path, tmp_path: Path, name: str) -> None:
    change, message = REFUSED[name]
    change(source)
    with pytest.raises(UserError, match=message):
        convert_hub(str(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_conversion_leaves_the_old_folder_whole(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    convert_hub(str(source), out)
    before = weights(out)
    change_weights(source, lambda s: s.update({k: v + 1 for k, v in s.items()}))
    with monkeypatch.context() as patch:
        from msmedcap.convert import source as sources

        tensor = sources.Source.tensor

        def cut(self: sources.Source, key: str) -> Tensor:
            if key == "language_projection.weight":  # of the last part
                raise KeyboardInterrupt
            return tensor(self, key)

        patch.setattr(sources.Source, "tensor", cut)
        with pytest.raises(KeyboardInterrupt):
            convert_hub(str(source), out)
    assert same(weights(out), before)
    assert not list(out.rglob("*.new")) and not list(out.rglob("*.old"))
    convert_hub(str(source), out)
    assert not same(weights(out), before)


def test_another_encoder_is_not_put_under_other_systems(source: Path, tmp_path: Path) -> None:
    out = sizes.write_folder(tmp_path / "out")
    with pytest.raises(UserError, match=r"holds MSMedCap, trained with another clip"):
        convert_hub(str(source), out)


def anonymous() -> int:
    """Bytes of this process that no file stands behind: what a copy of the weights would take."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux' /proc")
@pytest.mark.parametrize("change", [lambda f: None, lambda f: as_bins(f, shards=1)], ids=["safetensors", "bin"])
def test_no_second_copy_is_held(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    change_weights(source, lambda s: s.update({EMBEDDING: torch.zeros(500_000, 48)}))
    change(source)
    size = sum(file.stat().st_size for file in source.iterdir())
    assert size > 95e6
    gc.collect()
    held, save, before = [], writer.save_file, anonymous()

    def measured(*arguments: Any, **options: Any) -> None:
        save(*arguments, **options)
        held.append(anonymous() - before)

    monkeypatch.setattr(writer, "save_file", measured)
    convert_hub(str(source), tmp_path / "out")
    assert max(held) < size / 4


@pytest.fixture(scope="module")
def stage_1(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, AlignmentTask]:
    folder = tmp_path_factory.mktemp("retrieval")
    theirs = made.retrieval(folder / "source")
    convert_hub(str(folder / "source"), folder / "out")
    config = configs.read(ModelsConfig, folder / "out" / "config.json")
    clip = ClipEncoder(config.clip)
    load_into(clip, folder / "out" / "clip")
    branch = configs.read(BranchConfig, folder / "out" / "alignment" / "clip" / "config.json")
    task = AlignmentTask(Branch(branch, clip.eval(), llm_width=48, text=True), sizes.tokenizer())
    report = task.load_state_dict(read_weights(folder / "out" / "alignment" / "clip"), strict=False)
    assert set(report.missing_keys) == {"branch.projection.weight", "branch.projection.bias"}
    assert not report.unexpected_keys
    return theirs, task.eval()


def texts() -> tuple[Tensor, Tensor]:
    ids = torch.randint(3, 300, (3, 7), generator=torch.Generator().manual_seed(1))
    real = torch.ones_like(ids)
    real[1, 5:] = 0
    return ids, real


@torch.no_grad()
def test_the_same_similarity_of_pictures_and_captions(stage_1: tuple[Any, AlignmentTask]) -> None:
    theirs, task = stage_1
    ids, real = texts()
    out = theirs(pixel_values=views(), input_ids=ids, attention_mask=real)
    branch, qformer = task.branch, task.branch.qformer
    queries = task.vision_proj(qformer(branch.norm(branch.encode(views()))))
    words = qformer.model(query_embeds=embedded(qformer, ids), query_length=0, attention_mask=real).last_hidden_state
    firsts = F.normalize(task.text_proj(words[:, 0]), dim=-1)
    found = torch.einsum("iqd,jd->ijq", F.normalize(queries, dim=-1), firsts).amax(-1)
    assert found.std() > 0.05
    torch.testing.assert_close(found, out.logits_per_image, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_same_match_of_picture_and_caption(stage_1: tuple[Any, AlignmentTask]) -> None:
    theirs, task = stage_1
    ids, real = texts()
    out = theirs(pixel_values=views(), input_ids=ids, attention_mask=real, use_image_text_matching_head=True)
    branch, qformer = task.branch, task.branch.qformer
    queries = qformer.query_tokens.expand(3, -1, -1)
    states = qformer.model(
        query_embeds=torch.cat([queries, embedded(qformer, ids)], 1),
        query_length=queries.shape[1],
        attention_mask=torch.cat([torch.ones(3, queries.shape[1], dtype=torch.long), real], 1),
        encoder_hidden_states=branch.norm(branch.encode(views())),
    ).last_hidden_state
    found = task.itm_head(states[:, : queries.shape[1]]).mean(1)
    assert (found - found.mean(0)).std() > 0.005
    torch.testing.assert_close(found, out.logits_per_image, atol=1e-5, rtol=0)


def embedded(qformer: Any, ids: Tensor) -> Tensor:
    return qformer.words(ids) + qformer.positions.weight[: ids.shape[1]]


class Shapes:
    """A source of shapes alone: the published sizes take no memory here."""

    def __init__(self, table: dict[str, tuple[int, ...]]) -> None:
        self.table = table

    def __enter__(self) -> Shapes:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def keys(self) -> list[str]:
        return sorted(self.table)

    def shape(self, key: str) -> tuple[int, ...]:
        return self.table[key]

    def dtype(self, key: str) -> torch.dtype:
        return torch.float16

    def tensor(self, key: str) -> Tensor:
        raise PlanHoldsError


class PlanHoldsError(Exception):
    """Every check was passed."""


@pytest.mark.slow
@pytest.mark.parametrize("text", [{"hidden_size": 2560, "ffn_dim": 10240}, {"hidden_size": 4096, "ffn_dim": 16384}])
def test_every_published_weight_has_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: dict[str, int]) -> None:
    """BLIP-2 with OPT-2.7B and OPT-6.7B at true size: config and shapes as published, the numbers never read."""
    opt = {"model_type": "opt", "num_hidden_layers": 32, "num_attention_heads": 32, "word_embed_proj_dim": text["hidden_size"]}
    config = Blip2Config(text_config=opt | text)
    with torch.device("meta"):
        state = Blip2ForConditionalGeneration(config).state_dict()
    config.save_pretrained(tmp_path / "source")
    (tmp_path / "source" / "tokenizer.json").write_text("{}")
    there = Shapes({key: tuple(value.shape) for key, value in state.items()})
    monkeypatch.setattr(hub, "open_source", lambda _: there)
    monkeypatch.setattr(parts, "_check_room", lambda *_: None)
    with pytest.raises(PlanHoldsError):
        convert_hub(str(tmp_path / "source"), tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()
