"""The settings of the paper's two stages, each with its source; what the paper leaves open is read in its repository.

Sources: *paper* (Sections 2 and 3.1); *stage1*, *stage2* (``pretrain_stage1.yaml`` and ``pretrain_stage2.yaml`` below
``lavis/projects/blip2/train`` in AHandsomePython/MSMedCap); *final* (its ``config/train.yaml``, the dual-branch runs); *LAVIS* (the
code all of it stands on); *ours* (no source has it). Comes in: nothing. Goes out: :data:`STAGE_1`, :data:`STAGE_2`. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageDefaults:
    """One stage's settings; counts of steps and pictures are global, over all processes.

    - ``epochs``: paper, three for each stage (stage2 says 5, final 4).
    - ``batch``: stage1 8 on each of two processes, stage2 4 on each of two.
    - ``lr``, ``min_lr``, ``start_lr``: stage1, stage2 and final (``init_lr``, ``min_lr``, ``warmup_lr``).
    - ``warmup``: steps from ``start_lr`` to ``lr``; stage1 5,000, stage2 and final 2,000.
    - ``weight_decay``: stage1, stage2 and final; LAVIS spares vectors (biases, norms) from it.
    - ``betas``: LAVIS' runner, and final (``beta2``).
    - ``clip``: the largest norm of the gradient; ours, LAVIS clips nothing.
    - ``seed``: stage1, stage2 and final.
    - ``text_length``: tokens of a caption; LAVIS (``max_txt_len`` of blip2_qformer and of blip2_opt, there with the prompt's).
    """

    epochs: int
    batch: int
    warmup: int
    lr: float = 1e-4
    min_lr: float = 1e-5
    start_lr: float = 1e-6
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    seed: int = 42
    text_length: int = 32


@dataclass(frozen=True)
class AlignmentOptions:
    """What stage 1's objectives can be told.

    - ``smoothing``: of the targets of ITC and ITG; LAVIS' blip2_qformer.
    - ``temperature``: where ITC's learned temperature begins; LAVIS' blip2_qformer.
    - ``hard_after``: how many batches of uniform negatives ITM has before the hard ones; 0 is LAVIS, which draws hard ones from the
      start. A training of a few hundred steps that stays at ITM's prior (0.64: two wrong pairs for a right one) may begin with
      easier ones; ours.
    """

    smoothing: float = 0.1
    temperature: float = 0.07
    hard_after: int = 0


STAGE_1 = StageDefaults(epochs=3, batch=16, warmup=5000)
STAGE_2 = StageDefaults(epochs=3, batch=8, warmup=2000)

# Read after the queries and not scored in stage 2 (the repository's caption_coco_ft.yaml).
PROMPT = "a photo of"
# Whose weights a Q-Former begins with that BLIP-2 has none for, and whose tokenizer, with [DEC] added, its text half reads with
# (LAVIS' init_Qformer and init_tokenizer).
BERT = "google-bert/bert-base-uncased"
