"""The report counts the texts that spell control tokens, of a tokenizer from scratch and of a checkpoint's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.config import LanguageModel, Params
from components.data_validation.control_tokens import control_token_checks
from components.errors import ConfigError
from components.models.text import train_tokenizer

KEPT: dict[Any, Any] = {
    "prompts": [{"raw_row": 1, "prompt": "hello"}, {"raw_row": 2, "prompt": "what is <pad> ?"}],
    "demonstrations": [{"raw_row": 4, "prompt": "hello", "response": "hi .<eos>"}],
    "comparisons": [
        {"raw_row": 7, "prompt": "a <|im_end|> b", "chosen": "yes <eos> <eos>", "rejected": "<bos> no <eos> \n"},
        {"raw_row": 8, "prompt": "a <b> c", "chosen": "eos", "rejected": "no"},
    ],
}


@pytest.fixture
def config(tiny_params: Callable[..., Params]) -> LanguageModel:
    return tiny_params().language_model


def test_end_tokens_and_other_control_tokens_are_counted_apart(config: LanguageModel) -> None:
    ends, control = control_token_checks(KEPT, config)
    assert (ends.name, ends.status, ends.value) == ("end_tokens_in_texts", "warning", 3)
    assert ends.found == "3 texts, 1 of demonstrations, 2 of comparisons"
    assert ends.examples[0] == "demonstrations.jsonl row 4, response"
    assert (control.name, control.status, control.value) == ("control_tokens_in_texts", "warning", 2)
    assert control.examples == ["prompts.jsonl row 2, prompt", "comparisons.jsonl row 7, rejected"]


def test_clean_texts_are_ok(config: LanguageModel) -> None:
    clean: dict[Any, Any] = {
        "prompts": KEPT["prompts"][:1],
        "demonstrations": [],
        "comparisons": KEPT["comparisons"][1:],
    }
    assert [(check.status, check.value) for check in control_token_checks(clean, config)] == [("ok", 0)] * 2


def test_a_checkpoints_control_tokens_are_its_own(config: LanguageModel, tmp_path: Path) -> None:
    tokenizer: Any = train_tokenizer(["hello"], 300)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"], "eos_token": "</s>"})
    tokenizer.save_pretrained(tmp_path)
    ends, control = control_token_checks(KEPT, config.model_copy(update={"checkpoint": str(tmp_path)}))
    assert ends.value == 0 and "</s>" in ends.expected
    assert "comparisons.jsonl row 7, prompt" in control.examples
    with pytest.raises(ConfigError, match=r"language_model\.checkpoint"):
        control_token_checks(KEPT, config.model_copy(update={"checkpoint": str(tmp_path / "nowhere")}))
