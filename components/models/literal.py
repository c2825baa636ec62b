"""Texts in which some control tokens are meant and others are only spelled, tokenised in one piece."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from components.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Names are taken from the ends of the two planes of private characters: no font and no text uses these.
_MEANT, _SPELLED = 0xFFFFD, 0x10FFFD


class Literal:
    """Tells control tokens that are meant from those that a text spells.

    A copy of the tokenizer knows every control token by a private character in place of its text, which is then text
    like any other: what is spelled merges with its surroundings as words do, and all else becomes the same tokens as
    ever. A text's own characters of those few become U+FFFD, so that it cannot pass for a control token.

    Args:
        control: the texts of control tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, control: Sequence[str]) -> None:
        known = tokenizer.added_tokens_encoder
        control = [text for text in control if text in known]
        self._tokenizer = tokenizer
        self._meant = {text: chr(_MEANT - number) for number, text in enumerate(control)}
        self._spelled = {text: chr(_SPELLED - number) for number, text in enumerate(control)}
        self._texts = {name: text for text, name in self._spelled.items()}
        self.pattern = pattern_of(control)
        self._private = re.compile("[" + "".join((*self._meant.values(), *self._texts)) + "]" if control else "(?!)")

    def spell(self, text: str, pattern: re.Pattern[str] | None = None) -> str:
        """A text with a stand-in for each control token that it spells.

        Args:
            pattern: of those that count; None for all.
        """
        return (pattern or self.pattern).sub(lambda found: self._spelled[found[0]], self.sanitised(text))

    def sanitised(self, text: str) -> str:
        """A text without characters that are stand-ins or names here."""
        return self._private.sub("\N{REPLACEMENT CHARACTER}", text)

    def spelled_out(self, text: str) -> str:
        """A text whose stand-ins are again what they stand for."""
        return self._private.sub(lambda found: self._texts.get(found[0], found[0]), text)

    def mean(self, text: str) -> str:
        """A text for `encode`: the control tokens that stand in it are meant, its stand-ins are spelled."""
        return self.spelled_out(self.pattern.sub(lambda found: self._meant[found[0]], text))

    def encode(self, texts: Sequence[str]) -> list[Any]:
        """Encodings, with `ids` and `offsets`, of texts that `mean` has made."""
        encodings: list[Any] = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return encodings

    @cached_property
    def _backend(self) -> Any:
        from tokenizers import Tokenizer

        content = json.loads(self._tokenizer.backend_tokenizer.to_str())
        content["truncation"] = content["padding"] = None
        for token in content["added_tokens"]:
            token["content"] = self._name(token["content"])
        model = content["model"]
        vocabulary = model["vocab"]
        if isinstance(vocabulary, dict):
            model["vocab"] = {self._name(text): number for text, number in vocabulary.items()}
        else:  # pieces with their scores
            model["vocab"] = [[self._name(text), score] for text, score in vocabulary]
        if isinstance(model.get("unk_token"), str):
            model["unk_token"] = self._name(model["unk_token"])
        made: Any = Tokenizer.from_str(json.dumps(content, ensure_ascii=False))
        for text, name in self._meant.items():
            if made.encode(name, add_special_tokens=False).ids != [self._tokenizer.convert_tokens_to_ids(text)]:
                raise ConfigError(
                    "the tokenizer cannot tell a control token from a text that spells it",
                    where=f"the control token {text}",
                    expected="a tokenizer whose control tokens can be renamed",
                    found=str(self._tokenizer.name_or_path),
                    do="take that text out of the data, or take another tokenizer",
                )
        return made

    def _name(self, text: str) -> str:
        return self._meant.get(text, text)


def pattern_of(texts: Sequence[str]) -> re.Pattern[str]:
    """Matches any of the texts, the longest first, as tokenizers do; nothing where there are none."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)")
