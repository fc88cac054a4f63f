"""The predictor at test size: one encoder pass per picture, maps in the picture's frame, visitors kept apart."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import msmedcap
from msmedcap import captioning, checkpoints
from msmedcap.config import UserError
from msmedcap.data.scans import ScanError
from msmedcap.data.views import ViewFrame, make_view
from msmedcap.models.opt import Opt
from msmedcap.predictor import Predictor, load
from msmedcap.systems import SYSTEMS
from tests import sizes
from tests.sizes import HEIGHT, WIDTH, png


@pytest.fixture
def passes(shared: Predictor) -> Iterator[Counter[str]]:
    """How often each encoder ran, with the size it was shown."""
    counts: Counter[str] = Counter()
    frozen = shared._shared.frozen
    hooks = [
        frozen.encoder(name).register_forward_pre_hook(
            lambda module, args, name=name: counts.update([f"{name} {args[0].shape[-1]}"])
        )
        for name in ("clip", "sam")
    ]
    yield counts
    for hook in hooks:
        hook.remove()


def captioner(predictor: Predictor, name: str):  # type: ignore[no-untyped-def]
    return predictor._shared.captioners[name]


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_three_systems_caption_as_each_does_by_itself(predictor: Predictor, preset: str) -> None:
    captions = predictor.captions(preset=preset)
    assert list(captions) == list(SYSTEMS) == list(predictor.systems)
    assert {name: predictor.captions(systems=[name], preset=preset)[name] for name in SYSTEMS} == captions
    assert len(set(captions.values())) > 1
    decoding = predictor._shared.config.presets[preset]
    for name in SYSTEMS:
        views = {}
        for spec in predictor._shared.config.views:
            size = decoding.view_sizes.get(spec.name, spec.size)
            views[spec.name] = make_view(predictor.picture, type(spec)(**{**spec.__dict__, "size": size}))[None]
        model = captioner(predictor, name)
        assert model.generate(model.encode(views), decoding) == [captions[name]]


def test_seconds_are_told(predictor: Predictor) -> None:
    predictor.captions()
    assert set(predictor.seconds) == {"encode", "decode"} and all(s >= 0 for s in predictor.seconds.values())


def test_the_stream_grows_into_the_captions(predictor: Predictor) -> None:
    items = list(predictor.stream())
    assert items[-1] == predictor.captions()
    assert len(items) > 2
    assert all(list(item) == list(SYSTEMS) for item in items)
    assert sum(map(len, items[0].values())) < sum(map(len, items[-1].values()))


def test_with_beams_the_stream_ends_with_the_captions(predictor: Predictor) -> None:
    items = list(predictor.stream(preset="paper"))
    assert items[-1] == predictor.captions(preset="paper")
    assert all(list(item) == list(SYSTEMS) for item in items)


def test_each_encoder_runs_once_for_captions_and_maps(predictor: Predictor, passes: Counter[str]) -> None:
    predictor.captions()
    list(predictor.stream())
    predictor.maps()
    predictor.maps(system="BLIP2", point=(3, 4))
    assert passes == {"clip 32": 1, "sam 64": 1}
    predictor.captions(preset="paper")  # looks through CLIP at another size, through SAM at the same
    predictor.captions(preset="paper", prompt="a photo of")
    assert passes == {"clip 32": 1, "clip 48": 1, "sam 64": 1}
    predictor.set_scan(png(1)).captions()
    assert passes == {"clip 32": 2, "clip 48": 1, "sam 64": 2}


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_encoded(
    predictor: Predictor, shared: Predictor, passes: Counter[str]
) -> None:
    opt, decoding = shared._shared.frozen.opt, shared._shared.config.presets["fast"]
    queries = sum(branch.config.qformer.queries for _, branch in captioner(shared, "MSMedCap").named_branches())
    room = opt.model.config.max_position_embeddings - queries - decoding.max_new_tokens - 1
    fits, long = ("a" + " a" * (count - 1) for count in (room, room + 1))
    assert len(opt.prompt_ids(fits)) - 1 == room
    told = f"The prompt is {room + 1} tokens long; at most {room} fit beside the picture and the caption."
    asks = (
        lambda: predictor.captions(prompt=long),
        lambda: next(predictor.stream(prompt=long)),
        lambda: next(predictor.caption_many([png()], prompt=long)),
        lambda: predictor.adopt({"MSMedCap": "a scan"}, prompt=long),
    )
    for ask in asks:
        with pytest.raises(UserError) as refused:
            ask()
        assert str(refused.value) == told
    assert passes == {}
    with pytest.raises(UserError, match="tokens long"):
        predictor.captions(prompt="x" * 3000)
    assert predictor.captions(prompt=fits, systems=["MSMedCap"])["MSMedCap"]
    assert predictor.captions(prompt=long, systems=["BLIP2"])["BLIP2"]  # one branch leaves more room


def test_a_caption_that_cannot_be_read_again_is_refused_in_a_sentence(predictor: Predictor, shared: Predictor) -> None:
    opt = shared._shared.frozen.opt
    queries = sum(branch.config.qformer.queries for _, branch in captioner(shared, "MSMedCap").named_branches())
    room = opt.model.config.max_position_embeddings - queries - len(opt.prompt_ids("a"))
    count = room - 1  # and the newline
    predictor.adopt({"MSMedCap": "a" + " a" * (count - 1)}, prompt="a")
    assert len(predictor.words()) == count and len(predictor.word_maps(count - 1, method="attention")) == 2
    predictor.adopt({"MSMedCap": "a" + " a" * count}, prompt="a")
    for ask in (predictor.words, lambda: predictor.word_maps(0)):
        with pytest.raises(UserError, match=f"The caption of MSMedCap is {room + 1} tokens long; at most {room} fit"):
            ask()


def test_setting_a_scan_runs_no_encoder(predictor: Predictor, passes: Counter[str]) -> None:
    predictor.set_scan(png(2))
    assert not passes
    predictor.captions(systems=["BLIP2"])
    assert passes == {"clip 32": 1}


@pytest.mark.parametrize("system", SYSTEMS)
def test_maps_are_of_the_pictures_size(predictor: Predictor, system: str) -> None:
    maps = predictor.maps(system=system, point=(10.0, 20.0))
    assert [m.kind for m in maps[:3]] == ["sam_pca", "sam_norm", "sam_similarity"]
    branches = captioner(predictor, system).named_branches()
    wanted = [(name, layer) for name, branch in branches for layer in branch.qformer.cross_layers]
    assert [(m.branch, m.layer) for m in maps[3:]] == wanted
    for found in maps:
        assert found.values.shape[:2] == (HEIGHT, WIDTH) and np.isfinite(found.values).all()
        assert found.image().dtype == np.uint8 and found.image().shape[:2] == (HEIGHT, WIDTH)
    assert "sam_similarity" not in {m.kind for m in predictor.maps(system=system)}


def test_attention_maps_are_the_captioners_attention(predictor: Predictor) -> None:
    branch = captioner(predictor, "SAM-BLIP2").branches["sam"]
    spec = predictor._shared.config.view("sam")
    with torch.no_grad():
        tokens = branch.encode(make_view(predictor.picture, spec)[None])
        weights = branch.attention(tokens).weights[0].mean((0, 1, 2))
    wanted = ViewFrame(spec, HEIGHT, WIDTH).heatmap_to_picture((weights / weights.mean()).view(8, 8).numpy())
    found = next(m for m in predictor.maps(system="SAM-BLIP2") if m.kind == "attention")
    np.testing.assert_allclose(found.values, wanted, atol=1e-4)


def test_drawing_maps_changes_no_caption(predictor: Predictor) -> None:
    before = predictor.captions()
    predictor.maps()
    assert predictor.captions() == before
    assert predictor.set_scan(png()).captions() == before


class Broken(RuntimeError):
    """What a part raises in these tests."""


def breaking(*args: object, **options: object) -> None:
    raise Broken("out of order")


def test_a_system_that_cannot_read_leaves_the_others(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = predictor.captions()
    monkeypatch.setattr(captioner(predictor, "BLIP2").branches["clip"], "read", breaking)
    assert predictor.captions() == {k: v for k, v in whole.items() if k != "BLIP2"}
    assert [w for w in predictor.warnings if "BLIP2 could not caption" in w and "MSMedCap" not in w]
    assert list(predictor.stream())[-1] == {k: v for k, v in whole.items() if k != "BLIP2"}
    monkeypatch.undo()
    assert predictor.captions() == whole
    assert not [w for w in predictor.warnings if "could not caption" in w]


def test_an_encoder_that_fails_leaves_the_systems_without_it(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor._shared.frozen.sam, "forward", breaking)
    assert list(predictor.captions()) == ["BLIP2"]
    assert [w.split()[0] for w in predictor.warnings if "could not caption" in w] == ["MSMedCap", "SAM-BLIP2"]


def test_features_that_are_no_numbers_are_a_failure(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    branch = captioner(predictor, "SAM-BLIP2").branches["sam"]
    monkeypatch.setattr(branch, "read", lambda tokens: torch.full((1, 4, 32), float("nan")))
    assert list(predictor.captions()) == ["MSMedCap", "BLIP2"]


def test_a_batch_that_fails_is_decoded_one_by_one(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, opt = predictor.captions(), predictor._shared.frozen.opt
    generate, sizes_seen = opt.generate, []

    def fragile(prefixes, decoding, *, on_tokens=None):  # type: ignore[no-untyped-def]
        sizes_seen.append(len(prefixes))
        if len(prefixes) > 1 or sizes_seen.count(1) == 2:
            raise Broken("out of memory")
        return generate(prefixes, decoding, on_tokens=on_tokens)

    monkeypatch.setattr(opt, "generate", fragile)
    assert predictor.captions() == {k: v for k, v in whole.items() if k != "BLIP2"}
    assert sizes_seen == [3, 1, 1, 1]
    assert [w for w in predictor.warnings if w.startswith("BLIP2 could not caption")]


def test_no_system_left_is_one_sentence(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("clip", "sam"):
        monkeypatch.setattr(predictor._shared.frozen.encoder(name), "forward", breaking)
    for ask in (predictor.captions, lambda: list(predictor.stream())):
        with pytest.raises(UserError, match="None of the systems could read this scan"):
            ask()


def saying(monkeypatch: pytest.MonkeyPatch, opt: Opt, *texts: str | Exception) -> list[int]:
    """Make ``opt`` say ``texts`` in turn, however many captions it is asked for at a time, and count those asked for."""
    asked: list[int] = []

    def generate(prefixes, decoding, *, on_tokens=None):  # type: ignore[no-untyped-def]
        asked.append(len(prefixes))
        said = texts[sum(asked[:-1]) : sum(asked)]
        for text in said:
            if isinstance(text, Exception):
                raise text
        return list(said)

    monkeypatch.setattr(opt, "generate", generate)
    return asked


def test_an_empty_caption_is_told(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    saying(monkeypatch, predictor._shared.frozen.opt, "A mass.", "", "Cyst.")
    assert predictor.captions()["BLIP2"] == ""
    assert predictor.warnings[-1:] == ["BLIP2: the language model returned an empty caption."]
    assert len(predictor.warnings) == len(predictor.scan.warnings) + 1


@pytest.fixture
def eight_bit(shared: Predictor) -> Predictor:
    """The shared models as they are when OPT is in 8 bit: with a 16-bit one behind it."""
    spare = checkpoints.Spare(lambda: sizes.opt(7))
    return Predictor(dataclasses.replace(shared._shared, spare=spare), "test").set_scan(png())


def own_warnings(predictor: Predictor) -> list[str]:
    return predictor.warnings[len(predictor.scan.warnings) :]


def test_what_8_bits_spoil_is_decoded_again(eight_bit: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    fallback = eight_bit._shared.fallback()
    again = saying(monkeypatch, fallback, "A cyst.", "A stone.", "A mass.", "A nodule.")
    opt, repeated = eight_bit._shared.frozen.opt, "the the the the the the"
    saying(monkeypatch, opt, "", "Fine.", repeated, "Fine.", "", "Fine.", "Fine.", "Fine.", "Fine.")
    assert eight_bit.captions() == {"MSMedCap": "A cyst.", "BLIP2": "Fine.", "SAM-BLIP2": "A stone."}
    assert again == [2]
    assert own_warnings(eight_bit) == [
        "MSMedCap: the 8-bit language model returned an empty caption; this one is from the 16-bit model.",
        "SAM-BLIP2: the 8-bit language model returned one word or token 6 times in a row; this one is from the 16-bit model.",
    ]
    assert list(eight_bit.stream())[-1] == {"MSMedCap": "Fine.", "BLIP2": "A mass.", "SAM-BLIP2": "Fine."}
    assert len(own_warnings(eight_bit)) == 1
    eight_bit.captions()
    assert own_warnings(eight_bit) == [] and again == [2, 1]


def test_the_same_prefix_is_read_again(eight_bit: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    fallback = eight_bit._shared.fallback()
    monkeypatch.setattr(eight_bit._shared.frozen.opt, "generate", lambda prefixes, decoding, on_tokens=None: [""] * len(prefixes))
    found = eight_bit.captions()
    reading = eight_bit._read(captioning.ask(eight_bit._shared, systems=None, preset="fast", prompt=None))
    wanted = fallback.generate(list(reading.prefixes.values()), eight_bit._shared.config.presets["fast"])
    assert list(found.values()) == wanted and len(set(wanted)) > 1


@pytest.mark.parametrize(
    ("spare", "told"),
    [
        ("", "the language model returned an empty caption, in 16 bits as in 8."),
        (RuntimeError("out of memory"), "the 8-bit language model returned no words, and the 16-bit one could not be used."),
        (None, "the 8-bit language model returned no words, and the 16-bit one could not be used."),
    ],
)
def test_what_cannot_be_mended_is_told(
    eight_bit: Predictor, spare: str | Exception | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saying(monkeypatch, eight_bit._shared.frozen.opt, "Fine.", "...", "Fine.")
    if spare is None:
        monkeypatch.setattr(checkpoints.Spare, "get", lambda self: None)
    else:
        saying(monkeypatch, eight_bit._shared.fallback(), spare)
    assert eight_bit.captions()["BLIP2"] == ("" if spare == "" else "...")
    assert own_warnings(eight_bit) == [f"BLIP2: {told}"]


def test_frozen_parts_in_fewer_bits(models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders and OPT in bf16, what was trained in fp32, as true-size folders run: captions, beams and maps."""
    predictor = load(str(models_folder), device="cpu").set_scan(png())
    frozen = predictor._shared.frozen
    for part in (frozen.clip, frozen.sam, frozen.opt):
        part.to(torch.bfloat16)
    seen: list[torch.dtype] = []
    for name in SYSTEMS:
        for branch in captioner(predictor, name).branches.values():
            read = branch.read
            monkeypatch.setattr(branch, "read", lambda tokens, read=read: seen.append(tokens.dtype) or read(tokens))
    for preset in ("fast", "paper"):
        assert set(predictor.captions(preset=preset)) == set(SYSTEMS)
    assert set(seen) == {torch.float32}
    assert predictor._encoded("sam").dtype == torch.bfloat16
    assert all(np.isfinite(m.values).all() for m in predictor.maps(point=(3, 4)))


