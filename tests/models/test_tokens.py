"""Captions as ids: how they begin and end, what is cut off, and BERT's tokenizer with BLIP-2's token for decoding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msmedcap.models.tokens import load_text_tokenizer, load_tokenizer, padded
from tests import sizes

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "mass", "on", "the", "left", ".", "cy", "##st"]


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A BERT's tokenizer as the hub keeps it."""
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}))
    return tmp_path


def test_a_bert_tokenizer_gets_dec_as_its_last_word(bert: Path) -> None:
    tokenizer = load_text_tokenizer(bert)
    assert tokenizer.get_vocab()["[DEC]"] == len(VOCAB)
    assert len(tokenizer) == len(VOCAB) + 1
    assert tokenizer.bos_token == "[DEC]"
    assert len(load_tokenizer(bert)) == len(VOCAB)


def test_a_tokenizer_that_has_dec_keeps_it(bert: Path) -> None:
    load_text_tokenizer(bert).save_pretrained(bert)
    tokenizer = load_text_tokenizer(bert)
    assert (len(tokenizer), tokenizer.get_vocab()["[DEC]"]) == (len(VOCAB) + 1, len(VOCAB))


def test_our_tokenizer_is_loaded_as_it_is(tmp_path: Path) -> None:
    sizes.tokenizer().save_pretrained(tmp_path)
    assert load_text_tokenizer(tmp_path).get_vocab() == sizes.tokenizer().get_vocab()


def test_bert_reads_a_caption_between_cls_and_sep(bert: Path) -> None:
    tokenizer = load_text_tokenizer(bert)
    ids = padded(["A cyst on the left.", "Mass."], tokenizer, 32)
    assert ids.tolist() == [[2, 5, 11, 12, 7, 8, 9, 10, 3], [2, 6, 10, 3, 0, 0, 0, 0, 0]]
    assert ids[0].tolist() == tokenizer("A cyst on the left.").input_ids


def test_ours_reads_a_caption_between_begin_and_end() -> None:
    tokenizer = sizes.tokenizer()
    ids = padded(["Mass."], tokenizer, 32)[0].tolist()
    assert ids == [tokenizer.bos_token_id, *tokenizer("Mass.", add_special_tokens=False).input_ids, tokenizer.eos_token_id]


@pytest.mark.parametrize("words", [29, 30, 31, 700])
def test_what_is_too_long_loses_its_last_words_and_keeps_its_end(bert: Path, words: int) -> None:
    tokenizer = load_text_tokenizer(bert)
    text = " ".join((["a", "mass", "left"] * words)[:words])
    ids = padded([text], tokenizer, 32)
    # As the tokenizer itself cuts at 32.
    assert ids[0].tolist() == tokenizer(text, truncation=True, max_length=32).input_ids
    assert ids.shape[1] == min(words + 2, 32)
