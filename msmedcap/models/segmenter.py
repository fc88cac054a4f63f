"""SEG-SAM: a prompt and SAM's features → the mask of the prompted object, its name, and what else is in the picture.

Three parts on the features of SAM's frozen image encoder (Figure 2 of the paper):

- SAM's own prompt encoder and **original** mask decoder (``segment_anything``, architecture unchanged, trained on) give the
  binary mask and its estimated IoU. Before training, without the text module and without dense prompts, both are SAM's to
  rounding. With ``config.dense_prompts`` points and boxes are also laid into SAM's mask input (:mod:`.dense_prompts`, ours).
- The semantic-aware decoder (:mod:`.semantics`, ``config.semantics``) gives the semantic mask, the class of the prompted
  object and the presence of the others.
- The text-to-vision module (:mod:`.text`, ``config.text``) puts a text token behind the prompt tokens of both decoders
  and makes the classes' vectors; without it each class of the training is a learned vector.

Coordinates are continuous pixels of SAM's view: pixel i covers [i, i+1), its centre lies at i + 0.5. Comes in: features
``[B,C,h,w]`` and :class:`Prompts`. Goes out: :class:`Masks`, or for a reader :class:`Prediction`. Mask logits are ``[..,4h,4w]``, a
quarter of the view's pixels a side at the published patch size of 16.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from segment_anything.modeling import TwoWayTransformer
from torch import Tensor, nn

from msmedcap.config import SamConfig, SegmenterConfig, UserError
from msmedcap.models.dense_prompts import prompt_map
from msmedcap.models.sam import SamPrompts
from msmedcap.models.semantics import SemanticDecoder
from msmedcap.models.text import ClassTexts, TextSummary


@dataclass(frozen=True)
class Prompts:
    """R prompts, each of P points, a box, a mask, or several of these; at least points or boxes.

    ``points [R,P,2]`` x, y; ``labels [R,P]`` 1 object, 0 background, -1 none (padding); ``boxes [R,4]`` x0, y0, x1, y1; ``masks
    [R,1,4h,4w]`` logits of an earlier answer; ``picture [R]`` which of the B pictures each prompt is about (None: the first).
    """

    points: Tensor | None = None
    labels: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None
    picture: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.points is None) != (self.labels is None):
            raise ValueError("points and their labels come together")
        if self.points is None and self.boxes is None:
            raise ValueError("a prompt needs a point or a box")

    def __len__(self) -> int:
        return len(next(t for t in (self.points, self.boxes) if t is not None))


@dataclass(frozen=True)
class Masks:
    """What the decoders say of R prompts, for training.

    ``binary [R,M,4h,4w]`` logits and ``iou [R,M]``, M = 4: SAM's single mask, then its three for an ambiguous prompt. ``semantic
    [R,4h,4w]`` logits, ``named [R,K]`` logits of the prompted object's class (softmax) and ``others [R,Q,K]`` logits of the
    classification-oriented tokens (sigmoid); None without the semantic decoder.
    """

    binary: Tensor
    iou: Tensor
    semantic: Tensor | None
    named: Tensor | None
    others: Tensor | None


@dataclass(frozen=True)
class Prediction:
    """What a reader gets for R prompts; K classes in the order of ``Segmenter.names``.

    ``binary [R,4h,4w]`` and ``semantic [R,4h,4w]`` are logits (above 0: object); ``iou [R]`` is the binary mask's estimated IoU;
    ``classes [R,K]`` add up to 1; ``present [R,K]`` is each class's own chance to be elsewhere in the picture. The last three are
    None without the semantic decoder.
    """

    binary: Tensor
    iou: Tensor
    semantic: Tensor | None
    classes: Tensor | None
    present: Tensor | None


class Segmenter(nn.Module):
    """SEG-SAM's trained half; ``texts [K,P,D_text]`` is what the text encoder said of ``config.classes`` (None: no text module)."""

    def __init__(self, config: SegmenterConfig, sam: SamConfig, texts: Tensor | None) -> None:
        super().__init__()
        wanted = (len(config.classes), config.text_parts, config.text_width) if config.text else None
        if wanted != (None if texts is None else tuple(texts.shape)):
            raise ValueError(f"the texts of the classes must be {wanted}, not {None if texts is None else tuple(texts.shape)}")
        self.config, self.sam = config, sam
        self.prompts = SamPrompts(sam)
        self.semantics = _semantic_decoder(config, sam) if config.semantics else None
        self.texts = ClassTexts(texts, known=config.summarised, width=sam.out) if texts is not None else None
        self.summary = TextSummary(sam.out, sam.decoder_heads) if config.text else None
        learned = config.semantics and not config.text
        self.learned = nn.Parameter(torch.randn(len(config.classes), sam.out)) if learned else None

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, in the order of every score."""
        return self.config.classes

    def start_from(self, published: SamPrompts) -> Segmenter:
        """Begin with SAM's prompt encoder and decoder, the semantic decoder with a copy of the latter's parts; returns self."""
        self.prompts.load_state_dict(published.state_dict())
        if self.semantics is not None:
            decoder = published.decoder
            self.semantics.transformer.load_state_dict(decoder.transformer.state_dict())
            self.semantics.upscaling.load_state_dict(decoder.output_upscaling.state_dict())
            hyper = dict(zip((0, 2, 4), decoder.output_hypernetworks_mlps[0].layers, strict=True))
            for place, layer in hyper.items():
                self.semantics.to_mask[place].load_state_dict(layer.state_dict())
            with torch.no_grad():
                self.semantics.segmentation_token.copy_(decoder.mask_tokens.weight[:1])
        return self

    def add_classes(self, names: Sequence[str], texts: Tensor) -> None:
        """Further classes and what the text encoder said of them ``[n,P,D_text]``; nothing changes for those there were.

        Raises :class:`UserError` without the text module, and for a name that is there already.
        """
        if self.texts is None:
            raise UserError("This segmenter was trained without class texts, so no class can be added; train one with text on.")
        config = dataclasses.replace(self.config, classes=(*self.names, *names))
        self.texts.texts = self.texts.extended(texts)
        self.config = config

    def classes(self) -> Tensor | None:
        """The classes' vectors ``[K,C]``; None where nothing is named and there is no text."""
        return self.texts() if self.texts is not None else self.learned

    def text_token(self, features: Tensor) -> Tensor | None:
        """The text token of each picture ``[B,1,C]``; None without the text module. It does not depend on the prompt."""
        if self.summary is None or self.texts is None:
            return None
        return self.summary(self.texts()[: self.config.summarised], features, self.place())

    def place(self) -> Tensor:
        """SAM's positional encoding of the feature map ``[1,C,h,w]``."""
        return self.prompts.prompt.get_dense_pe()

    def forward(self, features: Tensor, prompts: Prompts, *, token: Tensor | None = None) -> Masks:
        """``features [B,C,h,w]`` and R prompts → :class:`Masks`.

        ``token`` is :meth:`text_token` of the same features where it is known already: it is the same for every prompt.
        """
        token = self.text_token(features) if token is None else token
        index = prompts.picture
        if index is None:
            index = torch.zeros(len(prompts), dtype=torch.long, device=features.device)
        sparse, dense = self.prompts.prompt(
            # SAM's prompt encoder takes indices of pixels and goes to their centres itself.
            points=None if prompts.points is None else (prompts.points - 0.5, prompts.labels),
            boxes=None if prompts.boxes is None else prompts.boxes - 0.5,
            masks=self._dense(prompts),
        )
        if token is not None:
            sparse = torch.cat([sparse, token[index].to(sparse.dtype)], dim=1)
        image = features[index] + dense
        place = self.place().expand(len(image), -1, -1, -1)
        binary, iou = self._binary(image, place, sparse)
        if self.semantics is None:
            return Masks(binary, iou, None, None, None)
        classes = self.classes()
        assert classes is not None
        said = self.semantics(image, place, sparse, classes, followed=self.config.summarised)
        return Masks(binary, iou, said.mask, said.named, said.others)

    @torch.inference_mode()
    def predict(
        self,
        features: Tensor,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        *,
        masks: Tensor | None = None,
        token: Tensor | None = None,
    ) -> Prediction:
        """The answer to R prompts on one picture: ``features [1,C,h,w]``, ``points [R,P,2]``, ``labels [R,P]``, ``boxes [R,4]``.

        Without the leading R there is one prompt. As SAM recommends, a single point, which may mean a part or the whole, is
        answered with the best of three masks by their own estimate, anything else with the single mask. ``masks [R,1,4h,4w]`` are
        the logits of an earlier answer to refine. Raises ``ValueError`` where there is neither a point nor a box.
        """
        if points is not None and labels is not None and points.ndim == 2:
            points, labels = points[None], labels[None]
        boxes = boxes[None] if boxes is not None and boxes.ndim == 1 else boxes
        prompts = Prompts(_float(points), labels, _float(boxes), masks)
        out = self(features.float(), prompts, token=token)
        choice = best_mask(out.iou, ambiguous(prompts))[:, None]
        rows = torch.arange(len(prompts), device=choice.device)
        return Prediction(
            binary=out.binary[rows, choice[:, 0]],
            iou=out.iou.gather(1, choice)[:, 0],
            semantic=out.semantic,
            classes=None if out.named is None else out.named.softmax(-1),
            present=None if out.others is None else out.others.sigmoid().amax(1),
        )

    def _dense(self, prompts: Prompts) -> Tensor | None:
        """SAM's mask input ``[R,1,4h,4w]``: an earlier answer, and with ``config.dense_prompts`` where points and boxes are."""
        if not self.config.dense_prompts:
            return prompts.masks
        side = 4 * (self.sam.image_size // self.sam.patch)
        where = prompt_map(
            prompts.points, prompts.labels, prompts.boxes, image_side=self.sam.image_size, side=side
        )
        return where if prompts.masks is None else where + prompts.masks

    def _binary(self, image: Tensor, place: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
        """SAM's mask decoder for prompts on any pictures; the published one takes the prompts of one picture at a time."""
        decoder = self.prompts.decoder
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(len(image), -1, -1)
        tokens, seen = decoder.transformer(image, place, torch.cat([own.to(sparse.dtype), sparse], dim=1))
        large = decoder.output_upscaling(seen.transpose(1, 2).unflatten(2, image.shape[-2:]))
        hyper = [net(tokens[:, 1 + i]) for i, net in enumerate(decoder.output_hypernetworks_mlps)]
        masks = torch.einsum("rmc,rchw->rmhw", torch.stack(hyper, 1), large)
        return masks, decoder.iou_prediction_head(tokens[:, 0])


def ambiguous(prompts: Prompts) -> Tensor:
    """Which of R prompts are a single point and nothing else, ``[R] bool``."""
    if prompts.labels is None or prompts.boxes is not None or prompts.masks is not None:
        like = next(t for t in (prompts.boxes, prompts.points) if t is not None)
        return torch.zeros(len(prompts), dtype=torch.bool, device=like.device)
    return (prompts.labels >= 0).sum(1) == 1


def best_mask(iou: Tensor, several: Tensor) -> Tensor:
    """Which of SAM's masks answers, ``[R]``, by ``iou [R,4]``: the single one, or where ``several`` are meant the best of three."""
    return torch.where(several, 1 + iou[:, 1:].argmax(1), 0)


def _semantic_decoder(config: SegmenterConfig, sam: SamConfig) -> SemanticDecoder:
    transformer = TwoWayTransformer(
        depth=2, embedding_dim=sam.out, mlp_dim=sam.decoder_mlp, num_heads=sam.decoder_heads
    )
    # The same layers as SAM's; its decoder is made for them alone and dropped.
    upscaling = SamPrompts(sam).decoder.output_upscaling
    return SemanticDecoder(transformer, upscaling, width=sam.out, tokens=config.tokens)


def _float(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.float()