def test_nothing_is_copied_where_the_dtypes_agree(predictor: Predictor) -> None:
    branch = captioner(predictor, "BLIP2").branches["clip"]
    features = predictor._encoded("clip")
    assert captioning.tokens_of(branch, features).data_ptr() == features.data_ptr()


def test_visitors_never_mix(shared: Predictor) -> None:
    one, other = shared.fresh().set_scan(png(1)), shared.fresh()
    assert other.scan is None and other.picture is None and other.systems == one.systems
    first = one.captions()
    other.set_scan(png(2, 64, 30))
    second = other.captions()
    assert one.captions() == first and other.captions() == second
    assert one.maps()[0].values.shape[:2] == (HEIGHT, WIDTH) and other.maps()[0].values.shape[:2] == (64, 30)
    assert one._shared is other._shared is shared._shared
    assert one.warnings is not other.warnings


def test_a_scan_that_cannot_be_set_keeps_the_one_before(predictor: Predictor) -> None:
    captions, picture, window = predictor.captions(), predictor.picture, predictor.window
    bad = ((b"no picture", {}), (png(3), {"window": "no such window"}), (png(3), {"frame": 7}))
    for source, options in bad:
        with pytest.raises(ScanError):
            predictor.set_scan(source, **options)  # type: ignore[arg-type]
        assert predictor.picture is picture and predictor.window == window and predictor.frame == 0
        assert predictor.captions() == captions


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda p: p.captions(systems=["BLIP3"]), "no system 'BLIP3'; choose from MSMedCap, BLIP2, SAM-BLIP2"),
        (lambda p: p.captions(preset="slow"), "no preset 'slow'; choose from fast, paper"),
        (lambda p: p.maps(system="BLIP3"), "no system 'BLIP3'"),
        (lambda p: p.maps(point=(WIDTH + 1, 2)), "point 81,2 lies outside the scan, which is 80 x 50 pixels"),
        (lambda p: p.maps(point=(2, -1)), "lies outside the scan"),
        (lambda p: p.maps(point=(float("nan"), 2)), "lies outside the scan"),
    ],
)
def test_what_is_not_there_is_one_sentence(predictor: Predictor, ask, told: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=told):
        ask(predictor)


