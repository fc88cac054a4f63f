"""Load once, ``set_scan`` once, then captions and maps as often as wanted (the seam the page and the commands stand on).

Comes in: a scan. Goes out: three captions decoded as one batch, and maps in the picture's frame. Every encoder runs once for
a picture, whichever systems and maps ask for it. A :class:`Predictor` is one visitor's; the models behind it are shared.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msmedcap import checkpoints
from msmedcap.config import Decoding, UserError
from msmedcap.data.scans import Scan, Window, open_scan
from msmedcap.data.views import ViewFrame, make_view
from msmedcap.explain.attention import attention_maps
from msmedcap.explain.maps import Map
from msmedcap.explain.sam_features import norm_map, pca_map, similarity_map
from msmedcap.models.branch import Branch
from msmedcap.models.opt import OnTokens
from msmedcap.models.sam import SamEncoder
from msmedcap.systems import SYSTEMS

log = logging.getLogger(__name__)


def load(models: str = "demo", *, device: str | None = None, load_8bit: bool = False) -> Predictor:
    """A predictor for ``demo``, ``full`` or a model folder; :class:`UserError` when there is none, or no such device."""
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(chosen)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError):
        raise UserError(f"The device {chosen!r} is not available here; use --device cpu.") from None
    return Predictor(checkpoints.load(models, device=place, load_8bit=load_8bit), models)


class Predictor:
    """One visitor's view of the shared models; see the module's text. Not for use from two threads at once."""

    def __init__(self, shared: checkpoints.Models, models: str) -> None:
        self._shared = shared
        self.models = models
        self.scan: Scan | None = None
        self.picture: np.ndarray | None = None
        self.window = ""
        self.frame = 0
        self.warnings: list[str] = []
        self.seconds: dict[str, float] = {}
        self._features: dict[tuple[str, int], Tensor] = {}

    @property
    def systems(self) -> tuple[str, ...]:
        """The systems there are weights for, in the order they are shown."""
        return tuple(name for name in SYSTEMS if name in self._shared.captioners)

    def fresh(self) -> Predictor:
        """A predictor for another visitor: no scan yet, the same models."""
        return Predictor(self._shared, self.models)

    def set_scan(
        self,
        source: str | Path | bytes | Scan,
        *,
        window: str | Window | None = None,
        frame: int = 0,
        allow_burned_in: bool = False,
    ) -> Predictor:
        """Open, window and keep a scan (a file, its bytes, or one already open); returns self.

        Raises ScanError and leaves the scan that was set before untouched. No encoder runs yet.
        """
        scan = source if isinstance(source, Scan) else open_scan(source, allow_burned_in=allow_burned_in)
        picture = scan.picture(window, frame)
        self.window = scan.resolve_window(window, frame)[0]
        self.scan, self.picture, self.frame = scan, picture, frame
        self.warnings = list(scan.warnings)
        self._features, self.seconds = {}, {}
        return self

    def captions(
        self, *, systems: Sequence[str] | None = None, preset: str = "fast", prompt: str | None = None
    ) -> dict[str, str]:
        """What each system says of the scan, by name; a system that fails is left out and named in ``warnings``."""
        names, decoding = self._choose(systems, preset, prompt)
        prefixes, decoding = self._prefixes(names, decoding)
        return self._decode(prefixes, decoding, None)

    def stream(
        self, *, systems: Sequence[str] | None = None, preset: str = "fast", prompt: str | None = None
    ) -> Iterator[dict[str, str]]:
        """As :meth:`captions`, growing: each item holds every system's text so far, the last is complete."""
        names, decoding = self._choose(systems, preset, prompt)
        prefixes, decoding = self._prefixes(names, decoding)
        steps: queue.Queue[dict[str, str] | Exception | None] = queue.Queue()
        dropped = threading.Event()

        def on_tokens(texts: list[str]) -> None:
            if dropped.is_set():
                raise InterruptedError("nobody reads these captions any more")
            steps.put(dict(zip(prefixes, texts, strict=False)))

        def decode() -> None:
            try:
                steps.put(self._decode(prefixes, decoding, on_tokens))
            except Exception as error:  # handed to the caller's thread, which raises it
                steps.put(error)
            steps.put(None)

        thread = threading.Thread(target=decode, daemon=True)
        thread.start()
        try:
            while (step := steps.get()) is not None:
                if isinstance(step, Exception):
                    raise step
                yield step
        finally:
            # Whoever drops the stream may let the next visitor at the models: nothing of this one may still run then.
            dropped.set()
            thread.join()

    def maps(self, *, system: str = "MSMedCap", point: tuple[float, float] | None = None) -> list[Map]:
        """SAM's feature maps and the raw Q-Former attention of ``system``'s branches, in the picture's frame.

        ``point`` (x, y in the picture's pixels) adds the likeness of every place to that point.
        """
        (name,), _ = self._choose([system], "fast", None)
        height, width = self._picture().shape[:2]
        if point is not None and not (0 <= point[0] <= width and 0 <= point[1] <= height):
            raise UserError(f"The point {point[0]:g},{point[1]:g} lies outside the scan, which is {width} x {height} pixels.")
        sam_frame = self._frame("sam")
        features = self._encode("sam")[0].float().cpu()
        maps = [pca_map(features, sam_frame), norm_map(features, sam_frame)]
        if point is not None:
            maps.append(similarity_map(features, sam_frame, point))
        for view, branch in self._shared.captioners[name].named_branches():
            maps += self._attention(view, branch)
        return maps

    @torch.inference_mode()
    def _attention(self, view: str, branch: Branch) -> list[Map]:
        encoder = branch.encoder
        if isinstance(encoder, SamEncoder):
            if branch.config.tokens != "positions":
                return []  # a channel has no place on the picture
            grid = self._encode(view).shape[-2:]
            places = lambda values: values.cpu().unflatten(-1, grid)  # noqa: E731
        else:
            places = lambda values: encoder.places(values.cpu())  # noqa: E731
        attention = branch.attention(branch.tokens(self._encode(view)).float())
        return attention_maps(attention, branch=view, places=places, frame=self._frame(view))

    def _choose(self, systems: Sequence[str] | None, preset: str, prompt: str | None) -> tuple[list[str], Decoding]:
        presets = self._shared.config.presets
        if preset not in presets:
            raise UserError(f"There is no preset {preset!r}; choose from {', '.join(presets)}.")
        names = list(systems or self.systems)
        if not names:
            raise UserError(" ".join(self._shared.missing.values()) or "These models hold no systems.")
        for name in names:
            if name not in self._shared.captioners:
                unknown = f"There is no system {name!r}; choose from {', '.join(self.systems)}."
                raise UserError(self._shared.missing.get(name, unknown))
        decoding = presets[preset]
        return names, decoding if prompt is None else dataclasses.replace(decoding, prompt=prompt)

    @torch.inference_mode()
    def _prefixes(self, names: Sequence[str], decoding: Decoding) -> tuple[dict[str, Tensor], Decoding]:
        """Each system's prefix ``[L,D_llm]``; a system whose prefix fails is left out with a warning."""
        self.warnings = list(self.scan.warnings) if self.scan else []
        start = time.perf_counter()
        found: dict[str, Tensor] = {}
        for name in names:
            captioner = self._shared.captioners[name]
            try:
                features = {
                    view: branch.tokens(self._encode(view, decoding.view_sizes.get(view))).float()
                    for view, branch in captioner.named_branches()
                }
                prefix = captioner.prefix(features, decoding.prompt)[0]
                if not bool(torch.isfinite(prefix).all()):
                    raise FloatingPointError("its features are not finite numbers")
                found[name] = prefix
            except (RuntimeError, FloatingPointError) as error:
                self._failed(name, error)
        self.seconds = {"encode": round(time.perf_counter() - start, 3)}
        if not found:
            raise UserError("None of the systems could read this scan; see the log for the reasons.")
        return found, decoding

    def _decode(self, prefixes: dict[str, Tensor], decoding: Decoding, on_tokens: OnTokens | None) -> dict[str, str]:
        start = time.perf_counter()
        opt = self._shared.frozen.opt
        try:
            texts = dict(zip(prefixes, opt.generate(list(prefixes.values()), decoding, on_tokens=on_tokens), strict=True))
        except RuntimeError as error:
            log.warning("the batch failed (%s); decoding one system at a time", error)
            texts = {}
            for name, prefix in prefixes.items():
                try:
                    texts[name] = opt.generate([prefix], decoding)[0]
                except RuntimeError as own:
                    self._failed(name, own)
        self.seconds["decode"] = round(time.perf_counter() - start, 3)
        self.warnings += [f"{name} said nothing of this scan." for name, text in texts.items() if not text]
        return texts

    def _failed(self, name: str, error: Exception) -> None:
        log.warning("%s failed: %s", name, error)
        self.warnings.append(f"{name} could not caption this scan; the other systems are not affected.")

    @torch.inference_mode()
    def _encode(self, view: str, size: int | None = None) -> Tensor:
        """The encoder's output for the scan, computed once for each view size."""
        spec = self._shared.config.view(view)
        if size is not None and size != spec.size:
            spec = dataclasses.replace(spec, size=size)
        key = (view, spec.size)
        if key not in self._features:
            encoder = self._shared.frozen.encoder(view)
            like = next(encoder.parameters())
            pixels = make_view(self._picture(), spec)[None].to(like.device, like.dtype)
            self._features[key] = encoder(pixels)
        return self._features[key]

    def _frame(self, view: str) -> ViewFrame:
        height, width = self._picture().shape[:2]
        return ViewFrame(self._shared.config.view(view), height, width)

    def _picture(self) -> np.ndarray:
        if self.picture is None:
            raise UserError("No scan is set; call set_scan first.")
        return self.picture
