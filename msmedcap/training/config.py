"""What a training is: its task, its data, its pace, as one frozen dataclass that is read from and written to JSON. No torch.

Comes in: a JSON object (:func:`msmedcap.config.from_json`, strict), or keyword arguments. Goes out: :class:`TrainConfig`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from msmedcap.config import LoopConfig, UserError
from msmedcap.training.segment_config import SegmentTraining


@dataclass(frozen=True)
class DataPart:
    """One data set of a training's mixture.

    ``name`` is a reader of :data:`msmedcap.data.sets.READERS`, or ``"shards"`` for a folder of them; ``path`` its folder or file.
    ``kind`` is "G" (general pictures) or "M" (medical ones), ``weight`` how often the part is drawn beside the others. ``select``
    names a selection (:data:`msmedcap.data.sets.SELECTIONS`), which with ``fewer`` may be smaller than its name says; ``clean``
    takes the figure's apparatus out of the captions.
    """

    name: str
    path: str
    split: str = "train"
    kind: str = "M"
    weight: float = 1.0
    select: str = ""
    fewer: bool = False
    clean: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("G", "M"):
            raise UserError(f"The kind of {self.name} is {self.kind!r}; it must be G (general) or M (medical).")
        if not 0 < self.weight < float("inf"):
            raise UserError(f"The weight of {self.name} is {self.weight}; it must be above 0 (leave the part out instead).")


@dataclass(frozen=True)
class TrainConfig:
    """One training: stage 1 of a branch (``task`` "alignment"), stage 2 of a system ("captioning"), or SEG-SAM ("segmentation").

    What has a source is said with it; *paper*, *stage1*, *LAVIS* and *ours* are those of :mod:`msmedcap.training.defaults`.

    - ``models``: whose frozen encoders and OPT are used: ``demo``, ``full`` or a folder. ``branch``: the branch that is aligned;
      ``system``: the system that learns to caption.
    - ``data``: paper, Fig. 3 (G or G+M in stage 1, M in stage 2); the weights are ours, the paper gives none.
    - ``val``: pictures for the loss at the end and the samples, of which ``val_count`` are drawn; ours.
    - ``init``: what each branch begins with, ``{view: (start, …)}``, in stage 1 laid over each other, in stage 2 one; Section 2.2
      and LAVIS' init_Qformer. Nothing: drawn.
    - ``tokenizer``: of the Q-Former's text half, a folder or hub id; LAVIS has BERT's. "": OPT's own, as at demo scale.
    - ``text_length``: the tokens of a caption that are read or learnt; LAVIS, 32 (0: the models' own in stage 1, 64 in stage 2).
    - ``batch``: pictures of an optimiser step, over all processes and micro batches (ITC sees one micro batch); stage1, stage2.
    - ``epochs``: paper, 3: how often all pictures go by; above 0 it decides ``loop.steps``.
    - ``loop``: pace and length; ``lr``, ``min_lr``, ``start_lr``, ``warmup``, ``weight_decay``: stage1, stage2; ``betas``: LAVIS;
      ``clip``, ``precision`` (LAVIS: fp16), ``save_every``, ``keep``: ours.
    - ``cache``: a folder in which the frozen encoders' features are kept, so that each picture is encoded once; ours. "": none.
    - ``seed``: of all that is drawn, ``loop.seed`` with it; stage1.
    - ``augment``: how far the pictures are changed at random, 0 to 1, with mirror images whose captions' sides are swapped; ours
      (LAVIS crops and mirrors without regard to sides). Not with ``cache``, which knows each picture as it is.
    - ``hard_after``: batches of stage 1 before ITM has hard negatives; LAVIS, 0 (:class:`.defaults.AlignmentOptions`).
    - ``called``: what the trained system is called ("": as ``system``); ``table1`` knows its rows by names such as MSMedCap-G-GM.
    - ``out``: the run's folder. ``out_models``: in stage 2, the model folder to write besides; of SEG-SAM, the one it is put into.
    - ``segments``: what SEG-SAM has besides; of the above it reads all but ``branch``, ``system``, ``init``, ``tokenizer``,
      ``text_length``, ``augment`` and ``hard_after``, and its data are sets of masks (:data:`msmedcap.data.segments.READERS`).
    """

    task: str
    data: tuple[DataPart, ...]
    loop: LoopConfig
    models: str = "demo"
    branch: str = ""
    system: str = ""
    val: tuple[DataPart, ...] = ()
    val_count: int = 1000
    init: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    tokenizer: str = ""
    text_length: int = 0
    batch: int = 16
    epochs: float = 0.0
    cache: str = ""
    seed: int = 0
    augment: float = 0.0
    out: str = ""
    out_models: str = ""
    called: str = ""
    hard_after: int = 0
    segments: SegmentTraining | None = None

    def __post_init__(self) -> None:
        if not self.data:
            raise UserError("A training needs data; give it at least one part.")
        if self.batch < 1 or self.batch % self.loop.accumulate:
            raise UserError(f"batch is {self.batch}; it must be a multiple of loop.accumulate ({self.loop.accumulate}).")
        if self.loop.seed not in (0, self.seed):
            raise UserError(f"seed is {self.seed} and loop.seed {self.loop.seed}; give seed alone.")
        if not 0 <= self.augment <= 1 or self.epochs < 0:
            raise UserError(f"augment ({self.augment}) must be from 0 to 1, and epochs ({self.epochs}) not below 0.")
        if self.augment and self.cache:
            raise UserError("A cache knows each picture as it is; set augment to 0, or train without cache.")
