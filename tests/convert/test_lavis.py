"""LAVIS' files give the same numbers here as LAVIS' arithmetic gives on them, and what cannot be converted is told.

The files are made in LAVIS' formats (names, buffers, ties and kinds as saved); what they must give is computed from the
names they hold by :mod:`tests.convert.lavis_reference`, which shares nothing with the package.
"""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from msmedcap import config as configs
from msmedcap import systems
from msmedcap.checkpoints import Frozen, load_system, read_weights, save_weights
from msmedcap.config import BranchConfig, ClipConfig, ModelsConfig, UserError, to_json
from msmedcap.convert.lavis import convert_lavis
from msmedcap.convert.sam import convert_sam
from msmedcap.convert.source import open_source
from msmedcap.models.branch import Branch
from msmedcap.models.captioner import Captioner
from msmedcap.models.clip import ClipEncoder
from msmedcap.models.opt import Opt
from msmedcap.models.opt_loading import build_opt
from msmedcap.models.sam import SamEncoder, SamPrompts
from msmedcap.training.alignment import AlignmentTask, attention_mask
from tests import sizes
from tests.convert import lavis_reference as lavis
from tests.convert.lavis_reference import Sizes, State

CLIP = ClipConfig(hidden=176, layers=2, heads=2, mlp=96, image_size=32, patch=8)
SAM = dataclasses.replace(sizes.config().sam, stem="patch")
CONFIG = dataclasses.replace(sizes.config(), clip=CLIP, sam=SAM)
GRID = SAM.image_size // SAM.patch
CLIP_SIDE, SAM_SIDE = Sizes(reads=176), Sizes(reads=GRID * GRID, layers=4, queries=3)
EVA = {"width": 176, "mlp": 96, "grid": 4, "patch": 8}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
PROMPT = "a photo of"


def saved(path: Path, state: State) -> Path:
    """``state`` as LAVIS' runner saves it, beside what it keeps of the training."""
    groups = [{"lr": 1e-4, "params": [0, 1]}]
    torch.save(
        {
            "model": state,
            "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": groups},
            "config": {"model": {"arch": "blip2_opt", "freeze_vit": True}},
            "scaler": None,
            "epoch": 2,
        },
        path,
    )
    return path


def small_folder(out: Path, *, sam: bool = True) -> Path:
    """A model folder of these tests' sizes: a language model 40 wide and, with ``sam``, a SAM."""
    out.mkdir()
    (out / "config.json").write_text(to_json(CONFIG), encoding="utf-8")
    language().model.save_pretrained(out / "opt")
    if sam:
        save_weights(SamEncoder(SAM).state_dict(), out / "sam")
    return out


def language() -> Opt:
    return Opt(sizes.randomise(build_opt(len(sizes.tokenizer()), hidden=40, layers=1, heads=2, positions=64), 5), sizes.tokenizer())


def models(out: Path) -> ModelsConfig:
    return configs.read(ModelsConfig, out / "config.json")


def captioner(out: Path, name: str) -> Captioner:
    """The converted system over encoders of the folder's sizes (without weights: the tokens are given)."""
    config = models(out)
    with torch.device("meta"):
        clip, sam, prompts = ClipEncoder(config.clip), SamEncoder(config.sam), SamPrompts(config.sam)
    frozen = Frozen(clip=clip, sam=sam, prompts=prompts, opt=language())
    return load_system(out / "systems" / name, config, frozen).eval()


def clip_tokens(count: int = 2, *, width: int = 176, scale: float = 2.0) -> Tensor:
    """Tokens as a transformer without final norm gives them: larger than normed ones."""
    return torch.randn(count, 17, width, generator=torch.Generator().manual_seed(1)) * scale


def sam_features(count: int = 2, *, out: int = SAM.out, grid: int = GRID) -> Tensor:
    return torch.randn(count, out, grid, grid, generator=torch.Generator().manual_seed(2))


def prompt_of(opt: Opt, count: int) -> Tensor:
    """The prompt's embeddings by the language model's own table."""
    ids = opt.tokenizer(PROMPT, return_tensors="pt").input_ids
    return opt.model.model.decoder.embed_tokens.weight[ids].expand(count, -1, -1)


