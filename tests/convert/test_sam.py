"""SAM from segment-anything's ``.pth`` and from the hub's format: the same weights, features and masks; and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn
from transformers import SamConfig as HubConfig
from transformers import SamModel

from msmedcap import checkpoints, systems
from msmedcap import config as configs
from msmedcap.checkpoints import load_into
from msmedcap.config import ModelsConfig, SamConfig, UserError
from msmedcap.convert import convert_hub, convert_sam
from msmedcap.convert.parts import shapes
from msmedcap.convert.sam import hub_names, official_config, size_name
from msmedcap.models.sam import SamEncoder, SamPrompts
from tests import sizes
from tests.convert import made

# The decoder's 8 heads stand in no file: they are the published ones.
SIZES = SamConfig(
    hidden=32, layers=4, heads=2, global_layers=(1, 3), window=3, image_size=64, patch=8, out=32, decoder_heads=8, decoder_mlp=64
)


def official() -> Sam:
    """segment-anything's own classes at test size."""
    sam = Sam(
        image_encoder=ImageEncoderViT(
            img_size=64, patch_size=8, embed_dim=32, depth=4, num_heads=2, mlp_ratio=4, out_chans=32, qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6), use_rel_pos=True, window_size=3, global_attn_indexes=(1, 3),
        ),
        prompt_encoder=PromptEncoder(embed_dim=32, image_embedding_size=(8, 8), input_image_size=(64, 64), mask_in_chans=16),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3, transformer=TwoWayTransformer(depth=2, embedding_dim=32, mlp_dim=64, num_heads=8),
            transformer_dim=32, iou_head_depth=3, iou_head_hidden_dim=32,
        ),
        pixel_mean=[0.0, 0.0, 0.0],
        pixel_std=[1.0, 1.0, 1.0],
    )  # fmt: skip
    return sizes.randomise(sam, 7, scale=0.2)


def hub() -> SamModel:
    """The hub's class at the same size.

    Its decoder's norms get the original's epsilon, which the published configs miss (1e-6 for 1e-5): a tighter comparison.
    """
    config = HubConfig(
        vision_config={
            "hidden_size": 32, "output_channels": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 64,
            "patch_size": 8, "window_size": 3, "global_attn_indexes": [1, 3], "num_pos_feats": 16, "mlp_dim": 128,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 8},
        mask_decoder_config={
            "hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 8, "iou_head_hidden_dim": 32, "layer_norm_eps": 1e-5,
        },
    )  # fmt: skip
    model = sizes.randomise(SamModel(config), 8, scale=0.2)
    model.prompt_encoder.shared_embedding = model.shared_image_embedding  # one table, as published
    return model


def loaded(folder: Path) -> tuple[SamEncoder, SamPrompts]:
    config = configs.read(ModelsConfig, folder / "config.json").sam
    encoder, prompts = SamEncoder(config), SamPrompts(config)
    load_into(encoder, folder / "sam")
    load_into(prompts, folder / "sam_prompts")
    return encoder.eval(), prompts.eval()


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    torch.save(official().state_dict(), tmp_path / "sam.pth")
    return tmp_path / "sam.pth"


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    hub().save_pretrained(tmp_path / "hub")
    return tmp_path / "hub"


def view() -> Tensor:
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


POINT, LABEL, BOX = torch.tensor([[[20.0, 31.0]]]), torch.tensor([[1]]), torch.tensor([[5.0, 8.0, 40.0, 50.0]])


