"""How long texts are in tokens, where the tokenizer is there already. No torch is needed for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from components.config import LanguageModel
from components.models.checkpoint_tokenizer import load_checkpoint_tokenizer

BATCH = 1000


def token_counter(config: LanguageModel) -> Callable[[Sequence[str]], list[int]] | None:
    """What counts the tokens of texts by the checkpoint's tokenizer: the texts' own, without a template around them.

    None of a scratch model, whose tokenizer is trained later.

    Raises:
        ConfigError: the tokenizer cannot be loaded.
    """
    if config.checkpoint == "scratch":
        return None
    tokenizer = load_checkpoint_tokenizer(config)

    def count(texts: Sequence[str]) -> list[int]:
        lengths: list[int] = []
        for start in range(0, len(texts), BATCH):
            rows = tokenizer(
                list(texts[start : start + BATCH]),
                add_special_tokens=False,
                split_special_tokens=True,
                return_attention_mask=False,
            )["input_ids"]
            lengths += map(len, rows)
        return lengths

    return count