def test_the_reference_has_as_many_weights_as_the_authors_count() -> None:
    """Their notebook finds 512 in a dual-branch file before OPT's: two Q-Formers of 12 layers with their queries."""
    small = Sizes(reads=8, hidden=4, layers=12, mlp=4, places=2)
    assert 2 * (1 + len(lavis.qformer_state("Qformer.", small, text=False, seed=0))) == 512


# Stage 2


def test_a_single_branch_file_gives_lavis_prefix_and_tokens(tmp_path: Path) -> None:
    state = lavis.stage2_state(CLIP_SIDE) | lavis.eva_state("visual_encoder.", layers=2, **EVA)
    out = small_folder(tmp_path / "out")
    ledger = convert_lavis(saved(tmp_path / "blip2.pth", state), out)
    assert models(out).clip == CLIP  # read from shapes: the folder's own was written by hand

    encoder = ClipEncoder(models(out).clip).eval()
    encoder.load_state_dict(read_weights(out / "clip"))
    view = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    theirs = lavis.eva_tokens(state, "visual_encoder.", view, layers=2)
    with torch.no_grad():
        torch.testing.assert_close(encoder(view), theirs, **CLOSE)
        ours = captioner(out, "BLIP2")
        wanted = torch.cat([lavis.prefix_of(state, theirs), prompt_of(ours.opt, 2)], 1)
        torch.testing.assert_close(ours.prefix({"clip": theirs}, PROMPT), wanted, **CLOSE)
    assert sum(int(str(row["count"])) for row in ledger.rows() if row["source"]) >= len(state)


def test_the_dual_branch_file_gives_both_reads_clip_first(tmp_path: Path) -> None:
    state = lavis.stage2_state(CLIP_SIDE) | lavis.sam_side_state(SAM_SIDE)
    out = small_folder(tmp_path / "out")
    convert_lavis(saved(tmp_path / "checkpoint_best.pth", state), out)
    ours = captioner(out, "MSMedCap")
    assert [b.config.tokens for _, b in ours.named_branches()] == ["positions", "channels"]
    assert [b.config.norm for _, b in ours.named_branches()] == ["layer", "identity"]

    clip, features = clip_tokens(), sam_features()
    sam = dict(ours.named_branches())["sam"].tokens(features)
    wanted = torch.cat(
        [
            lavis.prefix_of(state, clip),
            lavis.prefix_of(state, features.view(2, SAM.out, -1), side="sam_"),  # each channel is a token
            prompt_of(ours.opt, 2),
        ],
        1,
    )
    with torch.no_grad():
        torch.testing.assert_close(ours.prefix({"clip": clip, "sam": sam}, PROMPT), wanted, **CLOSE)


def test_the_published_sam_size_reads_256_channels_of_4096(tmp_path: Path) -> None:
    wide = Sizes(reads=4096, layers=2)
    state = lavis.stage2_state(CLIP_SIDE) | lavis.sam_side_state(wide)
    out = small_folder(tmp_path / "out", sam=False)
    convert_lavis(saved(tmp_path / "checkpoint_best.pth", state), out, sam_size="b")
    assert models(out).sam == systems.SAM_SIZES["b"]
    assert models(out).view("sam").size == 1024
    sam = dict(captioner(out, "MSMedCap").named_branches())["sam"]
    features = sam_features(1, out=256, grid=64)
    tokens = sam.tokens(features)
    assert tokens.shape == (1, 256, 4096)
    with torch.no_grad():
        torch.testing.assert_close(sam.read(tokens), lavis.prefix_of(state, features.view(1, 256, -1), side="sam_"), **CLOSE)


@pytest.mark.parametrize(("reads", "tokens"), [(GRID * GRID, "channels"), (SAM.out, "positions")])
def test_a_sam_file_becomes_sam_blip2(tmp_path: Path, reads: int, tokens: str) -> None:
    state = lavis.sam_side_state(Sizes(reads=reads))
    out = small_folder(tmp_path / "out")
    convert_lavis(saved(tmp_path / "sam.pth", state), out)
    ours = captioner(out, "SAM-BLIP2")
    branch = dict(ours.named_branches())["sam"]
    assert branch.config == dataclasses.replace(branch.config, encoder="sam", norm="identity", tokens=tokens)
    given = branch.tokens(sam_features())
    with torch.no_grad():
        torch.testing.assert_close(branch.read(given), lavis.prefix_of(state, given, side="sam_"), **CLOSE)


