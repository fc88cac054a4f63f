"""What the neural metrics are: names, columns, direction, Table 1's scale, source, and where each is known to mislead."""

from __future__ import annotations

from msmedcap.evaluation.metric import Metric

BERTSCORE = Metric(
    name="BERTScore",
    column="BERTScore",
    higher_is_better=True,
    scale=2,
    source="T. Zhang et al., BERTScore: Evaluating Text Generation with BERT, ICLR 2020; F1.",
    misleads='BERTScore gives 0.893 to "No pleural effusion." against "Pleural effusion.": it hardly notices a negation; '
    "read the clinical facts beside it.",
    definition="F1 of tokens matched one by one with the most similar token of the other text, by cosine in a layer of a language "
    "model; mean over the cases, the best of several references.",
)
BARTSCORE = Metric(
    name="BARTScore",
    column="BARTScore",
    higher_is_better=True,
    scale=0,
    source="W. Yuan et al., BARTScore: Evaluating Generated Text as Text Generation, NeurIPS 2021; mean log-probability.",
    misleads="BARTScore is a log-probability: it rewards fluent, common words, and its numbers compare only under one model "
    "and one direction.",
    definition="Mean log-probability (natural) that an encoder-decoder gives to the tokens of one text after reading the other, "
    "by default the candidate after the reference; mean over the cases and their references.",
)
BLEURT = Metric(
    name="BLEURT",
    column="BLEURT",
    higher_is_better=True,
    scale=1,
    source="T. Sellam, D. Das and A. Parikh, BLEURT: Learning Robust Metrics for Text Generation, ACL 2020.",
    misleads="BLEURT learned from ratings of translated news, not from radiologists; its numbers compare only under one model.",
    definition="What a model trained on people's ratings gives a candidate beside its reference, about 0 to 1; mean over the "
    "cases, the best of several references.",
)
METRICS = (BERTSCORE, BARTSCORE, BLEURT)
