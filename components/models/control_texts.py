"""The texts that a tokenizer reads as control tokens, such as "</s>"."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def control_texts(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The texts that stand for control tokens, such as "</s>"."""
    named = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    texts = named + [text for text in tokenizer.all_special_tokens if text not in named]
    return list(filter(None, texts))


def without_end(text: str, ends: Iterable[str]) -> str:
    """A text without the end tokens that are spelled at its end, and without the space around them."""
    ends, left = tuple(ends), text
    while (bare := left.rstrip()).endswith(ends):
        left = next(bare.removesuffix(end) for end in ends if bare.endswith(end))
    return text if left is text else left.rstrip()
