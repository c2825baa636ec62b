"""Codecs from what params and checkpoints say: whose template it is, and what is stored of it."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chats import LLAMA3, tokenizer_of

from components.config import LanguageModel, Params
from components.errors import ConfigError
from components.models.codecs import checkpoint_codec, codec_of
from components.models.loading import load_codec
from components.models.text import Codec, TextFormat


@pytest.fixture
def settings(tiny_params: Callable[..., Params], tmp_path: Path) -> Callable[..., LanguageModel]:
    """Params of text, for the tokenizer of a family as checkpoint."""

    def of(family: str, **changes: Any) -> LanguageModel:
        folder = tmp_path / family
        tokenizer_of(family).save_pretrained(folder)
        values = {"checkpoint": str(folder), "prompt_template": None, "chat_template": "tokenizer"}
        values |= {"max_prompt_tokens": 100} | changes
        return tiny_params(language_model=values).language_model

    return of


def test_a_template_of_params_takes_the_place_of_the_tokenizers_and_is_stored_with_it(
    settings: Callable[..., LanguageModel], tmp_path: Path
) -> None:
    template = "{% for m in messages %}{{ '<|im_start|>' + m.content + '<|im_end|>' }}{% endfor %}<|im_start|>"
    codec = checkpoint_codec(settings("chatml", chat_template=template), (7,))
    codec.tokenizer.save_pretrained(tmp_path / "stored")
    codec.format.save(tmp_path / "stored")
    stored = load_codec(tmp_path / "stored")
    ids = codec.tokenizer.encode("<|im_start|>hello<|im_end|><|im_start|>", add_special_tokens=False)
    assert stored.encode_prompts(["hello"]) == codec.encode_prompts(["hello"]) == [ids]
    assert stored.format == codec.format and stored.stop_ids == codec.stop_ids == (codec.eos_id, 7)


def test_what_params_say_of_the_template_is_stored(settings: Callable[..., LanguageModel], tmp_path: Path) -> None:
    more = {"chat_template_options": {"enable_thinking": False}, "system_prompt": "Be kind."}
    codec = checkpoint_codec(settings("qwen3", **more))
    codec.tokenizer.save_pretrained(tmp_path / "stored")
    codec.format.save(tmp_path / "stored")
    assert TextFormat.load(tmp_path / "stored") == codec.format == TextFormat(None, 100, 6, (), *more.values())
    assert load_codec(tmp_path / "stored").encode_prompts(["hello"]) == codec.encode_prompts(["hello"])


def test_an_old_format_loads(tmp_path: Path) -> None:
    content = '{"max_prompt_tokens": 7, "max_response_tokens": 9, "prompt_template": "ask {prompt}"}'
    (tmp_path / "proximal.json").write_text(content)
    old = TextFormat.load(tmp_path)
    assert old == TextFormat("ask {prompt}", 7, 9)
    old.save(tmp_path)
    assert json.loads((tmp_path / "proximal.json").read_text()) == json.loads(content)


def test_an_option_that_the_template_does_not_read_is_refused(settings: Callable[..., LanguageModel]) -> None:
    with pytest.raises(ConfigError, match="does not read an option") as caught:
        checkpoint_codec(settings("chatml", chat_template_options={"enable_thinking": False}))
    assert caught.value.found == "enable_thinking"


def test_a_chat_template_that_is_not_used_is_warned_of(
    settings: Callable[..., LanguageModel], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "proximal"):
        codec = checkpoint_codec(settings("chatml", prompt_template="{prompt}", chat_template=None))
    assert "brings a chat template" in caplog.text
    assert codec.encode_prompts(["hello"]) == [tokenizer_of("chatml")("hello")["input_ids"]]


def test_a_codec_of_another_tokenizer_has_its_own_template() -> None:
    """As of a stored scorer; the same conversation becomes other tokens in each."""
    asked: Any = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello"}]
    rows = []
    for family in ("llama3", "chatml"):
        codec = codec_of(tokenizer_of(family), max_prompt_tokens=100, max_response_tokens=20)
        [row] = codec.encode_prompts([asked])
        assert row == tokenizer_of(family).apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        rows.append(row)
    assert rows[0] != rows[1]
    without = copy.deepcopy(tokenizer_of("llama3"))
    without.chat_template = None
    with pytest.raises(ConfigError, match="has no chat template"):
        codec_of(without, max_prompt_tokens=100, max_response_tokens=20)
    without.chat_template = LLAMA3
    assert isinstance(codec_of(without, max_prompt_tokens=100, max_response_tokens=20), Codec)
