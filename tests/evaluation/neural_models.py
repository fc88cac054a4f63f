"""Models of a few thousand random weights in the published formats, for the tests of the neural metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    DebertaConfig,
    DebertaForSequenceClassification,
    DebertaTokenizer,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedModel,
    RemBertConfig,
    RemBertForSequenceClassification,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaTokenizer,
)

SENTENCES = (
    "axial coronal ct mri x-ray of the chest head brain abdomen no pleural effusion pneumonia covid-19 normal study shows "
    "large small left right lobe lesion with and without contrast enhancement . ,"
)
WORDS = SENTENCES.split()
REFERENCES = [
    ["axial ct of the chest . covid-19 pneumonia ."],
    ["no pleural effusion ."],
    ["coronal mri of the brain", "mri of the head with contrast"],
    ["x-ray of the chest , normal study ."],
    ["large lesion of the left lobe without enhancement and small pleural effusion , contrast ct of the abdomen"],
    ["ct"],
]
CANDIDATES = [
    "ct of the chest shows pneumonia .",
    "pleural effusion .",
    "mri of the brain",
    "x-ray of the chest , normal study .",
    "abdomen",
    "small lesion of the right lobe with contrast enhancement , no pleural effusion and normal chest ct study",
]


def distilbert(folder: Path, *, limit: int = 32, layers: int = 3) -> Path:
    """As ``distilbert-base-uncased``: word pieces, no pooler, the head of its pre-training."""
    model = DistilBertForMaskedLM(
        DistilBertConfig(
            vocab_size=len(_pieces()), dim=32, n_layers=layers, n_heads=4, hidden_dim=64, max_position_embeddings=limit
        )
    )
    return _saved(folder, model, _wordpieces(folder, limit))


def deberta(folder: Path, *, limit: int = 32) -> Path:
    """As ``microsoft/deberta-xlarge-mnli``: byte-level BPE, disentangled attention, a classifier's head."""
    vocabulary = _bytes(["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"])
    config = DebertaConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=limit, relative_attention=True, pos_att_type=["c2p", "p2c"], position_biased_input=False,
        type_vocab_size=0, pad_token_id=vocabulary["[PAD]"],
    )  # fmt: skip
    return _saved(
        folder,
        DebertaForSequenceClassification(config),
        DebertaTokenizer(vocab=vocabulary, merges=[], model_max_length=limit),
    )


def roberta(folder: Path, *, limit: int = 64) -> Path:
    """As ``roberta-large``: byte-level BPE whose first word has a space; positions count from the padding on."""
    vocabulary = _bytes(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    config = RobertaConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=limit + 2, type_vocab_size=1, pad_token_id=1,
    )  # fmt: skip
    return _saved(folder, RobertaForMaskedLM(config), RobertaTokenizer(vocab=vocabulary, merges=[]))


def bart(folder: Path, *, limit: int = 128) -> Path:
    """As ``facebook/bart-large-cnn``; the decoder starts from ``</s>``."""
    vocabulary = _bytes(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    config = BartConfig(
        vocab_size=len(vocabulary), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=limit, init_std=0.3,
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(3)
    model = BartForConditionalGeneration(config)
    tokenizer = BartTokenizer(vocab=vocabulary, merges=[], model_max_length=limit)
    return _saved(folder, model, tokenizer, spread=False)


def bert_bleurt(folder: Path, *, limit: int = 32) -> Path:
    """As ``Elron/bleurt-base-512``: a sequence classifier as it stands."""
    config = BertConfig(**_bleurt_sizes(len(_pieces()), limit), num_labels=1)
    return _saved(folder, BertForSequenceClassification(config), _wordpieces(folder, limit))


def port_bleurt(folder: Path, *, narrow: int | None, limit: int = 64) -> tuple[Path, PreTrainedModel]:
    """As ``lucadiliello/BLEURT-20-D12`` (``narrow`` embeddings, SentencePiece) or ``lucadiliello/bleurt-base-512``.

    The second value is the library's model whose weights stand in the folder under the port's names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if narrow is None:
        _wordpieces(folder, limit).save_pretrained(folder)
        sizes = _bleurt_sizes(len(_pieces()), limit)
        model: Any = BertForSequenceClassification(BertConfig(**sizes, num_labels=1))
        inner, projection = "bert.", "bert.none"
    else:
        sizes = _bleurt_sizes(_sentencepiece(folder), limit)
        config = RemBertConfig(**sizes, input_embedding_size=narrow, bos_token_id=2, eos_token_id=3, num_labels=1)
        model = RemBertForSequenceClassification(config)
        inner, projection = "rembert.", "rembert.encoder.embedding_hidden_mapping_in."
    _spread(model)
    names = {
        name.replace(projection, "bleurt.encoder.embedding_projection.").replace(inner, "bleurt."): tensor.contiguous()
        for name, tensor in model.state_dict().items()
    }
    names["bleurt.embeddings.position_ids"] = torch.arange(limit)[None]  # a buffer that older libraries wrote
    save_file(names, folder / "model.safetensors", metadata={"format": "pt"})
    said = {
        **sizes, "embedding_size": narrow, "model_type": "bleurt", "architectures": ["BleurtForSequenceClassification"],
        "classifier_dropout": None, "use_cache": False, "torch_dtype": "float32", "position_embedding_type": "absolute",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(said))
    return folder, model.eval()


def _bleurt_sizes(vocabulary: int, limit: int) -> dict[str, int]:
    return {
        "vocab_size": vocabulary, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
        "intermediate_size": 48, "max_position_embeddings": limit, "type_vocab_size": 2, "pad_token_id": 0,
    }  # fmt: skip


def _pieces() -> list[str]:
    letters = [chr(i) for i in range(ord("a"), ord("z") + 1)]
    digits = [str(i) for i in range(10)]
    words = [word for word in WORDS if word not in letters and "-" not in word]
    return [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "-",
        *letters,
        *digits,
        *(f"##{c}" for c in letters + digits),
        *words,
    ]


def _wordpieces(folder: Path, limit: int) -> BertTokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(_pieces()) + "\n")
    return BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=limit)


def _bytes(special: list[str]) -> Mapping[str, int]:
    return {token: i for i, token in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}


def _sentencepiece(folder: Path) -> int:
    from sentencepiece import SentencePieceTrainer

    (folder / "text").write_text(
        "\n".join(text for case in REFERENCES for text in case) + "\n" + " ".join(WORDS) + "\n"
    )
    SentencePieceTrainer.train(
        input=str(folder / "text"), model_prefix=str(folder / "spm"), vocab_size=60, hard_vocab_limit=False,
        pad_id=0, unk_id=1, bos_id=2, eos_id=3, pad_piece="[PAD]", unk_piece="<unk>", bos_piece="[CLS]", eos_piece="[SEP]",
        minloglevel=2,
    )  # fmt: skip
    return 80


def _saved(folder: Path, model: PreTrainedModel, tokenizer: Any, *, spread: bool = True) -> Path:
    if spread:
        _spread(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _spread(model: PreTrainedModel) -> None:
    """Weights so large that unlike texts score unlike, the same in every test."""
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:  # a random shift or gain of all tokens would make them alike
                weight.copy_(torch.randn(weight.shape, generator=chance) * 0.3)
