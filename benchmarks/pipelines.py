"""Three captions for the price of one: our shared, batched path against three independent pipelines at true size.

The peers are what one would run without this package: for each system its own encoder pass (``transformers``' ViT-g,
``segment_anything``'s image encoder), ``transformers``' Q-Formers, and ``transformers``' generate on OPT. They share our weight
tensors, so that everything fits in memory, but no work. Weights are random: the arithmetic is the same.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import OPTConfig, OPTForCausalLM

from benchmarks.sam_encoder import published
from benchmarks.timing import Row, default_dtype, pair, resident, seconds
from msmedcap import checkpoints, systems
from msmedcap.checkpoints import Frozen, Models
from msmedcap.config import Decoding, ModelsConfig
from msmedcap.data.scans import open_scan
from msmedcap.data.views import make_view
from msmedcap.models.clip import ClipEncoder
from msmedcap.models.frozen import freeze
from msmedcap.models.opt import Opt
from msmedcap.models.sam import SamEncoder, SamPrompts, to_tokens
from msmedcap.models.tokens import load_tokenizer
from msmedcap.predictor import Predictor

GROUP = "three captions"
ROOT = Path(__file__).resolve().parent.parent
NEW_TOKENS = 30


def rows(*, device: torch.device, quick: bool) -> Iterator[Row]:
    """Memory of three systems against one, end to end (greedy, 5 beams), decoding against one caption's, the encoders."""
    yield _memory_row(quick)  # first: two such processes at once would not fit
    models = random_models(device, quick=quick)
    picture = a_picture()
    predictor = Predictor(models, "random").set_scan(open_scan(picture))
    decodings = {"greedy": decoding(1), "5 beams": decoding(5)}
    models.config.presets.update(decodings)
    peers = Peers(models, predictor.picture)
    # At true size a pair takes minutes on a CPU; what a first call costs more is nothing against that.
    rounds, warm = (3, True) if quick or device.type == "cuda" else (1, False)
    for view in ("clip", "sam"):
        yield _encoder_row(models, peers, view, rounds)
    for name in decodings:
        yield pair(
            GROUP, f"scan to three captions, {name}", partial(ours, predictor, picture, name),
            partial(peers.captions, decodings[name]), rounds=rounds, goal="≤ 0.46", warm=warm,
        )
    for name in decodings:
        one, three = (_decoding_seconds(predictor, name, chosen, rounds) for chosen in (("MSMedCap",), None))
        yield Row(GROUP, f"decoding three captions against one, {name}", three, one, goal="≤ 1.9")


def decoding(beams: int) -> Decoding:
    """:data:`NEW_TOKENS` words for every caption, so that both sides do the same work whatever the random weights say."""
    return Decoding(beams=beams, min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS, prompt="a photo of")


def ours(predictor: Predictor, picture: Path, preset: str) -> dict[str, str]:
    """What a visitor waits for: set the scan, three captions."""
    return predictor.set_scan(open_scan(picture)).captions(preset=preset)


class Peers:
    """Three pipelines that know nothing of each other; a call runs one after the other from pixels to texts."""

    def __init__(self, models: Models, picture: object) -> None:
        self.models = models
        dtype = next(models.frozen.sam.parameters()).dtype
        self.views = {
            spec.name: make_view(picture, spec)[None].to(models.device, dtype) for spec in models.config.views  # type: ignore[arg-type]
        }
        sam = published(models.config.sam, models.frozen.sam.image)
        self.encoders: dict[str, Callable[[Tensor], Tensor]] = {
            "clip": lambda view: models.frozen.clip.vision(view).last_hidden_state,
            "sam": lambda view: to_tokens(sam(view), "positions"),
        }

    @torch.inference_mode()
    def captions(self, how: Decoding) -> list[Tensor]:
        """Each system's caption as token ids, every system from its own encoder passes."""
        return [self.caption(name, how) for name in systems.SYSTEMS]

    @torch.inference_mode()
    def caption(self, name: str, how: Decoding) -> Tensor:
        """One pipeline from pixels to token ids ``[1,T]``."""
        captioner, opt = self.models.captioners[name], self.models.frozen.opt
        reads = []
        for view, branch in captioner.named_branches():
            tokens = self.encoders[view](self.views[view]).float()
            model = branch.qformer.model
            queries = branch.qformer.query_tokens
            states = model(query_embeds=queries, encoder_hidden_states=branch.norm(tokens)).last_hidden_state
            reads.append(branch.projection(states))
        prompt = opt.embed(opt.prompt_ids(how.prompt))[None].float()
        embeds = torch.cat([*reads, prompt], dim=1).to(opt.model.dtype)
        return opt.model.generate(
            inputs_embeds=embeds,
            attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device),
            do_sample=False,
            num_beams=how.beams,
            min_new_tokens=how.min_new_tokens,
            max_new_tokens=how.max_new_tokens,
            eos_token_id=opt.newline,
            pad_token_id=opt.tokenizer.pad_token_id,
        )