def renamed(state: State) -> State:
    """The authors' second names for the same branches, trained on kept features: no ``ln_vision``, a token for classifying."""
    new = {}
    for key, value in state.items():
        for theirs, other in (("sam_Qformer", "sam_qformer.Qformer"), ("Qformer", "clip_qformer.Qformer")):
            if key.startswith(theirs):
                new[other + key.removeprefix(theirs)] = value
    for view, side in (("clip", ""), ("sam", "sam_")):
        new[f"{view}_qformer.query_tokens"] = state[f"{side}query_tokens"]
        new[f"{view}_qformer.cls_token"] = torch.zeros(1, 1, 128)
        new |= {f"{view}_proj.{k}": state[f"{side}opt_proj.{k}"] for k in ("weight", "bias")}
    return new


def test_the_authors_second_names_take_the_norm_of_the_folders_blip2(tmp_path: Path) -> None:
    state = lavis.stage2_state(CLIP_SIDE) | lavis.sam_side_state(SAM_SIDE)
    out = small_folder(tmp_path / "out")
    file = saved(tmp_path / "sam_blip_checkpoint_0.pth", renamed(state))
    with pytest.raises(UserError, match=r"no ln_vision.*first convert hub Salesforce/blip2-opt-2.7b-coco"):
        convert_lavis(file, out)
    other = lavis.stage2_state(CLIP_SIDE, seed=7)
    convert_lavis(saved(tmp_path / "blip2.pth", other), out)
    ledger = convert_lavis(file, out)
    assert "ln_vision of the folder's BLIP2" in ledger.table()

    ours = captioner(out, "MSMedCap")
    state |= {k: other[k] for k in ("ln_vision.weight", "ln_vision.bias")}
    clip = clip_tokens()
    with torch.no_grad():
        branch = dict(ours.named_branches())["clip"]
        torch.testing.assert_close(branch.read(clip), lavis.prefix_of(state, clip), **CLOSE)


def test_frozen_models_in_the_file_are_left_or_taken(tmp_path: Path) -> None:
    """OPT is the published one; a SAM that is there stands under the hub's names and gives what the hub's own folder gives."""
    from transformers import SamConfig, SamModel

    theirs = SamModel(
        SamConfig(
            vision_config={
                "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "global_attn_indexes": [1], "mlp_dim": 128,
                "window_size": 3, "image_size": 64, "patch_size": 8, "output_channels": 32, "num_pos_feats": 16,
            },
            prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 8},
            mask_decoder_config={
                "hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32,
            },
        )
    )  # fmt: skip
    theirs.save_pretrained(tmp_path / "hub")
    state = lavis.sam_side_state(SAM_SIDE) | {f"sam_model.{k}": v for k, v in theirs.state_dict().items()}
    state |= {f"opt_model.{k}": v for k, v in language().model.state_dict().items()}
    out, other = small_folder(tmp_path / "out"), tmp_path / "other"
    ledger = convert_lavis(saved(tmp_path / "sam.pth", state), out)
    convert_sam(str(tmp_path / "hub"), other)
    assert models(other).sam == models(out).sam
    for part in ("sam", "sam_prompts"):
        ours, wanted = read_weights(out / part), read_weights(other / part)
        assert ours.keys() == wanted.keys()
        assert all(torch.equal(ours[k], wanted[k]) for k in ours)
    assert "OPT stays frozen" in ledger.table()


# EVA's encoder alone


