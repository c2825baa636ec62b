"""Text to tokens and back, with a six-word vocabulary worked by hand, and with the trained tokenizer."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.errors import ArtifactError, DataError
from components.models.text import Codec, TextFormat, train_tokenizer

PAD, EOS, A, B, C, D = range(6)  # the ids of the word codec; it keeps 4 tokens of a prompt and 3 of a response
TEXTS = ["My printer does not start.", "Please swap the fuse.", "naïve café, 100 % – ok?", "日本語 🙂"] * 3


def test_a_long_prompt_keeps_its_end(word_codec: Codec) -> None:
    assert word_codec.encode_prompts(["a b", "a b c d", "d a b c d", "c c c c a b"]) == [
        [A, B],
        [A, B, C, D],
        [A, B, C, D],
        [C, C, A, B],
    ]


def test_the_template_dresses_the_prompt(word_codec: Codec) -> None:
    dressed = replace(word_codec, format=TextFormat("a {prompt} d", 8, 3))
    assert dressed.encode_prompts(["b c", "c"]) == [[A, B, C, D], [A, C, D]]


def test_a_tokenizer_that_closes_texts_does_not_close_prompts(word_codec: Codec) -> None:
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    closing: Any = Tokenizer.from_str(word_codec.tokenizer.backend_tokenizer.to_str())  # type: ignore[attr-defined]
    closing.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", EOS)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=closing, pad_token="<pad>", eos_token="<eos>")
    codec = replace(word_codec, tokenizer=tokenizer)
    assert codec.encode_prompts(["a b"]) == [[A, B]]
    assert codec.encode_responses(["a b"]) == [[A, B, EOS]]


def test_a_prompt_without_tokens_is_refused_by_name(word_codec: Codec) -> None:
    with pytest.raises(DataError, match=r"prompt ''"):
        word_codec.encode_prompts(["a", ""])


def test_a_response_has_its_end_token_unless_it_is_cut(word_codec: Codec) -> None:
    assert word_codec.encode_responses(["", "a", "a b", "a b c", "a b c d"]) == [
        [EOS],
        [A, EOS],
        [A, B, EOS],
        [A, B, C],
        [A, B, C],
    ]
    assert word_codec.encode_responses([]) == []


def test_decoding_stops_at_the_end_token(word_codec: Codec) -> None:
    assert word_codec.decode([[A, B, EOS], [A, EOS, B], [C, D, A], [EOS]]) == ["a b", "a", "c d a", ""]


def test_the_pad_id_is_the_end_token_where_there_is_no_pad_token(word_codec: Codec) -> None:
    assert (word_codec.pad_id, word_codec.eos_id) == (PAD, EOS)
    from transformers import PreTrainedTokenizerFast

    backend = word_codec.tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    padless = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")
    assert replace(word_codec, tokenizer=padless).pad_id == EOS


def test_any_text_survives_the_trained_tokenizer() -> None:
    codec = Codec(train_tokenizer(TEXTS, 320), TextFormat("{prompt}", 200, 200))
    assert codec.decode(codec.encode_responses([*TEXTS, "never seen: ß✓"])) == [*TEXTS, "never seen: ß✓"]
    bos = codec.tokenizer.bos_token_id
    assert all(row[0] == bos and row.count(bos) == 1 for row in codec.encode_prompts(TEXTS))
    assert all(bos not in row for row in codec.encode_responses(TEXTS))


def test_training_a_tokenizer_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for attempt in ("first", "second"):
        train_tokenizer(TEXTS, 320).save_pretrained(tmp_path / attempt)
        digests.add(hashlib.sha256((tmp_path / attempt / "tokenizer.json").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_text_format_survives_storage_and_a_broken_one_is_named(tmp_path: Path) -> None:
    text_format = TextFormat("ask: {prompt}\nanswer:", 7, 9)
    text_format.save(tmp_path)
    assert TextFormat.load(tmp_path) == text_format
    content = json.loads((tmp_path / "proximal.json").read_text())
    del content["max_prompt_tokens"]
    (tmp_path / "proximal.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=r"proximal\.json"):
        TextFormat.load(tmp_path)
    (tmp_path / "proximal.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"proximal\.json"):
        TextFormat.load(tmp_path)
