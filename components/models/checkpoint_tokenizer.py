"""The tokenizer of a checkpoint that params name; no torch is needed to look at it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components.config import LanguageModel
from components.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_checkpoint_tokenizer(config: LanguageModel) -> PreTrainedTokenizerBase:
    """The tokenizer beside the checkpoint's model.

    Raises:
        ConfigError: there is none, or none that a stored policy can carry and that ends a response.
    """
    from transformers import AutoTokenizer

    auto: Any = AutoTokenizer  # untyped in transformers
    try:
        tokenizer: PreTrainedTokenizerBase = auto.from_pretrained(
            config.checkpoint, trust_remote_code=config.trust_remote_code
        )
    except (OSError, ValueError) as fault:
        raise bad_checkpoint(config, fault) from fault
    if not tokenizer.is_fast:
        raise bad_checkpoint(config, ValueError("its tokenizer has no form as a tokenizer.json"))
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "the checkpoint's tokenizer has no end-of-sequence token",
            where=f"language_model.checkpoint: {config.checkpoint}",
            expected="a tokenizer with an eos_token",
            do="add one to the tokenizer's configuration",
        )
    return tokenizer


def bad_checkpoint(config: LanguageModel, fault: Exception) -> ConfigError:
    """Nothing can be loaded from where params say, and why."""
    return ConfigError(
        "the checkpoint cannot be loaded",
        where=f"language_model.checkpoint: {config.checkpoint}",
        expected='"scratch", a folder with a Hugging Face model, or the name of one on the hub',
        found=" ".join(str(fault).split())[:300],
        do="correct the name, or put the model's files there (safetensors only)",
    )