@torch.no_grad()
def test_a_pth_gives_segment_anythings_features_and_masks(pth: Path, tmp_path: Path) -> None:
    theirs = official()
    convert_sam(str(pth), tmp_path / "out")
    encoder, prompts = loaded(tmp_path / "out")
    features = theirs.image_encoder(view())
    assert features.std() > 0.1
    torch.testing.assert_close(encoder(view()), features, atol=1e-5, rtol=0)
    for given in ({"points": (POINT, LABEL)}, {"boxes": BOX}):
        sparse, dense = theirs.prompt_encoder(**({"points": None, "boxes": None, "masks": None} | given))
        wanted, score = theirs.mask_decoder(
            image_embeddings=features, image_pe=theirs.prompt_encoder.get_dense_pe(), sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense, multimask_output=True,
        )  # fmt: skip
        masks, estimated = prompts(encoder(view()), **given, multimask=True)
        torch.testing.assert_close(masks, wanted, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(estimated, score, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_a_hub_folder_gives_the_hubs_features_and_masks(hub_folder: Path, tmp_path: Path) -> None:
    theirs = hub()
    convert_sam(str(hub_folder), tmp_path / "out")
    encoder, prompts = loaded(tmp_path / "out")
    features = theirs.vision_encoder(view()).last_hidden_state
    assert features.std() > 0.1
    torch.testing.assert_close(encoder(view()), features, atol=1e-5, rtol=0)
    for theirs_given, given in (
        ({"input_points": POINT[None], "input_labels": LABEL[None]}, {"points": (POINT, LABEL)}),
        ({"input_boxes": BOX[None]}, {"boxes": BOX}),
    ):
        wanted = theirs(pixel_values=view(), **theirs_given, multimask_output=True)
        masks, estimated = prompts(encoder(view()), **given, multimask=True)
        torch.testing.assert_close(masks, wanted.pred_masks[:, 0], atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(estimated, wanted.iou_scores[:, 0], atol=1e-4, rtol=1e-5)


def test_both_formats_of_one_model_give_the_same_files(hub_folder: Path, tmp_path: Path) -> None:
    convert_sam(str(hub_folder), tmp_path / "of hub")
    theirs = official()
    modules = {"image": theirs.image_encoder, "prompt": theirs.prompt_encoder, "decoder": theirs.mask_decoder}
    ours = load_file(tmp_path / "of hub/sam/model.safetensors") | load_file(tmp_path / "of hub/sam_prompts/model.safetensors")
    for name, module in modules.items():
        module.load_state_dict({k.removeprefix(f"{name}."): v for k, v in ours.items() if k.startswith(f"{name}.")})
    torch.save(theirs.state_dict(), tmp_path / "same.pth")
    convert_sam(str(tmp_path / "same.pth"), tmp_path / "of pth")
    for part in ("sam", "sam_prompts"):
        found, wanted = (load_file(tmp_path / way / part / "model.safetensors") for way in ("of pth", "of hub"))
        assert found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)


@pytest.mark.parametrize("kind", ["pth", "hub_folder"])
def test_the_sizes_are_found(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    convert_sam(str(request.getfixturevalue(kind)), tmp_path / "out")
    config = configs.read(ModelsConfig, tmp_path / "out" / "config.json")
    assert config.sam == SIZES and config.view("sam").size == 64


def test_sam_beside_blip2_makes_one_folder(hub_folder: Path, tmp_path: Path) -> None:
    made.blip2(tmp_path / "blip2")
    convert_hub(str(tmp_path / "blip2"), tmp_path / "out")
    convert_sam(str(hub_folder), tmp_path / "out")
    models = checkpoints.load(str(tmp_path / "out"), device=torch.device("cpu"))
    assert models.config.clip == made.CLIP and models.config.sam == SIZES
    assert set(models.captioners) == {"BLIP2"}
    assert "convert lavis" in models.missing["MSMedCap"]
    torch.testing.assert_close(models.frozen.sam(view()), hub().get_image_embeddings(view()), atol=1e-5, rtol=0)


class Shapes:
    """A source of shapes alone: the published sizes take no memory here."""

    def __init__(self, table: dict[str, tuple[int, ...]]) -> None:
        self.table = table

    def keys(self) -> list[str]:
        return sorted(self.table)

    def shape(self, key: str) -> tuple[int, ...]:
        return self.table[key]


@pytest.mark.parametrize("size", systems.SAM_SIZES)
def test_the_published_sizes_are_told_by_their_shapes(size: str) -> None:
    known = systems.SAM_SIZES[size]
    image = {f"image_encoder.{k[6:]}": v for k, v in shapes(lambda: SamEncoder(known)).items()}
    mlp = {"mask_decoder.transformer.layers.0.mlp.lin1.weight": (2048, 256)}
    found = official_config(Shapes(image | mlp))
    assert found == known and size_name(found) == f"ViT-{size.upper()}"


def test_every_published_name_of_the_hub_has_a_place() -> None:
    with torch.device("meta"):
        theirs = {k: tuple(v.shape) for k, v in SamModel(HubConfig()).state_dict().items()}
    names = hub_names(Shapes(theirs))
    known = systems.SAM_SIZES["b"]
    wanted = shapes(lambda: SamEncoder(known)) | shapes(lambda: SamPrompts(known))
    assert [key for key, new in names.items() if not new] == ["prompt_encoder.shared_embedding.positional_embedding"]
    assert {new: theirs[key] for key, new in names.items() if new} == wanted


@pytest.mark.parametrize(
    "lost", ["shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding"]
)
def test_the_points_table_under_either_name(hub_folder: Path, tmp_path: Path, lost: str) -> None:
    file = hub_folder / "model.safetensors"
    state = load_file(file)
    table = next(v for k, v in state.items() if k.endswith("positional_embedding"))
    both = dict.fromkeys(("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding"))
    state |= {key: table.clone() for key in both}
    del state[lost]
    save_file(state, file)
    convert_sam(str(hub_folder), tmp_path / "out")
    _, prompts = loaded(tmp_path / "out")
    assert torch.equal(prompts.prompt.pe_layer.positional_encoding_gaussian_matrix, table)


def change(file: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    state = torch.load(file)
    edit(state)
    torch.save(state, file)


def test_the_normalisation_beside_the_weights_is_left(pth: Path, tmp_path: Path) -> None:
    change(pth, lambda s: s.update(pixel_mean=torch.zeros(3, 1, 1), pixel_std=torch.ones(3, 1, 1)))
    ledger = convert_sam(str(pth), tmp_path / "out")
    assert [r["source"] for r in ledger.rows() if not r["part"]] == ["pixel_mean", "pixel_std"]


REFUSED: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "unknown": (lambda s: s.update(head=torch.ones(1)), "1 weights this version does not know.*: head"),
    "unknown in a part": (
        lambda s: s.update({"mask_decoder.extra": torch.ones(1)}),
        "holds mask_decoder.extra, for which sam_prompts",
    ),
    "lost": (lambda s: s.pop("image_encoder.neck.3.bias"), r"lacks 1 weights that sam needs, such as image\.neck\.3\.bias"),
    "lost decoder": (
        lambda s: [s.pop(k) for k in list(s) if k.startswith("mask_decoder.")],
        "weights that sam_prompts needs",
    ),
    "encoder": (lambda s: s.pop("image_encoder.neck.0.weight"), "lacks image_encoder.neck.0.weight; it is not SAM's"),
    "windows": (
        lambda s: s.update({"image_encoder.blocks.0.attn.rel_pos_h": torch.ones(9, 16)}),
        r"windows are \[3, 5\] wide",
    ),
    "other": (lambda s: s.pop("image_encoder.pos_embed"), "is not SAM: it has neither"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_is_written(pth: Path, tmp_path: Path, name: str) -> None:
    edit, message = REFUSED[name]
    change(pth, edit)
    with pytest.raises(UserError, match=message):
        convert_sam(str(pth), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wrong_size_is_refused(pth: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a SAM of width 32 and 4 layers, not ViT-B; leave the size out"):
        convert_sam(str(pth), tmp_path / "out", size="b")
    with pytest.raises(UserError, match="b, l or h, not 'x'"):
        convert_sam(str(pth), tmp_path / "out", size="x")


def test_another_construction_is_refused(hub_folder: Path, tmp_path: Path) -> None:
    made.edit(hub_folder / "config.json", lambda c: c["vision_config"].update(use_rel_pos=False))
    with pytest.raises(UserError, match=r"vision_config\.use_rel_pos is False"):
        convert_sam(str(hub_folder), tmp_path / "out")


def test_another_sam_is_not_put_under_other_systems(pth: Path, tmp_path: Path) -> None:
    out = sizes.write_folder(tmp_path / "out")
    with pytest.raises(UserError, match=r"holds MSMedCap, SAM-BLIP2, trained with another sam"):
        convert_sam(str(pth), out)