@pytest.mark.parametrize("ask", [Predictor.captions, Predictor.maps, lambda p: list(p.stream())])
def test_without_a_scan_it_says_so(shared: Predictor, ask) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match="No scan is set"):
        ask(shared.fresh())


def test_a_system_without_weights_names_the_command(models_folder: Path) -> None:
    predictor = load(str(models_folder), device="cpu").set_scan(png())
    predictor._shared.captioners.pop("BLIP2")
    predictor._shared.missing["BLIP2"] = "BLIP2 has no weights here; train them with: python -m msmedcap demo-weights."
    assert predictor.systems == ("MSMedCap", "SAM-BLIP2") == tuple(predictor.captions())
    with pytest.raises(UserError, match="demo-weights"):
        predictor.captions(systems=["BLIP2"])


def test_another_prompt_is_another_prefix(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    opt, prefixes = predictor._shared.frozen.opt, []
    generate = opt.generate
    monkeypatch.setattr(opt, "generate", lambda p, d, on_tokens=None: prefixes.append(p[0]) or generate(p, d, on_tokens=on_tokens))
    predictor.captions(systems=["BLIP2"])
    predictor.captions(systems=["BLIP2"], prompt="a photo of")
    queries = predictor._shared.config.branches["clip"].qformer.queries
    for prefix, prompt in zip(prefixes, ("The scan shows:", "a photo of"), strict=True):
        assert torch.equal(prefix[queries:], opt.embed(opt.prompt_ids(prompt)))
    assert torch.equal(prefixes[0][:queries], prefixes[1][:queries])


def test_load_by_name_and_device(models_folder: Path, tmp_path: Path) -> None:
    assert msmedcap.load(str(models_folder), device="cpu").systems == tuple(SYSTEMS)
    with pytest.raises(UserError, match=r"There are no models in .*nowhere"):
        load(str(tmp_path / "nowhere"))
    for device in ("cuda:99", "toaster"):
        with pytest.raises(UserError, match=f"The device '{device}' is not available here; use --device cpu"):
            load(str(models_folder), device=device)
    assert checkpoints.folder_of(str(models_folder)) == models_folder