def test_evas_own_file_is_read_up_to_its_last_block(tmp_path: Path) -> None:
    state = {k: v.half() for k, v in lavis.eva_state("", layers=3, **EVA).items()}
    state |= {"norm.weight": torch.ones(176), "norm.bias": torch.ones(176), "head.weight": torch.ones(5, 176)}
    torch.save(state, tmp_path / "eva_vit_g.pth")  # not wrapped, as published
    ledger = convert_lavis(tmp_path / "eva_vit_g.pth", tmp_path / "out")
    assert models(tmp_path / "out").clip == CLIP
    assert models(tmp_path / "out").view("clip").size == 32
    with open_source(tmp_path / "out" / "clip") as clip:
        assert {clip.dtype(key) for key in clip.keys()} == {torch.float16}  # noqa: SIM118 - not a mapping
    encoder = ClipEncoder(CLIP).eval()
    encoder.load_state_dict(read_weights(tmp_path / "out" / "clip"))
    view = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        theirs = lavis.eva_tokens({k: v.float() for k, v in state.items()}, "", view, layers=2)
        torch.testing.assert_close(encoder(view), theirs, **CLOSE)
    assert "the last block" in ledger.table()


# Stage 1


@dataclasses.dataclass(frozen=True)
class StageOne:
    """A stage-1 file, our task with its weights, and a batch: normed tokens, ids of which the last are padding."""

    state: State
    task: AlignmentTask
    heads: State
    tokens: Tensor
    ids: Tensor
    real: Tensor


@pytest.fixture(scope="module")
def stage_one(tmp_path_factory: pytest.TempPathFactory) -> StageOne:
    folder = tmp_path_factory.mktemp("stage1")
    draw = torch.Generator().manual_seed(9)
    state = lavis.stage1_state(CLIP_SIDE) | {
        "ln_vision.weight": torch.rand(176, generator=draw) + 0.5,
        "ln_vision.bias": torch.randn(176, generator=draw),
    }
    out = small_folder(folder / "out")
    convert_lavis(saved(folder / "blip2_pretrained.pth", state), out)
    config = configs.read(BranchConfig, out / "alignment" / "clip" / "config.json")
    assert (config.qformer.vocab, config.qformer.projection) == (61, 24)
    assert models(out).branches["clip"] == config
    task = AlignmentTask(Branch(config, ClipEncoder(CLIP), llm_width=40, text=True), sizes.tokenizer()).eval()
    heads = read_weights(out / "alignment" / "clip")
    missing, left = task.load_state_dict(heads, strict=False)
    assert set(missing) == {"branch.projection.weight", "branch.projection.bias"}
    assert not left
    ids = torch.randint(3, 61, (3, 7), generator=draw)
    real = torch.arange(7) < torch.tensor([[7], [5], [6]])
    tokens = lavis.vision_norm(state, clip_tokens(3))
    torch.testing.assert_close(task.branch.norm(clip_tokens(3)), tokens, **CLOSE)
    return StageOne(state, task, heads, tokens, ids, real)


@torch.no_grad()
def said(given: StageOne, objective: str) -> tuple[Tensor, Tensor]:
    """Our queries' and texts' states for the objectives in which queries see no text."""
    queries = CLIP_SIDE.queries
    mask = attention_mask(given.real, queries, objective)[:, queries:]
    return given.task.branch.qformer.apart(given.task.branch.qformer.look(given.tokens), given.ids, mask)


def test_contrast_is_lavis(stage_one: StageOne) -> None:
    queries, texts = said(stage_one, "itc")
    wanted = lavis.contrast(stage_one.state, stage_one.tokens, stage_one.ids, stage_one.real)
    with torch.no_grad():
        torch.testing.assert_close(stage_one.task.similarities(queries, texts[:, 0])[0], wanted, **CLOSE)
    assert stage_one.task.temp.item() == pytest.approx(0.05)


def test_matching_is_lavis(stage_one: StageOne) -> None:
    qformer, queries = stage_one.task.branch.qformer, CLIP_SIDE.queries
    mask = attention_mask(stage_one.real, queries, "itm")
    wanted = lavis.matching(stage_one.state, stage_one.tokens, stage_one.ids, stage_one.real)
    with torch.no_grad():
        states = qformer.joint(qformer.look(stage_one.tokens), torch.arange(3), stage_one.ids, mask)[:, :queries]
        torch.testing.assert_close(stage_one.task.itm_head(states).mean(1), wanted, **CLOSE)


def test_generation_is_lavis(stage_one: StageOne) -> None:
    words = stage_one.task.branch.qformer.words
    assert words is not None
    _, texts = said(stage_one, "itg")
    wanted = lavis.generation(stage_one.state, stage_one.tokens, stage_one.ids, stage_one.real)
    with torch.no_grad():
        logits = stage_one.task.itg_head(texts) @ words.weight.T + stage_one.task.itg_bias
    torch.testing.assert_close(logits[stage_one.real], wanted[stage_one.real], **CLOSE)