def random_models(device: torch.device, *, quick: bool, only: tuple[str, ...] | None = None, sam: str = "h") -> Models:
    """All three systems (or ``only`` some) at the published size with random weights: frozen parts bf16, trained parts fp32."""
    config = tiny() if quick else systems.full(sam=sam)
    tokenizer = load_tokenizer(checkpoints.folder_of("demo") / "opt")
    with default_dtype(torch.bfloat16), torch.device("meta"):
        clip, sam_encoder = ClipEncoder(config.clip), SamEncoder(config.sam)
        language = OPTForCausalLM(_opt_config(quick))
    with default_dtype(torch.bfloat16):
        prompts = SamPrompts(config.sam)
    for module in (clip, sam_encoder, language):
        fill(module, device)
    language.tie_weights()
    frozen = Frozen(
        freeze(clip), freeze(sam_encoder), freeze(prompts.to(device)), Opt(language.eval(), tokenizer)
    )
    captioners = {}
    for name in only or systems.SYSTEMS:
        captioner = checkpoints.build_captioner({n: config.branches[n] for n in config.systems[name]}, frozen)
        captioners[name] = captioner.to(device).eval()
    return Models(config, frozen, captioners, {}, device)


def fill(module: nn.Module, device: torch.device) -> None:
    """Give a module on the meta device memory and small random weights (norms 1), from one small pool of noise: no fp32 copy."""
    module.to_empty(device=device)
    noise = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).to(device) * 0.02
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if not value.is_floating_point():
                value.copy_(torch.arange(value.numel(), device=device).view(value.shape))
                continue
            flat = value.view(-1)
            for start in range(0, flat.numel(), noise.numel()):
                piece = flat[start : start + noise.numel()]
                piece.copy_(noise[: piece.numel()])
            if value.ndim == 1 and name.endswith("weight"):
                value.add_(1)


def tiny() -> ModelsConfig:
    """The published patch embeddings at test size."""
    small = systems.test()
    return dataclasses.replace(
        small,
        clip=dataclasses.replace(small.clip, stem="patch"),
        sam=dataclasses.replace(small.sam, stem="patch"),
        views=tuple(dataclasses.replace(v, grey=False) for v in small.views),
    )


def a_picture() -> Path:
    """A real scan that is shipped with the package."""
    return next(p for p in sorted((ROOT / "assets").rglob("*")) if p.suffix in (".png", ".dcm", ".jpg") and _opens(p))


def _opens(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            return min(picture.size) >= 200
    except OSError:
        return path.suffix == ".dcm"


def _opt_config(quick: bool) -> OPTConfig:
    if quick:
        return OPTConfig(
            vocab_size=4096, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=32,
            max_position_embeddings=256, bos_token_id=2, eos_token_id=2, pad_token_id=1,
        )
    return OPTConfig(
        vocab_size=50272, hidden_size=2560, ffn_dim=10240, num_hidden_layers=32, num_attention_heads=32,
        word_embed_proj_dim=2560, bos_token_id=2, eos_token_id=2, pad_token_id=1,
    )


def _decoding_seconds(predictor: Predictor, preset: str, names: tuple[str, ...] | None, rounds: int) -> float:
    found = []
    for _ in range(rounds):
        predictor.captions(systems=names, preset=preset)
        found.append(predictor.seconds["decode"])
    return sorted(found)[len(found) // 2]


def _encoder_row(models: Models, peers: Peers, view: str, rounds: int) -> Row:
    encoder, pixels = models.frozen.encoder(view), peers.views[view]
    with torch.inference_mode():
        return pair(
            GROUP, f"one {view} encoder pass against the peers' two", lambda: encoder(pixels),
            lambda: (peers.encoders[view](pixels), peers.encoders[view](pixels)), rounds=rounds,
        )


def _memory_row(quick: bool) -> Row:
    """Resident memory after one caption in a fresh process: three systems against MSMedCap alone."""
    three, one = (_resident_of(names, quick) for names in (",".join(systems.SYSTEMS), "MSMedCap"))
    return Row(GROUP, "resident memory, three systems against MSMedCap alone", three, one, unit="GiB", goal="≤ 1.15")


def _resident_of(names: str, quick: bool) -> float:
    command = [sys.executable, "-m", "benchmarks.pipelines", names, "quick" if quick else "full"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])["resident"])


def _measure_memory(names: str, size: str) -> None:
    models = random_models(torch.device("cpu"), quick=size == "quick", only=tuple(names.split(",")))
    models.config.presets["greedy"] = decoding(1)
    took = seconds(partial(ours, Predictor(models, "random"), a_picture(), "greedy"))
    print(json.dumps({"resident": resident(), "seconds": took}))


if __name__ == "__main__":
    _measure_memory(*sys.argv[1:3])
