"""Conversations that nothing could read are refused with the data, before SFT is paid for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chats import tokenizer_of

from components.config import LanguageModel, Params
from components.data_validation.chat_checks import require_readable_conversations
from components.errors import ConfigError

SYSTEM = {"role": "system", "content": "Be kind."}
ROW: dict[str, Any] = {
    "raw_row": 4,
    "prompt": "x",
    "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ],
}


@pytest.fixture
def settings(tiny_params: Callable[..., Params], tmp_path: Path) -> Callable[..., LanguageModel]:
    def of(family: str, **changes: Any) -> LanguageModel:
        tokenizer_of(family).save_pretrained(tmp_path / family)
        values = {"checkpoint": str(tmp_path / family), "prompt_template": None, "chat_template": "tokenizer"} | changes
        return tiny_params(language_model=values).language_model

    return of


def test_conversations_need_a_chat_template(tiny_params: Callable[..., Params]) -> None:
    plain = tiny_params().language_model
    require_readable_conversations({"prompts": [{"raw_row": 1, "prompt": "x"}], "comparisons": []}, plain)
    with pytest.raises(ConfigError, match="no chat template for messages") as caught:
        require_readable_conversations({"prompts": [{"raw_row": 1, "prompt": "x"}], "comparisons": [ROW]}, plain)
    assert "comparisons" in caught.value.found and "4" in caught.value.found


def test_a_template_that_takes_no_system_turn_is_refused_where_a_row_has_one(
    settings: Callable[..., LanguageModel],
) -> None:
    require_readable_conversations({"prompts": [ROW]}, settings("gemma"))
    asked = ROW | {"messages": [SYSTEM, ROW["messages"][0]]}
    require_readable_conversations({"prompts": [asked]}, settings("chatml"))
    with pytest.raises(ConfigError, match="takes no system turn"):
        require_readable_conversations({"prompts": [ROW], "demonstrations": [asked]}, settings("gemma"))


def test_a_template_is_tried_where_all_prompts_are_texts_too(settings: Callable[..., LanguageModel]) -> None:
    with pytest.raises(ConfigError, match="does not round-trip"):
        require_readable_conversations({"prompts": []}, settings("qwen3"))
    sound = {"chat_template_options": {"enable_thinking": False}}
    require_readable_conversations({"prompts": []}, settings("qwen3", **sound))