def test_the_authors_first_stage_kept_lavis_name_for_sams_queries(tmp_path: Path) -> None:
    state = lavis.stage1_state(SAM_SIDE, prefix="sam_Qformer.", queries="query_tokens")
    out = small_folder(tmp_path / "out")
    convert_lavis(saved(tmp_path / "sam_stage1.pth", state), out)
    config = configs.read(BranchConfig, out / "alignment" / "sam" / "config.json")
    assert (config.encoder, config.norm, config.tokens) == ("sam", "identity", "channels")
    weights = read_weights(out / "alignment" / "sam")
    assert torch.equal(weights["branch.qformer.query_tokens"], state["query_tokens"])


def test_a_word_head_that_is_not_tied_is_refused(tmp_path: Path) -> None:
    state = lavis.stage1_state(SAM_SIDE, prefix="sam_Qformer.")
    state["sam_Qformer.cls.predictions.decoder.weight"] = torch.zeros(61, 128)
    with pytest.raises(UserError, match=r"sam_Qformer\.cls\.predictions\.decoder\.weight is not .*word_embeddings"):
        convert_lavis(saved(tmp_path / "sam_stage1.pth", state), small_folder(tmp_path / "out"))


# What is refused, and how


def unknown(state: State) -> None:
    state["Qformer.bert.encoder.layer.0.adapter.weight"] = torch.zeros(2)


def foreign(state: State) -> None:
    state["llm_proj.weight"] = torch.zeros(2)


def lacking(state: State) -> None:
    del state["Qformer.bert.encoder.layer.1.attention.output.dense.bias"]


def misshapen(state: State) -> None:
    state["opt_proj.bias"] = torch.zeros(41)


def no_projection(state: State) -> None:
    del state["opt_proj.weight"]


def no_queries(state: State) -> None:
    del state["query_tokens"]


def uneven(state: State) -> None:
    for key in [k for k in state if ".layer.2.crossattention." in k]:
        state[key.replace("layer.2", "layer.1")] = state.pop(key)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (unknown, r"Qformer\.bert\.encoder\.layer\.0\.adapter\.weight"),
        (foreign, r"does not know.*llm_proj\.weight"),
        (lacking, r"branches\.clip\.qformer\.model\.encoder\.layer\.1\.attention\.output\.dense\.bias"),
        (misshapen, r"opt_proj\.bias has the shape \[41\]"),
        (no_projection, r"lacks opt_proj\.weight"),
        (no_queries, r"only a piece of Qformer; it needs query_tokens"),
        (uneven, r"cross-attention in layers \[0, 1\], which is no regular step"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name_and_nothing_is_written(tmp_path: Path, damage: Any, told: str) -> None:
    state = lavis.stage2_state(CLIP_SIDE)
    damage(state)
    out = small_folder(tmp_path / "out")
    before = sorted(out.rglob("*"))
    with pytest.raises(UserError, match=told):
        convert_lavis(saved(tmp_path / "blip2.pth", state), out)
    assert sorted(out.rglob("*")) == before


def test_sams_size_must_be_said(tmp_path: Path) -> None:
    file = saved(tmp_path / "sam.pth", lavis.sam_side_state(Sizes(reads=4096, layers=2)))
    out = small_folder(tmp_path / "out", sam=False)
    with pytest.raises(UserError, match=r"does not tell SAM's size; say it with --sam-size b, l or h\."):
        convert_lavis(file, out)
    with pytest.raises(UserError, match=r"'huge'; it is one of b, l, h"):
        convert_lavis(file, out, sam_size="huge")
    convert_lavis(file, out, sam_size="l")
    assert models(out).sam == systems.SAM_SIZES["l"]


def test_the_size_said_must_be_that_of_the_folders_sam(tmp_path: Path) -> None:
    file = saved(tmp_path / "sam.pth", lavis.sam_side_state(SAM_SIDE))
    with pytest.raises(UserError, match="holds a SAM of another size than b"):
        convert_lavis(file, small_folder(tmp_path / "out"), sam_size="b")


def test_another_folder_may_tell_the_sizes(tmp_path: Path) -> None:
    base, out = small_folder(tmp_path / "base"), tmp_path / "out"
    language().model.save_pretrained(out / "opt")
    convert_lavis(saved(tmp_path / "sam.pth", lavis.sam_side_state(SAM_SIDE)), out, base=base)
    assert models(out).sam == SAM


def test_heads_that_shapes_do_not_tell_are_asked_for(tmp_path: Path) -> None:
    odd = dataclasses.replace(SAM_SIDE, hidden=96)
    with pytest.raises(UserError, match="96 wide.*do not tell the number of attention heads.*config.json names it"):
        convert_lavis(saved(tmp_path / "sam.pth", lavis.sam_side_state(odd)), small_folder(tmp_path / "out"))


@pytest.mark.parametrize(("reads", "told"), [(180, "Qformer reads tokens 180 wide; CLIP's are 176 wide")])
def test_tokens_of_another_width_are_refused(tmp_path: Path, reads: int, told: str) -> None:
    with pytest.raises(UserError, match=told):
        convert_lavis(saved(tmp_path / "b.pth", lavis.stage2_state(Sizes(reads=reads))), small_folder(tmp_path / "out"))


def test_another_language_model_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path / "b.pth", lavis.stage2_state(dataclasses.replace(CLIP_SIDE, llm=44)))
    with pytest.raises(UserError, match="language model 44 wide; .*opt is 40 wide"):
        convert_lavis(file, small_folder(tmp_path / "out"))
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text(to_json(CONFIG), encoding="utf-8")
    with pytest.raises(UserError, match="44 wide, as no published OPT is"):
        convert_lavis(file, bare)
    convert_lavis(saved(tmp_path / "c.pth", lavis.stage2_state(dataclasses.replace(CLIP_SIDE, llm=2560))), bare)
    assert models(bare).opt == "facebook/opt-2.7b"


def test_an_encoder_is_not_exchanged_under_other_systems(tmp_path: Path) -> None:
    out = small_folder(tmp_path / "out")
    single, both = lavis.stage2_state(CLIP_SIDE), lavis.stage2_state(CLIP_SIDE) | lavis.sam_side_state(SAM_SIDE)
    encoder = lavis.eva_state("visual_encoder.", layers=2, **EVA)
    alone = tmp_path / "eva_vit_g.pth"
    torch.save(lavis.eva_state("", layers=2, **EVA), alone)
    convert_lavis(saved(tmp_path / "a.pth", single), out)
    convert_lavis(alone, out)  # it was not there yet
    convert_lavis(saved(tmp_path / "b.pth", single | encoder), out)  # the system and its own
    for file in (alone, saved(tmp_path / "c.pth", both | encoder)):
        with pytest.raises(UserError, match="BLIP2"):
            convert_lavis(file, out)


class Runs:
    """What a malicious file would run when it is opened."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (self.file,)  # type: ignore[return-value]


@pytest.mark.parametrize("old", [False, True])
def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, old: bool) -> None:
    file, trace = tmp_path / "checkpoint.pth", tmp_path / "ran"
    loaded = {"model": lavis.stage2_state(CLIP_SIDE), "config": Runs(trace)}
    if old:
        file.write_bytes(pickle.dumps(loaded, protocol=2))
    else:
        torch.save(loaded, file)
    with pytest.raises(UserError, match=r"checkpoint\.pth"):
        convert_lavis(file, small_folder(tmp_path / "out"))
    assert not trace.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_told(tmp_path: Path, share: float) -> None:
    file = saved(tmp_path / "checkpoint.pth", lavis.stage2_state(CLIP_SIDE))
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"checkpoint\.pth cannot be read .*download it again"):
        convert_lavis(file, small_folder(tmp_path / "out"))


def test_another_models_file_is_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="other.pth is no checkpoint of LAVIS' BLIP-2"):
        convert_lavis(tmp_path / "other.pth", tmp_path / "out")
    with pytest.raises(UserError, match="There is no checkpoint"):
        convert_lavis(tmp_path / "absent.pth", tmp_path / "out")
